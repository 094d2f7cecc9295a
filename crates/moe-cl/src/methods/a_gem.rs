//! A-GEM (Chaudhry et al., arXiv 1812.00420): a step that would raise the loss on earlier examples loses the part that does.

use std::io;

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};

use super::{Card, Finished, Method, Reservoir, Setting, rehearsal::rehearsal_loss};
use crate::{config::RehearsalConfig, learner::Learner};

/// One expert and a reservoir that its gradients are held against.
#[derive(Clone, Debug)]
pub struct AGem {
    options: RehearsalConfig,
    reservoir: Reservoir,
}

impl AGem {
    /// The method with its options, before its first task.
    pub fn new(options: RehearsalConfig) -> Self {
        Self {
            options,
            reservoir: Reservoir::default(),
        }
    }
}

/// `⟨a, b⟩` over all parameters of `module` together; a missing gradient is zero.
pub fn dot(module: &impl Module, a: &GradientsParams, b: &GradientsParams) -> f64 {
    let mut dot = Dot { a, b, total: None };
    module.visit(&mut dot);
    dot.total
        .map_or(0.0, |total| f64::from(total.into_scalar::<f32>()))
}

/// `g − (⟨g, r⟩ / ⟨r, r⟩) r` where `⟨g, r⟩ < 0` (equation 11), else `g` as it is; `r` is the `reference` gradient.
pub fn project(
    module: &impl Module,
    gradients: GradientsParams,
    reference: &GradientsParams,
) -> GradientsParams {
    let along = dot(module, &gradients, reference);
    if along >= 0.0 {
        return gradients;
    }
    let mut subtract = Subtract {
        gradients,
        reference,
        factor: along / dot(module, reference, reference),
    };
    module.visit(&mut subtract);
    subtract.gradients
}

struct Dot<'a> {
    a: &'a GradientsParams,
    b: &'a GradientsParams,
    total: Option<Tensor<1>>,
}

impl ModuleVisitor for Dot<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let (Some(a), Some(b)) = (self.a.get::<D>(param.id), self.b.get::<D>(param.id)) {
            let part = (a * b).sum();
            self.total = Some(match self.total.take() {
                Some(total) => total + part,
                None => part,
            });
        }
    }
}

struct Subtract<'a> {
    gradients: GradientsParams,
    reference: &'a GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Subtract<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(reference) = self.reference.get::<D>(param.id) {
            let part = reference * self.factor;
            let gradient = match self.gradients.remove::<D>(param.id) {
                Some(gradient) => gradient - part,
                None => part.neg(),
            };
            self.gradients.register(param.id, gradient);
        }
    }
}

impl Method for AGem {
    fn name(&self) -> String {
        format!("a_gem ({})", self.options.budget)
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter, whose steps never oppose earlier examples",
            needs: "nothing",
            stores: "examples, a fixed number in all",
            source: "arXiv 1812.00420",
            strength: "64 examples in all, 8 for the reference gradient; the paper takes 256 of a larger memory; not tuned here",
        }
    }

    fn constrain(&self, gradients: GradientsParams, mut setting: Setting<'_>) -> GradientsParams {
        let drawn = self
            .reservoir
            .draw(self.options.batch_size, &mut setting.rng);
        let Setting {
            base,
            learner,
            objective,
            collate,
            ..
        } = setting;
        match rehearsal_loss(base, learner, objective, collate, &drawn) {
            Some(loss) => {
                let reference = GradientsParams::from_grads(loss.backward(), learner);
                project(learner, gradients, &reference)
            }
            None => gradients,
        }
    }

    fn finish(&mut self, learner: Learner, finished: Finished<'_>) -> Learner {
        self.reservoir.take(finished, self.options.budget);
        learner
    }

    fn memory(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(&self.reservoir)?)
    }

    fn restore(&mut self, memory: &[u8]) -> io::Result<()> {
        self.reservoir = serde_json::from_slice(memory)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        nn::Linear,
        tensor::{Device, Distribution},
    };

    use super::*;

    fn gradients(linear: &Linear, value: Tensor<2>) -> GradientsParams {
        let mut gradients = GradientsParams::new();
        gradients.register(linear.weight.id, value);
        gradients
    }

    #[test]
    fn a_projected_step_never_opposes_the_reference() {
        let device = Device::flex();
        let linear = Linear {
            weight: Param::from_tensor(Tensor::zeros([4, 5], &device.clone().autodiff())),
            bias: None,
        };
        let random = || Tensor::<2>::random([4, 5], Distribution::Normal(0.0, 1.0), &device);
        for _ in 0..50 {
            let (g, r) = (random(), random());
            let reference = gradients(&linear, r);
            let before = dot(&linear, &gradients(&linear, g.clone()), &reference);
            let projected = project(&linear, gradients(&linear, g.clone()), &reference);
            let after = dot(&linear, &projected, &reference);
            assert!(after > -1e-4, "{after}");
            if before >= 0.0 {
                let kept = projected.get::<2>(linear.weight.id).expect("registered");
                assert_eq!(kept.into_data(), g.into_data());
            }
        }
    }
}
