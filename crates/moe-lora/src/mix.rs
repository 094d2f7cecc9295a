use burn::module::{Module, Param, ParamId};
use burn::tensor::{Bool, Device, Int, Tensor};
use moe_core::generate::CausalLm;
use moe_core::model::{Decoder, KvCache};

use crate::per_text::PerText;
use crate::{Adapted, Adapters, Lora, LoraDropout, LoraExpert, Projection, Routing, Texts};

/// How the experts' answers become one.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one value per forward pass")]
pub enum Mix {
    /// As a routing says, alike for every text.
    Routed(Routing),
    /// One network with the sum of these experts' updates on it, `W + Σ_i s B_i A_i` (O-LoRA).
    Summed(Vec<usize>),
    /// The mean of an expert's network and the base's own. An expert that has only ever spoken beside another is heard at the
    /// weight that an undecided gate gives it, and the base has the rest.
    BesideBase(usize),
    /// The experts' outputs, each a network of its own, weighed for every text (MoCL).
    Weighted {
        /// The active experts.
        experts: Vec<usize>,
        /// `[batch, active]`, a column per expert in this order; the same in every layer.
        weights: Tensor<2>,
    },
    /// Each text as its own routing says, one per text: a batch of many tasks, with the base's products once for all of them.
    /// For answering; nothing is trained through it.
    PerText(Vec<Routing>),
}

impl Adapters {
    /// The base with the mixed experts on a batch of texts: final hidden states after the norm, `[batch, seq, d_model]`.
    ///
    /// A weighted mix evaluates one feed-forward network per expert. On attention projections every active expert's
    /// update is added with weight one, as with any routing.
    ///
    /// # Panics
    ///
    /// When `mix` names an expert or gate that is not there, or none.
    pub fn forward_mixed(
        &self,
        base: &Decoder,
        texts: &Texts,
        mix: &Mix,
        dropout: Option<&LoraDropout>,
    ) -> Tensor<3> {
        match mix {
            Mix::Routed(routing) => self.forward(base, texts, routing, None, dropout).hidden,
            Mix::Summed(experts) => {
                self.summed(experts)
                    .forward(base, texts, &Routing::Single(0), None, dropout)
                    .hidden
            }
            Mix::BesideBase(expert) => {
                let (view, routing) = self.beside_base(*expert);
                view.forward(base, texts, &routing, None, dropout).hidden
            }
            Mix::Weighted { experts, weights } => {
                let weighted = Weighted { experts, weights };
                weighted.forward(self, base, texts, None, dropout)
            }
            Mix::PerText(routings) => PerText::new(routings).forward(self, base, texts, None),
        }
    }

    /// Adapters whose only expert is the sum of `experts`, by joining their ranks; gradients reach the experts.
    ///
    /// # Panics
    ///
    /// When `experts` is empty or names one that is not there.
    pub fn summed(&self, experts: &[usize]) -> Self {
        let mut view = self.clone();
        for bank in &mut view.banks {
            let parts: Vec<&LoraExpert> = experts.iter().map(|&e| &bank.experts[e]).collect();
            bank.experts = vec![sum(&parts)];
        }
        view
    }

    /// Adapters of two experts, `expert` and one that leaves the base as it is, and the routing that takes their mean.
    fn beside_base(&self, expert: usize) -> (Self, Routing) {
        let mut view = self.clone();
        for bank in &mut view.banks {
            let expert = bank.experts[expert].clone();
            let silent = expert.silent();
            bank.experts = vec![expert, silent];
        }
        let experts = vec![0, 1];
        (view, Routing::Uniform { experts })
    }

    /// The same adapters with every expert but `trained` a constant, so that no gradient reaches it.
    pub fn with_others_frozen(&self, trained: usize) -> Self {
        let mut view = self.clone();
        for bank in &mut view.banks {
            for (index, expert) in bank.experts.iter_mut().enumerate() {
                if index != trained {
                    *expert = expert.clone().no_grad();
                }
            }
        }
        view
    }
}

/// `Σ_i s B_i A_i` as one LoRA of the joined rank: `[A_1 … A_n]` and `[B_1; …; B_n]`.
fn sum(experts: &[&LoraExpert]) -> LoraExpert {
    let mut total = LoraExpert::default();
    for projection in Projection::ALL {
        let loras: Vec<&Lora> = experts.iter().filter_map(|e| e.lora(projection)).collect();
        let Some(first) = loras.first() else { continue };
        let join = |part: &dyn Fn(&Lora) -> Tensor<2>, axis| {
            let parts = loras.iter().map(|lora| part(lora)).collect();
            // Not a parameter of its own: the gradient goes on to what it was joined from.
            Param::initialized(ParamId::new(), Tensor::cat(parts, axis))
        };
        *total.lora_mut(projection) = Some(Lora {
            a: join(&|lora| lora.a.val(), 1),
            b: join(&|lora| lora.b.val() * (lora.scaling / first.scaling), 0),
            scaling: first.scaling,
        });
    }
    total
}

/// Experts and their weights for each text.
struct Weighted<'a> {
    experts: &'a [usize],
    weights: &'a Tensor<2>,
}

impl Weighted<'_> {
    fn forward(
        &self,
        adapters: &Adapters,
        base: &Decoder,
        texts: &Texts,
        cache: Option<&mut KvCache>,
        dropout: Option<&LoraDropout>,
    ) -> Tensor<3> {
        let everyone = Routing::Uniform {
            experts: self.experts.to_vec(),
        };
        adapters.through_layers(
            base,
            texts,
            cache,
            |bank, attention, x, context, cache| {
                bank.attend(attention, x, context, cache, &everyone, dropout)
            },
            |bank, feed_forward, normed| {
                let weighed = self.experts.iter().enumerate().map(|(column, &expert)| {
                    let alone = Routing::Single(expert);
                    let output = bank
                        .forward(feed_forward, normed.clone(), &alone, None, dropout)
                        .output;
                    let weight = self.weights.clone().narrow(1, column, 1); // [batch, 1]
                    output * weight.unsqueeze_dim::<3>(2)
                });
                weighed
                    .reduce(|sum, output| sum + output)
                    .expect("at least one expert is active")
            },
        )
    }
}

/// A base with mixed experts, as one language model to predict with.
#[derive(Clone, Debug)]
pub struct Mixed<'a> {
    base: &'a Decoder,
    adapters: Adapters,
    mix: Mix,
}

impl<'a> Mixed<'a> {
    /// Takes adapters of the plain device; a weighted mix fixes the number of texts.
    ///
    /// # Panics
    ///
    /// When the adapters are on an autodiff device.
    pub fn new(base: &'a Decoder, adapters: &Adapters, mix: Mix) -> Self {
        assert!(
            !adapters.devices().iter().any(Device::is_autodiff),
            "predict with `adapters.valid()`, which is off the autodiff device"
        );
        let (adapters, mix) = match mix {
            Mix::Summed(experts) => (adapters.summed(&experts), Mix::Routed(Routing::Single(0))),
            Mix::BesideBase(expert) => {
                let (view, routing) = adapters.beside_base(expert);
                (view, Mix::Routed(routing))
            }
            mix => (adapters.clone(), mix),
        };
        Self {
            base,
            adapters,
            mix,
        }
    }
}

impl CausalLm for Mixed<'_> {
    fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        match &self.mix {
            Mix::Routed(routing) => {
                Adapted::new(self.base, &self.adapters, routing).forward_cached(tokens, real, cache)
            }
            Mix::Weighted { experts, weights } => {
                let weighted = Weighted { experts, weights };
                let texts = Texts::new(tokens, real);
                weighted.forward(&self.adapters, self.base, &texts, Some(cache), None)
            }
            Mix::PerText(routings) => {
                let texts = Texts::new(tokens, real);
                PerText::new(routings).forward(&self.adapters, self.base, &texts, Some(cache))
            }
            Mix::Summed(_) | Mix::BesideBase(_) => unreachable!("`new` has made a routing of it"),
        }
    }

    fn decoder(&self) -> &Decoder {
        self.base
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tolerance;

    use super::*;
    use crate::{LayerRange, tiny};

    fn setup() -> (Decoder, Adapters) {
        let device = Device::flex();
        let base = Decoder::random(&tiny::model(), 3, &device);
        let config = tiny::config(&Projection::ALL, LayerRange::Last(2));
        let mut adapters = Adapters::new(&config, base.config()).unwrap();
        for seed in 0..3 {
            adapters.push_expert(seed, &device.clone().autodiff());
        }
        tiny::train_by_hand(&mut adapters);
        (base, adapters)
    }

    fn hidden(base: &Decoder, adapters: &Adapters, mix: &Mix) -> Tensor<3> {
        let (tokens, real) = tiny::batch(&base.device());
        adapters.forward_mixed(base, &Texts::new(tokens, real), mix, None)
    }

    #[test]
    fn a_sum_of_one_and_all_the_weight_on_one_are_that_expert_alone() {
        let (base, adapters) = setup();
        let alone = hidden(&base, &adapters, &Mix::Routed(Routing::Single(1))).into_data();
        let summed = hidden(&base, &adapters, &Mix::Summed(vec![1]));
        summed
            .into_data()
            .assert_approx_eq::<f32>(&alone, Tolerance::default());
        let weights = Tensor::ones([2, 1], &base.device());
        let experts = vec![1];
        let weighted = hidden(&base, &adapters, &Mix::Weighted { experts, weights });
        weighted
            .into_data()
            .assert_approx_eq::<f32>(&alone, Tolerance::default());
    }

    #[test]
    fn a_summed_expert_is_the_sum_of_the_updates() {
        let (_, adapters) = setup();
        let delta = |adapters: &Adapters, expert: usize| {
            let lora = adapters.banks[0].experts[expert].lora(Projection::Down);
            lora.unwrap().delta()
        };
        let want = delta(&adapters, 0) + delta(&adapters, 2);
        delta(&adapters.summed(&[0, 2]), 0)
            .into_data()
            .assert_approx_eq::<f32>(&want.into_data(), Tolerance::default());
    }

    #[test]
    fn beside_the_base_an_expert_has_half_the_say() {
        let (base, mut adapters) = setup();
        // Fresh: it leaves the base as it is.
        adapters.push_expert(9, &base.device().autodiff());
        let experts = vec![1, 3];
        let want = hidden(&base, &adapters, &Mix::Routed(Routing::Uniform { experts }));
        hidden(&base, &adapters, &Mix::BesideBase(1))
            .into_data()
            .assert_eq(&want.into_data(), true);
    }

    #[test]
    fn frozen_experts_of_a_sum_get_no_gradient() {
        let (base, adapters) = setup();
        let view = adapters.with_others_frozen(2);
        let loss = hidden(&base, &view, &Mix::Summed(vec![0, 1, 2])).sum();
        let gradients = loss.backward();
        for (index, expert) in adapters.banks[1].experts.iter().enumerate() {
            let lora = expert.lora(Projection::Up).unwrap();
            assert_eq!(lora.a.grad(&gradients).is_some(), index == 2);
        }
    }

    #[test]
    fn steps_with_a_cache_equal_the_whole_pass() {
        let (base, adapters) = setup();
        let adapters = adapters.valid();
        let (tokens, _) = tiny::batch(&base.device());
        let real = Tensor::<2, Bool>::full([2, 5], true, &base.device());
        let weights = Tensor::from_data([[0.7, 0.3], [0.1, 0.9]], &base.device());
        let experts = vec![0, 2];
        let weighted = Mix::Weighted { experts, weights };
        for mix in [Mix::Summed(vec![0, 2]), Mix::BesideBase(1), weighted] {
            let texts = Texts::new(tokens.clone(), real.clone());
            let whole = adapters.forward_mixed(&base, &texts, &mix, None);
            let model = Mixed::new(&base, &adapters, mix);
            let mut cache = KvCache::new(model.num_layers());
            let part = |from: usize, count: usize, cache: &mut KvCache| {
                let tokens = tokens.clone().narrow(1, from, count);
                let real = Tensor::<2, Bool>::full([2, count], true, &base.device());
                model.forward_cached(tokens, real, cache)
            };
            let parts = vec![part(0, 3, &mut cache), part(3, 2, &mut cache)];
            Tensor::cat(parts, 1)
                .into_data()
                .assert_approx_eq::<f32>(&whole.into_data(), Tolerance::rel_abs(1e-4, 1e-5));
        }
    }
}
