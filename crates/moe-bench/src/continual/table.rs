//! The runs in one table.

use std::collections::BTreeMap;

use moe_report::Spread;
use serde::Serialize;

use super::{
    Options, Outcome, Run,
    bootstrap::{Difference, paired},
    figures::{FIGURES, References},
    steps::StepTimes,
    stripping::{Strip, TARGETS},
};

/// Everything that the comparison found.
#[derive(Debug, Serialize)]
pub struct Table<'a> {
    /// Name of the suite.
    pub suite: &'static str,
    /// Name of the budget.
    pub budget: &'static str,
    /// A row per method.
    pub rows: Vec<Row>,
    /// A row per pair of methods.
    pub differences: Vec<Pair>,
    /// A row per method and task, where stripping rates were measured.
    pub stripping: Vec<StrippedTask>,
    /// A row per method: the time of its steps.
    pub steps: Vec<StepTimes>,
    /// The runs behind it, failed ones included.
    pub runs: &'a [Run],
}

/// The figures of a method.
#[derive(Debug, Serialize)]
pub struct Row {
    /// As it was named.
    pub method: String,
    /// Runs that came to their end.
    pub finished: usize,
    /// Runs that were asked for.
    pub asked: usize,
    /// Why the others did not, each reason once.
    pub failures: Vec<String>,
    /// One value per entry of [`FIGURES`].
    pub values: Vec<Option<Value>>,
    /// AvgAcc by number of the order.
    pub per_order: BTreeMap<usize, Value>,
}

/// A figure over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Value {
    /// Mean over the seeds, each the mean over its orders.
    pub mean: f64,
    /// Standard deviation over the seeds (n − 1); none for one.
    pub std: Option<f64>,
}

/// Two methods on the same texts.
#[derive(Debug, Serialize)]
pub struct Pair {
    /// First method.
    pub first: String,
    /// Second method.
    pub second: String,
    /// Orders and seeds on which both finished.
    pub runs: usize,
    /// AvgAcc of the first, less that of the second.
    pub difference: Difference,
}

/// Stripping rates of a method on a task.
#[derive(Debug, Serialize)]
pub struct StrippedTask {
    /// The method.
    pub method: String,
    /// The task.
    pub task: String,
    /// For each target: precision asked for, rate before, after and at the end, precision on test at the end; means over the runs.
    pub targets: Vec<[Option<f64>; 5]>,
}

impl<'a> Table<'a> {
    /// Puts the runs of a comparison together.
    pub fn new(options: &Options, runs: &'a [Run], steps: Vec<StepTimes>) -> Self {
        let mut methods: Vec<&str> = Vec::new();
        for run in runs {
            if !methods.contains(&run.method.as_str()) {
                methods.push(&run.method);
            }
        }
        let of = |method: &str| -> Vec<&Run> {
            runs.iter().filter(|run| run.method == method).collect()
        };
        let pairs = methods.iter().enumerate().flat_map(|(index, first)| {
            let rest = methods[index + 1..].iter();
            rest.filter_map(|second| pair(&of(first), &of(second)))
        });
        Self {
            suite: options.suite.name(),
            budget: options.budget.name(),
            rows: methods
                .iter()
                .map(|method| row(&of(method), runs))
                .collect(),
            differences: pairs.collect(),
            stripping: methods
                .iter()
                .flat_map(|method| stripped(&of(method)))
                .collect(),
            steps,
            runs,
        }
    }
}

fn row(own: &[&Run], all: &[Run]) -> Row {
    let finished: Vec<(&Run, &Outcome)> = finished(own).collect();
    let mut failures: Vec<String> = own
        .iter()
        .filter_map(|run| run.outcome.clone().err())
        .collect();
    failures.dedup();
    let values = FIGURES.iter().map(|figure| {
        let value = |(run, outcome): &(&Run, &Outcome)| {
            (
                run.seed,
                (figure.value)(outcome, &references(run, outcome, all)),
            )
        };
        over_seeds(finished.iter().map(value))
    });
    let mut per_order = BTreeMap::new();
    for (run, _) in &finished {
        let same = finished
            .iter()
            .filter(|(other, _)| other.order == run.order);
        let scores = same.map(|(run, outcome)| (run.seed, outcome.matrix.summary().avg_acc));
        per_order.extend(over_seeds(scores).map(|value| (run.order, value)));
    }
    Row {
        method: own[0].method.clone(),
        finished: finished.len(),
        asked: own.len(),
        failures,
        values: values.collect(),
        per_order,
    }
}

fn finished<'r>(runs: &[&'r Run]) -> impl Iterator<Item = (&'r Run, &'r Outcome)> {
    runs.iter()
        .filter_map(|&run| Some((run, run.outcome.as_ref().ok()?)))
}

/// Mean over each seed's values, then mean and deviation over the seeds: orders are no repetitions.
fn over_seeds(values: impl Iterator<Item = (u64, Option<f64>)>) -> Option<Value> {
    let mut seeds: BTreeMap<u64, Vec<Option<f64>>> = BTreeMap::new();
    for (seed, value) in values {
        seeds.entry(seed).or_default().push(value);
    }
    let means = seeds
        .into_values()
        .map(|values| Spread::of(values).map(|spread| spread.mean));
    Spread::of(means).map(|Spread { mean, deviation }| Value {
        mean,
        std: deviation,
    })
}

/// What the methods `joint` and `per_task` reached on the order and seed of `run`, where they were run.
fn references(run: &Run, outcome: &Outcome, all: &[Run]) -> References {
    let other = |name: &str| {
        let same = |other: &&Run| {
            other.method == name && other.order == run.order && other.seed == run.seed
        };
        let other = all.iter().find(same)?.outcome.as_ref().ok()?;
        (other.tasks == outcome.tasks).then_some(other)
    };
    References {
        joint: other("joint").map(Outcome::at_the_end),
        alone: other("per_task").map(|outcome| outcome.matrix.when_learnt()),
    }
}

fn pair(first: &[&Run], second: &[&Run]) -> Option<Pair> {
    let mut texts: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    let mut runs = 0;
    for (run, a) in finished(first) {
        let same =
            |(other, _): &(&Run, &Outcome)| other.order == run.order && other.seed == run.seed;
        let Some((_, b)) = finished(second).find(same) else {
            continue;
        };
        if a.tasks != b.tasks {
            continue;
        }
        runs += 1;
        for (task, (a, b)) in a.tasks.iter().zip(a.texts.iter().zip(&b.texts)) {
            let sums = texts
                .entry(task)
                .or_insert_with(|| vec![(0.0, 0.0); a.len()]);
            for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                sum.0 += a;
                sum.1 += b;
            }
        }
    }
    let count = runs as f64;
    let means: Vec<Vec<(f64, f64)>> = texts
        .into_values()
        .map(|sums| {
            sums.into_iter()
                .map(|(a, b)| (a / count, b / count))
                .collect()
        })
        .collect();
    Some(Pair {
        first: first[0].method.clone(),
        second: second[0].method.clone(),
        runs,
        difference: paired(&means, 0)?,
    })
}

fn stripped(runs: &[&Run]) -> Vec<StrippedTask> {
    let mut tasks: Vec<&String> = Vec::new();
    for task in finished(runs).flat_map(|(_, outcome)| &outcome.tasks) {
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let rows = tasks.into_iter().filter_map(|task| {
        let courses: Vec<_> = finished(runs)
            .filter_map(|(_, outcome)| {
                let index = outcome.tasks.iter().position(|other| other == task)?;
                outcome.stripping.as_ref()?.get(index).copied()
            })
            .collect();
        let mean = |value: &dyn Fn(usize) -> Option<f64>| {
            Spread::of((0..courses.len()).map(value)).map(|spread| spread.mean)
        };
        let targets = TARGETS.iter().enumerate().map(|(at, target)| {
            let rate = |strip: &Strip| Some(strip.rate);
            [
                Some(*target),
                mean(&|run| rate(&courses[run].before[at])),
                mean(&|run| rate(&courses[run].after[at])),
                mean(&|run| rate(&courses[run].end[at])),
                mean(&|run| courses[run].end[at].precision),
            ]
        });
        (!courses.is_empty()).then(|| StrippedTask {
            method: runs[0].method.clone(),
            task: task.clone(),
            targets: targets.collect(),
        })
    });
    rows.collect()
}
