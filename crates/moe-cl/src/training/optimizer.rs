//! AdamW with PyTorch's constants, and clipping by the norm of all gradients together.

use std::collections::HashSet;

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::{GradientsParams, ModuleOptimizer},
    tensor::Tensor,
};
use moe_kernels::AdamW;

/// AdamW as `torch.optim.AdamW`: ε = 1e-8 outside the square root, decay decoupled from the step
/// (Loshchilov & Hutter, arXiv 1711.05101). Burn's own defaults differ in ε and decay.
pub fn adamw(betas: (f64, f64), epsilon: f64, weight_decay: f64) -> ModuleOptimizer {
    let betas = [betas.0 as f32, betas.1 as f32];
    AdamW::new(betas, epsilon as f32, weight_decay as f32).into()
}

/// √Σ‖g‖² over every gradient of `module` that is there.
pub fn gradient_norm<M: Module>(module: &M, gradients: &GradientsParams) -> f64 {
    let mut squares = Squares {
        gradients,
        total: None,
    };
    module.visit(&mut squares);
    squares
        .total
        .map_or(0.0, |total| f64::from(total.into_scalar::<f32>()).sqrt())
}

/// Scales all gradients by `max_norm / (norm + 1e-6)` where that is below one, as `clip_grad_norm_` does.
/// `norm` comes from [`gradient_norm`].
pub fn clip_by_global_norm<M: Module>(
    module: &M,
    gradients: GradientsParams,
    norm: f64,
    max_norm: f64,
) -> GradientsParams {
    let coefficient = max_norm / (norm + 1e-6);
    if coefficient >= 1.0 {
        return gradients;
    }
    let mut scale = Scale {
        gradients,
        coefficient,
    };
    module.visit(&mut scale);
    scale.gradients
}

/// Ids of the parameters of `module` that have a gradient.
pub fn with_gradient<M: Module>(module: &M, gradients: &GradientsParams) -> HashSet<ParamId> {
    let mut present = Present {
        gradients,
        ids: HashSet::new(),
    };
    module.visit(&mut present);
    present.ids
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    total: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let square = gradient.square().sum();
            self.total = Some(match self.total.take() {
                Some(total) => total + square,
                None => square,
            });
        }
    }
}

struct Scale {
    gradients: GradientsParams,
    coefficient: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients
                .register(param.id, gradient.mul_scalar(self.coefficient));
        }
    }
}

struct Present<'a> {
    gradients: &'a GradientsParams,
    ids: HashSet<ParamId>,
}

impl ModuleVisitor for Present<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.gradients.get::<D>(param.id).is_some() {
            self.ids.insert(param.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Pair {
        first: Param<Tensor<1>>,
        second: Param<Tensor<1>>,
    }

    fn pair() -> (Pair, GradientsParams) {
        let device = Device::flex().autodiff();
        let pair = Pair {
            first: Param::from_data([1.0, 2.0], &device),
            second: Param::from_data([3.0], &device),
        };
        let plain = Device::flex();
        let mut gradients = GradientsParams::new();
        gradients.register(pair.first.id, Tensor::<1>::from_data([3.0, 0.0], &plain));
        gradients.register(pair.second.id, Tensor::<1>::from_data([4.0], &plain));
        (pair, gradients)
    }

    #[test]
    fn the_norm_runs_over_all_parameters_together() {
        let (pair, gradients) = pair();
        assert!((gradient_norm(&pair, &gradients) - 5.0).abs() < 1e-6);
    }

    #[test]
    fn clipping_keeps_the_direction_and_caps_the_norm() {
        let (pair, gradients) = pair();
        let clipped = clip_by_global_norm(&pair, gradients, 5.0, 1.0);
        assert!((gradient_norm(&pair, &clipped) - 1.0).abs() < 1e-5);
        let second = clipped.get::<1>(pair.second.id).expect("still there");
        assert!((second.into_scalar::<f32>() - 0.8).abs() < 1e-5);
    }

    #[test]
    fn a_parameter_without_gradient_does_not_move() {
        let (pair, mut gradients) = pair();
        gradients.remove::<1>(pair.second.id);
        let before = pair.second.val().into_data();
        let mut optimizer = adamw((0.9, 0.999), 1e-8, 0.1);
        let after = optimizer.step(0.1, pair, gradients);
        assert_eq!(after.second.val().into_data(), before);
    }
}
