//! The active experts of a bank, their matrices side by side, as one operation.

use burn::tensor::Tensor;
use moe_core::model::FeedForward;
use moe_kernels::{Dropout, Loras, MoeFfn, Observed, moe_ffn};

use crate::{BankOutput, ExpertBank, Lora, LoraDropout, Observe, Projection, Routing};

const FFN: [Projection; 3] = [Projection::Gate, Projection::Up, Projection::Down];

/// Experts that have a LoRA of one rank and scaling on gate, up and down.
pub(crate) struct Stacked {
    loras: [Loras; 3],
    settings: MoeFfn,
}

impl Stacked {
    /// `None` when the active experts are not alike, or when dropout masks were given from outside.
    pub(crate) fn new(
        bank: &ExpertBank,
        routing: &Routing,
        dropout: Option<&LoraDropout>,
    ) -> Option<Self> {
        let experts = routing.experts();
        let first = bank.experts[*experts.first()?].lora(FFN[0])?;
        let ([_, rank], scaling) = (first.a.dims(), first.scaling);
        let stack = |projection| {
            let loras: Option<Vec<&Lora>> = experts
                .iter()
                .map(|&expert| bank.experts[expert].lora(projection))
                .collect();
            let loras = loras?;
            let alike = |lora: &&Lora| lora.a.dims()[1] == rank && lora.scaling == scaling;
            loras.iter().all(alike).then(|| Loras {
                a: side_by_side(loras.iter().map(|lora| lora.a.val()).collect(), 1),
                b: side_by_side(loras.iter().map(|lora| lora.b.val()).collect(), 0),
            })
        };
        let masks = |dropout: &LoraDropout| {
            let masks = experts.iter().map(|&expert| {
                let [gate, up, down] =
                    FFN.map(|projection| dropout.mask(bank.layer, projection, expert));
                Some([gate?, up?, down?])
            });
            masks.collect::<Option<_>>().map(|masks| Dropout { masks })
        };
        let dropout = match dropout.filter(|dropout| dropout.is_on()) {
            Some(dropout) => Some(masks(dropout)?),
            None => None,
        };
        let [gate, up, down] = FFN.map(stack);
        Some(Self {
            loras: [gate?, up?, down?],
            settings: MoeFfn {
                experts: experts.len(),
                rank,
                scaling: scaling as f32,
                observed: None,
                dropout,
            },
        })
    }

    pub(crate) fn forward(
        self,
        bank: &ExpertBank,
        ffn: &FeedForward,
        x: Tensor<3>,
        routing: &Routing,
        observe: Option<(&Observe, Tensor<2>)>,
    ) -> BankOutput {
        let Self {
            loras,
            mut settings,
        } = self;
        let [batch, seq, d_model] = x.dims();
        let experts = routing.experts();
        let x = x.reshape([batch * seq, d_model]);
        let device = ffn.gate.weight.val().device();
        let weights = routing.weights(bank, x.clone());
        let gate = match routing {
            Routing::Gated { .. } => Some(weights.clone()),
            Routing::Single(_) | Routing::Uniform { .. } => None,
        };
        let shares = match observe {
            Some((observe, shares)) => {
                let place = experts.iter().position(|&active| active == observe.expert);
                settings.observed = Some(Observed {
                    expert: place.expect("the observed expert is active"),
                    detached: observe.detach_upstream,
                });
                shares
            }
            None => Tensor::zeros([batch, seq], &device),
        };
        let base = [&ffn.gate, &ffn.up, &ffn.down].map(|layer| layer.weight.val());
        let (output, pooled) = moe_ffn(x, weights, loras, base, shares, settings);
        BankOutput {
            output: output.reshape([batch, seq, d_model]),
            pooled,
            gate: gate.map(|gate| gate.reshape([batch, seq, experts.len()])),
        }
    }
}

impl Stacked {
    /// The mixture alone, for `x [batch, seq, d_model]` and given weights `[batch, seq, experts]`.
    pub(crate) fn mixture(self, ffn: &FeedForward, x: Tensor<3>, weights: Tensor<3>) -> Tensor<3> {
        let dims @ [batch, seq, _] = x.dims();
        let shares = Tensor::zeros([batch, seq], &ffn.gate.weight.val().device());
        let base = [&ffn.gate, &ffn.up, &ffn.down].map(|layer| layer.weight.val());
        let (x, weights) = (x.flatten(0, 1), weights.flatten(0, 1));
        let (output, _) = moe_ffn(x, weights, self.loras, base, shares, self.settings);
        output.reshape(dims)
    }
}

fn side_by_side(mut matrices: Vec<Tensor<2>>, axis: usize) -> Tensor<2> {
    match matrices.len() {
        1 => matrices.remove(0),
        _ => Tensor::cat(matrices, axis),
    }
}
