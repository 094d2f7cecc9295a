//! The streams that methods are compared on, and how much of them is used.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use moe_cl::config::Experiment;

/// A stream of tasks in one or more orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Four of the five MTL5 sets, in the three orders of the MoE-CL paper
    Mtl5,
    /// All five MTL5 sets and the four moderation sets: nine tasks
    Mtl5Long,
    /// Comment moderation in four domains with one label set, with stripping rates
    Moderation,
    /// The demo's four domains of sentiment
    Demo,
}

/// How much of a suite is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Budget {
    /// 256 training examples per task, 2 epochs, at most 96 tokens, the first 200 dev and test rows
    Small,
    /// All texts, at most 512 tokens of each
    Full,
}

impl Suite {
    /// Its name, for titles and folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mtl5 => "mtl5",
            Self::Mtl5Long => "mtl5-long",
            Self::Moderation => "moderation",
            Self::Demo => "demo",
        }
    }

    /// The experiment files of its published orders.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Mtl5 => &[
                include_str!("../../../../configs/mtl5-order1.toml"),
                include_str!("../../../../configs/mtl5-order2.toml"),
                include_str!("../../../../configs/mtl5-order3.toml"),
            ],
            Self::Mtl5Long => &[include_str!("../../../../configs/mtl5-long.toml")],
            Self::Moderation => &[include_str!("../../../../configs/moderation.toml")],
            Self::Demo => &[include_str!("../../../../configs/sentiment.toml")],
        }
    }

    /// Numbers of its orders. A suite with one published order has it as 1 and its reverse as 2.
    pub fn orders(self) -> std::ops::RangeInclusive<usize> {
        1..=self.files().len().max(2)
    }

    /// Orders that are run when none is named: the published ones.
    pub fn default_orders(self) -> Vec<usize> {
        (1..=self.files().len()).collect()
    }

    /// Whether the tasks share one label set, of which a reviewer would see the doubtful texts.
    pub fn has_stripping(self) -> bool {
        self == Self::Moderation
    }

    /// The experiment of order `order` with the settings `sets` (`key=value`) on top of the budget's.
    ///
    /// # Errors
    /// When there is no such order or a setting is refused.
    pub fn experiment(
        self,
        order: usize,
        budget: Budget,
        sets: &[String],
    ) -> anyhow::Result<Experiment> {
        let orders = self.orders();
        if !orders.contains(&order) {
            bail!("{} has the orders {orders:?}, not {order}", self.name());
        }
        let files = self.files();
        let text = files.get(order - 1).unwrap_or(&files[0]);
        let origin = PathBuf::from(format!("{}, order {order}", self.name()));
        // The budget goes first, so that settings of the caller win.
        let sets: Vec<String> = budget.sets().iter().chain(sets).cloned().collect();
        let mut experiment = Experiment::parse(text, &origin, &sets)
            .with_context(|| format!("suite {}", self.name()))?;
        if budget == Budget::Full && !sets.iter().any(|set| set.contains("_examples")) {
            let data = &mut experiment.data;
            (data.train_examples, data.dev_examples, data.test_examples) = (None, None, None);
        }
        if order > files.len() {
            experiment.tasks.reverse();
        }
        experiment.name = format!("{}-order{order}", self.name());
        // What a task adds, and what it changed, is read from the checkpoints around it, the untrained model's included.
        let stages = experiment.tasks.len() + 1;
        experiment.training.keep = experiment.training.keep.max(stages);
        Ok(experiment)
    }
}

impl Budget {
    /// Its name, for titles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Full => "full",
        }
    }

    fn sets(self) -> Vec<String> {
        let sets: &[&str] = match self {
            Self::Small => &[
                "data.train_examples=256",
                "data.dev_examples=200",
                "data.test_examples=200",
                "data.max_tokens=96",
                "training.epochs=2",
            ],
            Self::Full => &["data.max_tokens=512"],
        };
        sets.iter().map(|set| (*set).into()).collect()
    }
}

/// Puts the folder with the texts into the experiment: `root`, or where `moe-cl data fetch` puts those of a suite.
///
/// # Errors
/// When there is no cache folder.
pub fn with_root(mut experiment: Experiment, root: Option<&Path>) -> anyhow::Result<Experiment> {
    match root {
        Some(root) => experiment.data.root = root.into(),
        None if experiment.data.suite.is_some() => {
            experiment.data.root = moe_hub::Cache::open()?.data();
        }
        None => {}
    }
    Ok(experiment)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_suite_has_its_orders_and_refuses_others() {
        for suite in Suite::value_variants() {
            let tasks = |order| -> Vec<String> {
                let experiment = suite.experiment(order, Budget::Small, &[]).unwrap();
                experiment.tasks.into_iter().map(|task| task.name).collect()
            };
            for order in suite.orders() {
                let mut other = tasks(order);
                other.sort();
                let mut first = tasks(1);
                assert!(order == 1 || tasks(order) != first);
                first.sort();
                assert_eq!(first, other);
            }
            assert!(suite.experiment(9, Budget::Small, &[]).is_err());
        }
        let long = Suite::Mtl5Long.experiment(1, Budget::Full, &[]).unwrap();
        assert_eq!((long.tasks.len(), long.data.train_examples), (9, None));
        let few = Suite::Mtl5Long.experiment(1, Budget::Full, &["training.keep=2".into()]);
        assert_eq!(few.unwrap().training.keep, 10);
    }
}
