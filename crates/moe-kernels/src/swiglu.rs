use burn::tensor::Tensor;

/// `silu(gate) ⊙ up`, of equal shapes (Shazeer 2020, "GLU Variants Improve Transformer").
///
/// # Panics
///
/// When the shapes differ.
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "gate and up of different shapes");
    #[cfg(feature = "flex")]
    if crate::has_kernels(&gate) && crate::has_kernels(&up) {
        use crate::FusedOps;
        return Tensor::from_dispatch(burn::backend::Dispatch::swiglu(
            gate.into_dispatch(),
            up.into_dispatch(),
        ));
    }
    burn::tensor::activation::silu(gate) * up
}

#[cfg(feature = "flex")]
pub(crate) mod cpu {
    use burn::backend::Flex;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops};
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorData;
    use rayon::prelude::*;

    use crate::cpu::exp::sigmoid;
    use crate::cpu::pieces::filled;
    use crate::cpu::vectorised;
    use crate::values::Values;

    /// Numbers of one task.
    const STEP: usize = 1 << 14;

    vectorised! {
        fn forward_numbers(gate: &[f32], up: &[f32], out: &mut [f32]) {
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate * sigmoid(*gate) * up;
            }
        }
    }

    vectorised! {
        fn backward_numbers(gate: &[f32], up: &[f32], grad: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
            let inputs = gate.iter().zip(up).zip(grad);
            for (((gate, up), grad), (d_gate, d_up)) in inputs.zip(d_gate.iter_mut().zip(d_up)) {
                let s = sigmoid(*gate);
                let silu = gate * s;
                *d_up = grad * silu;
                *d_gate = grad * up * silu.mul_add(1.0 - s, s);
            }
        }
    }

    pub(crate) fn forward(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let shape = gate.layout().shape().clone();
        let (gate, up) = (Values::of(gate), Values::of(up));
        let out = filled(gate.len(), STEP, |place, out| {
            forward_numbers(&gate[place.clone()], &up[place], out);
        });
        FlexTensor::from_data(TensorData::new(out, shape))
    }

    #[derive(Debug)]
    pub(crate) struct SwigluBackward;

    impl Backward<Flex, 2> for SwigluBackward {
        /// Gate and up.
        type State = [FlexTensor; 2];

        fn backward(
            self,
            ops: Ops<Self::State, 2>,
            grads: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let grad = Values::of(grads.consume::<Flex>(&ops.node));
            let shape = ops.state[0].layout().shape().clone();
            let [gate, up] = ops.state.map(Values::of);
            let (mut d_gate, mut d_up) = (vec![0.0; grad.len()], vec![0.0; grad.len()]);
            let inputs = gate
                .par_chunks(STEP)
                .zip(up.par_chunks(STEP))
                .zip(grad.par_chunks(STEP));
            d_gate
                .par_chunks_mut(STEP)
                .zip(d_up.par_chunks_mut(STEP))
                .zip(inputs)
                .for_each(|((d_gate, d_up), ((gate, up), grad))| {
                    backward_numbers(gate, up, grad, d_gate, d_up);
                });
            for (parent, grad) in ops.parents.into_iter().zip([d_gate, d_up]) {
                if let Some(parent) = parent {
                    let grad = FlexTensor::from_data(TensorData::new(grad, shape.clone()));
                    grads.register::<Flex>(parent.id, grad);
                }
            }
        }
    }
}
