//! A decoder small enough for tests.

use burn::module::Param;
use burn::tensor::{Bool, Device, Int, Tensor};
use moe_core::config::{Architecture, ExpertNames, ModelConfig, QkNorm, RopeScaling, SparseConfig};

use crate::{AdapterConfig, Catalogue, LayerRange, LoraConfig, LoraInit, Projection};

pub(crate) fn model() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 17,
        d_model: 8,
        d_ff: 12,
        num_layers: 3,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 4,
        rope_theta: 10000.0,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
        sliding_window: None,
        attention_bias: false,
        qk_norm: QkNorm::None,
        sparse: None,
        max_position_embeddings: 64,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        pad_token_id: None,
    }
}

/// As [`model`], with four experts in every layer but the first.
pub(crate) fn sparse() -> ModelConfig {
    ModelConfig {
        sparse: Some(SparseConfig {
            names: ExpertNames::Qwen,
            num_experts: 4,
            top_k: 2,
            d_ff: 6,
            norm_topk_prob: true,
            shared_d_ff: None,
            step: 1,
            dense_layers: vec![0],
        }),
        ..model()
    }
}

pub(crate) fn config(targets: &[Projection], layers: LayerRange) -> AdapterConfig {
    let lora = LoraConfig {
        rank: 2,
        alpha: 3.0,
        rslora: false,
        dropout: 0.0,
        init: LoraInit::Kaiming,
    };
    AdapterConfig {
        lora,
        targets: targets.to_vec(),
        layers,
    }
}

/// Gives every B, which starts at zero, numbers as large as those of a trained expert.
pub(crate) fn train_by_hand(catalogue: &mut Catalogue) {
    let ids: Vec<_> = catalogue
        .experts()
        .iter()
        .map(|expert| expert.id())
        .collect();
    for id in ids {
        let first = catalogue.layers().start;
        for (place, layer) in catalogue.expert_mut(id).layers.iter_mut().enumerate() {
            for (inner, lora) in layer.loras_mut().enumerate() {
                let b = lora.b.val();
                let [rank, d_out] = b.dims();
                // Those inside a sparse block, which come last, differ among themselves.
                let phase = (id.0 as usize + first + place + 1 + inner / 7) as f32;
                let wave = Tensor::<1, Int>::arange(0..(rank * d_out) as i64, &b.device());
                let b = (wave.float() * phase).sin().reshape([rank, d_out]) * 0.5;
                lora.b = Param::initialized(lora.b.id, b.detach().set_require_grad(true));
            }
        }
    }
}

/// Two rows of five tokens, the second padded on the right.
pub(crate) fn batch(device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let tokens = Tensor::from_data([[1, 5, 9, 2, 16], [3, 3, 7, 0, 0]], device);
    let real = [[true; 5], [true, true, true, false, false]];
    (tokens, Tensor::from_data(real, device))
}
