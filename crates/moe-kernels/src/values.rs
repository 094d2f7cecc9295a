//! Between Flex's tensors and slices.

use std::ops::Deref;

use burn::backend::flex::FlexTensor;
use burn::tensor::TensorData;

/// The numbers of a 32-bit tensor, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Values(FlexTensor);

impl Values {
    pub(crate) fn of(tensor: FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice().expect("contiguous 32-bit floats")
    }
}

/// A tensor of `shape` from its numbers.
pub(crate) fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}

/// The two axes that a matrix has once all but the last axis are taken as rows.
pub(crate) fn matrix_dims(tensor: &FlexTensor) -> [usize; 2] {
    let dims = tensor.layout().shape().as_slice();
    let (columns, rows) = dims.split_last().unwrap_or((&1, &[]));
    [rows.iter().product(), *columns]
}
