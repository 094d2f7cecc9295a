//! GGUF tensor names and their Hugging Face equals.

/// Weights of a layer; `{gguf}` in `blk.N.{gguf}.weight` is `{hf}` in `model.layers.N.{hf}.weight`.
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The Hugging Face name, or the name itself when it is none of a decoder's weights.
pub(super) fn hugging_face(name: &str) -> String {
    match name {
        "token_embd.weight" => return "model.embed_tokens.weight".into(),
        "output_norm.weight" => return "model.norm.weight".into(),
        "output.weight" => return "lm_head.weight".into(),
        _ => {}
    }
    in_layer(name).unwrap_or_else(|| name.to_owned())
}

fn in_layer(name: &str) -> Option<String> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (part, kind) = rest.rsplit_once('.')?;
    let (_, hf) = LAYER.iter().find(|(gguf, _)| *gguf == part)?;
    matches!(kind, "weight" | "bias").then(|| format!("model.layers.{layer}.{hf}.{kind}"))
}

/// Rotary tables: computed from the settings, or read into them.
pub(super) fn is_rotary(name: &str) -> bool {
    name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_part_by_part() {
        let cases = [
            ("token_embd.weight", "model.embed_tokens.weight"),
            (
                "blk.12.attn_q.bias",
                "model.layers.12.self_attn.q_proj.bias",
            ),
            (
                "blk.0.attn_q_norm.weight",
                "model.layers.0.self_attn.q_norm.weight",
            ),
            (
                "blk.3.ffn_norm.weight",
                "model.layers.3.post_attention_layernorm.weight",
            ),
            ("blk.x.ffn_norm.weight", "blk.x.ffn_norm.weight"),
            ("blk.1.ffn_gate_exps.weight", "blk.1.ffn_gate_exps.weight"),
        ];
        for (gguf, hf) in cases {
            assert_eq!(hugging_face(gguf), hf);
        }
    }
}
