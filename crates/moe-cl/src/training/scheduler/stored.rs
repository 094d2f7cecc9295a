//! Which parts of a run are on disk as they are in memory.

use std::{collections::BTreeMap, ops::Range};

use moe_lora::{Catalogue, ExpertId, ExpertInfo, GateId};

use crate::{
    directory::{Part, Parts, Stage, State, Stored},
    error::Result,
    learner::Learner,
    training::infer::Known,
};

/// Where the parts are that have not moved since they were written, so that they are not written again.
#[derive(Default)]
pub(super) struct StoredParts {
    pub(super) experts: BTreeMap<ExpertId, Part>,
    /// Experts that are not in memory.
    pub(super) shelf: BTreeMap<ExpertId, Stored<ExpertInfo>>,
    pub(super) gates: BTreeMap<GateId, Part>,
    pub(super) heads: BTreeMap<usize, Part>,
    pub(super) own: Option<Part>,
    pub(super) memory: Vec<Stored<String>>,
    /// Whether the method remembers what it did when its memory was last written.
    pub(super) memory_is_new: bool,
    pub(super) recognizer: Vec<Part>,
    pub(super) stages: Vec<(Stage, Part)>,
    pub(super) known: BTreeMap<usize, (Known, Part)>,
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

    /// Takes over where the checkpoint's parts are.
    pub(super) fn take_over(&mut self, state: &State, catalogue: &Catalogue) {
        let layout = &state.layout;
        let (there, shelved): (Vec<_>, Vec<_>) = layout
            .experts
            .iter()
            .partition(|it| catalogue.find(it.is.id).is_some());
        let there = there.into_iter();
        self.experts = there.map(|it| (it.is.id, it.part.clone())).collect();
        let shelved = shelved.into_iter();
        self.shelf = shelved.map(|it| (it.is.id, it.clone())).collect();
        self.gates = layout
            .gates
            .iter()
            .map(|it| (it.is.id, it.part.clone()))
            .collect();
        let heads = state.tasks.iter().enumerate();
        self.heads = heads
            .filter_map(|(task, it)| Some((task, it.head.as_ref()?.part.clone())))
            .collect();
        self.own = layout.own.as_ref().map(|it| it.part.clone());
        self.memory.clone_from(&layout.memory);
        self.recognizer.clone_from(&layout.recognizer);
    }

    /// Bytes of the method's memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory.iter().map(|piece| piece.part.bytes).sum()
    }
}

/// The part that is known, or the one that `bytes` make.
pub(super) fn part<K: Ord>(
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
