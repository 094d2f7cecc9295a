//! The operations as Burn's dispatch sees them: on the CPU, and on the CPU with autodiff.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::ops::{Backward, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};

use crate::cpu::weight::Weight;
use crate::{AttentionShape, MoeFfn};
use crate::{
    attention, linear, moe_ffn, outputs, rms_norm, swiglu, token_cross_entropy, token_gate,
};

/// What a back end does by itself. The functions of this crate fall back to Burn's operations for all others.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    /// See [`linear()`](fn@crate::linear).
    fn frozen_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`linears()`](fn@crate::linears).
    fn frozen_linears(
        x: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// See [`rms_norm()`](fn@crate::rms_norm).
    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;

    /// See [`add_rms_norm()`](fn@crate::add_rms_norm).
    fn add_rms_norm(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// See [`token_gate()`](fn@crate::token_gate).
    fn token_gate(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`swiglu()`](fn@crate::swiglu).
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`token_cross_entropy()`](fn@crate::token_cross_entropy).
    fn token_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Vec<usize>,
    ) -> FloatTensor<Self>;

    /// See [`attention()`](fn@crate::attention).
    fn attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        real: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self>;

    /// See [`moe_ffn()`](fn@crate::moe_ffn): the mixture, and the pooled output, of no rows when no expert is observed.
    #[allow(clippy::too_many_arguments)]
    fn moe_ffn(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        gate_a: FloatTensor<Self>,
        gate_b: FloatTensor<Self>,
        up_a: FloatTensor<Self>,
        up_b: FloatTensor<Self>,
        down_a: FloatTensor<Self>,
        down_b: FloatTensor<Self>,
        base_gate: FloatTensor<Self>,
        base_up: FloatTensor<Self>,
        base_down: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        settings: MoeFfn,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl FusedOps for Flex {
    fn frozen_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::cpu::forward(x, &Weight::of(weight))
    }

    fn frozen_linears(
        x: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let weights = [first, second, third].map(Weight::of);
        linear::cpu::products(x, weights.each_ref()).into()
    }

    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        rms_norm::cpu::forward(x, gamma, epsilon)
    }

    fn add_rms_norm(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        rms_norm::cpu::add_forward(x, y, gamma, epsilon).into()
    }

    fn token_gate(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        token_gate::cpu::forward(x, weight)
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::cpu::forward(gate, up)
    }

    fn token_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Vec<usize>,
    ) -> FloatTensor<Self> {
        token_cross_entropy::cpu::forward(hidden, &Weight::of(weight), &targets, false).0
    }

    fn attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        real: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self> {
        attention::cpu::Saved::new(query, key, value, cos, sin, real, shape)
            .forward()
            .output
    }

    fn moe_ffn(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        gate_a: FloatTensor<Self>,
        gate_b: FloatTensor<Self>,
        up_a: FloatTensor<Self>,
        up_b: FloatTensor<Self>,
        down_a: FloatTensor<Self>,
        down_b: FloatTensor<Self>,
        base_gate: FloatTensor<Self>,
        base_up: FloatTensor<Self>,
        base_down: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        settings: MoeFfn,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let learnt = [x, weights, gate_a, gate_b, up_a, up_b, down_a, down_b];
        moe_ffn::cpu::Inputs::new(learnt, [base_gate, base_up, base_down], shares, settings)
            .outputs()
            .into()
    }
}

impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
    fn frozen_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        let (x, weight) = (x.into_primitive(), Weight::of(weight.into_primitive()));
        let output = linear::cpu::forward(x, &weight);
        match linear::cpu::LinearBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish(weight, output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }

    fn frozen_linears(
        x: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let node = x.node();
        let weights = [first, second, third].map(|weight| Weight::of(weight.into_primitive()));
        let products = linear::cpu::products(x.into_primitive(), weights.each_ref());
        match linear::cpu::LinearsBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => outputs::finish(step, weights, products).into(),
            OpsKind::UnTracked(_) => outputs::untracked::<C, _>(products).into(),
        }
    }

    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        let node = x.node();
        let (x, gamma) = (x.into_primitive(), gamma.into_primitive());
        let output = rms_norm::cpu::forward(x.clone(), gamma.clone(), epsilon);
        match rms_norm::cpu::RmsNormBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish((x, gamma, epsilon), output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }

    fn add_rms_norm(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), y.node()];
        let [x, y, gamma] = [x, y, gamma].map(|tensor| tensor.into_primitive());
        let results = rms_norm::cpu::add_forward(x, y, gamma.clone(), epsilon);
        match rms_norm::cpu::AddRmsNormBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let norm = (results[0].clone(), gamma, epsilon);
                outputs::finish(step, norm, results).into()
            }
            OpsKind::UnTracked(_) => outputs::untracked::<C, _>(results).into(),
        }
    }

    fn token_gate(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(|tensor| tensor.into_primitive());
        let output = token_gate::cpu::forward(x.clone(), weight.clone());
        match token_gate::cpu::TokenGateBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish([x, weight, output.clone()], output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [gate.node(), up.node()];
        let [gate, up] = [gate, up].map(|tensor| tensor.into_primitive());
        let output = swiglu::cpu::forward(gate.clone(), up.clone());
        match swiglu::cpu::SwigluBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish([gate, up], output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }

    fn token_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Vec<usize>,
    ) -> FloatTensor<Self> {
        let node = hidden.node();
        let (hidden, weight) = (hidden.into_primitive(), Weight::of(weight.into_primitive()));
        let loss = |hidden, with_gradient| {
            token_cross_entropy::cpu::forward(hidden, &weight, &targets, with_gradient)
        };
        match token_cross_entropy::cpu::TokenCrossEntropyBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let (losses, gradient) = loss(hidden, true);
                step.finish(gradient.expect("asked for"), losses)
            }
            OpsKind::UnTracked(step) => step.finish(loss(hidden, false).0),
        }
    }

    fn attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        real: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self> {
        let nodes = [query.node(), key.node(), value.node()];
        let [query, key, value, cos, sin, real] =
            [query, key, value, cos, sin, real].map(|tensor| tensor.into_primitive());
        let saved = attention::cpu::Saved::new(query, key, value, cos, sin, real, shape);
        let result = saved.forward();
        match attention::cpu::AttentionBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let output = result.output.clone();
                step.finish((saved, result), output)
            }
            OpsKind::UnTracked(step) => step.finish(result.output),
        }
    }

    fn moe_ffn(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        gate_a: FloatTensor<Self>,
        gate_b: FloatTensor<Self>,
        up_a: FloatTensor<Self>,
        up_b: FloatTensor<Self>,
        down_a: FloatTensor<Self>,
        down_b: FloatTensor<Self>,
        base_gate: FloatTensor<Self>,
        base_up: FloatTensor<Self>,
        base_down: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        settings: MoeFfn,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let learnt = [x, weights, gate_a, gate_b, up_a, up_b, down_a, down_b];
        let nodes = learnt.each_ref().map(|tensor| tensor.node());
        let inputs = moe_ffn::cpu::Inputs::new(
            learnt.map(|tensor| tensor.into_primitive()),
            [base_gate, base_up, base_down].map(|tensor| tensor.into_primitive()),
            shares.into_primitive(),
            settings,
        );
        match moe_ffn::cpu::MoeFfnBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let (outputs, kept) = inputs.forward();
                outputs::finish(step, (inputs, kept), outputs).into()
            }
            OpsKind::UnTracked(_) => outputs::untracked::<C, _>(inputs.outputs()).into(),
        }
    }
}
