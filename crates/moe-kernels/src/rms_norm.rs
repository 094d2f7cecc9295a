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
        return Tensor::from_dispatch(burn::backend::Dispatch::rms_norm(
            x.into_dispatch(),
            gamma.into_dispatch(),
            epsilon as f32,
        ));
    }
    let scale = (x.clone().square().mean_dim(D - 1) + epsilon).sqrt();
    (x / scale) * gamma.unsqueeze()
}

#[cfg(feature = "flex")]
pub(crate) mod cpu {
    use burn::backend::Flex;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops};
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorData;

    use crate::cpu::pieces::filled;
    use crate::cpu::vectorised;
    use crate::values::Values;

    /// Rows of one task.
    const ROWS: usize = 16;

    vectorised! {
        fn forward_rows(x: &[f32], gamma: &[f32], epsilon: f32, out: &mut [f32]) {
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
        /// `dx = s (g γ − x s² mean(x g γ))` with `s = 1/√(mean(x²) + ε)`.
        fn backward_rows(x: &[f32], gamma: &[f32], epsilon: f32, grad: &[f32], out: &mut [f32]) {
            let width = gamma.len();
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
            for ((x, grad), out) in rows.zip(out.chunks_exact_mut(width)) {
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

    pub(crate) fn forward(x: FlexTensor, gamma: FlexTensor, epsilon: f32) -> FlexTensor {
        let shape = x.layout().shape().clone();
        let (x, gamma) = (Values::of(x), Values::of(gamma));
        let out = filled(x.len(), ROWS * gamma.len(), |place, out| {
            forward_rows(&x[place], &gamma, epsilon, out);
        });
        FlexTensor::from_data(TensorData::new(out, shape))
    }

    #[derive(Debug)]
    pub(crate) struct RmsNormBackward;

    impl Backward<Flex, 1> for RmsNormBackward {
        /// Input, gamma, epsilon.
        type State = (FlexTensor, FlexTensor, f32);

        fn backward(
            self,
            ops: Ops<Self::State, 1>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let grad = Values::of(grads.consume::<Flex>(&ops.node));
            let [Some(parent)] = ops.parents else { return };
            let (x, gamma, epsilon) = ops.state;
            let shape = x.layout().shape().clone();
            let (x, gamma) = (Values::of(x), Values::of(gamma));
            let out = filled(x.len(), ROWS * gamma.len(), |place, out| {
                backward_rows(&x[place.clone()], &gamma, epsilon, &grad[place], out);
            });
            let out = FlexTensor::from_data(TensorData::new(out, shape));
            grads.register::<Flex>(parent.id, out);
        }
    }
}
