//! A run put on disk: a checkpoint, and the parts that are new in it.

use std::collections::BTreeMap;

use moe_core::parameters::to_bytes;
use moe_lora::ExpertInfo;

use super::{Run, stored::part};
use crate::{
    directory::{BaseRecord, FORMAT, HeadForm, Layout, Part, State, Stored, StoredFeatures},
    error::{Error, Result},
    events::Event,
    methods::OwnForm,
    recognizer::to_f32_bytes,
    training::optimizer::state_bytes,
};

impl Run<'_> {
    /// Writes a checkpoint of the run as it stands, and notes it.
    pub(super) fn save(&mut self) -> Result<()> {
        self.write()?;
        self.record(Event::CheckpointSaved {
            step: self.progress.step,
            after: self.progress.task,
        })
    }

    /// Writes a checkpoint of the run as it stands. The one from before a task is scored has the step of the one from after it: it
    /// is not noted, for a log goes on behind the last note of a step.
    pub(super) fn write(&mut self) -> Result<()> {
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
            imported: self.imported.clone(),
            layout,
            stages: self.store_stages()?,
        };
        let keep = self.experiment.training.keep;
        self.checkpoints.save(&state, &self.times, keep).map(|_| ())
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
        let next = catalogue.next_ids();
        Ok(Layout {
            next,
            experts,
            gates,
            own: self.store_own()?,
            memory: self.store_memory()?,
            recognizer: self.store_recognizer()?,
            optimizer: self.store_optimizer()?,
        })
    }

    fn store_own(&mut self) -> Result<Option<Stored<OwnForm>>> {
        let Some(own) = &self.learner.own else {
            return Ok(None);
        };
        let part = match &self.stored.own {
            Some(part) => part.clone(),
            None => self.checkpoints.parts().put(&to_bytes(own))?,
        };
        self.stored.own = Some(part.clone());
        Ok(Some(Stored {
            is: own.form(),
            part,
        }))
    }

    fn store_memory(&mut self) -> Result<Vec<Stored<String>>> {
        let (parts, stored) = (self.checkpoints.parts(), &mut self.stored);
        if stored.memory_is_new {
            let memory = self.method.memory().map_err(|error| Error::Checkpoint {
                path: "method memory".into(),
                reason: error.to_string(),
            })?;
            let before = std::mem::take(&mut stored.memory).into_iter();
            let before: BTreeMap<String, Part> = before.map(|it| (it.is, it.part)).collect();
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
        Ok(stored.memory.clone())
    }

    fn store_recognizer(&mut self) -> Result<Vec<Part>> {
        let (parts, stored) = (self.checkpoints.parts(), &mut self.stored);
        if stored.recognizer.is_empty() {
            for piece in self.recognizer.to_parts() {
                stored.recognizer.push(parts.put(&piece)?);
            }
        }
        Ok(stored.recognizer.clone())
    }

    /// Between tasks there is nothing that a new task would not throw away.
    fn store_optimizer(&self) -> Result<Option<Part>> {
        if self.progress.step_in_task == 0 {
            return Ok(None);
        }
        let bytes = state_bytes(&self.optimizer);
        let bytes = bytes.map_err(|error| Error::Checkpoint {
            path: "optimizer".into(),
            reason: error.to_string(),
        })?;
        Ok(Some(self.checkpoints.parts().put(&bytes)?))
    }

    /// Brings what is stored of each task up to date.
    fn store_tasks(&mut self) -> Result<()> {
        let parts = self.checkpoints.parts().clone();
        let split = self.experiment.evaluation.split;
        for (index, state) in self.states.iter_mut().enumerate() {
            state.experts = self.learner.tasks.get(index).cloned();
            if let Some(head) = self.learner.head(index) {
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
                _ if known.texts.given.is_empty() => None,
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

fn json_error(error: serde_json::Error) -> Error {
    Error::Recorder(error.into())
}
