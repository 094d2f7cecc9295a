//! What happens while a model learns, as pictures: one self-contained HTML page over finished or unfinished runs, a table for the
//! terminal, TensorBoard files, and burn-train's dashboard (cargo feature `dashboard`).
//!
//! Everything here reads [events](moe_cl::events::Event) and knows no method: what a method has to say of itself are figures with
//! names, and each is drawn under its name.

mod colours;
mod curves;
#[cfg(feature = "dashboard")]
mod dashboard;
mod figures;
mod groups;
mod heat_map;
#[cfg(any(test, not(feature = "dashboard")))]
mod no_dashboard;
mod page;
mod run_data;
#[cfg(feature = "dashboard")]
mod scalar;
mod sections;
mod svg;
mod table;
mod tensorboard;

use std::{io, path::Path};

use moe_core::atomic;

#[cfg(feature = "dashboard")]
pub use dashboard::Dashboard;
pub use groups::Spread;
#[cfg(not(feature = "dashboard"))]
pub use no_dashboard::Dashboard;
pub use run_data::{RunData, StepPoint, TaskSpan};
pub use svg::escape;
pub use table::table;
pub use tensorboard::TensorBoard;

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

/// The README's example, so that it goes on compiling and running.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
