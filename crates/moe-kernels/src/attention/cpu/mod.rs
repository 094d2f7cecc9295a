//! Attention on the CPU, one key head after the other, [`ROWS`] queries at a time.

mod backward;
mod forward;
mod rotation;

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use super::Attention;
use crate::autodiff::Operation;
use crate::cpu::pieces::Pieces;
use crate::cpu::product::{Matrix, small_product};
use crate::cpu::queue::for_each_task;
use crate::cpu::tile::ROWS;
use crate::values::{Values, matrix_dims, tensor};

impl Operation<Flex, 3, 1> for Attention<Flex> {
    type Kept = (Saved, Attended);

    fn forward(self) -> ([FlexTensor; 1], Self::Kept) {
        let saved = Saved::new(self);
        let attended = saved.forward();
        ([attended.output.clone()], (saved, attended))
    }

    fn backward(
        (saved, attended): Self::Kept,
        [grad]: [Option<FlexTensor>; 1],
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let Some(grad) = grad else {
            return [None, None, None];
        };
        let Sizes {
            batch,
            seq,
            heads,
            kv_heads,
            head_dim,
            ..
        } = saved.sizes;
        let [query, key, value] = saved.backward(attended, grad);
        let [of_query, of_key, of_value] = wanted;
        let some_heads = |gradient, heads| tensor(gradient, [batch, seq, heads * head_dim]);
        [
            of_query.then(|| some_heads(query, heads)),
            of_key.then(|| some_heads(key, kv_heads)),
            of_value.then(|| some_heads(value, kv_heads)),
        ]
    }
}

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
    output: FlexTensor,
    /// `ln Σ exp(score)` of every query, `[batch, heads, seq]`.
    log_sums: FlexTensor,
}

/// One key head in one batch row.
#[derive(Clone, Copy)]
struct KeyHead {
    batch: usize,
    kv_head: usize,
}

impl Saved {
    fn new(
        Attention {
            query,
            key,
            value,
            cos,
            sin,
            real,
            shape,
        }: Attention<Flex>,
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

    /// Runs `work` on every place, on all threads.
    fn for_each_key_head(&self, work: impl Fn(KeyHead) + Sync) {
        let Sizes {
            batch, kv_heads, ..
        } = self.sizes;
        for_each_task(
            batch * kv_heads,
            || (),
            |(), index| {
                work(KeyHead {
                    batch: index / kv_heads,
                    kv_head: index % kv_heads,
                });
            },
        );
    }

    fn query_heads(&self, place: KeyHead) -> Range<usize> {
        let group = self.sizes.heads / self.sizes.kv_heads;
        place.kv_head * group..(place.kv_head + 1) * group
    }

    fn query_at(&self, batch: usize, position: usize, head: usize) -> usize {
        ((batch * self.sizes.seq + position) * self.sizes.heads + head) * self.sizes.head_dim
    }

    fn key_at(&self, place: KeyHead, position: usize) -> usize {
        let row = place.batch * self.sizes.seq + position;
        (row * self.sizes.kv_heads + place.kv_head) * self.sizes.head_dim
    }

    fn key_row(&self) -> usize {
        self.sizes.kv_heads * self.sizes.head_dim
    }

    /// Makes zeros of a place's queries in an output or gradient `[batch, seq, heads · head_dim]`; those of padding stay so.
    ///
    /// # Safety
    ///
    /// Nobody else writes there.
    unsafe fn clear_queries(&self, place: KeyHead, out: Pieces<'_>) {
        let Range { start, end } = self.query_heads(place);
        for position in 0..self.sizes.seq {
            let at = self.query_at(place.batch, position, start);
            // SAFETY: as the caller says.
            unsafe { out.zeroed(at, (end - start) * self.sizes.head_dim) };
        }
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

    fn values(&self, place: KeyHead, tile: Tile) -> Matrix<'_> {
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
