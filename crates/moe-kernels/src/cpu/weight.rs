//! A frozen matrix and the products with it.

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, bf16};

use super::panel_product::{self, Activations, Stored};
use crate::values::matrix_dims;

/// `[d_in, d_out]` in f32 or bf16.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    /// Contiguous.
    numbers: FlexTensor,
    /// `numbers` is `[d_out, d_in]`.
    turned: bool,
}

enum Numbers<'a> {
    F32(Stored<'a, f32>),
    Bf16(Stored<'a, bf16>),
}

impl Weight {
    /// A transposed view of a contiguous matrix is not copied.
    pub(crate) fn of(tensor: FlexTensor) -> Self {
        let turned = !tensor.is_contiguous() && tensor.transpose(0, 1).is_contiguous();
        let numbers = match turned {
            true => tensor.transpose(0, 1),
            false => tensor,
        };
        Self {
            numbers: numbers.to_contiguous(),
            turned,
        }
    }

    /// `[d_in, d_out]`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        let [rows, columns] = matrix_dims(&self.numbers);
        match self.turned {
            true => [columns, rows],
            false => [rows, columns],
        }
    }

    /// Columns `start..start + len` as a matrix of their own; not copied where they lie together.
    pub(crate) fn columns(&self, start: usize, len: usize) -> Self {
        let axis = if self.turned { 0 } else { 1 };
        let numbers = self.numbers.narrow(axis, start, len);
        let numbers = match numbers.is_contiguous() {
            true => numbers,
            false => numbers.to_contiguous(),
        };
        Self {
            numbers,
            turned: self.turned,
        }
    }

    /// Column `index`, in f32.
    pub(crate) fn column(&self, index: usize) -> Vec<f32> {
        let numbers = self.columns(index, 1).numbers;
        let wide = || {
            let numbers: &[bf16] = numbers.as_slice()?;
            Some(numbers.iter().map(|x| x.to_f32()).collect())
        };
        let numbers = numbers.as_slice().map(<[f32]>::to_vec).or_else(wide);
        numbers.expect("contiguous f32 or bf16 numbers")
    }

    /// Whether it is in bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        self.numbers.dtype() == DType::BF16
    }

    /// `x [rows, d_in]` → `x W [rows, d_out]`.
    pub(crate) fn forward(&self, x: &Activations<'_>) -> Vec<f32> {
        product(x, self.numbers(self.turned))
    }

    /// `grad [rows, d_out]` → `grad Wᵀ [rows, d_in]`.
    pub(crate) fn backward(&self, grad: &Activations<'_>) -> Vec<f32> {
        product(grad, self.numbers(!self.turned))
    }

    /// `out [rows, d_in] += grad Wᵀ`.
    pub(crate) fn add_backward(&self, grad: &Activations<'_>, out: &mut [f32]) {
        match self.numbers(!self.turned) {
            Numbers::F32(right) => panel_product::add_product(grad, right, out),
            Numbers::Bf16(right) => panel_product::add_product(grad, right, out),
        }
    }

    fn numbers(&self, turned: bool) -> Numbers<'_> {
        let [rows, columns] = matrix_dims(&self.numbers);
        match self.is_bf16() {
            true => {
                let data: &[bf16] = self.numbers.as_slice().expect("contiguous bf16 numbers");
                let matrix = Stored::new(data, rows, columns);
                Numbers::Bf16(if turned { matrix.transposed() } else { matrix })
            }
            false => {
                let data: &[f32] = self.numbers.as_slice().expect("contiguous 32-bit floats");
                let matrix = Stored::new(data, rows, columns);
                Numbers::F32(if turned { matrix.transposed() } else { matrix })
            }
        }
    }
}

fn product(left: &Activations<'_>, right: Numbers<'_>) -> Vec<f32> {
    match right {
        Numbers::F32(right) => panel_product::product(left, right),
        Numbers::Bf16(right) => panel_product::product(left, right),
    }
}
