//! The operation on the CPU: the base's products over all tokens, and between them everything else, [`ROWS`] tokens at a time.

mod backward;
mod forward;
mod kept;
mod loops;

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use self::backward::Gradient;
use self::kept::Kept;
use self::loops::mask_rows;
use super::{MoeFfn, MoeFfnInputs};
use crate::autodiff::Operation;
use crate::cpu::product::{Matrix, small_product};
use crate::cpu::tile::ROWS;
use crate::cpu::weight::Weight;
use crate::values::{Values, matrix_dims, tensor};

impl Operation<Flex, 8, 2> for MoeFfnInputs<Flex> {
    type Kept = (Inputs, Kept);

    fn forward(self) -> ([FlexTensor; 2], Self::Kept) {
        let inputs = Inputs::new(self);
        let (outputs, kept) = inputs.forward();
        (outputs, (inputs, kept))
    }

    fn outputs(self) -> [FlexTensor; 2] {
        Inputs::new(self).outputs()
    }

    fn backward(
        (inputs, kept): Self::Kept,
        grads: [Option<FlexTensor>; 2],
        wanted: [bool; 8],
    ) -> [Option<FlexTensor>; 8] {
        let Sizes {
            d_model,
            d_ff,
            codes,
            ..
        } = inputs.sizes;
        let tokens = inputs.sizes.tokens();
        let grad = inputs.joined(grads);
        let Gradient {
            x,
            weights,
            a: [gate_a, up_a, down_a],
            b: [gate_b, up_b, down_b],
        } = inputs.backward(&kept, &grad, wanted[0]);
        let mut wanted = wanted.into_iter();
        [
            (x, [tokens, d_model]),
            (weights, [tokens, inputs.settings.experts]),
            (gate_a, [d_model, codes]),
            (gate_b, [codes, d_ff]),
            (up_a, [d_model, codes]),
            (up_b, [codes, d_ff]),
            (down_a, [d_ff, codes]),
            (down_b, [codes, d_model]),
        ]
        .map(|(gradient, shape)| (wanted.next() == Some(true)).then(|| tensor(gradient, shape)))
    }
}

/// The tensors of the operation.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    x: Values,
    weights: Values,
    /// On gate, up and down: A `[d_in, codes]` and B `[codes, d_out]`.
    a: [Values; 3],
    b: [Values; 3],
    /// Gate, up and down.
    base: [Weight; 3],
    shares: Values,
    settings: MoeFfn,
    sizes: Sizes,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    seq: usize,
    d_model: usize,
    d_ff: usize,
    /// `experts · rank`.
    codes: usize,
    /// Rows that go through down: tokens, and a pooled row per batch row when an expert is observed.
    rows: usize,
}

impl Sizes {
    fn tokens(&self) -> usize {
        self.batch * self.seq
    }
}

/// Blocks of a stretch: 96 tokens, so that a long text is work for all threads.
const TOGETHER: usize = 8;

/// Some tokens of one batch row.
#[derive(Clone, Copy)]
struct Block {
    batch: usize,
    /// First token, counted over the whole batch.
    first: usize,
    rows: usize,
}

impl Block {
    /// The block's part of a tensor with `width` numbers per token.
    fn part(&self, width: usize) -> Range<usize> {
        self.first * width..(self.first + self.rows) * width
    }
}

impl Inputs {
    fn new(tensors: MoeFfnInputs<Flex>) -> Self {
        let MoeFfnInputs { base, settings, .. } = tensors;
        let ([tokens, d_model], [_, d_ff]) = (matrix_dims(&tensors.x), base[0].dims());
        let [batch, seq] = matrix_dims(&tensors.shares);
        let pooled = if settings.observed.is_some() {
            batch
        } else {
            0
        };
        Self {
            x: Values::of(tensors.x),
            weights: Values::of(tensors.weights),
            a: [tensors.gate_a, tensors.up_a, tensors.down_a].map(Values::of),
            b: [tensors.gate_b, tensors.up_b, tensors.down_b].map(Values::of),
            base,
            shares: Values::of(tensors.shares),
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

    /// Stretches of at most [`TOGETHER`] blocks of one batch row, for all rows of `batch`: what is summed over tokens is summed over each
    /// apart, and then over all in this order, whatever the threads.
    fn stretches(&self, batch: Range<usize>) -> Vec<Vec<Block>> {
        let rows = batch.map(|row| self.blocks(row).collect::<Vec<_>>());
        rows.flat_map(|blocks| {
            blocks
                .chunks(TOGETHER)
                .map(<[_]>::to_vec)
                .collect::<Vec<_>>()
        })
        .collect()
    }

    /// Blocks of one batch row.
    fn blocks(&self, batch: usize) -> impl Iterator<Item = Block> + use<> {
        let seq = self.sizes.seq;
        (0..seq).step_by(ROWS).map(move |first| Block {
            batch,
            first: batch * seq + first,
            rows: (seq - first).min(ROWS),
        })
    }

    /// `x` (a block's rows) under the mask of an expert's projection; `x` itself without dropout.
    fn dropped<'a>(
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

    /// Gate and up of one expert for a block into `work.sides`: the base's (the block's rows) plus the code through B.
    fn sides(
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
                Some(Matrix::new(base[side], block.rows, d_ff)),
                &mut work.sides[side],
                d_ff,
                false,
            );
        }
    }
}

/// Room for one block, used again for the next.
struct Work {
    /// Masked input `[ROWS, d_model]`.
    x: Vec<f32>,
    /// An expert's gate and up `[ROWS, d_ff]`.
    sides: [Vec<f32>; 2],
    /// `silu(gate) ⊙ up`.
    h: Vec<f32>,
    /// `h` under its mask.
    dropped: Vec<f32>,
}

impl Work {
    fn new(sizes: &Sizes) -> Self {
        let wide = || vec![0.0; ROWS * sizes.d_ff];
        Self {
            x: vec![0.0; ROWS * sizes.d_model],
            sides: [wide(), wide()],
            h: wide(),
            dropped: wide(),
        }
    }
}
