//! What the tensors of a sparse mixture must agree on.

use burn::tensor::Tensor;

use super::Entries;

/// # Panics
///
/// When the shapes do not fit together, as [`sparse_ffn()`](super::sparse_ffn()) says.
pub(super) fn assert_fit(
    x: &Tensor<2>,
    [gate, up, down]: [&Tensor<3>; 3],
    Entries { token, expert }: &Entries,
    weights: &Tensor<1>,
) {
    let ([tokens, d_model], [experts, _, d_ff]) = (x.dims(), gate.dims());
    assert!(d_model > 0 && d_ff > 0, "experts of no width");
    let into = [experts, d_model, d_ff];
    assert_eq!(gate.dims(), into, "gates of another shape");
    assert_eq!(up.dims(), into, "ups of another shape");
    assert_eq!(
        down.dims(),
        [experts, d_ff, d_model],
        "downs of another shape"
    );
    assert_eq!(
        token.len(),
        expert.len(),
        "entries without a token or an expert"
    );
    assert_eq!(weights.dims(), [token.len()], "weights of other entries");
    assert!(token.is_sorted(), "entries that are not sorted by token");
    if let Some(&last) = token.last() {
        assert!((last as usize) < tokens, "token {last} of {tokens}");
    }
    if let Some(&last) = expert.iter().max() {
        assert!((last as usize) < experts, "expert {last} of {experts}");
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use crate::{Entries, sparse_ffn};

    struct Case {
        gate: [usize; 3],
        up: [usize; 3],
        down: [usize; 3],
        token: Vec<u32>,
        expert: Vec<u32>,
        weights: usize,
    }

    /// Shapes that fit, but for the change.
    fn mix(change: impl FnOnce(&mut Case)) -> [usize; 2] {
        let mut case = Case {
            gate: [2, 4, 6],
            up: [2, 4, 6],
            down: [2, 6, 4],
            token: vec![0, 0, 2],
            expert: vec![1, 0, 1],
            weights: 3,
        };
        change(&mut case);
        let device = Device::flex();
        let entries = Entries {
            token: case.token,
            expert: case.expert,
        };
        sparse_ffn(
            Tensor::zeros([3, 4], &device),
            Tensor::zeros(case.gate, &device),
            Tensor::zeros(case.up, &device),
            Tensor::zeros(case.down, &device),
            &entries,
            Tensor::zeros([case.weights], &device),
        )
        .dims()
    }

    #[test]
    fn shapes_that_fit_are_taken() {
        assert_eq!(mix(|_| ()), [3, 4]);
    }

    #[test]
    #[should_panic(expected = "experts of no width")]
    fn experts_have_a_width() {
        mix(|case| case.gate[2] = 0);
    }

    #[test]
    #[should_panic(expected = "gates of another shape")]
    fn gates_read_the_tokens() {
        mix(|case| case.gate[1] = 5);
    }

    #[test]
    #[should_panic(expected = "ups of another shape")]
    fn ups_are_of_as_many_experts() {
        mix(|case| case.up[0] = 3);
    }

    #[test]
    #[should_panic(expected = "downs of another shape")]
    fn downs_are_no_transposes() {
        mix(|case| case.down = [2, 4, 6]);
    }

    #[test]
    #[should_panic(expected = "entries without a token or an expert")]
    fn an_entry_has_an_expert() {
        mix(|case| case.expert.truncate(2));
    }

    #[test]
    #[should_panic(expected = "weights of other entries")]
    fn an_entry_has_a_weight() {
        mix(|case| case.weights = 2);
    }

    #[test]
    #[should_panic(expected = "entries that are not sorted by token")]
    fn entries_are_sorted_by_token() {
        mix(|case| case.token = vec![0, 2, 0]);
    }

    #[test]
    #[should_panic(expected = "token 3 of 3")]
    fn an_entrys_token_is_there() {
        mix(|case| case.token[2] = 3);
    }

    #[test]
    #[should_panic(expected = "expert 2 of 2")]
    fn an_entrys_expert_is_there() {
        mix(|case| case.expert[1] = 2);
    }
}
