use burn::tensor::Tensor;
use moe_core::model::{Attention, AttentionContext, LayerCache, linear};

use crate::{ExpertBank, LoraDropout, Projection};

impl ExpertBank<'_> {
    /// Self-attention for `x [batch, seq, d_model]` (already normed) with the active experts'
    /// LoRA on its projections, `[batch, seq, d_model]`.
    ///
    /// Every active expert's update is added with weight one: the gate reads the input of the
    /// feed-forward network, which is not known yet. The paper has no LoRA here.
    pub fn attend(
        &self,
        attention: &Attention,
        x: Tensor<3>,
        context: &AttentionContext,
        cache: Option<&mut LayerCache>,
        dropout: Option<&LoraDropout>,
    ) -> Tensor<3> {
        self.attend_with(attention, x, context, cache, |base, x, projection| {
            self.add_updates(base, x, projection, dropout)
        })
    }

    /// As [`Self::attend`], where `adapt` adds to each projection's output what the experts make of its input.
    pub(crate) fn attend_with(
        &self,
        attention: &Attention,
        x: Tensor<3>,
        context: &AttentionContext,
        cache: Option<&mut LayerCache>,
        adapt: impl Fn(Tensor<3>, &Tensor<3>, Projection) -> Tensor<3>,
    ) -> Tensor<3> {
        let mut projected = attention.project(x.clone());
        projected.query = adapt(projected.query, &x, Projection::Query);
        projected.key = adapt(projected.key, &x, Projection::Key);
        projected.value = adapt(projected.value, &x, Projection::Value);
        let mixed = attention.attend(projected, context, cache);
        adapt(
            linear(&attention.output, mixed.clone()),
            &mixed,
            Projection::Output,
        )
    }

    /// `base [batch, seq, d_out]` plus the active experts' updates for `x [batch, seq, d_in]`.
    pub(crate) fn add_updates(
        &self,
        base: Tensor<3>,
        x: &Tensor<3>,
        projection: Projection,
        dropout: Option<&LoraDropout>,
    ) -> Tensor<3> {
        let dims = base.dims();
        self.experts.iter().fold(base, |sum, (id, expert)| {
            let Some(lora) = expert.lora(projection) else {
                return sum;
            };
            let x: Tensor<2> = x.clone().flatten(0, 1);
            let x = match dropout {
                Some(dropout) => dropout.at(self.layer, *id).apply(x, projection),
                None => x,
            };
            lora.forward(x).reshape(dims) + sum
        })
    }
}
