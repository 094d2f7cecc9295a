//! Imported experts that leave again.

use std::path::Path;

use moe_lora::ExpertId;

use super::import::{between_tasks, replace};
use crate::{
    directory::{Checkpoints, Lock, run_of},
    error::{Error, Result},
};

/// Which expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that answers for this task.
    OfTask(String),
    /// The one of this id.
    Expert(u64),
}

/// Takes an imported expert out of the model in `model`, and the task that it answers for. Its id is not given again, and checkpoints
/// from before have it still.
///
/// # Errors
/// When there is none, it was learnt and not imported, or another process writes.
pub fn remove(model: &Path, which: &Which) -> Result<ExpertId> {
    let out = run_of(model)?;
    let _lock = Lock::take(&out)?;
    let saved = between_tasks(&out)?;
    let mut state = saved.state.clone();
    let problem = |problem: String| Error::RunDirectory {
        path: out.clone(),
        problem,
    };
    let id = match which {
        Which::Expert(id) => ExpertId(*id),
        Which::OfTask(name) => {
            let mut tasks = state.imported.iter();
            let found = tasks.find(|it| it.config.name == *name);
            let routing = found.and_then(|it| Some(&it.experts.as_ref()?.answering));
            match routing.and_then(|it| it.experts().first()) {
                Some(id) => *id,
                None => {
                    let names: Vec<&str> = state
                        .imported
                        .iter()
                        .map(|it| it.config.name.as_str())
                        .collect();
                    let there = match names.is_empty() {
                        true => "none".into(),
                        false => names.join(", "),
                    };
                    return Err(problem(format!(
                        "has no imported task {name:?}, but {there}; a task that was learnt stays (`moe-cl rollback` goes back before it)"
                    )));
                }
            }
        }
    };
    let expert = state.layout.experts.iter().find(|it| it.is.id == id);
    match expert {
        None => {
            return Err(problem(format!(
                "has no expert {id}; `moe-cl expert list` names them"
            )));
        }
        Some(it) if it.is.origin.imported.is_none() => {
            return Err(problem(format!(
                "learnt expert {id} itself, for task {:?}; only imported ones are taken out",
                it.is.origin.task
            )));
        }
        Some(_) => {}
    }
    state.layout.experts.retain(|it| it.is.id != id);
    state.imported.retain(|task| {
        let answering = task.experts.as_ref().map(|it| it.answering.experts());
        !answering.is_some_and(|experts| experts.contains(&id))
    });
    let mut checkpoints = Checkpoints::open(&out, Some(&saved.path))?;
    replace(&mut checkpoints, &state, &saved)?;
    Ok(id)
}
