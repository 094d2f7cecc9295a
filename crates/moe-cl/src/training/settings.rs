//! Which settings of a run may differ between two starts, and which may not.

use serde_json::Value;

use crate::{config::Experiment, directory::TaskSettings};

/// Settings that change nothing of what is learnt: where it is computed, what is kept, what is scored at once.
/// The base is known by its fingerprint and the data by their hashes, wherever they lie.
const FREE: [&str; 12] = [
    "name",
    "device",
    "base.source",
    "base.trunk_cache_mb",
    "data.root",
    "data.suite",
    "training.checkpoint_every",
    "training.keep",
    "balance.every",
    "evaluation.batch_size",
    "evaluation.every",
    "evaluation.tasks",
];

/// Settings that a task may have for itself.
const OF_A_TASK: [&str; 8] = [
    "training.",
    "data.",
    "adapters.rank",
    "adapters.alpha",
    "adapters.rslora",
    "adapters.dropout",
    "adapters.init",
    "base.trunk_cache_mb",
];

/// A setting in which two experiments differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its key, dotted.
    pub key: String,
    /// Its value there.
    pub was: String,
    /// Its value now.
    pub is: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, was, is } = self;
        write!(f, "`{key}` is {was} there, now {is}")
    }
}

/// The settings, tasks apart, in which a run would learn something else.
pub fn differences(was: &Experiment, is: &Experiment) -> Vec<Difference> {
    let mut all = all_differences(was, is);
    all.retain(|difference| !FREE.contains(&difference.key.as_str()));
    all
}

/// The settings in which `is` differs from `was` and that no task may have for itself.
pub fn not_of_a_task(was: &Experiment, is: &Experiment) -> Vec<Difference> {
    let own = |key: &str| OF_A_TASK.iter().any(|prefix| key.starts_with(prefix));
    let mut all = all_differences(was, is);
    all.retain(|it| !own(&it.key));
    all
}

/// As [`differences`], of a task's own settings.
pub fn task_differences(was: &TaskSettings, is: &TaskSettings) -> Vec<Difference> {
    let mut all = Vec::new();
    compare("", &value(was), &value(is), &mut all);
    all.retain(|difference| !FREE.contains(&difference.key.as_str()));
    all
}

fn all_differences(was: &Experiment, is: &Experiment) -> Vec<Difference> {
    let bare = |experiment: &Experiment| {
        let tasks = Vec::new();
        value(&Experiment {
            tasks,
            ..experiment.clone()
        })
    };
    let mut all = Vec::new();
    compare("", &bare(was), &bare(is), &mut all);
    let same_numbers = was.base.dtype.has_numbers_of(is.base.dtype);
    all.retain(|it| it.key != "base.dtype" || !same_numbers);
    all
}

fn value(settings: &impl serde::Serialize) -> Value {
    serde_json::to_value(settings).expect("settings are text, numbers and lists")
}

/// Collects the keys below `path` whose values differ. What is left out is what its default says, since both have been read.
fn compare(path: &str, was: &Value, is: &Value, all: &mut Vec<Difference>) {
    if was == is {
        return;
    }
    if let (Value::Object(was), Value::Object(is)) = (was, is) {
        let missing = Value::Null;
        let mut keys: Vec<&String> = was.keys().chain(is.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            let of = |object: &'_ serde_json::Map<String, Value>| {
                object.get(key).unwrap_or(&missing).clone()
            };
            compare(&path, &of(was), &of(is), all);
        }
        return;
    }
    let said = |value: &Value| match value {
        Value::Null => "not set".into(),
        value => value.to_string(),
    };
    all.push(Difference {
        key: path.into(),
        was: said(was),
        is: said(is),
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn experiment(settings: &[&str]) -> Experiment {
        let text = "name = 'x'\n[[tasks]]\nname = 'a'\ntrain = 't'\ntest = 't'\n";
        let settings: Vec<String> = settings.iter().map(|it| (*it).to_owned()).collect();
        Experiment::parse(text, Path::new("x.toml"), &settings).expect("a valid experiment")
    }

    #[test]
    fn what_changes_nothing_may_differ_and_what_changes_something_is_named_with_both_values() {
        let was = experiment(&[]);
        let free = [
            "device=wgpu",
            "evaluation.batch_size=3",
            "base.dtype=f32",
            "base.source=x",
            "data.root=y",
        ];
        assert_eq!(differences(&was, &experiment(&free)), []);
        let said: Vec<String> = differences(
            &was,
            &experiment(&["seed=9", "adapters.rank=4", "method={name='ewc'}"]),
        )
        .iter()
        .map(ToString::to_string)
        .collect();
        assert!(
            said.contains(&"`seed` is 0 there, now 9".into()),
            "{said:?}"
        );
        assert!(
            said.contains(&"`adapters.rank` is 8 there, now 4".into()),
            "{said:?}"
        );
        assert!(
            said.iter().any(|it| it.starts_with("`method.name`")),
            "{said:?}"
        );
    }

    #[test]
    fn a_default_that_is_spelt_out_is_no_difference() {
        let spelt = experiment(&["training.epochs=2", "evaluation.every=1"]);
        assert_eq!(differences(&experiment(&[]), &spelt), []);
    }

    #[test]
    fn a_task_has_its_own_training_and_rank_and_nothing_else() {
        let was = experiment(&[]);
        let own = [
            "training.epochs=9",
            "adapters.rank=4",
            "adapters.dropout=0.5",
            "training.objective=instruction",
        ];
        assert_eq!(not_of_a_task(&was, &experiment(&own)), []);
        for other in ["seed=1", "adapters.layers=last:1"] {
            assert_eq!(
                not_of_a_task(&was, &experiment(&[other])).len(),
                1,
                "{other}"
            );
        }
    }
}
