use burn::tensor::{Tensor, module};

/// `x [tokens, d_in]` → `x W [tokens, d_out]` with `weight [d_in, d_out]`.
///
/// The fast way is for frozen weights: the gradient goes to `x` alone. A weight that is tracked goes through Burn's product.
///
/// # Panics
///
/// When the inner axes differ.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let ([_, d_in], [inner, _]) = (x.dims(), weight.dims());
    assert_eq!(d_in, inner, "a linear layer of another input size");
    #[cfg(feature = "flex")]
    if !weight.is_tracked() && crate::has_kernels(&x) && crate::has_kernels(&weight) {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::frozen_linear(
            x.into_dispatch(),
            weight.into_dispatch(),
        ));
    }
    module::linear(x, weight, None)
}

#[cfg(feature = "flex")]
pub(crate) mod cpu {
    use burn::backend::Flex;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops};
    use burn::backend::flex::FlexTensor;

    use crate::cpu::product::{Matrix, product};
    use crate::values::{Values, matrix_dims, tensor};

    pub(crate) fn forward(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let ([n, d_in], [_, d_out]) = (matrix_dims(&x), matrix_dims(&weight));
        let (x, weight) = (Values::of(x), Values::of(weight));
        let mut out = vec![0.0; n * d_out];
        product(
            Matrix::new(&x, n, d_in),
            Matrix::new(&weight, d_in, d_out),
            &mut out,
            false,
        );
        tensor(out, [n, d_out])
    }

    #[derive(Debug)]
    pub(crate) struct LinearBackward;

    impl Backward<Flex, 1> for LinearBackward {
        /// The weight.
        type State = FlexTensor;

        fn backward(
            self,
            ops: Ops<FlexTensor, 1>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let grad = grads.consume::<Flex>(&ops.node);
            let [Some(x)] = ops.parents else { return };
            let ([n, d_out], [d_in, _]) = (matrix_dims(&grad), matrix_dims(&ops.state));
            let (grad, weight) = (Values::of(grad), Values::of(ops.state));
            let mut out = vec![0.0; n * d_in];
            product(
                Matrix::new(&grad, n, d_out),
                Matrix::new(&weight, d_in, d_out).transposed(),
                &mut out,
                false,
            );
            grads.register::<Flex>(x.id, tensor(out, [n, d_in]));
        }
    }
}
