//! Operations with several outputs, for Burn's autodiff, whose operations have one.
//!
//! The operation itself is a node that holds a single number, and its outputs are nodes below it. What comes back to them is
//! gathered here. The operation's own backward pass comes after theirs, and takes the gradients that there are.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::Shape;

use super::{Operation, pull};

/// The outputs of an operation that has several. As [`one`](super::one) otherwise.
pub(crate) fn several<B, C, T, const I: usize, const O: usize>(
    inputs: [FloatTensor<Autodiff<B, C>>; I],
    operation: impl FnOnce([FloatTensor<B>; I]) -> T,
) -> [FloatTensor<Autodiff<B, C>>; O]
where
    B: Backend,
    C: CheckpointStrategy,
    T: Operation<B, I, O>,
{
    let nodes = inputs.each_ref().map(|input| input.node());
    let operation = operation(inputs.map(|input| input.into_primitive()));
    let step = match Several::<T, O>(PhantomData)
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(step) => step,
        OpsKind::UnTracked(_) => {
            let outputs = operation.outputs();
            return outputs.map(<Autodiff<B, C> as AutodiffBackend>::from_inner);
        }
    };
    let (outputs, kept) = operation.forward();
    let gathered = Gathered::new();
    let itself = step.finish((kept, gathered.clone()), number::<B>(&outputs[0]));
    let mut index = 0..O;
    outputs.map(|output| {
        let index = index.next().expect("one index per output");
        match Output
            .prepare::<C>([itself.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish((gathered.clone(), index), output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    })
}

/// Gradients of the `O` outputs of one operation; none of an output that the loss does not depend on.
#[derive(Clone, Debug)]
struct Gathered<B: Backend, const O: usize>(Arc<Mutex<[Option<FloatTensor<B>>; O]>>);

impl<B: Backend, const O: usize> Gathered<B, O> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new([const { None }; O])))
    }

    fn put(&self, index: usize, grad: FloatTensor<B>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(grad);
    }

    /// For the operation's backward pass, once.
    fn take(&self) -> [Option<FloatTensor<B>>; O] {
        let mut gradients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *gradients, [const { None }; O])
    }
}

/// What stands in the graph for the operation itself.
fn number<B: Backend>(output: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_zeros(Shape::new([1]), &output.device(), output.dtype().into())
}

/// The backward step of the operation itself.
#[derive(Debug)]
struct Several<T, const O: usize>(PhantomData<T>);

impl<B, T, const I: usize, const O: usize> Backward<B, I> for Several<T, O>
where
    B: Backend,
    T: Operation<B, I, O>,
{
    type State = (T::Kept, Gathered<B, O>);

    fn backward(
        self,
        Ops {
            parents,
            node,
            state: (kept, gathered),
        }: Ops<Self::State, I>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        grads.consume::<B>(&node);
        let parents = parents.map(|parent| parent.map(|node| node.id));
        pull::<B, T, I, O>(parents, kept, gathered.take(), grads);
    }
}

/// The backward step of one output.
#[derive(Debug)]
struct Output<const O: usize>;

impl<B: Backend, const O: usize> Backward<B, 1> for Output<O> {
    /// Which output it is.
    type State = (Gathered<B, O>, usize);

    fn backward(
        self,
        Ops {
            parents,
            node,
            state: (gathered, index),
        }: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&node);
        let [Some(itself)] = parents else { return };
        // So that the operation's turn comes.
        grads.register::<B>(itself.id, number::<B>(&grad));
        gathered.put(index, grad);
    }
}
