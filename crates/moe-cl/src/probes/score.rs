//! How probable a language model finds the ends of sequences.

use burn::tensor::{Int, Tensor, TensorData};
use moe_core::{
    generate::{CausalLm, Side, pad as pad_rows},
    model::KvCache,
};

/// Sequences that run together.
const ROWS: usize = 32;

/// Tokens of which those from `from` on are judged; `from` is at least 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// The first that is judged.
    pub from: usize,
}

impl Sequence {
    /// Tokens that are judged.
    pub fn judged(&self) -> usize {
        self.tokens.len() - self.from
    }
}

/// Log-probability of the judged tokens of each sequence given what stands before them, in nats.
pub fn log_likelihoods(model: &impl CausalLm, sequences: &[Sequence], pad: u32) -> Vec<f64> {
    // Sequences of like length run together, so that little is padding.
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&index| sequences[index].tokens.len());
    let mut sums = vec![0.0; sequences.len()];
    for rows in order.chunks(ROWS) {
        for (place, log_probability) in batch(model, sequences, rows, pad) {
            sums[place] += log_probability;
        }
    }
    sums
}

/// (index of the sequence, log-probability) of every judged token of the sequences `rows`.
fn batch(
    model: &impl CausalLm,
    sequences: &[Sequence],
    rows: &[usize],
    pad: u32,
) -> Vec<(usize, f64)> {
    let device = model.device();
    let tokens: Vec<Vec<u32>> = rows
        .iter()
        .map(|&row| sequences[row].tokens.clone())
        .collect();
    let (tokens, real) = pad_rows(&tokens, pad, Side::Left, &device);
    let mut cache = KvCache::new(model.num_layers());
    let hidden = model.forward_cached(tokens, real, &mut cache);
    let [count, seq, d_model] = hidden.dims();
    let hidden = hidden.reshape([count * seq, d_model]);
    // The sequence of every judged token, the position whose hidden state predicts it, and the token.
    let (mut owners, mut positions, mut judged) = (Vec::new(), Vec::new(), Vec::new());
    for (row, &index) in rows.iter().enumerate() {
        let Sequence { tokens, from } = &sequences[index];
        let start = (row + 1) * seq - tokens.len();
        for (at, &token) in tokens.iter().enumerate().skip(*from) {
            owners.push(index);
            positions.push((start + at - 1) as i64);
            judged.push(token as usize);
        }
    }
    let positions = TensorData::new(positions, [judged.len()]);
    let positions = Tensor::<1, Int>::from_data(positions, &device);
    let found = model.log_probabilities(hidden.select(0, positions), &judged);
    let found = found.into_data();
    let pairs = owners.into_iter().zip(found.iter::<f32>());
    pairs
        .map(|(index, value)| (index, f64::from(value)))
        .collect()
}
