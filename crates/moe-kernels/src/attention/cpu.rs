//! Attention on the CPU, one key head after the other, [`ROWS`] queries at a time.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::AttentionShape;
use crate::cpu::exp::exp;
use crate::cpu::pieces::Pieces;
use crate::cpu::product::{Matrix, small_product, transposed};
use crate::cpu::tile::ROWS;
use crate::cpu::vectorised;
use crate::values::{Values, matrix_dims, tensor};

/// What forward and backward read.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    query: Values,
    key: Values,
    value: Values,
    cos: Values,
    sin: Values,
    real: Values,
    sizes: Sizes,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    seq: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: usize,
}

/// What the forward pass leaves behind.
#[derive(Clone, Debug)]
pub(crate) struct Attended {
    /// `[batch, seq, heads · head_dim]`.
    pub(crate) output: FlexTensor,
    /// `ln Σ exp(score)` of every query, `[batch, heads, seq]`.
    log_sums: FlexTensor,
}

/// One key head in one batch row.
#[derive(Clone, Copy)]
struct Place {
    batch: usize,
    kv_head: usize,
}

impl Saved {
    pub(crate) fn new(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        cos: FlexTensor,
        sin: FlexTensor,
        real: FlexTensor,
        shape: AttentionShape,
    ) -> Self {
        let [batch, seq] = matrix_dims(&real);
        let [_, width] = matrix_dims(&query);
        Self {
            query: Values::of(query),
            key: Values::of(key),
            value: Values::of(value),
            cos: Values::of(cos),
            sin: Values::of(sin),
            real: Values::of(real),
            sizes: Sizes {
                batch,
                seq,
                heads: width / shape.head_dim,
                kv_heads: shape.kv_heads,
                head_dim: shape.head_dim,
                window: shape.window.unwrap_or(usize::MAX),
            },
        }
    }

    fn places(&self) -> impl IndexedParallelIterator<Item = Place> {
        let kv_heads = self.sizes.kv_heads;
        (0..self.sizes.batch * kv_heads)
            .into_par_iter()
            .map(move |index| Place {
                batch: index / kv_heads,
                kv_head: index % kv_heads,
            })
    }

    pub(crate) fn forward(&self) -> Attended {
        let Sizes {
            batch,
            seq,
            heads,
            head_dim,
            ..
        } = self.sizes;
        let mut output = vec![0.0; batch * seq * heads * head_dim];
        let mut log_sums = vec![0.0; batch * heads * seq];
        let (pieces, sums) = (Pieces::new(&mut output), Pieces::new(&mut log_sums));
        self.places().for_each(|place| {
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
        Attended {
            output: tensor(output, [batch, seq, heads * head_dim]),
            log_sums: tensor(log_sums, [batch, heads, seq]),
        }
    }

    /// Gradients of query, key and value from that of the output.
    fn backward(&self, attended: Attended, grad: FlexTensor) -> [Vec<f32>; 3] {
        let Sizes {
            seq,
            heads,
            head_dim,
            ..
        } = self.sizes;
        let (output, log_sums) = (Values::of(attended.output), Values::of(attended.log_sums));
        let grad = Values::of(grad);
        let mut gradients = [&self.query, &self.key, &self.value].map(|x| vec![0.0; x.len()]);
        let [d_query, d_key, d_value] = gradients.each_mut().map(|x| Pieces::new(x));
        self.places().for_each(|place| {
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
                    unsafe { (d_key.piece(at, head_dim), d_value.piece(at, head_dim)) };
                self.rotate_back(place.batch, position, &dk[own.clone()], 1.0, out_key);
                out_value.copy_from_slice(&dv[own]);
            }
        });
        gradients
    }

    fn query_heads(&self, place: Place) -> std::ops::Range<usize> {
        let group = self.sizes.heads / self.sizes.kv_heads;
        place.kv_head * group..(place.kv_head + 1) * group
    }

    fn query_at(&self, batch: usize, position: usize, head: usize) -> usize {
        ((batch * self.sizes.seq + position) * self.sizes.heads + head) * self.sizes.head_dim
    }

    fn key_at(&self, place: Place, position: usize) -> usize {
        let row = place.batch * self.sizes.seq + position;
        (row * self.sizes.kv_heads + place.kv_head) * self.sizes.head_dim
    }

    fn key_row(&self) -> usize {
        self.sizes.kv_heads * self.sizes.head_dim
    }

    /// Groups of queries with the keys that one of them sees; groups of padding alone are left out.
    fn tiles(&self, batch: usize) -> impl Iterator<Item = Tile> {
        let Sizes { seq, window, .. } = self.sizes;
        let real = &self.real[batch * seq..][..seq];
        (0..seq)
            .step_by(ROWS)
            .map(move |first| Tile {
                first,
                rows: (seq - first).min(ROWS),
                first_key: (first + 1).saturating_sub(window),
            })
            .filter(|tile| {
                real[tile.first..][..tile.rows]
                    .iter()
                    .any(|&real| real > 0.5)
            })
    }

    fn real_keys(&self, batch: usize, tile: Tile) -> &[f32] {
        &self.real[batch * self.sizes.seq + tile.first_key..][..tile.keys()]
    }

    fn values(&self, place: Place, tile: Tile) -> Matrix<'_> {
        let from = &self.value[self.key_at(place, tile.first_key)..];
        Matrix::strided(from, tile.keys(), self.sizes.head_dim, self.key_row())
    }

    /// `scores [tile rows, tile keys]` from rotated, scaled queries and turned keys `[head_dim, seq]`.
    fn scores(&self, query: &[f32], key: &[f32], tile: Tile, scores: &mut [f32]) {
        let Sizes { seq, head_dim, .. } = self.sizes;
        small_product(
            Matrix::new(&query[tile.first * head_dim..], tile.rows, head_dim),
            Matrix::strided(&key[tile.first_key..], head_dim, tile.keys(), seq),
            None,
            scores,
            tile.keys(),
            false,
        );
    }

    /// One head's queries, rotated and divided by √head_dim, `[seq, head_dim]`.
    fn rotated_query(&self, batch: usize, head: usize) -> Vec<f32> {
        let Sizes {
            seq,
            heads,
            head_dim,
            ..
        } = self.sizes;
        let rows = gather(
            &self.query,
            self.query_at(batch, 0, head),
            heads * head_dim,
            seq,
            head_dim,
        );
        self.rotated(batch, rows, (head_dim as f32).powf(-0.5))
    }

    /// One head's keys, rotated, `[seq, head_dim]`.
    fn rotated_key(&self, place: Place) -> Vec<f32> {
        let Sizes { seq, head_dim, .. } = self.sizes;
        let rows = gather(
            &self.key,
            self.key_at(place, 0),
            self.key_row(),
            seq,
            head_dim,
        );
        self.rotated(place.batch, rows, 1.0)
    }

    fn angles(&self, batch: usize, position: usize) -> (&[f32], &[f32]) {
        let half = self.sizes.head_dim / 2;
        let at = (batch * self.sizes.seq + position) * half;
        (&self.cos[at..at + half], &self.sin[at..at + half])
    }

    fn rotated(&self, batch: usize, mut rows: Vec<f32>, scale: f32) -> Vec<f32> {
        let head_dim = self.sizes.head_dim;
        for (position, row) in rows.chunks_exact_mut(head_dim).enumerate() {
            let (first, second) = row.split_at_mut(head_dim / 2);
            let (cos, sin) = self.angles(batch, position);
            for ((x, y), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                (*x, *y) = ((*x * cos - *y * sin) * scale, (*y * cos + *x * sin) * scale);
            }
        }
        rows
    }

    /// The rotation's transpose, the way of its gradient.
    fn rotate_back(&self, batch: usize, position: usize, row: &[f32], scale: f32, out: &mut [f32]) {
        let half = self.sizes.head_dim / 2;
        let (cos, sin) = self.angles(batch, position);
        for i in 0..half {
            let (x, y) = (row[i], row[half + i]);
            out[i] = (x * cos[i] + y * sin[i]) * scale;
            out[half + i] = (y * cos[i] - x * sin[i]) * scale;
        }
    }
}

/// Some queries, and the keys from the first that one of them sees to the last.
#[derive(Clone, Copy)]
struct Tile {
    first: usize,
    rows: usize,
    first_key: usize,
}

impl Tile {
    fn keys(&self) -> usize {
        self.first + self.rows - self.first_key
    }

    /// The columns of the tile that query `row` sees.
    fn visible(&self, row: usize, window: usize) -> [usize; 2] {
        let position = self.first + row;
        let from = (position + 1).saturating_sub(window).max(self.first_key);
        [from - self.first_key, position + 1 - self.first_key]
    }
}

/// `rows` pieces of `width` numbers that begin `step` apart, one after the other.
fn gather(data: &[f32], at: usize, step: usize, rows: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * width);
    for row in 0..rows {
        out.extend_from_slice(&data[at + row * step..][..width]);
    }
    out
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

#[derive(Debug)]
pub(crate) struct AttentionBackward;

impl Backward<Flex, 3> for AttentionBackward {
    type State = (Saved, Attended);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<Flex>(&ops.node);
        let (saved, attended) = ops.state;
        let Sizes {
            batch,
            seq,
            heads,
            kv_heads,
            head_dim,
            ..
        } = saved.sizes;
        let gradients = saved.backward(attended, grad);
        let widths = [heads, kv_heads, kv_heads].map(|heads| heads * head_dim);
        for ((parent, gradient), width) in ops.parents.into_iter().zip(gradients).zip(widths) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, tensor(gradient, [batch, seq, width]));
            }
        }
    }
}
