//! A dense matrix of f64, with the few operations that recursive least squares needs.
//!
//! Tensors of the base are f32 on any device; this recursion squares condition numbers and wants f64 on the CPU.

/// `[rows, columns]`, row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// Its values as little-endian f32, row after row: exact where they came as f32.
    pub fn to_f32_bytes(&self) -> Vec<u8> {
        let values = self.values.iter();
        values
            .flat_map(|&value| (value as f32).to_le_bytes())
            .collect()
    }

    /// From what [`Self::to_f32_bytes`] gave; none where that is of another size.
    pub fn from_f32_bytes(rows: usize, columns: usize, bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks();
        if !rest.is_empty() || rows.checked_mul(columns)? != words.len() {
            return None;
        }
        let values = words.iter().map(|word| f32::from_le_bytes(*word).into());
        Some(Self::new(rows, columns, values.collect()))
    }

    /// From its values, row after row.
    ///
    /// # Panics
    /// When there are not `rows · columns` values.
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), rows * columns, "[{rows}, {columns}]");
        Self {
            rows,
            columns,
            values,
        }
    }

    /// All zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self::new(rows, columns, vec![0.0; rows * columns])
    }

    /// `scale · I`, `[size, size]`.
    pub fn scaled_identity(size: usize, scale: f64) -> Self {
        let mut identity = Self::zeros(size, size);
        for index in 0..size {
            identity.values[index * size + index] = scale;
        }
        identity
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The values, row after row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// One row, to write to.
    pub fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// The rows, one after another.
    pub fn iter_rows(&self) -> impl Iterator<Item = &[f64]> {
        (0..self.rows).map(|row| self.row(row))
    }

    /// The rows `range`.
    pub fn slice_rows(&self, range: std::ops::Range<usize>) -> Self {
        let values = self.values[range.start * self.columns..range.end * self.columns].to_vec();
        Self::new(range.len(), self.columns, values)
    }

    /// With every value `x` replaced by `f(x)`.
    pub fn map(mut self, f: impl Fn(f64) -> f64) -> Self {
        self.values.iter_mut().for_each(|value| *value = f(*value));
        self
    }

    /// `self [n, k] · other [k, m]` → `[n, m]`.
    ///
    /// # Panics
    /// When the inner dimensions differ.
    pub fn matmul(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows, "inner dimensions");
        let mut product = Self::zeros(self.rows, other.columns);
        for row in 0..self.rows {
            let out = product.row_mut(row);
            for (factor, terms) in self.row(row).iter().zip(other.iter_rows()) {
                add_scaled(out, *factor, terms);
            }
        }
        product
    }

    /// `self [n, k] · otherᵀ [k, m]` → `[n, m]`, `other [m, k]`.
    ///
    /// # Panics
    /// When the inner dimensions differ.
    pub fn matmul_transposed(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.columns, "inner dimensions");
        let mut product = Self::zeros(self.rows, other.rows);
        for row in 0..self.rows {
            let own = self.row(row);
            for (out, others) in product.row_mut(row).iter_mut().zip(other.iter_rows()) {
                *out = dot(own, others);
            }
        }
        product
    }

    /// `self += scale · leftᵀ · right`, `left [k, n]`, `right [k, m]`, `self [n, m]`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn add_transposed_product(&mut self, scale: f64, left: &Self, right: &Self) {
        assert_eq!((self.rows, self.columns), (left.columns, right.columns));
        assert_eq!(left.rows, right.rows, "inner dimensions");
        for row in 0..self.rows {
            let out = &mut self.values[row * self.columns..(row + 1) * self.columns];
            for inner in 0..left.rows {
                add_scaled(out, scale * left.row(inner)[row], right.row(inner));
            }
        }
    }

    /// `L⁻¹ · right`, where `L Lᵀ = self` is the Cholesky factorisation of this symmetric positive definite matrix.
    ///
    /// # Panics
    /// When it is not positive definite, or `right` has another number of rows.
    pub fn cholesky_forward(&self, right: &Self) -> Self {
        assert_eq!(self.rows, self.columns, "a square matrix");
        assert_eq!(self.rows, right.rows, "as many rows on the right");
        let n = self.rows;
        let mut factor = Self::zeros(n, n);
        for i in 0..n {
            for j in 0..=i {
                let known = dot(&factor.row(i)[..j], &factor.row(j)[..j]);
                let rest = self.row(i)[j] - known;
                factor.row_mut(i)[j] = if i == j {
                    assert!(rest > 0.0, "a positive definite matrix");
                    rest.sqrt()
                } else {
                    rest / factor.row(j)[j]
                };
            }
        }
        let mut solved = right.clone();
        for i in 0..n {
            let (above, rest) = solved.values.split_at_mut(i * right.columns);
            let out = &mut rest[..right.columns];
            for (j, terms) in above.chunks_exact(right.columns).enumerate() {
                add_scaled(out, -factor.row(i)[j], terms);
            }
            let pivot = factor.row(i)[i];
            out.iter_mut().for_each(|value| *value /= pivot);
        }
        solved
    }

    /// With `columns` columns, the new ones zero.
    ///
    /// # Panics
    /// When there are more already.
    pub fn widen(&self, columns: usize) -> Self {
        assert!(columns >= self.columns, "a matrix does not shrink");
        let mut wide = Self::zeros(self.rows, columns);
        for row in 0..self.rows {
            wide.row_mut(row)[..self.columns].copy_from_slice(self.row(row));
        }
        wide
    }
}

/// `Σ a_i b_i`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Four sums side by side: one alone waits for every addition.
    let ((a4, a_rest), (b4, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [0.0; 4];
    for (a, b) in a4.iter().zip(b4) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// `out += factor · terms`.
fn add_scaled(out: &mut [f64], factor: f64, terms: &[f64]) {
    for (out, term) in out.iter_mut().zip(terms) {
        *out += factor * term;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_hand_worked_matrices() {
        let a = Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = Matrix::new(3, 1, vec![1.0, 0.0, -1.0]);
        assert_eq!(a.matmul(&b).values(), [-2.0, -2.0]);
        assert_eq!(a.matmul_transposed(&a).values(), [14.0, 32.0, 32.0, 77.0]);
        let mut sum = Matrix::zeros(3, 3);
        sum.add_transposed_product(1.0, &a, &a);
        assert_eq!(sum.row(0), [17.0, 22.0, 27.0]);
    }

    #[test]
    fn the_cholesky_factor_undoes_its_matrix() {
        let a = Matrix::new(2, 2, vec![4.0, 2.0, 2.0, 5.0]);
        let z = a.cholesky_forward(&Matrix::scaled_identity(2, 1.0));
        let mut inverse = Matrix::zeros(2, 2);
        inverse.add_transposed_product(1.0, &z, &z);
        assert_eq!(a.matmul(&inverse), Matrix::scaled_identity(2, 1.0));
    }
}
