//! Accuracy matrices and forgetting curves.

use super::{figure, section};
use crate::{
    colours::{Palette, method_class},
    curves::{Axis, Chart, Line, Region},
    figures::change,
    groups::{Group, Spread},
    heat_map::{Cell, HeatMap, legend},
    svg::escape,
};

/// Accuracy matrix of every method.
pub fn matrices(groups: &[Group<'_>]) -> String {
    let (low, high) = accuracy_range(groups);
    let figures = groups.iter().enumerate().map(|(index, group)| {
        let tasks = group.tasks();
        let rows: Vec<String> = std::iter::once("untrained".to_owned())
            .chain(
                tasks
                    .iter()
                    .enumerate()
                    .map(|(task, name)| format!("{} {name}", task + 1)),
            )
            .collect();
        let cell = |after: usize, task: usize| {
            let spread = group.spread(|run| run.score(after, task))?;
            let note = spread.deviation.map(|deviation| format!("±{deviation:.2}"));
            let text = format!("{:.2}", spread.mean);
            Some(Cell {
                value: spread.mean,
                text,
                note,
                framed: after == task + 1,
            })
        };
        let said = |after: usize| {
            let scores = (0..tasks.len())
                .filter_map(|task| Some(format!("{} {}", tasks[task], cell(after, task)?.text)));
            format!(
                "after {}: {}",
                rows[after],
                scores.collect::<Vec<_>>().join(", ")
            )
        };
        let map = HeatMap {
            alternative: format!(
                "Accuracy matrix of {}. {}.",
                group.label,
                (0..rows.len()).map(said).collect::<Vec<_>>().join("; ")
            ),
            row_axis: "after task",
            cells: (0..rows.len())
                .map(|after| (0..tasks.len()).map(|task| cell(after, task)).collect())
                .collect(),
            rows,
            column_axis: "accuracy on task (share of 1)",
            columns: tasks.to_vec(),
            palette: Palette::Sequential,
            range: (low, high),
            size: (if tasks.len() > 6 { 46.0 } else { 58.0 }, 34.0),
        };
        figure(&group.label, index, &map.svg())
    });
    let (from, to) = (format!("{low:.1}"), format!("{high:.1}"));
    section(
        "Accuracy matrices: how each task fares as the next ones are learnt",
        "Read down a column. The framed cell is the task just after it was learnt; a column that loses colour below its frame is being forgotten. All methods share one scale.",
        &format!(
            "<div class=\"row\">{}</div>{}",
            figures.collect::<String>(),
            legend(Palette::Sequential, (low, high), [&from, "accuracy", &to])
        ),
    )
}

/// Accuracy on each task as the stream goes on.
pub fn forgetting(groups: &[Group<'_>]) -> String {
    let (low, high) = accuracy_range(groups);
    let tasks = groups[0].tasks();
    let charts = tasks.iter().enumerate().map(|(task, name)| {
        let ticks = (0..=tasks.len())
            .map(|after| (after as f64, after.to_string()))
            .collect();
        let lines: Vec<Line> = groups
            .iter()
            .enumerate()
            .filter(|(_, group)| group.tasks() == tasks)
            .map(|(index, group)| {
                let spreads: Vec<Option<Spread>> = (0..=tasks.len())
                    .map(|after| group.spread(|run| run.score(after, task)))
                    .collect();
                Line {
                    class: method_class(index),
                    name: group.label.clone(),
                    points: spreads
                        .iter()
                        .enumerate()
                        .map(|(after, spread)| (after as f64, spread.map(|s| s.mean)))
                        .collect(),
                    bands: vec![
                        spreads
                            .iter()
                            .enumerate()
                            .filter_map(|(after, spread)| {
                                let Spread { mean, deviation } = (*spread)?;
                                Some((after as f64, mean - deviation?, mean + deviation?))
                            })
                            .collect(),
                    ],
                    dots: true,
                    faint: false,
                }
            })
            .collect();
        let ends: Vec<String> = lines
            .iter()
            .filter_map(|line| {
                let value = |at: usize| line.points.get(at)?.1;
                Some(format!(
                    "{} {:.2} when learnt, {:.2} at the end",
                    line.name,
                    value(task + 1)?,
                    value(tasks.len())?
                ))
            })
            .collect();
        let learnt = Region {
            span: (task as f64, task as f64 + 1.0),
            name: "learnt".into(),
            tinted: true,
        };
        let chart = Chart {
            alternative: format!(
                "Accuracy on {name} over the number of tasks learnt. {}.",
                ends.join("; ")
            ),
            title: &format!("{} {name}", task + 1),
            size: (290.0, 140.0),
            x: Axis {
                label: "tasks learnt",
                domain: (0.0, tasks.len() as f64),
                ticks: Some(ticks),
            },
            y: Axis {
                label: "accuracy",
                domain: (low, high),
                ticks: None,
            },
            regions: vec![learnt],
            lines,
        };
        format!("<figure>{}</figure>", chart.svg())
    });
    let falls: Vec<String> = groups
        .iter()
        .filter_map(|group| {
            let bwt = group.spread(|run| run.matrix.summary().bwt)?.mean;
            Some(format!(
                "{} with {}",
                change(bwt).replace('-', "−"),
                escape(&group.label)
            ))
        })
        .collect();
    let finding = if falls.is_empty() {
        String::new()
    } else {
        format!(
            "<p>Mean change of the earlier tasks from when they were learnt to the end: {}.</p>",
            falls.join(", ")
        )
    };
    section(
        "Forgetting: accuracy on each task as the stream goes on",
        "One picture per task. The tint marks when it was learnt; to its right a flat line remembers and a falling one forgets. To its left, what other tasks gave it for free.",
        &format!(
            "{finding}<div class=\"row\">{}</div>",
            charts.collect::<String>()
        ),
    )
}

/// The range of all accuracies, widened to whole tenths.
fn accuracy_range(groups: &[Group<'_>]) -> (f64, f64) {
    let runs = groups.iter().flat_map(|group| &group.runs);
    let rows = runs.flat_map(|run| std::iter::once(&run.matrix.baseline).chain(&run.matrix.rows));
    let scores: Vec<f64> = rows
        .flatten()
        .flatten()
        .copied()
        .filter(|score| score.is_finite())
        .collect();
    let low = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let high = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = ((low * 10.0).floor() / 10.0, (high * 10.0).ceil() / 10.0);
    if low < high { (low, high) } else { (0.0, 1.0) }
}
