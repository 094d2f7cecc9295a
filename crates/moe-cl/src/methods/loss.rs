//! The loss of one batch, and the forward pass of the methods that have nothing to add to it.

use burn::tensor::Tensor;
use moe_core::model::Routed;
use moe_lora::router::{Dispatch, LossKind, RouterLoss};
use moe_lora::{Forward, Routing};

use super::Step;
use crate::objective::task_loss;

/// The part of an optimiser step's loss that one batch gives: over the micro-batches of a step, every number here is to be added
/// up ([`Place`](super::Place)). Gradients flow from `total`; the rest is for the log.
pub struct Loss {
    /// What is minimised, shape `[1]`.
    pub total: Tensor<1>,
    /// Loss of the task alone, shape `[1]`, detached.
    pub task: Tensor<1>,
    /// What else the method has to say of the batch: figures by their names in [`Event::Step`](crate::events::Event::Step), shape
    /// `[1]` each, detached.
    pub figures: Vec<(&'static str, Tensor<1>)>,
    /// Where each sparse layer of the base sent the batch's tokens, lowest first: its index, and what its router chose.
    pub routed: Vec<(usize, Routed)>,
    /// Where each router of the method's own sent them, lowest layer first: the layer's index, and what was chosen.
    pub dispatched: Vec<(usize, Dispatch)>,
}

impl Loss {
    /// The loss of the task and nothing else, shape `[1]`.
    pub(super) fn of_task(loss: Tensor<1>) -> Self {
        Self {
            task: loss.clone().detach(),
            total: loss,
            figures: Vec::new(),
            routed: Vec::new(),
            dispatched: Vec::new(),
        }
    }

    /// With the routers' own losses, at the batch's `share` of its step: each kind a figure, the sum over the layers without coefficients.
    fn with_routers(mut self, dispatched: Vec<(usize, Dispatch)>, share: f64) -> Self {
        let losses = dispatched.iter().flat_map(|(_, it)| it.losses.clone());
        let losses: Vec<RouterLoss> = losses.collect();
        self.dispatched = dispatched;
        self.with_losses_of_routers(losses, share)
    }

    /// With losses of routers times their coefficients and `share`; each kind a figure, the sum without coefficients.
    pub(crate) fn with_losses_of_routers(mut self, losses: Vec<RouterLoss>, share: f64) -> Self {
        for loss in losses {
            let (name, value) = (figure_of(loss.kind), loss.value.clone().detach() * share);
            match self.figures.iter_mut().find(|(called, _)| *called == name) {
                Some((_, sum)) => *sum = sum.clone() + value,
                None => self.figures.push((name, value)),
            }
            self = self.plus(loss.value * (loss.coefficient * share));
        }
        self
    }

    /// The figure called `name`, shape `[1]`; none where the method does not have it.
    pub fn figure(&self, name: &str) -> Option<Tensor<1>> {
        let named = |(called, _): &&(&str, Tensor<1>)| *called == name;
        self.figures.iter().find(named).map(|(_, it)| it.clone())
    }

    /// With another term to minimise, shape `[1]`.
    pub(crate) fn plus(mut self, term: Tensor<1>) -> Self {
        self.total = self.total + term;
        self
    }
}

/// The figure of a router's loss.
fn figure_of(kind: LossKind) -> &'static str {
    match kind {
        LossKind::Balance => "router/balance",
        LossKind::Importance => "router/importance",
        LossKind::Load => "router/load",
        LossKind::Z => "router/z",
    }
}

/// Forward through one routing and the loss of the task: what every method without an adversary does.
pub(super) fn routed_loss(step: &Step<'_>, routing: &Routing) -> Loss {
    let forward = step.learner.catalogue.forward(
        step.base,
        &step.batch.texts,
        routing,
        None,
        step.dropout.as_ref(),
    );
    loss_of(step, forward)
}

/// The batch's part of the loss of the task after a forward pass, with the losses of the method's own routers.
pub(super) fn loss_of(step: &Step<'_>, forward: Forward) -> Loss {
    let loss = Loss {
        routed: forward.routed,
        ..loss_of_hidden(step, forward.hidden)
    };
    loss.with_routers(forward.dispatched, step.share())
}

/// The batch's part of the loss of the task, at `hidden [batch, seq, d_model]`.
pub(super) fn loss_of_hidden(step: &Step<'_>, hidden: Tensor<3>) -> Loss {
    let Step {
        base,
        learner,
        batch,
        task,
        ..
    } = *step;
    let mean = task_loss(base, learner, task, hidden, batch);
    Loss::of_task(mean * step.share())
}
