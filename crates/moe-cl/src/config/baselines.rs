//! Options of the methods that MoE-CL is compared with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which weights sequential fine-tuning moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// One LoRA expert (FT-P).
    #[default]
    Adapter,
    /// The base's own weights, and no adapter (FT-F). Every checkpoint holds a whole model.
    All,
}

/// Options of sequential fine-tuning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SequentialConfig {
    /// Which weights move.
    pub weights: Weights,
}

/// Which experts of O-LoRA are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OLoraTest {
    /// The sum of all adapters, in training and at test time: the published form.
    #[default]
    Summed,
    /// The task's own alone, as in the comparison by the authors of MoE-CL.
    Own,
}

/// Options of O-LoRA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OLoraConfig {
    /// Weight λ of the overlap between the new task's A and those of earlier tasks.
    pub lambda: f64,
    /// Which adapters are active.
    pub test: OLoraTest,
}

impl Default for OLoraConfig {
    fn default() -> Self {
        Self {
            lambda: 0.5,
            test: OLoraTest::Summed,
        }
    }
}

/// How EWC keeps the importances of several tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EwcMode {
    /// Importances and anchor of every task: memory grows with the tasks.
    #[default]
    Separate,
    /// One importance, `F ← decay · F + F_task`, and the newest anchor.
    Online,
}

/// Options of EWC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EwcConfig {
    /// Weight λ of `Σ F (θ − θ*)²`, without the ½ of the paper.
    pub lambda: f64,
    /// How the importances of several tasks are kept.
    pub mode: EwcMode,
    /// Factor on the older importance, in [0, 1]; online mode only.
    pub decay: f64,
    /// Examples of a finished task that its importance is measured on, each a batch of its own.
    pub fisher_examples: usize,
}

impl Default for EwcConfig {
    fn default() -> Self {
        Self {
            lambda: 100.0,
            mode: EwcMode::Separate,
            decay: 1.0,
            fisher_examples: 128,
        }
    }
}

/// Options of learning without forgetting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LwfConfig {
    /// Weight of the distillation loss.
    pub lambda: f64,
    /// Temperature T of `T² KL(softmax(old / T) ‖ softmax(new / T))`.
    pub temperature: f64,
}

impl Default for LwfConfig {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            temperature: 2.0,
        }
    }
}

/// Options of the methods that keep examples of earlier tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RehearsalConfig {
    /// Examples kept over all tasks together, a uniform sample of all that were seen.
    pub budget: usize,
    /// Kept examples that go with each batch.
    pub batch_size: usize,
}

impl Default for RehearsalConfig {
    fn default() -> Self {
        Self {
            budget: 64,
            batch_size: 8,
        }
    }
}
