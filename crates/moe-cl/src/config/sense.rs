//! Values that have the right type and make no sense.

use std::collections::HashSet;

use super::{Experiment, MethodConfig, Objective, TaskConfig};

/// Most of anything that memory is asked for at once, far above what is of use.
const LARGEST: usize = 1 << 16;

/// Least weight of the ridge penalty beside features of size one.
const LEAST_RIDGE: f64 = 1e-6;

/// The dotted key of the first value that makes no sense, and what it should be.
pub(super) fn first_nonsense(experiment: &Experiment) -> Option<(String, String)> {
    let Experiment {
        name,
        seed,
        base,
        data,
        adapters,
        method,
        router,
        training,
        evaluation,
        tasks,
        ..
    } = experiment;
    let counts = [
        ("data.max_tokens", Some(data.max_tokens)),
        ("data.train_examples", data.train_examples),
        ("data.dev_examples", data.dev_examples),
        ("data.test_examples", data.test_examples),
        ("adapters.rank", Some(adapters.rank)),
        ("router.features", Some(router.features)),
        ("training.epochs", Some(training.epochs)),
        ("training.batch_size", Some(training.batch_size)),
        ("training.accumulation", Some(training.accumulation)),
        ("training.checkpoint_every", Some(training.checkpoint_every)),
        ("training.keep", Some(training.keep)),
        ("evaluation.batch_size", Some(evaluation.batch_size)),
        ("evaluation.every", Some(evaluation.every)),
    ];
    if let Some((key, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
        return Some(((*key).into(), "must be at least 1".into()));
    }
    let sizes = [
        ("adapters.rank", adapters.rank),
        ("router.features", router.features),
        ("training.batch_size", training.batch_size),
        ("training.accumulation", training.accumulation),
        ("evaluation.batch_size", evaluation.batch_size),
    ];
    if let Some((key, size)) = sizes.iter().find(|(_, size)| *size > LARGEST) {
        let rule = format!("must be at most {LARGEST}, got {size}");
        return Some(((*key).into(), rule));
    }
    // What is computed in f32 has to be a number there.
    let largest = f64::from(f32::MAX);
    let (positive, share) = ((f64::MIN_POSITIVE, largest), (0.0, 1.0f64.next_down()));
    let numbers = [
        (
            "training.learning_rate",
            training.learning_rate,
            positive,
            "must be above 0 and finite",
        ),
        (
            "training.clip_norm",
            training.clip_norm.unwrap_or(1.0),
            positive,
            "must be above 0 and finite; leave it out for no clipping",
        ),
        (
            "training.warmup_ratio",
            training.warmup_ratio,
            share,
            "must be at least 0 and below 1",
        ),
        (
            "training.weight_decay",
            training.weight_decay,
            (0.0, largest),
            "must be at least 0 and finite",
        ),
        (
            "adapters.alpha",
            adapters.alpha,
            positive,
            "must be above 0 and finite",
        ),
        (
            "adapters.dropout",
            adapters.dropout,
            share,
            "must be at least 0 and below 1",
        ),
        (
            "router.ridge",
            router.ridge,
            (LEAST_RIDGE, f64::MAX),
            "must be at least 1e-6 and finite, since less drowns in rounding errors",
        ),
        (
            "router.accept",
            router.accept,
            (f64::MIN_POSITIVE, 1.0),
            "must be above 0 and at most 1",
        ),
    ];
    let of_method = method.options().numbers().into_iter();
    let of_method = of_method.map(|it| (format!("method.{}", it.key), it.value, it.range, it.rule));
    // Written so that a NaN, which is in no range, is refused.
    if let Some((key, value, _, rule)) = numbers
        .into_iter()
        .map(|(key, value, range, rule)| (key.to_owned(), value, range, rule))
        .chain(of_method)
        .find(|&(_, value, (low, high), _)| !(low..=high).contains(&value))
    {
        return Some((key, format!("{rule}, got {value}")));
    }
    if *method == MethodConfig::LinearProbe && training.objective != Objective::Heads {
        return Some((
            "training.objective".into(),
            "must be \"heads\" for a linear probe, which trains nothing else".into(),
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
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
        return Some((
            "name".into(),
            "names a folder: it must not be empty, begin with a dot or hold a slash".into(),
        ));
    }
    if i64::try_from(*seed).is_err() {
        return Some(("seed".into(), format!("must be at most {}", i64::MAX)));
    }
    if i64::try_from(router.seed).is_err() {
        return Some((
            "router.seed".into(),
            format!("must be at most {}", i64::MAX),
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
