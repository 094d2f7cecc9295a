//! A decoder's weights as files of its architecture hold them: the way back from `load`.

use std::path::Path;

use burn::tensor::{DType, Tensor};

use super::{
    Attention, Decoder, DecoderLayer, FeedForward, FeedForwardBlock, SparseFeedForward, Weight,
};
use crate::checkpoint::{self, Checkpoint};
use crate::config::ExpertNames;
use crate::error::{Error, Result};

impl Decoder {
    /// The numbers of the tensor of this Hugging Face name, row-major, matrices `[out, in]`; none where the decoder has no such
    /// tensor.
    pub fn stored(&self, name: &str) -> Option<Vec<f32>> {
        match name {
            "model.embed_tokens.weight" => Some(match &self.embedding.weight {
                Weight::Float(rows) => numbers(rows.val()),
                Weight::Blocks(rows) => rows.widened(),
            }),
            "model.norm.weight" => Some(numbers(self.norm.gamma.val())),
            "lm_head.weight" => Some(matrix(&self.lm_head.as_ref()?.weight)),
            _ => {
                let (index, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
                let layer = self.layers.get(index.parse::<usize>().ok()?)?;
                let sparse = self.config.sparse.as_ref();
                layer.stored(
                    rest,
                    sparse.map_or(ExpertNames::Qwen, |sparse| sparse.names),
                )
            }
        }
    }

    /// Writes the folder `to`: settings and weights as files of its architecture have them, matrices in the format that they have
    /// here (f32 for those in blocks), norms and biases in f32, with the tokenizer of `base`. What is read from there is this decoder, to the bit.
    ///
    /// # Errors
    /// As [`checkpoint::save_folder`].
    pub fn save(&self, to: &Path, base: &Checkpoint) -> Result<()> {
        checkpoint::save_folder(to, &self.config, self.dtype(), base, |name, _| {
            self.stored(name)
                .ok_or_else(|| Error::tensor(to, name, "the decoder has no such tensor"))
        })
    }
}

impl DecoderLayer {
    fn stored(&self, name: &str, names: ExpertNames) -> Option<Vec<f32>> {
        match name {
            "input_layernorm.weight" => Some(numbers(self.input_norm.gamma.val())),
            "post_attention_layernorm.weight" => {
                Some(numbers(self.post_attention_norm.gamma.val()))
            }
            _ => match (name.strip_prefix("self_attn."), &self.feed_forward) {
                (Some(name), _) => self.attention.stored(name),
                (None, FeedForwardBlock::Dense(ffn)) => ffn.stored(name.strip_prefix("mlp.")?),
                (None, FeedForwardBlock::Sparse(ffn)) => {
                    let name = name.strip_prefix(names.block())?.strip_prefix('.')?;
                    ffn.stored(name, names)
                }
            },
        }
    }
}

impl Attention {
    fn stored(&self, name: &str) -> Option<Vec<f32>> {
        let (of, what) = name.split_once('.')?;
        let layer = match of {
            "q_proj" => &self.query,
            "k_proj" => &self.key,
            "v_proj" => &self.value,
            "o_proj" => &self.output,
            "q_norm" => return Some(numbers(self.q_norm.as_ref()?.gamma.val())),
            "k_norm" => return Some(numbers(self.k_norm.as_ref()?.gamma.val())),
            _ => return None,
        };
        match what {
            "weight" => Some(matrix(&layer.weight)),
            "bias" => Some(numbers(layer.bias.as_ref()?.val())),
            _ => None,
        }
    }
}

impl FeedForward {
    fn stored(&self, name: &str) -> Option<Vec<f32>> {
        let layer = match name {
            "gate_proj.weight" => &self.gate,
            "up_proj.weight" => &self.up,
            "down_proj.weight" => &self.down,
            _ => return None,
        };
        Some(matrix(&layer.weight))
    }
}

impl SparseFeedForward {
    fn stored(&self, name: &str, names: ExpertNames) -> Option<Vec<f32>> {
        if name == "gate.weight" {
            return Some(matrix(&self.router.weight));
        }
        if name == "shared_expert_gate.weight" {
            return Some(matrix(&self.shared.as_ref()?.gate.weight));
        }
        if let Some(name) = name.strip_prefix("shared_expert.") {
            return self.shared.as_ref()?.feed_forward.stored(name);
        }
        let (expert, matrix) = name.strip_prefix("experts.")?.split_once('.')?;
        let matrix = matrix.strip_suffix(".weight")?;
        let which = names.matrices().iter().position(|name| *name == matrix)?;
        let stacked = [&self.gate, &self.up, &self.down][which].val();
        let expert: usize = expert.parse().ok()?;
        let [experts, _, _] = stacked.dims();
        (expert < experts).then(|| turned(stacked.narrow(0, expert, 1).squeeze_dim(0)))
    }
}

/// `[d_out, d_in]`.
fn matrix(weight: &Weight) -> Vec<f32> {
    match weight {
        Weight::Float(numbers) => turned(numbers.val()),
        Weight::Blocks(blocks) => blocks.widened(),
    }
}

/// `[d_in, d_out]` as `[d_out, d_in]`.
fn turned(matrix: Tensor<2>) -> Vec<f32> {
    numbers(matrix.transpose())
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().iter::<f32>().collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::tests::{sparse, tiny};
    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn every_tensor_of_the_settings_is_there_in_its_shape_and_no_other() {
        let mixtral = ModelConfig {
            sparse: sparse().sparse.map(|it| crate::config::SparseConfig {
                names: ExpertNames::Mixtral,
                shared_d_ff: None,
                step: 1,
                ..it
            }),
            ..tiny()
        };
        for config in [tiny(), sparse(), mixtral] {
            let model = Decoder::random(&config, 1, &Device::flex());
            for (name, shape) in config.parameter_shapes() {
                let stored = model.stored(&name).unwrap_or_else(|| panic!("{name}"));
                assert_eq!(stored.len(), shape.iter().product::<usize>(), "{name}");
            }
            for name in [
                "model.layers.9.input_layernorm.weight",
                "model.layers.0.self_attn.o_proj.bias",
                "model.layers.1.mlp.experts.7.up_proj.weight",
                "model.layers.0.mlp.up_proj.bias",
                "else",
            ] {
                assert_eq!(model.stored(name), None, "{name}");
            }
        }
    }
}
