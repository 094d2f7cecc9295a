use std::fmt;
use std::str::FromStr;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{Decoder, Weight};
use crate::error::{Error, Result};

/// The number format of a decoder's matrices. Norms, biases and all activations are in f32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseDtype {
    /// `f32`: 4 bytes a number.
    F32,
    /// `bf16`: 2 bytes a number, rounded to the nearest (ties to even). For a base that stays frozen.
    Bf16,
    /// `stored`: quantised blocks and numbers of 16 bits as they lie in the file, all else in f32. Products are those of `f32`. Back
    /// ends other than the CPU widen them to f32 when they are loaded, and so does a sparse layer for its experts.
    #[default]
    Stored,
}

impl BaseDtype {
    /// Names in configurations.
    pub const NAMES: [&'static str; 3] = ["f32", "bf16", "stored"];

    /// Whether a base loaded so has the numbers that one loaded as `other` has: `f32` and `stored` may be exchanged.
    pub fn has_numbers_of(self, other: Self) -> bool {
        (self == Self::Bf16) == (other == Self::Bf16)
    }

    /// # Errors
    ///
    /// When `device` has no tensors of this type.
    pub(super) fn check(self, device: &Device) -> Result<()> {
        match device.supports_dtype(self.dtype()) {
            true => Ok(()),
            false => Err(Error::Device(format!(
                "{device:?} has no numbers of type {self}; use a base in f32"
            ))),
        }
    }

    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Stored => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

impl fmt::Display for BaseDtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Stored => "stored",
        })
    }
}

impl FromStr for BaseDtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "stored" => Ok(Self::Stored),
            _ => Err(Error::BaseDtype { name: name.into() }),
        }
    }
}

impl Decoder {
    /// The format of its matrices: `stored` where one of them is in blocks.
    pub fn dtype(&self) -> BaseDtype {
        let bf16 = |weight: &Weight| match weight {
            Weight::Float(numbers) => numbers.val().dtype() == DType::BF16,
            Weight::Blocks(_) => false,
        };
        let linears = self.linears().map(|linear| &linear.weight);
        let mut matrices = linears.chain([&self.embedding.weight]);
        match matrices.any(|weight| matches!(weight, Weight::Blocks(_))) {
            true => BaseDtype::Stored,
            false if bf16(&self.embedding.weight) => BaseDtype::Bf16,
            false => BaseDtype::F32,
        }
    }

    /// The same decoder with its matrices in `dtype`: exact towards f32, rounded to the nearest towards bf16. Numbers are not put into
    /// blocks: `stored` leaves the decoder as it is.
    pub fn with_dtype(mut self, dtype: BaseDtype) -> Self {
        if dtype == BaseDtype::Stored {
            return self;
        }
        let device = self.device();
        if let Weight::Blocks(rows) = &self.embedding.weight {
            let numbers = TensorData::new(rows.widened(), rows.dims());
            self.embedding.weight = Weight::new(Tensor::from_data(numbers, &device));
        }
        for linear in self.linears_mut() {
            if let Weight::Blocks(_) = &linear.weight {
                let numbers = linear.weight.val().to_tensor(dtype.dtype(), &device);
                linear.weight = Weight::new(numbers);
            }
        }
        self.map(&mut ToDtype(dtype.dtype()))
    }
}

struct ToDtype(DType);

impl ModuleMapper for ToDtype {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match D {
            2 | 3 => param.map(|matrices| matrices.cast(self.0)),
            _ => param,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::*;
    use crate::generate::{Side, pad};

    fn hidden(model: &Decoder) -> Vec<f32> {
        let rows = [vec![3, 17, 5, 5, 9, 20], vec![1, 2, 3]];
        let (tokens, real) = pad(&rows, 0, Side::Left, &Device::flex());
        let hidden = model.forward(tokens, real);
        let [batch, seq, d_model] = hidden.dims();
        let logits = model.logits(hidden.clone().reshape([batch * seq, d_model]));
        let numbers = |data: burn::tensor::TensorData| data.iter::<f32>().collect::<Vec<_>>();
        [numbers(hidden.into_data()), numbers(logits.into_data())].concat()
    }

    #[test]
    fn a_bf16_base_is_the_rounded_base_to_the_rounding_of_activations() {
        for tied in [false, true] {
            let config = crate::config::ModelConfig {
                tie_word_embeddings: tied,
                ..tiny()
            };
            let model = Decoder::random(&config, 1, &Device::flex());
            let bf16 = model.with_dtype(BaseDtype::Bf16);
            assert_eq!(bf16.dtype(), BaseDtype::Bf16);
            let wide = bf16.clone().with_dtype(BaseDtype::F32);
            assert_eq!(wide.dtype(), BaseDtype::F32);
            let (got, want) = (hidden(&bf16), hidden(&wide));
            let largest = want.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() < 0.03 * largest, "{got} {want}");
            }
        }
    }

    #[test]
    fn its_names_read_back() {
        for (dtype, name) in [BaseDtype::F32, BaseDtype::Bf16, BaseDtype::Stored]
            .into_iter()
            .zip(BaseDtype::NAMES)
        {
            assert_eq!(dtype.to_string(), name);
            assert_eq!(name.parse::<BaseDtype>().unwrap(), dtype);
        }
        let message = "f16".parse::<BaseDtype>().unwrap_err().to_string();
        assert!(message.contains("f32, bf16 or stored"), "{message}");
    }
}
