//! The feature memory: what is known of the shared expert's pooled features of finished tasks, and how it is stored.

use burn::module::Module;
use moe_gan::FeatureMemory;
use moe_lora::Observe;

use super::MoeCl;
use crate::{
    data::Example,
    learner::Learner,
    methods::{LearntTask, Piece},
};

/// Batches of a finished task from which the feature memory is filled.
const BATCHES_TO_REMEMBER: usize = 8;

/// Begins the name of what is remembered of a task's features.
const FEATURES: &str = "features/";

impl MoeCl {
    /// Takes the pooled shared features of some batches of a finished task.
    pub(super) fn observe(&mut self, learner: &Learner, learnt: LearntTask<'_>) {
        let LearntTask {
            base,
            task,
            examples,
            batch_size,
            collate,
            ..
        } = learnt;
        let observe = Observe {
            expert: self.shared(learner, task),
            detach_upstream: false,
        };
        let d_model = base.config().d_model;
        let catalogue = learner.catalogue.valid();
        self.memory
            .resize_with(catalogue.layers().len(), || FeatureMemory::new(d_model));
        for chunk in examples.chunks(batch_size).take(BATCHES_TO_REMEMBER) {
            let examples: Vec<&Example> = chunk.iter().collect();
            let batch = collate.batch(&examples, &base.device());
            let routing = learner.answering(task);
            let forward = catalogue.forward(base, &batch.texts, routing, Some(&observe), None);
            for (memory, pooled) in self.memory.iter_mut().zip(forward.pooled) {
                memory.observe(task, pooled);
            }
        }
    }

    /// A piece per task: the number of layers as eight bytes, then what is known of the task's features in each.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let tasks = self.memory.first().map_or(0, FeatureMemory::tasks);
        let piece = |task| {
            let mut bytes = (self.memory.len() as u64).to_le_bytes().to_vec();
            let layers = self.memory.iter().filter_map(|it| it.task_bytes(task));
            bytes.extend(layers.flatten());
            Piece {
                name: format!("{FEATURES}{task}"),
                bytes,
                settled: true,
            }
        };
        (0..tasks).map(piece).collect()
    }

    /// Takes a stored piece of feature memory; none where it is of another form.
    pub(super) fn remember(&mut self, piece: &Piece) -> Option<()> {
        let task = piece.name.strip_prefix(FEATURES)?.parse().ok()?;
        let (layers, bytes) = piece.bytes.split_first_chunk()?;
        let layers = usize::try_from(u64::from_le_bytes(*layers)).ok()?;
        let size = bytes.len().checked_div(layers)?;
        if self.memory.is_empty() {
            let d_model = FeatureMemory::width(size)?;
            self.memory
                .resize_with(layers, || FeatureMemory::new(d_model));
        }
        if layers != self.memory.len() || bytes.len() != layers * size {
            return None;
        }
        let mut pairs = self.memory.iter_mut().zip(bytes.chunks_exact(size));
        pairs.try_for_each(|(memory, bytes)| memory.read_task(task, bytes))
    }
}
