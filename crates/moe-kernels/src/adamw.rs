use burn::optim::{AdamWConfig, AdamWState, LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};

/// AdamW (Loshchilov & Hutter, arXiv 1711.05101): Burn's, to the last bit, in one pass over each parameter.
///
/// Burn's own takes about ten passes, each of which writes a tensor; it still runs wherever this crate has no kernels.
#[derive(Clone)]
pub struct AdamW {
    #[cfg(feature = "flex")]
    constants: cpu::Constants,
    burns: burn::optim::AdamW,
}

impl AdamW {
    /// `epsilon` is added outside the square root; `weight_decay` is decoupled from the step.
    pub fn new(betas: [f32; 2], epsilon: f32, weight_decay: f32) -> Self {
        let burns = AdamWConfig::new()
            .with_beta_1(betas[0])
            .with_beta_2(betas[1])
            .with_epsilon(epsilon)
            .with_weight_decay(weight_decay)
            .build();
        Self {
            #[cfg(feature = "flex")]
            constants: cpu::Constants {
                betas,
                epsilon,
                weight_decay,
            },
            burns,
        }
    }
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    /// # Panics
    ///
    /// When the gradient or the moments are of another shape than the parameter.
    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let shape = parameter.dims();
        assert_eq!(gradient.dims(), shape, "a gradient of another shape");
        if let Some(AdamWState { momentum }) = &state {
            assert_eq!(momentum.moment_1.dims(), shape, "a mean of another shape");
            assert_eq!(momentum.moment_2.dims(), shape, "a spread of another shape");
        }
        #[cfg(feature = "flex")]
        if [&parameter, &gradient]
            .iter()
            .all(|x| crate::has_kernels(x) && !x.device().is_autodiff())
        {
            return cpu::step(self.constants, rate, parameter, gradient, state);
        }
        self.burns.step(rate, parameter, gradient, state)
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        burn::optim::AdamW::to_device(state, device)
    }
}

#[cfg(feature = "flex")]
mod cpu {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use burn::optim::{AdamWState, AdaptiveMomentumState};
    use burn::tensor::{Tensor, TensorData};
    use rayon::prelude::*;

    use crate::cpu::pieces::Buffer;
    use crate::cpu::vectorised;
    use crate::values::Values;

    /// Numbers of one task.
    const STEP: usize = 1 << 14;

    #[derive(Clone, Copy)]
    pub(super) struct Constants {
        pub(super) betas: [f32; 2],
        pub(super) epsilon: f32,
        pub(super) weight_decay: f32,
    }

    /// What is the same for every number of a step.
    #[derive(Clone, Copy)]
    struct Factors {
        betas: [f32; 2],
        /// `1 − βᵢ`.
        rests: [f32; 2],
        /// `1 − βᵢᵗ`.
        corrections: [f32; 2],
        epsilon: f32,
        rate: f32,
        /// `1 − rate · weight decay`.
        kept: f32,
    }

    vectorised! {
        /// The order of Burn's operations, so that the results are Burn's to the last bit.
        fn update(factors: &Factors, gradient: &[f32], parameter: &mut [f32], first: &mut [f32], second: &mut [f32]) {
            let Factors { betas, rests, corrections, epsilon, rate, kept } = *factors;
            let moments = first.iter_mut().zip(second);
            for ((parameter, gradient), (first, second)) in parameter.iter_mut().zip(gradient).zip(moments) {
                *first = *first * betas[0] + gradient * rests[0];
                *second = *second * betas[1] + gradient * gradient * rests[1];
                let spread = (*second / corrections[1]).sqrt() + epsilon;
                let delta = *first / corrections[0] / spread;
                *parameter = *parameter * kept - delta * rate;
            }
        }
    }

    pub(super) fn step<const D: usize>(
        constants: Constants,
        rate: f64,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let momentum = state.map(|state| state.momentum);
        let time = momentum.as_ref().map_or(0, |momentum| momentum.time) + 1;
        let before = momentum.map(|momentum| [momentum.moment_1, momentum.moment_2].map(values));
        let decay = rate * f64::from(constants.weight_decay);
        let factors = Factors {
            betas: constants.betas,
            rests: constants.betas.map(|beta| 1.0 - beta),
            corrections: constants.betas.map(|beta| 1.0 - beta.powi(time as i32)),
            epsilon: constants.epsilon,
            rate: rate as f32,
            kept: (1.0 - decay) as f32,
        };
        let shape = parameter.shape();
        let (parameter, gradient) = (values(parameter), values(gradient));
        let length = parameter.len();
        let mut results = [0; 3].map(|_| Buffer::new(length));
        let pieces = results.each_mut().map(Buffer::pieces);
        (0..length.div_ceil(STEP)).into_par_iter().for_each(|task| {
            let place = task * STEP..length.min((task + 1) * STEP);
            // SAFETY: every task has a place of its own.
            let [parameter_out, first, second] =
                pieces.map(|piece| unsafe { piece.zeroed(place.start, place.len()) });
            parameter_out.copy_from_slice(&parameter[place.clone()]);
            if let Some(before) = &before {
                first.copy_from_slice(&before[0][place.clone()]);
                second.copy_from_slice(&before[1][place.clone()]);
            }
            update(&factors, &gradient[place], parameter_out, first, second);
        });
        let [parameter, moment_1, moment_2] = results.map(|result| {
            // SAFETY: the places of all tasks are all there is.
            let numbers = unsafe { result.written() };
            let result = FlexTensor::from_data(TensorData::new(numbers, shape.clone()));
            Tensor::from_primitive::<Flex>(result)
        });
        let momentum = AdaptiveMomentumState {
            time,
            moment_1,
            moment_2,
            max_moment_2: None,
        };
        (parameter, Some(AdamWState { momentum }))
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Values {
        Values::of(
            tensor
                .try_into_primitive::<Flex>()
                .expect("a tensor of the CPU"),
        )
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::{AdamWState, Optimizer};
    use burn::tensor::{Device, Tensor};

    use super::AdamW;

    fn zeros(shape: [usize; 2]) -> Tensor<2> {
        Tensor::zeros(shape, &Device::flex())
    }

    /// A second step, of a parameter `[2, 3]`.
    fn step(gradient: [usize; 2], change: impl FnOnce(&mut AdamWState<2>)) -> Tensor<2> {
        let adamw = AdamW::new([0.9, 0.999], 1e-8, 0.01);
        let (parameter, state) = adamw.step(1e-3, zeros([2, 3]), zeros([2, 3]), None);
        let state = state.map(|mut state| {
            change(&mut state);
            state
        });
        adamw.step(1e-3, parameter, zeros(gradient), state).0
    }

    #[test]
    fn shapes_that_fit_are_taken() {
        assert_eq!(step([2, 3], |_| ()).dims(), [2, 3]);
    }

    #[test]
    #[should_panic(expected = "a gradient of another shape")]
    fn every_number_has_its_gradient() {
        step([3, 2], |_| ());
    }

    #[test]
    #[should_panic(expected = "a mean of another shape")]
    fn every_number_has_its_mean() {
        step([2, 3], |state| state.momentum.moment_1 = zeros([2, 4]));
    }

    #[test]
    #[should_panic(expected = "a spread of another shape")]
    fn every_number_has_its_spread() {
        step([2, 3], |state| state.momentum.moment_2 = zeros([2, 4]));
    }
}
