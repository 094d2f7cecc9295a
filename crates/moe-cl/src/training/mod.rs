//! The continual-learning scheduler: tasks arrive one after another, each is learnt, then all are evaluated.

mod balance;
mod evaluate;
mod exchange;
mod guard;
mod infer;
mod learn;
mod memory;
mod new_texts;
pub mod optimizer;
mod plan;
mod prepare;
mod read;
mod result;
mod rollback;
mod routings;
mod run;
mod schedule;
mod scheduler;
mod scored;
mod session;
mod settings;
mod step;
mod stream;
mod trained;

pub use evaluate::{Evaluation, Scores};
pub use exchange::{ExportOptions, Exported, Gap, Imported, Made, Which, import, remove};
pub use guard::Refusal;
pub use learn::{LearnOptions, Outcome, learn};
pub use memory::{PeakMemory, peak_memory};
pub use new_texts::{Answering, Said};
pub use plan::{Plan, TaskPlan, plan};
pub use prepare::{TaskForm, fresh_optimizer, prepare, untrained};
pub use result::{RunResult, RunTimes};
pub use rollback::Rollback;
pub use run::{RunOptions, train};
pub use schedule::Schedule;
pub use scored::{ScoredTexts, TextScores};
pub use step::{
    NotFinite, Part, StepFigures, StepInput, gradients, optimizer_step, trained_parameters,
};
pub use stream::{StageStep, Task, stage_steps};
pub use trained::{Trained, checkpoint_of};
