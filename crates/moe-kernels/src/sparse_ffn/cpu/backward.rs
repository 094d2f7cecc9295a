//! The backward pass: equations in docs/MATH.md.

use std::sync::Arc;

use super::{Inputs, Sides, loops};
use crate::cpu::outer_products::outer_products;
use crate::cpu::panel_product::grouped::{COLUMNS, Sum, products};
use crate::cpu::panel_product::{Activations, Format};
use crate::cpu::pieces::{Buffer, Pieces};
use crate::cpu::stack::Number;

/// Gradients of the inputs, those that are wanted.
pub(super) struct Gradient {
    /// `[tokens, d_model]`.
    pub(super) x: Option<Vec<f32>>,
    /// `[entries]`.
    pub(super) weights: Vec<f32>,
    /// Of gate, up and down: `[experts, d_in, d_out]`.
    pub(super) sides: [Option<Vec<f32>>; 3],
}

impl Inputs {
    /// `grad [tokens, d_model]`; `wanted`: x, weights, gate, up, down.
    pub(super) fn backward<T: Format + Number>(
        &self,
        sides: Arc<Sides>,
        grad: &[f32],
        wanted: [bool; 5],
    ) -> Gradient {
        let Self { d_model, d_ff, .. } = *self;
        let (routing, entries) = (&self.routing, self.routing.entries());
        // Their gradients take their place, unless the graph is kept for another pass.
        let Sides([mut gate, mut up]) = Arc::try_unwrap(sides).unwrap_or_else(|it| (*it).clone());

        let grad = routing.gathered(grad, d_model);
        let weights = routing.sorted(&self.weights);
        let panels = d_ff.div_ceil(COLUMNS);
        let mut parts = vec![0.0; entries * panels];
        let mut h = Buffer::new(entries * d_ff);
        let out_of_down = Activations::new(&grad, [entries, d_model]);
        let to = h.pieces();
        let (gates, ups) = (Pieces::new(&mut gate), Pieces::new(&mut up));
        let of_weights = Pieces::new(&mut parts);
        let sum: Sum<'_, T> = Sum {
            factors: vec![(&out_of_down, self.matrices[2].backward())],
            out: to,
        };
        products(&routing.bounds, d_ff, &[sum], |block| {
            loops::backward(&block, d_ff, &weights, gates, ups, to, of_weights);
        });
        // SAFETY: the blocks are all there is.
        let h = unsafe { h.written() };
        let weights: Vec<f32> = parts
            .chunks_exact(panels)
            .map(|parts| parts.iter().sum())
            .collect();

        let x = wanted[0].then(|| self.through::<T>([&gate, &up]));
        let [.., of_gate, of_up, of_down] = wanted;
        let gathered = (of_gate || of_up).then(|| routing.gathered(&self.x, d_model));
        let matrices = |left: &[f32], d_in, right: &[f32], d_out| {
            outer_products(&routing.bounds, left, d_in, right, d_out)
        };
        let side = |wanted: bool, right: &[f32]| {
            let x = gathered.as_ref().filter(|_| wanted)?;
            Some(matrices(x, d_model, right, d_ff))
        };
        Gradient {
            x,
            weights: routing.unsorted(&weights),
            sides: [
                side(of_gate, &gate),
                side(of_up, &up),
                of_down.then(|| matrices(&h, d_ff, &grad, d_model)),
            ],
        }
    }

    /// Gradients of gate and up `[entries, d_ff]` to that of x.
    fn through<T: Format + Number>(&self, sides: [&[f32]; 2]) -> Vec<f32> {
        let Self { d_model, d_ff, .. } = *self;
        let entries = self.routing.entries();
        let [gate, up] = sides.map(|side| Activations::new(side, [entries, d_ff]));
        let mut x = Buffer::new(entries * d_model);
        let sum: Sum<'_, T> = Sum {
            factors: vec![
                (&gate, self.matrices[0].backward()),
                (&up, self.matrices[1].backward()),
            ],
            out: x.pieces(),
        };
        products(&self.routing.bounds, d_model, &[sum], |_| ());
        // SAFETY: products write every entry.
        self.routing.combined(&unsafe { x.written() }, d_model)
    }
}
