//! The numbers that fix a decoder: sizes, rotary embedding, special tokens.

pub(crate) mod json;
mod keys;
mod rope;
mod sparse;
mod sparse_json;
mod to_json;

use std::path::Path;

pub use rope::RopeScaling;
pub use sparse::{ExpertNames, SparseConfig};

use crate::error::{Error, Result};

/// The decoder families this crate computes. All are pre-norm, SwiGLU, rotary, grouped-query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 1 to 3 and what copies it (SmolLM2, TinyLlama, Vicuna, …).
    Llama,
    /// Llama with an optional sliding window.
    Mistral,
    /// Llama with biases on query, key and value.
    Qwen2,
    /// Llama with an RMS norm over each query and key head.
    Qwen3,
    /// Mistral whose feed-forward networks are mixtures.
    Mixtral,
    /// Qwen2 with mixtures, and a network that every token goes through beside each.
    Qwen2Moe,
    /// Qwen3 with mixtures.
    Qwen3Moe,
    /// Llama with mixtures, and an RMS norm over all query and all key heads together.
    Olmoe,
}

/// What the RMS norm before rotation spans, of query and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// There is none.
    None,
    /// Each head (Qwen3).
    Head,
    /// All heads together (OLMoE).
    Projection,
}

impl QkNorm {
    /// That of an architecture.
    pub(crate) fn of(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Qwen3 | Architecture::Qwen3Moe => Self::Head,
            Architecture::Olmoe => Self::Projection,
            _ => Self::None,
        }
    }
}

/// Sizes and settings of one decoder, whatever file they came from.
///
/// Values made by this crate's readers have passed [`ModelConfig::check`].
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream (`hidden_size`).
    pub d_model: usize,
    /// Width inside the feed-forward network of a dense layer (`intermediate_size`).
    pub d_ff: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of one head; even. `num_heads · head_dim` may differ from `d_model`.
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched for long contexts.
    pub rope_scaling: RopeScaling,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f64,
    /// The output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Window `w`: query `i` sees keys `j` with `i − w < j ≤ i`. `None` sees all earlier ones.
    pub sliding_window: Option<usize>,
    /// Biases on the query, key and value projections (none on the output projection).
    pub attention_bias: bool,
    /// RMS norm of query and key before rotation.
    pub qk_norm: QkNorm,
    /// The layers whose feed-forward networks are mixtures; none where all are dense.
    pub sparse: Option<SparseConfig>,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// Token that fills a batch up.
    pub pad_token_id: Option<u32>,
}

/// One weight the model needs: its Hugging Face name and where each dimension comes from.
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// The `config.json` keys that decide the shape, for error messages.
    pub(crate) keys: &'static [&'static str],
}

/// More layers than any decoder has; a larger number is a damaged file, refused before it costs memory.
const MAX_LAYERS: usize = 4096;

impl ModelConfig {
    /// Reads the text of a `config.json`, in the style of transformers 4 (`rope_theta`,
    /// `rope_scaling`) or 5 (`rope_parameters`). `origin` is the path named in errors.
    ///
    /// Settings that change what the model computes and are not supported are errors, never
    /// ignored. Keys that do not (dropout, dtype, version) are not looked at.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key, [`Error::File`] when the text is not a JSON object.
    pub fn from_json(text: &str, origin: &Path) -> Result<Self> {
        json::parse(text, origin)
    }

    /// Every weight by its Hugging Face name with its shape; matrices are `[out, in]`.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let named = |parameter: Parameter| (parameter.name, parameter.shape);
        self.parameters().map(named).collect()
    }

    /// How many numbers the weights hold; a tied head counts once.
    pub fn num_parameters(&self) -> u64 {
        let product = |shape: &[usize]| {
            let size = |product: u64, &n: &usize| product.saturating_mul(n as u64);
            shape.iter().fold(1, size)
        };
        self.parameters()
            .map(|parameter| product(&parameter.shape))
            .fold(0, u64::saturating_add)
    }

    /// The weights one after the other, so that a check can stop early.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = Parameter> + '_ {
        let weight = |name: &str, shape: &[usize], keys| Parameter {
            name: name.to_owned(),
            shape: shape.to_vec(),
            keys,
        };
        let vocab = [self.vocab_size, self.d_model];
        let first = weight("model.embed_tokens.weight", &vocab, EMBEDDING);
        let norm = weight("model.norm.weight", &[self.d_model], HIDDEN);
        let head = (!self.tie_word_embeddings).then(|| weight("lm_head.weight", &vocab, EMBEDDING));
        std::iter::once(first)
            .chain((0..self.num_layers).flat_map(|layer| self.layer_parameters(layer)))
            .chain(std::iter::once(norm))
            .chain(head)
    }

    fn layer_parameters(&self, layer: usize) -> Vec<Parameter> {
        let (d_model, head_dim) = (self.d_model, self.head_dim);
        let (q, kv) = (self.num_heads * head_dim, self.num_kv_heads * head_dim);
        let mut parameters = Vec::with_capacity(14);
        let mut push = |name: &str, shape: &[usize], keys| {
            parameters.push(Parameter {
                name: format!("model.layers.{layer}.{name}"),
                shape: shape.to_vec(),
                keys,
            });
        };
        push("input_layernorm.weight", &[d_model], HIDDEN);
        push("self_attn.q_proj.weight", &[q, d_model], QUERY);
        push("self_attn.k_proj.weight", &[kv, d_model], KEY);
        push("self_attn.v_proj.weight", &[kv, d_model], KEY);
        push("self_attn.o_proj.weight", &[d_model, q], QUERY);
        if self.attention_bias {
            push("self_attn.q_proj.bias", &[q], QUERY);
            push("self_attn.k_proj.bias", &[kv], KEY);
            push("self_attn.v_proj.bias", &[kv], KEY);
        }
        let norms = match self.qk_norm {
            QkNorm::None => None,
            QkNorm::Head => Some((head_dim, head_dim)),
            QkNorm::Projection => Some((q, kv)),
        };
        if let Some((query, key)) = norms {
            push("self_attn.q_norm.weight", &[query], HEAD_DIM);
            push("self_attn.k_norm.weight", &[key], HEAD_DIM);
        }
        push("post_attention_layernorm.weight", &[d_model], HIDDEN);
        parameters.extend(self.feed_forward_parameters(layer));
        parameters
    }

    /// The laws between the numbers, whatever file they came from.
    ///
    /// # Errors
    /// [`Error::Config`] naming the `config.json` key of the first number that breaks one.
    pub fn check(&self, origin: &Path) -> Result<()> {
        let refuse = |key: &str, message: String| Err(Error::config(origin, key, message));
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.d_model),
            ("intermediate_size", self.d_ff),
            ("num_hidden_layers", self.num_layers),
            ("num_attention_heads", self.num_heads),
            ("num_key_value_heads", self.num_kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ] {
            if value == 0 {
                return refuse(key, "must be at least 1, found 0".into());
            }
        }
        if self.num_layers > MAX_LAYERS {
            let message = format!("{} layers are more than {MAX_LAYERS}", self.num_layers);
            return refuse("num_hidden_layers", message);
        }
        let heads = self.num_heads;
        if !heads.is_multiple_of(self.num_kv_heads) {
            let message = format!(
                "{} key/value heads do not divide num_attention_heads = {heads}",
                self.num_kv_heads
            );
            return refuse("num_key_value_heads", message);
        }
        if !self.head_dim.is_multiple_of(2) {
            let message = format!(
                "must be even for rotary embeddings, found {}",
                self.head_dim
            );
            return refuse("head_dim", message);
        }
        if heads.checked_mul(self.head_dim).is_none() {
            let message = format!("{heads} heads of {} overflow", self.head_dim);
            return refuse("num_attention_heads", message);
        }
        for (key, value) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(key, format!("must be a positive number, found {value}"));
            }
        }
        for (key, id) in [
            ("bos_token_id", self.bos_token_id),
            ("pad_token_id", self.pad_token_id),
        ] {
            if let Some(id) = id.filter(|&id| id as usize >= self.vocab_size) {
                let message = format!("token {id} is not below vocab_size = {}", self.vocab_size);
                return refuse(key, message);
            }
        }
        let beyond = |id: &&u32| **id as usize >= self.vocab_size;
        if let Some(id) = self.eos_token_ids.iter().find(beyond) {
            let message = format!("token {id} is not below vocab_size = {}", self.vocab_size);
            return refuse("eos_token_id", message);
        }
        if let Some(sparse) = &self.sparse {
            sparse.check(origin)?;
        }
        self.rope_scaling.check(self.head_dim, origin)
    }
}

const EMBEDDING: &[&str] = &["vocab_size", "hidden_size"];
const HIDDEN: &[&str] = &["hidden_size"];
const QUERY: &[&str] = &["num_attention_heads", "head_dim", "hidden_size"];
const KEY: &[&str] = &["num_key_value_heads", "head_dim", "hidden_size"];
const HEAD_DIM: &[&str] = &["head_dim"];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tiny() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 7,
            d_model: 4,
            d_ff: 6,
            num_layers: 2,
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 2,
            rope_theta: 10000.0,
            rope_scaling: RopeScaling::None,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            sliding_window: None,
            attention_bias: false,
            qk_norm: QkNorm::None,
            sparse: None,
            max_position_embeddings: 16,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            pad_token_id: None,
        }
    }

    #[test]
    fn a_tied_head_counts_once() {
        // Embedding 28, final norm 4; per layer: norms 8, q and o 16 each, k and v 8 each, mlp 72.
        let mut config = tiny();
        assert_eq!(config.num_parameters(), 28 + 4 + 2 * (8 + 32 + 16 + 72));
        config.tie_word_embeddings = false;
        assert_eq!(
            config.num_parameters(),
            28 + 4 + 2 * (8 + 32 + 16 + 72) + 28
        );
    }

    #[test]
    fn every_name_is_listed_once() {
        let mut config = tiny();
        (config.attention_bias, config.qk_norm) = (true, QkNorm::Head);
        let shapes = config.parameter_shapes();
        let names: std::collections::BTreeSet<_> = shapes.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), shapes.len());
        assert_eq!(shapes.len(), 2 + 2 * 14);
    }

    #[test]
    fn absurd_sizes_cost_an_error_and_no_memory() {
        let mut config = tiny();
        config.num_layers = usize::MAX;
        let message = config.check(Path::new("c.json")).unwrap_err().to_string();
        assert!(message.contains("num_hidden_layers"), "{message}");
        let mut config = tiny();
        config.head_dim = usize::MAX - 1;
        assert!(config.check(Path::new("c.json")).is_err());
        let mut config = tiny();
        config.d_model = 1 << 40;
        assert_eq!(config.num_parameters() >> 40, 7 + 1 + 2 * (2 + 8 + 4 + 18));
    }
}
