//! The `[method]` table: the continual-learning method, chosen by `name`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    EwcConfig, LwfConfig, MixLoraConfig, MoeClConfig, OLoraConfig, RehearsalConfig,
    SequentialConfig,
};
use crate::{
    config::Mode,
    methods::{AGem, Joint, LinearProbe, Mocl, Options, PerTask, Replay, Slao},
};

/// The continual-learning method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum MethodConfig {
    /// MoE-CL (arXiv 2509.18133): a shared and a dedicated LoRA expert, a gate, an adversarial task discriminator.
    #[schemars(extend("unevaluatedProperties" = false))]
    MoeCl(MoeClConfig),
    /// Everything is trained through all tasks without protection: the baseline that forgets.
    #[schemars(extend("unevaluatedProperties" = false))]
    Sequential(SequentialConfig),
    /// One adapter per task, trained alone: forgets nothing, shares nothing.
    PerTask,
    /// O-LoRA (arXiv 2310.14152): an adapter per task, in a subspace orthogonal to the earlier ones.
    #[schemars(extend("unevaluatedProperties" = false))]
    OLora(OLoraConfig),
    /// MoCL (arXiv 2404.00228): an adapter per task, weighed for every text by its likeness to the tasks.
    Mocl,
    /// Elastic weight consolidation (arXiv 1612.00796): one adapter, held where it matters to earlier tasks.
    #[schemars(extend("unevaluatedProperties" = false))]
    Ewc(EwcConfig),
    /// Learning without forgetting (arXiv 1606.09282): one adapter, held to its own earlier outputs.
    #[schemars(extend("unevaluatedProperties" = false))]
    Lwf(LwfConfig),
    /// Experience replay: one adapter, trained on a reservoir of earlier examples as well.
    #[schemars(extend("unevaluatedProperties" = false))]
    Replay(RehearsalConfig),
    /// A-GEM (arXiv 1812.00420): one adapter, whose steps never oppose the gradient on earlier examples.
    #[schemars(extend("unevaluatedProperties" = false))]
    AGem(RehearsalConfig),
    /// SLAO (arXiv 2512.23017): one adapter, merged with each task's own as 1/√t.
    Slao,
    /// MixLoRA (arXiv 2404.15159): a sparse mixture of adapters behind a router, trained through all tasks without protection.
    #[schemars(extend("unevaluatedProperties" = false))]
    MixLora(MixLoraConfig),
    /// One adapter trained on all tasks' data together: the upper bound, and no continual learning.
    Joint,
    /// A head per task on the untouched base: what its features hold already.
    LinearProbe,
}

impl Default for MethodConfig {
    fn default() -> Self {
        Self::MoeCl(MoeClConfig::of(Mode::Improved))
    }
}

impl MethodConfig {
    /// What is written of the method, with which it can be made.
    pub fn options(&self) -> Box<dyn Options + '_> {
        match self {
            Self::MoeCl(options) => Box::new(options.clone()),
            Self::Sequential(options) => Box::new(options.clone()),
            Self::PerTask => Box::new(PerTask),
            Self::OLora(options) => Box::new(options.clone()),
            Self::Mocl => Box::new(Mocl::default()),
            Self::Ewc(options) => Box::new(options.clone()),
            Self::Lwf(options) => Box::new(options.clone()),
            Self::Replay(options) => Box::new(Replay::new(options.clone())),
            Self::AGem(options) => Box::new(AGem::new(options.clone())),
            Self::Slao => Box::new(Slao),
            Self::MixLora(options) => Box::new(options.clone()),
            Self::Joint => Box::new(Joint),
            Self::LinearProbe => Box::new(LinearProbe),
        }
    }

    /// Every method with its default options, in the order of the variants.
    ///
    /// # Panics
    /// When a method has an option without a default.
    pub fn all() -> Vec<Self> {
        let schema = serde_json::Value::from(schemars::schema_for!(Self));
        let variants = schema["oneOf"].as_array().into_iter().flatten();
        variants
            .map(|variant| {
                let name = &variant["properties"]["name"]["const"];
                serde_json::from_value(serde_json::json!({ "name": name }))
                    .expect("every option of a method has a default")
            })
            .collect()
    }
}
