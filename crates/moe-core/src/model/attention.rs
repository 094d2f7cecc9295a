use burn::module::Module;
use burn::nn::{Linear, RmsNorm};
use burn::tensor::{Tensor, activation};

use super::rope::rotate;
use super::{AttentionContext, LayerCache, linear};

/// Grouped-query attention (Ainslie et al. 2023, "GQA") with rotary positions.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[d_model, num_heads · head_dim]`; has a bias in Qwen2.
    pub query: Linear,
    /// `[d_model, num_kv_heads · head_dim]`; has a bias in Qwen2.
    pub key: Linear,
    /// `[d_model, num_kv_heads · head_dim]`; has a bias in Qwen2.
    pub value: Linear,
    /// `[num_heads · head_dim, d_model]`.
    pub output: Linear,
    /// Per-head norm of the query, `[head_dim]` (Qwen3).
    pub q_norm: Option<RmsNorm>,
    /// Per-head norm of the key, `[head_dim]` (Qwen3).
    pub k_norm: Option<RmsNorm>,
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Features of one head.
    pub head_dim: usize,
}

/// Query, key and value before the split into heads, norm and rotation.
#[derive(Clone, Debug)]
pub struct Projected {
    /// `[batch, seq, num_heads · head_dim]`.
    pub query: Tensor<3>,
    /// `[batch, seq, num_kv_heads · head_dim]`.
    pub key: Tensor<3>,
    /// `[batch, seq, num_kv_heads · head_dim]`.
    pub value: Tensor<3>,
}

impl Attention {
    /// `x [batch, seq, d_model]` (already normed) → `[batch, seq, d_model]`.
    pub fn forward(
        &self,
        x: Tensor<3>,
        context: &AttentionContext,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        linear(&self.output, self.attend(self.project(x), context, cache))
    }

    /// `x [batch, seq, d_model]` → its query, key and value. What an adapter adds to a projection
    /// is added here, before [`Self::attend`].
    pub fn project(&self, x: Tensor<3>) -> Projected {
        Projected {
            query: linear(&self.query, x.clone()),
            key: linear(&self.key, x.clone()),
            value: linear(&self.value, x),
        }
    }

    /// `softmax(QKᵀ/√head_dim + bias) V` as `[batch, seq, num_heads · head_dim]`, before the
    /// output projection.
    pub fn attend(
        &self,
        projected: Projected,
        context: &AttentionContext,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let [batch, seq, _] = projected.query.dims();
        let (kv_heads, head_dim) = (self.num_kv_heads, self.head_dim);
        let group = self.num_heads / kv_heads;

        let query = projected
            .query
            .reshape([batch, seq, self.num_heads, head_dim]);
        let key = projected.key.reshape([batch, seq, kv_heads, head_dim]);
        let value = projected.value.reshape([batch, seq, kv_heads, head_dim]);
        let query = rotate(
            norm(&self.q_norm, query),
            context.cos.clone(),
            context.sin.clone(),
        );
        let key = rotate(
            norm(&self.k_norm, key),
            context.cos.clone(),
            context.sin.clone(),
        );
        let query = query * (head_dim as f64).powf(-0.5);

        let (key, value) = (key.swap_dims(1, 2), value.swap_dims(1, 2));
        let (key, value) = match cache {
            Some(cache) => cache.append(key, value),
            None => (key, value),
        };
        let [_, _, total, _] = key.dims();

        // The queries that share a key are folded into the rows of one product, so that keys and
        // values are never repeated: [batch, kv_heads, group · seq, head_dim].
        let query = query
            .reshape([batch, seq, kv_heads, group, head_dim])
            .permute([0, 2, 3, 1, 4])
            .reshape([batch, kv_heads, group * seq, head_dim]);
        let scores = query
            .matmul(key.swap_dims(2, 3))
            .reshape([batch, kv_heads, group, seq, total])
            + context.bias.clone();
        let weights = activation::softmax(scores, 4).reshape([batch, kv_heads, group * seq, total]);
        weights
            .matmul(value)
            .reshape([batch, kv_heads, group, seq, head_dim])
            .permute([0, 3, 1, 2, 4])
            .reshape([batch, seq, self.num_heads * head_dim])
    }
}

fn norm(norm: &Option<RmsNorm>, x: Tensor<4>) -> Tensor<4> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
