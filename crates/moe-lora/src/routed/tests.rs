use burn::tensor::{DType, Distribution, Gradients, Tolerance, activation};
use moe_core::config::ModelConfig;
use moe_core::model::{Decoder, SparseFeedForward};
use moe_core::parameters::to_bytes;

use super::*;
use crate::router::{Capacity, Entry, Phase, Recorded, RouterConfig, SoftmaxTopKConfig};
use crate::{Catalogue, ExpertId, GateId, GateRouter, LayerRange, Routing, Texts, tiny};

const FFN: [Projection; 3] = [Projection::Gate, Projection::Up, Projection::Down];
const LAYER: usize = 1;

/// A base, and four trained experts on `targets` behind a router.
fn setup(
    base: &ModelConfig,
    targets: &[Projection],
    router: RouterConfig,
) -> (Decoder, Catalogue, Routing) {
    let device = Device::flex();
    let config = tiny::config(targets, LayerRange::All);
    let mut catalogue = Catalogue::new(&config, base).unwrap();
    let ad = device.clone().autodiff();
    let experts = (0..4).map(|seed| catalogue.add_expert(&config.lora, "task", seed, &ad));
    let experts: Vec<_> = experts.collect();
    let router = GateRouter {
        seed: 5,
        settings: router,
    };
    let gate = catalogue.add_router(4, router, "task", &ad).unwrap();
    tiny::train_by_hand(&mut catalogue);
    let decoder = Decoder::random(base, 3, &device);
    (decoder, catalogue, Routing::Gated { experts, gate })
}

fn with_shared() -> ModelConfig {
    let mut base = tiny::sparse();
    base.sparse.as_mut().unwrap().shared_d_ff = Some(5);
    base
}

fn top_k(top_k: usize) -> RouterConfig {
    RouterConfig::SoftmaxTopK(SoftmaxTopKConfig {
        top_k,
        ..SoftmaxTopKConfig::default()
    })
}

fn random(tokens: usize) -> Tensor<2> {
    Tensor::random([tokens, 8], Distribution::Normal(0.0, 1.0), &Device::flex())
}

/// A choice of these (token, expert), with weights that do not sum to one and are tracked.
fn choice(tokens: usize, pairs: &[(u32, u32)]) -> Dispatch {
    let mut slots = [0; 4];
    let entries = pairs.iter().map(|&(token, expert)| {
        let slot = slots[expert as usize];
        slots[expert as usize] += 1;
        Entry {
            token,
            expert,
            slot,
        }
    });
    let entries = entries.collect();
    let weights: Vec<f32> = (0..pairs.len()).map(|it| 0.2 + 0.07 * it as f32).collect();
    let device = Device::flex().autodiff();
    Dispatch {
        tokens,
        experts: 4,
        entries,
        weights: Tensor::<1>::from_data(weights.as_slice(), &device).require_grad(),
        scores: None,
        wanted: slots.to_vec(),
        losses: Vec::new(),
    }
}

fn adapted(x: Tensor<2>, weight: Tensor<2>, lora: Option<&Lora>) -> Tensor<2> {
    let y = x.clone().matmul(weight);
    match lora {
        Some(lora) => y + x.matmul(lora.a.val()).matmul(lora.b.val()) * lora.scaling,
        None => y,
    }
}

/// One network with LoRAs, as it is defined.
fn network(
    x: Tensor<2>,
    [gate, up, down]: [Tensor<2>; 3],
    [on_gate, on_up, on_down]: [Option<&Lora>; 3],
) -> Tensor<2> {
    let h = activation::silu(adapted(x.clone(), gate, on_gate)) * adapted(x, up, on_up);
    adapted(h, down, on_down)
}

fn dense(ffn: &FeedForward, x: Tensor<2>, expert: Option<&crate::LayerExpert>) -> Tensor<2> {
    let base = [&ffn.gate, &ffn.up, &ffn.down].map(|it| it.weight.float().unwrap().val());
    let loras = FFN.map(|projection| expert.and_then(|it| it.lora(projection)));
    network(x, base, loras)
}

/// Token by token through the base's experts.
fn sparse(
    mixture: &SparseFeedForward,
    x: Tensor<2>,
    expert: Option<&crate::LayerExpert>,
) -> Tensor<2> {
    let [tokens, d_model] = x.dims();
    let routed = mixture.route(x.clone().reshape([1, tokens, d_model]));
    let rows = (0..tokens).map(|token| {
        let own = x.clone().narrow(0, token, 1);
        let choices = (0..mixture.top_k).map(|choice| {
            let base = routed.experts[token * mixture.top_k + choice] as usize;
            let matrices = [&mixture.gate, &mixture.up, &mixture.down];
            let matrices = matrices.map(|it| it.val().narrow(0, base, 1).squeeze_dim::<2>(0));
            let loras = FFN.map(|projection| {
                let inside = expert.and_then(|it| it.inside.get(base));
                inside.and_then(|it| it.lora(projection))
            });
            let weight = routed.weights.clone();
            let weight = weight.slice([token..token + 1, choice..choice + 1]);
            network(own.clone(), matrices, loras) * weight
        });
        let sum = choices.reduce(|sum, it| sum + it).unwrap();
        match &mixture.shared {
            Some(shared) => {
                let gate = activation::sigmoid(
                    own.clone()
                        .matmul(shared.gate.weight.float().unwrap().val()),
                );
                sum + dense(&shared.feed_forward, own, expert) * gate
            }
            None => sum,
        }
    });
    Tensor::cat(rows.collect(), 0)
}

fn alone(block: &FeedForwardBlock, x: Tensor<2>, expert: Option<&crate::LayerExpert>) -> Tensor<2> {
    match block {
        FeedForwardBlock::Dense(ffn) => dense(ffn, x, expert),
        FeedForwardBlock::Sparse(mixture) => sparse(mixture, x, expert),
    }
}

/// The definition: entry by entry.
fn loop_over_entries(
    bank: &ExpertBank<'_>,
    block: &FeedForwardBlock,
    x: Tensor<2>,
    dispatch: &Dispatch,
) -> Tensor<2> {
    let mut y = alone(block, x.clone(), None);
    for (index, entry) in dispatch.entries.iter().enumerate() {
        let token = entry.token as usize;
        let own = x.clone().narrow(0, token, 1);
        let (_, expert) = bank.experts[entry.expert as usize];
        let change = alone(block, own.clone(), Some(expert)) - alone(block, own, None);
        let weight = dispatch
            .weights
            .clone()
            .narrow(0, index, 1)
            .unsqueeze_dim(1);
        let place = Tensor::<1, Int>::from_data([token as i32], &Device::flex());
        y = y.select_assign(0, place, change * weight, IndexingUpdateOp::Add);
    }
    y
}

/// The gradients of x, the weights and every LoRA of the layer; of what is in no graph, zeros.
fn gradients(
    catalogue: &Catalogue,
    x: &Tensor<2>,
    weights: &Tensor<1>,
    grads: &Gradients,
) -> Vec<Vec<f32>> {
    let numbers = |grad: Option<Tensor<2>>, like: &Tensor<2>| -> Vec<f32> {
        let grad = grad.unwrap_or_else(|| like.clone().inner().zeros_like());
        grad.into_data().iter::<f32>().collect()
    };
    let mut all = vec![
        numbers(x.grad(grads), x),
        weights
            .grad(grads)
            .unwrap()
            .into_data()
            .iter::<f32>()
            .collect(),
    ];
    for expert in catalogue.experts() {
        for lora in expert.layers[LAYER].loras() {
            for matrix in [&lora.a, &lora.b] {
                all.push(numbers(matrix.grad(grads), &matrix.val()));
            }
        }
    }
    all
}

fn close(got: &[f32], want: &[f32]) {
    let data = |numbers: &[f32]| TensorData::new(numbers.to_vec(), [numbers.len()]);
    data(got).assert_approx_eq::<f32>(&data(want), Tolerance::rel_abs(2e-4, 2e-5));
}

#[test]
fn it_is_the_loop_over_the_entries_gradients_included() {
    let all_to_one: Vec<(u32, u32)> = (0..6).map(|token| (token, 2)).collect();
    let cases: [(usize, &[(u32, u32)]); 5] = [
        (
            6,
            &[
                (0, 1),
                (0, 3),
                (1, 0),
                (1, 1),
                (2, 3),
                (2, 0),
                (4, 1),
                (5, 2),
                (5, 3),
            ],
        ),
        (6, &all_to_one),
        (3, &[(0, 1), (2, 1)]),
        (1, &[(0, 3), (0, 0)]),
        (1, &[(0, 2)]),
    ];
    for base in [tiny::model(), tiny::sparse(), with_shared()] {
        for targets in [&FFN[..], &FFN[1..2], &FFN[2..]] {
            let (decoder, catalogue, routing) = setup(&base, targets, top_k(2));
            let block = &decoder.layers[LAYER].feed_forward;
            let bank = catalogue.bank(LAYER, &routing).unwrap();
            for (tokens, pairs) in cases {
                let (x, probe) = (random(tokens), random(tokens));
                let way = |mix: &dyn Fn(Tensor<2>, &Dispatch) -> Tensor<2>| {
                    let x = Tensor::from_inner(x.clone()).require_grad();
                    let dispatch = choice(tokens, pairs);
                    let y = mix(x.clone(), &dispatch);
                    let grads = (y.clone() * probe.clone()).sum().backward();
                    let mut all = gradients(&catalogue, &x, &dispatch.weights, &grads);
                    all.push(y.into_data().iter::<f32>().collect());
                    all
                };
                let got = way(&|x, dispatch| bank.follow(block, x, dispatch, None).0);
                let want = way(&|x, dispatch| loop_over_entries(&bank, block, x, dispatch));
                got.iter()
                    .zip(&want)
                    .for_each(|(got, want)| close(got, want));
            }
        }
    }
}

fn texts(base: &Decoder) -> Texts {
    let (tokens, real) = tiny::batch(&base.device());
    Texts::new(tokens, real)
}

fn hidden(base: &Decoder, catalogue: &Catalogue, routing: &Routing) -> TensorData {
    let forward = catalogue.forward(base, &texts(base), routing, None, None);
    forward.hidden.into_data()
}

#[test]
fn experts_of_equal_weights_are_their_mean_and_one_at_weight_one_is_itself() {
    let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-5);
    for base in [tiny::model(), tiny::sparse(), with_shared()] {
        let (decoder, catalogue, routing) = setup(&base, &FFN, RouterConfig::Uniform);
        let mean = Routing::Uniform {
            experts: routing.experts().to_vec(),
        };
        let mean = hidden(&decoder, &catalogue, &mean);
        // Padding is the base's in a sparse mixture, and nobody reads it.
        let real = |hidden: TensorData| {
            let hidden = Tensor::<3>::from_data(hidden, &Device::flex());
            hidden.slice([0..1, 0..5]).into_data()
        };
        let got = real(hidden(&decoder, &catalogue, &routing));
        got.assert_approx_eq(&real(mean), tolerance);

        let (_, mut catalogue, _) = setup(&base, &FFN, RouterConfig::Uniform);
        let router = GateRouter {
            seed: 1,
            settings: top_k(1),
        };
        let device = Device::flex().autodiff();
        let gate = catalogue.add_router(1, router, "task", &device).unwrap();
        let experts = vec![ExpertId(2)];
        let got = real(hidden(
            &decoder,
            &catalogue,
            &Routing::Gated { experts, gate },
        ));
        let single = real(hidden(&decoder, &catalogue, &Routing::Single(ExpertId(2))));
        got.assert_approx_eq(&single, tolerance);
    }
}

#[test]
fn fresh_experts_change_nothing_whatever_the_router() {
    let capacity = Capacity::Places(1);
    for router in [
        top_k(2),
        RouterConfig::SoftmaxTopK(SoftmaxTopKConfig {
            capacity,
            ..SoftmaxTopKConfig::default()
        }),
        serde_json::from_str(r#"{"kind": "switch"}"#).unwrap(),
        serde_json::from_str(r#"{"kind": "bias_balanced", "top_k": 2}"#).unwrap(),
    ] {
        for base in [tiny::model(), with_shared()] {
            let (decoder, trained, routing) = setup(&base, &FFN, router.clone());
            let (tokens, real) = tiny::batch(&decoder.device());
            let plain = decoder.forward(tokens, real).into_data();
            let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-5);
            let moved = hidden(&decoder, &trained, &routing);
            assert!(moved.clone().convert_dtype(DType::F32) != plain);
            let mut fresh = trained;
            for id in 0..4 {
                for layer in &mut fresh.expert_mut(ExpertId(id)).layers {
                    for lora in layer.loras_mut() {
                        lora.set(lora.a.val(), lora.b.val().zeros_like());
                    }
                }
            }
            hidden(&decoder, &fresh, &routing).assert_approx_eq(&plain, tolerance);
        }
    }
}

#[test]
fn padding_changes_nothing() {
    for base in [tiny::model(), tiny::sparse()] {
        let (decoder, catalogue, routing) = setup(&base, &FFN, top_k(2));
        let Texts { tokens, real, .. } = texts(&decoder);
        let cut = |x: Tensor<3>| x.slice([1..2, 0..3]).into_data();
        let forward = |texts: &Texts| catalogue.forward(&decoder, texts, &routing, None, None);
        let padded = forward(&Texts::new(tokens.clone(), real.clone()));
        let short = Texts::new(tokens.slice([1..2, 0..3]), real.slice([1..2, 0..3]));
        let alone = forward(&short);
        let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-5);
        let got = alone.hidden.into_data();
        got.assert_approx_eq(&cut(padded.hidden), tolerance);
        // Five tokens of the first text, three of the second, two experts each.
        let (_, dispatch) = &padded.dispatched[0];
        assert_eq!(dispatch.load().iter().sum::<u32>(), 16);
    }
}

#[test]
fn draws_are_a_function_of_seed_and_layer() {
    let router = serde_json::from_str(r#"{"kind": "switch", "jitter": 0.5}"#).unwrap();
    let (decoder, catalogue, routing) = setup(&tiny::model(), &FFN, router);
    let run = |seed| {
        let texts = texts(&decoder);
        let forward = catalogue.forward_training(&decoder, &texts, &routing, seed, None);
        forward.hidden.into_data()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let texts = texts(&decoder);
    let pass = Pass::new(&texts, Phase::Train { seed: 1 });
    assert_ne!(pass.phase(0), pass.phase(1));
}

#[test]
fn a_recorded_routing_replayed_gives_the_same_numbers_bit_for_bit() {
    for base in [tiny::model(), tiny::sparse()] {
        let (decoder, catalogue, routing) = setup(&base, &FFN, top_k(2));
        let (texts, other) = (texts(&decoder), top_k(1));
        let forward = catalogue.forward(&decoder, &texts, &routing, None, None);
        let records = forward.dispatched.iter();
        let mut records: Vec<_> = records
            .map(|(layer, it)| Recorded::of(*layer, it))
            .collect();
        // The same experts behind routers that would choose otherwise.
        let (_, mut others, _) = setup(&base, &FFN, other.clone());
        let router = GateRouter {
            seed: 77,
            settings: other,
        };
        let device = Device::flex().autodiff();
        let gate = others.add_router(4, router, "task", &device).unwrap();
        let experts = routing.experts().to_vec();
        let elsewhere = Routing::Gated { experts, gate };
        let want = forward.hidden.into_data();
        assert_ne!(hidden(&decoder, &others, &elsewhere), want);
        let replayed = others
            .replay(&decoder, &texts, &elsewhere, &records)
            .unwrap();
        assert_eq!(replayed.hidden.into_data(), want);
        records[2].tokens += 1;
        let refused = others.replay(&decoder, &texts, &elsewhere, &records);
        assert!(refused.unwrap_err().to_string().contains("layer 2"));
        let refused = others.replay(&decoder, &texts, &elsewhere, &records[..1]);
        assert!(refused.unwrap_err().to_string().contains("layer 1"));
        for (layer, routed) in &forward.routed {
            let tokens = texts.routed_tokens();
            let record = Recorded::of_base(*layer, routed, &tokens);
            assert_eq!(record.replay(&Device::flex()).load(), record.wanted);
            assert_eq!(record.token.len(), 16);
        }
    }
}

#[test]
fn routers_and_chosen_experts_get_gradients_and_the_base_none() {
    for base in [tiny::model(), tiny::sparse()] {
        let (decoder, catalogue, routing) = setup(&base, &FFN, top_k(2));
        let before = to_bytes(&decoder);
        let texts = texts(&decoder);
        let forward = catalogue.forward_training(&decoder, &texts, &routing, 1, None);
        assert_eq!(forward.dispatched.len(), 3);
        let losses = forward.dispatched.iter();
        let auxiliary = losses.filter_map(|(_, it)| it.auxiliary());
        let loss = auxiliary.fold(forward.hidden.powi_scalar(2).sum(), |sum, it| sum + it);
        let grads = loss.backward();
        for router in &catalogue.gate(GateId(0)).routers {
            let crate::router::Router::SoftmaxTopK(router) = router else {
                panic!("another router");
            };
            let grad: f32 = router
                .linear
                .weight
                .grad(&grads)
                .unwrap()
                .abs()
                .sum()
                .into_scalar();
            assert!(grad > 0.0);
        }
        for expert in catalogue.experts() {
            for lora in expert.layers.iter().flat_map(crate::LayerExpert::loras) {
                // An expert without a token has a gradient of zeros.
                assert!(lora.a.grad(&grads).is_some() && lora.b.grad(&grads).is_some());
            }
        }
        assert_eq!(to_bytes(&decoder), before);
    }
}

#[test]
fn cached_steps_are_the_whole_pass() {
    use moe_core::generate::CausalLm;
    let (decoder, catalogue, routing) = setup(&tiny::model(), &FFN, top_k(2));
    use burn::module::Module;
    let catalogue = catalogue.valid();
    let model = crate::Adapted::new(&decoder, &catalogue, &routing);
    let (tokens, real) = tiny::batch(&decoder.device());
    let whole = catalogue.forward(&decoder, &texts(&decoder), &routing, None, None);
    let mut cache = moe_core::model::KvCache::new(model.num_layers());
    let steps = (0..5).map(|at| {
        let step = |x: Tensor<2, Int>| x.narrow(1, at, 1).narrow(0, 0, 1);
        let real = real.clone().narrow(1, at, 1).narrow(0, 0, 1);
        model.forward_cached(step(tokens.clone()), real, &mut cache)
    });
    let steps = Tensor::cat(steps.collect(), 1).into_data();
    let want = whole.hidden.narrow(0, 0, 1).into_data();
    steps.assert_approx_eq::<f32>(&want, Tolerance::rel_abs(1e-4, 1e-5));
}

#[test]
fn texts_of_other_routings_share_a_batch_with_a_mixture() {
    let (decoder, catalogue, routing) = setup(&tiny::model(), &FFN, top_k(2));
    use burn::module::Module;
    let catalogue = catalogue.valid();
    let single = Routing::Single(ExpertId(3));
    let mix = crate::Mix::PerText(vec![routing.clone(), single.clone()]);
    let texts = texts(&decoder);
    let mixed = catalogue.forward_mixed(&decoder, &texts, &mix, None);
    for (row, length, routing) in [(0, 5, routing), (1, 3, single)] {
        let cut = |x: Tensor<3>| x.slice([row..row + 1, 0..length]).into_data();
        let alone = catalogue.forward(&decoder, &texts, &routing, None, None);
        let got = cut(mixed.clone());
        got.assert_approx_eq::<f32>(&cut(alone.hidden), Tolerance::rel_abs(1e-4, 1e-5));
    }
}
