//! A model as commands that ask it name it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use moe_cl::directory::Saved;
use moe_cl::training::{Answering, Trained, checkpoint_of};
use moe_cl::{Base, TrunkCache};
use moe_core::device::DeviceChoice;
use moe_core::model::BaseDtype;

use crate::base::ModelBase;
use crate::failure::Failure;
use crate::terminal::tell;

/// The base below a model, and how its numbers are held.
#[derive(Debug, Args)]
pub struct BaseArguments {
    #[command(flatten)]
    pub base: ModelBase,
    /// Number format of the base's matrices: f32, bf16, or stored as in the file [default: that of the model, else stored]
    #[arg(long, value_name = "DTYPE")]
    pub base_dtype: Option<BaseDtype>,
}

impl BaseArguments {
    /// Reads the newest checkpoint of the model in `path`, or `path` itself, and its base.
    ///
    /// # Errors
    /// When either cannot be had.
    pub fn open(
        &self,
        path: &std::path::Path,
        device: Option<DeviceChoice>,
    ) -> Result<(Saved, Base)> {
        let saved = checkpoint_of(path)?;
        tell_of_damage(&saved);
        let mut experiment = saved.state.whole_experiment();
        if let Some(dtype) = self.base_dtype {
            experiment.base.dtype = dtype;
        }
        if let Some(device) = device {
            experiment.device = device.to_string();
        }
        let base = self.base.load(&saved, &experiment)?;
        // A run would say it among its events.
        if let Some(news) = base.trunk.as_ref().and_then(TrunkCache::news) {
            tell!("warning: {news}");
        }
        Ok((saved, base))
    }
}

/// Says that a newer checkpoint is damaged, and that the model is what an older one has.
pub fn tell_of_damage(saved: &Saved) {
    for damage in &saved.passed_over {
        tell!("warning: {damage}");
    }
}

/// The task that was named with `--task`; none for `auto`, which every text is asked for by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskName(pub Option<String>);

impl std::str::FromStr for TaskName {
    type Err = std::convert::Infallible;

    fn from_str(name: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Self((name != "auto").then(|| name.to_owned())))
    }
}

impl TaskName {
    /// Who answers each of the `bare` texts.
    ///
    /// # Errors
    /// When the model has no task of that name or has not learnt it yet, or no task can be inferred.
    pub fn answering(&self, trained: &Trained<'_>, bare: &[String]) -> Result<Vec<Answering>> {
        let Some(name) = &self.0 else {
            return Ok(trained.infer(bare)?);
        };
        let task = trained.task(name)?;
        if !trained.answers(task) {
            anyhow::bail!(Failure::new(
                format!("task {name} has not been learnt yet"),
                "finish the run with `moe-cl train --resume`, or take a task that it has learnt",
            ));
        }
        Ok(vec![Answering::given(task); bare.len()])
    }
}

/// Who answers, for people.
pub fn told(trained: &Trained<'_>, who: Answering) -> String {
    let name = &trained.experiment.tasks[who.task].name;
    match who.recognized {
        None => name.clone(),
        Some(it) if it.known => format!("{name} (inferred)"),
        Some(_) if who.shared => {
            format!("none that is known; the shared expert writes (nearest: {name})")
        }
        Some(_) => format!("none that is known; the nearest, {name}, writes"),
    }
}

/// A model's directory, by its place on the command line or by `--run`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ModelPath {
    /// Directory of a model, or of one of its checkpoints
    model: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
}

impl ModelPath {
    /// The path.
    pub fn path(&self) -> &std::path::Path {
        let path = self.model.as_ref().or(self.run.as_ref());
        path.expect("clap requires one of them")
    }
}
