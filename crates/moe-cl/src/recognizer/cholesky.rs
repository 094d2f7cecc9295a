//! A triangular solve by Cholesky's factorisation.

use ndarray::{ArrayView1, Axis};

use super::Matrix;

/// `L⁻¹ · right`, where `L Lᵀ = matrix` is the Cholesky factorisation of this symmetric positive definite matrix, of which the
/// lower half is read. `matrix [n, n]`, `right [n, columns]` → `[n, columns]`; none where it is not positive definite, as far as
/// f64 can tell.
///
/// # Panics
/// When it is not square, or `right` has another number of rows.
pub(super) fn cholesky_forward(matrix: &Matrix, mut right: Matrix) -> Option<Matrix> {
    let n = matrix.nrows();
    assert_eq!(n, matrix.ncols(), "a square matrix");
    assert_eq!(n, right.nrows(), "as many rows on the right");
    let mut factor = Matrix::zeros((n, n));
    for i in 0..n {
        for j in 0..=i {
            let known = left_of(&factor, i, j).dot(&left_of(&factor, j, j));
            let rest = matrix[[i, j]] - known;
            factor[[i, j]] = match i == j {
                // A NaN is neither.
                true if rest > 0.0 && rest.is_finite() => rest.sqrt(),
                true => return None,
                false => rest / factor[[j, j]],
            };
        }
    }
    for i in 0..n {
        let (solved, mut rest) = right.view_mut().split_at(Axis(0), i);
        let mut row = rest.row_mut(0);
        for (j, terms) in solved.rows().into_iter().enumerate() {
            row.scaled_add(-factor[[i, j]], &terms);
        }
        row /= factor[[i, i]];
    }
    Some(right)
}

/// The first `columns` numbers of a row.
fn left_of(matrix: &Matrix, row: usize, columns: usize) -> ArrayView1<'_, f64> {
    matrix.row(row).split_at(Axis(0), columns).0
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_cholesky_factor_undoes_its_matrix() {
        let a = array![[4.0, 2.0], [2.0, 5.0]];
        let z = cholesky_forward(&a, Matrix::eye(2)).unwrap();
        assert_eq!(a.dot(&z.t().dot(&z)), Matrix::eye(2));
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_has_no_factor() {
        for corner in [0.5, f64::NAN, f64::INFINITY] {
            let a = array![[1.0, 1.0], [1.0, corner]];
            assert_eq!(cholesky_forward(&a, Matrix::eye(2)), None);
        }
    }
}
