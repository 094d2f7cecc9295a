//! Several matrices of one shape in one tensor, such as those of experts.

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Element, bf16};

use super::panel_product::Stored;

/// `[matrices, d_in, d_out]` in f32 or bf16.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    /// Contiguous.
    numbers: FlexTensor,
    /// `numbers` is `[matrices, d_out, d_in]`.
    turned: bool,
}

impl Stack {
    /// A transposed view of a contiguous stack is not copied.
    pub(crate) fn of(tensor: FlexTensor) -> Self {
        let turned = !tensor.is_contiguous() && tensor.transpose(1, 2).is_contiguous();
        let numbers = match turned {
            true => tensor.transpose(1, 2),
            false => tensor,
        };
        Self {
            numbers: numbers.to_contiguous(),
            turned,
        }
    }

    /// `[matrices, d_in, d_out]`.
    pub(crate) fn dims(&self) -> [usize; 3] {
        let [matrices, rows, columns] = self.stored();
        match self.turned {
            true => [matrices, columns, rows],
            false => [matrices, rows, columns],
        }
    }

    /// Whether it is in bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        self.numbers.dtype() == DType::BF16
    }

    /// The matrices `[d_in, d_out]`, of numbers in the tensor's format.
    pub(crate) fn forward<T: Number>(&self) -> Vec<Stored<'_, T>> {
        self.matrices(self.turned)
    }

    /// The matrices transposed, `[d_out, d_in]`.
    pub(crate) fn backward<T: Number>(&self) -> Vec<Stored<'_, T>> {
        self.matrices(!self.turned)
    }

    fn matrices<T: Number>(&self, turned: bool) -> Vec<Stored<'_, T>> {
        let [matrices, rows, columns] = self.stored();
        let data = T::slice(&self.numbers);
        let matrix = |index: usize| {
            let own = index * rows * columns..(index + 1) * rows * columns;
            let matrix = Stored::new(&data[own], rows, columns);
            if turned { matrix.transposed() } else { matrix }
        };
        (0..matrices).map(matrix).collect()
    }

    fn stored(&self) -> [usize; 3] {
        let dims = self.numbers.layout().shape().as_slice();
        dims.try_into().expect("a stack has three axes")
    }
}

/// A number format of stacks.
pub(crate) trait Number: Sized {
    /// The numbers of a contiguous tensor.
    fn slice(tensor: &FlexTensor) -> &[Self];
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            fn slice(tensor: &FlexTensor) -> &[Self] {
                assert_eq!(
                    tensor.dtype(),
                    <$type>::dtype(),
                    "numbers of another format"
                );
                tensor.as_slice().expect("contiguous numbers")
            }
        }
    };
}

number!(f32);
number!(bf16);
