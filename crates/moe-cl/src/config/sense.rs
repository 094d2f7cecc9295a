//! Values that have the right type and make no sense.

use std::collections::HashSet;

use moe_lora::Projection;

use super::{Experiment, MethodConfig, Objective, SequentialConfig, TaskConfig, Weights};

/// The dotted key of the first value that makes no sense, and what it should be.
pub(super) fn first_nonsense(experiment: &Experiment) -> Option<(String, String)> {
    let Experiment {
        name,
        base,
        adapters,
        balance,
        method,
        training,
        tasks,
        ..
    } = experiment;
    if *method == MethodConfig::LinearProbe && training.objective != Objective::Heads {
        return Some((
            "training.objective".into(),
            "must be \"heads\" for a linear probe, which trains nothing else".into(),
        ));
    }
    let all = SequentialConfig {
        weights: Weights::All,
    };
    if let Some(key) = balance.asks()
        && *method != MethodConfig::Sequential(all)
    {
        return Some((
            key.into(),
            "needs routers that train: the base's own, with method = { name = \"sequential\", weights = \"all\" }".into(),
        ));
    }
    if adapters.targets.is_empty() {
        return Some((
            "adapters.targets".into(),
            "must name at least one projection to adapt".into(),
        ));
    }
    let distinct: HashSet<_> = adapters.targets.iter().collect();
    if distinct.len() < adapters.targets.len() {
        return Some(("adapters.targets".into(), "names a projection twice".into()));
    }
    if let MethodConfig::MixLora(options) = method {
        let inside = [Projection::Gate, Projection::Up, Projection::Down];
        if !adapters.targets.iter().any(|it| inside.contains(it)) {
            return Some((
                "adapters.targets".into(),
                "must name gate, up or down, which mix_lora mixes adapters on".into(),
            ));
        }
        if let Some(fault) = options.fault() {
            return Some(("method.router".into(), format!("does not fit: {fault}")));
        }
    }
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
        return Some((
            "name".into(),
            "names a folder: it must not be empty, begin with a dot or hold a slash".into(),
        ));
    }
    if base.source.trim().is_empty() {
        return Some(("base.source".into(), "must name a base model".into()));
    }
    first_nonsense_of(tasks)
}

/// The same of a list of tasks.
pub(super) fn first_nonsense_of(tasks: &[TaskConfig]) -> Option<(String, String)> {
    if tasks.is_empty() {
        return Some(("tasks".into(), "there must be at least one task".into()));
    }
    (0..tasks.len()).find_map(|index| {
        task_nonsense(tasks, index).map(|(key, rule)| (format!("tasks.{index}.{key}"), rule))
    })
}

fn task_nonsense(tasks: &[TaskConfig], index: usize) -> Option<(&'static str, String)> {
    let task = &tasks[index];
    if task.name.trim().is_empty() {
        return Some(("name", "must not be empty".into()));
    }
    if task.name == "auto" {
        return Some((
            "name",
            "`auto` is what asks for the task to be inferred".into(),
        ));
    }
    if let Some(first) = tasks[..index]
        .iter()
        .position(|earlier| earlier.name == task.name)
    {
        return Some((
            "name",
            format!("`{}` is already the name of tasks.{first}", task.name),
        ));
    }
    let labels = task.labels.as_ref()?;
    if labels.len() < 2 {
        return Some((
            "labels",
            format!(
                "must be at least two to choose from, got {}; leave the key out to collect them from the training file",
                labels.len()
            ),
        ));
    }
    let twice = labels
        .iter()
        .enumerate()
        .find(|(i, label)| labels[..*i].contains(label));
    twice.map(|(_, label)| ("labels", format!("`{label}` is there twice")))
}
