//! Experts that leave a model and enter it, as PEFT folders.

mod candidate;
mod export;
mod gap;
mod head;
mod import;
mod remove;

pub use export::{ExportOptions, Exported, Made};
pub use gap::Gap;
pub use import::{Imported, import};
pub use remove::{Which, remove};
