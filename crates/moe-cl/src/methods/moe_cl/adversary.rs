//! The adversarial game: discriminators that tell tasks apart, and shared experts that keep them from it.

use burn::tensor::Tensor;
use moe_gan::reverse_gradient;
use rand_chacha::ChaCha8Rng;

use super::MoeCl;
use crate::{learner::Learner, methods::Own};

/// How the discriminators did on one batch.
pub(super) struct Adversary {
    /// Their mean cross-entropy, shape `[1]`.
    pub loss: Tensor<1>,
    /// Share of the batch's pooled features, over all layers, whose task they named rightly, shape `[1]`, detached.
    pub accuracy: Tensor<1>,
}

impl MoeCl {
    /// Mean cross-entropy over layers × (batch + stand-ins) of discriminators that minimise it,
    /// while gradient reversal makes the shared experts maximise it.
    pub(super) fn adversary(
        &self,
        learner: &Learner,
        pooled: Vec<Tensor<2>>,
        task: usize,
        rng: &mut ChaCha8Rng,
    ) -> Adversary {
        let layers = pooled.len() as f64;
        let mut losses = Vec::with_capacity(pooled.len());
        let mut named_rightly = Vec::with_capacity(pooled.len());
        let Some(Own::Discriminators(discriminators)) = &learner.own else {
            panic!("`prepare` adds discriminators");
        };
        for (layer, (discriminator, pooled)) in discriminators.iter().zip(pooled).enumerate() {
            let [batch, _d_model] = pooled.dims();
            named_rightly.push(
                discriminator
                    .logits(pooled.clone().detach())
                    .argmax(1)
                    .equal_scalar(task as i64)
                    .float(),
            );
            let mut labels = vec![task; batch];
            let mut features = vec![reverse_gradient(pooled, 1.0)];
            if let Some(memory) = self.memory.get(layer) {
                // Without stand-ins of earlier tasks the game has one label per stage, and any shared expert wins it.
                for (earlier, count) in spread(batch, task) {
                    let device = features[0].device();
                    if let Some(stand_ins) = memory.sample(earlier, count, rng, &device) {
                        features.push(stand_ins);
                        labels.extend(std::iter::repeat_n(earlier, count));
                    }
                }
            }
            let features = Tensor::cat(features, 0);
            losses.push(discriminator.loss(
                features,
                &labels,
                self.options.discriminator_loss.into(),
            ));
        }
        Adversary {
            loss: Tensor::cat(losses, 0).sum() / layers,
            accuracy: Tensor::cat(named_rightly, 0).mean(),
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
    fn stand_ins_are_as_many_as_the_batch_has_rows() {
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
