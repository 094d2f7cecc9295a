//! A run as it was left after some of its tasks.

use std::path::Path;

use moe_cl::directory::{Saved, State, newest_saved};

/// The checkpoint right after the first `tasks` tasks of the run in `folder`, 0 for the untrained model; none where it is not kept.
///
/// # Errors
/// When it is damaged or of another format.
pub fn stage(folder: &Path, tasks: usize) -> moe_cl::Result<Option<Saved>> {
    let wanted = |state: &State| state.is_between_tasks() && state.progress.task == tasks;
    let saved = newest_saved(folder, wanted)?;
    Ok(saved)
}
