use burn::tensor::{Bool, Device, Int, Tensor};
use moe_core::generate::CausalLm;
use moe_core::model::{
    AttentionContext, Decoder, DecoderLayer, KvCache, LayerCache, Residual, Routed,
};

use crate::error::Result;
use crate::router::{Dispatch, Phase, Recorded};
use crate::{Catalogue, LoraDropout, Observe, Pass, Routing, Texts};

/// Output of [`Catalogue::forward`].
#[derive(Clone, Debug)]
pub struct Forward {
    /// Final hidden states after the norm, `[batch, seq, d_model]`.
    pub hidden: Tensor<3>,
    /// Per adapted layer, lowest first: the observed expert's output as a mean over real tokens,
    /// `[batch, d_model]`. Empty when nothing is observed.
    pub pooled: Vec<Tensor<2>>,
    /// Per adapted layer: each token's weights of the active experts, `[batch, seq, active]`.
    /// Empty when no gate chose.
    pub gates: Vec<Tensor<3>>,
    /// Per adapted layer, lowest first, where a router chose: the layer's index, and what it chose.
    pub dispatched: Vec<(usize, Dispatch)>,
    /// Per sparse layer of the base, lowest first: its index, and what its router chose.
    pub routed: Vec<(usize, Routed)>,
}

impl Catalogue {
    /// The base with the active experts on a batch of texts.
    ///
    /// Layers below the first adapted one run on the plain device and record no graph; where the texts bring their output, they
    /// do not run at all.
    ///
    /// # Panics
    ///
    /// When `routing` names an expert or gate that is not there, the observed expert is not active, or the texts bring the
    /// output of a layer that is adapted.
    pub fn forward(
        &self,
        base: &Decoder,
        texts: &Texts,
        routing: &Routing,
        observe: Option<&Observe>,
        dropout: Option<&LoraDropout>,
    ) -> Forward {
        let pass = self.pass(texts, routing, Phase::Evaluate);
        self.run(base, texts, None, routing, observe, pass, dropout)
    }

    /// As [`Self::forward`] without anything observed, of a pass that trains: routers draw from `seed`, of which the caller makes one per
    /// step.
    ///
    /// # Panics
    ///
    /// As [`Self::forward`].
    pub fn forward_training(
        &self,
        base: &Decoder,
        texts: &Texts,
        routing: &Routing,
        seed: u64,
        dropout: Option<&LoraDropout>,
    ) -> Forward {
        let pass = self.pass(texts, routing, Phase::Train { seed });
        self.run(base, texts, None, routing, None, pass, dropout)
    }

    /// As [`Self::forward`] without anything observed, the routers' choices in the adapted layers being those that were `recorded` of such
    /// a pass: the same numbers, bit for bit.
    ///
    /// # Errors
    /// When a layer has no record, or one of other tokens or another number of experts.
    ///
    /// # Panics
    ///
    /// As [`Self::forward`].
    pub fn replay(
        &self,
        base: &Decoder,
        texts: &Texts,
        routing: &Routing,
        recorded: &[Recorded],
    ) -> Result<Forward> {
        let experts = routing.experts().len();
        let pass = Pass::of_recorded(texts, recorded, self.layers(), experts)?;
        let pass = self.routers(routing).map(|_| pass);
        Ok(self.run(base, texts, None, routing, None, pass, None))
    }

    /// What the routers of `routing` are told, where there are any.
    fn pass(&self, texts: &Texts, routing: &Routing, phase: Phase) -> Option<Pass> {
        self.routers(routing).map(|_| Pass::new(texts, phase))
    }

    /// As [`Self::forward`], for texts that may follow those in a cache.
    #[allow(clippy::too_many_arguments, reason = "what a pass is made of")]
    fn run(
        &self,
        base: &Decoder,
        texts: &Texts,
        cache: Option<&mut KvCache>,
        routing: &Routing,
        observe: Option<&Observe>,
        pass: Option<Pass>,
        dropout: Option<&LoraDropout>,
    ) -> Forward {
        let shares = observe.map(|observe| (observe, pool_shares(texts.real.clone())));
        let (mut pooled, mut gates) = (Vec::new(), Vec::new());
        let (mut dispatched, mut routed) = (Vec::new(), Vec::new());
        let hidden = self.walk(base, texts, cache, |index, layer, x, context, cache| {
            let Some(bank) = self.bank(index, routing) else {
                let chosen = layer.forward_routed(x, context, cache);
                routed.extend(chosen.map(|it| (index, it)));
                return;
            };
            let normed = x.normed(&layer.input_norm);
            x.add(bank.attend(&layer.attention, normed, context, cache, dropout));
            let normed = x.normed(&layer.post_attention_norm);
            let block = &layer.feed_forward;
            let mixture = match &pass {
                Some(pass) => bank.forward_routed(block, normed, pass, dropout),
                None => bank.forward_block(block, normed, shares.clone(), dropout),
            };
            pooled.extend(mixture.pooled);
            gates.extend(mixture.gate);
            dispatched.extend(mixture.dispatch.map(|it| (index, it)));
            routed.extend(mixture.routed.map(|it| (index, it)));
            x.add(mixture.output);
        });
        Forward {
            hidden,
            pooled,
            gates,
            dispatched,
            routed,
        }
    }

    /// [`Decoder::walk`] over the layers whose output the texts do not bring, the norm at the end included:
    /// final hidden states `[batch, seq, d_model]`.
    pub(crate) fn walk(
        &self,
        base: &Decoder,
        texts: &Texts,
        cache: Option<&mut KvCache>,
        mut block: impl FnMut(
            usize,
            &DecoderLayer,
            &mut Residual,
            &AttentionContext,
            Option<&mut LayerCache>,
        ),
    ) -> Tensor<3> {
        // A cache wants the keys and values of every layer.
        let known = texts.states.as_ref().filter(|_| cache.is_none());
        let (start, x) = match known {
            Some(states) => (states.layers, states.x.clone()),
            None => (0, base.embed(texts.tokens.clone())), // [batch, seq, d_model]
        };
        assert!(
            self.layers().start >= start,
            "the texts bring the output of an adapted layer"
        );
        let layers = start..base.layers.len();
        let real = texts.real.clone();
        let mut x = base.walk(x, real, layers, cache, |index, x, context, cache| {
            block(index, &base.layers[index], x, context, cache);
        });
        x.normed(&base.norm)
    }
}

/// The mean over each row's real tokens: `x [batch, seq, d_model]`, `real [batch, seq]` → `[batch, d_model]`, zeros where there is none.
pub fn mean_of_tokens(x: Tensor<3>, real: Tensor<2, Bool>) -> Tensor<2> {
    let [batch, _seq, d_model] = x.dims();
    let shares = pool_shares(real).unsqueeze_dim::<3>(1); // [batch, 1, seq]
    shares.matmul(x).reshape([batch, d_model])
}

/// Each token's share of the mean over its row's real tokens: `real [batch, seq]` → `[batch, seq]`,
/// rows sum to one (or zero, without a real token).
pub fn pool_shares(real: Tensor<2, Bool>) -> Tensor<2> {
    let real = real.float();
    let count = real.clone().sum_dim(1).clamp_min(1.0);
    real / count
}

/// A base with experts and a routing, as one language model to generate with.
#[derive(Clone, Copy, Debug)]
pub struct Adapted<'a> {
    base: &'a Decoder,
    catalogue: &'a Catalogue,
    routing: &'a Routing,
}

impl<'a> Adapted<'a> {
    /// Takes experts of the plain device: [`Module::valid`](burn::module::Module::valid) of
    /// those in training. A pass on the autodiff device would keep its graph in memory for a
    /// backward pass that never comes.
    ///
    /// # Panics
    ///
    /// When the experts are on an autodiff device.
    pub fn new(base: &'a Decoder, catalogue: &'a Catalogue, routing: &'a Routing) -> Self {
        use burn::module::Module;
        assert!(
            !catalogue.devices().iter().any(Device::is_autodiff),
            "generate with `catalogue.valid()`, which is off the autodiff device"
        );
        Self {
            base,
            catalogue,
            routing,
        }
    }
}

impl CausalLm for Adapted<'_> {
    fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let Self {
            base,
            catalogue,
            routing,
        } = self;
        let texts = Texts::new(tokens, real);
        let pass = catalogue.pass(&texts, routing, Phase::Evaluate);
        catalogue
            .run(base, &texts, Some(cache), routing, None, pass, None)
            .hidden
    }

    fn decoder(&self) -> &Decoder {
        self.base
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::optim::{AdamWConfig, GradientsParams};
    use burn::tensor::{Device, Tolerance};
    use moe_core::generate::{Sampling, generate};
    use moe_core::parameters::to_bytes;

    use super::*;
    use crate::{ExpertId, GateId, GateInit, LayerRange, Projection, States, tiny};

    const OBSERVE: Observe = Observe {
        expert: ExpertId(0),
        detach_upstream: true,
    };

    fn gated() -> Routing {
        Routing::Gated {
            experts: vec![ExpertId(0), ExpertId(1)],
            gate: GateId(0),
        }
    }

    /// A base, and adapters of three experts and a gate on all projections.
    fn setup(layers: LayerRange) -> (Decoder, Catalogue) {
        let device = Device::flex();
        let base = Decoder::random(&tiny::model(), 3, &device);
        let config = tiny::config(&Projection::ALL, layers);
        let mut adapters = Catalogue::new(&config, base.config()).unwrap();
        let device = device.autodiff();
        for seed in 0..3 {
            adapters.add_expert(&config.lora, "task", seed, &device);
        }
        adapters.add_gate(2, GateInit::Random { seed: 0 }, "task", &device);
        (base, adapters)
    }

    fn texts(base: &Decoder) -> Texts {
        let (tokens, real) = tiny::batch(&base.device());
        Texts::new(tokens, real)
    }

    fn forward(base: &Decoder, adapters: &Catalogue, routing: &Routing) -> Forward {
        let observe = matches!(routing, Routing::Gated { .. }).then_some(&OBSERVE);
        adapters.forward(base, &texts(base), routing, observe, None)
    }

    #[test]
    fn fresh_experts_leave_the_base_unchanged() {
        let (base, adapters) = setup(LayerRange::All);
        let (tokens, real) = tiny::batch(&base.device());
        let plain = base.forward(tokens, real).into_data();
        let uniform = Routing::Uniform {
            experts: vec![ExpertId(0), ExpertId(1), ExpertId(2)],
        };
        for routing in [Routing::Single(ExpertId(1)), gated(), uniform] {
            let hidden = forward(&base, &adapters, &routing).hidden;
            hidden
                .into_data()
                .assert_approx_eq::<f32>(&plain, Tolerance::rel_abs(1e-4, 1e-5));
        }
    }

    #[test]
    fn padding_changes_no_real_token() {
        let (base, mut adapters) = setup(LayerRange::All);
        tiny::train_by_hand(&mut adapters);
        let adapters = adapters.valid();
        let Texts { tokens, real, .. } = texts(&base);
        let padded = forward(&base, &adapters, &gated());
        let cut = |x: Tensor<3>| x.slice([1..2, 0..3]).into_data();
        let texts = Texts::new(tokens.slice([1..2, 0..3]), real.slice([1..2, 0..3]));
        let alone = adapters.forward(&base, &texts, &gated(), Some(&OBSERVE), None);
        let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-5);
        alone
            .hidden
            .into_data()
            .assert_approx_eq(&cut(padded.hidden), tolerance);
        for (alone, padded) in alone.pooled.into_iter().zip(padded.pooled) {
            let padded = padded.narrow(0, 1, 1).into_data();
            alone.into_data().assert_approx_eq(&padded, tolerance);
        }
    }

    #[test]
    fn layers_below_the_first_bank_record_no_graph() {
        let (base, mut adapters) = setup(LayerRange::Last(1));
        tiny::train_by_hand(&mut adapters);
        let out = forward(&base, &adapters, &gated());
        assert_eq!(adapters.layers(), 2..3);
        assert_eq!((out.pooled.len(), out.gates.len()), (1, 1));
        assert!(out.hidden.is_tracked());
        let valid = forward(&base, &adapters.valid(), &gated());
        assert!(!valid.hidden.is_autodiff() && !valid.pooled[0].is_autodiff());
        let tolerance = Tolerance::rel_abs(1e-5, 1e-6);
        let valid = valid.hidden.into_data();
        out.hidden
            .into_data()
            .assert_approx_eq::<f32>(&valid, tolerance);
    }

    #[test]
    fn known_states_take_the_place_of_the_layers_that_make_them() {
        let (base, mut adapters) = setup(LayerRange::Last(1));
        tiny::train_by_hand(&mut adapters);
        let adapters = adapters.valid();
        let whole = forward(&base, &adapters, &gated());
        for layers in 0..=2 {
            let mut texts = texts(&base);
            let x = base.states(texts.tokens.clone(), texts.real.clone(), layers);
            texts.states = Some(States { layers, x });
            let out = adapters.forward(&base, &texts, &gated(), Some(&OBSERVE), None);
            assert_eq!(out.hidden.into_data(), whole.hidden.clone().into_data());
            assert_eq!(
                out.pooled[0].clone().into_data(),
                whole.pooled[0].clone().into_data()
            );
        }
    }

    #[test]
    #[should_panic(expected = "an adapted layer")]
    fn states_of_an_adapted_layer_are_refused() {
        let (base, adapters) = setup(LayerRange::Last(2));
        let mut texts = texts(&base);
        let x = base.states(texts.tokens.clone(), texts.real.clone(), 2);
        texts.states = Some(States { layers: 2, x });
        adapters.forward(&base, &texts, &gated(), None, None);
    }

    #[test]
    fn other_tasks_experts_do_not_move_bit_for_bit() {
        let (base, mut adapters) = setup(LayerRange::All);
        tiny::train_by_hand(&mut adapters);
        let before = adapters.clone();
        let mut optimizer = AdamWConfig::new().with_weight_decay(0.1).init();
        for _ in 0..2 {
            let out = forward(&base, &adapters, &gated());
            let pooled = out.pooled.into_iter().map(|pooled| pooled.sum());
            let loss = pooled.fold(out.hidden.powf_scalar(2.0).mean(), |sum, pooled| {
                sum + pooled
            });
            let grads = GradientsParams::from_grads(loss.backward(), &adapters);
            adapters = optimizer.step(0.01, adapters, grads);
        }
        for (before, after) in before.experts().iter().zip(adapters.experts()) {
            let same = to_bytes(before) == to_bytes(after);
            assert_eq!(same, before.id() == ExpertId(2), "expert {}", before.id());
        }
    }

    #[test]
    fn cached_steps_are_the_whole_pass() {
        let (base, mut adapters) = setup(LayerRange::Last(2));
        tiny::train_by_hand(&mut adapters);
        let adapters = adapters.valid();
        let routing = gated();
        let model = Adapted::new(&base, &adapters, &routing);
        let (tokens, real) = tiny::batch(&base.device());
        let whole = adapters.forward(&base, &texts(&base), &routing, None, None);

        let mut cache = KvCache::new(model.num_layers());
        let steps = (0..5).map(|at| {
            let (tokens, real) = (
                tokens.clone().narrow(1, at, 1),
                real.clone().narrow(1, at, 1),
            );
            model.forward_cached(tokens, real, &mut cache)
        });
        let steps = Tensor::cat(steps.collect(), 1);
        for (row, length) in [(0, 5), (1, 3)] {
            let cut = |x: Tensor<3>| x.slice([row..row + 1, 0..length]).into_data();
            cut(steps.clone()).assert_approx_eq::<f32>(
                &cut(whole.hidden.clone()),
                Tolerance::rel_abs(1e-4, 1e-5),
            );
        }
    }

    #[test]
    fn generation_goes_through_the_experts() {
        let (base, mut adapters) = setup(LayerRange::All);
        let fresh = adapters.valid();
        tiny::train_by_hand(&mut adapters);
        let trained = adapters.valid();
        let greedy = Sampling::greedy();
        let routing = gated();
        let run = |adapters| {
            generate(
                &Adapted::new(&base, adapters, &routing),
                &[vec![1, 5]],
                6,
                &greedy,
                &[],
            )
            .unwrap()
        };
        let alone = generate(&base, &[vec![1, 5]], 6, &greedy, &[]);
        assert_eq!(run(&fresh), alone.unwrap());
        assert_ne!(run(&fresh), run(&trained));
    }

    #[test]
    #[should_panic(expected = "catalogue.valid()")]
    fn generating_on_the_autodiff_device_is_refused() {
        let (base, adapters) = setup(LayerRange::All);
        Adapted::new(&base, &adapters, &Routing::Single(ExpertId(0)));
    }

    /// A base whose layers are sparse, and adapters of three experts and a gate on its attention.
    fn sparse_setup() -> (Decoder, Catalogue) {
        let device = Device::flex();
        let base = Decoder::random(&tiny::sparse(), 3, &device);
        let attention = [Projection::Query, Projection::Value, Projection::Output];
        let config = tiny::config(&attention, LayerRange::All);
        let mut adapters = Catalogue::new(&config, base.config()).unwrap();
        let device = device.autodiff();
        for seed in 0..3 {
            adapters.add_expert(&config.lora, "task", seed, &device);
        }
        adapters.add_gate(2, GateInit::Random { seed: 0 }, "task", &device);
        tiny::train_by_hand(&mut adapters);
        (base, adapters)
    }

    #[test]
    fn attention_over_sparse_layers_is_adapted() {
        let (base, adapters) = sparse_setup();
        let (plain, single) = (adapters.valid(), Routing::Single(ExpertId(1)));
        let alone = forward(&base, &plain, &single).hidden.into_data();
        let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-5);
        let Texts { tokens, real, .. } = texts(&base);
        let merged = plain.merge(&base, ExpertId(1)).forward(tokens, real);
        merged.into_data().assert_approx_eq(&alone, tolerance);
        let mix = crate::Mix::PerText(vec![single; 2]);
        let mixed = plain.forward_mixed(&base, &texts(&base), &mix, None);
        mixed.into_data().assert_approx_eq(&alone, tolerance);

        let out = forward(&base, &adapters, &gated());
        assert_eq!((out.pooled.len(), out.gates.len()), (3, 3));
        let grads = GradientsParams::from_grads(out.hidden.sum().backward(), &adapters);
        // Two of the three experts, three pairs in each of three layers; and the gate of each layer.
        assert_eq!(grads.len(), 2 * 3 * 2 * 3 + 3);
    }
}
