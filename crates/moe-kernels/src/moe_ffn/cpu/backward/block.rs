//! One block of tokens of one expert.

use super::super::loops::{
    add_scaled, add_times, derivatives, dot, mask_rows_in_place, scale_columns, times,
};
use super::super::{Block, Inputs, Sizes};
use super::{Read, Room, Sums, Written};
use crate::cpu::product::{Matrix, small_product};
use crate::moe_ffn::MoeFfn;

impl Inputs {
    pub(super) fn block_backward(
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
        let [gate, up] = &mut room.base;
        let base = [
            kept.base[0].part(block.part(d_ff), gate),
            kept.base[1].part(block.part(d_ff), up),
        ];
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
        let (weights, shares) = (
            &self.weights[block.part(experts)],
            &self.shares[block.part(1)],
        );
        let down_codes = &kept.codes[2][block.part(codes)];
        let pooled_row = self.sizes.tokens() + block.batch;
        for row in 0..rows {
            let token = block.first + row;
            let weight = weights[row * experts + expert];
            let hidden = &read.hidden[token * d_ff..][..d_ff];
            let h = &room.forward.h[row * d_ff..][..d_ff];
            let mixed = &read.mixed[token * codes + own..][..rank];
            let code = &down_codes[row * codes + own..][..rank];
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
                let share = shares[row];
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
            &mut sums.a(2)[own * d_ff..],
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
                &mut sums.b(side)[own * d_ff..],
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
                &mut sums.a(side)[own * d_model..],
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
