use std::cell::RefCell;
use std::convert::Infallible;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Bool, Device, Int, Tensor};
use moe_core::generate::CausalLm;
use moe_core::model::{Decoder, KvCache};

use crate::per_text::PerText;
use crate::{
    Adapted, Catalogue, Expert, ExpertId, InsideExpert, LayerExpert, Lora, LoraDropout, Projection,
    Routing, Texts,
};

/// How the experts' answers become one.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one value per forward pass")]
pub enum Mix {
    /// As a routing says, alike for every text.
    Routed(Routing),
    /// One network with the sum of these experts' updates on it, `W + Σ_i s B_i A_i` (O-LoRA).
    Summed(Vec<ExpertId>),
    /// The mean of an expert's network and the base's own. An expert that has only ever spoken beside another is heard at the
    /// weight that an undecided gate gives it, and the base has the rest.
    BesideBase(ExpertId),
    /// The experts' outputs, each a network of its own, weighed for every text (MoCL).
    Weighted {
        /// The active experts.
        experts: Vec<ExpertId>,
        /// `[batch, active]`, a column per expert in this order; the same in every layer.
        weights: Tensor<2>,
    },
    /// Each text as its own routing says, one per text: a batch of many tasks, with the base's products once for all of them.
    /// For answering; nothing is trained through it.
    PerText(Vec<Routing>),
}

impl Mix {
    /// Whether another text would be answered in the same way.
    fn is_the_same_for_all_texts(&self) -> bool {
        match self {
            Self::Routed(_) | Self::Summed(_) | Self::BesideBase(_) => true,
            Self::Weighted { .. } | Self::PerText(_) => false,
        }
    }

    /// Of these rows of the batch alone, in this order.
    fn of_rows(&self, rows: &[usize]) -> Self {
        match self {
            Self::Weighted { experts, weights } => {
                let places: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
                let places = Tensor::<1, Int>::from_data(places.as_slice(), &weights.device());
                Self::Weighted {
                    experts: experts.clone(),
                    weights: weights.clone().select(0, places),
                }
            }
            Self::PerText(routings) => {
                Self::PerText(rows.iter().map(|row| routings[*row].clone()).collect())
            }
            alike => alike.clone(),
        }
    }
}

impl Catalogue {
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
                let (view, routing) = self.summed(experts);
                view.forward(base, texts, &routing, None, dropout).hidden
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

    /// A view whose only expert is the sum of `experts`, by joining their ranks, and the routing to it; gradients reach the experts.
    ///
    /// # Panics
    ///
    /// When `experts` is empty or names one that is not there.
    pub fn summed(&self, experts: &[ExpertId]) -> (Self, Routing) {
        let parts: Vec<&Expert> = experts.iter().map(|&id| self.expert(id)).collect();
        let layers = (0..parts[0].layers.len()).map(|place| {
            let layer: Vec<&LayerExpert> = parts.iter().map(|it| &it.layers[place]).collect();
            sum(&layer)
        });
        // Not a new expert: it keeps the name of the first, and its matrices are no parameters.
        let sum = Expert {
            info: parts[0].info.clone(),
            layers: layers.collect(),
        };
        let routing = Routing::Single(sum.id());
        (self.with_experts(vec![sum]), routing)
    }

    /// A view of two experts, `expert` and one that leaves the base as it is, and the routing that takes their mean.
    fn beside_base(&self, expert: ExpertId) -> (Self, Routing) {
        let expert = self.expert(expert).clone();
        let mut silent = expert.clone();
        silent.info.id = SILENT;
        silent.layers = expert.layers.iter().map(LayerExpert::silent).collect();
        let routing = Routing::Uniform {
            experts: vec![expert.id(), SILENT],
        };
        (self.with_experts(vec![expert, silent]), routing)
    }

    /// The same experts, every one but `trained` a constant, so that no gradient reaches it.
    pub fn with_others_frozen(&self, trained: ExpertId) -> Self {
        let experts = self.experts().iter().map(|expert| {
            let expert = expert.clone();
            match expert.id() == trained {
                true => expert,
                false => expert.no_grad(),
            }
        });
        self.with_experts(experts.collect())
    }

    /// The same experts and gates, every gate a constant.
    pub fn with_gates_frozen(&self) -> Self {
        let frozen = self
            .clone()
            .try_map::<Infallible>(Ok, |gate| Ok(gate.no_grad()));
        let Ok(frozen) = frozen;
        frozen
    }
}

/// An expert that is none, in a view that nobody keeps.
const SILENT: ExpertId = ExpertId(u64::MAX);

/// `Σ_i s B_i A_i` as one LoRA of the joined rank: `[A_1 … A_n]` and `[B_1; …; B_n]`.
fn sum(experts: &[&LayerExpert]) -> LayerExpert {
    let mut total = LayerExpert::default();
    for projection in Projection::ALL {
        *total.lora_mut(projection) = joined(experts.iter().filter_map(|it| it.lora(projection)));
    }
    let inside = experts.iter().map(|it| it.inside.len()).max().unwrap_or(0);
    total.inside = (0..inside)
        .map(|place| {
            let on = |projection| {
                let experts = experts.iter().filter_map(|it| it.inside.get(place));
                joined(experts.filter_map(|it| it.lora(projection)))
            };
            InsideExpert {
                gate: on(Projection::Gate),
                up: on(Projection::Up),
                down: on(Projection::Down),
            }
        })
        .collect();
    total
}

/// The sum of the updates of LoRAs on one matrix as one; none where there is none.
fn joined<'a>(loras: impl Iterator<Item = &'a Lora>) -> Option<Lora> {
    let loras: Vec<&Lora> = loras.collect();
    let first = loras.first()?;
    let join = |part: &dyn Fn(&Lora) -> Tensor<2>, axis| {
        let parts = loras.iter().map(|lora| part(lora)).collect();
        // Not a parameter of its own: the gradient goes on to what it was joined from.
        Param::initialized(ParamId::new(), Tensor::cat(parts, axis))
    };
    Some(Lora {
        a: join(&|lora| lora.a.val(), 1),
        b: join(&|lora| lora.b.val() * (lora.scaling / first.scaling), 0),
        scaling: first.scaling,
    })
}

/// Experts and their weights for each text.
struct Weighted<'a> {
    experts: &'a [ExpertId],
    weights: &'a Tensor<2>,
}

impl Weighted<'_> {
    fn forward(
        &self,
        catalogue: &Catalogue,
        base: &Decoder,
        texts: &Texts,
        cache: Option<&mut KvCache>,
        dropout: Option<&LoraDropout>,
    ) -> Tensor<3> {
        let everyone = Routing::Uniform {
            experts: self.experts.to_vec(),
        };
        catalogue.walk(base, texts, cache, |index, layer, x, context, cache| {
            let Some(bank) = catalogue.bank(index, &everyone) else {
                return layer.forward(x, context, cache);
            };
            let normed = x.normed(&layer.input_norm);
            x.add(bank.attend(&layer.attention, normed, context, cache, dropout));
            let normed = x.normed(&layer.post_attention_norm);
            let weighed = self
                .experts
                .iter()
                .enumerate()
                .filter_map(|(column, &expert)| {
                    let alone = catalogue.bank(index, &Routing::Single(expert))?;
                    let output =
                        alone.forward_block(&layer.feed_forward, normed.clone(), None, dropout);
                    let weight = self.weights.clone().narrow(1, column, 1); // [batch, 1]
                    Some(output.output * weight.unsqueeze_dim::<3>(2))
                });
            let sum = weighed.reduce(|sum, output| sum + output);
            x.add(sum.expect("at least one expert is active"));
        })
    }
}

/// A base with mixed experts, as one language model to predict with.
#[derive(Clone, Debug)]
pub struct Mixed<'a> {
    base: &'a Decoder,
    catalogue: Catalogue,
    mix: RefCell<Mix>,
}

impl<'a> Mixed<'a> {
    /// Whether another text would be answered in the same way.
    pub fn is_the_same_for_all_texts(&self) -> bool {
        self.mix.borrow().is_the_same_for_all_texts()
    }

    /// Takes experts of the plain device; a weighted mix fixes the number of texts.
    ///
    /// # Panics
    ///
    /// When the experts are on an autodiff device.
    pub fn new(base: &'a Decoder, catalogue: &Catalogue, mix: Mix) -> Self {
        assert!(
            !catalogue.devices().iter().any(Device::is_autodiff),
            "predict with `catalogue.valid()`, which is off the autodiff device"
        );
        let (catalogue, mix) = match mix {
            Mix::Summed(experts) => {
                let (view, routing) = catalogue.summed(&experts);
                (view, Mix::Routed(routing))
            }
            Mix::BesideBase(expert) => {
                let (view, routing) = catalogue.beside_base(expert);
                (view, Mix::Routed(routing))
            }
            mix => (catalogue.clone(), mix),
        };
        Self {
            base,
            catalogue,
            mix: RefCell::new(mix),
        }
    }
}

impl CausalLm for Mixed<'_> {
    fn keep_rows(&self, rows: &[usize]) {
        self.mix.replace_with(|mix| mix.of_rows(rows));
    }

    fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        match &*self.mix.borrow() {
            Mix::Routed(routing) => Adapted::new(self.base, &self.catalogue, routing)
                .forward_cached(tokens, real, cache),
            Mix::Weighted { experts, weights } => {
                let weighted = Weighted { experts, weights };
                let texts = Texts::new(tokens, real);
                weighted.forward(&self.catalogue, self.base, &texts, Some(cache), None)
            }
            Mix::PerText(routings) => {
                let texts = Texts::new(tokens, real);
                PerText::new(routings).forward(&self.catalogue, self.base, &texts, Some(cache))
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

    fn ids(ids: &[u64]) -> Vec<ExpertId> {
        ids.iter().map(|&id| ExpertId(id)).collect()
    }

    fn setup() -> (Decoder, Catalogue) {
        let device = Device::flex();
        let base = Decoder::random(&tiny::model(), 3, &device);
        let config = tiny::config(&Projection::ALL, LayerRange::Last(2));
        let mut adapters = Catalogue::new(&config, base.config()).unwrap();
        for seed in 0..3 {
            adapters.add_expert(&config.lora, "task", seed, &device.clone().autodiff());
        }
        tiny::train_by_hand(&mut adapters);
        (base, adapters)
    }

    fn hidden(base: &Decoder, adapters: &Catalogue, mix: &Mix) -> Tensor<3> {
        let (tokens, real) = tiny::batch(&base.device());
        adapters.forward_mixed(base, &Texts::new(tokens, real), mix, None)
    }

    #[test]
    fn a_sum_of_one_and_all_the_weight_on_one_are_that_expert_alone() {
        let (base, adapters) = setup();
        let alone =
            hidden(&base, &adapters, &Mix::Routed(Routing::Single(ExpertId(1)))).into_data();
        let summed = hidden(&base, &adapters, &Mix::Summed(ids(&[1])));
        summed
            .into_data()
            .assert_approx_eq::<f32>(&alone, Tolerance::default());
        let weights = Tensor::ones([2, 1], &base.device());
        let experts = ids(&[1]);
        let weighted = hidden(&base, &adapters, &Mix::Weighted { experts, weights });
        weighted
            .into_data()
            .assert_approx_eq::<f32>(&alone, Tolerance::default());
    }

    #[test]
    fn a_summed_expert_is_the_sum_of_the_updates() {
        let (_, adapters) = setup();
        let delta = |adapters: &Catalogue, expert| {
            let layer = &adapters.expert(ExpertId(expert)).layers[0];
            layer.lora(Projection::Down).unwrap().delta()
        };
        let want = delta(&adapters, 0) + delta(&adapters, 2);
        let (sum, _) = adapters.summed(&ids(&[0, 2]));
        delta(&sum, 0)
            .into_data()
            .assert_approx_eq::<f32>(&want.into_data(), Tolerance::default());
    }

    #[test]
    fn beside_the_base_an_expert_has_half_the_say() {
        let (base, mut adapters) = setup();
        // Fresh: it leaves the base as it is.
        let lora = tiny::config(&[], LayerRange::All).lora;
        adapters.add_expert(&lora, "task", 9, &base.device().autodiff());
        let experts = ids(&[1, 3]);
        let want = hidden(&base, &adapters, &Mix::Routed(Routing::Uniform { experts }));
        hidden(&base, &adapters, &Mix::BesideBase(ExpertId(1)))
            .into_data()
            .assert_eq(&want.into_data(), true);
    }

    #[test]
    fn frozen_experts_of_a_sum_get_no_gradient() {
        let (base, adapters) = setup();
        let view = adapters.with_others_frozen(ExpertId(2));
        let loss = hidden(&base, &view, &Mix::Summed(ids(&[0, 1, 2]))).sum();
        let gradients = loss.backward();
        for (index, expert) in adapters.experts().iter().enumerate() {
            let lora = expert.layers[1].lora(Projection::Up).unwrap();
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
        let experts = ids(&[0, 2]);
        let weighted = Mix::Weighted { experts, weights };
        for mix in [
            Mix::Summed(ids(&[0, 2])),
            Mix::BesideBase(ExpertId(1)),
            weighted,
        ] {
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
