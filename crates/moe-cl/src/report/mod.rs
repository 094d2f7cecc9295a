//! Reports over finished or unfinished runs: one self-contained HTML page, and a table for the terminal.

mod colours;
mod curves;
mod figures;
mod groups;
mod heat_map;
mod page;
mod run_data;
mod sections;
mod svg;
mod table;

use std::{io, path::Path};

use moe_core::atomic;

pub use run_data::{RunData, StepPoint, TaskSpan};
pub use table::table;

/// Writes the page over `runs` to `path`, in one piece. It needs no network, no script and no other file, follows the
/// reader's light or dark mode and prints in the light one. Runs that differ only in their seed are shown as one
/// method with mean ± standard deviation.
///
/// # Errors
/// When there is no run, or the file cannot be written.
pub fn write(runs: &[RunData], path: &Path) -> io::Result<()> {
    if runs.is_empty() {
        let problem = "a report needs at least one run";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    atomic::write_file(path, page::html(runs).as_bytes())
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod examples;
