//! A run put on disk, and a run put back to where a checkpoint stood.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use burn::tensor::Bytes;
use moe_core::parameters::to_bytes;
use moe_lora::{ExpertId, ExpertInfo, GateId};

use super::Run;
use crate::{
    directory::{
        BaseRecord, FORMAT, HeadForm, Layout, Part, Parts, Saved, Stage, State, Stored,
        StoredFeatures,
    },
    error::{Error, Result},
    events::Event,
    learner::Learner,
    recognizer::{from_f32_bytes, to_f32_bytes},
    training::{infer::Known, prepare::fresh_optimizer, read::expert_of, session::ReadBack},
};

/// Where the parts are that have not moved since they were written, so that they are not written again.
#[derive(Default)]
pub(super) struct StoredParts {
    experts: BTreeMap<ExpertId, Part>,
    /// Experts that are not in memory.
    shelf: BTreeMap<ExpertId, Stored<ExpertInfo>>,
    gates: BTreeMap<GateId, Part>,
    heads: BTreeMap<usize, Part>,
    own: Option<Part>,
    memory: Vec<Stored<String>>,
    /// Whether the method remembers what it did when its memory was last written.
    memory_is_new: bool,
    recognizer: Vec<Part>,
    stages: Vec<(Stage, Part)>,
    known: BTreeMap<usize, (Known, Part)>,
}

impl StoredParts {
    /// Forgets what learning `tasks` moves.
    pub(super) fn forget(&mut self, learner: &Learner, tasks: Range<usize>) {
        self.own = None;
        for task in tasks {
            self.heads.remove(&task);
            for routing in [learner.trained(task), learner.answering(task)] {
                for expert in routing.experts() {
                    self.experts.remove(expert);
                }
                if let Some(gate) = routing.gate() {
                    self.gates.remove(&gate);
                }
            }
        }
    }

    /// Forgets all heads.
    pub(super) fn forget_heads(&mut self) {
        self.heads.clear();
    }

    /// Forgets what a finished task adds to the memories of method and recognizer.
    pub(super) fn forget_memory(&mut self) {
        self.memory_is_new = true;
        self.recognizer.clear();
    }

    /// Bytes of the method's memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory.iter().map(|piece| piece.part.bytes).sum()
    }
}

/// The part that is known, or the one that `bytes` make.
fn part<K: Ord>(
    known: &mut BTreeMap<K, Part>,
    key: K,
    parts: &Parts,
    bytes: impl FnOnce() -> Vec<u8>,
) -> Result<Part> {
    if let Some(part) = known.get(&key) {
        return Ok(part.clone());
    }
    let part = parts.put(&bytes())?;
    known.insert(key, part.clone());
    Ok(part)
}

impl Run<'_> {
    /// Puts the run where the checkpoint stood.
    ///
    /// # Errors
    /// When a part is damaged or does not fit.
    pub(in crate::training) fn restore(&mut self, from: ReadBack) -> Result<()> {
        let saved = &from.saved;
        let Saved { state, parts, .. } = saved;
        self.learner = from.model.learner;
        self.recognizer = from.model.recognizer;
        self.method
            .restore(&from.memory)
            .map_err(|error| saved.damaged(format!("method memory: {error}")))?;
        let current = self.tasks.get(state.progress.task);
        let training = current.map_or(&self.experiment.training, |task| &task.settings.training);
        self.optimizer = fresh_optimizer(training);
        if let Some(bytes) = from.optimizer {
            let bytes = Bytes::from_bytes_vec(bytes);
            let fresh = fresh_optimizer(training);
            let read = fresh.from_bytes(bytes);
            self.optimizer = read.map_err(|error| saved.damaged(format!("optimizer: {error}")))?;
        }
        self.progress = state.progress.clone();
        self.stages = Vec::with_capacity(state.stages.len());
        for part in &state.stages {
            let stage: Stage = json(saved, &parts.get(part)?)?;
            self.stored.stages.push((stage.clone(), part.clone()));
            self.stages.push(stage);
        }
        for (task, stored) in state.tasks.iter().enumerate() {
            if let Some(part) = &stored.answers {
                let known: Known = json(saved, &parts.get(part)?)?;
                self.stored
                    .known
                    .insert(task, (known.clone(), part.clone()));
                self.known[task] = known;
            }
            self.restore_features(saved, task)?;
        }
        self.stored_as(state);
        Ok(())
    }

    /// What the recognizer reads of a task's texts, as far as it is stored for the split that is scored now.
    fn restore_features(&mut self, saved: &Saved, task: usize) -> Result<()> {
        let stored = saved.state.tasks[task].features.as_ref();
        let split = self.experiment.evaluation.split;
        let Some(stored) = stored.filter(|it| it.split == split && self.features.len() == task)
        else {
            return Ok(());
        };
        let rows = self.tasks[task].evaluation.len();
        let d_model = self.base.decoder.config().d_model;
        let matrix = from_f32_bytes(rows, d_model, &saved.parts.get(&stored.part)?);
        self.features
            .push(matrix.ok_or_else(|| saved.damaged("features of other texts"))?);
        Ok(())
    }

    /// Takes over where the checkpoint's parts are.
    fn stored_as(&mut self, state: &State) {
        let layout = &state.layout;
        let catalogue = &self.learner.catalogue;
        let (there, shelved): (Vec<_>, Vec<_>) = layout
            .experts
            .iter()
            .partition(|it| catalogue.find(it.is.id).is_some());
        let there = there.into_iter();
        self.stored.experts = there.map(|it| (it.is.id, it.part.clone())).collect();
        let shelved = shelved.into_iter();
        self.stored.shelf = shelved.map(|it| (it.is.id, it.clone())).collect();
        self.stored.gates = layout
            .gates
            .iter()
            .map(|it| (it.is.id, it.part.clone()))
            .collect();
        let heads = state.tasks.iter().enumerate();
        self.stored.heads = heads
            .filter_map(|(task, it)| Some((task, it.head.as_ref()?.part.clone())))
            .collect();
        self.stored.own = layout.own.as_ref().map(|it| it.part.clone());
        self.stored.memory.clone_from(&layout.memory);
        self.stored.recognizer.clone_from(&layout.recognizer);
    }

    /// Writes a checkpoint of the run as it stands.
    pub(super) fn save(&mut self) -> Result<()> {
        let layout = self.store_layout()?;
        self.store_tasks()?;
        let state = State {
            format: FORMAT,
            base: BaseRecord {
                source: self.experiment.base.source.clone(),
                location: self
                    .base
                    .path
                    .canonicalize()
                    .unwrap_or_else(|_| self.base.path.clone()),
                identity: self.base.identity.clone(),
            },
            experiment: self.experiment.clone(),
            progress: self.progress.clone(),
            tasks: self.states.clone(),
            layout,
            stages: self.store_stages()?,
        };
        self.checkpoints
            .save(&state, self.experiment.training.keep)?;
        self.record(Event::CheckpointSaved {
            step: self.progress.step,
        })
    }

    fn store_layout(&mut self) -> Result<Layout> {
        let parts = self.checkpoints.parts().clone();
        let (learner, stored) = (&self.learner, &mut self.stored);
        let catalogue = &learner.catalogue;
        let mut experts: Vec<Stored<ExpertInfo>> = stored.shelf.values().cloned().collect();
        for expert in catalogue.experts() {
            experts.push(Stored {
                part: part(&mut stored.experts, expert.id(), &parts, || {
                    to_bytes(expert)
                })?,
                is: expert.info.clone(),
            });
        }
        experts.sort_by_key(|it| it.is.id);
        let mut gates = Vec::with_capacity(catalogue.gates().len());
        for gate in catalogue.gates() {
            gates.push(Stored {
                part: part(&mut stored.gates, gate.id(), &parts, || to_bytes(gate))?,
                is: gate.info.clone(),
            });
        }
        let own = match (&learner.own, &stored.own) {
            (None, _) => None,
            (Some(own), Some(part)) => Some((own.form(), part.clone())),
            (Some(own), None) => Some((own.form(), parts.put(&to_bytes(own))?)),
        };
        stored.own = own.as_ref().map(|(_, part)| part.clone());
        if stored.memory_is_new {
            let memory = self.method.memory().map_err(|error| Error::Checkpoint {
                path: "method memory".into(),
                reason: error.to_string(),
            })?;
            let before: BTreeMap<String, Part> = std::mem::take(&mut stored.memory)
                .into_iter()
                .map(|it| (it.is, it.part))
                .collect();
            for piece in memory {
                let settled = before.get(&piece.name).filter(|_| piece.settled);
                let part = match settled {
                    Some(part) => part.clone(),
                    None => parts.put(&piece.bytes)?,
                };
                let is = piece.name;
                stored.memory.push(Stored { is, part });
            }
            stored.memory_is_new = false;
        }
        if stored.recognizer.is_empty() {
            for piece in self.recognizer.to_parts() {
                stored.recognizer.push(parts.put(&piece)?);
            }
        }
        // Between tasks there is nothing that a new task would not throw away.
        let optimizer = match self.progress.step_in_task {
            0 => None,
            _ => {
                let bytes = self
                    .optimizer
                    .into_bytes()
                    .map_err(|error| Error::Checkpoint {
                        path: "optimizer".into(),
                        reason: error.to_string(),
                    })?;
                Some(parts.put(&bytes)?)
            }
        };
        Ok(Layout {
            next: catalogue.next_ids(),
            experts,
            gates,
            own: own.map(|(is, part)| Stored { is, part }),
            memory: stored.memory.clone(),
            recognizer: stored.recognizer.clone(),
            optimizer,
        })
    }

    /// `learner` with the experts of `tasks`, of which those that are not in memory are read.
    pub(super) fn with_experts_of(
        &self,
        mut learner: Learner,
        tasks: impl Iterator<Item = usize>,
    ) -> Result<Learner> {
        let (parts, device) = (self.checkpoints.parts(), self.base.decoder.device());
        for task in tasks {
            for id in learner.answering(task).experts().to_vec() {
                let Some(stored) = self.stored.shelf.get(&id) else {
                    continue;
                };
                if learner.catalogue.find(id).is_none() {
                    let expert = expert_of(stored, &learner.catalogue, parts, &device)?;
                    learner.catalogue.insert(expert);
                }
            }
        }
        Ok(learner)
    }

    /// Puts the experts of the tasks before the last on the shelf: they are stored, and learning on does not read them.
    pub(super) fn shelve(&mut self) {
        if self.method.reads_all_experts() {
            return;
        }
        let recent = self
            .learner
            .tasks
            .iter()
            .skip(self.progress.task.saturating_sub(1));
        let keep: BTreeSet<ExpertId> = recent
            .flat_map(|task| {
                task.answering
                    .experts()
                    .iter()
                    .chain(task.trained.experts())
            })
            .copied()
            .collect();
        let catalogue = &mut self.learner.catalogue;
        let infos: Vec<ExpertInfo> = catalogue
            .experts()
            .iter()
            .map(|it| it.info.clone())
            .collect();
        for is in infos {
            if !keep.contains(&is.id)
                && let Some(part) = self.stored.experts.remove(&is.id)
            {
                catalogue.remove_expert(is.id);
                self.stored.shelf.insert(is.id, Stored { is, part });
            }
        }
    }

    /// Brings what is stored of each task up to date.
    fn store_tasks(&mut self) -> Result<()> {
        let parts = self.checkpoints.parts().clone();
        let split = self.experiment.evaluation.split;
        for (index, state) in self.states.iter_mut().enumerate() {
            state.experts = self.learner.tasks.get(index).cloned();
            if let Some(head) = self.learner.heads.get(index) {
                let [_, classes] = head.weight.dims();
                let bytes = || to_bytes(head);
                state.head = Some(Stored {
                    is: HeadForm {
                        classes,
                        pooling: head.pooling(),
                    },
                    part: part(&mut self.stored.heads, index, &parts, bytes)?,
                });
            }
            if let Some(features) = self.features.get(index)
                && state.features.as_ref().is_none_or(|it| it.split != split)
            {
                let part = parts.put(&to_f32_bytes(features))?;
                state.features = Some(StoredFeatures { split, part });
            }
            let known = &self.known[index];
            state.answers = match self.stored.known.get(&index) {
                _ if known.right.given.is_empty() => None,
                Some((before, part)) if before == known => Some(part.clone()),
                _ => {
                    let part = parts.put(&serde_json::to_vec(known).map_err(json_error)?)?;
                    let entry = (known.clone(), part.clone());
                    self.stored.known.insert(index, entry);
                    Some(part)
                }
            };
        }
        Ok(())
    }

    fn store_stages(&mut self) -> Result<Vec<Part>> {
        let stored = &mut self.stored.stages;
        for (index, stage) in self.stages.iter().enumerate() {
            if stored.get(index).is_some_and(|(before, _)| before == stage) {
                continue;
            }
            let bytes = serde_json::to_vec(stage).map_err(json_error)?;
            let part = self.checkpoints.parts().put(&bytes)?;
            stored.truncate(index);
            stored.push((stage.clone(), part));
        }
        Ok(stored.iter().map(|(_, part)| part.clone()).collect())
    }
}

/// A part of JSON.
fn json<T: serde::de::DeserializeOwned>(saved: &Saved, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| saved.damaged(error.to_string()))
}

fn json_error(error: serde_json::Error) -> Error {
    Error::Recorder(error.into())
}
