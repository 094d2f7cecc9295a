//! The entries sorted by expert, and rows on their way there and back.

use std::ops::Range;

use crate::cpu::pieces::filled;
use crate::cpu::vectorised;

use super::super::Entries;

/// Numbers of a task that copies or adds.
const STEP: usize = 1 << 14;

/// Places are those of the entries sorted by expert, and by token for each.
#[derive(Debug)]
pub(super) struct Routing {
    /// Of each place, `[entries]`.
    token: Vec<u32>,
    /// Of each entry, `[entries]`.
    place: Vec<u32>,
    /// Entries of each token: from this one, `[tokens + 1]`.
    first: Vec<u32>,
    /// Places of each expert: from this one, `[experts + 1]`.
    pub(super) bounds: Vec<usize>,
}

impl Routing {
    pub(super) fn new(Entries { token, expert }: &Entries, tokens: usize, experts: usize) -> Self {
        let mut bounds = vec![0; experts + 1];
        for &expert in expert {
            bounds[expert as usize + 1] += 1;
        }
        for expert in 0..experts {
            bounds[expert + 1] += bounds[expert];
        }
        let mut free = bounds.clone();
        let mut sorted = vec![0; token.len()];
        let mut place = Vec::with_capacity(token.len());
        let mut first = vec![0; tokens + 1];
        for (&token, &expert) in token.iter().zip(expert) {
            let free = &mut free[expert as usize];
            sorted[*free] = token;
            place.push(*free as u32);
            *free += 1;
            first[token as usize + 1] += 1;
        }
        for token in 0..tokens {
            first[token + 1] += first[token];
        }
        Self {
            token: sorted,
            place,
            first,
            bounds,
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.token.len()
    }

    pub(super) fn tokens(&self) -> usize {
        self.first.len() - 1
    }

    /// `rows [tokens, width]` → `[entries, width]`, each place with its token's.
    pub(super) fn gathered(&self, rows: &[f32], width: usize) -> Vec<f32> {
        let together = (STEP / width).max(1);
        filled(self.entries() * width, together * width, |place, out| {
            let token = &self.token[place.start / width..];
            for (out, &token) in out.chunks_exact_mut(width).zip(token) {
                out.copy_from_slice(&rows[token as usize * width..][..width]);
            }
        })
    }

    /// `rows [entries, width]` → `[tokens, width]`, each token with the sum of its places', in the order of its entries.
    pub(super) fn combined(&self, rows: &[f32], width: usize) -> Vec<f32> {
        let together = (STEP / width).max(1);
        filled(self.tokens() * width, together * width, |place, out| {
            let token = place.start / width;
            for (out, token) in out.chunks_exact_mut(width).zip(token..) {
                for &place in &self.place[self.entries_of(token)] {
                    add(&rows[place as usize * width..][..width], out);
                }
            }
        })
    }

    fn entries_of(&self, token: usize) -> Range<usize> {
        self.first[token] as usize..self.first[token + 1] as usize
    }

    /// `[entries]` in the order of the entries → in that of the places.
    pub(super) fn sorted(&self, numbers: &[f32]) -> Vec<f32> {
        let mut sorted = vec![0.0; numbers.len()];
        for (&place, x) in self.place.iter().zip(numbers) {
            sorted[place as usize] = *x;
        }
        sorted
    }

    /// The other way round.
    pub(super) fn unsorted(&self, numbers: &[f32]) -> Vec<f32> {
        let places = self.place.iter();
        places.map(|&place| numbers[place as usize]).collect()
    }
}

vectorised! {
    fn add(row: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(row) {
            *out += x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_their_experts_and_come_back() {
        let entries = Entries {
            token: vec![0, 0, 2, 3, 3],
            expert: vec![3, 0, 3, 0, 1],
        };
        let routing = Routing::new(&entries, 5, 4);
        assert_eq!(routing.bounds, [0, 2, 3, 3, 5]);
        let x = [0.0, 1.0, 2.0, 3.0, 4.0];
        let gathered = routing.gathered(&x, 1);
        assert_eq!(gathered, [0.0, 3.0, 3.0, 0.0, 2.0]);
        assert_eq!(routing.combined(&gathered, 1), [0.0, 0.0, 2.0, 6.0, 0.0]);
        assert_eq!(routing.unsorted(&gathered), [0.0, 0.0, 2.0, 3.0, 3.0]);
        assert_eq!(routing.sorted(&routing.unsorted(&gathered)), gathered);
    }
}
