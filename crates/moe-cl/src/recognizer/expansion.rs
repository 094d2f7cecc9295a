//! The fixed random map in front of the regression.

use ndarray::{ArrayBase, Data, Ix2};
use rand::RngExt;

use super::Matrix;
use crate::seeds::{Purpose, Seeds};

/// `φ(x) = relu(x W)` with a `W` that is drawn once and never learnt: what a line cannot tell apart in `d_model` dimensions,
/// it can in many more (Any-SSR, arXiv 2503.13575).
#[derive(Clone, Debug, PartialEq)]
pub struct RandomExpansion {
    /// `W [d_model, features]`.
    weights: Matrix,
}

impl RandomExpansion {
    /// From its matrix `[d_model, features]`.
    pub fn from_weights(weights: Matrix) -> Self {
        Self { weights }
    }

    /// Drawn from `seed`: uniform of variance `1 / d_model`, so that inputs of size one give sums of size one.
    pub fn new(d_model: usize, features: usize, seed: u64) -> Self {
        let bound = (3.0 / d_model as f64).sqrt();
        let mut rng = Seeds(seed).rng(Purpose::RandomFeatures, 0, 0);
        let draw = || rng.random_range(-bound..bound);
        Self::from_weights(Matrix::from_shape_simple_fn((d_model, features), draw))
    }

    /// `d_model`.
    pub fn inputs(&self) -> usize {
        self.weights.nrows()
    }

    /// `x [n, d_model]` → `φ(x) [n, features]`.
    pub fn forward(&self, x: &ArrayBase<impl Data<Elem = f64>, Ix2>) -> Matrix {
        x.dot(&self.weights).mapv_into(|sum| sum.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_expansion_is_fixed_by_its_seed() {
        assert_eq!(RandomExpansion::new(4, 9, 7), RandomExpansion::new(4, 9, 7));
        assert_ne!(RandomExpansion::new(4, 9, 7), RandomExpansion::new(4, 9, 8));
    }

    #[test]
    fn negative_sums_are_cut_to_zero() {
        let map = RandomExpansion::from_weights(array![[1.0, -1.0]]);
        assert_eq!(map.forward(&array![[2.0]]), array![[2.0, 0.0]]);
    }
}
