//! An expert folded into the base, where no gate chooses.

use moe_core::model::{Decoder, DecoderLayer, FeedForwardBlock, Linear};

use crate::{Catalogue, ExpertId, LayerExpert, Projection};

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
    // No expert has a LoRA in a sparse block.
    if let FeedForwardBlock::Dense(ffn) = &mut layer.feed_forward {
        places.push((Projection::Gate, &mut ffn.gate));
        places.push((Projection::Up, &mut ffn.up));
        places.push((Projection::Down, &mut ffn.down));
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
