//! O-LoRA (arXiv 2310.14152): every task learns in a low-rank subspace orthogonal to those of the tasks before it.

use burn::tensor::Tensor;
use moe_core::model::Decoder;
use moe_lora::{Catalogue, ExpertId, Lora, Mix, Routing, Texts};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Card, Loss, Method, NewTask, Options, Step, loss_of_hidden, with_own_trained};
use crate::learner::{Learner, TaskExperts};

/// Which experts of O-LoRA are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OLoraTest {
    /// The sum of all adapters, in training and at test time: the published form.
    #[default]
    Summed,
    /// The task's own alone, as in the comparison by the authors of MoE-CL.
    Own,
}

/// Options of O-LoRA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OLoraConfig {
    /// Weight λ of the overlap between the new task's A and those of earlier tasks.
    #[schemars(range(min = 0, max = 1e12))]
    pub lambda: f64,
    /// Which adapters are active.
    pub test: OLoraTest,
}

impl Default for OLoraConfig {
    fn default() -> Self {
        Self {
            lambda: 0.5,
            test: OLoraTest::Summed,
        }
    }
}

impl Options for OLoraConfig {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(OLora::new(self.clone()))
    }
}

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

    /// What answers for `task` with the experts of the first `tasks`. An expert that no task has trained adds nothing to a sum.
    fn active(&self, learner: &Learner, task: usize, tasks: usize) -> Mix {
        match self.options.test {
            OLoraTest::Summed => Mix::Summed(experts(learner, tasks)),
            OLoraTest::Own => Mix::Routed(learner.answering(task).clone()),
        }
    }
}

/// The experts of the first `tasks`.
fn experts(learner: &Learner, tasks: usize) -> Vec<ExpertId> {
    let tasks = learner.tasks[..tasks].iter();
    tasks
        .flat_map(|task| task.answering.experts())
        .copied()
        .collect()
}

/// `‖A_new A_oldᵀ‖²_F`, the sum of the squared inner products of their rows; shape `[1]`. `old` is a constant.
///
/// The authors' code sums absolute values; their paper and the comparison by the authors of MoE-CL sum squares.
pub fn overlap(new: &Lora, old: &Lora) -> Tensor<1> {
    // [d_in, rank] as stored: the paper's A transposed.
    let products = old.a.val().detach().transpose().matmul(new.a.val());
    products.square().sum()
}

/// Σ over layers, matrices and `earlier` experts of [`overlap`] with expert `new`; none without an earlier expert.
fn overlaps(catalogue: &Catalogue, new: ExpertId, earlier: &[ExpertId]) -> Option<Tensor<1>> {
    let new = &catalogue.expert(new).layers;
    let pairs = (0..new.len()).flat_map(|layer| {
        earlier.iter().flat_map(move |&old| {
            let old = &catalogue.expert(old).layers[layer];
            let pairs = new[layer].loras().zip(old.loras());
            pairs.map(|(new, old)| overlap(new, old))
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

    fn prepare(&self, mut learner: Learner, mut new: NewTask<'_>) -> Learner {
        let own = new.fresh_expert(&mut learner);
        learner.tasks.push(TaskExperts::of(Routing::Single(own)));
        learner
    }

    fn reads_all_experts(&self) -> bool {
        true
    }

    fn mix(&self, _base: &Decoder, learner: &Learner, task: usize, _texts: &Texts) -> Mix {
        self.active(learner, task, learner.tasks.len())
    }

    /// A sum stands on every expert.
    fn stands_on(&self, learner: &Learner, task: usize) -> Option<Routing> {
        match self.options.test {
            OLoraTest::Summed => None,
            OLoraTest::Own => Some(learner.answering(task).clone()),
        }
    }

    /// `L = L_task + λ Σ_{i<t} ‖A_t A_iᵀ‖²_F`.
    fn loss(&self, step: Step<'_>) -> Loss {
        let Step { learner, task, .. } = step;
        let hidden = with_own_trained(learner, task).forward_mixed(
            step.base,
            &step.batch.texts,
            &self.active(learner, task, task + 1),
            step.dropout.as_ref(),
        );
        let loss = loss_of_hidden(&step, hidden);
        if !step.place.first {
            return loss;
        }
        let (all, earlier) = (experts(learner, task + 1), experts(learner, task));
        match overlaps(&learner.catalogue, all[task], &earlier) {
            Some(overlap) => loss.plus(overlap * self.options.lambda),
            None => loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

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
