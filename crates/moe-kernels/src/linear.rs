use burn::tensor::{Tensor, module};

/// `x [tokens, d_in]` → `x W [tokens, d_out]` with `weight [d_in, d_out]`.
///
/// The fast way is for frozen weights: the gradient goes to `x` alone. A weight that is tracked goes through Burn's product.
/// A frozen weight may be in bf16, with `x` and the result in f32; on a processor with AVX-512 BF16 `x` is then rounded to bf16 as
/// well (a relative error of at most 2⁻⁹ per number), and summed in f32.
///
/// # Panics
///
/// When the inner axes differ.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let ([_, d_in], [inner, _]) = (x.dims(), weight.dims());
    assert_eq!(d_in, inner, "a linear layer of another input size");
    #[cfg(feature = "flex")]
    if crate::has_kernels(&x) && is_frozen(&weight) {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::frozen_linear(
            x.into_dispatch(),
            weight.into_dispatch(),
        ));
    }
    let weight = weight.cast(x.dtype());
    module::linear(x, weight, None)
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

    use crate::cpu::panel_product::Activations;
    use crate::cpu::weight::Weight;
    use crate::values::{Values, matrix_dims, tensor};

    pub(crate) fn forward(x: FlexTensor, weight: &Weight) -> FlexTensor {
        let ([n, _], [_, d_out]) = (matrix_dims(&x), weight.dims());
        let x = Values::of(x);
        tensor(weight.forward(&Activations::new(&x, n)), [n, d_out])
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
            let ([n, _], [d_in, _]) = (matrix_dims(&grad), ops.state.dims());
            let grad = Values::of(grad);
            let out = ops.state.backward(&Activations::new(&grad, n));
            grads.register::<Flex>(x.id, tensor(out, [n, d_in]));
        }
    }
}
