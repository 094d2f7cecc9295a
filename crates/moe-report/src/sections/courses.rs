//! Courses over optimiser steps: thinned, smoothed within each task, and drawn over the stretches of the tasks.

use crate::{
    colours::method_class,
    curves::{Axis, Chart, Line, Region, smooth},
    groups::{Group, Spread},
    run_data::{RunData, StepPoint},
};

/// Points of a course at most, besides one per task and the gap after it: more would make a page grow with its runs.
const POINTS: usize = 1000;

/// A value of a step that is drawn; none where the step does not have it.
pub type Value<'a> = &'a dyn Fn(&StepPoint) -> Option<f64>;

/// The courses of `value` in every group: smoothed, over the steps themselves where a group is a single run. None where no run has it.
pub fn courses(
    groups: &[Group<'_>],
    value: Value<'_>,
    title: &str,
    what: &str,
    label: &str,
) -> Option<String> {
    let numbered = || groups.iter().enumerate();
    let smoothed: Vec<Line> = numbered()
        .filter_map(|(index, group)| smoothed(index, group, value))
        .collect();
    let domain = domain(groups, value, &smoothed)?;
    let single = numbered().filter_map(|(index, group)| {
        let [run] = group.runs[..] else { return None };
        Some(Line {
            class: method_class(index),
            points: thinned(&points(run, value)),
            faint: true,
            ..Line::default()
        })
    });
    let lines = single.chain(smoothed).collect();
    Some(over_steps(groups, title, what, label, domain, lines))
}

/// From 0, or below where there are smaller values, to the largest. A few spikes of single steps must not flatten everything else: they
/// are drawn at the edge. None where there is no value.
fn domain(groups: &[Group<'_>], value: Value<'_>, smoothed: &[Line]) -> Option<(f64, f64)> {
    let steps = groups
        .iter()
        .flat_map(|group| &group.runs)
        .flat_map(|run| &run.steps);
    let mut raw: Vec<f64> = steps
        .filter_map(value)
        .filter(|value| value.is_finite())
        .collect();
    raw.sort_by(f64::total_cmp);
    let spikes = raw.len() / 50;
    let most = *raw.get(raw.len().checked_sub(1 + spikes)?)?;
    let least = raw[spikes];
    let smoothed = || {
        let points = smoothed.iter().flat_map(|line| &line.points);
        points.filter_map(|(_, value)| *value)
    };
    let high = smoothed().fold(most, f64::max) * 1.05;
    let low = smoothed().fold(least, f64::min).min(0.0) * 1.05;
    Some(if low < high {
        (low, high)
    } else {
        (low, low + 1.0)
    })
}

fn over_steps(
    groups: &[Group<'_>],
    title: &str,
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
        title,
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

/// A value of one step of a task.
struct Point {
    task: usize,
    step: usize,
    value: Option<f64>,
}

fn points(run: &RunData, value: Value<'_>) -> Vec<Point> {
    let point = |step: &StepPoint| Point {
        task: step.task,
        step: step.step,
        value: value(step).filter(|value| value.is_finite()),
    };
    run.steps.iter().map(point).collect()
}

/// Means over neighbouring steps, at most about [`POINTS`], with a gap between tasks.
fn thinned(course: &[Point]) -> Vec<(f64, Option<f64>)> {
    let stride = course.len().div_ceil(POINTS).max(1);
    let mut thin = Vec::new();
    for task in course.chunk_by(|a, b| a.task == b.task) {
        for chunk in task.chunks(stride) {
            let mean = Spread::of(chunk.iter().map(|point| point.value)).map(|spread| spread.mean);
            thin.push((chunk[chunk.len() / 2].step as f64, mean));
        }
        thin.push((task[task.len() - 1].step as f64, None));
    }
    thin
}

/// The smoothed course of a group, mean over its runs, with a band from the lowest to the highest.
fn smoothed(index: usize, group: &Group<'_>, value: Value<'_>) -> Option<Line> {
    let smooth_and_thin = |run: &&RunData| {
        let mut points = points(run, value);
        let values: Vec<(usize, f64)> = points
            .iter()
            .map(|point| (point.task, point.value.unwrap_or(f64::NAN)))
            .collect();
        let tasks = task_bounds(run).len().max(1);
        let smooth = smooth(&values, values.len() as f64 / tasks as f64 / 8.0);
        for (point, value) in points.iter_mut().zip(smooth) {
            point.value = Some(value).filter(|value| value.is_finite());
        }
        thinned(&points)
    };
    let courses: Vec<Vec<(f64, Option<f64>)>> = group.runs.iter().map(smooth_and_thin).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_drawn_with_about_as_many_points_as_a_short_one() {
        let point = |step: usize| Point {
            task: step / 40_000,
            step,
            value: Some(step as f64),
        };
        let course: Vec<Point> = (0..100_000).map(point).collect();
        let thin = thinned(&course);
        assert!(thin.len() <= POINTS + 2 * 3, "{}", thin.len());
        assert_eq!(thin.iter().filter(|(_, value)| value.is_none()).count(), 3);
    }
}
