//! What the tensors of a feed-forward network must agree on.

use burn::tensor::Tensor;

use super::{Loras, MoeFfn};
use crate::Matrix;

/// # Panics
///
/// When the shapes do not fit together, as [`moe_ffn()`](super::moe_ffn()) says.
pub(super) fn assert_fit(
    x: &Tensor<2>,
    weights: &Tensor<2>,
    [gate, up, down]: &[Loras; 3],
    [base_gate, base_up, base_down]: &[Matrix; 3],
    shares: &Tensor<2>,
    settings: &MoeFfn,
) {
    let MoeFfn { experts, rank, .. } = *settings;
    assert!(experts > 0, "a mixture of no experts");
    assert!(rank > 0, "LoRAs of rank 0");
    let ([tokens, d_model], [batch, seq]) = (x.dims(), shares.dims());
    assert_eq!(tokens, batch * seq, "tokens of another batch");
    assert_eq!(
        weights.dims(),
        [tokens, experts],
        "weights of other tokens or experts"
    );

    let [_, d_ff] = base_gate.dims();
    let (into, out_of) = ([d_model, d_ff], [d_ff, d_model]);
    assert_eq!(base_gate.dims(), into, "a base's gate of another shape");
    assert_eq!(base_up.dims(), into, "a base's up of another shape");
    assert_eq!(base_down.dims(), out_of, "a base's down of another shape");

    let codes = experts * rank;
    for (loras, [d_in, d_out], projection) in [
        (gate, into, "gate"),
        (up, into, "up"),
        (down, out_of, "down"),
    ] {
        let (a, b) = (loras.a.dims(), loras.b.dims());
        assert_eq!(a, [d_in, codes], "A of other experts on {projection}");
        assert_eq!(b, [codes, d_out], "B of other experts on {projection}");
    }

    if let Some(seen) = settings.observed {
        assert!(
            seen.expert < experts,
            "expert {} of {experts} is observed",
            seen.expert
        );
    }
    if let Some(dropout) = &settings.dropout {
        assert_eq!(
            dropout.masks.len(),
            experts,
            "dropout masks of other experts"
        );
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use crate::dropout::Mask;
    use crate::{Dropout, Loras, MoeFfn, Observed, moe_ffn};

    const D_MODEL: usize = 4;
    const D_FF: usize = 6;

    struct Case {
        x: [usize; 2],
        weights: [usize; 2],
        /// A and B on gate, up and down.
        loras: [[[usize; 2]; 2]; 3],
        base: [[usize; 2]; 3],
        shares: [usize; 2],
        settings: MoeFfn,
    }

    /// Shapes that fit, but for the change.
    fn mix(change: impl FnOnce(&mut Case)) -> (Tensor<2>, Option<Tensor<2>>) {
        let (experts, rank) = (2, 3);
        let codes = experts * rank;
        let sides = [[D_MODEL, D_FF], [D_MODEL, D_FF], [D_FF, D_MODEL]];
        let mut case = Case {
            x: [10, D_MODEL],
            weights: [10, experts],
            loras: sides.map(|[d_in, d_out]| [[d_in, codes], [codes, d_out]]),
            base: sides,
            shares: [2, 5],
            settings: MoeFfn {
                experts,
                rank,
                scaling: 1.0,
                observed: Some(Observed {
                    expert: 1,
                    detached: false,
                }),
                dropout: Some(Dropout {
                    masks: vec![[1, 2, 3].map(|key| Mask::new(key, 0.5)); experts],
                }),
            },
        };
        change(&mut case);
        let loras = case.loras.map(|[a, b]| Loras {
            a: zeros(a),
            b: zeros(b),
        });
        moe_ffn(
            zeros(case.x),
            zeros(case.weights),
            loras,
            case.base.map(zeros),
            zeros(case.shares),
            case.settings,
        )
    }

    fn zeros(shape: [usize; 2]) -> Tensor<2> {
        Tensor::zeros(shape, &Device::flex())
    }

    #[test]
    fn shapes_that_fit_are_taken() {
        let (output, pooled) = mix(|_| ());
        assert_eq!(output.dims(), [10, D_MODEL]);
        assert_eq!(pooled.map(|pooled| pooled.dims()), Some([2, D_MODEL]));
    }

    #[test]
    #[should_panic(expected = "a mixture of no experts")]
    fn there_is_an_expert() {
        mix(|case| case.settings.experts = 0);
    }

    #[test]
    #[should_panic(expected = "LoRAs of rank 0")]
    fn a_lora_has_a_rank() {
        mix(|case| case.settings.rank = 0);
    }

    #[test]
    #[should_panic(expected = "tokens of another batch")]
    fn every_token_has_its_share() {
        mix(|case| case.shares = [2, 4]);
    }

    #[test]
    #[should_panic(expected = "weights of other tokens or experts")]
    fn every_expert_has_its_weight() {
        mix(|case| case.weights[1] = 3);
    }

    #[test]
    #[should_panic(expected = "weights of other tokens or experts")]
    fn every_token_has_its_weights() {
        mix(|case| case.weights[0] = 9);
    }

    #[test]
    #[should_panic(expected = "a base's gate of another shape")]
    fn the_bases_gate_reads_the_tokens() {
        mix(|case| case.base[0] = [D_MODEL + 1, D_FF]);
    }

    #[test]
    #[should_panic(expected = "a base's up of another shape")]
    fn the_bases_up_is_as_wide_as_its_gate() {
        mix(|case| case.base[1] = [D_MODEL, D_FF + 1]);
    }

    #[test]
    #[should_panic(expected = "a base's down of another shape")]
    fn the_bases_down_is_no_transpose() {
        mix(|case| case.base[2] = [D_MODEL, D_FF]);
    }

    #[test]
    #[should_panic(expected = "A of other experts on gate")]
    fn gates_a_has_the_codes_of_all_experts() {
        mix(|case| case.loras[0][0] = [D_MODEL, 3]);
    }

    #[test]
    #[should_panic(expected = "B of other experts on gate")]
    fn gates_b_has_the_codes_of_all_experts() {
        mix(|case| case.loras[0][1] = [3, D_FF]);
    }

    #[test]
    #[should_panic(expected = "A of other experts on up")]
    fn ups_a_reads_the_tokens() {
        mix(|case| case.loras[1][0] = [D_FF, 6]);
    }

    #[test]
    #[should_panic(expected = "B of other experts on up")]
    fn ups_b_writes_the_hidden_layer() {
        mix(|case| case.loras[1][1] = [6, D_MODEL]);
    }

    #[test]
    #[should_panic(expected = "A of other experts on down")]
    fn downs_a_reads_the_hidden_layer() {
        mix(|case| case.loras[2][0] = [D_MODEL, 6]);
    }

    #[test]
    #[should_panic(expected = "B of other experts on down")]
    fn downs_b_writes_the_tokens() {
        mix(|case| case.loras[2][1] = [6, D_FF]);
    }

    #[test]
    #[should_panic(expected = "expert 2 of 2 is observed")]
    fn the_observed_expert_is_active() {
        mix(|case| {
            case.settings.observed = Some(Observed {
                expert: 2,
                detached: true,
            });
        });
    }

    #[test]
    #[should_panic(expected = "dropout masks of other experts")]
    fn every_expert_has_its_masks() {
        mix(|case| {
            case.settings.dropout.as_mut().unwrap().masks.pop();
        });
    }
}
