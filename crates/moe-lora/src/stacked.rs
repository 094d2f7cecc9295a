//! The active experts of a bank, their matrices side by side, as one operation.

use burn::tensor::Tensor;
use moe_core::model::FeedForward;
use moe_kernels::{Dropout, Loras, MoeFfn, Observed, moe_ffn};

use crate::{BankOutput, ExpertBank, Lora, LoraDropout, Observe, Projection};

const FFN: [Projection; 3] = [Projection::Gate, Projection::Up, Projection::Down];

/// Experts that have a LoRA on gate, up and down.
pub(crate) struct Stacked {
    loras: [Loras; 3],
    settings: MoeFfn,
}

impl Stacked {
    /// `None` when an active expert leaves out one of the three matrices, or when dropout masks were given from outside.
    ///
    /// Experts of a smaller rank are filled up with zeros, and another scaling goes into B.
    pub(crate) fn new(bank: &ExpertBank<'_>, dropout: Option<&LoraDropout>) -> Option<Self> {
        let loras = |projection| -> Option<Vec<&Lora>> {
            let experts = bank.experts.iter();
            experts.map(|(_, it)| it.lora(projection)).collect()
        };
        let [gate, up, down] = FFN.map(loras);
        let all = [gate?, up?, down?];
        let ranks = all.iter().flatten().map(|lora| lora.a.dims()[1]);
        let (rank, scaling) = (ranks.max()?, all[0].first()?.scaling);
        if scaling == 0.0 {
            return None;
        }
        let stack = |loras: Vec<&Lora>| {
            let (a, b) = loras
                .into_iter()
                .map(|it| widened(it, rank, scaling))
                .unzip();
            Loras {
                a: side_by_side(a, 1),
                b: side_by_side(b, 0),
            }
        };
        let masks = |dropout: &LoraDropout| {
            let masks = bank.experts.iter().map(|(id, _)| {
                let [gate, up, down] =
                    FFN.map(|projection| dropout.mask(bank.layer, projection, *id));
                Some([gate?, up?, down?])
            });
            masks.collect::<Option<_>>().map(|masks| Dropout { masks })
        };
        let dropout = match dropout.filter(|dropout| dropout.is_on()) {
            Some(dropout) => Some(masks(dropout)?),
            None => None,
        };
        Some(Self {
            loras: all.map(stack),
            settings: MoeFfn {
                experts: bank.experts.len(),
                rank,
                scaling: scaling as f32,
                observed: None,
                dropout,
            },
        })
    }

    pub(crate) fn forward(
        self,
        bank: &ExpertBank<'_>,
        ffn: &FeedForward,
        x: Tensor<3>,
        observe: Option<(&Observe, Tensor<2>)>,
    ) -> BankOutput {
        let Self {
            loras,
            mut settings,
        } = self;
        let [batch, seq, d_model] = x.dims();
        let x = x.reshape([batch * seq, d_model]);
        let device = x.clone().inner().device();
        let weights = bank.weights(x.clone());
        let gate = bank.gate.map(|_| weights.clone());
        let shares = match observe {
            Some((observe, shares)) => {
                settings.observed = Some(Observed {
                    expert: bank.column(observe.expert),
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
            gate: gate.map(|gate| gate.reshape([batch, seq, bank.experts.len()])),
            dispatch: None,
            routed: None,
        }
    }

    /// The mixture alone, for `x [batch, seq, d_model]` and given weights `[batch, seq, experts]`.
    pub(crate) fn mixture(self, ffn: &FeedForward, x: Tensor<3>, weights: Tensor<3>) -> Tensor<3> {
        let dims @ [batch, seq, _] = x.dims();
        let shares = Tensor::zeros([batch, seq], &x.clone().inner().device());
        let base = [&ffn.gate, &ffn.up, &ffn.down].map(|layer| layer.weight.val());
        let (x, weights) = (x.flatten(0, 1), weights.flatten(0, 1));
        let (output, _) = moe_ffn(x, weights, self.loras, base, shares, self.settings);
        output.reshape(dims)
    }
}

/// A and B of the given rank, for a product under the given scaling.
pub(crate) fn widened(lora: &Lora, rank: usize, scaling: f64) -> (Tensor<2>, Tensor<2>) {
    let (a, b) = (lora.a.val(), lora.b.val());
    let ([d_in, own], [_, d_out]) = (a.dims(), b.dims());
    let b = if lora.scaling == scaling {
        b
    } else {
        b * (lora.scaling / scaling)
    };
    if own == rank {
        return (a, b);
    }
    let zeros = |shape: [usize; 2]| Tensor::zeros(shape, &a.device());
    let (right, below) = (zeros([d_in, rank - own]), zeros([rank - own, d_out]));
    (
        Tensor::cat(vec![a.clone(), right], 1),
        Tensor::cat(vec![b, below], 0),
    )
}

fn side_by_side(mut matrices: Vec<Tensor<2>>, axis: usize) -> Tensor<2> {
    match matrices.len() {
        1 => matrices.remove(0),
        _ => Tensor::cat(matrices, axis),
    }
}
