//! The forward pass.

use super::loops;
use super::{Inputs, Sides};
use crate::cpu::panel_product::grouped::{Block, Sum, products};
use crate::cpu::panel_product::{Activations, Format};
use crate::cpu::pieces::{Buffer, Pieces};
use crate::cpu::stack::Number;

impl Inputs {
    /// The output, and what the backward pass needs.
    pub(super) fn forward<T: Format + Number>(&self) -> (Vec<f32>, Sides) {
        let mut h = Buffer::new(self.routing.entries() * self.d_ff);
        let (weights, to) = (self.routing.sorted(&self.weights), h.pieces());
        let sides = self.sides::<T>(|block, [gate, up]| {
            loops::forward(&block, self.d_ff, &weights, gate, up, to);
        });
        // SAFETY: the blocks are all there is.
        let h = unsafe { h.written() };
        (self.down::<T>(&h), Sides(sides))
    }

    /// The output alone.
    pub(super) fn output<T: Format + Number>(&self) -> Vec<f32> {
        let weights = self.routing.sorted(&self.weights);
        let [h, _] = self.sides::<T>(|block, [gate, up]| {
            loops::forward_in_place(&block, self.d_ff, &weights, gate, up);
        });
        self.down::<T>(&h)
    }

    /// Gate and up of the entries, `[entries, d_ff]`, after `then`.
    fn sides<T: Format + Number>(
        &self,
        then: impl Fn(Block, [Pieces<'_>; 2]) + Sync,
    ) -> [Vec<f32>; 2] {
        let Self { d_model, d_ff, .. } = *self;
        let entries = self.routing.entries();
        let x = self.routing.gathered(&self.x, d_model);
        let x = Activations::new(&x, [entries, d_model]);
        let mut sides = [0, 1].map(|_| Buffer::new(entries * d_ff));
        let pieces = sides.each_mut().map(Buffer::pieces);
        let sums: [Sum<'_, T>; 2] = [0, 1].map(|side| Sum {
            factors: vec![(&x, self.matrices[side].forward())],
            out: pieces[side],
        });
        products(&self.routing.bounds, d_ff, &sums, |block| {
            then(block, pieces)
        });
        // SAFETY: products write every entry.
        sides.map(|side| unsafe { side.written() })
    }

    /// Weighted hidden states `[entries, d_ff]` through down, summed by token.
    fn down<T: Format + Number>(&self, h: &[f32]) -> Vec<f32> {
        let Self { d_model, d_ff, .. } = *self;
        let entries = self.routing.entries();
        let h = Activations::new(h, [entries, d_ff]);
        let mut y = Buffer::new(entries * d_model);
        let sum: Sum<'_, T> = Sum {
            factors: vec![(&h, self.matrices[2].forward())],
            out: y.pieces(),
        };
        products(&self.routing.bounds, d_model, &[sum], |_| ());
        // SAFETY: products write every entry.
        self.routing.combined(&unsafe { y.written() }, d_model)
    }
}
