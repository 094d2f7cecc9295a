//! Text generation with a key-value cache, for any model that can be stepped.

mod batch;
mod held;
mod sampling;
#[cfg(test)]
mod tests;

use burn::tensor::{Bool, Device, Int, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use batch::{Side, pad};
pub use held::{Held, generate_after};
pub use sampling::{
    Sampling, argmax, min_p, penalise_repetition, softmax, temperature, top_k, top_p,
};

use crate::error::Result;
use crate::model::{Decoder, KvCache};

/// A language model that can be fed a few tokens at a time: a [`Decoder`], or one with adapters.
pub trait CausalLm {
    /// Final hidden states `[batch, seq, d_model]` of `tokens [batch, seq]`, which follow those in
    /// `cache`; `real [batch, seq]` is true for real tokens. The cache grows by `seq`.
    fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        cache: &mut KvCache,
    ) -> Tensor<3>;

    /// Goes on with these rows of the batch alone, in this order: for models that treat each row in its own way.
    fn keep_rows(&self, _rows: &[usize]) {}

    /// Whether what it has read of a prompt serves another prompt that begins with the same tokens.
    fn reads_on(&self) -> bool {
        true
    }

    /// The decoder whose output layer, number of layers and device are the model's.
    fn decoder(&self) -> &Decoder;

    /// `hidden [n, d_model]` → logits `[n, vocab_size]`.
    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.decoder().logits(hidden)
    }

    /// `hidden [n, d_model]` and the token that follows each → its log-probability, `[n]`, in nats.
    fn log_probabilities(&self, hidden: Tensor<2>, tokens: &[usize]) -> Tensor<1> {
        self.decoder().log_probabilities(hidden, tokens)
    }

    /// Number of layers, one cache each.
    fn num_layers(&self) -> usize {
        self.decoder().layers.len()
    }

    /// The plain device of inputs and outputs.
    fn device(&self) -> Device {
        self.decoder().device()
    }
}

impl CausalLm for Decoder {
    fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        Decoder::forward_cached(self, tokens, real, cache)
    }

    fn decoder(&self) -> &Decoder {
        self
    }
}

/// Continues every prompt by up to `max_new` tokens; a continuation ends before the first token of
/// `eos`, which is not part of it.
///
/// The prompts run as one batch, padded on the left. What is generated for a prompt with a greedy
/// [`Sampling`] does not depend on the others; a sampled continuation depends on the seed and the
/// prompt's row.
///
/// # Errors
///
/// [`Sampling::check`] refuses how tokens are to be chosen.
///
/// # Panics
///
/// When a prompt is empty.
pub fn generate(
    model: &impl CausalLm,
    prompts: &[Vec<u32>],
    max_new: usize,
    sampling: &Sampling,
    eos: &[u32],
) -> Result<Vec<Vec<u32>>> {
    let mut streams: Vec<Vec<u32>> = vec![Vec::new(); prompts.len()];
    generate_with(model, prompts, max_new, sampling, eos, |row, token| {
        streams[row].push(token);
    })?;
    Ok(streams)
}

/// As [`generate`], handing over each token as `(row, token)` as soon as it is chosen.
///
/// # Errors
///
/// As [`generate`].
///
/// # Panics
///
/// When a prompt is empty.
pub fn generate_with(
    model: &impl CausalLm,
    prompts: &[Vec<u32>],
    max_new: usize,
    sampling: &Sampling,
    eos: &[u32],
    emit: impl FnMut(usize, u32),
) -> Result<()> {
    sampling.check()?;
    assert!(
        prompts.iter().all(|prompt| !prompt.is_empty()),
        "a prompt needs at least one token"
    );
    if prompts.is_empty() || max_new == 0 {
        return Ok(());
    }
    let mut cache = KvCache::new(model.num_layers());
    let histories = prompts.to_vec();
    go_on(
        model, &mut cache, prompts, histories, max_new, sampling, eos, emit,
    );
    Ok(())
}

/// Feeds `new [rows]` behind what is in `cache` and continues each row; `histories` are the tokens from the start.
#[allow(clippy::too_many_arguments)]
fn go_on(
    model: &impl CausalLm,
    cache: &mut KvCache,
    new: &[Vec<u32>],
    mut histories: Vec<Vec<u32>>,
    max_new: usize,
    sampling: &Sampling,
    eos: &[u32],
    mut emit: impl FnMut(usize, u32),
) {
    let device = model.device();
    let mut rngs: Vec<ChaCha8Rng> = (0..new.len())
        .map(|row| {
            let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
            rng.set_stream(row as u64);
            rng
        })
        .collect();
    // Rows of the batch that are still being continued.
    let mut open: Vec<usize> = (0..new.len()).collect();
    let (mut tokens, mut real) = pad(new, 0, Side::Left, &device);

    for step in 1..=max_new {
        let [batch, seq] = tokens.dims();
        let hidden = model.forward_cached(tokens, real, cache);
        let [_, _, d_model] = hidden.dims();
        let last = hidden
            .slice([0..batch, seq - 1..seq])
            .reshape([batch, d_model]);
        let logits = rows(model.logits(last));

        let mut next = Vec::with_capacity(batch);
        let mut kept = Vec::with_capacity(batch);
        for (place, (&row, logits)) in open.iter().zip(logits).enumerate() {
            let token = sampling.choose(logits, &histories[row], &mut rngs[row]);
            if eos.contains(&token) {
                continue;
            }
            histories[row].push(token);
            emit(row, token);
            next.push(i64::from(token));
            kept.push(place as i64);
        }
        if kept.is_empty() || step == max_new {
            break;
        }
        if kept.len() < batch {
            let places: Vec<usize> = kept.iter().map(|place| *place as usize).collect();
            open = places.iter().map(|place| open[*place]).collect();
            model.keep_rows(&places);
            *cache = cache.select_rows(Tensor::from_data(kept.as_slice(), &device));
        }
        let batch = next.len();
        tokens = Tensor::<1, Int>::from_data(next.as_slice(), &device).reshape([batch, 1]);
        real = Tensor::<2, Int>::ones([batch, 1], &device).bool();
    }
}

/// `[n, vocab]` → `n` vectors.
fn rows(logits: Tensor<2>) -> Vec<Vec<f32>> {
    let [_, vocab] = logits.dims();
    let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
    values.chunks(vocab).map(<[f32]>::to_vec).collect()
}
