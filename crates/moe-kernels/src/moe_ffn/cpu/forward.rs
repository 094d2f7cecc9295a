//! Forward pass.

use std::ops::Range;

use burn::backend::flex::FlexTensor;

use super::kept::KeptRows;
use super::loops::{add_scaled, round, scale_columns, swiglu};
use super::{Block, Inputs, Kept, Sizes, Work};
use crate::cpu::panel_product::Activations;
use crate::cpu::pieces::{Buffer, Pieces};
use crate::cpu::product::{Matrix, add_product, small_product};
use crate::cpu::queue::for_each_task;
use crate::moe_ffn::{MoeFfn, Observed};
use crate::values::{Values, tensor};

/// Tokens that go through all of the network before the next ones, where nothing is kept: their gate, up and hidden state stay in
/// the cache, and are enough rows for a product.
const AT_ONCE: usize = 768;

/// Sums over tokens of the observed expert's `h`, `[d_ff]`, and of its code, `[codes]`.
type Pooled<'a> = (&'a mut [f32], &'a mut [f32]);

impl Inputs {
    /// Mixture and pooled output, and what the backward pass needs.
    pub(super) fn forward(&self) -> ([FlexTensor; 2], Kept) {
        let (out, kept) = self.rows_forward(0..self.sizes.batch, true);
        (self.parted(out), kept.expect("asked for"))
    }

    /// Mixture and pooled output alone.
    pub(super) fn outputs(&self) -> [FlexTensor; 2] {
        let Sizes {
            batch,
            seq,
            d_model,
            rows,
            ..
        } = self.sizes;
        // Pooled rows come after all tokens.
        let step = match self.settings.observed {
            Some(_) => batch.max(1),
            None => (AT_ONCE / seq.max(1)).max(1),
        };
        let parts = (0..batch).step_by(step);
        let parts = parts.map(|first| first..batch.min(first + step));
        let mut out = Vec::with_capacity(rows * d_model);
        for part in parts {
            let (rows_out, _) = self.rows_forward(part, false);
            if rows_out.len() == rows * d_model {
                out = rows_out;
            } else {
                out.extend(rows_out);
            }
        }
        self.parted(out)
    }

    /// Tokens and pooled rows.
    fn parted(&self, mut out: Vec<f32>) -> [FlexTensor; 2] {
        let (tokens, d_model) = (self.sizes.tokens(), self.sizes.d_model);
        let pooled = out.split_off(tokens * d_model);
        let pooled_rows = self.sizes.rows - tokens;
        [
            tensor(out, [tokens, d_model]),
            tensor(pooled, [pooled_rows, d_model]),
        ]
    }

    /// Some rows of the batch: their tokens' outputs, and the pooled rows after them; and what the backward pass needs, if asked to
    /// keep it.
    fn rows_forward(&self, batch: Range<usize>, keep: bool) -> (Vec<f32>, Option<Kept>) {
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
        let x = Activations::new(x, [tokens, d_model]);
        let base = [0, 1].map(|side: usize| self.base[side].forward(&x));

        let rounds = keep && self.base[0].is_bf16();
        let mut rounded = [0; 2].map(|_| Buffer::new(if rounds { tokens * d_ff } else { 0 }));
        let (mut hidden, mut mixed) = (Buffer::new(rows * d_ff), Buffer::new(rows * codes));
        let mut kept_codes = [0; 3].map(|_| Buffer::new(tokens * codes));
        {
            let (hidden, mixed) = (hidden.pieces(), mixed.pieces());
            let kept_codes = kept_codes.each_mut().map(Buffer::pieces);
            let rounded = rounded.each_mut().map(Buffer::pieces);
            let run = |work: &mut Work, block: Block, pooled: Option<Pooled<'_>>| {
                let (place, rows) = (block.first - first, block.rows);
                let base = [0, 1].map(|side: usize| &base[side][place * d_ff..][..rows * d_ff]);
                // SAFETY: blocks share no token.
                unsafe {
                    self.block(
                        block,
                        base,
                        keep,
                        work,
                        hidden.zeroed(place * d_ff, rows * d_ff),
                        mixed.zeroed(place * codes, rows * codes),
                        kept_codes.map(|kept| kept.zeroed(place * codes, rows * codes)),
                        pooled,
                    );
                    if rounds {
                        for (x, rounded) in base.into_iter().zip(rounded) {
                            round(x, rounded.zeroed(place * d_ff, rows * d_ff));
                        }
                    }
                }
            };
            let work = || Work::new(&self.sizes);
            if observed {
                let stretches = self.stretches(batch.clone());
                let width = d_ff + codes;
                let mut sums = vec![0.0; stretches.len() * width];
                let pieces = Pieces::new(&mut sums);
                for_each_task(stretches.len(), work, |work, index| {
                    // SAFETY: the sums are this stretch's own.
                    let sums = unsafe { pieces.piece(index * width, width) };
                    let (hidden, mixed) = sums.split_at_mut(d_ff);
                    for &block in &stretches[index] {
                        run(work, block, Some((&mut *hidden, &mut *mixed)));
                    }
                });
                for row in 0..batch.len() {
                    let pooled = tokens + row;
                    // SAFETY: no task is at work any more.
                    let (hidden, mixed) = unsafe {
                        let hidden = hidden.zeroed(pooled * d_ff, d_ff);
                        (hidden, mixed.zeroed(pooled * codes, codes))
                    };
                    let all = stretches.iter().zip(sums.chunks_exact(width));
                    for (_, sums) in all.filter(|(blocks, _)| blocks[0].batch == batch.start + row)
                    {
                        add_scaled(&sums[..d_ff], 1.0, hidden);
                        add_scaled(&sums[d_ff..], 1.0, mixed);
                    }
                }
            } else {
                let blocks: Vec<Block> = batch.flat_map(|row| self.blocks(row)).collect();
                for_each_task(blocks.len(), work, |work, index| {
                    run(work, blocks[index], None)
                });
            }
        }
        // SAFETY: the blocks are all tokens, and every pooled row was written.
        let (hidden, mixed, kept_codes) = unsafe {
            let kept_codes = kept_codes.map(|codes| codes.written());
            (hidden.written(), mixed.written(), kept_codes)
        };

        let mut out = self.base[2].forward(&Activations::new(&hidden, [rows, d_ff]));
        add_product(
            Matrix::new(&mixed, rows, codes),
            Matrix::new(&self.b[2], codes, d_model),
            &mut out,
        );
        let kept = keep.then(|| Kept {
            base: match rounds {
                // SAFETY: the blocks are all tokens.
                true => rounded.map(|rows| KeptRows::Bf16(unsafe { rows.written() })),
                false => base.map(KeptRows::F32),
            },
            codes: kept_codes.map(|numbers| Values::of(tensor(numbers, [tokens, codes]))),
            mixed: Values::of(tensor(mixed, [rows, codes])),
        });
        (out, kept)
    }

    /// Whether anything depends on what the expert makes of the block: it weighs something for a token, or is observed.
    fn answers(&self, expert: usize, block: Block) -> bool {
        let experts = self.settings.experts;
        let observed = self.settings.observed.is_some_and(|it| it.expert == expert);
        let weights = &self.weights[block.part(experts)];
        observed
            || weights
                .chunks_exact(experts)
                .any(|weights| weights[expert] != 0.0)
    }

    /// One block through all experts, up to the mixture that goes into down. Where nothing is kept for a backward pass, experts of
    /// no weight are left out, so that a batch of many tasks costs no more than one of a single task.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &self,
        block: Block,
        base: [&[f32]; 2],
        keep: bool,
        work: &mut Work,
        hidden: &mut [f32],
        mixed: &mut [f32],
        kept: [&mut [f32]; 3],
        mut pooled: Option<Pooled<'_>>,
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
        let weights = &self.weights[block.part(experts)];
        let answering = (0..experts).filter(|&expert| keep || self.answers(expert, block));
        let answering: Vec<usize> = answering.collect();
        let x = &self.x[block.part(d_model)];
        // Experts that read the same input share a product.
        let shared = self.settings.dropout.is_none() && answering.len() == experts;
        if shared {
            for side in [0, 1] {
                self.side_codes(side, 0..codes, x, kept[side]);
            }
        }
        for expert in answering {
            let own = expert * rank;
            if !shared {
                for side in [0, 1] {
                    let x = self.dropped(expert, side, block, x, &mut work.x);
                    self.side_codes(side, own..own + rank, x, kept[side]);
                }
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
                let weight = weights[row * experts + expert];
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

    /// Some codes on gate (side 0) or up (1) for rows `x`, into their columns of `out`.
    fn side_codes(&self, side: usize, columns: Range<usize>, x: &[f32], out: &mut [f32]) {
        let Sizes { d_model, codes, .. } = self.sizes;
        let (rows, width) = (x.len() / d_model, columns.len());
        let a = Matrix::strided(&self.a[side][columns.start..], d_model, width, codes);
        let out = &mut out[columns.start..];
        small_product(Matrix::new(x, rows, d_model), a, None, out, codes, false);
        scale_columns(out, codes, width, self.settings.scaling);
    }
}
