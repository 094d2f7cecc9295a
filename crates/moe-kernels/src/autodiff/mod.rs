//! Operations with a gradient by hand, and how Burn's autodiff comes to know them: the one place that does.

mod several;

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

pub(crate) use self::several::several;

/// An operation with its inputs on back end `B`, of which `I` may want a gradient; it has `O` outputs.
pub(crate) trait Operation<B: Backend, const I: usize, const O: usize>:
    Debug + Send + Sized + 'static
{
    /// What the backward pass needs of the forward pass.
    type Kept: Clone + Debug + Send + 'static;

    /// The outputs, and what the backward pass needs.
    fn forward(self) -> ([FloatTensor<B>; O], Self::Kept);

    /// The outputs where no backward pass will come.
    fn outputs(self) -> [FloatTensor<B>; O] {
        self.forward().0
    }

    /// Gradients of the outputs, none of one that the loss does not depend on, to those of the inputs. One that is not `wanted` may be
    /// left out.
    fn backward(
        kept: Self::Kept,
        grads: [Option<FloatTensor<B>>; O],
        wanted: [bool; I],
    ) -> [Option<FloatTensor<B>>; I];
}

/// The output of an operation that has one, recorded where an input is tracked; `operation` makes it of its plain inputs.
pub(crate) fn one<B, C, T, const I: usize>(
    inputs: [FloatTensor<Autodiff<B, C>>; I],
    operation: impl FnOnce([FloatTensor<B>; I]) -> T,
) -> FloatTensor<Autodiff<B, C>>
where
    B: Backend,
    C: CheckpointStrategy,
    T: Operation<B, I, 1>,
{
    let nodes = inputs.each_ref().map(|input| input.node());
    let operation = operation(inputs.map(|input| input.into_primitive()));
    match One::<T>(PhantomData)
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(step) => {
            let ([output], kept) = operation.forward();
            step.finish(kept, output)
        }
        OpsKind::UnTracked(step) => {
            let [output] = operation.outputs();
            step.finish(output)
        }
    }
}

/// The backward step of an operation with one output.
#[derive(Debug)]
struct One<T>(PhantomData<T>);

impl<B, T, const I: usize> Backward<B, I> for One<T>
where
    B: Backend,
    T: Operation<B, I, 1>,
{
    type State = T::Kept;

    fn backward(
        self,
        Ops {
            parents,
            node,
            state,
        }: Ops<T::Kept, I>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&node);
        let parents = parents.map(|parent| parent.map(|node| node.id));
        pull::<B, T, I, 1>(parents, state, [Some(grad)], grads);
    }
}

/// Pulls gradients of the outputs back to the inputs that want theirs.
fn pull<B, T, const I: usize, const O: usize>(
    inputs: [Option<NodeId>; I],
    kept: T::Kept,
    outputs: [Option<FloatTensor<B>>; O],
    grads: &mut Gradients,
) where
    B: Backend,
    T: Operation<B, I, O>,
{
    let wanted = inputs.map(|input| input.is_some());
    for (input, grad) in inputs.into_iter().zip(T::backward(kept, outputs, wanted)) {
        if let (Some(input), Some(grad)) = (input, grad) {
            grads.register::<B>(input, grad);
        }
    }
}
