//! One adapter for all that answers for a task.

use burn::tensor::{Tensor, TensorData};
use moe_lora::{
    ExpertId, Mix, Routing, Texts,
    peft::{PeftAdapter, Share},
};

use super::{Gap, export::Made};
use crate::{
    config::Split,
    data::Example,
    error::Result,
    events::Recorder,
    learner::{Learner, TaskExperts},
    task_model::TaskChoice,
    training::{stream::Task, trained::Trained},
};

/// Texts from which a gate's mean is read.
const FIT_TEXTS: usize = 256;
/// Texts on which adapters are compared before one is measured on all.
const CHOICE_TEXTS: usize = 64;

/// An adapter that is to stand for a task.
pub(super) struct Candidate {
    pub(super) made: Made,
    pub(super) experts: Vec<ExpertId>,
    pub(super) adapter: PeftAdapter,
}

impl Trained<'_> {
    /// The adapter that comes nearest, and what it costs.
    pub(super) fn best(
        &self,
        task: usize,
        recorder: &mut dyn Recorder,
    ) -> Result<(Candidate, Option<Gap>)> {
        let split = self.experiment.evaluation.split;
        let other = match split {
            Split::Dev => Split::Test,
            Split::Test => Split::Dev,
        };
        // The gate is read on other texts than those that tell what that costs, where there are others.
        let (mut fit, mut measured) = (self.kept(task, other)?, self.kept(task, split)?);
        if fit.evaluation.is_empty() {
            fit = self.kept(task, split)?;
        }
        if measured.evaluation.is_empty() {
            measured = self.kept(task, other)?;
        }
        let shares = match self.mix_of(task, &fit) {
            Mix::Routed(Routing::Single(expert)) => {
                let adapter = self.adapter(expert)?;
                let experts = vec![expert];
                return Ok((
                    Candidate {
                        made: Made::Alone,
                        experts,
                        adapter,
                    },
                    None,
                ));
            }
            Mix::Summed(experts) => {
                let adapters = self.adapters(&experts)?;
                let layers = self.base.decoder.config().num_layers;
                let adapter = joined(&adapters, &vec![vec![1.0; layers]; adapters.len()]);
                return Ok((
                    Candidate {
                        made: Made::Summed,
                        experts,
                        adapter,
                    },
                    None,
                ));
            }
            _ if fit.evaluation.is_empty() => {
                let problem = "a gate mixes its experts anew for every token, and the model keeps no texts of it on which to measure what one adapter loses";
                return Err(self.cannot_export(task, problem.into()));
            }
            mix => self.mean_weights(task, &fit, &mix)?,
        };
        let experts: Vec<ExpertId> = shares.iter().map(|(id, _)| *id).collect();
        let weights: Vec<Vec<f64>> = shares.into_iter().map(|(_, weights)| weights).collect();
        let alone = |&expert: &ExpertId| -> Result<Candidate> {
            Ok(Candidate {
                made: Made::Nearest,
                experts: vec![expert],
                adapter: self.adapter(expert)?,
            })
        };
        let candidates = experts.iter().map(alone);
        let mut candidates = candidates.collect::<Result<Vec<Candidate>>>()?;
        candidates.insert(
            0,
            Candidate {
                made: Made::Joined,
                adapter: joined(&self.adapters(&experts)?, &weights),
                experts,
            },
        );
        let mut best: Option<(f64, Candidate)> = None;
        for candidate in candidates {
            let learner = self.alone(task, &candidate.adapter)?;
            let distance = self.distance(task, &fit, &learner, CHOICE_TEXTS);
            if best.as_ref().is_none_or(|(least, _)| distance < *least) {
                best = Some((distance, candidate));
            }
        }
        let (_, candidate) = best.expect("the joined one is a candidate");
        let learner = self.alone(task, &candidate.adapter)?;
        let gap = self.gap(task, measured, &learner, recorder)?;
        Ok((candidate, Some(gap)))
    }

    fn adapter(&self, expert: ExpertId) -> Result<PeftAdapter> {
        let catalogue = &self.learner.catalogue;
        let config = self.base.decoder.config();
        Ok(PeftAdapter::of(
            catalogue,
            catalogue.expert(expert),
            config,
        )?)
    }

    fn adapters(&self, experts: &[ExpertId]) -> Result<Vec<PeftAdapter>> {
        experts.iter().map(|&id| self.adapter(id)).collect()
    }

    /// The learner with `adapter` as the only expert that answers for `task`.
    pub(super) fn alone(&self, task: usize, adapter: &PeftAdapter) -> Result<Learner> {
        let mut learner = self.learner.clone();
        let expert = learner.catalogue.import(adapter, "export")?;
        let alone = TaskExperts::of(Routing::Single(expert));
        match learner.tasks.get_mut(task) {
            Some(experts) => *experts = alone,
            None => {
                let place = task - learner.tasks.len();
                learner.imported[place] = alone.answering;
            }
        }
        Ok(learner)
    }

    /// How texts of the task are answered; of one token where there are none.
    fn mix_of(&self, task: usize, fit: &Task) -> Mix {
        let choice = TaskChoice::of(self.method.as_ref(), task);
        let device = self.base.decoder.device();
        let examples: Vec<&Example> = fit.evaluation.iter().take(1).collect();
        let texts = match examples.is_empty() {
            true => {
                let token = TensorData::new(vec![i64::from(self.base.pad())], [1, 1]);
                let tokens = Tensor::from_data(token, &device);
                Texts::new(tokens, Tensor::from_data([[true]], &device))
            }
            false => self.base.collate().batch(&examples, &device).texts,
        };
        choice.mix(&self.base.decoder, &self.learner, &texts)
    }

    /// Per expert of `mix` and layer of the base, the mean weight over the real tokens of the task's texts.
    fn mean_weights(
        &self,
        task: usize,
        fit: &Task,
        mix: &Mix,
    ) -> Result<Vec<(ExpertId, Vec<f64>)>> {
        let config = self.base.decoder.config();
        let experts: Vec<ExpertId> = match mix {
            Mix::Routed(Routing::Base) => {
                let problem = "the base answers for it alone: there is no expert to export";
                return Err(self.cannot_export(task, problem.into()));
            }
            Mix::Routed(routing) => routing.experts().to_vec(),
            Mix::Weighted { experts, .. } => experts.clone(),
            Mix::Summed(_) | Mix::BesideBase(_) | Mix::PerText(_) => {
                let problem = "its experts are mixed in a way that no adapter stands for";
                return Err(self.cannot_export(task, problem.into()));
            }
        };
        let catalogue = &self.learner.catalogue;
        let (first, device) = (catalogue.layers().start, self.base.decoder.device());
        let mut sums = vec![vec![0.0; config.num_layers]; experts.len()];
        let mut count = 0.0;
        let examples: Vec<&Example> = fit.evaluation.iter().take(FIT_TEXTS).collect();
        for examples in examples.chunks(self.experiment.evaluation.batch_size) {
            let texts = self.base.collate().batch(examples, &device).texts;
            let choice = TaskChoice::of(self.method.as_ref(), task);
            // Rows of weights per layer, one layer standing for all where they are alike.
            let (weights, rows): (Vec<Tensor<2>>, f64) =
                match choice.mix(&self.base.decoder, &self.learner, &texts) {
                    Mix::Weighted { weights, .. } => (vec![weights], examples.len() as f64),
                    Mix::Routed(routing @ Routing::Gated { .. }) => {
                        let forward =
                            catalogue.forward(&self.base.decoder, &texts, &routing, None, None);
                        let real = texts.real.clone().float();
                        let rows = real.clone().sum().into_scalar::<f32>();
                        let real = real.unsqueeze_dim::<3>(2);
                        let masked = |gate: Tensor<3>| (gate * real.clone()).flatten(0, 1);
                        (forward.gates.into_iter().map(masked).collect(), rows.into())
                    }
                    _ => {
                        let share = 1.0 / experts.len() as f64;
                        (vec![Tensor::full([1, experts.len()], share, &device)], 1.0)
                    }
                };
            if weights.is_empty() {
                let problem = "what mixes its experts says no weights that could be averaged";
                return Err(self.cannot_export(task, problem.into()));
            }
            count += rows;
            let layers = weights
                .into_iter()
                .map(|it| -> Vec<f32> { it.sum_dim(0).into_data().iter::<f32>().collect() });
            let layers: Vec<Vec<f32>> = layers.collect();
            for (expert, sums) in sums.iter_mut().enumerate() {
                for (layer, sum) in sums.iter_mut().enumerate() {
                    let place = layer.saturating_sub(first).min(layers.len() - 1);
                    *sum += f64::from(layers[place][expert]);
                }
            }
        }
        let mean = |sums: Vec<f64>| sums.into_iter().map(|sum| sum / count).collect();
        Ok(experts
            .into_iter()
            .zip(sums.into_iter().map(mean))
            .collect())
    }
}

fn joined(adapters: &[PeftAdapter], weights: &[Vec<f64>]) -> PeftAdapter {
    let shares = adapters
        .iter()
        .zip(weights)
        .map(|(adapter, weights)| Share {
            adapter,
            weights: weights.clone(),
            // Every expert's update counts whole there, whatever a gate says.
            attention: 1.0,
        });
    PeftAdapter::joined(&shares.collect::<Vec<_>>())
}
