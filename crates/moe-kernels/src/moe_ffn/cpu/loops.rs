//! Loops over slices that the compiler vectorises.

use burn::tensor::bf16;

use crate::cpu::exp::sigmoid;
use crate::cpu::vectorised;
use crate::dropout::Mask;

vectorised! {
    pub(super) fn swiglu(gate: &[f32], up: &[f32], h: &mut [f32]) {
        for ((h, gate), up) in h.iter_mut().zip(gate).zip(up) {
            *h = gate * sigmoid(*gate) * up;
        }
    }
}

vectorised! {
    /// `out += x · factor`.
    pub(super) fn add_scaled(x: &[f32], factor: f32, out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x.mul_add(factor, *out);
        }
    }
}

vectorised! {
    /// `x` times the factors of `mask`, whose first row is that of token `first`.
    pub(super) fn mask_rows(x: &[f32], mask: &Mask, first: usize, rows: usize, out: &mut [f32]) {
        let width = x.len() / rows;
        for (row, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let start = mask.row_start(first + row);
            for (column, (x, out)) in x.iter().zip(out).enumerate() {
                *out = x * mask.factor(start, column);
            }
        }
    }
}

/// The first `rank` columns of every row of `step` numbers, times `factor`.
pub(super) fn scale_columns(codes: &mut [f32], step: usize, rank: usize, factor: f32) {
    for row in codes.chunks_mut(step) {
        row[..rank].iter_mut().for_each(|x| *x *= factor);
    }
}

vectorised! {
    /// `h = silu(gate) ⊙ up` and its derivatives by gate (`slope`) and by up (`silu`).
    pub(super) fn derivatives(gate: &[f32], up: &[f32], h: &mut [f32], slope: &mut [f32], silu: &mut [f32]) {
        let inputs = gate.iter().zip(up);
        for (((gate, up), h), (slope, silu)) in inputs.zip(h).zip(slope.iter_mut().zip(silu)) {
            let s = sigmoid(*gate);
            *silu = gate * s;
            *h = *silu * up;
            *slope = up * silu.mul_add(1.0 - s, s);
        }
    }
}

vectorised! {
    pub(super) fn times(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = x * y;
        }
    }
}

vectorised! {
    pub(super) fn add_times(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = x.mul_add(*y, *out);
        }
    }
}

vectorised! {
    pub(super) fn dot(x: &[f32], y: &[f32], out: &mut f32) {
        let mut sums = [0f32; 16];
        for (x, y) in x.chunks(16).zip(y.chunks(16)) {
            for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
                *sum = x.mul_add(*y, *sum);
            }
        }
        *out = sums.iter().sum();
    }
}

vectorised! {
    pub(super) fn mask_rows_in_place(x: &mut [f32], mask: &Mask, first: usize, rows: usize) {
        let width = x.len() / rows;
        for (row, x) in x.chunks_exact_mut(width).enumerate() {
            let start = mask.row_start(first + row);
            for (column, x) in x.iter_mut().enumerate() {
                *x *= mask.factor(start, column);
            }
        }
    }
}

vectorised! {
    /// To the nearest, ties to even.
    pub(super) fn round(x: &[f32], out: &mut [bf16]) {
        for (out, x) in out.iter_mut().zip(x) {
            let bits = x.to_bits();
            let up = 0x7fff + ((bits >> 16) & 1);
            // What is not a number stays so.
            let rounded = if x.is_nan() { bits | 0x40_0000 } else { bits.wrapping_add(up) };
            *out = bf16::from_bits((rounded >> 16) as u16);
        }
    }
}

vectorised! {
    pub(super) fn widen(x: &[bf16], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_bf16_and_widening_takes_it_back() {
        let x: Vec<f32> = (0..1u32 << 16)
            .map(|place| f32::from_bits(place.wrapping_mul(0x9e37_79b9)))
            .collect();
        let mut rounded = vec![bf16::ZERO; x.len()];
        round(&x, &mut rounded);
        let mut wide = vec![0.0; x.len()];
        widen(&rounded, &mut wide);
        for ((x, rounded), wide) in x.iter().zip(&rounded).zip(&wide) {
            let want = bf16::from_f32(*x);
            assert!(*rounded == want || rounded.is_nan() && want.is_nan());
            assert!(*wide == want.to_f32() || wide.is_nan() && want.is_nan());
        }
    }
}
