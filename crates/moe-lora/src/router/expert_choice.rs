use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{picked, values};
use super::loss::Coefficients;
use super::{Attention, Capacity, Dispatch, Entry, RouterInit, RouterLinear, Tokens};
use crate::{Error, Result};

/// Settings of an [`ExpertChoice`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExpertChoiceConfig {
    /// How many tokens of a group each expert takes; a factor is the mean number of experts per token.
    pub capacity: Capacity,
    /// Coefficient of the z-loss, which the paper has not.
    #[schemars(range(min = 0, max = 1e6))]
    pub z: f64,
}

impl Default for ExpertChoiceConfig {
    /// As in the paper.
    fn default() -> Self {
        Self {
            capacity: Capacity::factor(2.0),
            z: 0.0,
        }
    }
}

/// Every expert takes its best tokens (Zhou et al. 2022, arXiv 2202.09368, §3.2): balanced without a loss, any number of experts per token.
///
/// `S = softmax(X W)` over the experts; expert `e` takes the tokens of the `C` largest `S_te` of each group, weighed by them.
/// Whether a token is taken depends on those after it, so this is for models that see them anyway: [`Self::new`] refuses a causal one.
#[derive(Module, Debug)]
pub struct ExpertChoice {
    /// Its settings.
    #[module(skip)]
    pub config: ExpertChoiceConfig,
    /// Logits of the experts.
    pub linear: RouterLinear,
}

/// Why experts cannot choose in such a model; nothing where they can.
pub(super) fn fault(attention: Attention) -> Option<String> {
    (attention == Attention::Causal).then(|| {
        "experts choose among all tokens of a sequence, so which expert a token gets depends on the tokens after it: \
         a causal model would be trained on what it cannot see when it generates; take softmax_top_k or bias_balanced"
            .into()
    })
}

impl ExpertChoice {
    /// A router with Switch's start, `σ = √(0.1 / d_model)`.
    ///
    /// # Errors
    /// In a causal model.
    pub fn new(
        config: ExpertChoiceConfig,
        attention: Attention,
        d_model: usize,
        experts: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        if let Some(message) = fault(attention) {
            return Err(Error::Router {
                router: "expert_choice",
                message,
            });
        }
        let init = RouterInit::TruncatedNormal { scale: 0.1, seed };
        let linear = RouterLinear::new(d_model, experts, init, device);
        Ok(Self { config, linear })
    }

    /// Routes `x [tokens, d_model]`.
    ///
    /// # Panics
    /// When `tokens` is of another number.
    pub fn forward(&self, x: Tensor<2>, tokens: &Tokens) -> Dispatch {
        self.route(self.linear.logits(x), tokens)
    }

    /// Routes by `logits [tokens, experts]`.
    ///
    /// # Panics
    /// When the shapes do not belong together.
    pub fn route(&self, logits: Tensor<2>, tokens: &Tokens) -> Dispatch {
        let [count, experts] = logits.dims();
        let probs = softmax(logits.clone(), 1);
        let scores = values(&probs);
        let size = tokens.per_group();
        let places = self.config.capacity.places(size, 1, experts);
        let places = places.unwrap_or(size);
        let mut entries = Vec::with_capacity(places * experts * tokens.groups());
        for start in (0..count).step_by(size) {
            let real = (start..start + size).filter(|&token| tokens.is_real(token));
            let real: Vec<usize> = real.collect();
            for expert in 0..experts {
                let mut line = real.clone();
                let score = |token: &usize| scores[token * experts + expert];
                line.sort_by(|a, b| score(b).total_cmp(&score(a)));
                let taken = line.into_iter().take(places).enumerate();
                entries.extend(taken.map(|(slot, token)| Entry {
                    token: token as u32,
                    expert: expert as u32,
                    slot: slot as u32,
                }));
            }
        }
        entries.sort_by_key(|entry| (entry.token, entry.expert));
        let place =
            |entry: &Entry| i64::from(entry.token) * experts as i64 + i64::from(entry.expert);
        let kept = entries.iter().map(place).collect();
        let losses = Coefficients {
            balance: 0.0,
            z: self.config.z,
        };
        let mut dispatch = Dispatch {
            tokens: count,
            experts,
            weights: picked(probs.clone().reshape([count * experts]), kept),
            entries,
            losses: losses.losses(logits, &probs, &[], tokens),
            scores: Some(probs),
            wanted: Vec::new(),
        };
        dispatch.wanted = dispatch.load();
        dispatch
    }
}
