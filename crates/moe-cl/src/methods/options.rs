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
}
