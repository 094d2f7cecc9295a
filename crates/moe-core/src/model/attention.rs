use burn::module::Module;
use burn::nn::RmsNorm;
use burn::tensor::Tensor;
use moe_kernels::{AttentionShape, attend, rotate};

use super::{AttentionContext, LayerCache, Linear, linear, linears, rms_norm};

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
    /// Norm of the query: of every head, `[head_dim]` (Qwen3), or of all together, `[num_heads · head_dim]` (OLMoE).
    pub q_norm: Option<RmsNorm>,
    /// Norm of the key, likewise: `[head_dim]` or `[num_kv_heads · head_dim]`.
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
        let [query, key, value] = linears([&self.query, &self.key, &self.value], x);
        Projected { query, key, value }
    }

    /// `softmax(QKᵀ/√head_dim + mask) V` as `[batch, seq, num_heads · head_dim]`, before the
    /// output projection.
    pub fn attend(
        &self,
        projected: Projected,
        context: &AttentionContext,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let Projected { query, key, value } = projected;
        let query = normed(&self.q_norm, query);
        let key = normed(&self.k_norm, key);
        let Some(cache) = cache else {
            return self.among_themselves(query, key, value, context);
        };

        let [batch, seq, _] = query.dims();
        let split = |x: Tensor<3>, heads| x.reshape([batch, seq, heads, self.head_dim]);
        let cos = context.cos.clone().unsqueeze_dim(2);
        let sin = context.sin.clone().unsqueeze_dim(2);
        let turned_key = split(key.clone(), self.num_kv_heads);
        let turned_key = rotate(turned_key, cos.clone(), sin.clone()).swap_dims(1, 2);
        let heads_value = split(value.clone(), self.num_kv_heads).swap_dims(1, 2);
        let (all_keys, all_values) = cache.append(turned_key, heads_value);
        if context.cached == 0 {
            return self.among_themselves(query, key, value, context);
        }
        let query = rotate(split(query, self.num_heads), cos, sin);
        attend(query, all_keys, all_values, context.bias())
    }

    /// Attention of new tokens to new tokens alone.
    fn among_themselves(
        &self,
        query: Tensor<3>,
        key: Tensor<3>,
        value: Tensor<3>,
        context: &AttentionContext,
    ) -> Tensor<3> {
        let shape = AttentionShape {
            kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            window: context.window,
        };
        let AttentionContext { cos, sin, real, .. } = context.clone();
        moe_kernels::attention(query, key, value, cos, sin, real, shape)
    }
}

/// `x [batch, seq, heads · head_dim]` with a norm on each run of as many features as the norm has, where the model has one.
fn normed(norm: &Option<RmsNorm>, x: Tensor<3>) -> Tensor<3> {
    let Some(norm) = norm else { return x };
    let [batch, seq, width] = x.dims();
    let [size] = norm.gamma.val().dims();
    let x = x.reshape([batch, seq, width / size, size]);
    rms_norm(norm, x).reshape([batch, seq, width])
}
