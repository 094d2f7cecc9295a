//! Courses over optimiser steps: training loss, and the accuracy of the task discriminators.

use super::section;
use crate::report::{
    colours::method_class,
    curves::{Axis, Chart, Line, Region, smooth},
    groups::{Group, Spread},
    run_data::{RunData, StepPoint},
};

/// Training loss over optimiser steps.
pub fn losses(groups: &[Group<'_>]) -> String {
    let loss = |step: &StepPoint| Some(step.loss);
    let mut lines = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        if let [run] = group.runs[..] {
            let points = broken_by_task(run, |step| Some(step.loss));
            lines.push(Line {
                class: method_class(index),
                points,
                faint: true,
                ..Line::default()
            });
        }
    }
    lines.extend(
        groups
            .iter()
            .enumerate()
            .filter_map(|(index, group)| smoothed(index, group, loss)),
    );
    let mut raw: Vec<f64> = groups
        .iter()
        .flat_map(|g| &g.runs)
        .flat_map(|run| &run.steps)
        .map(|step| step.loss)
        .filter(|l| l.is_finite())
        .collect();
    raw.sort_by(f64::total_cmp);
    // A few spikes of single steps must not flatten everything else: they are drawn at the upper edge.
    let Some(most) = raw.get(raw.len().saturating_sub(1 + raw.len() / 50)) else {
        return String::new();
    };
    let smooth = lines
        .iter()
        .filter(|line| !line.faint)
        .flat_map(|line| line.points.iter().filter_map(|(_, value)| *value));
    let top = smooth.fold(*most, f64::max);
    let chart = over_steps(
        groups,
        "Training loss over optimiser steps",
        "loss (nats)",
        (0.0, top * 1.05),
        lines,
    );
    section(
        "Loss: how each task is learnt",
        "Task loss over optimiser steps, smoothed within each task (thin: each step; band: smallest to largest over seeds). Losses of different tasks do not compare, those of methods on one task do.",
        &format!("<figure>{chart}</figure>"),
    )
}

/// Accuracy of the task discriminators against chance.
pub fn discriminators(groups: &[Group<'_>]) -> String {
    let accuracy = |step: &StepPoint| step.discriminator_accuracy;
    let with: Vec<(usize, &Group<'_>)> = groups
        .iter()
        .enumerate()
        .filter(|(_, group)| {
            group
                .runs
                .iter()
                .any(|run| run.steps.iter().any(|step| accuracy(step).is_some()))
        })
        .collect();
    let mut lines: Vec<Line> = with
        .iter()
        .filter_map(|(index, group)| smoothed(*index, group, accuracy))
        .collect();
    let Some((_, first)) = with.first() else {
        return String::new();
    };
    let mut points = Vec::new();
    for (task, (from, to)) in task_bounds(first.runs[0]) {
        let chance = Some(1.0 / (task + 1) as f64);
        points.extend([(from, chance), (to, chance)]);
    }
    lines.insert(
        0,
        Line {
            class: "chance".into(),
            name: "chance".into(),
            points,
            ..Line::default()
        },
    );
    let chart = over_steps(
        groups,
        "Accuracy of the task discriminator over optimiser steps, against chance",
        "accuracy (share of 1)",
        (0.0, 1.0),
        lines,
    );
    section(
        "Discriminator: can the task be told from the shared expert?",
        "Share of pooled shared features whose task the discriminator names rightly, smoothed, mean over layers. Chance is 1 / number of tasks seen: a line near it means that the shared expert's features say little about the task, a line near 1 that the adversarial game is lost.",
        &format!("<figure>{chart}</figure>"),
    )
}

fn over_steps(
    groups: &[Group<'_>],
    what: &str,
    label: &str,
    domain: (f64, f64),
    lines: Vec<Line>,
) -> String {
    let longest = groups
        .iter()
        .flat_map(|group| &group.runs)
        .max_by_key(|run| run.steps.len());
    let bounds = longest.map_or(Vec::new(), |run| task_bounds(run));
    let named = |(task, span): &(usize, (f64, f64))| Region {
        span: *span,
        name: groups[0].tasks().get(*task).cloned().unwrap_or_default(),
        tinted: task % 2 == 1,
    };
    let ends: Vec<String> = lines
        .iter()
        .filter(|line| !line.name.is_empty())
        .filter_map(|line| {
            let last = line.points.iter().rev().find_map(|(_, value)| *value)?;
            Some(format!("{} ends at {last:.2}", line.name))
        })
        .collect();
    let last = bounds.last().map_or(1.0, |(_, (_, to))| *to);
    Chart {
        alternative: format!("{what}. {}.", ends.join("; ")),
        title: "",
        size: (820.0, 260.0),
        x: Axis {
            label: "optimiser step",
            domain: (0.0, last),
            ticks: None,
        },
        y: Axis {
            label,
            domain,
            ticks: None,
        },
        regions: bounds.iter().map(named).collect(),
        lines,
    }
    .svg()
}

/// First and last step of the training of each task.
fn task_bounds(run: &RunData) -> Vec<(usize, (f64, f64))> {
    let mut bounds: Vec<(usize, (f64, f64))> = Vec::new();
    for step in &run.steps {
        let at = step.step as f64;
        match bounds.last_mut() {
            Some((task, (_, to))) if *task == step.task => *to = at,
            _ => bounds.push((step.task, (at - 1.0, at))),
        }
    }
    bounds
}

/// Values over steps, with a gap between tasks and at most about a thousand points.
fn broken_by_task(
    run: &RunData,
    value: impl Fn(&StepPoint) -> Option<f64>,
) -> Vec<(f64, Option<f64>)> {
    let stride = run.steps.len().div_ceil(1000).max(1);
    let mut points = Vec::new();
    for task in run.steps.chunk_by(|a, b| a.task == b.task) {
        for chunk in task.chunks(stride) {
            let mean = Spread::of(chunk.iter().map(&value)).map(|spread| spread.mean);
            points.push((chunk[chunk.len() / 2].step as f64, mean));
        }
        points.push((task[task.len() - 1].step as f64, None));
    }
    points
}

/// The smoothed course of a group, mean over its runs, with a band from the lowest to the highest.
fn smoothed(
    index: usize,
    group: &Group<'_>,
    value: impl Fn(&StepPoint) -> Option<f64>,
) -> Option<Line> {
    let courses: Vec<Vec<(f64, Option<f64>)>> = group
        .runs
        .iter()
        .map(|run| {
            let values: Vec<(usize, f64)> = run
                .steps
                .iter()
                .map(|step| (step.task, value(step).unwrap_or(f64::NAN)))
                .collect();
            let tasks = task_bounds(run).len().max(1);
            let mut smooth = smooth(&values, values.len() as f64 / tasks as f64 / 8.0).into_iter();
            let mut run = (*run).clone();
            run.steps
                .iter_mut()
                .for_each(|step| step.loss = smooth.next().unwrap_or(f64::NAN));
            broken_by_task(&run, |step| {
                Some(step.loss).filter(|value| value.is_finite())
            })
        })
        .collect();
    let longest = courses.iter().max_by_key(|course| course.len())?;
    let at = |place: usize| {
        courses
            .iter()
            .filter_map(move |course| course.get(place)?.1)
    };
    let points: Vec<(f64, Option<f64>)> = longest
        .iter()
        .enumerate()
        .map(|(place, (step, _))| {
            (
                *step,
                Spread::of(at(place).map(Some)).map(|spread| spread.mean),
            )
        })
        .collect();
    let extent = |(place, (step, value)): (usize, &(f64, Option<f64>))| {
        value.map(|_| {
            (
                *step,
                at(place).fold(f64::INFINITY, f64::min),
                at(place).fold(f64::NEG_INFINITY, f64::max),
            )
        })
    };
    let extents: Vec<Option<(f64, f64, f64)>> = points.iter().enumerate().map(extent).collect();
    let pieces = extents.split(Option::is_none).filter(|_| courses.len() > 1);
    let bands = pieces
        .map(|piece| piece.iter().flatten().copied().collect())
        .collect();
    points
        .iter()
        .any(|(_, value)| value.is_some())
        .then(|| Line {
            class: method_class(index),
            name: group.label.clone(),
            points,
            bands,
            ..Line::default()
        })
}
