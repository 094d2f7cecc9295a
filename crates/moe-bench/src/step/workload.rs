use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use moe_cl::config::Experiment;
use moe_cl::data::{Batch, Collate, Example};
use moe_cl::directory::TaskSettings;
use moe_cl::methods::{Method, method};
use moe_cl::training::{StepInput, TaskForm, fresh_optimizer, optimizer_step, prepare, untrained};
use moe_cl::{Learner, TaskChoice};
use moe_core::config::ModelConfig;
use moe_core::model::{BaseDtype, Decoder};
use moe_lora::Mix;

use super::Mode;
use crate::shapes::smollm2;

const CLASSES: usize = 4;

/// A method on a model of SmolLM2-135M's shapes, with classification heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Method in TOML, as in an experiment file.
    pub method: String,
    /// Rows.
    pub batch: usize,
    /// Tokens of a row, none of them padding.
    pub len: usize,
    /// Layers of the model, all of them adapted.
    pub layers: usize,
    /// Rank of the LoRAs.
    pub rank: usize,
    /// Dropout on the LoRA inputs.
    pub dropout: f64,
    /// Number format of the base's matrices.
    pub base_dtype: BaseDtype,
    /// Tasks learnt so far, the one at work included.
    pub tasks: usize,
}

impl Setting {
    /// The model's settings.
    pub fn model(&self) -> ModelConfig {
        smollm2(self.layers)
    }

    fn experiment(&self) -> anyhow::Result<Experiment> {
        let Self {
            method,
            rank,
            dropout,
            batch,
            ..
        } = self;
        let alpha = 2 * rank;
        let tasks: String = (0..self.tasks)
            .map(|task| {
                format!("[[tasks]]\nname = \"task {task}\"\ntrain = \"none\"\ntest = \"none\"\n")
            })
            .collect();
        let text = format!(
            "name = \"bench\"\nmethod = {{ {method} }}\n[adapters]\nrank = {rank}\nalpha = {alpha}.0\ndropout = {dropout:?}\nlayers = \"all\"\n\
             [training]\nobjective = \"heads\"\nbatch_size = {batch}\n{tasks}"
        );
        Experiment::parse(&text, Path::new("benchmark"), &[])
            .context("the settings of the benchmark")
    }
}

/// A learner in the middle of its stream, with random weights: time does not depend on what they say.
pub struct Workload {
    settings: TaskSettings,
    seed: u64,
    base: Decoder,
    method: Box<dyn Method>,
    task: usize,
    /// Always there between two calls.
    learner: Option<Learner>,
    optimizer: ModuleOptimizer,
    examples: Vec<Example>,
    steps: usize,
}

impl Workload {
    /// The learner at its last task.
    ///
    /// # Errors
    /// When the method is none, or the adapters do not fit the model.
    pub fn new(setting: &Setting, device: &Device) -> anyhow::Result<Self> {
        let experiment = setting.experiment()?;
        let base = Decoder::random(&setting.model(), 1, device).with_dtype(setting.base_dtype);
        let task = setting.tasks - 1;
        let (settings, seed) = (
            TaskSettings::of(&experiment, &experiment.tasks[0]),
            experiment.seed,
        );
        let mut learner = untrained(&experiment, &base)?;
        let method = method(&experiment.method, setting.tasks);
        for (task, config) in experiment.tasks.iter().enumerate() {
            let form = TaskForm {
                task,
                name: &config.name,
                classes: CLASSES,
                settings: &settings,
            };
            learner = prepare(method.as_ref(), seed, &base, learner, form);
        }
        let Setting { batch, len, .. } = *setting;
        let vocabulary = base.config().vocab_size as u32;
        let examples = (0..batch)
            .map(|row| Example {
                tokens: (0..len)
                    .map(|index| (17 + 31 * (row * len + index) as u32) % vocabulary)
                    .collect(),
                label: Some(row % CLASSES),
                answers: Vec::new(),
            })
            .collect();
        Ok(Self {
            optimizer: fresh_optimizer(&settings.training),
            settings,
            seed,
            base,
            method,
            task,
            learner: Some(learner),
            examples,
            steps: 0,
        })
    }

    /// Wall seconds of what `mode` names.
    pub fn seconds(&mut self, mode: Mode) -> f64 {
        let start = Instant::now();
        match mode {
            Mode::Train => self.step(),
            Mode::Eval => self.forward(),
            Mode::Mixed => self.forward_of_all_tasks(),
        }
        start.elapsed().as_secs_f64()
    }

    /// Forward, backward and AdamW on the batch.
    pub fn step(&mut self) {
        let micro_batches = [self.examples.iter().collect::<Vec<_>>()];
        self.steps += 1;
        let input = StepInput {
            settings: &self.settings,
            seed: self.seed,
            base: &self.base,
            method: self.method.as_ref(),
            task: self.task,
            micro_batches: &micro_batches,
            step: self.steps,
            learning_rate: 1e-4,
            collate: Collate::padding(0),
        };
        let learner = self.learner.take().expect("a step puts the learner back");
        let (learner, figures) = optimizer_step(&input, learner, &mut self.optimizer)
            .expect("a loss and gradients that are finite");
        black_box(figures.loss);
        self.learner = Some(learner);
    }

    /// The class scores of the batch, as an evaluation computes them.
    pub fn forward(&self) {
        let learner = self.learner.as_ref().expect("a step puts the learner back");
        let learner = learner.valid();
        let examples: Vec<&Example> = self.examples.iter().collect();
        let batch = Batch::new(&examples, 0, &self.base.device());
        let decoder = learner.decoder(&self.base);
        let choice = TaskChoice::of(self.method.as_ref(), self.task);
        let mix = choice.mix(decoder, &learner, &batch.texts);
        let hidden = learner
            .catalogue
            .forward_mixed(decoder, &batch.texts, &mix, None);
        black_box(
            learner
                .head(self.task)
                .expect("every task has a head")
                .forward(hidden, &batch)
                .into_data(),
        );
    }

    /// The same for a batch whose rows belong to all tasks in turn, each through its own experts and head.
    pub fn forward_of_all_tasks(&self) {
        let learner = self.learner.as_ref().expect("a step puts the learner back");
        let learner = learner.valid();
        let examples: Vec<&Example> = self.examples.iter().collect();
        let batch = Batch::new(&examples, 0, &self.base.device());
        let tasks: Vec<usize> = (0..examples.len())
            .map(|row| row % (self.task + 1))
            .collect();
        let routings = tasks.iter().map(|&task| learner.answering(task).clone());
        let mix = Mix::PerText(routings.collect());
        let hidden =
            learner
                .catalogue
                .forward_mixed(learner.decoder(&self.base), &batch.texts, &mix, None);
        let features = learner
            .head(self.task)
            .expect("every task has a head")
            .features(hidden, &batch);
        for (row, &task) in tasks.iter().enumerate() {
            let features = features.clone().narrow(0, row, 1);
            black_box(
                learner
                    .head(task)
                    .expect("every task has a head")
                    .score(features)
                    .into_data(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_every_mode_runs() {
        let setting = Setting {
            method: r#"name = "moe_cl", mode = "paper""#.into(),
            batch: 2,
            len: 5,
            layers: 1,
            rank: 2,
            dropout: 0.1,
            base_dtype: BaseDtype::Bf16,
            tasks: 2,
        };
        let mut workload = Workload::new(&setting, &Device::flex()).expect("a sound setting");
        workload.step();
        workload.forward();
        workload.forward_of_all_tasks();
        let none = Setting {
            method: r#"name = "none""#.into(),
            ..setting
        };
        assert!(Workload::new(&none, &Device::flex()).is_err());
    }
}
