//! Attention of a decoder: rotary positions, grouped queries, a causal mask with padding and window.

mod composed;
#[cfg(feature = "flex")]
mod cpu;
mod shapes;

#[cfg(feature = "flex")]
use burn::backend::{Backend, ExtensionType, tensor::FloatTensor};
use burn::tensor::Tensor;

pub use composed::{attend, attention_bias, rotate};

/// Sizes of an attention that its tensors do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Number of key and value heads; divides the number of query heads.
    pub kv_heads: usize,
    /// Features of one head, an even number.
    pub head_dim: usize,
    /// How many positions a query sees, at least its own; all earlier ones without a window.
    pub window: Option<usize>,
}

/// [`attention()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct Attention<B: Backend> {
    pub(crate) query: FloatTensor<B>,
    pub(crate) key: FloatTensor<B>,
    pub(crate) value: FloatTensor<B>,
    pub(crate) cos: FloatTensor<B>,
    pub(crate) sin: FloatTensor<B>,
    pub(crate) real: FloatTensor<B>,
    pub(crate) shape: AttentionShape,
}

/// `softmax(QKᵀ/√head_dim + mask) V` with rotated queries and keys, before the output projection.
///
/// - `query [batch, seq, heads · head_dim]`, `key`, `value [batch, seq, kv_heads · head_dim]`, not yet rotated
/// - `cos`, `sin [batch, seq, head_dim / 2]`: rotation of every position (Su et al. 2021, half-split layout)
/// - `real [batch, seq]`: 1 for a token, 0 for padding
///
/// Returns `[batch, seq, heads · head_dim]`; rows of padding hold finite numbers without meaning. The kernel keeps one number
/// per query and head for the backward pass, and computes the scores again there (Dao et al. 2022, "FlashAttention").
///
/// # Panics
///
/// When the shapes do not fit together, `head_dim` is odd or zero, `kv_heads` is zero, or a window is.
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    cos: Tensor<3>,
    sin: Tensor<3>,
    real: Tensor<2>,
    shape: AttentionShape,
) -> Tensor<3> {
    shapes::assert_fit(&query, [&key, &value], [&cos, &sin], &real, shape);
    #[cfg(feature = "flex")]
    if ![&cos, &sin].into_iter().any(Tensor::is_tracked)
        && [&query, &key, &value, &cos, &sin]
            .into_iter()
            .all(crate::has_kernels)
        && crate::has_kernels(&real)
    {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::attention(Attention {
            query: query.into_dispatch(),
            key: key.into_dispatch(),
            value: value.into_dispatch(),
            cos: cos.into_dispatch(),
            sin: sin.into_dispatch(),
            real: real.into_dispatch(),
            shape,
        }));
    }
    let [batch, seq, width] = query.dims();
    let AttentionShape {
        kv_heads, head_dim, ..
    } = shape;
    let (cos, sin) = (cos.unsqueeze_dim(2), sin.unsqueeze_dim(2));
    let bias = attention_bias(real.greater_elem(0.5), 0, shape.window);
    let split = |x: Tensor<3>, heads| x.reshape([batch, seq, heads, head_dim]);
    attend(
        rotate(split(query, width / head_dim), cos.clone(), sin.clone()),
        rotate(split(key, kv_heads), cos, sin).swap_dims(1, 2),
        split(value, kv_heads).swap_dims(1, 2),
        bias,
    )
}
