//! What a model has read of a conversation, so that the next turn is not read from the start.

use super::{CausalLm, Sampling, go_on};
use crate::error::Result;
use crate::model::KvCache;

/// Keys and values of the tokens that one model has read last.
#[derive(Clone, Debug)]
pub struct Held {
    tokens: Vec<u32>,
    cache: KvCache,
}

impl Held {
    /// Nothing yet, of a model of `num_layers` layers.
    pub fn new(num_layers: usize) -> Self {
        Self {
            tokens: Vec::new(),
            cache: KvCache::new(num_layers),
        }
    }

    /// How many tokens of `prompt` are held, of which one is always read anew: what it gives is the next token.
    fn shared(&self, model: &impl CausalLm, prompt: &[u32]) -> usize {
        if !model.reads_on() {
            return 0;
        }
        let same = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b);
        same.count().min(prompt.len() - 1)
    }
}

/// As [`generate_with`](super::generate_with) for one prompt, of which nothing is read that `held` holds; afterwards it holds this
/// prompt and what was written. It belongs to one model.
///
/// # Errors
///
/// [`Sampling::check`] refuses how tokens are to be chosen.
///
/// # Panics
///
/// When the prompt is empty.
pub fn generate_after(
    model: &impl CausalLm,
    held: &mut Held,
    prompt: &[u32],
    max_new: usize,
    sampling: &Sampling,
    eos: &[u32],
    mut emit: impl FnMut(u32),
) -> Result<()> {
    sampling.check()?;
    assert!(!prompt.is_empty(), "a prompt needs at least one token");
    if max_new == 0 {
        return Ok(());
    }
    let shared = held.shared(model, prompt);
    held.cache = held.cache.first(shared);
    let new = [prompt[shared..].to_vec()];
    let mut all = prompt.to_vec();
    go_on(
        model,
        &mut held.cache,
        &new,
        vec![prompt.to_vec()],
        max_new,
        sampling,
        eos,
        |_, token| {
            all.push(token);
            emit(token);
        },
    );
    all.truncate(held.cache.len());
    held.tokens = all;
    Ok(())
}
