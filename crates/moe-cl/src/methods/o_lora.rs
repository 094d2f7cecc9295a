//! O-LoRA (arXiv 2310.14152): every task learns in a low-rank subspace orthogonal to those of the tasks before it.

use burn::tensor::{Device, Tensor};
use moe_core::model::Decoder;
use moe_lora::{Adapters, Lora, Mix, Projection, Routing, Texts};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Card, Loss, Method, Step, loss_of_hidden};
use crate::{
    config::{OLoraConfig, OLoraTest},
    learner::Learner,
};

/// An expert per task, kept apart by a penalty on the overlap of the A matrices.
#[derive(Clone, Debug)]
pub struct OLora {
    options: OLoraConfig,
}

impl OLora {
    /// The method with its options.
    pub fn new(options: OLoraConfig) -> Self {
        Self { options }
    }

    /// What answers for `task` when there are `experts`. An expert that no task has trained adds nothing to a sum.
    fn active(&self, task: usize, experts: usize) -> Mix {
        match self.options.test {
            OLoraTest::Summed => Mix::Summed((0..experts).collect()),
            OLoraTest::Own => Mix::Routed(Routing::Single(task)),
        }
    }
}

/// `‖A_new A_oldᵀ‖²_F`, the sum of the squared inner products of their rows; shape `[1]`. `old` is a constant.
///
/// The authors' code sums absolute values; their paper and the comparison by the authors of MoE-CL sum squares.
pub fn overlap(new: &Lora, old: &Lora) -> Tensor<1> {
    // [d_in, rank] as stored: the paper's A transposed.
    let products = old.a.val().detach().transpose().matmul(new.a.val());
    products.square().sum()
}

/// Σ over layers, projections and `earlier` experts of [`overlap`] with expert `new`; none without an earlier expert.
fn overlaps(adapters: &Adapters, new: usize, earlier: usize) -> Option<Tensor<1>> {
    let pairs = adapters.banks.iter().flat_map(|bank| {
        (0..earlier).flat_map(move |old| {
            Projection::ALL.into_iter().filter_map(move |projection| {
                let new = bank.experts[new].lora(projection)?;
                Some(overlap(new, bank.experts[old].lora(projection)?))
            })
        })
    });
    pairs.reduce(|sum, part| sum + part)
}

impl Method for OLora {
    fn name(&self) -> String {
        match self.options.test {
            OLoraTest::Summed => "o_lora".into(),
            OLoraTest::Own => "o_lora (own)".into(),
        }
    }

    fn card(&self) -> Card {
        Card {
            what: "an adapter per task, orthogonal to the earlier ones",
            needs: "nothing (summed), task id (own)",
            stores: "an expert",
            source: "arXiv 2310.14152",
            strength: "lambda 0.5, as in its authors' scripts for these tasks (there on the sum of absolute inner products, here as in the paper on their squares); not tuned here",
        }
    }

    fn prepare(
        &self,
        _base: &Decoder,
        mut learner: Learner,
        _task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner {
        learner.adapters.push_expert(rng.next_u64(), device);
        learner
    }

    fn routing(&self, task: usize) -> Routing {
        Routing::Single(task)
    }

    fn mix(&self, _base: &Decoder, learner: &Learner, task: usize, _texts: &Texts) -> Mix {
        self.active(task, learner.adapters.num_experts())
    }

    /// `L = L_task + λ Σ_{i<t} ‖A_t A_iᵀ‖²_F`.
    fn loss(&self, step: Step<'_>) -> Loss {
        let Step { learner, task, .. } = step;
        let hidden = learner.adapters.with_others_frozen(task).forward_mixed(
            step.base,
            &step.batch.texts,
            &self.active(task, task + 1),
            step.dropout.as_ref(),
        );
        let loss = loss_of_hidden(&step, hidden);
        match overlaps(&learner.adapters, task, task) {
            Some(overlap) => loss.plus(overlap * self.options.lambda),
            None => loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lora(a: [[f32; 2]; 3]) -> Lora {
        let device = Device::flex();
        Lora::from_tensors(
            Tensor::from_data(a, &device),
            Tensor::zeros([2, 4], &device),
            1.0,
        )
    }

    #[test]
    fn orthogonal_subspaces_cost_nothing() {
        let new = lora([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]);
        let old = lora([[0.0, 0.0], [3.0, 0.0], [1.0, 5.0]]);
        assert_eq!(overlap(&new, &old).into_scalar::<f32>(), 0.0);
        assert_eq!(overlap(&new, &new).into_scalar::<f32>(), 25.0);
    }
}
