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
/// When `cached > total`, or a window is 0.
pub fn attention_bias(real: Tensor<2, Bool>, cached: usize, window: Option<usize>) -> Tensor<5> {
    let [batch, total] = real.dims();
    assert!(cached <= total, "{cached} cached positions of {total}");
    assert_ne!(window, Some(0), "a window that hides a query from itself");
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
///
/// # Panics
///
/// When the shapes do not fit together.
pub fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let [batch, seq, _, head_dim] = x.dims();
    let half = head_dim / 2;
    assert!(
        head_dim.is_multiple_of(2),
        "heads of {head_dim} features, which is no even number"
    );
    assert_eq!(cos.dims(), [batch, seq, 1, half], "cos of another shape");
    assert_eq!(sin.dims(), [batch, seq, 1, half], "sin of another shape");
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
///
/// # Panics
///
/// When the shapes do not fit together.
pub fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, bias: Tensor<5>) -> Tensor<3> {
    let [batch, seq, heads, head_dim] = query.dims();
    let [_, kv_heads, total, _] = key.dims();
    let keys = [batch, kv_heads, total, head_dim];
    assert!(
        kv_heads > 0 && heads.is_multiple_of(kv_heads),
        "{heads} query heads that share {kv_heads} key heads"
    );
    assert_eq!(key.dims(), keys, "keys of another shape");
    assert_eq!(value.dims(), keys, "values of another shape");
    let visible = [batch, 1, 1, seq, total];
    assert_eq!(bias.dims(), visible, "a bias of another shape");
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

    use super::{attend, rotate};

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

    #[test]
    #[should_panic(expected = "5 cached positions of 4")]
    fn what_is_cached_is_there() {
        visible([[true; 4]], 5, None);
    }

    #[test]
    #[should_panic(expected = "a window that hides a query from itself")]
    fn a_query_sees_itself() {
        visible([[true; 4]], 0, Some(0));
    }

    fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::zeros(shape, &Device::flex())
    }

    fn turn(head_dim: usize, cos: [usize; 4], sin: [usize; 4]) {
        rotate(zeros([2, 5, 3, head_dim]), zeros(cos), zeros(sin));
    }

    #[test]
    #[should_panic(expected = "heads of 5 features, which is no even number")]
    fn a_head_has_two_halves() {
        turn(5, [2, 5, 1, 2], [2, 5, 1, 2]);
    }

    #[test]
    #[should_panic(expected = "cos of another shape")]
    fn every_position_has_its_cosines() {
        turn(4, [2, 4, 1, 2], [2, 5, 1, 2]);
    }

    #[test]
    #[should_panic(expected = "sin of another shape")]
    fn every_position_has_its_sines() {
        turn(4, [2, 5, 1, 2], [2, 5, 1, 1]);
    }

    fn look(query: [usize; 4], key: [usize; 4], value: [usize; 4], bias: [usize; 5]) {
        attend(zeros(query), zeros(key), zeros(value), zeros(bias));
    }

    const QUERY: [usize; 4] = [2, 3, 6, 4];
    const KEY: [usize; 4] = [2, 2, 7, 4];
    const BIAS: [usize; 5] = [2, 1, 1, 3, 7];

    #[test]
    fn shapes_that_fit_are_taken() {
        turn(4, [2, 5, 1, 2], [2, 5, 1, 2]);
        look(QUERY, KEY, KEY, BIAS);
    }

    #[test]
    #[should_panic(expected = "6 query heads that share 4 key heads")]
    fn queries_share_whole_keys() {
        look(QUERY, [2, 4, 7, 4], [2, 4, 7, 4], BIAS);
    }

    #[test]
    #[should_panic(expected = "keys of another shape")]
    fn keys_are_of_the_queries_size() {
        look(QUERY, [2, 2, 7, 8], KEY, BIAS);
    }

    #[test]
    #[should_panic(expected = "values of another shape")]
    fn there_is_a_value_for_every_key() {
        look(QUERY, KEY, [2, 2, 6, 4], BIAS);
    }

    #[test]
    #[should_panic(expected = "a bias of another shape")]
    fn every_pair_has_its_bias() {
        look(QUERY, KEY, KEY, [2, 1, 1, 7, 7]);
    }
}
