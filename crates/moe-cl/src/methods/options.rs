//! What an experiment's `[method]` table says, and the method that comes of it.

use super::Method;
use crate::config::MethodConfig;

/// The method that a configuration names, for a stream of `tasks` tasks.
pub fn method(config: &MethodConfig, tasks: usize) -> Box<dyn Method> {
    config.options().method(tasks)
}

/// What is written of a method in an experiment.
pub trait Options {
    /// The method before its first task, for a stream of `tasks` tasks.
    fn method(&self, tasks: usize) -> Box<dyn Method>;

    /// The numbers among the options, and the range that each has to be in.
    fn numbers(&self) -> Vec<Bounded> {
        Vec::new()
    }
}

/// A number of the `[method]` table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    /// Its key.
    pub key: &'static str,
    /// Its value.
    pub value: f64,
    /// The least and the largest that it may be.
    pub range: (f64, f64),
    /// What is said of one that is not.
    pub rule: &'static str,
}

impl Bounded {
    /// Something that a term of the loss is multiplied with.
    pub(super) fn weight(key: &'static str, value: f64) -> Self {
        Self {
            key,
            value,
            range: (0.0, f64::MAX),
            rule: "must be at least 0 and finite",
        }
    }

    /// A number of things.
    pub(super) fn count(key: &'static str, value: usize) -> Self {
        Self {
            key,
            value: value as f64,
            range: (1.0, f64::MAX),
            rule: "must be at least 1",
        }
    }
}
