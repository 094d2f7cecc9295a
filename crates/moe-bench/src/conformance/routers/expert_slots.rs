//! Routers with slots: `combine [.., tokens, experts, capacity]`.

use anyhow::{Context, bail};
use moe_lora::router::{
    Attention, Capacity, Dispatch, ExpertChoice, ExpertChoiceConfig, FirstChoices, GShard,
    GShardConfig, LossKind, Priority, SecondDraw, SoftmaxTopK, SoftmaxTopKConfig, StMoe,
    StMoeConfig, Switch, SwitchConfig, Tokens, TopKWeights,
};

use super::super::case::Case;
use super::super::check::Check;
use super::super::tensors::Tensors;
use super::probe::{Probe, close, loss, projected};

/// How the case's balance loss relates to ours, and whether it has a z-loss.
struct Losses {
    balance: f64,
    z: bool,
}

/// Compares slots, weights, losses and gradients.
pub fn compare(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let probe = Probe::read(tensors, "router_weight")?;
    let logits = probe.logits(check, case, tensors)?;
    let shape = tensors.shape("combine")?;
    let capacity = *shape.last().context("`combine` has no axes")?;
    let groups = if shape.len() == 4 { shape[0] } else { 1 };
    let tokens = Tokens::new(logits.dims()[0]).in_groups(groups);
    let (dispatch, losses) = route(case, tensors, &probe, logits, &tokens, capacity)?;

    if tensors.has("probs") {
        let probs = dispatch.scores.as_ref().context("no probabilities")?;
        close(check, tensors, "probs", probs, tolerance)?;
    }
    slots(check, tensors, &dispatch, capacity, tolerance)?;
    counts(check, case, tensors, &dispatch)?;
    if losses.balance != 0.0 {
        let kind = (LossKind::Balance, losses.balance);
        loss(check, tensors, "loss_balance", &dispatch, kind, tolerance)?;
    } else {
        let want = tensors.f64("loss_balance")?[0];
        check.scalar("loss_balance", 0.0, want, tolerance);
    }
    if losses.z {
        loss(
            check,
            tensors,
            "loss_z",
            &dispatch,
            (LossKind::Z, 1.0),
            tolerance,
        )?;
    }
    let total = projected(tensors, &dispatch)?;
    probe.backward(
        check,
        case,
        tensors,
        total,
        ["grad_x", "grad_router_weight"],
    )?;
    Ok(())
}

/// The case's own router, told by its settings.
fn route(
    case: &Case,
    tensors: &Tensors,
    probe: &Probe,
    logits: burn::tensor::Tensor<2>,
    tokens: &Tokens,
    capacity: usize,
) -> anyhow::Result<(Dispatch, Losses)> {
    let config = &case.json["config"];
    let [_, experts] = logits.dims();
    let linear = probe.linear.clone();
    let places = Capacity::Places(capacity);
    let share = || -> anyhow::Result<Capacity> {
        Ok(Capacity::Factor {
            factor: case.setting("capacity_factor")?,
            min: case.setting("min_capacity")? as usize,
        })
    };
    let what = case.json["what"].as_str().unwrap_or_default();
    if config["top_n"].is_number() {
        let config = StMoeConfig {
            top_n: case.setting("top_n")? as usize,
            threshold: case.setting("threshold")?,
            balance: 0.5,
            balance_over: FirstChoices::Kept,
            z: 0.1,
            ..StMoeConfig::default()
        };
        let router = StMoe { config, linear };
        let dispatch = router.route(logits, tokens, places, &tensors.f32("uniform")?);
        return Ok((
            dispatch,
            Losses {
                balance: 1.0,
                z: true,
            },
        ));
    }
    if tensors.has("priority") {
        let config = SwitchConfig {
            priority: Priority::Random,
            balance: 0.5,
            ..SwitchConfig::default()
        };
        let router = Switch { config, linear };
        let lots = tensors.f32("priority")?;
        let dispatch = router.route(logits, tokens, share()?, Some(&lots));
        return Ok((
            dispatch,
            Losses {
                balance: 1.0,
                z: false,
            },
        ));
    }
    if let Some(policy) = config["drop_policy"].as_str() {
        let config = SoftmaxTopKConfig {
            top_k: case.setting("k")? as usize,
            weights: TopKWeights::Kept,
            capacity: share()?,
            priority: match policy {
                "position" => Priority::Position,
                "probs" => Priority::Weight,
                other => bail!("unknown drop_policy `{other}`"),
            },
            balance: 0.5,
            z: 0.0,
        };
        let dispatch = SoftmaxTopK { config, linear }.route(logits, tokens, None);
        return Ok((
            dispatch,
            Losses {
                balance: 1.0,
                z: false,
            },
        ));
    }
    if tensors.has("dispatch_mask") {
        return Ok(flaxformer(case, what, probe, logits, tokens, places));
    }
    let noise = match tensors.has("gumbel_noise") {
        true => Some(tensors.f32("gumbel_noise")?),
        false => None,
    };
    // fairscale's is the paper's, 1/E² of ours.
    let balance = match config["capacity"].is_string() {
        true => 1.0 / (experts * experts) as f64,
        false => 1.0,
    };
    let config = GShardConfig {
        capacity: match () {
            () if config["drop_tokens"].as_bool() == Some(false) => Capacity::Unlimited,
            () if config["capacity_factor"].is_number() => share()?,
            () => places,
        },
        weights: TopKWeights::Kept,
        balance: 0.5 * balance,
        ..GShardConfig::default()
    };
    let second = noise.as_deref().map_or(SecondDraw::None, SecondDraw::Noise);
    let dispatch = GShard { config, linear }.route(logits, tokens, second);
    Ok((dispatch, Losses { balance, z: false }))
}

/// Tokens choose experts, or experts tokens; weights are the probabilities themselves.
fn flaxformer(
    case: &Case,
    what: &str,
    probe: &Probe,
    logits: burn::tensor::Tensor<2>,
    tokens: &Tokens,
    capacity: Capacity,
) -> (Dispatch, Losses) {
    let linear = probe.linear.clone();
    if case.notes().contains("each expert takes") {
        let config = ExpertChoiceConfig { capacity, z: 0.1 };
        let [d_model, experts] = linear.weight.val().dims();
        let attention = Attention::Bidirectional;
        let router = ExpertChoice::new(config, attention, d_model, experts, 0, &probe.device);
        let mut router = router.expect("an encoder may have it");
        router.linear = linear;
        let losses = Losses {
            balance: 0.0,
            z: true,
        };
        return (router.route(logits, tokens), losses);
    }
    let after = what.split("top-").nth(1).unwrap_or_default();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let top_k: usize = digits.parse().unwrap_or(1);
    // Theirs is k where ours is 1.
    let balance = top_k as f64;
    let config = SoftmaxTopKConfig {
        top_k,
        weights: TopKWeights::Raw,
        capacity,
        priority: match what.contains("batch-prioritised") {
            true => Priority::FirstChoice,
            false => Priority::Choice,
        },
        balance: 0.5 * balance,
        z: 0.1,
    };
    let dispatch = SoftmaxTopK { config, linear }.route(logits, tokens, None);
    (dispatch, Losses { balance, z: true })
}

/// Who sits where, and with which weight.
fn slots(
    check: &mut Check,
    tensors: &Tensors,
    dispatch: &Dispatch,
    capacity: usize,
    tolerance: super::super::check::Tolerance,
) -> anyhow::Result<()> {
    let mut mask = vec![0; dispatch.tokens * dispatch.experts * capacity];
    let mut combine = vec![0.0; mask.len()];
    let weights = super::super::device::values(dispatch.weights.clone());
    for (entry, weight) in dispatch.entries.iter().zip(weights) {
        let slot = entry.slot as usize;
        check.holds(slot < capacity, || format!("slot {slot} of {capacity}"));
        let place = entry.token as usize * dispatch.experts + entry.expert as usize;
        if slot < capacity {
            mask[place * capacity + slot] = 1;
            combine[place * capacity + slot] = weight;
        }
    }
    let name = match tensors.has("dispatch_mask") {
        true => "dispatch_mask",
        false => "dispatch",
    };
    check.exact(name, &mask, &tensors.i64(name)?);
    check.close("combine", &combine, &tensors.f32("combine")?, tolerance);
    Ok(())
}

/// How many chose, stayed and were dropped, where the case says so.
fn counts(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    dispatch: &Dispatch,
) -> anyhow::Result<()> {
    let before = "expert_counts_before_drop";
    if tensors.has(before) {
        let wanted: Vec<i64> = dispatch.wanted.iter().map(|&count| count.into()).collect();
        check.exact(before, &wanted, &tensors.i64(before)?);
    }
    let kept = "kept_assignments_per_token";
    let mut per_token = vec![0; dispatch.tokens];
    dispatch
        .entries
        .iter()
        .for_each(|entry| per_token[entry.token as usize] += 1);
    if tensors.has(kept) {
        check.exact(kept, &per_token, &tensors.i64(kept)?);
    }
    if let Some(want) = case.json["tokens_fully_dropped"].as_u64() {
        let dropped = per_token.iter().filter(|&&kept| kept == 0).count() as u64;
        check.exact("tokens_fully_dropped", &[dropped], &[want]);
    }
    Ok(())
}
