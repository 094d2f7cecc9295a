use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Attention, BiasBalanced, BiasBalancedConfig, Capacity, ExpertChoice, ExpertChoiceConfig,
    GShard, GShardConfig, Jacobs, NoisyTopK, NoisyTopKConfig, RandomRouted, Router, SoftmaxTopK,
    SoftmaxTopKConfig, StMoe, StMoeConfig, Switch, SwitchConfig, Uniform, expert_choice,
};
use crate::{Error, Result};

/// A router that is to be made: its name under `kind`, and its settings beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(rename = "TokenRouter")]
pub enum RouterConfig {
    /// All experts, weighed by the softmax of their logits (Jacobs et al. 1991).
    Jacobs,
    /// The `top_k` of noisy logits (Shazeer et al. 2017).
    NoisyTopK(NoisyTopKConfig),
    /// The best expert, and a second one at random (GShard).
    #[serde(rename = "gshard")]
    GShard(GShardConfig),
    /// The best expert alone (Switch Transformers).
    Switch(SwitchConfig),
    /// The best expert, and further ones that are probable enough (ST-MoE).
    StMoe(StMoeConfig),
    /// Experts that choose their tokens: not in a decoder.
    ExpertChoice(ExpertChoiceConfig),
    /// The `top_k` of sigmoids, balanced by a bias (DeepSeek-V3).
    BiasBalanced(BiasBalancedConfig),
    /// The `top_k` of the softmax (Mixtral, OLMoE, Qwen-MoE).
    SoftmaxTopK(SoftmaxTopKConfig),
    /// A fixed table of the vocabulary (PanGu-Σ).
    RandomRouted(DomainGroups),
    /// All experts, weighed alike.
    Uniform,
}

/// Mixtral's: two experts for each token.
impl Default for RouterConfig {
    fn default() -> Self {
        Self::SoftmaxTopK(SoftmaxTopKConfig::default())
    }
}

/// Settings of a [`RandomRouted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DomainGroups {
    /// Ids of the vocabulary.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub vocab_size: usize,
    /// Experts of each domain.
    #[schemars(inner(range(min = 1, max = 4096)))]
    pub group_sizes: Vec<usize>,
}

/// Where a router is to stand.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Numbers per token.
    pub d_model: usize,
    /// How many experts it weighs.
    pub experts: usize,
    /// Which layer, 0 is the lowest. Layers draw different numbers from one seed.
    pub layer: usize,
    /// What the tokens of the model see.
    pub attention: Attention,
    /// Where its weights lie.
    pub device: &'a Device,
}

impl RouterConfig {
    /// Its name in settings and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Jacobs => "jacobs",
            Self::NoisyTopK(_) => "noisy_top_k",
            Self::GShard(_) => "gshard",
            Self::Switch(_) => "switch",
            Self::StMoe(_) => "st_moe",
            Self::ExpertChoice(_) => "expert_choice",
            Self::BiasBalanced(_) => "bias_balanced",
            Self::SoftmaxTopK(_) => "softmax_top_k",
            Self::RandomRouted(_) => "random_routed",
            Self::Uniform => "uniform",
        }
    }

    /// A fresh router, drawn from `seed`.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, place: &Place<'_>, seed: u64) -> Result<Router> {
        self.check(place.experts, place.attention)?;
        let Place {
            d_model,
            experts,
            layer,
            attention,
            device,
        } = *place;
        let drawn = seed.wrapping_add((layer as u64) << 32);
        Ok(match self {
            Self::Jacobs => Router::Jacobs(Jacobs::new(d_model, experts, device)),
            Self::NoisyTopK(it) => Router::NoisyTopK(NoisyTopK::new(*it, d_model, experts, device)),
            Self::GShard(it) => Router::GShard(GShard::new(*it, d_model, experts, drawn, device)),
            Self::Switch(it) => Router::Switch(Switch::new(*it, d_model, experts, drawn, device)),
            Self::StMoe(it) => Router::StMoe(StMoe::new(*it, d_model, experts, drawn, device)),
            Self::ExpertChoice(it) => {
                let router = ExpertChoice::new(*it, attention, d_model, experts, drawn, device);
                Router::ExpertChoice(router?)
            }
            Self::BiasBalanced(it) => {
                Router::BiasBalanced(BiasBalanced::new(*it, d_model, experts, drawn, device))
            }
            Self::SoftmaxTopK(it) => {
                Router::SoftmaxTopK(SoftmaxTopK::new(*it, d_model, experts, drawn, device))
            }
            Self::RandomRouted(it) => {
                let router = RandomRouted::new(it.vocab_size, &it.group_sizes, layer, seed);
                Router::RandomRouted(router)
            }
            Self::Uniform => Router::Uniform(Uniform::new(experts)),
        })
    }

    /// Whether the settings fit that many experts in such a model.
    ///
    /// # Errors
    /// With more choices than experts, no capacity, or experts that choose in a causal model.
    pub fn check(&self, experts: usize, attention: Attention) -> Result<()> {
        let at_least = |least| {
            (experts < least).then(|| format!("{experts} experts; expected at least {least}"))
        };
        let top_k = |key: &str, top_k: usize, reach: usize| {
            let wrong = !(1..=reach).contains(&top_k);
            wrong.then(|| {
                format!("{key} = {top_k} of {reach} experts in reach; it must be 1 to {reach}")
            })
        };
        let fault = at_least(1).or_else(|| match self {
            Self::Jacobs | Self::Uniform => None,
            Self::NoisyTopK(it) => top_k("top_k", it.top_k, experts),
            Self::GShard(it) => at_least(2).or(it.capacity.fault()),
            Self::Switch(it) => either(it.capacity, it.eval_capacity)
                .or_else(|| within("jitter", it.jitter)),
            Self::StMoe(it) => top_k("top_n", it.top_n, experts)
                .or(either(it.capacity, it.eval_capacity))
                .or_else(|| within("jitter", it.jitter))
                .or_else(|| within("threshold", it.threshold)),
            Self::ExpertChoice(it) => expert_choice::fault(attention).or(it.capacity.fault()),
            Self::BiasBalanced(it) => match it.grouped {
                None => top_k("top_k", it.top_k, experts),
                Some(it) if it.groups == 0 || !experts.is_multiple_of(it.groups) => Some(format!(
                    "{experts} experts cannot be cut into {} groups of one size",
                    it.groups
                )),
                Some(groups) => top_k("top_groups", groups.top_groups, groups.groups)
                    .or_else(|| top_k("top_k", it.top_k, experts / groups.groups * groups.top_groups)),
            },
            Self::SoftmaxTopK(it) => top_k("top_k", it.top_k, experts).or(it.capacity.fault()),
            Self::RandomRouted(it) => {
                let sum: usize = it.group_sizes.iter().sum();
                let wrong = sum != experts || it.group_sizes.contains(&0);
                wrong.then(|| {
                    format!("group_sizes = {:?} for {experts} experts; every domain needs one and they must add up", it.group_sizes)
                })
            }
        });
        match fault {
            None => Ok(()),
            Some(message) => Err(Error::Router {
                router: self.name(),
                message,
            }),
        }
    }
}

fn either(train: Capacity, eval: Capacity) -> Option<String> {
    train.fault().or(eval.fault())
}

/// In `[0, 1)`.
fn within(key: &str, value: f64) -> Option<String> {
    (!(0.0..1.0).contains(&value))
        .then(|| format!("{key} = {value}; it must be at least 0 and below 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(settings: &str, experts: usize, attention: Attention) -> Result<Router> {
        let config: RouterConfig = serde_json::from_str(settings).unwrap();
        let place = Place {
            d_model: 8,
            experts,
            layer: 1,
            attention,
            device: &Device::flex(),
        };
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<RouterConfig>(&written).unwrap(),
            config
        );
        config.init(&place, 3)
    }

    #[test]
    fn every_router_is_made_from_its_name() {
        for name in [
            r#""jacobs""#,
            r#""noisy_top_k""#,
            r#""gshard", "second": "sampled""#,
            r#""switch", "capacity": {"factor": {"factor": 1.0, "min": 4}}"#,
            r#""st_moe", "top_n": 3"#,
            r#""bias_balanced", "top_k": 2, "grouped": {"groups": 2, "top_groups": 1}"#,
            r#""softmax_top_k", "weights": "raw", "priority": "first_choice""#,
            r#""random_routed", "vocab_size": 10, "group_sizes": [3, 1]"#,
            r#""uniform""#,
        ] {
            let router = init(&format!(r#"{{"kind": {name}}}"#), 4, Attention::Causal).unwrap();
            assert_eq!(router.experts(), 4);
        }
    }

    #[test]
    fn experts_do_not_choose_in_a_causal_model() {
        let settings = r#"{"kind": "expert_choice"}"#;
        assert!(init(settings, 4, Attention::Bidirectional).is_ok());
        let error = init(settings, 4, Attention::Causal)
            .unwrap_err()
            .to_string();
        assert!(error.contains("depends on the tokens after it"), "{error}");
    }

    #[test]
    fn settings_that_do_not_fit_are_refused() {
        for (settings, word) in [
            (r#"{"kind": "softmax_top_k", "top_k": 5}"#, "1 to 4"),
            (r#"{"kind": "noisy_top_k", "top_k": 0}"#, "1 to 4"),
            (
                r#"{"kind": "switch", "capacity": {"places": 0}}"#,
                "0 places",
            ),
            (r#"{"kind": "switch", "jitter": 1.0}"#, "jitter"),
            (
                r#"{"kind": "bias_balanced", "top_k": 2, "grouped": {"groups": 3, "top_groups": 1}}"#,
                "3 groups",
            ),
            (
                r#"{"kind": "bias_balanced", "top_k": 3, "grouped": {"groups": 2, "top_groups": 1}}"#,
                "1 to 2",
            ),
            (
                r#"{"kind": "random_routed", "vocab_size": 9, "group_sizes": [4, 0]}"#,
                "every domain",
            ),
        ] {
            let error = init(settings, 4, Attention::Causal)
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{error}");
        }
        let unknown = serde_json::from_str::<RouterConfig>(r#"{"kind": "switch", "topk": 1}"#);
        assert!(unknown.is_err());
    }
}
