//! Courses over optimiser steps: the training loss, and what else methods say of their steps.

use std::collections::{BTreeMap, BTreeSet};

use super::{captions::caption, courses::courses, section};
use crate::groups::Group;

/// Training loss over optimiser steps.
pub fn losses(groups: &[Group<'_>]) -> String {
    let what = "Training loss over optimiser steps";
    let Some(chart) = courses(groups, &|step| Some(step.loss), "", what, "loss (nats)") else {
        return String::new();
    };
    section(
        "Loss: how each task is learnt",
        "Task loss over optimiser steps, smoothed within each task (thin: each step; band: smallest to largest over seeds). Losses of different tasks do not compare, those of methods on one task do.",
        &format!("<figure>{chart}</figure>"),
    )
}

/// A section per group of figures of steps, those whose names begin alike, with a picture per figure.
pub fn step_figures(groups: &[Group<'_>]) -> String {
    let runs = groups.iter().flat_map(|group| &group.runs);
    let names: BTreeSet<&str> = runs
        .flat_map(|run| &run.steps)
        .flat_map(|step| step.figures.keys().map(String::as_str))
        .collect();
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        let first = name.split_once('/').map_or(name, |(first, _)| first);
        sections.entry(first).or_default().push(name);
    }
    sections
        .into_iter()
        .map(|(first, names)| {
            let charts = names.into_iter().filter_map(|name| {
                let label = name.split_once('/').map_or(name, |(_, last)| last);
                let value = |step: &crate::StepPoint| step.figures.get(name).copied();
                let what = format!("{name} over optimiser steps");
                let chart = courses(groups, &value, label, &what, label)?;
                Some(format!("<figure>{chart}</figure>"))
            });
            let caption = caption(first);
            section(
                caption.map_or(first, |caption| caption.title),
                caption.map_or(
                    "Over optimiser steps, smoothed within each task.",
                    |caption| caption.how,
                ),
                &charts.collect::<String>(),
            )
        })
        .collect()
}
