//! What the forward pass keeps for the backward pass.

use std::ops::Range;

use burn::tensor::bf16;

use super::loops::widen;
use crate::values::Values;

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The base's gate and up, `[tokens, d_ff]`.
    pub(super) base: [KeptRows; 2],
    /// Scaled codes on gate, up and down, `[tokens, codes]`.
    pub(super) codes: [Values; 3],
    /// What goes through B of down: weighted codes of the tokens, pooled codes of the batch rows, `[rows, codes]`.
    pub(super) mixed: Values,
}

/// The largest things that are kept. On a bf16 base, whose products round to bf16 anyway, so do they: half the memory.
#[derive(Clone, Debug)]
pub(super) enum KeptRows {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl KeptRows {
    /// Some of the numbers, widened into `room` where need be.
    pub(super) fn part<'a>(&'a self, part: Range<usize>, room: &'a mut [f32]) -> &'a [f32] {
        match self {
            Self::F32(numbers) => &numbers[part],
            Self::Bf16(numbers) => {
                let room = &mut room[..part.len()];
                widen(&numbers[part], room);
                room
            }
        }
    }
}
