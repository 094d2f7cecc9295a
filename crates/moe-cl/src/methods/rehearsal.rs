//! A reservoir of earlier examples, and the loss on a draw from it.

use std::{collections::BTreeMap, io};

use burn::tensor::Tensor;
use moe_core::model::Decoder;
use rand::{Rng, RngExt, seq::index};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LearntTask, Piece, only_json};
use crate::{
    data::{Collate, Example},
    learner::Learner,
    objective::task_loss,
};

/// Options of the methods that keep examples of earlier tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RehearsalConfig {
    /// Examples kept over all tasks together, a uniform sample of all that were seen.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub budget: usize,
    /// Kept examples that go with each optimiser step.
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
}

impl Default for RehearsalConfig {
    fn default() -> Self {
        Self {
            budget: 64,
            batch_size: 8,
        }
    }
}

/// Name of what the methods with a reservoir remember.
const RESERVOIR: &str = "reservoir";

/// A uniform sample, without replacement, of everything that was offered (Vitter 1985, algorithm R).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reservoir {
    /// How many were offered.
    offered: u64,
    kept: Vec<Kept>,
}

/// An example that is kept, and the task that it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Index of the task.
    pub task: usize,
    /// The example.
    pub example: Example,
}

impl Reservoir {
    /// Offers every example of a finished task, in their order.
    pub fn take(&mut self, mut learnt: LearntTask<'_>, budget: usize) {
        for example in learnt.examples {
            self.offer(learnt.task, example, budget, &mut learnt.rng);
        }
    }

    /// As a method's memory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn memory(&self) -> io::Result<Vec<Piece>> {
        Ok(vec![Piece::json(RESERVOIR, self)?])
    }

    /// From what [`Self::memory`] gave.
    ///
    /// # Errors
    /// When it is of another form.
    pub(super) fn restored(memory: &[Piece]) -> io::Result<Self> {
        only_json(memory, RESERVOIR)
    }

    /// Offers one example; at most `budget` are kept.
    pub fn offer(&mut self, task: usize, example: &Example, budget: usize, rng: &mut impl Rng) {
        self.offered += 1;
        let kept = || Kept {
            task,
            example: example.clone(),
        };
        if self.kept.len() < budget {
            self.kept.push(kept());
        } else if let Some(place) = self
            .kept
            .get_mut(rng.random_range(0..self.offered) as usize)
        {
            *place = kept();
        }
    }

    /// What is kept.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// `count` of the kept examples, or all where there are fewer, each at most once.
    pub fn draw(&self, count: usize, rng: &mut impl Rng) -> Vec<&Kept> {
        let count = count.min(self.kept.len());
        let places = index::sample(rng, self.kept.len(), count);
        places.iter().map(|place| &self.kept[place]).collect()
    }
}

/// Mean loss of expert 0 on `drawn` examples, each with its own task's head; shape `[1]`, none without an example.
pub(super) fn rehearsal_loss(
    base: &Decoder,
    learner: &Learner,
    collate: Collate<'_>,
    drawn: &[&Kept],
) -> Option<Tensor<1>> {
    let mut by_task: BTreeMap<usize, Vec<&Example>> = BTreeMap::new();
    for kept in drawn {
        by_task.entry(kept.task).or_default().push(&kept.example);
    }
    let parts = by_task.into_iter().map(|(task, examples)| {
        let batch = collate.batch(&examples, &base.device().inner());
        let routing = learner.answering(task);
        let forward = learner
            .catalogue
            .forward(base, &batch.texts, routing, None, None);
        let share = examples.len() as f64 / drawn.len() as f64;
        task_loss(base, learner, task, forward.hidden, &batch) * share
    });
    parts.reduce(|sum, part| sum + part)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn example(token: u32) -> Example {
        Example {
            tokens: vec![token],
            label: Some(0),
            answers: Vec::new(),
        }
    }

    #[test]
    fn every_example_is_as_likely_to_be_kept() {
        let mut times = [0u32; 20];
        for seed in 0..4000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut reservoir = Reservoir::default();
            for token in 0..20 {
                reservoir.offer(0, &example(token), 5, &mut rng);
            }
            assert_eq!(reservoir.kept().len(), 5);
            for kept in reservoir.kept() {
                times[kept.example.tokens[0] as usize] += 1;
            }
        }
        // Each is kept with probability 1/4: 1000 ± 27 times; five deviations are allowed.
        assert!(times.iter().all(|&n| n.abs_diff(1000) < 137), "{times:?}");
    }

    #[test]
    fn a_draw_repeats_nothing() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut reservoir = Reservoir::default();
        for token in 0..6 {
            reservoir.offer(0, &example(token), 9, &mut rng);
        }
        let mut tokens: Vec<u32> = reservoir
            .draw(8, &mut rng)
            .iter()
            .map(|kept| kept.example.tokens[0])
            .collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2, 3, 4, 5]);
    }
}
