#[cfg(feature = "flex")]
use burn::backend::{Backend, ExtensionType, tensor::FloatTensor};
use burn::tensor::{Tensor, module};

use crate::Matrix;
#[cfg(feature = "flex")]
use crate::cpu::weight::Weight;

/// `x [..., d_in]` → `x W [..., d_out]` with `weight [d_in, d_out]`.
///
/// The fast way is for frozen weights: the gradient goes to `x` alone. A weight that is tracked goes through Burn's product.
/// A frozen weight may be in bf16, with `x` and the result in f32; on a processor with AVX-512 BF16 `x` is then rounded to bf16 as
/// well (a relative error of at most 2⁻⁹ per number), and summed in f32. One in [`Blocks`](crate::Blocks) is read as it lies, and gives
/// what its numbers in f32 give: bit for bit for more than eight rows, in another order of the sums for fewer.
///
/// # Panics
///
/// When the inner axes differ.
pub fn linear<const D: usize>(x: Tensor<D>, weight: impl Into<Matrix>) -> Tensor<D> {
    let weight = weight.into();
    assert_fits(&x, &weight);
    #[cfg(feature = "flex")]
    if crate::has_kernels(&x)
        && let Some(weight) = Weight::frozen(&weight)
    {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::frozen_linear(FrozenLinear {
            x: x.into_dispatch(),
            weight,
        }));
    }
    composed(x, weight)
}

/// [`linear()`] of one `x` with three weights, as self-attention starts: what is made of `x` for a product is made once, and its
/// gradient is summed within the products.
///
/// # Panics
///
/// When the inner axes differ.
pub fn linears<const D: usize>(x: Tensor<D>, weights: [impl Into<Matrix>; 3]) -> [Tensor<D>; 3] {
    let weights = weights.map(Into::into);
    weights.iter().for_each(|weight| assert_fits(&x, weight));
    #[cfg(feature = "flex")]
    if crate::has_kernels(&x)
        && let [Some(first), Some(second), Some(third)] = weights.each_ref().map(Weight::frozen)
    {
        use crate::FusedOps;
        let (first, second, third) = burn::backend::Dispatch::frozen_linears(FrozenLinears {
            x: x.into_dispatch(),
            weights: [first, second, third],
        });
        return [first, second, third].map(Tensor::from_dispatch);
    }
    weights.map(|weight| linear(x.clone(), weight))
}

fn assert_fits<const D: usize>(x: &Tensor<D>, weight: &Matrix) {
    let ([inner, _], d_in) = (weight.dims(), x.dims()[D - 1]);
    assert_eq!(d_in, inner, "a linear layer of another input size");
}

/// Burn's product, of all rows at once.
fn composed<const D: usize>(x: Tensor<D>, weight: Matrix) -> Tensor<D> {
    let mut dims = x.dims();
    let [d_in, d_out] = weight.dims();
    let rows = dims[..D - 1].iter().product::<usize>();
    dims[D - 1] = d_out;
    let weight = weight.to_tensor(x.dtype(), &x.device());
    module::linear(x.reshape([rows, d_in]), weight, None).reshape(dims)
}

/// Whether `weight` is one that the kernels take for a constant: of the CPU, in f32 or bf16, not trained.
#[cfg(feature = "flex")]
pub(crate) fn is_frozen<const D: usize>(weight: &Tensor<D>) -> bool {
    use burn::tensor::DType;
    !weight.is_tracked()
        && matches!(weight.dtype(), DType::F32 | DType::BF16)
        && weight
            .clone()
            .inner()
            .try_into_primitive::<burn::backend::Flex>()
            .is_ok()
}

/// [`linear()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct FrozenLinear<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) weight: Weight,
}

/// [`linears()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct FrozenLinears<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) weights: [Weight; 3],
}

#[cfg(feature = "flex")]
mod cpu {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;

    use burn::tensor::{Shape, TensorData};

    use super::{FrozenLinear, FrozenLinears};
    use crate::autodiff::Operation;
    use crate::cpu::panel_product::Activations;
    use crate::cpu::weight::Weight;
    use crate::values::{Values, matrix_dims};

    impl Operation<Flex, 1, 1> for FrozenLinear<Flex> {
        type Kept = [Weight; 1];

        fn forward(self) -> ([FlexTensor; 1], [Weight; 1]) {
            let weights = [self.weight];
            (products(self.x, &weights), weights)
        }

        fn backward(
            weights: [Weight; 1],
            grads: [Option<FlexTensor>; 1],
            _wanted: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            [backward(&weights, grads)]
        }
    }

    impl Operation<Flex, 1, 3> for FrozenLinears<Flex> {
        type Kept = [Weight; 3];

        fn forward(self) -> ([FlexTensor; 3], [Weight; 3]) {
            (products(self.x, &self.weights), self.weights)
        }

        fn backward(
            weights: [Weight; 3],
            grads: [Option<FlexTensor>; 3],
            _wanted: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            [backward(&weights, grads)]
        }
    }

    /// `x` times every weight.
    fn products<const N: usize>(x: FlexTensor, weights: &[Weight; N]) -> [FlexTensor; N] {
        let (dims, shape) = (matrix_dims(&x), x.layout().shape().clone());
        let x = Values::of(x);
        let x = Activations::new(&x, dims);
        weights.each_ref().map(|weight| {
            let [_, d_out] = weight.dims();
            with_last_axis(weight.forward(&x), &shape, d_out)
        })
    }

    fn with_last_axis(numbers: Vec<f32>, shape: &Shape, last: usize) -> FlexTensor {
        let mut shape = shape.clone();
        let axis = shape.num_dims() - 1;
        shape[axis] = last;
        FlexTensor::from_data(TensorData::new(numbers, shape))
    }

    /// `Σ grad Wᵀ`.
    fn backward<const N: usize>(
        weights: &[Weight; N],
        grads: [Option<FlexTensor>; N],
    ) -> Option<FlexTensor> {
        let mut sum: Option<(Vec<f32>, Shape, usize)> = None;
        for (weight, grad) in weights.iter().zip(grads) {
            let Some(grad) = grad else { continue };
            let (dims, shape) = (matrix_dims(&grad), grad.layout().shape().clone());
            let grad = Values::of(grad);
            let grad = Activations::new(&grad, dims);
            match &mut sum {
                None => sum = Some((weight.backward(&grad), shape, weight.dims()[0])),
                Some((sum, ..)) => weight.add_backward(&grad, sum),
            }
        }
        sum.map(|(sum, shape, d_in)| with_last_axis(sum, &shape, d_in))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Tensor};

    use super::{linear, linears};

    fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::zeros(shape, &Device::flex())
    }

    #[test]
    #[should_panic(expected = "a linear layer of another input size")]
    fn the_layer_reads_the_last_axis() {
        linear(zeros([2, 5, 4]), zeros([5, 3]));
    }

    #[test]
    #[should_panic(expected = "a linear layer of another input size")]
    fn every_layer_reads_the_last_axis() {
        linears(zeros([2, 4]), [[4, 3], [4, 2], [3, 4]].map(zeros));
    }

    #[test]
    fn no_rows_and_no_inputs_are_alike_in_every_format() {
        let device = Device::flex().autodiff();
        for dtype in [DType::F32, DType::BF16] {
            for turned in [false, true] {
                let weight = |[d_in, d_out]: [usize; 2]| {
                    let frozen = match turned {
                        true => zeros([d_out, d_in]).transpose(),
                        false => zeros([d_in, d_out]),
                    };
                    frozen.cast(dtype)
                };
                let x = Tensor::<3>::zeros([2, 0, 4], &device).require_grad();
                let [a, b, c] = linears(x.clone(), [3, 2, 5].map(|d_out| weight([4, d_out])));
                assert_eq!(
                    [a.dims(), b.dims(), c.dims()],
                    [3, 2, 5].map(|d_out| [2, 0, d_out])
                );
                let grads = (a.sum() + b.sum() + c.sum()).backward();
                assert_eq!(x.grad(&grads).map(|grad| grad.dims()), Some([2, 0, 4]));
                let nothing = linear(zeros([2, 3, 0]), weight([0, 5]));
                assert_eq!(nothing.into_data(), zeros([2, 3, 5]).into_data());
            }
        }
    }
}
