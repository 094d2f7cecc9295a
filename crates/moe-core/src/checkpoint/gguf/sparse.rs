//! Sparse layers of a GGUF file: their settings, and the experts' matrices, which lie side by side in one tensor.

use super::config::Keys;
use super::{GgufFile, TensorInfo};
use crate::config::{Architecture, ExpertNames, SparseConfig};
use crate::error::{Error, Result};

/// The number by which GGUF knows a softmax over all experts.
const SOFTMAX: usize = 1;

/// The mixture of a sparse architecture, whose `feed_forward_length` is `d_ff`; none of a dense one.
pub(super) fn read(keys: &Keys, file: &GgufFile, d_ff: usize) -> Result<Option<SparseConfig>> {
    let names = match keys.architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
            return Ok(None);
        }
        Architecture::Mixtral => ExpertNames::Mixtral,
        Architecture::Qwen2Moe | Architecture::Qwen3Moe | Architecture::Olmoe => ExpertNames::Qwen,
    };
    refuse_unsupported(keys)?;
    // What llama.cpp does where a file does not say it: these two divide by the sum.
    let divides = matches!(
        keys.architecture,
        Architecture::Mixtral | Architecture::Qwen3Moe
    );
    Ok(Some(SparseConfig {
        names,
        num_experts: keys.required("expert_count")?,
        top_k: keys.required("expert_used_count")?,
        d_ff: match keys.architecture {
            Architecture::Qwen2Moe | Architecture::Qwen3Moe => {
                keys.required("expert_feed_forward_length")?
            }
            _ => d_ff,
        },
        norm_topk_prob: keys.bool("expert_weights_norm")?.unwrap_or(divides),
        shared_d_ff: match keys.architecture {
            Architecture::Qwen2Moe => Some(keys.required("expert_shared_feed_forward_length")?),
            _ => None,
        },
        step: 1,
        dense_layers: dense_layers(file),
    }))
}

/// Settings that would change what the experts of a token or their weights are.
fn refuse_unsupported(keys: &Keys) -> Result<()> {
    let refuse = |key: &str, found: usize| {
        let message = format!("{found} is not supported; it cannot be ignored safely");
        Err(keys.error(key, message))
    };
    for (key, understood) in [
        ("expert_gating_func", [0, SOFTMAX]),
        ("expert_group_count", [0, 1]),
        ("expert_group_used_count", [0, 1]),
    ] {
        if let Some(found) = keys.usize(key)?.filter(|found| !understood.contains(found)) {
            return refuse(key, found);
        }
    }
    match keys.f64("expert_weights_scale")? {
        Some(scale) if scale != 0.0 && scale != 1.0 => {
            let message = format!("{scale} is not supported; it cannot be ignored safely");
            Err(keys.error("expert_weights_scale", message))
        }
        _ => Ok(()),
    }
}

/// Those that have a network of their own.
fn dense_layers(file: &GgufFile) -> Vec<usize> {
    let layer = |(name, _): (&str, &TensorInfo)| {
        let layer = name
            .strip_prefix("blk.")?
            .strip_suffix(".ffn_gate.weight")?;
        layer.parse().ok()
    };
    file.tensors().filter_map(layer).collect()
}

/// The Hugging Face name and place of every part of a tensor of the mixture; none where it is no such tensor.
///
/// # Errors
/// When the experts of a tensor are not as many as the settings say.
pub(super) fn parts(
    file: &GgufFile,
    name: &str,
    info: &TensorInfo,
    sparse: &SparseConfig,
) -> Result<Option<Vec<(String, TensorInfo)>>> {
    let layer = || {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        Some((layer, rest.strip_suffix(".weight")?))
    };
    let Some((layer, part)) = layer() else {
        return Ok(None);
    };
    let prefix = format!("model.layers.{layer}.{}", sparse.names.block());
    let [gate, up, down] = sparse.names.matrices();
    let whole = |hf: String| Ok(Some(vec![(format!("{prefix}.{hf}.weight"), info.clone())]));
    let matrix = match part {
        "ffn_gate_inp" => return whole("gate".into()),
        "ffn_gate_shexp" => return whole(format!("shared_expert.{gate}")),
        "ffn_up_shexp" => return whole(format!("shared_expert.{up}")),
        "ffn_down_shexp" => return whole(format!("shared_expert.{down}")),
        "ffn_gate_inp_shexp" => {
            // One row, stored as a vector.
            let mut row = info.clone();
            if row.shape.len() == 1 {
                row.shape.insert(0, 1);
            }
            return Ok(Some(vec![(
                format!("{prefix}.shared_expert_gate.weight"),
                row,
            )]));
        }
        "ffn_gate_exps" => gate,
        "ffn_up_exps" => up,
        "ffn_down_exps" => down,
        _ => return Ok(None),
    };
    let [experts, rows, columns] = match info.shape[..] {
        // What is empty would cost names and no bytes of the file.
        [experts, rows, columns] if experts == sparse.num_experts && rows * columns > 0 => {
            [experts, rows, columns]
        }
        _ => {
            let (found, experts) = (&info.shape, sparse.num_experts);
            let message = format!("has shape {found:?}, expected one matrix for each of {experts}");
            return Err(Error::tensor(
                file.path(),
                name,
                format!("{message} experts"),
            ));
        }
    };
    let size = (info.bytes.end - info.bytes.start) / experts as u64;
    let part = |expert: usize| {
        let start = info.bytes.start + expert as u64 * size;
        let info = TensorInfo {
            dtype: info.dtype,
            shape: vec![rows, columns],
            bytes: start..start + size,
        };
        (format!("{prefix}.experts.{expert}.{matrix}.weight"), info)
    };
    Ok(Some((0..experts).map(part).collect()))
}
