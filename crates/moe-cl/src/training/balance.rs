//! The routers of a sparse base: their losses, added to the task's, and where they send the tokens.

use std::collections::BTreeMap;

use moe_core::model::Routed;
use moe_lora::router::{
    Balance, Dispatch, LossKind, RouterLoss, Tokens, Variance, balance_loss, importance_loss,
    z_loss,
};

use crate::{config::BalanceConfig, data::Batch, events::LayerBalance, methods::Loss};

/// `loss` with those that `[balance]` asks of the routers, each the mean over the sparse layers. The tokens of a micro-batch are balanced
/// among themselves, and count as its `share` of the step.
pub(super) fn with_routers(config: &BalanceConfig, loss: Loss, batch: &Batch, share: f64) -> Loss {
    if config.asks().is_none() || loss.routed.is_empty() {
        return loss;
    }
    let tokens = batch.texts.routed_tokens();
    let share = share / loss.routed.len() as f64;
    let terms = loss.routed.iter();
    let terms: Vec<RouterLoss> = terms
        .flat_map(|(_, routed)| losses(config, routed, &tokens))
        .collect();
    loss.with_losses_of_routers(terms, share)
}

/// Where the layers of a sparse base sent their tokens, added up over batches.
#[derive(Default)]
pub(super) struct Balances(BTreeMap<usize, Balance>);

impl Balances {
    /// Adds what was chosen for a batch: by the method's own router in the layers that have one, else by that of a sparse base.
    pub(super) fn add(
        &mut self,
        dispatched: &[(usize, Dispatch)],
        routed: &[(usize, Routed)],
        batch: &Batch,
    ) {
        if dispatched.is_empty() && routed.is_empty() {
            return;
        }
        let tokens = batch.texts.routed_tokens();
        let is_own = |layer| dispatched.iter().any(|(own, _)| own == layer);
        let of_base = routed.iter().filter(|(layer, _)| !is_own(layer));
        let of_base = of_base.map(|(layer, it)| (*layer, Dispatch::of_routed(it, &tokens)));
        for (layer, dispatch) in dispatched.iter().cloned().chain(of_base) {
            let fresh = || Balance::new(dispatch.experts);
            let balance = self.0.entry(layer).or_insert_with(fresh);
            balance.add(&dispatch, &tokens);
        }
    }

    /// The figures of each layer, lowest first.
    pub(super) fn figures(&self) -> Vec<LayerBalance> {
        let layers = self.0.iter();
        layers
            .map(|(&layer, balance)| LayerBalance {
                layer,
                figures: balance.figures(),
            })
            .collect()
    }
}

/// The losses of one router.
fn losses(config: &BalanceConfig, routed: &Routed, tokens: &Tokens) -> Vec<RouterLoss> {
    let mut losses = Vec::new();
    if let Some(kind) = config.loss.kind() {
        let probs = routed.probs.clone();
        let value = match kind {
            LossKind::Importance => importance_loss(probs, tokens, Variance::Biased),
            _ => {
                let chosen = Dispatch::of_routed(routed, tokens).wanted;
                balance_loss(probs, &chosen, tokens)
            }
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

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, activation::softmax};

    use super::*;
    use crate::config::BalanceLoss;

    /// Of tokens with these logits over three experts, each at its best two.
    fn routed(logits: &[[f32; 3]], experts: &[u32]) -> Routed {
        let device = Device::flex();
        let rows: Vec<f32> = logits.concat();
        let logits = Tensor::<1>::from_floats(&rows[..], &device).reshape([logits.len(), 3]);
        let probs = softmax(logits.clone(), 1);
        Routed {
            weights: Tensor::ones([experts.len() / 2, 2], &device) / 2.0,
            experts: experts.to_vec(),
            logits,
            probs,
        }
    }

    #[test]
    fn padding_counts_in_no_loss_and_no_figure() {
        let rows = [[1.0, 0.5, 0.0], [2.0, 0.0, 1.0], [9.0, -9.0, 9.0]];
        let experts = [0, 1, 0, 2, 0, 2];
        let padded = routed(&rows, &experts);
        let alone = routed(&rows[..2], &experts[..4]);
        let real = Tokens::new(3).with_real(vec![true, true, false]);
        for loss in [BalanceLoss::Balance, BalanceLoss::Importance] {
            let config = BalanceConfig {
                loss,
                z_loss: 0.001,
                ..BalanceConfig::default()
            };
            let with = losses(&config, &padded, &real);
            let without = losses(&config, &alone, &Tokens::new(2));
            assert_eq!(with.len(), 2);
            for (with, without) in with.into_iter().zip(without) {
                let [with, without] = [with, without].map(|it| it.value.into_scalar::<f32>());
                assert!((with - without).abs() < 1e-6, "{with} {without}");
            }
        }
        let figures = |routed, tokens: &Tokens| {
            let dispatch = Dispatch::of_routed(routed, tokens);
            Balance::of(&dispatch, tokens).figures()
        };
        let padded = figures(&padded, &real);
        assert_eq!(padded.load, [2, 1, 1]);
        assert_eq!(padded.tokens, 2);
    }
}
