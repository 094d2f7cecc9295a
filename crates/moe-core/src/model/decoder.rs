use burn::module::Module;
use burn::nn::RmsNorm;
use burn::tensor::{Bool, Device, Int, Tensor};
use moe_kernels::Matrix;

use super::{AttentionContext, DecoderLayer, Embedding, KvCache, Linear, Rope};
use crate::config::ModelConfig;

/// A decoder-only language model of the Llama family.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[vocab_size, d_model]`; also the head when that is tied.
    pub embedding: Embedding,
    /// The blocks, first to last.
    pub layers: Vec<DecoderLayer>,
    /// Final norm.
    pub norm: RmsNorm,
    /// `[d_model, vocab_size]`; `None` when the embedding is the head.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    pub(super) rope: Rope,
    #[module(skip)]
    pub(super) config: ModelConfig,
}

impl Decoder {
    /// The settings it was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Rotary frequencies.
    pub fn rope(&self) -> &Rope {
        &self.rope
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.norm.gamma.val().device()
    }

    /// `tokens [batch, seq]` → `[batch, seq, d_model]`.
    pub fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.embedding.forward(tokens, &self.device())
    }

    /// Positions and visibility for `real [batch, total]` (true = real token), of which the first
    /// `cached` columns are already in the cache.
    ///
    /// # Panics
    ///
    /// When `cached > total`.
    pub fn context(&self, real: Tensor<2, Bool>, cached: usize) -> AttentionContext {
        AttentionContext::new(&self.rope, real, cached, self.config.sliding_window)
    }

    /// Final hidden states, after the norm.
    ///
    /// `tokens [batch, seq]`, `real [batch, seq]` (true = real token) → `[batch, seq, d_model]`.
    /// Rows of padding positions hold finite numbers without meaning.
    pub fn forward(&self, tokens: Tensor<2, Int>, real: Tensor<2, Bool>) -> Tensor<3> {
        let x = self.embed(tokens);
        let mut x = self.walk_dense(x, real, 0..self.layers.len(), None);
        x.normed(&self.norm)
    }

    /// As [`Self::forward`] for tokens that follow those in `cache`; `real [batch, seq]` describes
    /// the new tokens only. Their keys and values are appended to the cache.
    ///
    /// # Panics
    ///
    /// When the cache has not one entry per layer.
    pub fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let x = self.embed(tokens);
        let mut x = self.walk_dense(x, real, 0..self.layers.len(), Some(cache));
        x.normed(&self.norm)
    }

    /// `hidden [n, d_model]` (after the final norm) → next-token logits `[n, vocab_size]`.
    ///
    /// Pass only the positions whose logits are needed: the head is the largest product.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        moe_kernels::linear(hidden, self.head())
    }

    /// `hidden [n, d_model]` (after the final norm) and the token that follows each → its log-probability, `[n]`, in nats.
    ///
    /// The logits are never held together: [`moe_kernels::token_cross_entropy()`].
    ///
    /// # Panics
    ///
    /// When there is not one token per row, or one is not in the vocabulary.
    pub fn log_probabilities(&self, hidden: Tensor<2>, tokens: &[usize]) -> Tensor<1> {
        moe_kernels::token_cross_entropy(hidden, self.head(), tokens).neg()
    }

    /// `[d_model, vocab_size]`.
    fn head(&self) -> Matrix {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.embedding.as_head(),
        }
    }
}
