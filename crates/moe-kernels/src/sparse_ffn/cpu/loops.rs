//! What happens to a block between two products.

use crate::cpu::exp::sigmoid;
use crate::cpu::panel_product::grouped::{Block, COLUMNS};
use crate::cpu::pieces::Pieces;
use crate::cpu::vectorised;

/// Sums that run side by side.
const LANES: usize = 16;

vectorised! {
    /// `h = w · silu(gate) ⊙ up`. `[entries, d_ff]` all three, `weights [entries]`.
    ///
    /// The block is there in gate and up, and nobody else's.
    pub(super) fn forward(block: &Block, d_ff: usize, weights: &[f32], gate: Pieces<'_>, up: Pieces<'_>, h: Pieces<'_>) {
        for row in block.rows.clone() {
            let (start, width) = (row * d_ff + block.columns.start, block.columns.len());
            // SAFETY: three slices, of which the caller says that they are there and nobody else's.
            let (gate, up, h) = unsafe {
                (gate.piece(start, width), up.piece(start, width), h.zeroed(start, width))
            };
            let weight = weights[row];
            for ((h, gate), up) in h.iter_mut().zip(gate).zip(up) {
                *h = *gate * sigmoid(*gate) * *up * weight;
            }
        }
    }
}

vectorised! {
    /// [`forward`] with the result in place of gate.
    pub(super) fn forward_in_place(block: &Block, d_ff: usize, weights: &[f32], gate: Pieces<'_>, up: Pieces<'_>) {
        for row in block.rows.clone() {
            let (start, width) = (row * d_ff + block.columns.start, block.columns.len());
            // SAFETY: as in `forward`.
            let (gate, up) = unsafe { (gate.piece(start, width), up.piece(start, width)) };
            let weight = weights[row];
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = *gate * sigmoid(*gate) * *up * weight;
            }
        }
    }
}

vectorised! {
    /// From the gradient of `w h` in `grad`: those of gate and up in place of what is there, `w h` in place of `grad`, and each row's
    /// part of the gradient of w into `parts [entries, panels]`.
    ///
    /// The block is there in the first three, and nobody else's in all four.
    pub(super) fn backward(block: &Block, d_ff: usize, weights: &[f32], gate: Pieces<'_>, up: Pieces<'_>, grad: Pieces<'_>, parts: Pieces<'_>) {
        let panels = d_ff.div_ceil(COLUMNS);
        for row in block.rows.clone() {
            let (start, width) = (row * d_ff + block.columns.start, block.columns.len());
            // SAFETY: as in `forward`.
            let (gate, up, grad, part) = unsafe {
                (
                    gate.piece(start, width),
                    up.piece(start, width),
                    grad.piece(start, width),
                    parts.piece(row * panels + block.columns.start / COLUMNS, 1),
                )
            };
            let weight = weights[row];
            let mut products = [0.0; COLUMNS];
            let sides = gate.iter_mut().zip(up).zip(grad);
            for (((gate, up), grad), product) in sides.zip(&mut products) {
                let (s, g) = (sigmoid(*gate), *grad * weight);
                let silu = *gate * s;
                let h = silu * *up;
                *product = *grad * h;
                *grad = h * weight;
                *gate = g * *up * silu.mul_add(1.0 - s, s);
                *up = g * silu;
            }
            let mut sums = [0.0; LANES];
            for products in products.as_chunks::<LANES>().0 {
                for (sum, product) in sums.iter_mut().zip(products) {
                    *sum += product;
                }
            }
            part[0] = sums.iter().sum();
        }
    }
}
