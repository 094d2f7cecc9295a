//! `moe-cl tasks`

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use moe_cl::directory::{Saved, Stage};
use moe_cl::training::checkpoint_of;
use serde::Serialize;

use super::print_json;

use crate::model::tell_of_damage;
use crate::terminal;

/// Which model.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory of a model, or of one of its checkpoints
    model: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// A task of the model.
#[derive(Debug, Serialize)]
struct Row {
    task: String,
    /// Whether it is learnt.
    learnt: bool,
    /// Ids of the experts that answer for it.
    experts: Vec<u64>,
    /// The gate that weighs them.
    gate: Option<u64>,
    /// The router that picks some of them for each token, in the place of a gate.
    router: Option<&'static str>,
    /// For each of these experts, the one that it was copied from.
    parents: Vec<Option<u64>>,
    /// For each, its rank and scaling.
    ranks: Vec<usize>,
    scalings: Vec<f64>,
    /// Bytes of the experts and gates that were made for it, and of its head.
    bytes: u64,
    /// When it was learnt, in UTC.
    at: Option<String>,
    steps: Option<usize>,
    /// What it was learnt from.
    file: PathBuf,
    sha256: String,
    rows: usize,
    /// Rows that are scored.
    dev_rows: usize,
    test_rows: usize,
    /// Its score when it was learnt, and after the last task.
    score_then: Option<f64>,
    score_now: Option<f64>,
}

/// Prints what the model knows.
pub fn run(arguments: &Arguments) -> Result<()> {
    let saved = checkpoint_of(&arguments.model)?;
    tell_of_damage(&saved);
    let rows = rows(&saved)?;
    match arguments.json {
        true => print_json(&rows),
        false => Ok(write!(terminal::out(), "{}", table(&rows))?),
    }
}

fn rows(saved: &Saved) -> Result<Vec<Row>> {
    let state = &saved.state;
    let now: Stage = match state.stages.last() {
        Some(part) => serde_json::from_slice(&saved.parts.get(part)?)?,
        None => Stage::default(),
    };
    let rows = state.tasks.iter().enumerate().map(|(index, task)| {
        let answering = task.experts.as_ref().map(|it| &it.answering);
        let ids = answering.map_or(&[][..], |routing| routing.experts());
        let layout = &state.layout;
        let infos: Vec<_> = ids
            .iter()
            .filter_map(|id| layout.experts.iter().find(|it| it.is.id == *id))
            .map(|it| &it.is)
            .collect();
        let own = |made_for: &str| made_for == task.config.name;
        let parts: BTreeSet<_> = layout
            .experts
            .iter()
            .filter(|it| own(&it.is.origin.task))
            .map(|it| &it.part)
            .chain(
                layout
                    .gates
                    .iter()
                    .filter(|it| own(&it.is.task))
                    .map(|it| &it.part),
            )
            .chain(task.head.iter().map(|it| &it.part))
            .collect();
        let gate = answering.and_then(|routing| routing.gate());
        let gates = layout.gates.iter().map(|it| &it.is);
        let mut gates = gates.filter(|it| Some(it.id) == gate);
        let router = gates.find_map(|it| Some(it.router.as_ref()?.settings.name()));
        let learnt = task.learnt.as_ref();
        let time = |at: f64| DateTime::<Utc>::from_timestamp(at as i64, 0);
        Row {
            task: task.config.name.clone(),
            learnt: learnt.is_some(),
            experts: ids.iter().map(|id| id.0).collect(),
            gate: gate.map(|id| id.0),
            router,
            parents: infos
                .iter()
                .map(|it| it.origin.parent.map(|id| id.0))
                .collect(),
            ranks: infos.iter().map(|it| it.lora.rank).collect(),
            scalings: infos.iter().map(|it| it.lora.scaling()).collect(),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            at: learnt
                .and_then(|_| time(*saved.times.learnt.get(&task.config.name)?))
                .map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()),
            steps: learnt.map(|it| it.steps),
            file: task.training.file.clone(),
            sha256: task.training.sha256.clone(),
            rows: task.training.rows,
            dev_rows: task.dev.rows,
            test_rows: task.test.rows,
            score_then: learnt.and_then(|it| it.score),
            score_now: learnt.and(now.scores.get(index).copied().flatten()),
        }
    });
    Ok(rows.collect())
}

fn table(rows: &[Row]) -> String {
    let titles = [
        "task",
        "experts",
        "copied from",
        "rank",
        "scaling",
        "kB",
        "learnt (UTC)",
        "steps",
        "rows",
        "data",
        "then",
        "now",
    ];
    let list = |items: Vec<String>| match items.is_empty() {
        true => "–".to_owned(),
        false => items.join("+"),
    };
    let score = |score: Option<f64>| score.map_or("–".into(), |score| format!("{score:.4}"));
    let cells = rows.iter().map(|row| {
        let parent = |id: &Option<u64>| id.map_or("new".to_owned(), |id| id.to_string());
        [
            row.task.clone(),
            list(row.experts.iter().map(u64::to_string).collect())
                + &row
                    .router
                    .map_or(String::new(), |name| format!(" ({name})")),
            list(row.parents.iter().map(parent).collect()),
            list(row.ranks.iter().map(usize::to_string).collect()),
            list(row.scalings.iter().map(|it| format!("{it:.3}")).collect()),
            format!("{:.1}", row.bytes as f64 / 1e3),
            row.at.clone().unwrap_or_else(|| "not yet".into()),
            row.steps.map_or("–".into(), |it| it.to_string()),
            row.rows.to_string(),
            row.sha256.chars().take(12).collect(),
            score(row.score_then),
            score(row.score_now),
        ]
    });
    let lines: Vec<[String; 12]> = [titles.map(String::from)]
        .into_iter()
        .chain(cells)
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> = line
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                let gap = " ".repeat(width(column) - cell.chars().count());
                format!("{cell}{gap}")
            })
            .collect();
        text += padded.join("  ").trim_end();
        text.push('\n');
    }
    text
}
