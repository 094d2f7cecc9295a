//! The linear baseline on every order and seed that the methods are run on.

use std::{collections::BTreeSet, time::Instant};

use anyhow::Context;
use moe_cl::{
    config::Split,
    data::{Dataset, Record, Records, TaskData},
    metrics::AccuracyMatrix,
};

use super::{Cell, Options, Outcome, Run, linear::Linear, suite::with_root};

/// Name of the baseline in tables.
pub const NAME: &str = "linear (TF-IDF)";

/// Penalties that dev chooses among; the second where there is no dev to choose on.
const PENALTIES: [f64; 3] = [1.0, 10.0, 100.0];

/// A run of the baseline for each order and seed of `cells`, on the same training and test records as the methods; texts are not cut.
pub fn runs(options: &Options, cells: &[Cell]) -> Vec<Run> {
    let places: BTreeSet<(usize, u64)> = cells.iter().map(|cell| (cell.order, cell.seed)).collect();
    places
        .into_iter()
        .map(|(order, seed)| Run {
            method: NAME.into(),
            order,
            seed,
            outcome: outcome(options, order, seed)
                .map_err(|error| format!("{error:#}").replace('\n', " ")),
        })
        .collect()
}

fn outcome(options: &Options, order: usize, seed: u64) -> anyhow::Result<Outcome> {
    let sets: Vec<String> = std::iter::once(format!("seed={seed}"))
        .chain(options.set.iter().cloned())
        .collect();
    let experiment = options.suite.experiment(order, options.budget, &sets)?;
    let experiment = with_root(experiment, options.data.as_deref())?;
    let (mut texts, mut parameters, mut seconds) = (Vec::new(), 0, 0.0);
    let mut tasks = Vec::new();
    for index in 0..experiment.tasks.len() {
        let task = TaskData::load(&experiment, index)?;
        let start = Instant::now();
        let train = labelled(&task.train, &task)?;
        let (split, penalties) = match experiment.evaluation.split {
            // What is reported on is not chosen on.
            Split::Dev => (&task.dev, &PENALTIES[1..2]),
            Split::Test if task.dev.is_empty() => (&task.test, &PENALTIES[1..2]),
            Split::Test => (&task.test, &PENALTIES[..]),
        };
        let dev = labelled(&task.dev, &task)?;
        let (model, _) = penalties
            .iter()
            .map(|&penalty| {
                let texts: Vec<&str> = train.0.iter().map(String::as_str).collect();
                let model = Linear::learn(&texts, &train.1, task.labels.len(), penalty);
                let named = answers(&model, &dev)
                    .into_iter()
                    .filter(|right| *right)
                    .count();
                (model, named)
            })
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .context("no penalty to choose")?;
        seconds += start.elapsed().as_secs_f64();
        parameters += model.parameters();
        let right = answers(&model, &labelled(split, &task)?);
        texts.push(
            right
                .into_iter()
                .map(|right| f64::from(u8::from(right)))
                .collect::<Vec<f64>>(),
        );
        tasks.push(task.name);
    }
    let count = tasks.len();
    let accuracy = |texts: &Vec<f64>| {
        (!texts.is_empty()).then(|| texts.iter().sum::<f64>() / texts.len() as f64)
    };
    let scores: Vec<Option<f64>> = texts.iter().map(accuracy).collect();
    // A model per task never moves again; before its task it does not exist.
    let row = |after: usize| {
        let score = |task: usize| if task <= after { scores[task] } else { None };
        (0..count).map(score).collect()
    };
    Ok(Outcome {
        matrix: AccuracyMatrix {
            rows: (0..count).map(row).collect(),
            baseline: vec![None; count],
        },
        tasks,
        texts,
        trainable: Some(parameters as f64 / count as f64),
        bytes: Some(8.0 * parameters as f64 / count as f64),
        seconds: Some(seconds / count as f64),
        ..Outcome::default()
    })
}

/// Which texts the model names rightly.
fn answers(model: &Linear, (texts, labels): &Labelled) -> Vec<bool> {
    let pairs = texts.iter().zip(labels);
    pairs
        .map(|(text, label)| model.predict(text) == *label)
        .collect()
}

/// Texts and their classes.
type Labelled = (Vec<String>, Vec<usize>);

fn labelled(records: &Records, task: &TaskData) -> anyhow::Result<Labelled> {
    let mut pairs = (Vec::new(), Vec::new());
    for row in records.iter() {
        let Record::Classification { text, label } = row?.record else {
            anyhow::bail!(
                "task {}: the linear baseline needs texts with labels",
                task.name
            );
        };
        let class = task.labels.iter().position(|known| *known == label);
        pairs
            .1
            .push(class.with_context(|| format!("unknown label {label}"))?);
        pairs.0.push(text);
    }
    Ok(pairs)
}
