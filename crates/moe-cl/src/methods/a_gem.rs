//! A-GEM (Chaudhry et al., arXiv 1812.00420): a step that would raise the loss on earlier examples loses the part that does.

use std::{collections::BTreeMap, io};

use burn::{module::Module, optim::GradientsParams};

use super::{
    AfterBackward, Card, LearntTask, Method, Options, Piece, RehearsalConfig, Reservoir,
    rehearsal::rehearsal_loss,
};
use crate::{
    learner::Learner,
    training::optimizer::{map_gradients, sum_over},
};

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
    let mut of_b = BTreeMap::new();
    map_gradients(module, b, |id, gradient| {
        of_b.extend(gradient.map(|gradient| (id.val(), gradient)));
        None
    });
    sum_over(module, a, |id, a| Some((a * of_b.remove(&id.val())?).sum()))
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
    let factor = along / dot(module, reference, reference);
    let mut parts = BTreeMap::new();
    map_gradients(module, reference, |id, gradient| {
        parts.extend(gradient.map(|gradient| (id.val(), gradient * factor)));
        None
    });
    map_gradients(module, &gradients, |id, gradient| {
        match (gradient, parts.remove(&id.val())) {
            (Some(gradient), Some(part)) => Some(gradient - part),
            (gradient, None) => gradient,
            (None, Some(part)) => Some(part.neg()),
        }
    })
}

impl Options for AGem {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(self.clone())
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

    fn constrain(
        &self,
        gradients: GradientsParams,
        mut after: AfterBackward<'_>,
    ) -> GradientsParams {
        let drawn = self.reservoir.draw(self.options.batch_size, &mut after.rng);
        let AfterBackward {
            base,
            learner,
            collate,
            ..
        } = after;
        match rehearsal_loss(base, learner, collate, &drawn) {
            Some(loss) => {
                let reference = GradientsParams::from_grads(loss.backward(), learner);
                project(learner, gradients, &reference)
            }
            None => gradients,
        }
    }

    /// What is rehearsed goes through the head of its own task.
    fn trains_earlier_heads(&self) -> bool {
        true
    }

    fn finish(&mut self, learner: Learner, learnt: LearntTask<'_>) -> Learner {
        self.reservoir.take(learnt, self.options.budget);
        learner
    }

    fn memory(&self) -> io::Result<Vec<Piece>> {
        self.reservoir.memory()
    }

    fn restore(&mut self, memory: &[Piece]) -> io::Result<()> {
        self.reservoir = Reservoir::restored(memory)?;
        Ok(())
    }
}
