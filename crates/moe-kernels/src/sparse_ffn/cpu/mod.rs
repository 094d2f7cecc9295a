//! The operation on the CPU: rows sorted by expert, products of all experts in one call, rows added up by token.

mod backward;
mod forward;
mod loops;
mod routing;

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::bf16;

use self::backward::Gradient;
use self::routing::Routing;
use super::SparseFfn;
use crate::autodiff::Operation;
use crate::cpu::stack::Stack;
use crate::values::{Values, tensor};

impl Operation<Flex, 5, 1> for SparseFfn<Flex> {
    type Kept = (Inputs, Arc<Sides>);

    fn forward(self) -> ([FlexTensor; 1], Self::Kept) {
        let inputs = Inputs::new(self);
        let (output, sides) = match inputs.is_bf16() {
            true => inputs.forward::<bf16>(),
            false => inputs.forward::<f32>(),
        };
        ([inputs.rows(output)], (inputs, Arc::new(sides)))
    }

    fn outputs(self) -> [FlexTensor; 1] {
        let inputs = Inputs::new(self);
        let output = match inputs.is_bf16() {
            true => inputs.output::<bf16>(),
            false => inputs.output::<f32>(),
        };
        [inputs.rows(output)]
    }

    fn backward(
        (inputs, sides): Self::Kept,
        [grad]: [Option<FlexTensor>; 1],
        wanted: [bool; 5],
    ) -> [Option<FlexTensor>; 5] {
        let Some(grad) = grad else {
            return Default::default();
        };
        let grad = Values::of(grad);
        let Gradient { x, weights, sides } = match inputs.is_bf16() {
            true => inputs.backward::<bf16>(sides, &grad, wanted),
            false => inputs.backward::<f32>(sides, &grad, wanted),
        };
        let [gate, up, down] = sides;
        let shapes = inputs.matrices.each_ref().map(Stack::dims);
        [
            x.map(|x| inputs.rows(x)),
            Some(tensor(weights, [inputs.routing.entries()])),
            gate.map(|gate| tensor(gate, shapes[0])),
            up.map(|up| tensor(up, shapes[1])),
            down.map(|down| tensor(down, shapes[2])),
        ]
    }
}

/// The tensors of the operation.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    x: Values,
    /// In the order of the entries.
    weights: Values,
    /// Gate, up and down.
    matrices: [Stack; 3],
    routing: Arc<Routing>,
    d_model: usize,
    d_ff: usize,
}

/// Gate and up before the activation, sorted by expert, `[entries, d_ff]`.
#[derive(Clone, Debug)]
pub(crate) struct Sides([Vec<f32>; 2]);

impl Inputs {
    fn new(tensors: SparseFfn<Flex>) -> Self {
        let SparseFfn {
            x,
            gate,
            up,
            down,
            weights,
            entries,
        } = tensors;
        let tokens = x.layout().shape()[0];
        let matrices = [gate, up, down].map(Stack::of);
        let [experts, d_model, d_ff] = matrices[0].dims();
        Self {
            x: Values::of(x),
            weights: Values::of(weights),
            matrices,
            routing: Arc::new(Routing::new(&entries, tokens, experts)),
            d_model,
            d_ff,
        }
    }

    fn is_bf16(&self) -> bool {
        self.matrices[0].is_bf16()
    }

    /// `[tokens, d_model]`.
    fn rows(&self, numbers: Vec<f32>) -> FlexTensor {
        tensor(numbers, [self.routing.tokens(), self.d_model])
    }
}
