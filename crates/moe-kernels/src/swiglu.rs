#[cfg(feature = "flex")]
use burn::backend::{Backend, ExtensionType, tensor::FloatTensor};
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
        return Tensor::from_dispatch(burn::backend::Dispatch::swiglu(Swiglu {
            gate: gate.into_dispatch(),
            up: up.into_dispatch(),
        }));
    }
    burn::tensor::activation::silu(gate) * up
}

/// [`swiglu()`] as an operation.
#[cfg(feature = "flex")]
#[derive(Clone, Debug, ExtensionType)]
pub struct Swiglu<B: Backend> {
    pub(crate) gate: FloatTensor<B>,
    pub(crate) up: FloatTensor<B>,
}

#[cfg(feature = "flex")]
mod cpu {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorData;
    use rayon::prelude::*;

    use super::Swiglu;
    use crate::autodiff::Operation;
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

    impl Operation<Flex, 2, 1> for Swiglu<Flex> {
        type Kept = Self;

        fn forward(self) -> ([FlexTensor; 1], Self) {
            let shape = self.gate.layout().shape().clone();
            let [gate, up] = [&self.gate, &self.up].map(|side| Values::of(side.clone()));
            let out = filled(gate.len(), STEP, |place, out| {
                forward_numbers(&gate[place.clone()], &up[place], out);
            });
            ([FlexTensor::from_data(TensorData::new(out, shape))], self)
        }

        fn backward(
            Self { gate, up }: Self,
            [grad]: [Option<FlexTensor>; 1],
            wanted: [bool; 2],
        ) -> [Option<FlexTensor>; 2] {
            let Some(grad) = grad else {
                return [None, None];
            };
            let shape = gate.layout().shape().clone();
            let [gate, up, grad] = [gate, up, grad].map(Values::of);
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
            let [of_gate, of_up] = wanted;
            let tensor = |grad| FlexTensor::from_data(TensorData::new(grad, shape.clone()));
            [of_gate.then(|| tensor(d_gate)), of_up.then(|| tensor(d_up))]
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    #[test]
    #[should_panic(expected = "gate and up of different shapes")]
    fn gate_and_up_are_of_one_shape() {
        let [gate, up] = [[4, 5], [4, 1]].map(|shape| Tensor::<2>::zeros(shape, &Device::flex()));
        super::swiglu(gate, up);
    }
}
