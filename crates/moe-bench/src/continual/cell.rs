//! One run of the comparison: a method on an order with a seed.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use moe_cl::config::Experiment;

use super::{Options, Outcome, Run, ability, stripping, suite::with_root};

/// A method as it is named on the command line: `name`, or `name:key=value:key=value` with options of its `[method]` table.
///
/// Which names there are is known to the experiment file's schema alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(String);

impl<T: Into<String>> From<T> for Method {
    fn from(written: T) -> Self {
        Self(written.into())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Method {
    /// The name alone.
    pub fn name(&self) -> &str {
        self.0.split(':').next().unwrap_or(&self.0)
    }

    /// The `[method]` table in TOML, without its brackets: a value that is neither number, truth value, list nor quoted is a text.
    pub(super) fn toml(&self) -> String {
        let mut parts = self.0.split(':');
        let name = format!("name = {:?}", parts.next().unwrap_or_default());
        let options = parts.map(|option| {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let is_text = value.parse::<f64>().is_err()
                && value.parse::<bool>().is_err()
                && !value.starts_with(['"', '\'', '[']);
            match is_text {
                true => format!("{key} = {value:?}"),
                false => format!("{key} = {value}"),
            }
        });
        std::iter::once(name)
            .chain(options)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The overrides of an experiment that choose this method.
    fn sets(&self) -> Vec<String> {
        let name = format!("method={{name={:?}}}", self.name());
        let options = self.0.split(':').skip(1);
        std::iter::once(name)
            .chain(options.map(|option| format!("method.{option}")))
            .collect()
    }

    /// Name of its folder.
    pub(super) fn folder(&self) -> String {
        self.0
            .replace(|c: char| !c.is_alphanumeric() && c != '_' && c != '.', "-")
    }
}

/// A method on an order with a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The method.
    pub method: Method,
    /// Number of the suite's order.
    pub order: usize,
    /// Seed of every draw.
    pub seed: u64,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            method,
            order,
            seed,
        } = self;
        write!(f, "{method}, order {order}, seed {seed}")
    }
}

impl Cell {
    /// Its folder below that of the comparison.
    pub fn folder(&self) -> PathBuf {
        let Self { order, seed, .. } = self;
        PathBuf::from(self.method.folder())
            .join(format!("order-{order}"))
            .join(format!("seed-{seed}"))
    }

    /// Its experiment, all settings resolved.
    ///
    /// # Errors
    /// When the method or a setting is refused.
    pub fn experiment(&self, options: &Options) -> anyhow::Result<Experiment> {
        let sets: Vec<String> = self
            .method
            .sets()
            .into_iter()
            .chain([format!("seed={}", self.seed)])
            .chain(options.set.iter().cloned())
            .collect();
        let experiment = options
            .suite
            .experiment(self.order, options.budget, &sets)?;
        let mut experiment = with_root(experiment, options.data.as_deref())?;
        if let Some(base) = &options.base {
            experiment.base.source.clone_from(base);
        }
        Ok(experiment)
    }

    /// What came of it, training first what is missing. A failure is an outcome too.
    pub fn run(
        &self,
        options: &Options,
        train: &mut dyn FnMut(&Experiment, &Path) -> anyhow::Result<()>,
    ) -> Run {
        let folder = options.out.join(self.folder());
        let outcome = self
            .finish(options, &folder, train)
            .and_then(|()| Outcome::read(&folder))
            .map_err(|error| format!("{error:#}").replace('\n', " "));
        if let Err(reason) = &outcome {
            eprintln!("failed: {self}: {reason}");
        }
        Run {
            method: self.method.to_string(),
            order: self.order,
            seed: self.seed,
            outcome,
        }
    }

    fn finish(
        &self,
        options: &Options,
        folder: &Path,
        train: &mut dyn FnMut(&Experiment, &Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let experiment = self.experiment(options)?;
        let before = Experiment::load(&folder.join("config.toml"), &[]);
        let finished = folder.join("result.json").is_file()
            && folder.join(ability::FILE).is_file()
            && (!options.suite.has_stripping() || folder.join(stripping::FILE).is_file());
        if finished && before.is_ok_and(|before| before == experiment) {
            return Ok(());
        }
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        train(&experiment, folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_its_name_and_options() {
        let method = Method::from("moe_cl:mode=paper:adversarial_weight=0.2");
        assert_eq!(method.name(), "moe_cl");
        assert_eq!(
            method.sets(),
            [
                "method={name=\"moe_cl\"}",
                "method.mode=paper",
                "method.adversarial_weight=0.2"
            ]
        );
        assert_eq!(
            method.toml(),
            r#"name = "moe_cl", mode = "paper", adversarial_weight = 0.2"#
        );
        assert_eq!(method.folder(), "moe_cl-mode-paper-adversarial_weight-0.2");
    }
}
