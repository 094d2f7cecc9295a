//! Backward pass: the scores are computed again.

use burn::backend::flex::FlexTensor;

use super::rotation::gather;
use super::{Attended, Saved, Sizes};
use crate::cpu::exp::exp;
use crate::cpu::pieces::Buffer;
use crate::cpu::product::{Matrix, small_product, transposed};
use crate::cpu::tile::ROWS;
use crate::cpu::vectorised;
use crate::values::Values;

impl Saved {
    /// Gradients of query, key and value from that of the output.
    pub(super) fn backward(&self, attended: Attended, grad: FlexTensor) -> [Vec<f32>; 3] {
        let Sizes {
            seq,
            heads,
            head_dim,
            ..
        } = self.sizes;
        let (output, log_sums) = (Values::of(attended.output), Values::of(attended.log_sums));
        let grad = Values::of(grad);
        let mut gradients = [&self.query, &self.key, &self.value].map(|x| Buffer::new(x.len()));
        let [d_query, d_key, d_value] = gradients.each_mut().map(Buffer::pieces);
        self.for_each_key_head(|place| {
            // SAFETY: this task alone writes these heads' columns.
            unsafe { self.clear_queries(place, d_query) };
            let key = self.rotated_key(place); // [seq, head_dim]
            let turned_key = transposed(&key, seq, head_dim);
            let value = gather(
                &self.value,
                self.key_at(place, 0),
                self.key_row(),
                seq,
                head_dim,
            );
            let turned_value = transposed(&value, seq, head_dim);
            let (mut dk, mut dv) = (vec![0.0; seq * head_dim], vec![0.0; seq * head_dim]);
            let (mut weights, mut pulls) = (vec![0.0; ROWS * seq], vec![0.0; ROWS * seq]);
            let mut dq = vec![0.0; ROWS * head_dim];
            for head in self.query_heads(place) {
                let query = self.rotated_query(place.batch, head);
                let log_sums = &log_sums[(place.batch * heads + head) * seq..][..seq];
                for tile in self.tiles(place.batch) {
                    let (real, width) = (self.real_keys(place.batch, tile), tile.keys());
                    let at = self.query_at(place.batch, tile.first, head);
                    let grad = gather(&grad, at, heads * head_dim, tile.rows, head_dim);
                    let output = gather(&output, at, heads * head_dim, tile.rows, head_dim);
                    self.scores(&query, &turned_key, tile, &mut weights);
                    small_product(
                        Matrix::new(&grad, tile.rows, head_dim),
                        Matrix::strided(&turned_value[tile.first_key..], head_dim, width, seq),
                        None,
                        &mut pulls,
                        width,
                        false,
                    );
                    for row in 0..tile.rows {
                        let own = row * head_dim..(row + 1) * head_dim;
                        let products = grad[own.clone()].iter().zip(&output[own]);
                        let mean: f32 = products.map(|(grad, out)| grad * out).sum();
                        let [from, to] = tile.visible(row, self.sizes.window);
                        pull(
                            &mut weights[row * width..][..width],
                            &mut pulls[row * width..][..width],
                            real,
                            from,
                            to,
                            log_sums[tile.first + row],
                            mean,
                        );
                    }
                    let weights = Matrix::new(&weights[..tile.rows * width], tile.rows, width);
                    let pulls = Matrix::new(&pulls[..tile.rows * width], tile.rows, width);
                    let keys = tile.first_key * head_dim..(tile.first_key + width) * head_dim;
                    let grad = Matrix::new(&grad, tile.rows, head_dim);
                    small_product(
                        weights.transposed(),
                        grad,
                        None,
                        &mut dv[keys.clone()],
                        head_dim,
                        true,
                    );
                    let queries = Matrix::new(&query[tile.first * head_dim..], tile.rows, head_dim);
                    small_product(
                        pulls.transposed(),
                        queries,
                        None,
                        &mut dk[keys.clone()],
                        head_dim,
                        true,
                    );
                    let seen = Matrix::new(&key[keys], width, head_dim);
                    small_product(pulls, seen, None, &mut dq, head_dim, false);
                    for row in 0..tile.rows {
                        let position = tile.first + row;
                        let at = self.query_at(place.batch, position, head);
                        // SAFETY: this task alone writes this head's columns.
                        let out = unsafe { d_query.piece(at, head_dim) };
                        let scale = (head_dim as f32).powf(-0.5);
                        let dq = &dq[row * head_dim..][..head_dim];
                        self.rotate_back(place.batch, position, dq, scale, out);
                    }
                }
            }
            for position in 0..seq {
                let own = position * head_dim..(position + 1) * head_dim;
                let at = self.key_at(place, position);
                // SAFETY: this task alone writes this key head's columns.
                let (out_key, out_value) =
                    unsafe { (d_key.zeroed(at, head_dim), d_value.zeroed(at, head_dim)) };
                self.rotate_back(place.batch, position, &dk[own.clone()], 1.0, out_key);
                out_value.copy_from_slice(&dv[own]);
            }
        });
        // SAFETY: every place has written its own, and all places together are the gradients.
        gradients.map(|gradient| unsafe { gradient.written() })
    }
}

vectorised! {
    /// Scores → weights `p`, and the gradient `g` of the mix by weight → that of the scores, `p (g − Σ p g)`.
    fn pull(weights: &mut [f32], grads: &mut [f32], real: &[f32], from: usize, to: usize, log_sum: f32, mean: f32) {
        for outside in [&mut *weights, &mut *grads] {
            outside[..from].fill(0.0);
            outside[to..].fill(0.0);
        }
        let inside = weights[from..to].iter_mut().zip(&mut grads[from..to]);
        for ((weight, grad), real) in inside.zip(&real[from..to]) {
            let p = exp(*weight - log_sum);
            *weight = if *real > 0.5 { p } else { 0.0 };
            *grad = *weight * (*grad - mean);
        }
    }
}
