//! SLAO (arXiv 2512.23017): each task is learnt by a working copy whose A starts orthonormal, and merged into the one expert
//! that answers.

use burn::tensor::{Device, Tensor, TensorData};
use moe_core::model::Decoder;
use moe_lora::{Lora, Projection, Routing};
use rand_chacha::ChaCha8Rng;

use super::{Card, Finished, Loss, Method, Step, routed_loss, with_one_expert};
use crate::learner::Learner;

/// The expert that answers for every task; moved only by merging.
const MERGED: usize = 0;
/// The expert that the current task trains.
const WORKING: usize = 1;

/// Two experts however many tasks there are.
#[derive(Clone, Copy, Debug)]
pub struct Slao;

impl Method for Slao {
    fn name(&self) -> String {
        "slao".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter, each task merged into it as 1/√t",
            needs: "nothing",
            stores: "nothing (two experts in all)",
            source: "arXiv 2512.23017",
            strength: "",
        }
    }

    fn prepare(
        &self,
        _base: &Decoder,
        learner: Learner,
        task: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Learner {
        let mut learner = with_one_expert(learner, rng, device);
        for bank in &mut learner.adapters.banks {
            bank.experts.truncate(WORKING);
        }
        learner.adapters.init_expert_from(MERGED);
        if task > 0 {
            for bank in &mut learner.adapters.banks {
                for projection in Projection::ALL {
                    if let Some(lora) = bank.experts[WORKING].lora_mut(projection) {
                        let a = orthonormal(lora.a.val());
                        *lora = Lora::from_tensors(a, lora.b.val(), lora.scaling);
                    }
                }
            }
        }
        learner
    }

    fn routing(&self, _task: usize) -> Routing {
        Routing::Single(MERGED)
    }

    fn trained(&self, _task: usize) -> Routing {
        Routing::Single(WORKING)
    }

    fn loss(&self, step: Step<'_>) -> Loss {
        routed_loss(&step, &Routing::Single(WORKING))
    }

    /// `A ← A_ft`, `B ← B + (B_ft − B) / √t`, t counted from 1.
    fn finish(&mut self, mut learner: Learner, finished: Finished<'_>) -> Learner {
        let rate = 1.0 / ((finished.task + 1) as f64).sqrt();
        for bank in &mut learner.adapters.banks {
            let (merged, working) = bank.experts.split_at_mut(WORKING);
            for projection in Projection::ALL {
                if let (Some(lora), Some(tuned)) = (
                    merged[MERGED].lora_mut(projection),
                    working[0].lora(projection),
                ) {
                    *lora = merge(lora, tuned, rate);
                }
            }
        }
        learner
    }
}

/// `A_ft` with `B + rate (B_ft − B)`.
fn merge(before: &Lora, tuned: &Lora, rate: f64) -> Lora {
    let b = before.b.val().detach();
    let moved = (tuned.b.val().detach() - b.clone()) * rate;
    Lora::from_tensors(tuned.a.val(), b + moved, tuned.scaling)
}

/// Orthonormal columns that span those of `a [d_in, rank]`: the Q of its QR decomposition, by Gram and Schmidt in f64, each
/// column taken through twice (Giraud et al. 2005: enough for orthogonality to rounding). A column without a part of its own
/// becomes zero.
fn orthonormal(a: Tensor<2>) -> Tensor<2> {
    let ([d_in, rank], device) = (a.dims(), a.device());
    let values: Vec<f64> = a.into_data().iter::<f64>().collect();
    let mut columns: Vec<Vec<f64>> = Vec::with_capacity(rank);
    for column in 0..rank {
        let mut x: Vec<f64> = values.iter().skip(column).step_by(rank).copied().collect();
        let length = norm(&x);
        for q in columns.iter().chain(&columns) {
            let along: f64 = q.iter().zip(&x).map(|(q, x)| q * x).sum();
            x.iter_mut().zip(q).for_each(|(x, q)| *x -= along * q);
        }
        let left = norm(&x);
        let scale = if left > 1e-9 * length {
            1.0 / left
        } else {
            0.0
        };
        x.iter_mut().for_each(|x| *x *= scale);
        columns.push(x);
    }
    let q: Vec<f32> = (0..d_in * rank)
        .map(|index| columns[index % rank][index / rank] as f32)
        .collect();
    Tensor::from_data(TensorData::new(q, [d_in, rank]), &device)
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tolerance};

    use super::*;

    #[test]
    fn a_starts_orthonormal_in_the_span_of_the_one_before() {
        let device = Device::flex();
        let a = Tensor::<2>::random([9, 3], Distribution::Default, &device);
        let q = orthonormal(a.clone());
        let gram = q.clone().transpose().matmul(q.clone());
        gram.into_data().assert_approx_eq::<f32>(
            &Tensor::<2>::eye(3, &device).into_data(),
            Tolerance::default(),
        );
        // Q Qᵀ a = a: nothing of a lies outside.
        let projected = q.clone().matmul(q.transpose().matmul(a.clone()));
        projected
            .into_data()
            .assert_approx_eq::<f32>(&a.into_data(), Tolerance::default());
    }

    #[test]
    fn the_first_task_is_taken_as_it_is_and_the_fourth_by_half() {
        let device = Device::flex();
        let lora = |b: f32| {
            let b = Tensor::full([1, 2], b, &device);
            Lora::from_tensors(Tensor::ones([3, 1], &device), b, 1.0)
        };
        let merged = |t: f64| merge(&lora(2.0), &lora(4.0), 1.0 / t.sqrt()).b.val();
        assert_eq!(merged(1.0).max().into_scalar::<f32>(), 4.0);
        assert_eq!(merged(4.0).max().into_scalar::<f32>(), 3.0);
    }
}
