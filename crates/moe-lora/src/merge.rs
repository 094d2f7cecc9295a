//! An expert folded into the base, where no gate chooses.

use burn::module::Param;
use burn::tensor::Tensor;
use moe_core::model::{
    Decoder, DecoderLayer, FeedForward, FeedForwardBlock, Linear, SparseFeedForward,
};

use crate::{Catalogue, ExpertId, InsideExpert, LayerExpert, Projection};

impl Catalogue {
    /// The base with `expert` folded into its matrices, `W + scaling · A B`: a plain decoder that answers as
    /// [`Routing::Single`](crate::Routing::Single) of that expert does, at the speed of the base.
    ///
    /// A mixture of several experts is no matrix: their networks are not linear, and a gate weighs every token anew.
    /// The matrices that change are copies, in the experts' precision: rounded to that of a bf16 base, they would lose the
    /// better part of an update. All others are shared with `base`.
    ///
    /// # Panics
    ///
    /// When there is no such expert, or the experts are on an autodiff device.
    pub fn merge(&self, base: &Decoder, expert: ExpertId) -> Decoder {
        let mut merged = base.clone();
        for (layer, expert) in self.layers().zip(&self.expert(expert).layers) {
            fold(&mut merged.layers[layer], expert);
        }
        merged
    }
}

fn fold(layer: &mut DecoderLayer, expert: &LayerExpert) {
    let attention = &mut layer.attention;
    let mut places: Vec<(Projection, &mut Linear)> = vec![
        (Projection::Query, &mut attention.query),
        (Projection::Key, &mut attention.key),
        (Projection::Value, &mut attention.value),
        (Projection::Output, &mut attention.output),
    ];
    match &mut layer.feed_forward {
        FeedForwardBlock::Dense(ffn) => places.extend(inside(ffn)),
        FeedForwardBlock::Sparse(sparse) => {
            fold_inside(sparse, &expert.inside);
            let shared = sparse.shared.as_mut();
            places.extend(
                shared
                    .into_iter()
                    .flat_map(|it| inside(&mut it.feed_forward)),
            );
        }
    }
    for (projection, linear) in places {
        if let Some(lora) = expert.lora(projection) {
            let delta = lora.delta();
            let base = linear
                .weight
                .val()
                .to_tensor(delta.dtype(), &delta.device());
            linear.weight = linear.weight.with(base + delta);
        }
    }
}

fn inside(ffn: &mut FeedForward) -> [(Projection, &mut Linear); 3] {
    [
        (Projection::Gate, &mut ffn.gate),
        (Projection::Up, &mut ffn.up),
        (Projection::Down, &mut ffn.down),
    ]
}

/// Into the matrices of the base's experts, `[experts, d_in, d_out]`.
fn fold_inside(sparse: &mut SparseFeedForward, experts: &[InsideExpert]) {
    for (projection, matrices) in [
        (Projection::Gate, &mut sparse.gate),
        (Projection::Up, &mut sparse.up),
        (Projection::Down, &mut sparse.down),
    ] {
        let deltas = experts.iter().map(|it| Some(it.lora(projection)?.delta()));
        if let Some(deltas) = deltas
            .collect::<Option<Vec<_>>>()
            .filter(|it| !it.is_empty())
        {
            let deltas = Tensor::stack::<3>(deltas, 0);
            let sum = matrices.val().cast(deltas.dtype()) + deltas;
            *matrices = Param::initialized(matrices.id, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::{Device, Tolerance};

    use super::*;
    use crate::{LayerRange, Routing, Texts, tiny};

    #[test]
    fn a_merged_base_answers_as_the_expert_does() {
        let device = Device::flex();
        let base = Decoder::random(&tiny::model(), 3, &device);
        let config = tiny::config(&Projection::ALL, LayerRange::Last(2));
        let mut adapters = Catalogue::new(&config, base.config()).unwrap();
        for seed in 0..2 {
            adapters.add_expert(&config.lora, "task", seed, &device.clone().autodiff());
        }
        tiny::train_by_hand(&mut adapters);
        let adapters = adapters.valid();
        let (tokens, real) = tiny::batch(&device);
        let texts = Texts::new(tokens.clone(), real.clone());
        let before = base.forward(tokens.clone(), real.clone()).into_data();
        for expert in [0, 1].map(ExpertId) {
            let routing = Routing::Single(expert);
            let want = adapters.forward(&base, &texts, &routing, None, None);
            let merged = adapters.merge(&base, expert);
            let got = merged.forward(tokens.clone(), real.clone()).into_data();
            got.assert_approx_eq::<f32>(&want.hidden.into_data(), Tolerance::rel_abs(1e-4, 1e-5));
            assert_ne!(got, before);
        }
        // The base itself is as it was.
        assert_eq!(base.forward(tokens, real).into_data(), before);
    }
}
