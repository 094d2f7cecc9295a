//! Operations with several outputs, for Burn's autodiff, whose operations have one.
//!
//! The operation itself is a node that holds a single number, and its outputs are nodes below it. What comes back to them is
//! gathered here. The operation's own backward pass comes after theirs, and takes the gradients that there are.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, OpsPrep, Tracked};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Flex};

use crate::values::tensor;

/// Gradients of the `N` outputs of one operation; none of an output that the loss does not depend on.
#[derive(Clone, Debug)]
pub(crate) struct Gathered<const N: usize>(Arc<Mutex<[Option<FlexTensor>; N]>>);

impl<const N: usize> Gathered<N> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new([const { None }; N])))
    }

    /// For the operation's backward pass, once.
    pub(crate) fn take(&self) -> [Option<FlexTensor>; N] {
        let mut gradients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *gradients, [const { None }; N])
    }
}

/// What stands in the graph for the operation itself.
fn number() -> FlexTensor {
    tensor(vec![0.0], [1])
}

/// The outputs of an operation that has a backward pass, as autodiff sees them.
pub(crate) fn finish<O, S, C, const I: usize, const N: usize>(
    operation: OpsPrep<O, Flex, (S, Gathered<N>), C, I, Tracked>,
    state: S,
    outputs: [FlexTensor; N],
) -> [FloatTensor<Autodiff<Flex, C>>; N]
where
    O: Backward<Flex, I, State = (S, Gathered<N>)>,
    S: Clone + Send + Debug + 'static,
    C: CheckpointStrategy,
{
    let gathered = Gathered::new();
    let itself = operation.finish((state, gathered.clone()), number());
    let mut index = 0..N;
    outputs.map(|output| {
        let index = index.next().expect("one index per output");
        match OutputBackward
            .prepare::<C>([itself.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish((gathered.clone(), index), output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    })
}

/// The outputs of one that has none.
pub(crate) fn untracked<C: CheckpointStrategy, const N: usize>(
    outputs: [FlexTensor; N],
) -> [FloatTensor<Autodiff<Flex, C>>; N] {
    outputs.map(<Autodiff<Flex, C> as AutodiffBackend>::from_inner)
}

/// Of one output.
#[derive(Debug)]
struct OutputBackward<const N: usize>;

impl<const N: usize> Backward<Flex, 1> for OutputBackward<N> {
    /// Which output it is.
    type State = (Gathered<N>, usize);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<Flex>(&ops.node);
        let [Some(itself)] = ops.parents else { return };
        let (gathered, index) = ops.state;
        gathered.0.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(grad);
        // So that the operation's turn comes.
        grads.register::<Flex>(itself.id, number());
    }
}
