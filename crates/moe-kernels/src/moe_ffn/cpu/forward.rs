//! Forward pass.

use rayon::prelude::*;

use super::loops::{add_scaled, scale_columns, swiglu};
use super::{Block, Inputs, Kept, Result, Sizes, Work};
use crate::cpu::pieces::Pieces;
use crate::cpu::product::{Matrix, product, small_product};
use crate::moe_ffn::{MoeFfn, Observed};
use crate::values::{Values, tensor};

impl Inputs {
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
