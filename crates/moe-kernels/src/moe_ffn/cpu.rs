//! Forward pass on the CPU: the base's products over all tokens, and between them everything else, [`ROWS`] tokens at a time.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

pub(crate) use super::backward::MoeFfnBackward;
use super::{MoeFfn, Observed};
use crate::cpu::exp::sigmoid;
use crate::cpu::pieces::Pieces;
use crate::cpu::product::{Matrix, product, small_product};
use crate::cpu::tile::ROWS;
use crate::cpu::vectorised;
use crate::dropout::Mask;
use crate::values::{Values, matrix_dims, tensor};

/// The tensors of the operation.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub(super) x: Values,
    pub(super) weights: Values,
    /// On gate, up and down: A `[d_in, codes]` and B `[codes, d_out]`.
    pub(super) a: [Values; 3],
    pub(super) b: [Values; 3],
    /// Gate, up and down.
    pub(super) base: [Values; 3],
    pub(super) shares: Values,
    pub(super) settings: MoeFfn,
    pub(super) sizes: Sizes,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) seq: usize,
    pub(super) d_model: usize,
    pub(super) d_ff: usize,
    /// `experts · rank`.
    pub(super) codes: usize,
    /// Rows of the output: tokens, and a pooled row per batch row when an expert is observed.
    pub(super) rows: usize,
}

impl Sizes {
    pub(super) fn tokens(&self) -> usize {
        self.batch * self.seq
    }
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The base's gate and up, `[tokens, d_ff]`.
    pub(super) base: [Values; 2],
    /// Scaled codes on gate, up and down, `[tokens, codes]`.
    pub(super) codes: [Values; 3],
    /// What goes through B of down: weighted codes of the tokens, pooled codes of the batch rows, `[rows, codes]`.
    pub(super) mixed: Values,
}

pub(crate) struct Result {
    /// `[rows, d_model]`.
    pub(crate) output: FlexTensor,
    pub(crate) kept: Kept,
}

/// Some tokens of one batch row.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) batch: usize,
    /// First token, counted over the whole batch.
    pub(super) first: usize,
    pub(super) rows: usize,
}

impl Block {
    /// The block's part of a tensor with `width` numbers per token.
    pub(super) fn part(&self, width: usize) -> Range<usize> {
        self.first * width..(self.first + self.rows) * width
    }
}

impl Inputs {
    pub(crate) fn new(
        [x, weights, gate_a, gate_b, up_a, up_b, down_a, down_b]: [FlexTensor; 8],
        base: [FlexTensor; 3],
        shares: FlexTensor,
        settings: MoeFfn,
    ) -> Self {
        let ([tokens, d_model], [_, d_ff]) = (matrix_dims(&x), matrix_dims(&base[0]));
        let [batch, seq] = matrix_dims(&shares);
        let pooled = if settings.observed.is_some() {
            batch
        } else {
            0
        };
        Self {
            x: Values::of(x),
            weights: Values::of(weights),
            a: [gate_a, up_a, down_a].map(Values::of),
            b: [gate_b, up_b, down_b].map(Values::of),
            base: base.map(Values::of),
            shares: Values::of(shares),
            sizes: Sizes {
                batch,
                seq,
                d_model,
                d_ff,
                codes: settings.experts * settings.rank,
                rows: tokens + pooled,
            },
            settings,
        }
    }

    /// Blocks of one batch row.
    pub(super) fn blocks(&self, batch: usize) -> impl Iterator<Item = Block> + use<> {
        let seq = self.sizes.seq;
        (0..seq).step_by(ROWS).map(move |first| Block {
            batch,
            first: batch * seq + first,
            rows: (seq - first).min(ROWS),
        })
    }

    pub(crate) fn forward(&self) -> Result {
        let Sizes {
            batch,
            d_model,
            d_ff,
            codes,
            rows,
            ..
        } = self.sizes;
        let tokens = self.sizes.tokens();
        let x = Matrix::new(&self.x, tokens, d_model);
        let base = [0, 1].map(|side| {
            let mut out = vec![0.0; tokens * d_ff];
            product(
                x,
                Matrix::new(&self.base[side], d_model, d_ff),
                &mut out,
                false,
            );
            out
        });

        let mut hidden = vec![0.0; rows * d_ff];
        let mut mixed = vec![0.0; rows * codes];
        let mut kept_codes = [0; 3].map(|_| vec![0.0; tokens * codes]);
        {
            let (hidden, mixed) = (Pieces::new(&mut hidden), Pieces::new(&mut mixed));
            let kept = kept_codes.each_mut().map(|codes| Pieces::new(codes));
            (0..batch).into_par_iter().for_each(|batch| {
                let mut work = Work::new(&self.sizes);
                for block in self.blocks(batch) {
                    // SAFETY: blocks share no token, and the pooled row is this batch row's own.
                    unsafe {
                        let hidden_rows = hidden.piece(block.first * d_ff, block.rows * d_ff);
                        let mixed_rows = mixed.piece(block.first * codes, block.rows * codes);
                        let kept =
                            kept.map(|kept| kept.piece(block.first * codes, block.rows * codes));
                        let pooled = (rows > tokens).then(|| {
                            let row = tokens + batch;
                            (
                                hidden.piece(row * d_ff, d_ff),
                                mixed.piece(row * codes, codes),
                            )
                        });
                        self.block(
                            block,
                            &base,
                            &mut work,
                            hidden_rows,
                            mixed_rows,
                            kept,
                            pooled,
                        );
                    }
                }
            });
        }

        let mut out = vec![0.0; rows * d_model];
        product(
            Matrix::new(&hidden, rows, d_ff),
            Matrix::new(&self.base[2], d_ff, d_model),
            &mut out,
            false,
        );
        product(
            Matrix::new(&mixed, rows, codes),
            Matrix::new(&self.b[2], codes, d_model),
            &mut out,
            true,
        );
        let values = |numbers: Vec<f32>, rows: usize| {
            let width = numbers.len() / rows.max(1);
            Values::of(tensor(numbers, [rows, width]))
        };
        Result {
            output: tensor(out, [rows, d_model]),
            kept: Kept {
                base: base.map(|base| values(base, tokens)),
                codes: kept_codes.map(|codes| values(codes, tokens)),
                mixed: values(mixed, rows),
            },
        }
    }

    /// One block through all experts, up to the mixture that goes into down.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &self,
        block: Block,
        base: &[Vec<f32>; 2],
        work: &mut Work,
        hidden: &mut [f32],
        mixed: &mut [f32],
        kept: [&mut [f32]; 3],
        mut pooled: Option<(&mut [f32], &mut [f32])>,
    ) {
        let MoeFfn {
            experts,
            rank,
            scaling,
            observed,
            ..
        } = self.settings;
        let Sizes {
            d_model,
            d_ff,
            codes,
            ..
        } = self.sizes;
        let shares = &self.shares[block.part(1)];
        for expert in 0..experts {
            let own = expert * rank;
            for side in [0, 1] {
                let x = self.dropped(
                    expert,
                    side,
                    block,
                    &self.x[block.part(d_model)],
                    &mut work.x,
                );
                let code = &mut kept[side][own..];
                let a = Matrix::strided(&self.a[side][own..], d_model, rank, codes);
                small_product(
                    Matrix::new(x, block.rows, d_model),
                    a,
                    None,
                    code,
                    codes,
                    false,
                );
                scale_columns(code, codes, rank, scaling);
            }
            self.sides(
                expert,
                block,
                [&base[0], &base[1]],
                [&*kept[0], &*kept[1]],
                work,
            );
            let [gate, up] = &mut work.sides;
            swiglu_block(gate, up, &mut work.h);

            let h = self.dropped(
                expert,
                2,
                block,
                &work.h[..block.rows * d_ff],
                &mut work.dropped,
            );
            let code = &mut kept[2][own..];
            let a = Matrix::strided(&self.a[2][own..], d_ff, rank, codes);
            small_product(
                Matrix::new(h, block.rows, d_ff),
                a,
                None,
                code,
                codes,
                false,
            );
            scale_columns(code, codes, rank, scaling);

            for row in 0..block.rows {
                let weight = self.weights[(block.first + row) * experts + expert];
                let h = &work.h[row * d_ff..][..d_ff];
                let code = &kept[2][row * codes + own..][..rank];
                add_scaled(h, weight, &mut hidden[row * d_ff..][..d_ff]);
                add_scaled(code, weight, &mut mixed[row * codes + own..][..rank]);
                if let (Some((pooled_h, pooled_code)), Some(Observed { expert: seen, .. })) =
                    (&mut pooled, observed)
                    && seen == expert
                {
                    add_scaled(h, shares[row], pooled_h);
                    add_scaled(code, shares[row], &mut pooled_code[own..own + rank]);
                }
            }
        }
    }

    /// `x` (a block's rows) under the mask of an expert's projection; `x` itself without dropout.
    pub(super) fn dropped<'a>(
        &self,
        expert: usize,
        projection: usize,
        block: Block,
        x: &'a [f32],
        out: &'a mut [f32],
    ) -> &'a [f32] {
        let Some(dropout) = &self.settings.dropout else {
            return x;
        };
        let out = &mut out[..x.len()];
        mask_rows(
            x,
            &dropout.masks[expert][projection],
            block.first,
            block.rows,
            out,
        );
        out
    }

    /// Gate and up of one expert for a block into `work.sides`: the base's plus the code through B.
    pub(super) fn sides(
        &self,
        expert: usize,
        block: Block,
        base: [&[f32]; 2],
        codes: [&[f32]; 2],
        work: &mut Work,
    ) {
        let Sizes {
            d_ff, codes: width, ..
        } = self.sizes;
        let rank = self.settings.rank;
        let own = expert * rank;
        for side in [0, 1] {
            small_product(
                Matrix::strided(&codes[side][own..], block.rows, rank, width),
                Matrix::strided(&self.b[side][own * d_ff..], rank, d_ff, d_ff),
                Some(Matrix::new(&base[side][block.part(d_ff)], block.rows, d_ff)),
                &mut work.sides[side],
                d_ff,
                false,
            );
        }
    }
}

/// Room for one block, used again for the next.
pub(super) struct Work {
    /// Masked input `[ROWS, d_model]`.
    pub(super) x: Vec<f32>,
    /// An expert's gate and up `[ROWS, d_ff]`.
    pub(super) sides: [Vec<f32>; 2],
    /// `silu(gate) ⊙ up`.
    pub(super) h: Vec<f32>,
    /// `h` under its mask.
    pub(super) dropped: Vec<f32>,
}

impl Work {
    pub(super) fn new(sizes: &Sizes) -> Self {
        let wide = || vec![0.0; ROWS * sizes.d_ff];
        Self {
            x: vec![0.0; ROWS * sizes.d_model],
            sides: [wide(), wide()],
            h: wide(),
            dropped: wide(),
        }
    }
}

vectorised! {
    fn swiglu_block(gate: &[f32], up: &[f32], h: &mut [f32]) {
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
