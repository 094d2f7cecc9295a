//! SLAO (arXiv 2512.23017): each task is learnt by a working copy whose A starts orthonormal, and merged into the one expert
//! that answers.

use burn::tensor::{Tensor, TensorData};
use moe_lora::{Lora, Routing};

use super::{Card, LearntTask, Loss, Method, NewTask, Options, Step, one_expert, routed_loss};
use crate::learner::{Learner, TaskExperts};

/// Two experts while a task is learnt, one that answers for every task and is moved only by merging, and a working copy of it.
#[derive(Clone, Copy, Debug)]
pub struct Slao;

impl Options for Slao {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(*self)
    }
}

impl Method for Slao {
    fn name(&self) -> String {
        "slao".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter, each task merged into it as 1/√t",
            needs: "nothing",
            stores: "nothing (one expert in all)",
            source: "arXiv 2512.23017",
            strength: "",
        }
    }

    fn prepare(&self, mut learner: Learner, mut new: NewTask<'_>) -> Learner {
        let merged = one_expert(&mut learner, &mut new);
        let working = learner.catalogue.copy_expert(merged, new.name);
        if new.task > 0 {
            for layer in &mut learner.catalogue.expert_mut(working).layers {
                for lora in layer.loras_mut() {
                    lora.set(orthonormal(lora.a.val()), lora.b.val());
                }
            }
        }
        learner.tasks.push(TaskExperts {
            answering: Routing::Single(merged),
            trained: Routing::Single(working),
        });
        learner
    }

    fn loss(&self, step: Step<'_>) -> Loss {
        routed_loss(&step, step.learner.trained(step.task))
    }

    /// `A ← A_ft`, `B ← B + (B_ft − B) / √t`, t counted from 1.
    fn finish(&mut self, mut learner: Learner, learnt: LearntTask<'_>) -> Learner {
        let rate = 1.0 / ((learnt.task + 1) as f64).sqrt();
        let TaskExperts { answering, trained } = learner.tasks[learnt.task].clone();
        let catalogue = &mut learner.catalogue;
        if let ([merged], [working]) = (answering.experts(), trained.experts()) {
            let tuned = catalogue.expert(*working).layers.clone();
            let merged = &mut catalogue.expert_mut(*merged).layers;
            for (layer, tuned) in merged.iter_mut().zip(&tuned) {
                for (lora, tuned) in layer.loras_mut().zip(tuned.loras()) {
                    merge(lora, tuned, rate);
                }
            }
            catalogue.remove_expert(*working);
        }
        learner.tasks[learnt.task].trained = answering;
        learner
    }
}

/// `A_ft` with `B + rate (B_ft − B)`.
fn merge(lora: &mut Lora, tuned: &Lora, rate: f64) {
    let b = lora.b.val().detach();
    let moved = (tuned.b.val().detach() - b.clone()) * rate;
    lora.set(tuned.a.val(), b + moved);
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
    use burn::tensor::{Device, Tolerance};

    use super::*;

    #[test]
    fn a_starts_orthonormal_in_the_span_of_the_one_before() {
        let device = Device::flex();
        let numbers: Vec<f32> = (0..27).map(|i| (i as f32 * 1.7).sin()).collect();
        let a = Tensor::<2>::from_data(TensorData::new(numbers, [9, 3]), &device);
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
        let merged = |t: f64| {
            let mut merged = lora(2.0);
            merge(&mut merged, &lora(4.0), 1.0 / t.sqrt());
            merged.b.val()
        };
        assert_eq!(merged(1.0).max().into_scalar::<f32>(), 4.0);
        assert_eq!(merged(4.0).max().into_scalar::<f32>(), 3.0);
    }
}
