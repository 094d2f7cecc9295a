//! A model read back from what its checkpoint says, never from how it came about.

use std::collections::BTreeSet;

use burn::tensor::Device;
use burn_dataset::Dataset;
use moe_core::parameters::from_bytes;
use moe_lora::{Catalogue, Expert, ExpertId, ExpertInfo};

use super::{
    prepare::{identified, untrained},
    stream::Task,
};
use crate::{
    base::Base,
    config::{Split, TaskConfig},
    data::{Record, Records, TaskData},
    directory::{KeptRows, Parts, Saved, Stored, TaskSettings, TaskState},
    error::{Error, Result},
    head::Head,
    learner::Learner,
    methods::{Own, Piece, method},
    recognizer::TaskRecognizer,
};

/// What a checkpoint holds, in memory.
pub(super) struct Model {
    /// Experts, gates, heads, and what the method trains besides; on the autodiff device.
    pub learner: Learner,
    /// What infers the task of a text.
    pub recognizer: TaskRecognizer,
}

/// The model of a checkpoint, as its layout says, with those of its experts that are `wanted`.
///
/// # Errors
/// When a part is damaged, or does not fit the layout or the base.
pub(super) fn model_of(
    saved: &Saved,
    base: &Base,
    wanted: impl Fn(ExpertId) -> bool,
) -> Result<Model> {
    let Saved { state, parts, .. } = saved;
    let experiment = &state.experiment;
    let (layout, device) = (&state.layout, base.decoder.device().autodiff());
    let misfit =
        |what: String, error: &dyn std::fmt::Display| saved.damaged(format!("{what}: {error}"));

    let mut learner = untrained(experiment, &base.decoder)?;
    let wanted = layout.experts.iter().filter(|it| wanted(it.is.id));
    let experts: Vec<_> = wanted.clone().map(|it| it.is.clone()).collect();
    let gates: Vec<_> = layout.gates.iter().map(|it| it.is.clone()).collect();
    let described = learner
        .catalogue
        .described(&experts, &gates, layout.next, &device)
        .map_err(|error| misfit("a gate".into(), &error))?;
    let (mut experts, mut gates) = (wanted, layout.gates.iter());
    learner.catalogue = described.try_map(
        |expert| {
            let stored = experts.next().expect("as many as are described");
            let read = from_bytes(expert, &parts.get(&stored.part)?);
            read.map_err(|error| misfit(format!("expert {}", stored.is.id), &error))
        },
        |gate| {
            let stored = gates.next().expect("as many as are described");
            let read = from_bytes(gate, &parts.get(&stored.part)?);
            read.map_err(|error| misfit(format!("gate {}", stored.is.id), &error))
        },
    )?;
    let d_model = base.decoder.config().d_model;
    for (task, stored) in state.tasks.iter().enumerate() {
        let Some(experts) = &stored.experts else {
            continue;
        };
        for routing in [&experts.answering, &experts.trained] {
            if !layout.has(routing) {
                return Err(saved.damaged(format!("{routing:?} is not in the catalogue")));
            }
        }
        learner.tasks.push(experts.clone());
        let head = stored.head.as_ref().map(|head| {
            let empty = Head::zeros(d_model, head.is.classes, head.is.pooling, &device);
            let read = from_bytes(identified(empty, task), &parts.get(&head.part)?);
            read.map_err(|error| misfit(format!("head of task {}", stored.config.name), &error))
        });
        learner.heads.push(head.transpose()?);
    }
    for stored in &state.imported {
        let experts = stored.experts.as_ref();
        let routing = experts.map(|it| &it.answering).filter(|it| layout.has(it));
        let lost = || {
            saved.damaged(format!(
                "imported task {} has no expert",
                stored.config.name
            ))
        };
        learner.imported.push(routing.ok_or_else(lost)?.clone());
    }
    if let Some(own) = &layout.own {
        let described = Own::described(own.is, &base.decoder);
        let read = from_bytes(described, &parts.get(&own.part)?);
        learner.own = Some(read.map_err(|error| misfit(format!("{:?}", own.is), &error))?);
    }

    let recognizer = TaskRecognizer::new(&experiment.router, base.decoder.config())?;
    let pieces = layout.recognizer.iter().map(|part| parts.get(part));
    let pieces = pieces.collect::<Result<Vec<_>>>()?;
    let recognizer = recognizer
        .read(&pieces)
        .ok_or_else(|| saved.damaged("the task recognizer is of another configuration"))?;
    Ok(Model {
        learner,
        recognizer,
    })
}

/// The experts that going on from a checkpoint reads: those of the task learnt last and of those that are prepared already, or all.
pub(super) fn needed(saved: &Saved) -> impl Fn(ExpertId) -> bool {
    let state = &saved.state;
    let all = method(&state.experiment.method, state.tasks.len()).reads_all_experts();
    let recent = state
        .tasks
        .iter()
        .skip(state.progress.task.saturating_sub(1));
    let experts = recent
        .filter_map(|task| task.experts.as_ref())
        .flat_map(|it| {
            let both = it.answering.experts().iter().chain(it.trained.experts());
            both.copied().collect::<Vec<_>>()
        });
    let mut wanted: BTreeSet<ExpertId> = experts.collect();
    // A copy from when the task began belongs to no task's answers.
    let made_here = state.layout.experts.iter().map(|it| &it.is);
    let mut made_here = made_here.filter(|it| it.origin.imported.is_none());
    let newest = made_here.next_back().map(|it| it.id);
    wanted.extend(newest);
    move |id| all || wanted.contains(&id)
}

/// Reads an expert that is not in memory.
///
/// # Errors
/// When its part is damaged.
pub(super) fn expert_of(
    stored: &Stored<ExpertInfo>,
    catalogue: &Catalogue,
    parts: &Parts,
    device: &Device,
) -> Result<Expert> {
    let described = catalogue.described_expert(&stored.is, device);
    from_bytes(described, &parts.get(&stored.part)?).map_err(|error| Error::Checkpoint {
        path: stored.part.sha256().into(),
        reason: format!("expert {}: {error}", stored.is.id),
    })
}

/// What the method of a checkpoint remembers.
///
/// # Errors
/// When a part is damaged.
pub(super) fn memory_of(saved: &Saved) -> Result<Vec<Piece>> {
    let pieces = saved.state.layout.memory.iter().map(|piece| {
        Ok(Piece {
            name: piece.is.clone(),
            bytes: saved.parts.get(&piece.part)?,
            settled: false,
        })
    });
    pieces.collect()
}

/// A task as it is kept with the model, with the rows that are scored and none to learn from.
///
/// # Errors
/// When the rows are damaged, or the base's tokenizer refuses them.
pub(super) fn kept_task(
    stored: &TaskState,
    parts: &Parts,
    split: Split,
    base: &Base,
) -> Result<Task> {
    let dev = kept_rows(&stored.dev, parts)?;
    let test = kept_rows(&stored.test, parts)?;
    let data = TaskData::kept(stored, dev, test);
    Task::encode(data, &stored.settings, split, base, &mut Vec::new())
}

/// What is stored of a task that arrives, its scored rows put with the model.
///
/// # Errors
/// When the disk refuses.
pub(super) fn arrived(
    task: &Task,
    config: &TaskConfig,
    settings: &TaskSettings,
    parts: &Parts,
) -> Result<TaskState> {
    Ok(TaskState {
        config: config.clone(),
        labels: task.labels.clone(),
        settings: settings.clone(),
        form: task.data.form,
        room: task.data.room,
        metric: task.data.metric,
        training: task.training_data(),
        dev: keep_rows(&task.data.dev, parts)?,
        test: keep_rows(&task.data.test, parts)?,
        features: None,
        experts: None,
        head: None,
        learnt: None,
        answers: None,
    })
}

fn keep_rows(records: &Records, parts: &Parts) -> Result<KeptRows> {
    let lines = records.iter().flatten().map(|row| {
        let mut line = serde_json::to_string(&row.record).map_err(std::io::Error::from)?;
        line.push('\n');
        Ok(line)
    });
    let text = lines
        .collect::<std::io::Result<String>>()
        .map_err(Error::Recorder)?;
    Ok(KeptRows {
        rows: records.len(),
        part: match text.is_empty() {
            true => None,
            false => Some(parts.put(text.as_bytes())?),
        },
    })
}

fn kept_rows(kept: &KeptRows, parts: &Parts) -> Result<Vec<Record>> {
    let Some(part) = &kept.part else {
        return Ok(Vec::new());
    };
    let bytes = parts.get(part)?;
    let lines = bytes
        .split(|&byte| byte == b'\n')
        .filter(|it| !it.is_empty());
    let rows = lines.map(serde_json::from_slice::<Record>);
    rows.collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::Checkpoint {
            path: part.sha256().into(),
            reason: format!("kept rows: {error}"),
        })
}
