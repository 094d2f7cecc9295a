//! Heads gathered from the rows that they lie in, and turned by their positions.

use super::{KeyHead, Saved, Sizes};

impl Saved {
    /// One head's queries, rotated and divided by √head_dim, `[seq, head_dim]`.
    pub(super) fn rotated_query(&self, batch: usize, head: usize) -> Vec<f32> {
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
    pub(super) fn rotated_key(&self, place: KeyHead) -> Vec<f32> {
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
    pub(super) fn rotate_back(
        &self,
        batch: usize,
        position: usize,
        row: &[f32],
        scale: f32,
        out: &mut [f32],
    ) {
        let half = self.sizes.head_dim / 2;
        let (cos, sin) = self.angles(batch, position);
        for i in 0..half {
            let (x, y) = (row[i], row[half + i]);
            out[i] = (x * cos[i] + y * sin[i]) * scale;
            out[half + i] = (y * cos[i] - x * sin[i]) * scale;
        }
    }
}

/// `rows` pieces of `width` numbers that begin `step` apart, one after the other.
pub(super) fn gather(data: &[f32], at: usize, step: usize, rows: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * width);
    for row in 0..rows {
        out.extend_from_slice(&data[at + row * step..][..width]);
    }
    out
}
