//! Backward pass on the CPU. A block's activations are computed again; its part of the LoRA gradients is summed per batch row, so that
//! the order of the sums does not depend on the threads.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use rayon::prelude::*;

use super::MoeFfn;
use super::cpu::{Block, Inputs, Kept, Sizes, Work, add_scaled, scale_columns};
use crate::cpu::exp::sigmoid;
use crate::cpu::pieces::Pieces;
use crate::cpu::product::{Matrix, product, small_product, transposed};
use crate::cpu::tile::ROWS;
use crate::cpu::vectorised;
use crate::values::{Values, tensor};

#[derive(Debug)]
pub(crate) struct MoeFfnBackward;

impl Backward<Flex, 8> for MoeFfnBackward {
    type State = (Inputs, Kept);

    fn backward(
        self,
        ops: Ops<Self::State, 8>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = Values::of(grads.consume::<Flex>(&ops.node));
        let (inputs, kept) = ops.state;
        let Sizes {
            d_model,
            d_ff,
            codes,
            ..
        } = inputs.sizes;
        let tokens = inputs.sizes.tokens();
        let experts = inputs.settings.experts;
        let below = ops.parents[0].is_some();
        let Gradient {
            x,
            weights,
            a: [gate_a, up_a, down_a],
            b: [gate_b, up_b, down_b],
        } = inputs.backward(&kept, &grad, below);
        let all = [
            (x, [tokens, d_model]),
            (weights, [tokens, experts]),
            (gate_a, [d_model, codes]),
            (gate_b, [codes, d_ff]),
            (up_a, [d_model, codes]),
            (up_b, [codes, d_ff]),
            (down_a, [d_ff, codes]),
            (down_b, [codes, d_model]),
        ];
        for (parent, (gradient, shape)) in ops.parents.into_iter().zip(all) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, tensor(gradient, shape));
            }
        }
    }
}

struct Gradient {
    /// Empty when nothing below wants it.
    x: Vec<f32>,
    weights: Vec<f32>,
    a: [Vec<f32>; 3],
    b: [Vec<f32>; 3],
}

/// The small matrices turned, for products from the right.
struct Turned {
    /// A of gate, up and down: `[codes, d_in]`.
    a: [Vec<f32>; 3],
    /// B of gate, up and down: `[d_out, codes]`.
    b: [Vec<f32>; 3],
}

/// LoRA gradients of one batch row, each `[codes, …]`.
struct Sums {
    a: [Vec<f32>; 3],
    b: [Vec<f32>; 2],
}

impl Sums {
    fn new(sizes: &Sizes) -> Self {
        let Sizes {
            d_model,
            d_ff,
            codes,
            ..
        } = *sizes;
        Self {
            a: [d_model, d_model, d_ff].map(|width| vec![0.0; codes * width]),
            b: [0; 2].map(|_| vec![0.0; codes * d_ff]),
        }
    }

    fn add(mut self, other: Self) -> Self {
        let ours = self.a.iter_mut().chain(&mut self.b);
        for (ours, theirs) in ours.zip(other.a.iter().chain(&other.b)) {
            add_scaled(theirs, 1.0, ours);
        }
        self
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
    fn backward(&self, kept: &Kept, grad: &[f32], below: bool) -> Gradient {
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
        let turned = Turned {
            a: [0, 1, 2].map(|side| transposed(&self.a[side], ins[side], codes)),
            b: [0, 1, 2].map(|side| transposed(&self.b[side], codes, outs[side])),
        };
        let grad = Matrix::new(grad, rows, d_model);
        let mut hidden = vec![0.0; rows * d_ff];
        let down = Matrix::new(&self.base[2], d_ff, d_model);
        product(grad, down.transposed(), &mut hidden, false);
        let mut mixed = vec![0.0; rows * codes];
        product(
            grad,
            Matrix::new(&turned.b[2], d_model, codes),
            &mut mixed,
            false,
        );
        let mut down_b = vec![0.0; codes * d_model];
        let through = Matrix::new(&kept.mixed, rows, codes).transposed();
        product(through, grad, &mut down_b, false);

        let mut sides = [0; 2].map(|_| vec![0.0; if below { tokens * d_ff } else { 0 }]);
        let mut x = vec![0.0; if below { tokens * d_model } else { 0 }];
        let mut weights = vec![0.0; tokens * experts];
        let read = Read {
            kept,
            hidden,
            mixed,
            turned,
            below,
        };
        let written = Written {
            sides: sides.each_mut().map(|side| Pieces::new(side)),
            x: Pieces::new(&mut x),
            weights: Pieces::new(&mut weights),
        };
        let sums: Vec<Sums> = (0..batch)
            .into_par_iter()
            .map(|batch| {
                let (mut sums, mut room) = (Sums::new(&self.sizes), Room::new(self));
                for block in self.blocks(batch) {
                    for expert in 0..experts {
                        self.block_backward(expert, block, &read, written, &mut room, &mut sums);
                    }
                }
                sums
            })
            .collect();
        let sums = sums.into_iter().reduce(Sums::add);
        let Sums {
            a,
            b: [gate_b, up_b],
        } = sums.unwrap_or_else(|| Sums::new(&self.sizes));

        if below {
            for (side, base) in sides.iter().zip(&self.base) {
                let base = Matrix::new(base, d_model, d_ff).transposed();
                product(Matrix::new(side, tokens, d_ff), base, &mut x, true);
            }
        }
        let [gate_a, up_a, down_a] = a;
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

    fn block_backward(
        &self,
        expert: usize,
        block: Block,
        read: &Read<'_>,
        written: Written<'_>,
        room: &mut Room,
        sums: &mut Sums,
    ) {
        let MoeFfn {
            experts,
            rank,
            scaling,
            ..
        } = self.settings;
        let Sizes {
            d_model,
            d_ff,
            codes,
            ..
        } = self.sizes;
        let observed = self.settings.observed.filter(|seen| seen.expert == expert);
        // With a pooled path cut off from x, gradients are kept in two parts.
        let parted = observed.is_some_and(|seen| seen.detached) && read.below;
        let own = expert * rank;
        let rows = block.rows;

        // The expert's activations again.
        let kept = read.kept;
        let kept_codes = [0, 1].map(|side| &kept.codes[side][block.part(codes)]);
        let base = [&kept.base[0][..], &kept.base[1][..]];
        self.sides(expert, block, base, kept_codes, &mut room.forward);
        let [gate, up] = &room.forward.sides;
        derivatives(
            gate,
            up,
            &mut room.forward.h,
            &mut room.slope,
            &mut room.silu,
        );

        // Gradient of the weights, of h and of its code.
        let pooled_row = self.sizes.tokens() + block.batch;
        for row in 0..rows {
            let token = block.first + row;
            let weight = self.weights[token * experts + expert];
            let hidden = &read.hidden[token * d_ff..][..d_ff];
            let h = &room.forward.h[row * d_ff..][..d_ff];
            let mixed = &read.mixed[token * codes + own..][..rank];
            let code = &kept.codes[2][token * codes + own..][..rank];
            let mut share = 0.0;
            dot(hidden, h, &mut share);
            share += mixed.iter().zip(code).map(|(x, y)| x * y).sum::<f32>();
            // SAFETY: one place per token and expert.
            let to = unsafe { written.weights.piece(token * experts + expert, 1) };
            to[0] = share;

            let [main, pooled] = &mut room.h;
            let [main, pooled] = [main, pooled].map(|h| &mut h[row * d_ff..][..d_ff]);
            let [code_main, code_pooled] = &mut room.code;
            let [code_main, code_pooled] =
                [code_main, code_pooled].map(|code| &mut code[row * rank..][..rank]);
            main.fill(0.0);
            add_scaled(hidden, weight, main);
            code_main.fill(0.0);
            add_scaled(mixed, weight * scaling, code_main);
            if observed.is_some() {
                let share = self.shares[token];
                let hidden = &read.hidden[pooled_row * d_ff..][..d_ff];
                let mixed = &read.mixed[pooled_row * codes + own..][..rank];
                if parted {
                    pooled.fill(0.0);
                    add_scaled(hidden, share, pooled);
                    code_pooled.fill(0.0);
                    add_scaled(mixed, share * scaling, code_pooled);
                } else {
                    add_scaled(hidden, share, main);
                    add_scaled(mixed, share * scaling, code_main);
                }
            }
        }
        let parts = if parted { 2 } else { 1 };

        // Through A of down.
        let turned_a = &read.turned.a[2][own * d_ff..];
        for part in 0..parts {
            self.through_a(
                expert,
                2,
                block,
                turned_a,
                &room.code[part],
                &mut room.through,
            );
            add_scaled(
                &room.through[..rows * d_ff],
                1.0,
                &mut room.h[part][..rows * d_ff],
            );
        }
        let [code_main, code_pooled] = &mut room.code;
        if parted {
            add_scaled(code_pooled, 1.0, code_main);
        }
        let h = &room.forward.h[..rows * d_ff];
        let h = self.dropped(expert, 2, block, h, &mut room.forward.dropped);
        small_product(
            Matrix::new(code_main, rows, rank).transposed(),
            Matrix::new(h, rows, d_ff),
            None,
            &mut sums.a[2][own * d_ff..],
            d_ff,
            true,
        );

        // Gate and up: their base, B and A.
        for side in [0, 1] {
            let slope = if side == 0 { &room.slope } else { &room.silu };
            let [all, on] = &mut room.side;
            times(&room.h[0], slope, all);
            if read.below {
                // SAFETY: blocks share no token, and experts come one after the other.
                let to = unsafe { written.sides[side].piece(block.first * d_ff, rows * d_ff) };
                add_scaled(&all[..rows * d_ff], 1.0, to);
            }
            if parted {
                on.copy_from_slice(all);
                add_times(&room.h[1], slope, all);
            }
            small_product(
                Matrix::strided(&kept_codes[side][own..], rows, rank, codes).transposed(),
                Matrix::new(all, rows, d_ff),
                None,
                &mut sums.b[side][own * d_ff..],
                d_ff,
                true,
            );
            let turned_b = Matrix::strided(&read.turned.b[side][own..], d_ff, rank, codes);
            for (grad, code) in room.side.iter().zip(&mut room.code).take(parts) {
                small_product(
                    Matrix::new(grad, rows, d_ff),
                    turned_b,
                    None,
                    code,
                    rank,
                    false,
                );
                scale_columns(code, rank, rank, scaling);
            }
            let x = self.dropped(
                expert,
                side,
                block,
                &self.x[block.part(d_model)],
                &mut room.forward.x,
            );
            small_product(
                Matrix::new(&room.code[0], rows, rank).transposed(),
                Matrix::new(x, rows, d_model),
                None,
                &mut sums.a[side][own * d_model..],
                d_model,
                true,
            );
            if read.below {
                let on = &room.code[parts - 1];
                let turned_a = &read.turned.a[side][own * d_model..];
                self.through_a(expert, side, block, turned_a, on, &mut room.through);
                // SAFETY: as above.
                let to = unsafe { written.x.piece(block.first * d_model, rows * d_model) };
                add_scaled(&room.through[..rows * d_model], 1.0, to);
            }
        }
    }

    /// Gradient of codes → gradient of what went into A, its mask included.
    fn through_a(
        &self,
        expert: usize,
        projection: usize,
        block: Block,
        turned_a: &[f32],
        code: &[f32],
        out: &mut [f32],
    ) {
        let Sizes { d_model, d_ff, .. } = self.sizes;
        let width = if projection == 2 { d_ff } else { d_model };
        let rank = self.settings.rank;
        small_product(
            Matrix::new(code, block.rows, rank),
            Matrix::new(turned_a, rank, width),
            None,
            out,
            width,
            false,
        );
        if let Some(dropout) = &self.settings.dropout {
            let mask = &dropout.masks[expert][projection];
            mask_rows_in_place(
                &mut out[..block.rows * width],
                mask,
                block.first,
                block.rows,
            );
        }
    }
}

vectorised! {
    /// `h = silu(gate) ⊙ up` and its derivatives by gate (`slope`) and by up (`silu`).
    fn derivatives(gate: &[f32], up: &[f32], h: &mut [f32], slope: &mut [f32], silu: &mut [f32]) {
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
    fn times(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = x * y;
        }
    }
}

vectorised! {
    fn add_times(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = x.mul_add(*y, *out);
        }
    }
}

vectorised! {
    fn dot(x: &[f32], y: &[f32], out: &mut f32) {
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
    fn mask_rows_in_place(x: &mut [f32], mask: &crate::dropout::Mask, first: usize, rows: usize) {
        let width = x.len() / rows;
        for (row, x) in x.chunks_exact_mut(width).enumerate() {
            let start = mask.row_start(first + row);
            for (column, x) in x.iter_mut().enumerate() {
                *x *= mask.factor(start, column);
            }
        }
    }
}
