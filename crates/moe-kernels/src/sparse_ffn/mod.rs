//! The feed-forward networks of a sparse mixture's experts as one operation.

mod composed;
#[cfg(feature = "flex")]
mod cpu;
mod shapes;

#[cfg(feature = "flex")]
use burn::backend::{Backend, ExtensionType, tensor::FloatTensor};
use burn::tensor::Tensor;

/// Which experts see which tokens: one entry for each pair, sorted by token.
///
/// A token may have any number of entries, none included, and so may an expert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// `[entries]`: rows of x, ascending.
    pub token: Vec<u32>,
    /// `[entries]`: experts.
    pub expert: Vec<u32>,
}

/// [`sparse_ffn()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct SparseFfn<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) gate: FloatTensor<B>,
    pub(crate) up: FloatTensor<B>,
    pub(crate) down: FloatTensor<B>,
    pub(crate) weights: FloatTensor<B>,
    pub(crate) entries: Entries,
}

/// `y_t = Σ_i w_i F_{e_i}(x_t)` over the entries i of token t, where expert e is the SwiGLU network
/// `F_e(x) = (silu(x G_e) ⊙ x U_e) D_e`.
///
/// - `x [tokens, d_model]`
/// - `gate`, `up` `[experts, d_model, d_ff]` and `down [experts, d_ff, d_model]`: G, U, D
/// - `weights [entries]`: w, in the order of `entries`
///
/// Returns `[tokens, d_model]`, zeros for a token without entries.
///
/// The kernel gathers each expert's tokens once, multiplies expert by expert, and adds up token by token. It keeps its inputs and the
/// pre-activations of gate and up of the entries `[entries, d_ff]` for the backward pass. Experts' matrices may be in f32, or in bf16
/// where they are not trained (see [`linear()`](fn@crate::linear)), and transposed views of contiguous tensors, which are not copied.
/// Those that are trained get their gradients.
///
/// # Panics
///
/// When the shapes do not fit together, an entry names a token or an expert that is not there, or the entries are not sorted by token.
pub fn sparse_ffn(
    x: Tensor<2>,
    gate: Tensor<3>,
    up: Tensor<3>,
    down: Tensor<3>,
    entries: &Entries,
    weights: Tensor<1>,
) -> Tensor<2> {
    shapes::assert_fit(&x, [&gate, &up, &down], entries, &weights);
    #[cfg(feature = "flex")]
    if crate::has_kernels(&x) && crate::has_kernels(&weights) && fit_kernels([&gate, &up, &down]) {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::sparse_ffn(SparseFfn {
            x: x.into_dispatch(),
            gate: gate.into_dispatch(),
            up: up.into_dispatch(),
            down: down.into_dispatch(),
            weights: weights.into_dispatch(),
            entries: entries.clone(),
        }));
    }
    composed::sparse_ffn(x, [gate, up, down], entries, weights)
}

/// Whether the kernel takes these matrices: of one format, f32, or frozen in bf16.
#[cfg(feature = "flex")]
fn fit_kernels(matrices: [&Tensor<3>; 3]) -> bool {
    let dtype = matrices[0].dtype();
    matrices.into_iter().all(|matrix| {
        matrix.dtype() == dtype && (crate::has_kernels(matrix) || crate::linear::is_frozen(matrix))
    })
}
