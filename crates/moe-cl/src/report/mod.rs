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

pub use groups::Spread;
pub use run_data::{RunData, StepPoint, TaskSpan};
pub use svg::escape;
pub use table::table;

/// Writes the page over `runs` to `path`, in one piece. It needs no network, no script and no other file, follows the
/// reader's light or dark mode and prints in the light one. Runs that differ only in their seed are shown as one
/// method with mean ± standard deviation.
///
/// # Errors
/// When there is no run, or the file cannot be written.
pub fn write(runs: &[RunData], path: &Path) -> io::Result<()> {
    write_with(runs, "", path)
}

/// As [`write()`], with `sections` of HTML (`<section><h2>…`) of the caller's before the figures.
///
/// # Errors
/// As [`write()`].
pub fn write_with(runs: &[RunData], sections: &str, path: &Path) -> io::Result<()> {
    if runs.is_empty() {
        let problem = "a report needs at least one run";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    atomic::write_file(path, page::html(runs, sections).as_bytes())
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod examples;
