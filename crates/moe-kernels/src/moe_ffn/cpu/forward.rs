//! Forward pass.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::loops::{add_scaled, scale_columns, swiglu};
use super::{Block, Inputs, Kept, Result, Sizes, Work};
use crate::cpu::pieces::Pieces;
use crate::cpu::product::{Matrix, add_product, small_product};
use crate::moe_ffn::{MoeFfn, Observed};
use crate::values::{Values, tensor};

/// Tokens that go through all of the network before the next ones, where nothing is kept: their gate, up and hidden state stay in
/// the cache, and are enough rows for a product.
const AT_ONCE: usize = 768;

impl Inputs {
    /// Output and what the backward pass needs.
    pub(crate) fn forward(&self) -> Result {
        let Sizes { d_model, rows, .. } = self.sizes;
        let (out, kept) = self.rows_forward(0..self.sizes.batch);
        Result {
            output: tensor(out, [rows, d_model]),
            kept,
        }
    }

    /// Output alone, `[rows, d_model]`.
    pub(crate) fn output(&self) -> FlexTensor {
        let Sizes {
            batch,
            seq,
            d_model,
            rows,
            ..
        } = self.sizes;
        let step = (AT_ONCE / seq.max(1)).max(1);
        // The pooled rows come after all tokens.
        if self.settings.observed.is_some() || batch <= step {
            return self.forward().output;
        }
        let mut out = Vec::with_capacity(rows * d_model);
        for first in (0..batch).step_by(step) {
            out.extend(self.rows_forward(first..batch.min(first + step)).0);
        }
        tensor(out, [rows, d_model])
    }

    /// Some rows of the batch: their tokens' outputs, and the pooled rows after them.
    fn rows_forward(&self, batch: Range<usize>) -> (Vec<f32>, Kept) {
        let Sizes {
            seq,
            d_model,
            d_ff,
            codes,
            ..
        } = self.sizes;
        let (first, tokens) = (batch.start * seq, batch.len() * seq);
        let observed = self.settings.observed.is_some();
        let rows = tokens + if observed { batch.len() } else { 0 };
        let x = &self.x[first * d_model..(first + tokens) * d_model];
        let base = [0, 1].map(|side: usize| self.base[side].forward(x, tokens));

        let mut hidden = vec![0.0; rows * d_ff];
        let mut mixed = vec![0.0; rows * codes];
        let mut kept_codes = [0; 3].map(|_| vec![0.0; tokens * codes]);
        {
            let (hidden, mixed) = (Pieces::new(&mut hidden), Pieces::new(&mut mixed));
            let kept = kept_codes.each_mut().map(|codes| Pieces::new(codes));
            let run = |work: &mut Work, block: Block, pooled: Option<usize>| {
                let place = block.first - first;
                let part = |width: usize| place * width..(place + block.rows) * width;
                // SAFETY: blocks share no token, and the blocks of a batch row that is pooled run one after the other.
                unsafe {
                    self.block(
                        block,
                        [0, 1].map(|side: usize| &base[side][part(d_ff)]),
                        work,
                        hidden.piece(place * d_ff, block.rows * d_ff),
                        mixed.piece(place * codes, block.rows * codes),
                        kept.map(|kept| kept.piece(place * codes, block.rows * codes)),
                        pooled.map(|row| {
                            let hidden = hidden.piece(row * d_ff, d_ff);
                            (hidden, mixed.piece(row * codes, codes))
                        }),
                    );
                }
            };
            let work = || Work::new(&self.sizes);
            if observed {
                batch
                    .clone()
                    .into_par_iter()
                    .for_each_init(work, |work, row| {
                        for block in self.blocks(row) {
                            run(work, block, Some(tokens + row - batch.start));
                        }
                    });
            } else {
                let blocks: Vec<Block> = batch.flat_map(|row| self.blocks(row)).collect();
                blocks
                    .into_par_iter()
                    .for_each_init(work, |work, block| run(work, block, None));
            }
        }

        let mut out = self.base[2].forward(&hidden, rows);
        add_product(
            Matrix::new(&mixed, rows, codes),
            Matrix::new(&self.b[2], codes, d_model),
            &mut out,
        );
        let values = |numbers: Vec<f32>, rows: usize| {
            let width = numbers.len() / rows.max(1);
            Values::of(tensor(numbers, [rows, width]))
        };
        let kept = Kept {
            base: base.map(|base| values(base, tokens)),
            codes: kept_codes.map(|codes| values(codes, tokens)),
            mixed: values(mixed, rows),
        };
        (out, kept)
    }

    /// One block through all experts, up to the mixture that goes into down.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &self,
        block: Block,
        base: [&[f32]; 2],
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
            self.sides(expert, block, base, [&*kept[0], &*kept[1]], work);
            let [gate, up] = &mut work.sides;
            swiglu(gate, up, &mut work.h);

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
}
