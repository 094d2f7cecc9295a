//! Recursive ridge regression: the joint least-squares solution, block after block, without keeping the data.

use ndarray::linalg::general_mat_mul;
use ndarray::{Axis, concatenate};

use super::Matrix;
use super::cholesky::cholesky_forward;

/// What a ridge regression cannot learn, since its matrix is not positive definite as far as f64 can tell.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "with a ridge of {ridge:e} what it learns cannot be told from rounding errors, or the base's features are no numbers"
)]
pub struct Singular {
    /// λ.
    pub ridge: f64,
}

/// Ridge regression from features to targets that is told its data in blocks and always holds the solution over all of them,
/// `W = (Xᵀ X + λ I)⁻¹ Xᵀ Y` (Any-SSR, arXiv 2503.13575).
#[derive(Clone, Debug, PartialEq)]
pub struct RecursiveRidge {
    /// λ.
    ridge: f64,
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
            ridge,
            inverse: Matrix::eye(features) / ridge,
            weights: Matrix::zeros((features, 0)),
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
    /// # Errors
    /// When λ is too small beside the data, or these are not finite; nothing is learnt then.
    ///
    /// # Panics
    /// When the shapes do not fit or a target is missing.
    pub fn learn(&mut self, x: &Matrix, y: &Matrix) -> Result<(), Singular> {
        assert_eq!(x.nrows(), y.nrows(), "a target for every row");
        if x.nrows() == 0 {
            return Ok(());
        }
        let x_r = x.dot(&self.inverse); // [n, features]
        let mut gram = x_r.dot(&x.t()); // X R Xᵀ [n, n]
        gram.diag_mut().mapv_inplace(|value| value + 1.0);
        // With L Lᵀ = I + X R Xᵀ and Z = L⁻¹ X R the correction is Zᵀ Z.
        let z = cholesky_forward(&gram, x_r).ok_or(Singular { ridge: self.ridge })?;
        self.widen(y.ncols());
        general_mat_mul(-1.0, &z.t(), &z, 1.0, &mut self.inverse);
        mirror(&mut self.inverse);
        let residual = y - &x.dot(&self.weights); // [n, targets]
        let step = self.inverse.dot(&x.t().dot(&residual));
        self.weights += &step;
        Ok(())
    }

    /// Gives `W` as many columns as there are `targets`, the new ones zero.
    fn widen(&mut self, targets: usize) {
        let [features, known] = [self.weights.nrows(), self.weights.ncols()];
        assert!(known <= targets, "a column for every target so far");
        let new = Matrix::zeros((features, targets - known));
        self.weights = concatenate![Axis(1), self.weights, new];
    }

    /// `x [n, features]` → `X W [n, targets]`.
    pub fn predict(&self, x: &Matrix) -> Matrix {
        x.dot(&self.weights)
    }

    /// How little the data say about each row of `x [n, features]`: `x R xᵀ`, the variance of its prediction over that of the noise.
    pub fn leverages(&self, x: &Matrix) -> Vec<f64> {
        (x.dot(&self.inverse) * x).sum_axis(Axis(1)).to_vec()
    }
}

/// Writes the lower half over the upper one: symmetric to the last bit, however the product before it summed.
fn mirror(matrix: &mut Matrix) {
    for row in 0..matrix.nrows() {
        for column in 0..row {
            matrix[[column, row]] = matrix[[row, column]];
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::RngExt;

    use super::*;
    use crate::seeds::{Purpose, Seeds};

    fn random(rows: usize, columns: usize, place: usize) -> Matrix {
        let mut rng = Seeds(1).rng(Purpose::RandomFeatures, place, 0);
        Matrix::from_shape_simple_fn((rows, columns), || rng.random_range(-1.0..1.0))
    }

    /// `y [n, targets]` that is 1 in one column.
    fn one_hot(rows: usize, targets: usize, column: usize) -> Matrix {
        let mut y = Matrix::zeros((rows, targets));
        y.column_mut(column).fill(1.0);
        y
    }

    #[track_caller]
    fn close(a: &Matrix, b: &Matrix) {
        assert_eq!(a.dim(), b.dim());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-10, "{a} is not {b}");
        }
    }

    #[test]
    fn sequential_is_joint() {
        let blocks = [random(7, 6, 0), random(3, 6, 1), random(11, 6, 2)];
        let mut sequential = RecursiveRidge::new(6, 0.5);
        for (task, x) in blocks.iter().enumerate() {
            sequential
                .learn(x, &one_hot(x.nrows(), task + 1, task))
                .unwrap();
        }
        let x = concatenate![Axis(0), blocks[0], blocks[1], blocks[2]];
        let y = concatenate![
            Axis(0),
            one_hot(7, 3, 0),
            one_hot(3, 3, 1),
            one_hot(11, 3, 2)
        ];
        let mut joint = RecursiveRidge::new(6, 0.5);
        joint.learn(&x, &y).unwrap();
        close(&sequential.inverse, &joint.inverse);
        close(&sequential.weights, &joint.weights);

        // And the joint one solves the normal equations (XᵀX + λI) W = Xᵀ Y.
        let normal = Matrix::eye(6) * 0.5 + x.t().dot(&x);
        close(&normal.dot(&joint.weights), &x.t().dot(&y));
    }

    #[test]
    fn the_inverse_is_symmetric_to_the_last_bit() {
        let mut ridge = RecursiveRidge::new(61, 0.5);
        ridge
            .learn(&random(300, 61, 0), &one_hot(300, 1, 0))
            .unwrap();
        assert_eq!(ridge.inverse, ridge.inverse.t());
    }

    #[test]
    fn a_new_task_adds_a_column_and_needs_no_earlier_data() {
        let mut ridge = RecursiveRidge::new(4, 1.0);
        ridge.learn(&random(5, 4, 0), &one_hot(5, 1, 0)).unwrap();
        assert_eq!(ridge.weights.ncols(), 1);
        // Another task whose features are all zero adds a column and leaves the first as it was.
        let mut before = ridge.clone();
        ridge
            .learn(&Matrix::zeros((5, 4)), &one_hot(5, 2, 1))
            .unwrap();
        before.widen(2);
        assert_eq!(ridge.weights, before.weights);
        assert_eq!(ridge.inverse, before.inverse);
    }

    #[test]
    fn a_ridge_that_drowns_in_rounding_errors_is_an_error_and_changes_nothing() {
        let mut ridge = RecursiveRidge::new(4, 1e-30);
        let before = ridge.clone();
        let x = random(9, 4, 0);
        let error = ridge.learn(&x, &one_hot(9, 1, 0)).unwrap_err();
        assert!(error.to_string().contains("1e-30"), "{error}");
        assert_eq!(ridge, before);
        let nan = Matrix::from_elem((1, 4), f64::NAN);
        assert!(
            RecursiveRidge::new(4, 1.0)
                .learn(&nan, &one_hot(1, 1, 0))
                .is_err()
        );
    }

    #[test]
    fn leverage_is_small_where_there_were_data() {
        let mut ridge = RecursiveRidge::new(2, 0.1);
        let seen = array![[1.0, 0.0], [2.0, 0.0], [1.5, 0.0]];
        ridge.learn(&seen, &one_hot(3, 1, 0)).unwrap();
        let leverages = ridge.leverages(&Matrix::eye(2));
        assert!(leverages[0] < 0.2 && (leverages[1] - 10.0).abs() < 1e-12);
    }
}
