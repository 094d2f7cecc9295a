//! Gradients of matrices whose rows lie group by group.

use super::pieces::Buffer;
use super::product::{Matrix, multiply};

/// `[groups, d_in, d_out]`: of every group `leftᵀ · right`, from `left [rows, d_in]` and `right [rows, d_out]`; group g has the rows
/// `bounds[g]..bounds[g + 1]`.
pub(crate) fn outer_products(
    bounds: &[usize],
    left: &[f32],
    d_in: usize,
    right: &[f32],
    d_out: usize,
) -> Vec<f32> {
    let mut out = Buffer::new((bounds.len() - 1) * d_in * d_out);
    let pieces = out.pieces();
    for (group, bounds) in bounds.windows(2).enumerate() {
        let [start, end] = [bounds[0], bounds[1]];
        let place = group * d_in * d_out;
        if start == end {
            // SAFETY: nobody else's.
            unsafe { pieces.zeroed(place, d_in * d_out) };
            continue;
        }
        let left = Matrix::new(&left[start * d_in..end * d_in], end - start, d_in);
        let right = Matrix::new(&right[start * d_out..end * d_out], end - start, d_out);
        // SAFETY: there is room for this group's.
        unsafe { multiply(left.transposed(), right, pieces.at(place), false) }
    }
    // SAFETY: every group has been written.
    unsafe { out.written() }
}
