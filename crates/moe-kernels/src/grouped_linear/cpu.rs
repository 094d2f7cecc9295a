//! The operation on the CPU: products of all groups in one call.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::bf16;

use super::GroupedLinear;
use crate::autodiff::Operation;
use crate::cpu::outer_products::outer_products;
use crate::cpu::panel_product::grouped::{Sum, products};
use crate::cpu::panel_product::{Activations, Format, Stored};
use crate::cpu::pieces::Buffer;
use crate::cpu::stack::{Number, Stack};
use crate::values::{Values, tensor};

/// The tensors of the operation.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    x: Values,
    weight: Stack,
    bounds: Vec<usize>,
}

impl Operation<Flex, 2, 1> for GroupedLinear<Flex> {
    type Kept = Inputs;

    fn forward(self) -> ([FlexTensor; 1], Inputs) {
        let inputs = Inputs {
            x: Values::of(self.x),
            weight: Stack::of(self.weight),
            bounds: self.bounds,
        };
        let y = match inputs.weight.is_bf16() {
            true => inputs.times(&inputs.x, &inputs.weight.forward::<bf16>()),
            false => inputs.times(&inputs.x, &inputs.weight.forward::<f32>()),
        };
        let [_, _, d_out] = inputs.weight.dims();
        ([tensor(y, [inputs.rows(), d_out])], inputs)
    }

    fn backward(
        inputs: Inputs,
        [grad]: [Option<FlexTensor>; 1],
        [of_x, of_weight]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let Some(grad) = grad else {
            return [None, None];
        };
        let grad = Values::of(grad);
        let [groups, d_in, d_out] = inputs.weight.dims();
        let x = of_x.then(|| match inputs.weight.is_bf16() {
            true => inputs.times(&grad, &inputs.weight.backward::<bf16>()),
            false => inputs.times(&grad, &inputs.weight.backward::<f32>()),
        });
        let weight =
            of_weight.then(|| outer_products(&inputs.bounds, &inputs.x, d_in, &grad, d_out));
        [
            x.map(|x| tensor(x, [inputs.rows(), d_in])),
            weight.map(|weight| tensor(weight, [groups, d_in, d_out])),
        ]
    }
}

impl Inputs {
    fn rows(&self) -> usize {
        self.bounds.last().copied().unwrap_or(0)
    }

    /// `left [rows, depth]` → `[rows, columns]`, each group times its own of `matrices [depth, columns]`.
    fn times<T: Format + Number>(&self, left: &[f32], matrices: &[Stored<'_, T>]) -> Vec<f32> {
        let rows = self.rows();
        let columns = matrices[0].columns();
        let left = Activations::new(left, [rows, left.len() / rows]);
        let mut out = Buffer::new(rows * columns);
        let sum = Sum {
            factors: vec![(&left, matrices.to_vec())],
            out: out.pieces(),
        };
        products(&self.bounds, columns, &[sum], |_| ());
        // SAFETY: products write every entry.
        unsafe { out.written() }
    }
}
