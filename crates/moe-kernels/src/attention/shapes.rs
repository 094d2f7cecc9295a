//! What the tensors of an attention must agree on.

use burn::tensor::Tensor;

use super::AttentionShape;

/// # Panics
///
/// When the shapes do not fit together, as [`attention()`](super::attention()) says.
pub(super) fn assert_fit(
    query: &Tensor<3>,
    [key, value]: [&Tensor<3>; 2],
    [cos, sin]: [&Tensor<3>; 2],
    real: &Tensor<2>,
    shape: AttentionShape,
) {
    let [batch, seq, width] = query.dims();
    let AttentionShape {
        kv_heads,
        head_dim,
        window,
    } = shape;
    assert!(kv_heads > 0, "attention without a key head");
    assert!(
        head_dim > 0 && head_dim.is_multiple_of(2),
        "heads of {head_dim} features, which is no even number"
    );
    assert_ne!(window, Some(0), "a window that hides a query from itself");
    let kv_width = kv_heads * head_dim;
    assert!(
        width > 0 && width.is_multiple_of(kv_width),
        "queries of {width} features that share no whole key of {kv_width}"
    );
    let keys = [batch, seq, kv_width];
    assert_eq!(key.dims(), keys, "keys of another shape");
    assert_eq!(value.dims(), keys, "values of another shape");
    let angles = [batch, seq, head_dim / 2];
    assert_eq!(cos.dims(), angles, "cos of another shape");
    assert_eq!(sin.dims(), angles, "sin of another shape");
    assert_eq!(real.dims(), [batch, seq], "marks of another batch");
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use crate::{AttentionShape, attention};

    struct Case {
        query: [usize; 3],
        key: [usize; 3],
        value: [usize; 3],
        cos: [usize; 3],
        sin: [usize; 3],
        real: [usize; 2],
        shape: AttentionShape,
    }

    /// Shapes that fit, but for the change.
    fn attend(change: impl FnOnce(&mut Case)) -> Tensor<3> {
        let mut case = Case {
            query: [2, 5, 24],
            key: [2, 5, 12],
            value: [2, 5, 12],
            cos: [2, 5, 3],
            sin: [2, 5, 3],
            real: [2, 5],
            shape: AttentionShape {
                kv_heads: 2,
                head_dim: 6,
                window: Some(1),
            },
        };
        change(&mut case);
        let [query, key, value, cos, sin] =
            [case.query, case.key, case.value, case.cos, case.sin].map(zeros);
        attention(query, key, value, cos, sin, zeros(case.real), case.shape)
    }

    fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::zeros(shape, &Device::flex())
    }

    #[test]
    fn shapes_that_fit_are_taken() {
        assert_eq!(attend(|_| ()).dims(), [2, 5, 24]);
    }

    #[test]
    #[should_panic(expected = "attention without a key head")]
    fn there_is_a_key_head() {
        attend(|case| case.shape.kv_heads = 0);
    }

    #[test]
    #[should_panic(expected = "heads of 3 features, which is no even number")]
    fn a_head_has_two_halves() {
        attend(|case| case.shape.head_dim = 3);
    }

    #[test]
    #[should_panic(expected = "heads of 0 features, which is no even number")]
    fn a_head_has_features() {
        attend(|case| case.shape.head_dim = 0);
    }

    #[test]
    #[should_panic(expected = "a window that hides a query from itself")]
    fn a_query_sees_itself() {
        attend(|case| case.shape.window = Some(0));
    }

    #[test]
    #[should_panic(expected = "queries of 18 features that share no whole key of 12")]
    fn queries_share_whole_keys() {
        attend(|case| case.query[2] = 18);
    }

    #[test]
    #[should_panic(expected = "queries of 0 features")]
    fn there_is_a_query_head() {
        attend(|case| case.query[2] = 0);
    }

    #[test]
    #[should_panic(expected = "keys of another shape")]
    fn keys_have_the_width_of_their_heads() {
        attend(|case| case.key[2] = 6);
    }

    #[test]
    #[should_panic(expected = "keys of another shape")]
    fn keys_are_of_the_queries_batch() {
        attend(|case| case.key[0] = 1);
    }

    #[test]
    #[should_panic(expected = "values of another shape")]
    fn there_is_a_value_for_every_key() {
        attend(|case| case.value[1] = 4);
    }

    #[test]
    #[should_panic(expected = "cos of another shape")]
    fn every_position_has_its_cosines() {
        attend(|case| case.cos[2] = 6);
    }

    #[test]
    #[should_panic(expected = "sin of another shape")]
    fn every_position_has_its_sines() {
        attend(|case| case.sin[1] = 4);
    }

    #[test]
    #[should_panic(expected = "marks of another batch")]
    fn every_position_is_marked() {
        attend(|case| case.real[1] = 4);
    }
}
