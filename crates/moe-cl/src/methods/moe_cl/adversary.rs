//! The adversarial game: discriminators that tell tasks apart, and shared experts that keep them from it.

use burn::tensor::Tensor;
use moe_gan::reverse_gradient;

use super::MoeCl;
use crate::methods::{Own, Step};

/// How the discriminators did on one batch: its part of what they did in its optimiser step.
pub(super) struct Adversary {
    /// Their mean cross-entropy, shape `[1]`.
    pub loss: Tensor<1>,
    /// Share of the step's pooled features, over all layers, that are of this batch and whose task they named rightly, shape `[1]`,
    /// detached.
    pub accuracy: Tensor<1>,
}

impl MoeCl {
    /// Mean cross-entropy over layers × (texts + stand-ins) of discriminators that minimise it, while gradient reversal makes the
    /// shared experts maximise it. A step has as many stand-ins as texts, and they go with its first micro-batch.
    pub(super) fn adversary(&self, mut step: Step<'_>, pooled: Vec<Tensor<2>>) -> Adversary {
        let (task, place, share_of_texts) = (step.task, step.place, step.share_of_texts());
        let Some(Own::Discriminators(discriminators)) = &step.learner.own else {
            panic!("`prepare` adds discriminators");
        };
        let layers = pooled.len() as f64;
        let texts = step.batch.lengths.len();
        // Without stand-ins of earlier tasks the game has one label per stage, and any shared expert wins it.
        let remembered = |task| self.memory.first().map_or(0, |it| it.count(task)) > 0;
        let stand_ins: Vec<(usize, usize)> = spread(place.texts, task)
            .filter(|&(earlier, _)| remembered(earlier))
            .collect();
        let of_step: usize = stand_ins.iter().map(|(_, count)| count).sum();
        let stand_ins = if place.first { stand_ins } else { Vec::new() };
        let of_batch: usize = stand_ins.iter().map(|(_, count)| count).sum();
        let mut labels = vec![task; texts];
        for &(earlier, count) in &stand_ins {
            labels.extend(std::iter::repeat_n(earlier, count));
        }

        let mut losses = Vec::with_capacity(pooled.len());
        let mut named_rightly = Vec::with_capacity(pooled.len());
        for (layer, (discriminator, pooled)) in discriminators.iter().zip(pooled).enumerate() {
            named_rightly.push(
                discriminator
                    .logits(pooled.clone().detach())
                    .argmax(1)
                    .equal_scalar(task as i64)
                    .float(),
            );
            let device = pooled.device();
            let mut features = vec![reverse_gradient(pooled, 1.0)];
            for &(earlier, count) in &stand_ins {
                features.extend(self.memory[layer].sample(earlier, count, &mut step.rng, &device));
            }
            let kind = self.options.discriminator_loss.into();
            losses.push(discriminator.loss(Tensor::cat(features, 0), &labels, kind));
        }
        let share = (texts + of_batch) as f64 / (place.texts + of_step) as f64;
        Adversary {
            loss: Tensor::cat(losses, 0).sum() * share / layers,
            accuracy: Tensor::cat(named_rightly, 0).mean() * share_of_texts,
        }
    }
}

/// `total` spread evenly over `parts`: (part, share) for every part that gets something.
fn spread(total: usize, parts: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..parts)
        .map(move |part| (part, total / parts + usize::from(part < total % parts)))
        .filter(|&(_, share)| share > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_are_as_many_as_the_step_has_texts() {
        for (batch, tasks) in [(8, 1), (8, 3), (2, 5), (7, 7)] {
            let shares: Vec<_> = spread(batch, tasks).collect();
            assert_eq!(shares.iter().map(|(_, share)| share).sum::<usize>(), batch);
            let (least, most) = (
                shares.iter().map(|s| s.1).min(),
                shares.iter().map(|s| s.1).max(),
            );
            assert!(most <= least.map(|least| least + 1));
        }
    }
}
