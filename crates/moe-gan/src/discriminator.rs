use burn::module::{Module, Param};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::reverse_gradient;

/// Tells from a pooled feature which task it came from: one linear map without bias
/// (MoE-CL, "task classifier").
#[derive(Module, Debug)]
pub struct Discriminator {
    /// `[d_model, tasks]`.
    pub weight: Param<Tensor<2>>,
}

/// Which cross-entropy the discriminator is trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscriminatorLoss {
    /// The authors' code: cross-entropy of `softmax(logits)`, which applies softmax a second time.
    /// With `n` tasks it never leaves `[ln(e + n − 1) − 1, ln(e + n − 1)]`.
    Paper,
    /// Cross-entropy of the logits; a confident discriminator's loss tends to 0.
    Logits,
}

impl Discriminator {
    /// Uniform in `±1/√d_model`, the usual start of a linear layer.
    pub fn new(d_model: usize, tasks: usize, rng: &mut impl Rng, device: &Device) -> Self {
        let bound = 1.0 / (d_model as f32).sqrt();
        let values: Vec<f32> = (0..d_model * tasks)
            .map(|_| rng.random_range(-bound..bound))
            .collect();
        let data = TensorData::new(values, [d_model, tasks]);
        Self::from_weight(Tensor::from_data(data, device))
    }

    /// All zeros: every task is as likely.
    pub fn zeros(d_model: usize, tasks: usize, device: &Device) -> Self {
        Self::from_weight(Tensor::zeros([d_model, tasks], device))
    }

    /// From `weight [d_model, tasks]`, trained from there on.
    pub fn from_weight(weight: Tensor<2>) -> Self {
        Self {
            weight: Param::from_tensor(weight.detach()),
        }
    }

    /// Number of tasks told apart.
    pub fn tasks(&self) -> usize {
        let [_, tasks] = self.weight.dims();
        tasks
    }

    /// `pooled [batch, d_model]` → `[batch, tasks]`.
    pub fn logits(&self, pooled: Tensor<2>) -> Tensor<2> {
        pooled.matmul(self.weight.val())
    }

    /// Mean cross-entropy of `pooled [batch, d_model]` against the task of each row; shape `[1]`.
    ///
    /// # Panics
    ///
    /// When `tasks` is not one index below [`Self::tasks`] per row.
    pub fn loss(&self, pooled: Tensor<2>, tasks: &[usize], kind: DiscriminatorLoss) -> Tensor<1> {
        let [batch, _] = pooled.dims();
        assert_eq!(batch, tasks.len(), "one task per pooled row");
        assert!(
            tasks.iter().all(|&task| task < self.tasks()),
            "a discriminator of {} tasks was given the labels {tasks:?}",
            self.tasks()
        );
        let labels: Vec<i64> = tasks.iter().map(|&task| task as i64).collect();
        let labels = TensorData::new(labels, [batch, 1]);
        let labels = Tensor::<2, Int>::from_data(labels, &pooled.device());

        let logits = self.logits(pooled);
        let scores = match kind {
            DiscriminatorLoss::Paper => softmax(logits, 1),
            DiscriminatorLoss::Logits => logits,
        };
        log_softmax(scores, 1).gather(1, labels).mean().neg()
    }

    /// Widens to `tasks` outputs: the columns of earlier tasks stay bit for bit, those of new
    /// tasks are zero. Does nothing when it is that wide already.
    ///
    /// The parameter gets a new id, so no optimiser state of the narrower matrix is applied to
    /// the wider one; learners rebuild their optimiser when a task begins.
    ///
    /// # Panics
    ///
    /// When `tasks` is smaller than [`Self::tasks`].
    pub fn grow(&mut self, tasks: usize) {
        let [d_model, before] = self.weight.dims();
        assert!(
            tasks >= before,
            "cannot shrink from {before} to {tasks} tasks"
        );
        if tasks > before {
            let old = self.weight.val();
            let new = Tensor::zeros([d_model, tasks - before], &old.device());
            *self = Self::from_weight(Tensor::cat(vec![old, new], 1));
        }
    }
}

/// `L_GAN` of MoE-CL with the reversal in front: the mean over layers and batch of the
/// discriminators' loss on `pooled`, one `[batch, d_model]` per layer; shape `[1]`.
///
/// Minimise `L_task + w · adversarial_loss`: the discriminators then descend `w · L_GAN`, all
/// that made `pooled` climbs it.
///
/// # Panics
///
/// When there is not one discriminator per pooled feature, or none, or a label does not fit.
pub fn adversarial_loss(
    discriminators: &[Discriminator],
    pooled: Vec<Tensor<2>>,
    tasks: &[usize],
    kind: DiscriminatorLoss,
) -> Tensor<1> {
    assert_eq!(
        discriminators.len(),
        pooled.len(),
        "one discriminator per layer"
    );
    let layers = pooled.len();
    discriminators
        .iter()
        .zip(pooled)
        .map(|(discriminator, pooled)| {
            discriminator.loss(reverse_gradient(pooled, 1.0), tasks, kind)
        })
        .reduce(|sum, loss| sum + loss)
        .expect("at least one layer is observed")
        / layers as f64
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tolerance;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn confident(device: &Device) -> (Discriminator, Tensor<2>, [usize; 4]) {
        let pooled = Tensor::<2>::eye(4, device) * 60.0;
        let weight = Tensor::<2>::eye(4, device);
        (Discriminator::from_weight(weight), pooled, [0, 1, 2, 3])
    }

    #[test]
    fn confident_discriminators_loss_tends_to_zero_on_logits() {
        let (discriminator, pooled, tasks) = confident(&Device::flex());
        let loss = discriminator.loss(pooled, &tasks, DiscriminatorLoss::Logits);
        assert!(loss.into_scalar::<f32>() < 1e-6);
    }

    #[test]
    fn paper_loss_never_leaves_its_bounds() {
        let (discriminator, pooled, tasks) = confident(&Device::flex());
        let upper = (1f64.exp() + 3.0).ln();
        let right = discriminator.loss(pooled.clone(), &tasks, DiscriminatorLoss::Paper);
        assert!((right.into_scalar::<f32>() as f64 - (upper - 1.0)).abs() < 1e-6);
        let wrong = discriminator.loss(pooled, &[1, 2, 3, 0], DiscriminatorLoss::Paper);
        assert!((wrong.into_scalar::<f32>() as f64 - upper).abs() < 1e-6);
    }

    #[test]
    fn growing_keeps_old_columns_bit_for_bit() {
        let device = Device::flex().autodiff();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut discriminator = Discriminator::new(6, 2, &mut rng, &device);
        let before = discriminator.weight.val();
        let id = discriminator.weight.id;
        discriminator.grow(4);
        let after = discriminator.weight.val();
        assert_eq!(after.dims(), [6, 4]);
        assert_eq!(
            after.clone().slice([0..6, 0..2]).into_data(),
            before.into_data()
        );
        assert_eq!(
            after
                .clone()
                .slice([0..6, 2..4])
                .abs()
                .sum()
                .into_scalar::<f32>(),
            0.0
        );
        assert!(after.is_require_grad());
        assert_ne!(id, discriminator.weight.id);
    }

    #[test]
    fn one_backward_pass_makes_both_players_move_against_each_other() {
        let device = Device::flex().autodiff();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let discriminator = Discriminator::new(3, 2, &mut rng, &device);
        let feature = Tensor::<2>::from_floats([[1.0, -2.0, 0.5], [0.1, 0.4, -1.0]], &device);
        let tasks = [1, 0];
        let grads = |reversed: bool| {
            let feature = feature.clone().require_grad();
            let loss = if reversed {
                adversarial_loss(
                    std::slice::from_ref(&discriminator),
                    vec![feature.clone()],
                    &tasks,
                    DiscriminatorLoss::Logits,
                )
            } else {
                discriminator.loss(feature.clone(), &tasks, DiscriminatorLoss::Logits)
            };
            let grads = loss.backward();
            (
                feature.grad(&grads).expect("leaf"),
                discriminator.weight.grad(&grads).expect("leaf"),
            )
        };
        let ((feature, weight), (reversed, same)) = (grads(false), grads(true));
        reversed
            .neg()
            .into_data()
            .assert_approx_eq::<f32>(&feature.into_data(), Tolerance::default());
        same.into_data()
            .assert_approx_eq::<f32>(&weight.into_data(), Tolerance::default());
    }
}
