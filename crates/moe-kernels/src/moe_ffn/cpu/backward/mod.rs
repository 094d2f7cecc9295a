//! Backward pass on the CPU. A block's activations are computed again; its part of the LoRA gradients is summed per stretch, so that
//! the order of the sums does not depend on the threads.

mod block;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::loops::add_scaled;
use super::{Block, Inputs, Kept, Sizes, Work};
use crate::cpu::panel_product::Activations;
use crate::cpu::pieces::{Buffer, Pieces, filled};
use crate::cpu::product::{Matrix, product, transposed};
use crate::cpu::queue::for_each_task;
use crate::cpu::tile::ROWS;
use crate::values::Values;

pub(super) struct Gradient {
    /// Empty when nothing below wants it.
    pub(super) x: Vec<f32>,
    pub(super) weights: Vec<f32>,
    pub(super) a: [Vec<f32>; 3],
    pub(super) b: [Vec<f32>; 3],
}

/// The small matrices turned, for products from the right.
struct Turned {
    /// A of gate, up and down: `[codes, d_in]`.
    a: [Vec<f32>; 3],
    /// B of gate, up and down: `[d_out, codes]`.
    b: [Vec<f32>; 3],
}

/// LoRA gradients of one stretch, each `[codes, …]`: A of gate, up and down, B of gate and up.
struct Sums([Vec<f32>; 5]);

impl Sums {
    fn new(sizes: &Sizes) -> Self {
        let Sizes {
            d_model,
            d_ff,
            codes,
            ..
        } = *sizes;
        Self([d_model, d_model, d_ff, d_ff, d_ff].map(|width| vec![0.0; codes * width]))
    }

    fn a(&mut self, side: usize) -> &mut [f32] {
        &mut self.0[side]
    }

    fn b(&mut self, side: usize) -> &mut [f32] {
        &mut self.0[3 + side]
    }

    /// All stretches', in their order.
    fn total(stretches: &[Self], sizes: &Sizes) -> Self {
        let mut total = Self::new(sizes);
        let sums = total.0.par_iter_mut().enumerate();
        sums.for_each(|(matrix, sum)| {
            for stretch in stretches {
                add_scaled(&stretch.0[matrix], 1.0, sum);
            }
        });
        total
    }
}

/// Where the blocks write.
#[derive(Clone, Copy)]
struct Written<'a> {
    /// Gradient of the base's gate and up, `[tokens, d_ff]`.
    sides: [Pieces<'a>; 2],
    /// The LoRAs' part of the gradient of `x`, `[tokens, d_model]`.
    x: Pieces<'a>,
    /// `[tokens, experts]`.
    weights: Pieces<'a>,
}

impl Written<'_> {
    /// Sets to zero what the experts of a block add to.
    ///
    /// # Safety
    ///
    /// Nobody else is at work on the block.
    unsafe fn clear(self, block: Block, sizes: &Sizes) {
        let part = |width: usize| (block.first * width, block.rows * width);
        for (pieces, (start, len)) in [
            (self.sides[0], part(sizes.d_ff)),
            (self.sides[1], part(sizes.d_ff)),
            (self.x, part(sizes.d_model)),
        ] {
            // SAFETY: the caller's promise.
            unsafe { pieces.zeroed(start, len) };
        }
    }
}

/// What the blocks read.
struct Read<'a> {
    kept: &'a Kept,
    /// Gradient of the mixture that goes into down, pooled rows at the end, `[rows, d_ff]`.
    hidden: Vec<f32>,
    /// Gradient of the codes that go into B of down, `[rows, codes]`.
    mixed: Vec<f32>,
    turned: Turned,
    below: bool,
}

/// Room for one block.
struct Room {
    forward: Work,
    /// The base's gate and up, where they have to be widened.
    base: [Vec<f32>; 2],
    /// Derivative of `h` by gate.
    slope: Vec<f32>,
    /// Derivative of `h` by up.
    silu: Vec<f32>,
    /// Gradient of `h`, along the mixture and along the pooled output.
    h: [Vec<f32>; 2],
    /// Gradient of an expert's gate or up: all of it, and what goes on to `x`.
    side: [Vec<f32>; 2],
    /// Gradient of codes, `[ROWS, rank]`: as `side`.
    code: [Vec<f32>; 2],
    /// A gradient `[ROWS, d_in]` that came through A.
    through: Vec<f32>,
}

impl Room {
    fn new(inputs: &Inputs) -> Self {
        let Sizes { d_model, d_ff, .. } = inputs.sizes;
        let wide = || vec![0.0; ROWS * d_ff];
        let code = || vec![0.0; ROWS * inputs.settings.rank];
        Self {
            forward: Work::new(&inputs.sizes),
            base: [wide(), wide()],
            slope: wide(),
            silu: wide(),
            h: [wide(), wide()],
            side: [wide(), wide()],
            code: [code(), code()],
            through: vec![0.0; ROWS * d_ff.max(d_model)],
        }
    }
}

impl Inputs {
    /// Gradient of the rows that went through down, `[rows, d_model]`.
    pub(super) fn joined(&self, [tokens, pooled]: [Option<FlexTensor>; 2]) -> Vec<f32> {
        let [tokens, pooled] = [tokens, pooled].map(|grad| grad.map(Values::of));
        let Sizes { d_model, rows, .. } = self.sizes;
        let first_pooled = self.sizes.tokens() * d_model;
        filled(rows * d_model, ROWS * d_model, |place, out| {
            let parts = [
                (&tokens, 0..first_pooled),
                (&pooled, first_pooled..rows * d_model),
            ];
            for (grad, part) in parts {
                let Some(grad) = grad else { continue };
                let (start, end) = (place.start.max(part.start), place.end.min(part.end));
                if start < end {
                    out[start - place.start..end - place.start]
                        .copy_from_slice(&grad[start - part.start..end - part.start]);
                }
            }
        })
    }

    pub(super) fn backward(&self, kept: &Kept, grad: &[f32], below: bool) -> Gradient {
        let Sizes {
            batch,
            d_model,
            d_ff,
            codes,
            rows,
            ..
        } = self.sizes;
        let (tokens, experts) = (self.sizes.tokens(), self.settings.experts);
        let ins = [d_model, d_model, d_ff];
        let outs = [d_ff, d_ff, d_model];
        let (a, b) = rayon::join(
            || [0, 1, 2].map(|side| transposed(&self.a[side], ins[side], codes)),
            || [0, 1, 2].map(|side| transposed(&self.b[side], codes, outs[side])),
        );
        let turned = Turned { a, b };
        let hidden = self.base[2].backward(&Activations::new(grad, [rows, d_model]));
        let grad = Matrix::new(grad, rows, d_model);
        let mixed = product(grad, Matrix::new(&turned.b[2], d_model, codes));
        let through = Matrix::new(&kept.mixed, rows, codes).transposed();
        let down_b = product(through, grad);

        let mut sides = [0; 2].map(|_| Buffer::new(if below { tokens * d_ff } else { 0 }));
        let mut x = Buffer::new(if below { tokens * d_model } else { 0 });
        let mut weights = vec![0.0; tokens * experts];
        let read = Read {
            kept,
            hidden,
            mixed,
            turned,
            below,
        };
        let written = Written {
            sides: sides.each_mut().map(Buffer::pieces),
            x: x.pieces(),
            weights: Pieces::new(&mut weights),
        };
        let stretches = self.stretches(0..batch);
        let mut sums: Vec<Option<Sums>> = stretches.iter().map(|_| None).collect();
        let pieces = Pieces::new(&mut sums);
        let one_stretch = |room: &mut Room, index: usize| {
            let mut sums = Sums::new(&self.sizes);
            for &block in &stretches[index] {
                if below {
                    // SAFETY: blocks share no token.
                    unsafe { written.clear(block, &self.sizes) };
                }
                for expert in 0..experts {
                    self.block_backward(expert, block, &read, written, room, &mut sums);
                }
            }
            // SAFETY: this task alone has this stretch.
            let place = unsafe { pieces.piece(index, 1) };
            place[0] = Some(sums);
        };
        for_each_task(stretches.len(), || Room::new(self), one_stretch);
        let sums: Vec<Sums> = sums.into_iter().flatten().collect();
        let Sums([gate_a, up_a, down_a, gate_b, up_b]) = Sums::total(&sums, &self.sizes);

        // SAFETY: the blocks, which are all tokens, were cleared before they were added to.
        let (sides, mut x) = unsafe { (sides.map(|side| side.written()), x.written()) };
        if below {
            for (side, base) in sides.iter().zip(&self.base) {
                base.add_backward(&Activations::new(side, [tokens, d_ff]), &mut x);
            }
        }
        Gradient {
            x,
            weights,
            a: [
                transposed(&gate_a, codes, d_model),
                transposed(&up_a, codes, d_model),
                transposed(&down_a, codes, d_ff),
            ],
            b: [gate_b, up_b, down_b],
        }
    }
}
