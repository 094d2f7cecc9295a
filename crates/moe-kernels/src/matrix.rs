use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::blocks::Blocks;

/// The right factor of a product, `[d_in, d_out]`.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one value per product")]
pub enum Matrix {
    /// Its numbers, in f32 or bf16.
    Float(Tensor<2>),
    /// `[d_out, d_in]`, each row in quantised blocks; frozen.
    Blocks(Blocks),
}

impl Matrix {
    /// `[d_in, d_out]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Float(tensor) => tensor.dims(),
            Self::Blocks(blocks) => {
                let [d_out, d_in] = blocks.dims();
                [d_in, d_out]
            }
        }
    }

    /// As numbers in `dtype` on `device`: a tensor that is there already stays where it is.
    pub fn to_tensor(&self, dtype: DType, device: &Device) -> Tensor<2> {
        match self {
            Self::Float(tensor) => tensor.clone().cast(dtype),
            Self::Blocks(blocks) => {
                let numbers = TensorData::new(blocks.widened(), blocks.dims());
                let stored = Tensor::<2>::from_data(numbers, (device, DType::F32));
                stored.transpose().cast(dtype)
            }
        }
    }
}

impl From<Tensor<2>> for Matrix {
    fn from(tensor: Tensor<2>) -> Self {
        Self::Float(tensor)
    }
}

impl From<Blocks> for Matrix {
    fn from(blocks: Blocks) -> Self {
        Self::Blocks(blocks)
    }
}
