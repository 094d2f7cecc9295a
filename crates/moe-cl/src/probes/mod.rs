//! What a base could do before any task came, measured on texts that belong to none: so that "no forgetting" includes it.
//!
//! A held text gives the perplexity; two zero-shot probes compare the probability of whole sequences. All texts were written for this project.

mod score;

use moe_core::{generate::CausalLm, tokenizer::Tokenizer};
use serde::{Deserialize, Serialize};

use crate::error::Result;
pub use score::{Sequence, log_likelihoods};

/// The text whose perplexity is measured: 630 words of a story.
pub const HELD_TEXT: &str = include_str!("held_text.txt");
const EVERYDAY: &str = include_str!("everyday.tsv");
const GRAMMAR: &str = include_str!("grammar.tsv");

/// Stands before every text, so that its first token has something to follow.
const BEFORE: &str = "\n";

/// General ability of a language model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ability {
    /// Exponential of the mean negative log-probability of the held text's tokens, each in windows of at most the probe's length.
    pub perplexity: f64,
    /// Share of the beginnings of everyday sentences whose right end is more probable than the wrong one; chance is 0.5.
    pub everyday: f64,
    /// Share of the pairs of sentences of which the well-formed one is more probable; chance is 0.5.
    pub grammar: f64,
}

/// The probes in a base's tokens.
#[derive(Clone, Debug)]
pub struct Probes {
    text: Vec<Sequence>,
    /// Pairs: right, wrong.
    everyday: Vec<Sequence>,
    /// Pairs: well formed, not.
    grammar: Vec<Sequence>,
}

impl Probes {
    /// The probes for a base; the held text is read in windows of `window` tokens, at least 2.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn new(tokenizer: &Tokenizer, window: usize) -> Result<Self> {
        let encode = |text: &str| tokenizer.encode_text(&format!("{BEFORE}{text}"), true);
        // What follows `start` in `whole`: a token that spans the border counts as following.
        let after = |start: &str, whole: &str| -> Result<Sequence> {
            let (start, tokens) = (encode(start)?, encode(whole)?);
            if tokens.len() < 2 {
                let problem = format!("{whole:?} is fewer than two tokens, which no probe can be");
                return Err(moe_core::Error::Tokenizer(problem).into());
            }
            let same = start.iter().zip(&tokens).take_while(|(a, b)| a == b);
            let from = same.count().clamp(1, tokens.len() - 1);
            Ok(Sequence { tokens, from })
        };
        let mut everyday = Vec::new();
        for [start, right, wrong] in rows(EVERYDAY) {
            for end in [right, wrong] {
                everyday.push(after(start, &format!("{start} {end}"))?);
            }
        }
        let mut grammar = Vec::new();
        for pair in rows::<2>(GRAMMAR) {
            for sentence in pair {
                grammar.push(after("", sentence)?);
            }
        }
        let tokens = encode(HELD_TEXT.trim_end())?;
        // A window begins with the last token of the one before, so that every token but the first is judged once.
        let text = (0..tokens.len().saturating_sub(1))
            .step_by(window.max(2) - 1)
            .map(|start| Sequence {
                tokens: tokens[start..tokens.len().min(start + window.max(2))].to_vec(),
                from: 1,
            });
        Ok(Self {
            text: text.collect(),
            everyday,
            grammar,
        })
    }

    /// What `model` can do; `pad` fills short rows.
    pub fn measure(&self, model: &impl CausalLm, pad: u32) -> Ability {
        let judged: usize = self.text.iter().map(Sequence::judged).sum();
        let text: f64 = log_likelihoods(model, &self.text, pad).iter().sum();
        let better = |pairs: &[Sequence]| {
            let scores = log_likelihoods(model, pairs, pad);
            let won = scores.chunks(2).filter(|pair| pair[0] > pair[1]).count();
            won as f64 / (pairs.len() / 2).max(1) as f64
        };
        Ability {
            perplexity: (-text / judged.max(1) as f64).exp(),
            everyday: better(&self.everyday),
            grammar: better(&self.grammar),
        }
    }
}

/// The rows of a table of `N` columns; lines that begin with `#` are remarks.
fn rows<const N: usize>(table: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split('\t').collect::<Vec<_>>().try_into().ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use burn::tensor::Device;
    use moe_core::{
        config::ModelConfig,
        generate::{Side, pad},
        model::{Decoder, KvCache},
    };

    use super::*;

    fn decoder() -> Decoder {
        let config = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": true}"#;
        let config = ModelConfig::from_json(config, "config.json".as_ref()).unwrap();
        Decoder::random(&config, 1, &Device::flex())
    }

    /// One sequence alone, token by token, from plain logits.
    fn obvious(model: &Decoder, sequence: &Sequence) -> f64 {
        let mut sum = 0.0;
        for at in sequence.from..sequence.tokens.len() {
            let rows = [sequence.tokens[..at].to_vec()];
            let (tokens, real) = pad(&rows, 0, Side::Left, &Device::flex());
            let hidden = model.forward_cached(tokens, real, &mut KvCache::new(2));
            let last = hidden.slice([0..1, at - 1..at]).reshape([1, 16]);
            let logits: Vec<f64> = CausalLm::logits(model, last)
                .into_data()
                .iter::<f32>()
                .map(f64::from)
                .collect();
            let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
            sum += logits[sequence.tokens[at] as usize] - total.ln();
        }
        sum
    }

    #[test]
    fn batches_score_as_one_sequence_alone_does() {
        let model = decoder();
        let sequences: Vec<Sequence> = (0..70u32)
            .map(|row| Sequence {
                tokens: (0..3 + row % 7).map(|at| (5 * row + 3 * at) % 32).collect(),
                from: 1 + row as usize % 2,
            })
            .collect();
        let found = log_likelihoods(&model, &sequences, 0);
        for (sequence, found) in sequences.iter().zip(found) {
            let expected = obvious(&model, sequence);
            assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
        }
    }

    #[test]
    fn every_row_has_its_columns_and_stands_once() {
        for (table, columns) in [(EVERYDAY, 3), (GRAMMAR, 2)] {
            let lines: Vec<&str> = table
                .lines()
                .filter(|line| !line.starts_with('#'))
                .collect();
            let once: BTreeSet<&&str> = lines.iter().collect();
            assert!(lines.len() >= 80 && once.len() == lines.len());
            for line in lines {
                let cells: Vec<&str> = line.split('\t').collect();
                assert_eq!(cells.len(), columns, "{line}");
                assert_ne!(cells[columns - 2], cells[columns - 1], "{line}");
                assert!(
                    cells
                        .iter()
                        .all(|cell| !cell.is_empty() && *cell == cell.trim())
                );
            }
        }
        assert!((600..=1000).contains(&HELD_TEXT.split_whitespace().count()));
    }

    /// A tokenizer of single bytes.
    fn tokenizer() -> Tokenizer {
        let json = r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}"#;
        let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
        let texts = [HELD_TEXT, EVERYDAY, GRAMMAR, BEFORE].concat();
        let characters: BTreeSet<char> = texts.chars().collect();
        for (id, character) in characters.into_iter().enumerate() {
            json["model"]["vocab"][character.to_string()] = id.into();
        }
        Tokenizer::from_json(&serde_json::to_vec(&json).unwrap()).unwrap()
    }

    #[test]
    fn every_token_of_the_text_is_judged_once_and_ends_are_judged_alone() {
        let tokenizer = tokenizer();
        let probes = Probes::new(&tokenizer, 100).unwrap();
        let tokens = tokenizer.encode(HELD_TEXT.trim_end(), false).unwrap();
        let judged: Vec<u32> = probes
            .text
            .iter()
            .flat_map(|window| window.tokens[window.from..].to_vec())
            .collect();
        assert_eq!(judged, tokens);
        let first = &probes.everyday[0];
        let end = tokenizer
            .decode(&first.tokens[first.from..], false)
            .unwrap();
        assert_eq!(end.replace(' ', ""), "warm");
    }
}
