use burn::tensor::{Int, Tensor, TensorData};

use crate::config::ModelConfig;

/// Rotary position embedding (Su et al. 2021, "RoFormer") in the half-split layout of Hugging
/// Face checkpoints: feature `i` is paired with feature `i + head_dim/2`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    inverse_frequencies: Vec<f32>,
}

impl Rope {
    /// Frequencies of a model, scaling included.
    pub fn new(config: &ModelConfig) -> Self {
        let frequencies = config.rope_frequencies();
        Self {
            inverse_frequencies: frequencies.into_iter().map(|f| f as f32).collect(),
        }
    }

    /// Radians per position of each feature pair, `[head_dim / 2]`.
    pub fn inverse_frequencies(&self) -> &[f32] {
        &self.inverse_frequencies
    }

    /// `positions [batch, seq]` → cosines and sines `[batch, seq, head_dim / 2]`.
    pub fn tables(&self, positions: Tensor<2, Int>) -> (Tensor<3>, Tensor<3>) {
        let [batch, seq] = positions.dims();
        let half = self.inverse_frequencies.len();
        let frequencies = Tensor::<1>::from_data(
            TensorData::new(self.inverse_frequencies.clone(), [half]),
            &positions.device(),
        );
        let angles = positions.float().reshape([batch, seq, 1]) * frequencies.reshape([1, 1, half]);
        (angles.clone().cos(), angles.sin())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor, Tolerance};
    use moe_kernels::rotate;

    use super::*;

    fn rope() -> Rope {
        Rope {
            inverse_frequencies: vec![1.0, 0.1],
        }
    }

    fn rotated(x: Tensor<4>, position: i64) -> Tensor<4> {
        let position = Tensor::<2, Int>::from_data([[position]], &x.device());
        let (cos, sin) = rope().tables(position);
        rotate(x, cos.unsqueeze_dim(2), sin.unsqueeze_dim(2))
    }

    #[test]
    fn features_are_paired_with_those_half_a_head_away() {
        let x = Tensor::<4>::from_data([[[[1.0, 0.0, 0.0, 2.0]]]], &Device::flex());
        let (angle, slow) = (3.0f32, 0.3f32);
        let expected = [
            angle.cos(),
            -2.0 * slow.sin(),
            angle.sin(),
            2.0 * slow.cos(),
        ];
        let expected = Tensor::<1>::from_data(expected, &Device::flex()).reshape([1, 1, 1, 4]);
        rotated(x, 3)
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::default());
    }

    #[test]
    fn products_depend_on_the_distance_only() {
        let vector = |features: [f32; 4]| {
            Tensor::<1>::from_data(features, &Device::flex()).reshape([1, 1, 1, 4])
        };
        let q = vector([0.3, -1.2, 0.7, 2.1]);
        let k = vector([1.4, 0.2, -0.9, 0.6]);
        let product = |i, j| {
            (rotated(q.clone(), i) * rotated(k.clone(), j))
                .sum()
                .into_data()
        };
        product(5, 2).assert_approx_eq::<f32>(&product(13, 10), Tolerance::default());
    }
}
