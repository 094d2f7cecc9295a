use burn::tensor::{Bool, Int, Tensor};

/// Added to the score of a hidden key. Finite, so that a query that sees no key at all (a padding
/// position on the left) gets uniform weights instead of NaN.
const HIDDEN: f32 = -1e30;

/// What is added to the attention scores: 0 where a query may look at a key, −10³⁰ where not.
///
/// `real [batch, total]` marks real tokens (true) among the `cached` earlier positions and the
/// `total − cached` new ones; the result is `[batch, 1, 1, seq, total]` with
/// `seq = total − cached`. Query `i` sees key `j` when `j ≤ i`, `i − j < sliding_window`, and `j`
/// is real.
///
/// # Panics
///
/// When `cached > total`.
pub fn attention_bias(
    real: Tensor<2, Bool>,
    cached: usize,
    sliding_window: Option<usize>,
) -> Tensor<5> {
    let [batch, total] = real.dims();
    let seq = total - cached;
    let device = real.device();
    let query = Tensor::<1, Int>::arange(cached as i64..total as i64, &device).reshape([seq, 1]);
    let key = Tensor::<1, Int>::arange(0..total as i64, &device).reshape([1, total]);
    let distance: Tensor<2, Int> = query - key;

    let mut hidden = distance.clone().lower_elem(0);
    if let Some(window) = sliding_window {
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
