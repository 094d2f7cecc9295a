//! The losses of a sparse base's routers, added to the task's.

use moe_core::model::Routed;
use moe_lora::router::{
    Dispatch, LossKind, RouterLoss, Tokens, Variance, balance_loss, cv_squared, z_loss,
};

use crate::{config::BalanceConfig, data::Batch, methods::Loss};

impl Batch {
    /// Its tokens as routers see them, `batch · seq`, of which padding goes nowhere.
    pub fn routed_tokens(&self) -> Tokens {
        let [rows, seq] = self.texts.tokens.dims();
        let row = |&length: &usize| (0..seq).map(move |column| column < length);
        let real = self.lengths.iter().flat_map(row).collect();
        Tokens::new(rows * seq).with_real(real)
    }
}

/// `loss` with those that `[balance]` asks of the routers, each the mean over the sparse layers. The tokens of a micro-batch are balanced
/// among themselves, and count as its `share` of the step.
pub(super) fn with_routers(
    config: &BalanceConfig,
    mut loss: Loss,
    batch: &Batch,
    share: f64,
) -> Loss {
    if config.asks().is_none() || loss.routed.is_empty() {
        return loss;
    }
    let tokens = batch.routed_tokens();
    let share = share / loss.routed.len() as f64;
    let terms = loss.routed.iter();
    let terms: Vec<RouterLoss> = terms
        .flat_map(|(_, routed)| losses(config, routed, &tokens))
        .collect();
    for term in terms {
        let (name, value) = (figure(term.kind), term.value.clone().detach() * share);
        loss = loss.plus(term.value * (term.coefficient * share));
        match loss.figures.iter_mut().find(|(called, _)| *called == name) {
            Some((_, sum)) => *sum = sum.clone() + value,
            None => loss.figures.push((name, value)),
        }
    }
    loss
}

/// The losses of one router.
fn losses(config: &BalanceConfig, routed: &Routed, tokens: &Tokens) -> Vec<RouterLoss> {
    let mut losses = Vec::new();
    if let Some(kind) = config.loss.kind() {
        let dispatch = Dispatch::of_routed(routed, tokens);
        let value = match kind {
            LossKind::Importance => {
                let importance = dispatch.gates().sum_dim(0).squeeze_dim(0); // [experts]
                cv_squared(importance, Variance::Biased)
            }
            _ => balance_loss(routed.probs.clone(), &dispatch.wanted, tokens),
        };
        losses.push(RouterLoss {
            kind,
            value,
            coefficient: config.weight,
        });
    }
    if config.z_loss > 0.0 {
        losses.push(RouterLoss {
            kind: LossKind::Z,
            value: z_loss(routed.logits.clone(), tokens),
            coefficient: config.z_loss,
        });
    }
    losses
}

/// Its name among the figures of a step.
fn figure(kind: LossKind) -> &'static str {
    match kind {
        LossKind::Balance => "router/balance",
        LossKind::Importance => "router/importance",
        LossKind::Load => "router/load",
        LossKind::Z => "router/z",
    }
}
