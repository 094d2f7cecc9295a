//! The manifest of a checkpoint: what the model consists of, where each part is stored, and where the run stands.

use std::path::PathBuf;

use moe_lora::{ExpertId, ExpertInfo, GateId, GateInfo, LoraConfig, NextIds, Routing};
use serde::{Deserialize, Serialize};

use super::Part;
use crate::{
    base::BaseIdentity,
    config::{
        AdaptersConfig, BalanceConfig, DataConfig, Experiment, Pooling, Split, TaskConfig,
        TrainingConfig,
    },
    data::Form,
    error::{Error, Result},
    learner::TaskExperts,
    methods::OwnForm,
    metrics::{Inferred, TextMetric},
};

/// Name of the manifest's file.
pub(super) const STATE: &str = "state.json";

/// The form that this program writes and reads. Up to 5 times stood among
/// what is the same from one run to the next.
pub(crate) const FORMAT: u32 = 6;

/// Everything that a checkpoint says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Number of the form that it is written in.
    pub format: u32,
    /// The base below it.
    pub base: BaseRecord,
    /// Settings of the run; its list of tasks is empty here, since [`Self::tasks`] says more.
    pub experiment: Experiment,
    /// Where the run stands.
    pub progress: Progress,
    /// The tasks that are known, in the order in which they are learnt.
    pub tasks: Vec<TaskState>,
    /// Tasks that imported experts answer for, which are no part of the stream: they are not learnt, inferred or among its scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imported: Vec<TaskState>,
    /// What the model consists of.
    pub layout: Layout,
    /// Per stage, the untrained model first: its scores ([`Stage`], JSON).
    pub stages: Vec<Part>,
}

/// A base and where it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRecord {
    /// As it was named.
    pub source: String,
    /// Where it was read from.
    pub location: PathBuf,
    /// What it is.
    pub identity: BaseIdentity,
}

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Tasks that are learnt, which is the index of the one being learnt.
    pub task: usize,
    /// Optimiser steps done within that task: the data cursor, since batches are a function of it.
    pub step_in_task: usize,
    /// Optimiser steps done in the run.
    pub step: usize,
    /// Real tokens trained on.
    pub real_tokens: u64,
}

/// One task: what it asks, what it was learnt from, who answers for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskState {
    /// As the experiment defined it.
    pub config: TaskConfig,
    /// Names of its labels, by class.
    pub labels: Vec<String>,
    /// Its own settings.
    pub settings: TaskSettings,
    /// What its records are, as its training file has them.
    pub form: Form,
    /// Tokens of its longest answer, which a prompt leaves room for and an answer may take.
    pub room: usize,
    /// How answers in free text are scored; none where it has labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<TextMetric>,
    /// What it is learnt from.
    pub training: TrainingData,
    /// The dev rows that are scored, as they were.
    pub dev: KeptRows,
    /// The test rows that are scored, as they were.
    pub test: KeptRows,
    /// What the recognizer reads of the rows that are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<StoredFeatures>,
    /// Who answers for it; none before it is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<TaskExperts>,
    /// Its classification head, once it is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Stored<HeadForm>>,
    /// How it was learnt; none before it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learnt: Option<Learnt>,
    /// How its texts are answered ([`crate::training::ScoredTexts`] and where each was sent, JSON), once that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Part>,
}

/// Settings that each task has for itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSettings {
    /// How it is trained.
    pub training: TrainingConfig,
    /// Size and start of the experts that are made for it.
    pub adapters: AdaptersConfig,
    /// Which losses the routers of a sparse base have.
    #[serde(default)]
    pub balance: BalanceConfig,
    /// How many of its texts are used, and how long they may be.
    pub data: DataConfig,
}

impl TaskSettings {
    /// Those of an experiment, for a task that has an objective of its own or not.
    pub fn of(experiment: &Experiment, task: &TaskConfig) -> Self {
        let training = experiment.training.clone();
        Self {
            training: TrainingConfig {
                objective: task.objective.unwrap_or(training.objective),
                ..training
            },
            adapters: experiment.adapters.clone(),
            balance: experiment.balance.clone(),
            data: experiment.data.clone(),
        }
    }

    /// Size and start of one LoRA pair.
    pub fn lora(&self) -> LoraConfig {
        self.adapters.lora()
    }
}

/// What a task is learnt from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// The file, in full.
    pub file: PathBuf,
    /// SHA-256 of the records used, in their order, with question and labels.
    pub sha256: String,
    /// How many are used.
    pub rows: usize,
}

/// Rows of a task's file that are kept with the model (JSON Lines).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptRows {
    /// How many.
    pub rows: usize,
    /// Their part; none where there are no rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// What the recognizer reads of the rows of one split, `[rows, d_model]` as little-endian f32.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFeatures {
    /// Of which rows.
    pub split: Split,
    /// The numbers.
    pub part: Part,
}

/// How a task was learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learnt {
    /// Optimiser steps that it took.
    pub steps: usize,
    /// Optimiser steps of the whole run up to its end.
    pub step: usize,
    /// Its score right then, with the task given.
    pub score: Option<f64>,
}

/// What the model consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The ids that will be given next.
    pub next: NextIds,
    /// Experts, in the order of their ids.
    pub experts: Vec<Stored<ExpertInfo>>,
    /// Gates, in the order of their ids.
    pub gates: Vec<Stored<GateInfo>>,
    /// What the method trains besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Stored<OwnForm>>,
    /// What the method remembers, by name.
    pub memory: Vec<Stored<String>>,
    /// The task recognizer, and per task the samples that its threshold is set on.
    pub recognizer: Vec<Part>,
    /// The optimiser, in the middle of a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Part>,
}

/// Something that is stored as a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored<T> {
    /// What it is.
    pub is: T,
    /// Where it is.
    pub part: Part,
}

/// Form of a classification head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadForm {
    /// Its outputs.
    pub classes: usize,
    /// What it reads of a text.
    pub pooling: Pooling,
}

/// Scores of the model after some tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Per task that was known then: its score with the task given; none where it was not measured.
    pub scores: Vec<Option<f64>>,
    /// The same with the task inferred; none for the untrained model.
    pub inferred: Option<Inferred>,
}

impl Layout {
    /// Whether all that `routing` names is there.
    pub fn has(&self, routing: &Routing) -> bool {
        let expert = |id: &ExpertId| self.experts.iter().any(|it| it.is.id == *id);
        let gate = |id: GateId| self.gates.iter().any(|it| it.is.id == id);
        routing.experts().iter().all(expert) && routing.gate().is_none_or(gate)
    }
}

impl TaskState {
    /// Every part that it names.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let rows = [&self.dev, &self.test].into_iter();
        rows.filter_map(|rows| rows.part.as_ref())
            .chain(self.features.iter().map(|it| &it.part))
            .chain(self.head.iter().map(|it| &it.part))
            .chain(&self.answers)
    }
}

impl State {
    /// Every part that it names.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let Layout {
            next: _,
            experts,
            gates,
            own,
            memory,
            recognizer,
            optimizer,
        } = &self.layout;
        let layout = experts
            .iter()
            .map(|it| &it.part)
            .chain(gates.iter().map(|it| &it.part))
            .chain(own.iter().map(|it| &it.part))
            .chain(memory.iter().map(|it| &it.part))
            .chain(recognizer)
            .chain(optimizer);
        let tasks = self.tasks.iter().chain(&self.imported);
        let tasks = tasks.flat_map(TaskState::parts);
        layout.chain(tasks).chain(&self.stages)
    }

    /// Whether it is the end of a task, or the beginning of all: a state that the model was left in on purpose.
    pub fn is_between_tasks(&self) -> bool {
        self.progress.step_in_task == 0
    }

    /// The task of that index, those that were imported behind those of the stream.
    ///
    /// # Panics
    /// When there is none.
    pub fn task(&self, index: usize) -> &TaskState {
        match index.checked_sub(self.tasks.len()) {
            None => &self.tasks[index],
            Some(place) => &self.imported[place],
        }
    }

    /// Refuses the name of a task that there is.
    ///
    /// # Errors
    /// When one has it.
    pub fn check_name(&self, name: &str) -> Result<()> {
        let mut all = self.tasks.iter().chain(&self.imported);
        match all.any(|it| it.config.name == name) {
            false => Ok(()),
            true => Err(Error::NameTaken { task: name.into() }),
        }
    }

    /// Refuses the name of an imported task for one that is to be learnt.
    ///
    /// # Errors
    /// When one has it.
    pub fn check_imported_name(&self, name: &str) -> Result<()> {
        match self.imported.iter().any(|it| it.config.name == name) {
            false => Ok(()),
            true => Err(Error::NameTaken { task: name.into() }),
        }
    }

    /// The experiment with its tasks.
    pub fn whole_experiment(&self) -> Experiment {
        Experiment {
            tasks: self.tasks.iter().map(|task| task.config.clone()).collect(),
            ..self.experiment.clone()
        }
    }
}
