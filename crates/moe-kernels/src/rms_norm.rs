#[cfg(feature = "flex")]
use burn::backend::{Backend, ExtensionType, tensor::FloatTensor};
use burn::tensor::Tensor;

/// `x / √(mean(x²) + ε) ⊙ γ` over the last axis (Zhang & Sennrich 2019), `gamma [width]`.
///
/// The fast way is for a frozen `gamma`: the gradient goes to `x` alone.
///
/// # Panics
///
/// When the last axis of `x` is not that of `gamma`.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let [width] = gamma.dims();
    assert_eq!(x.dims()[D - 1], width, "a norm of another width");
    #[cfg(feature = "flex")]
    if !gamma.is_tracked() && crate::has_kernels(&x) && crate::has_kernels(&gamma) {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::rms_norm(RmsNorm {
            x: x.into_dispatch(),
            gamma: gamma.into_dispatch(),
            epsilon: epsilon as f32,
        }));
    }
    composed(x, gamma, epsilon)
}

/// `x + y`, and its norm: what a layer's residual stream goes on with, and what its next block reads. As [`rms_norm`] otherwise.
///
/// # Panics
///
/// When the shapes of `x` and `y` differ, or their last axis is not that of `gamma`.
pub fn add_rms_norm<const D: usize>(
    x: Tensor<D>,
    y: Tensor<D>,
    gamma: Tensor<1>,
    epsilon: f64,
) -> (Tensor<D>, Tensor<D>) {
    let [width] = gamma.dims();
    assert_eq!(x.dims()[D - 1], width, "a norm of another width");
    assert_eq!(x.dims(), y.dims(), "terms of different shapes");
    #[cfg(feature = "flex")]
    if !gamma.is_tracked()
        && [&x, &y].into_iter().all(crate::has_kernels)
        && crate::has_kernels(&gamma)
    {
        use crate::FusedOps;
        let (sum, normed) = burn::backend::Dispatch::add_rms_norm(AddRmsNorm {
            x: x.into_dispatch(),
            y: y.into_dispatch(),
            gamma: gamma.into_dispatch(),
            epsilon: epsilon as f32,
        });
        return (Tensor::from_dispatch(sum), Tensor::from_dispatch(normed));
    }
    let sum = x + y;
    (sum.clone(), composed(sum, gamma, epsilon))
}

/// Of Burn's operations.
fn composed<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let scale = (x.clone().square().mean_dim(D - 1) + epsilon).sqrt();
    (x / scale) * gamma.unsqueeze()
}

/// [`rms_norm()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct RmsNorm<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) gamma: FloatTensor<B>,
    pub(crate) epsilon: f32,
}

/// [`add_rms_norm()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct AddRmsNorm<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) y: FloatTensor<B>,
    pub(crate) gamma: FloatTensor<B>,
    pub(crate) epsilon: f32,
}

#[cfg(feature = "flex")]
mod cpu {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorData;

    use super::{AddRmsNorm, RmsNorm};
    use crate::autodiff::Operation;
    use crate::cpu::pieces::{Buffer, filled};
    use crate::cpu::vectorised;
    use crate::values::Values;

    /// Rows of one task.
    const ROWS: usize = 16;

    vectorised! {
        fn norm_rows(x: &[f32], gamma: &[f32], epsilon: f32, out: &mut [f32]) {
            let width = gamma.len();
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                let inverse = inverse_scale(x, epsilon);
                for ((out, x), gamma) in out.iter_mut().zip(x).zip(gamma) {
                    *out = x * inverse * gamma;
                }
            }
        }
    }

    vectorised! {
        fn add(x: &[f32], y: &[f32], out: &mut [f32]) {
            for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                *out = x + y;
            }
        }
    }

    vectorised! {
        /// `dx = s (g γ − x s² mean(x g γ))` with `s = 1/√(mean(x²) + ε)`, and `others` besides, what comes to `x` another way.
        fn backward_rows(x: &[f32], gamma: &[f32], epsilon: f32, grad: &[f32], others: Option<&[f32]>, out: &mut [f32]) {
            let width = gamma.len();
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
            for (row, ((x, grad), out)) in rows.zip(out.chunks_exact_mut(width)).enumerate() {
                let inverse = inverse_scale(x, epsilon);
                let mut sums = [0f32; 16];
                for ((out, grad), gamma) in out.iter_mut().zip(grad).zip(gamma) {
                    *out = grad * gamma;
                }
                for (x, y) in x.chunks(16).zip(out.chunks(16)) {
                    for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
                        *sum = x.mul_add(*y, *sum);
                    }
                }
                let mean = sums.iter().sum::<f32>() / width as f32;
                let pull = -mean * inverse * inverse;
                for (out, x) in out.iter_mut().zip(x) {
                    *out = x.mul_add(pull, *out) * inverse;
                }
                if let Some(others) = others {
                    for (out, other) in out.iter_mut().zip(&others[row * width..][..width]) {
                        *out += other;
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn inverse_scale(x: &[f32], epsilon: f32) -> f32 {
        let mut sums = [0f32; 16];
        for x in x.chunks(16) {
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = x.mul_add(*x, *sum);
            }
        }
        let mean = sums.iter().sum::<f32>() / x.len() as f32;
        1.0 / (mean + epsilon).sqrt()
    }

    impl Operation<Flex, 1, 1> for RmsNorm<Flex> {
        type Kept = Self;

        fn forward(self) -> ([FlexTensor; 1], Self) {
            let output = forward(self.x.clone(), self.gamma.clone(), self.epsilon);
            ([output], self)
        }

        fn backward(
            norm: Self,
            [grad]: [Option<FlexTensor>; 1],
            _wanted: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            [grad.map(|grad| backward(norm, grad, None))]
        }
    }

    impl Operation<Flex, 2, 2> for AddRmsNorm<Flex> {
        /// The norm of the sum.
        type Kept = RmsNorm<Flex>;

        fn forward(self) -> ([FlexTensor; 2], RmsNorm<Flex>) {
            let Self {
                x,
                y,
                gamma,
                epsilon,
            } = self;
            let outputs = add_forward(x, y, gamma.clone(), epsilon);
            let norm = RmsNorm {
                x: outputs[0].clone(),
                gamma,
                epsilon,
            };
            (outputs, norm)
        }

        fn backward(
            norm: RmsNorm<Flex>,
            grads: [Option<FlexTensor>; 2],
            wanted: [bool; 2],
        ) -> [Option<FlexTensor>; 2] {
            let grad = match grads {
                [sum, Some(normed)] => Some(backward(norm, normed, sum)),
                [sum, None] => sum,
            };
            // Both terms have the gradient of their sum.
            wanted.map(|wanted| grad.clone().filter(|_| wanted))
        }
    }

    fn forward(x: FlexTensor, gamma: FlexTensor, epsilon: f32) -> FlexTensor {
        let shape = x.layout().shape().clone();
        let (x, gamma) = (Values::of(x), Values::of(gamma));
        let out = filled(x.len(), ROWS * gamma.len(), |place, out| {
            norm_rows(&x[place], &gamma, epsilon, out);
        });
        FlexTensor::from_data(TensorData::new(out, shape))
    }

    /// `[x + y, its norm]`.
    fn add_forward(
        x: FlexTensor,
        y: FlexTensor,
        gamma: FlexTensor,
        epsilon: f32,
    ) -> [FlexTensor; 2] {
        let shape = x.layout().shape().clone();
        let [x, y, gamma] = [x, y, gamma].map(Values::of);
        let step = ROWS * gamma.len();
        let mut sum = Buffer::new(x.len());
        let sums = sum.pieces();
        let normed = filled(x.len(), step, |place, out| {
            // SAFETY: places are disjoint.
            let sum = unsafe { sums.zeroed(place.start, place.len()) };
            add(&x[place.clone()], &y[place], sum);
            norm_rows(sum, &gamma, epsilon, out);
        });
        // SAFETY: the places are all there is.
        let sum = unsafe { sum.written() };
        [sum, normed].map(|numbers| FlexTensor::from_data(TensorData::new(numbers, shape.clone())))
    }

    /// Gradient of the norm's input, of which `others` comes to it another way.
    fn backward(
        RmsNorm { x, gamma, epsilon }: RmsNorm<Flex>,
        grad: FlexTensor,
        others: Option<FlexTensor>,
    ) -> FlexTensor {
        let shape = x.layout().shape().clone();
        let [x, gamma, grad] = [x, gamma, grad].map(Values::of);
        let others = others.map(Values::of);
        let out = filled(x.len(), ROWS * gamma.len(), |place, out| {
            let others = others.as_ref().map(|others| &others[place.clone()]);
            backward_rows(
                &x[place.clone()],
                &gamma,
                epsilon,
                &grad[place],
                others,
                out,
            );
        });
        FlexTensor::from_data(TensorData::new(out, shape))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::{add_rms_norm, rms_norm};

    fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::zeros(shape, &Device::flex())
    }

    #[test]
    #[should_panic(expected = "a norm of another width")]
    fn gamma_is_as_wide_as_the_last_axis() {
        rms_norm(zeros([4, 5]), zeros([4]), 1e-5);
    }

    #[test]
    #[should_panic(expected = "a norm of another width")]
    fn gamma_is_as_wide_as_the_sum() {
        add_rms_norm(zeros([4, 5]), zeros([4, 5]), zeros([4]), 1e-5);
    }

    #[test]
    #[should_panic(expected = "terms of different shapes")]
    fn a_sum_has_terms_of_one_shape() {
        add_rms_norm(zeros([4, 5]), zeros([1, 5]), zeros([5]), 1e-5);
    }
}
