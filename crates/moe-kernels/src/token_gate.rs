#[cfg(feature = "flex")]
use burn::backend::{Backend, ExtensionType, tensor::FloatTensor};
use burn::tensor::{Tensor, activation::softmax};

/// `softmax(x G)`: each token's weights of the experts (MoE-CL, "(β_s, β_t) = softmax(G z)").
///
/// `x [tokens, d_model]`, `weight [d_model, experts]` → `[tokens, experts]`, rows sum to one. Both get their gradients.
///
/// # Panics
///
/// When the inner axes differ, or there is no expert.
pub fn token_gate(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let ([_, d_model], [inner, experts]) = (x.dims(), weight.dims());
    assert_eq!(d_model, inner, "a gate of another input size");
    assert!(experts > 0, "a gate to no expert");
    #[cfg(feature = "flex")]
    if crate::has_kernels(&x) && crate::has_kernels(&weight) {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::token_gate(TokenGate {
            x: x.into_dispatch(),
            weight: weight.into_dispatch(),
        }));
    }
    softmax(x.matmul(weight), 1)
}

/// [`token_gate()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct TokenGate<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) weight: FloatTensor<B>,
}

#[cfg(feature = "flex")]
mod cpu {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;

    use super::TokenGate;
    use crate::autodiff::Operation;
    use crate::cpu::exp::exp;
    use crate::cpu::pieces::{Buffer, Pieces, filled};
    use crate::cpu::product::{Matrix, small_product, transposed};
    use crate::cpu::queue::for_each_task;
    use crate::cpu::vectorised;
    use crate::values::{Values, matrix_dims, tensor};

    /// Tokens of one task.
    const ROWS: usize = 48;

    impl Operation<Flex, 2, 1> for TokenGate<Flex> {
        /// Input, matrix and output.
        type Kept = [FlexTensor; 3];

        fn forward(self) -> ([FlexTensor; 1], [FlexTensor; 3]) {
            let Self { x, weight } = self;
            let output = forward(x.clone(), weight.clone());
            ([output.clone()], [x, weight, output])
        }

        fn backward(
            kept: [FlexTensor; 3],
            [grad]: [Option<FlexTensor>; 1],
            wanted: [bool; 2],
        ) -> [Option<FlexTensor>; 2] {
            grad.map_or([None, None], |grad| backward(kept, grad, wanted))
        }
    }

    fn forward(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let ([tokens, d_model], [_, experts]) = (matrix_dims(&x), matrix_dims(&weight));
        let [x, weight] = [x, weight].map(Values::of);
        let weight = Matrix::new(&weight, d_model, experts);
        let out = filled(tokens * experts, ROWS * experts, |place, out| {
            let (first, rows) = (place.start / experts, place.len() / experts);
            let x = Matrix::new(&x[first * d_model..][..rows * d_model], rows, d_model);
            small_product(x, weight, None, out, experts, false);
            softmax_rows(experts, out);
        });
        tensor(out, [tokens, experts])
    }

    vectorised! {
        fn softmax_rows(width: usize, scores: &mut [f32]) {
            for row in scores.chunks_exact_mut(width) {
                let largest = row.iter().fold(f32::NEG_INFINITY, |most, x| most.max(*x));
                let mut sum = 0.0;
                for x in &mut *row {
                    *x = exp(*x - largest);
                    sum += *x;
                }
                row.iter_mut().for_each(|x| *x /= sum);
            }
        }
    }

    vectorised! {
        /// Gradient of the scores, `w ⊙ (g − Σ w g)` in every row.
        fn scores_backward(width: usize, weights: &[f32], grad: &[f32], out: &mut [f32]) {
            let rows = weights.chunks_exact(width).zip(grad.chunks_exact(width));
            for ((weights, grad), out) in rows.zip(out.chunks_exact_mut(width)) {
                let mean: f32 = weights.iter().zip(grad).map(|(w, g)| w * g).sum();
                for ((out, w), g) in out.iter_mut().zip(weights).zip(grad) {
                    *out = w * (g - mean);
                }
            }
        }
    }

    fn backward(
        [x, weight, weights]: [FlexTensor; 3],
        grad: FlexTensor,
        [of_x, of_weight]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let ([tokens, d_model], [_, experts]) = (matrix_dims(&x), matrix_dims(&weight));
        let [x, weight, weights, grad] = [x, weight, weights, grad].map(Values::of);

        let turned = transposed(&weight, d_model, experts);
        let turned = Matrix::new(&turned, experts, d_model);
        let mut x_grad = Buffer::new(if of_x { tokens * d_model } else { 0 });
        let x_pieces = x_grad.pieces();
        // Of the transposed matrix, each task's tokens apart.
        let tasks = tokens.div_ceil(ROWS);
        let mut sums = vec![0.0; tasks * experts * d_model];
        let sum_pieces = Pieces::new(&mut sums);
        let one_task = |scores: &mut Vec<f32>, task: usize| {
            let first = task * ROWS;
            let rows = ROWS.min(tokens - first);
            let (place, width) = (first * experts, rows * experts);
            let scores = &mut scores[..width];
            scores_backward(
                experts,
                &weights[place..][..width],
                &grad[place..][..width],
                scores,
            );
            let scores = Matrix::new(scores, rows, experts);
            if of_x {
                // SAFETY: tasks share no token.
                let out = unsafe { x_pieces.zeroed(first * d_model, rows * d_model) };
                small_product(scores, turned, None, out, d_model, false);
            }
            // SAFETY: this task's own.
            let out = unsafe { sum_pieces.piece(task * experts * d_model, experts * d_model) };
            let x = Matrix::new(&x[first * d_model..][..rows * d_model], rows, d_model);
            small_product(scores.transposed(), x, None, out, d_model, false);
        };
        for_each_task(tasks, || vec![0.0; ROWS * experts], one_task);

        let x_grad = of_x.then(|| {
            // SAFETY: the tasks are all tokens.
            let x_grad = unsafe { x_grad.written() };
            tensor(x_grad, [tokens, d_model])
        });
        let weight_grad = of_weight.then(|| {
            let mut sum = vec![0.0; experts * d_model];
            for part in sums.chunks_exact(experts * d_model) {
                sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            }
            let sum = transposed(&sum, experts, d_model);
            tensor(sum, [d_model, experts])
        });
        [x_grad, weight_grad]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::token_gate;

    fn gate(x: [usize; 2], weight: [usize; 2]) -> Tensor<2> {
        let [x, weight] = [x, weight].map(|shape| Tensor::zeros(shape, &Device::flex()));
        token_gate(x, weight)
    }

    #[test]
    #[should_panic(expected = "a gate of another input size")]
    fn the_gate_reads_the_tokens() {
        gate([5, 4], [3, 2]);
    }

    #[test]
    #[should_panic(expected = "a gate to no expert")]
    fn there_is_an_expert() {
        gate([5, 4], [4, 0]);
    }
}
