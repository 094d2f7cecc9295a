//! A frozen matrix and the products with it.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor, bf16};

use super::panel_product::quantised::{self, Quantised};
use super::panel_product::{self, Activations, Stored};
use crate::Matrix;
use crate::blocks::Blocks;
use crate::values::matrix_dims;

/// `[d_in, d_out]`, in f32, bf16 or quantised blocks.
#[derive(Clone, Debug)]
pub(crate) enum Weight {
    Float {
        /// Contiguous.
        numbers: FlexTensor,
        /// `numbers` is `[d_out, d_in]`.
        turned: bool,
    },
    /// `[d_out, d_in]`.
    Blocks(Blocks),
}

/// A matrix as a right factor.
enum Factor<'a> {
    F32(Stored<'a, f32>),
    Bf16(Stored<'a, bf16>),
    Blocks(Quantised<'a>),
}

impl Weight {
    /// What the kernels take for a constant: a matrix of the CPU that is not trained, in a format that they read.
    pub(crate) fn frozen(matrix: &Matrix) -> Option<Self> {
        match matrix {
            Matrix::Float(tensor) => {
                let frozen =
                    !tensor.is_tracked() && matches!(tensor.dtype(), DType::F32 | DType::BF16);
                let plain = frozen.then(|| Tensor::inner(tensor.clone()))?;
                plain.try_into_primitive::<Flex>().ok().map(Self::of)
            }
            Matrix::Blocks(blocks) => Some(Self::Blocks(blocks.clone())),
        }
    }

    /// A transposed view of a contiguous matrix is not copied.
    pub(crate) fn of(tensor: FlexTensor) -> Self {
        let turned = !tensor.is_contiguous() && tensor.transpose(0, 1).is_contiguous();
        let numbers = match turned {
            true => tensor.transpose(0, 1),
            false => tensor,
        };
        Self::Float {
            numbers: numbers.to_contiguous(),
            turned,
        }
    }

    /// `[d_in, d_out]`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        let ([rows, columns], turned) = match self {
            Self::Float { numbers, turned } => (matrix_dims(numbers), *turned),
            Self::Blocks(blocks) => (blocks.dims(), true),
        };
        match turned {
            true => [columns, rows],
            false => [rows, columns],
        }
    }

    /// Columns `start..start + len` as a matrix of their own; not copied where they lie together.
    pub(crate) fn columns(&self, start: usize, len: usize) -> Self {
        match self {
            Self::Float { numbers, turned } => {
                let axis = if *turned { 0 } else { 1 };
                let numbers = numbers.narrow(axis, start, len);
                Self::Float {
                    numbers: match numbers.is_contiguous() {
                        true => numbers,
                        false => numbers.to_contiguous(),
                    },
                    turned: *turned,
                }
            }
            Self::Blocks(blocks) => Self::Blocks(blocks.narrow(start, len)),
        }
    }

    /// Column `index`, in f32.
    pub(crate) fn column(&self, index: usize) -> Vec<f32> {
        match self.columns(index, 1) {
            Self::Float { numbers, .. } => {
                let wide = || {
                    let numbers: &[bf16] = numbers.as_slice()?;
                    Some(numbers.iter().map(|x| x.to_f32()).collect())
                };
                let numbers = numbers.as_slice().map(<[f32]>::to_vec).or_else(wide);
                numbers.expect("contiguous f32 or bf16 numbers")
            }
            Self::Blocks(blocks) => blocks.widened(),
        }
    }

    /// Whether it is in bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self, Self::Float { numbers, .. } if numbers.dtype() == DType::BF16)
    }

    /// `x [rows, d_in]` → `x W [rows, d_out]`.
    pub(crate) fn forward(&self, x: &Activations<'_>) -> Vec<f32> {
        product(x, self.factor(false))
    }

    /// `grad [rows, d_out]` → `grad Wᵀ [rows, d_in]`.
    pub(crate) fn backward(&self, grad: &Activations<'_>) -> Vec<f32> {
        product(grad, self.factor(true))
    }

    /// `out [rows, d_in] += grad Wᵀ`.
    pub(crate) fn add_backward(&self, grad: &Activations<'_>, out: &mut [f32]) {
        match self.factor(true) {
            Factor::F32(right) => panel_product::add_product(grad, right, out),
            Factor::Bf16(right) => panel_product::add_product(grad, right, out),
            Factor::Blocks(right) => quantised::add_product(grad, right, out),
        }
    }

    /// The matrix, or its transpose.
    fn factor(&self, transposed: bool) -> Factor<'_> {
        let (numbers, turned) = match self {
            Self::Float { numbers, turned } => (numbers, turned ^ transposed),
            Self::Blocks(blocks) => return Factor::Blocks(Quantised::new(blocks, !transposed)),
        };
        let [rows, columns] = matrix_dims(numbers);
        match self.is_bf16() {
            true => {
                let data: &[bf16] = numbers.as_slice().expect("contiguous bf16 numbers");
                let matrix = Stored::new(data, rows, columns);
                Factor::Bf16(if turned { matrix.transposed() } else { matrix })
            }
            false => {
                let data: &[f32] = numbers.as_slice().expect("contiguous 32-bit floats");
                let matrix = Stored::new(data, rows, columns);
                Factor::F32(if turned { matrix.transposed() } else { matrix })
            }
        }
    }
}

fn product(left: &Activations<'_>, right: Factor<'_>) -> Vec<f32> {
    match right {
        Factor::F32(right) => panel_product::product(left, right),
        Factor::Bf16(right) => panel_product::product(left, right),
        Factor::Blocks(right) => quantised::product(left, right),
    }
}
