//! The continual-learning scheduler: tasks arrive one after another, each is learnt, then all are evaluated.

mod evaluate;
mod infer;
pub mod optimizer;
mod plan;
mod prepare;
mod result;
mod run;
mod schedule;
mod scheduler;
mod state;
mod step;
mod stream;
mod trained;

pub use evaluate::{Scores, evaluate};
pub use infer::{Answers, Inference, evaluation_features};
pub use plan::{Plan, TaskPlan, plan};
pub use prepare::{fresh_optimizer, prepare, untrained};
pub use result::{RunResult, peak_memory};
pub use run::{RunOptions, learn};
pub use schedule::Schedule;
pub use step::{Part, StepFigures, StepInput, optimizer_step, trained_parameters};
pub use stream::{StageStep, Task, stage_steps};
pub use trained::Trained;
