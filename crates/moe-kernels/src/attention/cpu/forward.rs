//! Forward pass.

use super::{Attended, Saved, Sizes};
use crate::cpu::exp::exp;
use crate::cpu::pieces::{Buffer, Pieces};
use crate::cpu::product::{Matrix, small_product, transposed};
use crate::cpu::tile::ROWS;
use crate::cpu::vectorised;
use crate::values::tensor;

impl Saved {
    pub(super) fn forward(&self) -> Attended {
        let Sizes {
            batch,
            seq,
            heads,
            head_dim,
            ..
        } = self.sizes;
        let mut output = Buffer::new(batch * seq * heads * head_dim);
        let mut log_sums = vec![0.0; batch * heads * seq];
        let (pieces, sums) = (output.pieces(), Pieces::new(&mut log_sums));
        self.for_each_key_head(|place| {
            // SAFETY: this task alone writes these heads' columns.
            unsafe { self.clear_queries(place, pieces) };
            let key = self.rotated_key(place);
            let key = transposed(&key, seq, head_dim); // [head_dim, seq]
            let mut scores = vec![0.0; ROWS * seq];
            let mut mixed = vec![0.0; ROWS * head_dim];
            for head in self.query_heads(place) {
                let query = self.rotated_query(place.batch, head);
                // SAFETY: this task alone writes this head's sums.
                let sums = unsafe { sums.piece((place.batch * heads + head) * seq, seq) };
                for tile in self.tiles(place.batch) {
                    self.scores(&query, &key, tile, &mut scores);
                    let (real, width) = (self.real_keys(place.batch, tile), tile.keys());
                    let mut inverse = [0.0; ROWS];
                    for row in 0..tile.rows {
                        let scores = &mut scores[row * width..][..width];
                        let [from, to] = tile.visible(row, self.sizes.window);
                        softmax(
                            scores,
                            real,
                            from,
                            to,
                            &mut inverse[row],
                            &mut sums[tile.first + row],
                        );
                    }
                    small_product(
                        Matrix::new(&scores[..tile.rows * width], tile.rows, width),
                        self.values(place, tile),
                        None,
                        &mut mixed,
                        head_dim,
                        false,
                    );
                    for row in 0..tile.rows {
                        let at = self.query_at(place.batch, tile.first + row, head);
                        // SAFETY: this task alone writes this head's columns.
                        let out = unsafe { pieces.piece(at, head_dim) };
                        for (out, x) in out.iter_mut().zip(&mixed[row * head_dim..]) {
                            *out = x * inverse[row];
                        }
                    }
                }
            }
        });
        // SAFETY: every place has cleared its own, and all places together are the output.
        let output = unsafe { output.written() };
        Attended {
            output: tensor(output, [batch, seq, heads * head_dim]),
            log_sums: tensor(log_sums, [batch, heads, seq]),
        }
    }
}

vectorised! {
    /// Scores → unnormalised weights of the keys `from..to` that are real, zero elsewhere; and what to scale them by,
    /// and the logarithm of their sum.
    fn softmax(scores: &mut [f32], real: &[f32], from: usize, to: usize, inverse: &mut f32, log_sum: &mut f32) {
        scores[..from].fill(0.0);
        scores[to..].fill(0.0);
        let (scores, real) = (&mut scores[from..to], &real[from..to]);
        let mut largest = [f32::MIN; 16];
        for (scores, real) in scores.chunks(16).zip(real.chunks(16)) {
            for ((largest, score), real) in largest.iter_mut().zip(scores).zip(real) {
                let score = if *real > 0.5 { *score } else { f32::MIN };
                *largest = if score > *largest { score } else { *largest };
            }
        }
        let largest = largest.into_iter().fold(f32::MIN, f32::max);
        let mut sums = [0f32; 16];
        for (scores, real) in scores.chunks_mut(16).zip(real.chunks(16)) {
            for ((sum, score), real) in sums.iter_mut().zip(scores).zip(real) {
                let weight = exp(*score - largest);
                *score = if *real > 0.5 { weight } else { 0.0 };
                *sum += *score;
            }
        }
        let sum: f32 = sums.iter().sum();
        // A query that sees nothing is padding: its row is zero.
        (*inverse, *log_sum) = if sum > 0.0 { (1.0 / sum, largest + sum.ln()) } else { (0.0, 0.0) };
    }
}
