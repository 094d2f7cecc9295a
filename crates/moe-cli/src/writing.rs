//! An answer on standard output, as it is written.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use moe_cl::Base;
use moe_core::generate::{CausalLm, Held, Sampling, generate_after};

use crate::failure::Failure;
use crate::terminal::{self, tell};

/// How boldly, and how much.
#[derive(Debug, Args)]
pub struct Manner {
    /// Most tokens to write
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    max_new: usize,
    /// 0 always takes the most likely token; larger is bolder
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    temperature: f64,
    /// Choose among the K most likely tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Choose among the most likely tokens that make up this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Seed of the choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl Manner {
    /// How tokens are chosen.
    ///
    /// # Errors
    /// When a number is out of its range.
    pub fn sampling(&self) -> Result<Sampling> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
            ..Sampling::greedy()
        };
        sampling.check()?;
        Ok(sampling)
    }

    /// Continues `prompt` on standard output, a token at a time, and returns what was written. What `held` holds of the prompt is not
    /// read again.
    ///
    /// # Errors
    /// When standard output or the tokenizer refuses.
    pub fn write(
        &self,
        base: &Base,
        (model, held): (&impl CausalLm, &mut Held),
        prompt: &[u32],
        sampling: &Sampling,
    ) -> Result<String> {
        let context = base.decoder.config().max_position_embeddings;
        if prompt.len() >= context {
            bail!(Failure::new(
                format!(
                    "what was said has {} tokens, and the base reads {context} with what it writes",
                    prompt.len()
                ),
                "say less (`/reset` begins a conversation anew), or take a base with a longer context (max_position_embeddings)",
            ));
        }
        let room = self.max_new.min(context - prompt.len());
        let mut tokens = Vec::new();
        let mut shown = String::new();
        let mut outcome = Ok(());
        let emit = |token: u32| {
            tokens.push(token);
            if outcome.is_ok() {
                outcome = show(base, &tokens, &mut shown);
            }
        };
        let ends = base.ends.all();
        generate_after(model, held, prompt, room, sampling, ends, emit)?;
        outcome?;
        writeln!(terminal::out())?;
        if tokens.len() == room && room < self.max_new {
            tell!(
                "note: the base's context of {context} tokens is full, and the answer ends there"
            );
        }
        Ok(shown)
    }
}

/// Prints what `tokens` say beyond `shown`; a character whose bytes are not all there yet waits.
fn show(base: &Base, tokens: &[u32], shown: &mut String) -> Result<()> {
    let text = base.tokenizer.decode(tokens, true)?;
    let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    if let Some(new) = whole.strip_prefix(shown.as_str()) {
        let mut out = terminal::out();
        out.write_all(new.as_bytes())?;
        out.flush()?;
        *shown = whole.to_string();
    }
    Ok(())
}
