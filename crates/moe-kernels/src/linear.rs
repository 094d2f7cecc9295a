use burn::tensor::{Tensor, module};

/// `x [..., d_in]` → `x W [..., d_out]` with `weight [d_in, d_out]`.
///
/// The fast way is for frozen weights: the gradient goes to `x` alone. A weight that is tracked goes through Burn's product.
/// A frozen weight may be in bf16, with `x` and the result in f32; on a processor with AVX-512 BF16 `x` is then rounded to bf16 as
/// well (a relative error of at most 2⁻⁹ per number), and summed in f32.
///
/// # Panics
///
/// When the inner axes differ.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    assert_fits(&x, &weight);
    #[cfg(feature = "flex")]
    if crate::has_kernels(&x) && is_frozen(&weight) {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::frozen_linear(
            x.into_dispatch(),
            weight.into_dispatch(),
        ));
    }
    composed(x, weight)
}

/// [`linear()`] of one `x` with three weights, as self-attention starts: what is made of `x` for a product is made once, and its
/// gradient is summed within the products.
///
/// # Panics
///
/// When the inner axes differ.
pub fn linears<const D: usize>(x: Tensor<D>, weights: [Tensor<2>; 3]) -> [Tensor<D>; 3] {
    weights.iter().for_each(|weight| assert_fits(&x, weight));
    #[cfg(feature = "flex")]
    if crate::has_kernels(&x) && weights.iter().all(is_frozen) {
        use crate::FusedOps;
        let [first, second, third] = weights.map(Tensor::into_dispatch);
        let (first, second, third) =
            burn::backend::Dispatch::frozen_linears(x.into_dispatch(), first, second, third);
        return [first, second, third].map(Tensor::from_dispatch);
    }
    weights.map(|weight| linear(x.clone(), weight))
}

fn assert_fits<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>) {
    let ([inner, _], d_in) = (weight.dims(), x.dims()[D - 1]);
    assert_eq!(d_in, inner, "a linear layer of another input size");
}

/// Burn's product, of all rows at once.
fn composed<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    let mut dims = x.dims();
    let [d_in, d_out] = weight.dims();
    let rows = dims[..D - 1].iter().product::<usize>();
    dims[D - 1] = d_out;
    let weight = weight.cast(x.dtype());
    module::linear(x.reshape([rows, d_in]), weight, None).reshape(dims)
}

/// Whether `weight` is one that the kernels take for a constant: of the CPU, in f32 or bf16, not trained.
#[cfg(feature = "flex")]
pub(crate) fn is_frozen(weight: &Tensor<2>) -> bool {
    use burn::tensor::DType;
    !weight.is_tracked()
        && matches!(weight.dtype(), DType::F32 | DType::BF16)
        && weight
            .clone()
            .inner()
            .try_into_primitive::<burn::backend::Flex>()
            .is_ok()
}

#[cfg(feature = "flex")]
pub(crate) mod cpu {
    use burn::backend::Flex;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops};
    use burn::backend::flex::FlexTensor;

    use burn::tensor::{Shape, TensorData};

    use crate::cpu::panel_product::Activations;
    use crate::cpu::weight::Weight;
    use crate::outputs::Gathered;
    use crate::values::{Values, matrix_dims};

    pub(crate) fn forward(x: FlexTensor, weight: &Weight) -> FlexTensor {
        let [out] = products(x, [weight]);
        out
    }

    /// `x` times every weight.
    pub(crate) fn products<const N: usize>(
        x: FlexTensor,
        weights: [&Weight; N],
    ) -> [FlexTensor; N] {
        let ([rows, _], shape) = (matrix_dims(&x), x.layout().shape().clone());
        let x = Values::of(x);
        let x = Activations::new(&x, rows);
        weights.map(|weight| {
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

    #[derive(Debug)]
    pub(crate) struct LinearBackward;

    impl Backward<Flex, 1> for LinearBackward {
        type State = Weight;

        fn backward(
            self,
            ops: Ops<Weight, 1>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let grad = grads.consume::<Flex>(&ops.node);
            let [Some(x)] = ops.parents else { return };
            if let Some(out) = backward([(&ops.state, grad)]) {
                grads.register::<Flex>(x.id, out);
            }
        }
    }

    #[derive(Debug)]
    pub(crate) struct LinearsBackward;

    impl Backward<Flex, 1> for LinearsBackward {
        type State = ([Weight; 3], Gathered<3>);

        fn backward(
            self,
            ops: Ops<Self::State, 1>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let (weights, gathered) = ops.state;
            grads.consume::<Flex>(&ops.node);
            let gradients = gathered.take();
            let [Some(x)] = ops.parents else { return };
            let parts = weights.iter().zip(gradients);
            if let Some(out) = backward(parts.filter_map(|(weight, grad)| Some((weight, grad?)))) {
                grads.register::<Flex>(x.id, out);
            }
        }
    }

    /// `Σ grad Wᵀ`.
    fn backward<'a>(
        parts: impl IntoIterator<Item = (&'a Weight, FlexTensor)>,
    ) -> Option<FlexTensor> {
        let mut sum: Option<(Vec<f32>, Shape, usize)> = None;
        for (weight, grad) in parts {
            let ([rows, _], shape) = (matrix_dims(&grad), grad.layout().shape().clone());
            let grad = Values::of(grad);
            let grad = Activations::new(&grad, rows);
            match &mut sum {
                None => sum = Some((weight.backward(&grad), shape, weight.dims()[0])),
                Some((sum, ..)) => weight.add_backward(&grad, sum),
            }
        }
        sum.map(|(sum, shape, d_in)| with_last_axis(sum, &shape, d_in))
    }
}
