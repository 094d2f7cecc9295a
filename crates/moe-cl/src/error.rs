//! What can go wrong in a run, said so that the reader knows where and what to do.

use std::path::PathBuf;

/// An error of this crate's training and evaluation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A base model cannot be used.
    #[error(transparent)]
    Core(#[from] moe_core::Error),
    /// Adapters do not fit the base model.
    #[error(transparent)]
    Lora(#[from] moe_lora::Error),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A checkpoint cannot be written or read.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// Its directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint was written by another version of this program.
    #[error(
        "checkpoint {}: of format {found}, and this program reads format {reads} alone; go on with the version that wrote it, or train anew in another directory",
        path.display()
    )]
    CheckpointFormat {
        /// Its directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The one that is read.
        reads: u32,
    },
    /// A file of a run cannot be written or read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An event cannot be recorded.
    #[error("an event of the run cannot be recorded: {0}; the run stops here and can be resumed")]
    Recorder(#[from] std::io::Error),
    /// A recorder asked the run to stop. What was learnt up to then is on disk.
    #[error("stopped after step {step}; the run can be resumed from there")]
    Stopped {
        /// Optimiser steps done in the run.
        step: usize,
    },
    /// The run directory is not in the state that the command needs.
    #[error("{}: {problem}", path.display())]
    RunDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The base is in another number format than the experiment says.
    #[error(
        "`base.dtype` is {asked}, but the base was loaded in {loaded}; load it in {asked}, or change the setting"
    )]
    BaseDtype {
        /// What the experiment says.
        asked: moe_core::model::BaseDtype,
        /// What the base is in.
        loaded: moe_core::model::BaseDtype,
    },
    /// The base is another one than the model was trained on.
    #[error(
        "{}: another base than the model was trained on: {difference}; name the right one with --base, or give --allow-other-base if you know that this one serves",
        base.display()
    )]
    AnotherBase {
        /// Where the base is.
        base: PathBuf,
        /// What differs.
        difference: String,
    },
    /// Settings of a run that cannot change any more.
    #[error("{}: {what}; {way_out}", run.display())]
    AnotherSetting {
        /// The run.
        run: PathBuf,
        /// Which, with both values.
        what: String,
        /// What to do.
        way_out: String,
    },
    /// A task cannot be learnt into a model.
    #[error("task '{task}': {problem}")]
    CannotLearn {
        /// Its name.
        task: String,
        /// Why, and what to do.
        problem: String,
    },
    /// A task cannot leave the model.
    #[error("task '{task}' cannot be exported: {problem}")]
    CannotExport {
        /// Its name.
        task: String,
        /// Why, and what to do.
        problem: String,
    },
    /// A task's name that another has.
    #[error("the model has a task '{task}' already; give the new one another name")]
    NameTaken {
        /// The name.
        task: String,
    },
    /// The stream has no task of that name.
    #[error("no task '{name}' in this run; it has {known}")]
    UnknownTask {
        /// The name that was asked for.
        name: String,
        /// Names of the tasks that there are.
        known: String,
    },
    /// The task of a text cannot be inferred.
    #[error("the task cannot be inferred: {problem}; name a task (--task NAME)")]
    NothingToInfer {
        /// Why not.
        problem: String,
    },
    /// The base has fewer layers than the router wants below its features.
    #[error("`router.layer` is {asked}, but the base has {layers} layers")]
    RecognizerLayer {
        /// What was asked for.
        asked: usize,
        /// Layers of the base.
        layers: usize,
    },
    /// The recognizer cannot learn a task.
    #[error("the router cannot learn this task: {0}; raise `router.ridge`, whose default is 10")]
    Recognizer(#[from] crate::recognizer::Singular),
    /// A loss of routers is asked for, and the base has none.
    #[error(
        "`{key}` asks for a loss of routers, and the base has none: all of its layers are dense; leave it out, or make the base sparse first with `moe-cl upcycle`"
    )]
    NoRouters {
        /// The setting.
        key: &'static str,
    },
    /// A parameter that should be trained has no gradient.
    #[error(
        "task '{task}': no gradient reached {parameters} after the first step; check `adapters.targets` and `adapters.layers`"
    )]
    NoGradient {
        /// Name of the task.
        task: String,
        /// Names of the parameters.
        parameters: String,
    },
    /// Routings are asked for of a model that routes no token.
    #[error(
        "nothing in this model routes tokens to experts; `method.name = \"mix_lora\"` or a sparse base does"
    )]
    NoRouter,
    /// Loss or gradient are no longer numbers.
    #[error(
        "step {step} of task '{task}': {what}; the run stops here and its last checkpoint is as it was: begin it anew in another directory with a lower `training.learning_rate` or with `training.clip_norm`, and with `base.dtype = \"f32\"` where the base is in bf16"
    )]
    Diverged {
        /// Name of the task.
        task: String,
        /// Optimiser step of the run.
        step: usize,
        /// What is not finite.
        what: crate::training::NotFinite,
    },
}

/// Result of this crate's training and evaluation.
pub type Result<T> = std::result::Result<T, Error>;
