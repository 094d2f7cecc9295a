//! How probable a language model finds the ends of sequences.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use moe_core::{
    generate::{CausalLm, Side, pad as pad_rows},
    model::KvCache,
};

/// Sequences that run together.
const ROWS: usize = 32;
/// Positions whose logits over the whole vocabulary are held together.
const POSITIONS: usize = 128;

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
    // (sequence, position whose hidden state predicts the token, token)
    let judged: Vec<(usize, i64, i64)> = rows
        .iter()
        .enumerate()
        .flat_map(|(row, &index)| {
            let Sequence { tokens, from } = &sequences[index];
            let start = (row + 1) * seq - tokens.len();
            (*from..tokens.len())
                .map(move |at| (index, (start + at - 1) as i64, i64::from(tokens[at])))
        })
        .collect();
    let mut found = Vec::with_capacity(judged.len());
    for block in judged.chunks(POSITIONS) {
        let column = |value: &dyn Fn(&(usize, i64, i64)) -> i64| {
            let values: Vec<i64> = block.iter().map(value).collect();
            Tensor::<1, Int>::from_data(TensorData::new(values, [block.len()]), &device)
        };
        let logits = model.logits(hidden.clone().select(0, column(&|judged| judged.1)));
        let targets = column(&|judged| judged.2).unsqueeze_dim(1);
        let chosen: Tensor<2> = log_softmax(logits, 1).gather(1, targets);
        let chosen = chosen.into_data();
        let pairs = block.iter().zip(chosen.iter::<f32>());
        found.extend(pairs.map(|((index, ..), value)| (*index, f64::from(value))));
    }
    found
}
