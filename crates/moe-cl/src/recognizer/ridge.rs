//! Recursive ridge regression: the joint least-squares solution, block after block, without keeping the data.

use super::matrix::{Matrix, dot};

/// Ridge regression from features to targets that is told its data in blocks and always holds the solution over all of them,
/// `W = (Xᵀ X + λ I)⁻¹ Xᵀ Y` (Any-SSR, arXiv 2503.13575).
#[derive(Clone, Debug, PartialEq)]
pub struct RecursiveRidge {
    /// `R = (Xᵀ X + λ I)⁻¹ [features, features]`, symmetric.
    pub(super) inverse: Matrix,
    /// `W [features, targets]`.
    pub(super) weights: Matrix,
}

impl RecursiveRidge {
    /// Before any data: `R = I / λ`, and no target.
    ///
    /// # Panics
    /// When `ridge` (λ) is not above 0.
    pub fn new(features: usize, ridge: f64) -> Self {
        assert!(ridge > 0.0, "the ridge is above 0");
        Self {
            inverse: Matrix::scaled_identity(features, 1.0 / ridge),
            weights: Matrix::zeros(features, 0),
        }
    }

    /// `R [features, features]`.
    pub fn inverse(&self) -> &Matrix {
        &self.inverse
    }

    /// `W [features, targets]`.
    pub fn weights(&self) -> &Matrix {
        &self.weights
    }

    /// Learns a block `x [n, features]`, `y [n, targets]`:
    /// `R ← R − R Xᵀ (I + X R Xᵀ)⁻¹ X R`, then `W ← W + R Xᵀ (Y − X W)` with the new `R`.
    ///
    /// Targets that are new get a column of zeros first, which is what they were in all earlier blocks: so nothing of
    /// the earlier data is needed.
    ///
    /// # Panics
    /// When the shapes do not fit or a target is missing.
    pub fn learn(&mut self, x: &Matrix, y: &Matrix) {
        assert_eq!(x.rows(), y.rows(), "a target for every row");
        if x.rows() == 0 {
            return;
        }
        self.weights = self.weights.widen(y.columns());
        let x_r = x.matmul(&self.inverse); // [n, features]
        let mut gram = x_r.matmul_transposed(x); // X R Xᵀ [n, n]
        for index in 0..gram.rows() {
            gram.row_mut(index)[index] += 1.0;
        }
        // With L Lᵀ = I + X R Xᵀ and Z = L⁻¹ X R the correction is Zᵀ Z: R stays symmetric to the last bit.
        let z = gram.cholesky_forward(&x_r);
        self.inverse.add_transposed_product(-1.0, &z, &z);
        let mut residual = x.matmul(&self.weights); // [n, targets]
        for row in 0..residual.rows() {
            for (out, target) in residual.row_mut(row).iter_mut().zip(y.row(row)) {
                *out = target - *out;
            }
        }
        let mut pulled = Matrix::zeros(x.columns(), y.columns()); // Xᵀ (Y − X W)
        pulled.add_transposed_product(1.0, x, &residual);
        let step = self.inverse.matmul(&pulled);
        for row in 0..step.rows() {
            for (weight, step) in self.weights.row_mut(row).iter_mut().zip(step.row(row)) {
                *weight += step;
            }
        }
    }

    /// `x [n, features]` → `X W [n, targets]`.
    pub fn predict(&self, x: &Matrix) -> Matrix {
        x.matmul(&self.weights)
    }

    /// How little the data say about each row of `x [n, features]`: `x R xᵀ`, the variance of its prediction over that of the noise.
    pub fn leverages(&self, x: &Matrix) -> Vec<f64> {
        let x_r = x.matmul(&self.inverse);
        x.iter_rows()
            .zip(x_r.iter_rows())
            .map(|(x, x_r)| dot(x, x_r))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::seeds::{Purpose, Seeds};

    fn random(rows: usize, columns: usize, place: usize) -> Matrix {
        let mut rng = Seeds(1).rng(Purpose::RandomFeatures, place, 0);
        let values = (0..rows * columns).map(|_| rng.random_range(-1.0..1.0));
        Matrix::new(rows, columns, values.collect())
    }

    /// `y [n, targets]` that is 1 in one column.
    fn one_hot(rows: usize, targets: usize, column: usize) -> Matrix {
        let mut y = Matrix::zeros(rows, targets);
        (0..rows).for_each(|row| y.row_mut(row)[column] = 1.0);
        y
    }

    fn stack(blocks: &[Matrix], columns: usize) -> Matrix {
        let values: Vec<f64> = blocks
            .iter()
            .flat_map(|block| block.widen(columns).values().to_vec())
            .collect();
        Matrix::new(values.len() / columns, columns, values)
    }

    #[track_caller]
    fn close(a: &Matrix, b: &Matrix) {
        assert_eq!(a.values().len(), b.values().len());
        for (a, b) in a.values().iter().zip(b.values()) {
            assert!((a - b).abs() < 1e-10, "{a} is not {b}");
        }
    }

    #[test]
    fn sequential_is_joint() {
        let blocks = [random(7, 6, 0), random(3, 6, 1), random(11, 6, 2)];
        let targets = [one_hot(7, 1, 0), one_hot(3, 2, 1), one_hot(11, 3, 2)];
        let mut sequential = RecursiveRidge::new(6, 0.5);
        for (x, y) in blocks.iter().zip(&targets) {
            sequential.learn(x, y);
        }
        let (x, y) = (stack(&blocks, 6), stack(&targets, 3));
        let mut joint = RecursiveRidge::new(6, 0.5);
        joint.learn(&x, &y);
        close(&sequential.inverse, &joint.inverse);
        close(&sequential.weights, &joint.weights);

        // And the joint one solves the normal equations (XᵀX + λI) W = Xᵀ Y.
        let mut normal = Matrix::scaled_identity(6, 0.5);
        normal.add_transposed_product(1.0, &x, &x);
        let mut wanted = Matrix::zeros(6, 3);
        wanted.add_transposed_product(1.0, &x, &y);
        close(&normal.matmul(&joint.weights), &wanted);
    }

    #[test]
    fn a_new_task_adds_a_column_and_needs_no_earlier_data() {
        let mut ridge = RecursiveRidge::new(4, 1.0);
        ridge.learn(&random(5, 4, 0), &one_hot(5, 1, 0));
        assert_eq!(ridge.weights.columns(), 1);
        // Another task whose features are all zero adds a column and leaves the first as it was.
        let before = ridge.clone();
        ridge.learn(&Matrix::zeros(5, 4), &one_hot(5, 2, 1));
        assert_eq!(ridge.weights, before.weights.widen(2));
        assert_eq!(ridge.inverse, before.inverse);
    }

    #[test]
    fn leverage_is_small_where_there_were_data() {
        let mut ridge = RecursiveRidge::new(2, 0.1);
        let seen = Matrix::new(3, 2, vec![1.0, 0.0, 2.0, 0.0, 1.5, 0.0]);
        ridge.learn(&seen, &one_hot(3, 1, 0));
        let leverages = ridge.leverages(&Matrix::scaled_identity(2, 1.0));
        assert!(leverages[0] < 0.2 && (leverages[1] - 10.0).abs() < 1e-12);
    }
}
