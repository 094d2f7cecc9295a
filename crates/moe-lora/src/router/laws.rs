//! What holds for every router.

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData, Tolerance};

use super::choices::values;
use super::jacobs::{competitive_loss, posterior};
use super::*;

const TOKENS: usize = 12;
const D_MODEL: usize = 5;
const EXPERTS: usize = 4;
const TRAIN: Phase = Phase::Train { seed: 7 };

fn device() -> Device {
    Device::flex().autodiff()
}

/// `[12, 5]`, the same each time.
fn states(device: &Device) -> Tensor<2> {
    let numbers = draws::normal(1, TOKENS * D_MODEL);
    Tensor::from_data(TensorData::new(numbers, [TOKENS, D_MODEL]), device)
}

/// Weights that send most tokens to few experts.
fn linear(device: &Device) -> RouterLinear {
    let numbers = draws::normal(2, D_MODEL * EXPERTS);
    let weight = Tensor::from_data(TensorData::new(numbers, [D_MODEL, EXPERTS]), device);
    RouterLinear::from_weight(weight).with_bias(Tensor::from_data([1.0, 0.0, -0.5, 0.2], device))
}

fn softmax_top_k(weights: TopKWeights, capacity: Capacity, priority: Priority) -> Router {
    let config = SoftmaxTopKConfig {
        top_k: 2,
        weights,
        capacity,
        priority,
        balance: 0.3,
        z: 0.2,
    };
    let linear = linear(&device());
    Router::SoftmaxTopK(SoftmaxTopK { config, linear })
}

fn gshard(second: SecondExpert, capacity: Capacity) -> Router {
    let config = GShardConfig {
        capacity,
        second,
        ..GShardConfig::default()
    };
    let linear = linear(&device());
    Router::GShard(GShard { config, linear })
}

fn st_moe(threshold: f64, capacity: Capacity) -> Router {
    let config = StMoeConfig {
        threshold,
        capacity,
        ..StMoeConfig::default()
    };
    let linear = linear(&device());
    Router::StMoe(StMoe { config, linear })
}

fn switch(capacity: Capacity, priority: Priority) -> Router {
    let config = SwitchConfig {
        capacity,
        eval_capacity: capacity,
        priority,
        z: 0.1,
        ..SwitchConfig::default()
    };
    let linear = linear(&device());
    Router::Switch(Switch { config, linear })
}

fn noisy() -> Router {
    Router::NoisyTopK(NoisyTopK {
        config: NoisyTopKConfig::default(),
        gate: linear(&device()),
        noise: linear(&device()),
    })
}

fn bias_balanced(grouped: Option<ExpertGroups>) -> BiasBalanced {
    let config = BiasBalancedConfig {
        top_k: 2,
        grouped,
        scale: 1.0,
        rate: 1e-2,
        balance: 0.1,
        ..BiasBalancedConfig::default()
    };
    let bias = Tensor::from_data([-0.3, 0.1, 0.2, 0.0], &device());
    BiasBalanced::from_parts(config, linear(&device()), bias)
}

fn expert_choice(capacity: Capacity) -> Router {
    let config = ExpertChoiceConfig { capacity, z: 0.1 };
    let encoder = Attention::Bidirectional;
    let mut router = ExpertChoice::new(config, encoder, D_MODEL, EXPERTS, 0, &device()).unwrap();
    router.linear = linear(&device());
    Router::ExpertChoice(router)
}

/// Every router that looks at the states, without limits.
fn dropless() -> Vec<Router> {
    let none = Capacity::Unlimited;
    let jacobs = Jacobs {
        linear: linear(&device()),
    };
    let groups = ExpertGroups {
        groups: 2,
        top_groups: 1,
    };
    vec![
        Router::Jacobs(jacobs),
        noisy(),
        gshard(SecondExpert::Largest, none),
        gshard(SecondExpert::Sampled, none),
        st_moe(0.0, none),
        softmax_top_k(TopKWeights::Chosen, none, Priority::Choice),
        softmax_top_k(TopKWeights::Kept, none, Priority::Choice),
        Router::BiasBalanced(bias_balanced(None)),
        Router::BiasBalanced(bias_balanced(Some(groups))),
        Router::Uniform(Uniform::new(EXPERTS)),
    ]
}

/// Every router with a limit of so many places.
fn limited(places: usize) -> Vec<Router> {
    let capacity = Capacity::Places(places);
    let mut routers = vec![
        gshard(SecondExpert::Largest, capacity),
        gshard(SecondExpert::Chance, capacity),
        gshard(SecondExpert::Sampled, capacity),
        st_moe(0.2, capacity),
        expert_choice(capacity),
    ];
    for priority in [
        Priority::Choice,
        Priority::Position,
        Priority::FirstChoice,
        Priority::Weight,
        Priority::Random,
    ] {
        routers.push(switch(capacity, priority));
        for weights in [TopKWeights::Raw, TopKWeights::Chosen, TopKWeights::Kept] {
            routers.push(softmax_top_k(weights, capacity, priority));
        }
    }
    routers
}

#[test]
fn rows_sum_to_one_where_nothing_is_dropped() {
    for router in dropless() {
        let dispatch = router.forward(states(&device()), &Tokens::new(TOKENS), TRAIN);
        for sum in values(&dispatch.gates().sum_dim(1)) {
            assert!((sum - 1.0).abs() < 1e-5, "{sum} of {router:?}");
        }
        assert_eq!(dispatch.dropped_share(), 0.0);
    }
}

#[test]
fn what_is_kept_sums_to_one_and_what_is_chosen_to_no_more() {
    let capacity = Capacity::Places(3);
    for weights in [TopKWeights::Chosen, TopKWeights::Kept] {
        let router = softmax_top_k(weights, capacity, Priority::Choice);
        let dispatch = router.forward(states(&device()), &Tokens::new(TOKENS), TRAIN);
        assert!(dispatch.dropped_share() > 0.2);
        for (token, sum) in values(&dispatch.gates().sum_dim(1)).into_iter().enumerate() {
            let there = dispatch
                .entries
                .iter()
                .any(|entry| entry.token as usize == token);
            match weights {
                TopKWeights::Kept if there => assert!((sum - 1.0).abs() < 1e-5),
                _ if there => assert!(sum > 0.0 && sum < 1.0 + 1e-5),
                _ => assert_eq!(sum, 0.0),
            }
        }
    }
}

#[test]
fn no_expert_is_above_its_capacity_and_no_slot_is_given_twice() {
    for places in [1, 2, 5] {
        for (groups, router) in [1, 3]
            .into_iter()
            .flat_map(|g| limited(places).into_iter().map(move |r| (g, r)))
        {
            let tokens = Tokens::new(TOKENS).in_groups(groups);
            let dispatch = router.forward(states(&device()), &tokens, TRAIN);
            let mut seen = std::collections::BTreeSet::new();
            for entry in &dispatch.entries {
                let group = entry.token as usize / tokens.per_group();
                assert!((entry.slot as usize) < places, "{router:?}");
                assert!(seen.insert((group, entry.expert, entry.slot)), "{router:?}");
            }
            let load = dispatch.load();
            assert!(load.iter().all(|&load| load as usize <= places * groups));
            assert_eq!(dispatch.weights.dims(), [dispatch.entries.len()]);
        }
    }
}

#[test]
fn entries_by_expert_are_all_entries() {
    let router = softmax_top_k(TopKWeights::Raw, Capacity::Unlimited, Priority::Choice);
    let dispatch = router.forward(states(&device()), &Tokens::new(TOKENS), TRAIN);
    let by_expert = dispatch.by_expert();
    assert_eq!(by_expert.order.len(), 2 * TOKENS);
    for expert in 0..EXPERTS {
        let order = &by_expert.order[by_expert.starts[expert]..by_expert.starts[expert + 1]];
        let tokens: Vec<u32> = order
            .iter()
            .map(|&i| dispatch.entries[i as usize].token)
            .collect();
        assert!(
            order
                .iter()
                .all(|&i| dispatch.entries[i as usize].expert as usize == expert)
        );
        assert!(tokens.is_sorted());
    }
}

#[test]
fn padding_goes_nowhere_and_changes_nothing() {
    // Three tokens of padding at the end of each of two groups, or none of them at all.
    let states = states(&device());
    let real: Vec<bool> = (0..TOKENS).map(|token| token % 6 < 3).collect();
    let tokens = Tokens::new(TOKENS).in_groups(2).with_real(real);
    let parts = vec![
        states.clone().narrow(0, 0, 3),
        states.clone().narrow(0, 6, 3),
    ];
    let (short, whole) = (Tensor::cat(parts, 0), Tokens::new(6).in_groups(2));
    for router in dropless().into_iter().chain(limited(2)) {
        let padded = router.forward(states.clone(), &tokens, Phase::Evaluate);
        let alone = router.forward(short.clone(), &whole, Phase::Evaluate);
        let moved: Vec<Entry> = alone
            .entries
            .iter()
            .map(|entry| Entry {
                token: entry.token / 3 * 6 + entry.token % 3,
                ..*entry
            })
            .collect();
        assert_eq!(padded.entries, moved, "{router:?}");
        assert_eq!(padded.wanted, alone.wanted);
        let near = Tolerance::rel_abs(1e-5, 1e-6);
        let (got, want) = (padded.weights.into_data(), alone.weights.into_data());
        got.assert_approx_eq::<f32>(&want, near);
        for (got, want) in padded.losses.iter().zip(&alone.losses) {
            let (got, want) = (got.value.to_data(), want.value.to_data());
            got.assert_approx_eq::<f32>(&want, near);
        }
    }
}

#[test]
fn gradients_of_losses_and_weights_are_finite_differences() {
    let tokens = Tokens::new(TOKENS).in_groups(2);
    let direction = draws::normal(5, TOKENS * D_MODEL);
    let shift = |by: f32| {
        let moved = values(&states(&device())).into_iter().zip(&direction);
        let moved: Vec<f32> = moved.map(|(x, along)| x + by * along).collect();
        Tensor::<2>::from_data(TensorData::new(moved, [TOKENS, D_MODEL]), &device())
    };
    // Each loss by itself, then the weights under fixed factors.
    let parts = |dispatch: &Dispatch| -> Vec<(String, Tensor<1>)> {
        let factor = |entry: &Entry| (7 * entry.token + 3 * entry.expert) as f32 % 5.0 - 1.0;
        let factors: Vec<f32> = dispatch.entries.iter().map(factor).collect();
        let factors = Tensor::<1>::from_data(factors.as_slice(), &dispatch.weights.device());
        let weights = (dispatch.weights.clone() * factors).sum();
        let losses = dispatch.losses.iter();
        let losses = losses.map(|loss| (loss.kind.name().to_string(), loss.value.clone()));
        losses.chain([("weights".to_string(), weights)]).collect()
    };
    for router in dropless().into_iter().chain(limited(4)) {
        if matches!(router, Router::Uniform(_)) {
            continue;
        }
        let step = 2e-3;
        let at = |by: f32| parts(&router.forward(shift(by), &tokens, TRAIN));
        let (before, after) = (at(-step), at(step));
        let count = before.len();
        for part in 0..count {
            let x = states(&device()).require_grad();
            let (name, value) = parts(&router.forward(x.clone(), &tokens, TRAIN)).swap_remove(part);
            let gradients = value.backward();
            let got: f64 = match x.grad(&gradients) {
                None => 0.0,
                Some(grad) => values(&grad)
                    .iter()
                    .zip(&direction)
                    .map(|(grad, along)| f64::from(grad * along))
                    .sum(),
            };
            let value = |parts: &[(String, Tensor<1>)]| {
                f64::from(parts[part].1.clone().into_scalar::<f32>())
            };
            let want = (value(&after) - value(&before)) / (2.0 * f64::from(step));
            assert!(
                (got - want).abs() < 2e-3 + 1e-2 * want.abs(),
                "{name}: {got} and {want} of {router:?}"
            );
        }
    }
}

#[test]
fn even_probabilities_and_even_choices_have_balance_loss_one() {
    let tokens = Tokens::new(8);
    let even = Tensor::<2>::full([8, EXPERTS], 0.25, &device());
    let uneven = draws::uniform(3, draws::Draw::Noise, 8 * EXPERTS);
    let uneven = Tensor::<2>::from_data(TensorData::new(uneven, [8, EXPERTS]), &device());
    let uneven = uneven.clone() / uneven.sum_dim(1);
    for (probs, chosen) in [(even.clone(), [8, 0, 0, 0]), (uneven, [4, 4, 4, 4])] {
        let loss = balance_loss(probs, &chosen, &tokens).into_scalar::<f32>();
        assert!((loss - 1.0).abs() < 1e-5, "{loss}");
    }
    let uniform = Uniform::new(EXPERTS).forward(&tokens, &device());
    let loss = balance_loss(uniform.scores.unwrap(), &uniform.wanted, &tokens);
    assert!((loss.into_scalar::<f32>() - 1.0).abs() < 1e-6);
    // All at one expert is the worst: E.
    let collapsed = Tensor::<2>::from_data([[1.0, 0.0, 0.0, 0.0]; 8], &device());
    let loss = balance_loss(collapsed, &[8, 0, 0, 0], &tokens).into_scalar::<f32>();
    assert!((loss - 4.0).abs() < 1e-5);
}

#[test]
fn equal_values_have_no_variation() {
    for variance in [Variance::Biased, Variance::Unbiased] {
        let equal = Tensor::<1>::full([5], 3.0, &device());
        assert_eq!(cv_squared(equal, variance).into_scalar::<f32>(), 0.0);
        let one = Tensor::<1>::full([1], 3.0, &device());
        assert_eq!(cv_squared(one, variance).into_scalar::<f32>(), 0.0);
    }
    let values = Tensor::<1>::from_data([1.0, 3.0], &device());
    let biased = cv_squared(values, Variance::Biased).into_scalar::<f32>();
    assert!((biased - 0.25).abs() < 1e-6);
}

#[test]
fn draws_are_a_function_of_the_seed() {
    let mut differ = 0;
    let routers = dropless().into_iter().chain(limited(3));
    for router in routers {
        let tokens = Tokens::new(TOKENS);
        let run = |phase| {
            let dispatch = router.forward(states(&device()), &tokens, phase);
            (dispatch.entries, values(&dispatch.weights))
        };
        assert_eq!(run(TRAIN), run(TRAIN));
        assert_eq!(run(Phase::Evaluate), run(Phase::Evaluate));
        differ += usize::from(run(TRAIN) != run(Phase::Train { seed: 8 }));
    }
    assert!(differ >= 6, "{differ} routers draw");
}

#[test]
fn each_expert_of_expert_choice_takes_its_share() {
    let router = expert_choice(Capacity::factor(2.0));
    let tokens = Tokens::new(TOKENS).in_groups(2);
    let dispatch = router.forward(states(&device()), &tokens, TRAIN);
    assert_eq!(dispatch.load(), vec![6; EXPERTS]);
}

#[test]
fn a_bias_brings_the_loads_together() {
    let mut router = bias_balanced(None);
    let tokens = Tokens::new(64);
    let logits = Tensor::<2>::from_data(
        TensorData::new(draws::normal(3, 64 * EXPERTS), [64, EXPERTS]),
        &device(),
    );
    let skew = Tensor::<1>::from_data([2.0, 0.5, -0.5, -2.0], &device());
    let logits = logits + skew.unsqueeze_dim::<2>(0);
    let most = |router: &BiasBalanced| {
        let dispatch = router.route(logits.clone(), &tokens);
        let load: Vec<f64> = dispatch.wanted.into_iter().map(f64::from).collect();
        let most = load.iter().copied().fold(0.0, f64::max);
        (most / 32.0, load)
    };
    let (before, mut load) = most(&router);
    for _ in 0..150 {
        router = router.rebalanced(&load, Rebalance::Paper);
        load = most(&router).1;
    }
    let after = most(&router).0;
    assert!(before > 1.4 && after < 1.15, "{before} → {after}");
}

#[test]
fn groups_out_of_reach_get_nothing() {
    let groups = ExpertGroups {
        groups: 2,
        top_groups: 1,
    };
    let router = bias_balanced(Some(groups));
    let dispatch = router.forward(states(&device()), &Tokens::new(TOKENS));
    for pair in dispatch.entries.chunks(2) {
        assert_eq!(pair[0].expert / 2, pair[1].expert / 2);
    }
}

#[test]
fn a_domain_by_itself_is_routed_as_before() {
    let router = RandomRouted::new(50, &[3, 4, 2], 1, 9);
    let ids: Vec<u32> = (0..50).collect();
    let route = |router: &RandomRouted, domain: u32| {
        let tokens = Tokens::new(50).with_ids(ids.clone(), vec![domain; 50]);
        router.forward(&tokens, &Device::flex())
    };
    let (whole, alone) = (route(&router, 1), route(&router.extract(1), 0));
    let range = router.experts_of(1);
    assert_eq!((range.clone(), router.experts()), (3..7, 9));
    for (whole, alone) in whole.entries.iter().zip(&alone.entries) {
        assert!(range.contains(&(whole.expert as usize)));
        assert_eq!(whole.expert, alone.expert + 3);
    }
    assert!(values(&whole.weights).iter().all(|&weight| weight == 1.0));
    // Layers have tables of their own, from one seed.
    assert_ne!(
        router.table(),
        RandomRouted::new(50, &[3, 4, 2], 2, 9).table()
    );
    assert_eq!(
        router.table(),
        RandomRouted::new(50, &[3, 4, 2], 1, 9).table()
    );
}

#[test]
fn experts_learn_as_much_as_they_explain() {
    let logits = Tensor::<2>::from_data([[0.3, -0.2], [1.0, 0.5]], &device()).require_grad();
    let outputs = [[[0.1, 0.4], [1.0, -1.0]], [[0.0, 0.2], [0.3, 0.3]]];
    let outputs = Tensor::<3>::from_data(outputs, &device()).require_grad();
    let target = Tensor::<2>::from_data([[0.5, 0.5], [-1.0, 0.0]], &device());
    let shares = posterior(logits.clone(), outputs.clone(), target.clone());
    let off = outputs.clone() - target.clone().unsqueeze_dim::<3>(1);
    let want = shares.clone().unsqueeze_dim::<3>(2) * off * 0.5;
    let gradients = competitive_loss(logits, outputs.clone(), target).backward();
    let near = Tolerance::rel_abs(1e-4, 1e-6);
    let got = outputs.grad(&gradients).unwrap().into_data();
    got.assert_approx_eq::<f32>(&want.into_data(), near);
}

#[test]
fn routing_is_in_f32_whatever_the_input() {
    let x = states(&Device::flex());
    let linear = linear(&Device::flex());
    let rounded = x.cast(FloatDType::BF16);
    let want = linear.logits(rounded.clone().cast(FloatDType::F32));
    let got = linear.logits(rounded);
    assert_eq!(got.dtype(), DType::F32);
    got.into_data().assert_eq(&want.into_data(), true);
}

#[test]
fn a_router_that_starts_at_zero_has_even_scores() {
    let device = Device::flex();
    let config = NoisyTopKConfig::default();
    let router = NoisyTopK::new(config, D_MODEL, EXPERTS, &device);
    let dispatch = router.forward(states(&device), &Tokens::new(TOKENS), TRAIN);
    let scores = values(&dispatch.scores.clone().unwrap());
    assert!(scores.iter().all(|&score| (score - 0.25).abs() < 1e-6));
    assert!(dispatch.load().iter().filter(|&&load| load > 0).count() > 2);
}

#[test]
fn a_stored_router_routes_as_before() {
    let router = Router::BiasBalanced(bias_balanced(None));
    let fresh = BiasBalanced::new(
        BiasBalancedConfig::default(),
        D_MODEL,
        EXPERTS,
        1,
        &device(),
    );
    let fresh = BiasBalanced {
        config: bias_balanced(None).config,
        linear: fresh.linear.with_bias(Tensor::zeros([EXPERTS], &device())),
        bias: fresh.bias,
    };
    let bytes = moe_core::parameters::to_bytes(&router);
    let read = moe_core::parameters::from_bytes(Router::BiasBalanced(fresh), &bytes).unwrap();
    let route = |router: &Router| router.forward(states(&device()), &Tokens::new(TOKENS), TRAIN);
    let (before, after) = (route(&router), route(&read));
    assert_eq!(before.entries, after.entries);
    assert_eq!(values(&before.weights), values(&after.weights));
}

#[test]
fn routing_leaves_the_router_as_it_was() {
    let router = Router::BiasBalanced(bias_balanced(None));
    let before = moe_core::parameters::to_bytes(&router);
    let dispatch = router.forward(states(&device()), &Tokens::new(TOKENS), TRAIN);
    let gradients = dispatch.auxiliary().unwrap().backward();
    assert_eq!(before, moe_core::parameters::to_bytes(&router));
    let Router::BiasBalanced(router) = router else {
        unreachable!()
    };
    assert!(router.bias.val().grad(&gradients).is_none());
    assert!(router.linear.weight.val().grad(&gradients).is_some());
}
