//! Attention out of Burn's operations: for other back ends, and for queries that continue a cache.

use burn::tensor::{Bool, Int, Tensor, activation};

/// Added to the score of a hidden key. Finite, so that a query that sees no key at all (a padding
/// position on the left) gets uniform weights instead of NaN.
const HIDDEN: f32 = -1e30;

/// What is added to the attention scores: 0 where a query may look at a key, −10³⁰ where not.
///
/// `real [batch, total]` marks real tokens (true) among the `cached` earlier positions and the
/// `total − cached` new ones; the result is `[batch, 1, 1, seq, total]` with
/// `seq = total − cached`. Query `i` sees key `j` when `j ≤ i`, `i − j < window`, and `j` is real.
///
/// # Panics
///
/// When `cached > total`.
pub fn attention_bias(real: Tensor<2, Bool>, cached: usize, window: Option<usize>) -> Tensor<5> {
    let [batch, total] = real.dims();
    let seq = total - cached;
    let device = real.device();
    let query = Tensor::<1, Int>::arange(cached as i64..total as i64, &device).reshape([seq, 1]);
    let key = Tensor::<1, Int>::arange(0..total as i64, &device).reshape([1, total]);
    let distance: Tensor<2, Int> = query - key;

    let mut hidden = distance.clone().lower_elem(0);
    if let Some(window) = window {
        hidden = hidden.bool_or(distance.greater_equal_elem(window as i64));
    }
    let hidden = hidden
        .reshape([1, seq, total])
        .expand([batch, seq, total])
        .bool_or(
            real.bool_not()
                .reshape([batch, 1, total])
                .expand([batch, seq, total]),
        );
    Tensor::<3>::zeros([batch, seq, total], &device)
        .mask_fill(hidden, HIDDEN)
        .reshape([batch, 1, 1, seq, total])
}

/// Rotates `x [batch, seq, heads, head_dim]` by tables `[batch, seq, 1, head_dim / 2]`: with the
/// halves `x = (x₁, x₂)`, `(x₁ cos − x₂ sin, x₂ cos + x₁ sin)`.
pub fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let [.., half] = cos.dims();
    let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    // Whole halves, no swapped copy of x: ten times as fast on the CPU.
    Tensor::cat(
        vec![
            first.clone() * cos.clone() - second.clone() * sin.clone(),
            second * cos + first * sin,
        ],
        3,
    )
}

/// `softmax(QKᵀ/√head_dim + bias) V` as `[batch, seq, heads · head_dim]`.
///
/// `query [batch, seq, heads, head_dim]`, `key` and `value [batch, kv_heads, total, head_dim]`, queries and keys rotated;
/// `bias [batch, 1, 1, seq, total]` from [`attention_bias`].
pub fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, bias: Tensor<5>) -> Tensor<3> {
    let [batch, seq, heads, head_dim] = query.dims();
    let [_, kv_heads, total, _] = key.dims();
    let group = heads / kv_heads;
    let query = query * (head_dim as f64).powf(-0.5);

    // The queries that share a key are folded into the rows of one product, so that keys and
    // values are never repeated: [batch, kv_heads, group · seq, head_dim].
    let query = query
        .reshape([batch, seq, kv_heads, group, head_dim])
        .permute([0, 2, 3, 1, 4])
        .reshape([batch, kv_heads, group * seq, head_dim]);
    let scores = query
        .matmul(key.swap_dims(2, 3))
        .reshape([batch, kv_heads, group, seq, total])
        + bias;
    let weights = activation::softmax(scores, 4).reshape([batch, kv_heads, group * seq, total]);
    weights
        .matmul(value)
        .reshape([batch, kv_heads, group, seq, head_dim])
        .permute([0, 3, 1, 2, 4])
        .reshape([batch, seq, heads * head_dim])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, Device, Tensor};

    fn visible(real: [[bool; 4]; 1], cached: usize, window: Option<usize>) -> Vec<bool> {
        let real = Tensor::<2, Bool>::from_data(real, &Device::flex());
        super::attention_bias(real, cached, window)
            .into_data()
            .iter::<f32>()
            .map(|bias| bias == 0.0)
            .collect()
    }

    #[test]
    fn a_query_sees_itself_and_earlier_real_tokens() {
        let (o, x) = (true, false);
        assert_eq!(
            visible([[false, true, true, true]], 0, None),
            [x, x, x, x, x, o, x, x, x, o, o, x, x, o, o, o]
        );
    }

    #[test]
    fn a_window_of_two_shows_the_token_and_the_one_before() {
        assert_eq!(
            visible([[true; 4]], 2, Some(2)),
            [false, true, true, false, false, false, true, true]
        );
    }
}
