#[cfg(feature = "flex")]
use burn::backend::{Backend, ExtensionType, tensor::FloatTensor};
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};

use crate::Matrix;
#[cfg(feature = "flex")]
use crate::cpu::weight::Weight;

/// Rows whose logits are held together where there is no kernel.
const ROWS: usize = 128;

/// `−log softmax(hidden W)[target]` of every row, in nats: `hidden [n, d_model]`, a frozen `weight [d_model, vocabulary]` (in
/// any format of [`linear()`](fn@crate::linear)) and `n` targets → `[n]`.
///
/// The vocabulary is read in pieces; of the logits only each row's largest and the sum of exponentials are kept (Milakov &
/// Gimelshein 2018, "Online normalizer calculation for softmax"). The gradient `Σ_v p_v w_v − w_target` is gathered on the way, as
/// attention gathers values, so that the backward pass has no product left.
///
/// # Panics
///
/// When the inner axes differ, there is not one target per row, or a target is not in the vocabulary.
pub fn token_cross_entropy(
    hidden: Tensor<2>,
    weight: impl Into<Matrix>,
    targets: &[usize],
) -> Tensor<1> {
    let weight = weight.into();
    let ([n, d_model], [inner, vocabulary]) = (hidden.dims(), weight.dims());
    assert_eq!(d_model, inner, "a vocabulary of another width");
    assert_eq!(n, targets.len(), "one target per row");
    assert!(
        targets.iter().all(|&target| target < vocabulary),
        "a target beyond the vocabulary"
    );
    #[cfg(feature = "flex")]
    if n > 0
        && crate::has_kernels(&hidden)
        && let Some(weight) = Weight::frozen(&weight)
    {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::token_cross_entropy(
            TokenCrossEntropy {
                hidden: hidden.into_dispatch(),
                weight,
                targets: targets.to_vec(),
            },
        ));
    }
    let blocks = (0..n.max(1)).step_by(ROWS).map(|start| {
        let rows = ROWS.min(n - start);
        let hidden = hidden.clone().narrow(0, start, rows);
        composed(hidden, weight.clone(), &targets[start..start + rows])
    });
    Tensor::cat(blocks.collect(), 0)
}

/// Of Burn's operations.
fn composed(hidden: Tensor<2>, weight: Matrix, targets: &[usize]) -> Tensor<1> {
    let places: Vec<i64> = targets.iter().map(|&target| target as i64).collect();
    let targets = TensorData::new(places, [targets.len(), 1]);
    let targets = Tensor::<2, Int>::from_data(targets, &hidden.device());
    log_softmax(crate::linear(hidden, weight), 1)
        .gather(1, targets)
        .squeeze_dim::<1>(1)
        .neg()
}

/// [`token_cross_entropy()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct TokenCrossEntropy<B: Backend> {
    pub(crate) hidden: FloatTensor<B>,
    pub(crate) weight: Weight,
    pub(crate) targets: Vec<usize>,
}

#[cfg(feature = "flex")]
mod cpu {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use rayon::prelude::*;

    use super::TokenCrossEntropy;
    use crate::autodiff::Operation;
    use crate::cpu::exp::exp;
    use crate::cpu::panel_product::Activations;
    use crate::cpu::vectorised;
    use crate::values::{Values, matrix_dims, tensor};

    /// Words of one piece of the vocabulary.
    const PIECE: usize = 2048;
    /// Partial sums of one row.
    const LANES: usize = 16;

    /// What is known of a row's logits after some pieces.
    #[derive(Clone, Copy)]
    struct Row {
        largest: f32,
        /// `Σ e^(logit − largest)`.
        sum: f32,
        /// What the last piece has scaled earlier sums by.
        scale: f32,
        target: f32,
    }

    impl Row {
        const START: Self = Self {
            largest: f32::NEG_INFINITY,
            sum: 0.0,
            scale: 0.0,
            target: 0.0,
        };

        /// Reads the next logits, and leaves `e^(logit − largest)` in their place.
        fn read(&mut self, logits: &mut [f32]) {
            let (before, mut sum) = (self.largest, 0.0);
            exponentials(logits, &mut self.largest, &mut sum);
            self.scale = match before < self.largest {
                true => exp(before - self.largest),
                false => 1.0,
            };
            self.sum = self.sum.mul_add(self.scale, sum);
        }

        fn loss(&self) -> f32 {
            self.largest + self.sum.ln() - self.target
        }
    }

    vectorised! {
        /// Raises `largest` to the largest logit, and puts `e^(logit − largest)` in the place of the logits, `sum` in all.
        fn exponentials(logits: &mut [f32], largest: &mut f32, sum: &mut f32) {
            let mut tops = [*largest; LANES];
            for logits in logits.chunks(LANES) {
                for (top, logit) in tops.iter_mut().zip(logits) {
                    *top = if *logit > *top { *logit } else { *top };
                }
            }
            *largest = tops.iter().fold(*largest, |largest, top| largest.max(*top));
            let mut sums = [0f32; LANES];
            for logits in logits.chunks_mut(LANES) {
                for (sum, logit) in sums.iter_mut().zip(logits) {
                    *logit = exp(*logit - *largest);
                    *sum += *logit;
                }
            }
            *sum = sums.iter().sum();
        }
    }

    impl Operation<Flex, 1, 1> for TokenCrossEntropy<Flex> {
        /// `∂ loss / ∂ hidden`, `[n, d_model]`.
        type Kept = Vec<f32>;

        fn forward(self) -> ([FlexTensor; 1], Vec<f32>) {
            let (losses, gradient) = losses(self, true);
            ([losses], gradient.expect("asked for"))
        }

        fn outputs(self) -> [FlexTensor; 1] {
            [losses(self, false).0]
        }

        fn backward(
            mut out: Vec<f32>,
            [grad]: [Option<FlexTensor>; 1],
            _wanted: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            let Some(grad) = grad.map(Values::of) else {
                return [None];
            };
            let n = grad.len();
            let d_model = out.len() / n.max(1);
            for (row, grad) in out.chunks_exact_mut(d_model).zip(grad.iter()) {
                row.iter_mut().for_each(|g| *g *= grad);
            }
            [Some(tensor(out, [n, d_model]))]
        }
    }

    /// The losses `[n]`, and `∂ loss / ∂ hidden`, `[n, d_model]`, where that is asked for.
    fn losses(
        TokenCrossEntropy {
            hidden,
            weight,
            targets,
        }: TokenCrossEntropy<Flex>,
        with_gradient: bool,
    ) -> (FlexTensor, Option<Vec<f32>>) {
        let ([n, d_model], [_, vocabulary]) = (matrix_dims(&hidden), weight.dims());
        let hidden = Values::of(hidden);
        let hidden = Activations::new(&hidden, [n, d_model]);
        let mut rows = vec![Row::START; n];
        let mut gradient = with_gradient.then(|| vec![0.0; n * d_model]);
        for start in (0..vocabulary).step_by(PIECE) {
            let width = PIECE.min(vocabulary - start);
            let piece = weight.columns(start, width);
            let mut logits = piece.forward(&hidden);
            rows.par_iter_mut()
                .zip(logits.par_chunks_mut(width))
                .zip(&targets)
                .for_each(|((row, logits), &target)| {
                    if (start..start + width).contains(&target) {
                        row.target = logits[target - start];
                    }
                    row.read(logits);
                });
            if let Some(gradient) = &mut gradient {
                let gathered = gradient.par_chunks_mut(d_model);
                gathered.zip(&rows).for_each(|(gathered, row)| {
                    gathered.iter_mut().for_each(|g| *g *= row.scale);
                });
                piece.add_backward(&Activations::new(&logits, [n, width]), gradient);
            }
        }
        if let Some(gradient) = &mut gradient {
            let gathered = gradient.par_chunks_mut(d_model).zip(&rows).zip(&targets);
            gathered.for_each(|((gathered, row), &target)| {
                let word = weight.column(target);
                for (g, word) in gathered.iter_mut().zip(word) {
                    *g = *g / row.sum - word;
                }
            });
        }
        let losses = rows.iter().map(Row::loss).collect();
        (tensor(losses, [n]), gradient)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    fn losses(hidden: [usize; 2], weight: [usize; 2], targets: &[usize]) {
        let [hidden, weight] = [hidden, weight].map(|shape| Tensor::zeros(shape, &Device::flex()));
        super::token_cross_entropy(hidden, weight, targets);
    }

    #[test]
    #[should_panic(expected = "a vocabulary of another width")]
    fn the_vocabulary_reads_the_hidden_state() {
        losses([2, 4], [3, 7], &[0, 1]);
    }

    #[test]
    #[should_panic(expected = "one target per row")]
    fn every_row_has_its_target() {
        losses([2, 4], [4, 7], &[0]);
    }

    #[test]
    #[should_panic(expected = "a target beyond the vocabulary")]
    fn targets_are_of_the_vocabulary() {
        losses([2, 4], [4, 7], &[0, 7]);
    }
}
