use std::fs;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::{Checkpoint, TokenizerSource};
use crate::config::RopeScaling;

/// Writes the format's values one after the other.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    fn string(&mut self, text: &str) -> &mut Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }
}

/// Metadata values this test writes.
enum Field<'a> {
    U32(u32),
    F32(f32),
    Text(&'a str),
    Texts(&'a [&'a str]),
}

struct Tensor<'a> {
    name: &'a str,
    /// Row length first.
    dimensions: &'a [u64],
    kind: u32,
    data: Vec<u8>,
}

fn gguf(fields: &[(&str, Field)], tensors: &[Tensor]) -> Vec<u8> {
    let mut w = Writer::default();
    w.raw(b"GGUF").u32(3);
    w.u64(tensors.len() as u64).u64(fields.len() as u64);
    for (key, field) in fields {
        w.string(key);
        match field {
            Field::U32(value) => w.u32(4).u32(*value),
            Field::F32(value) => w.u32(6).raw(&value.to_le_bytes()),
            Field::Text(text) => w.u32(8).string(text),
            Field::Texts(texts) => {
                w.u32(9).u32(8).u64(texts.len() as u64);
                texts.iter().fold(&mut w, |w, text| w.string(text))
            }
        };
    }
    let mut data = Vec::new();
    for tensor in tensors {
        w.string(tensor.name).u32(tensor.dimensions.len() as u32);
        for &size in tensor.dimensions {
            w.u64(size);
        }
        w.u32(tensor.kind).u64(data.len() as u64);
        data.extend_from_slice(&tensor.data);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    w.0.resize(w.0.len().next_multiple_of(32), 0);
    w.raw(&data);
    w.0
}

fn floats<'a>(name: &'a str, dimensions: &'a [u64]) -> Tensor<'a> {
    let len = dimensions.iter().product::<u64>() as usize;
    Tensor {
        name,
        dimensions,
        kind: 0,
        data: (0..len).flat_map(|i| (i as f32).to_le_bytes()).collect(),
    }
}

/// One layer, width 4, one head of 4, vocabulary 3; tied.
fn model() -> Vec<u8> {
    let fields = [
        ("general.architecture", Field::Text("llama")),
        ("llama.embedding_length", Field::U32(4)),
        ("llama.block_count", Field::U32(1)),
        ("llama.feed_forward_length", Field::U32(32)),
        ("llama.attention.head_count", Field::U32(1)),
        ("llama.context_length", Field::U32(8)),
        ("llama.attention.layer_norm_rms_epsilon", Field::F32(1e-5)),
        ("tokenizer.ggml.model", Field::Text("gpt2")),
        ("tokenizer.ggml.tokens", Field::Texts(&["a", "b", "ab"])),
        ("tokenizer.ggml.merges", Field::Texts(&["a b"])),
        ("tokenizer.ggml.eos_token_id", Field::U32(2)),
        ("tokenizer.chat_template", Field::Text("{{ messages }}")),
    ];
    // One q8_0 block a row: scale 0.5, numbers 0, 1, 2, …
    let block: Vec<u8> = [0x00, 0x38].into_iter().chain(0..32).collect();
    let down = Tensor {
        name: "blk.0.ffn_down.weight",
        dimensions: &[32, 4],
        kind: 8,
        data: block.repeat(4),
    };
    let tensors = [
        floats("token_embd.weight", &[4, 3]),
        floats("output_norm.weight", &[4]),
        floats("rope_freqs.weight", &[2]),
        floats("blk.0.attn_norm.weight", &[4]),
        floats("blk.0.attn_q.weight", &[4, 4]),
        floats("blk.0.attn_k.weight", &[4, 4]),
        floats("blk.0.attn_v.weight", &[4, 4]),
        floats("blk.0.attn_output.weight", &[4, 4]),
        floats("blk.0.ffn_norm.weight", &[4]),
        floats("blk.0.ffn_gate.weight", &[4, 32]),
        floats("blk.0.ffn_up.weight", &[4, 32]),
        down,
    ];
    let mut bytes = gguf(&fields, &tensors);
    // A divisor of 0 would be refused: 0, 1 become 1, 1.
    let table = 0f32.to_le_bytes().into_iter().chain(1f32.to_le_bytes());
    let table: Vec<u8> = table.collect();
    let freqs = bytes
        .windows(16)
        .rposition(|window| window[..8] == table && window[8..] == [0; 8])
        .unwrap();
    bytes[freqs..freqs + 4].copy_from_slice(&1f32.to_le_bytes());
    bytes
}

fn on_disk(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn refused(bytes: &[u8]) -> String {
    let (_dir, path) = on_disk(bytes);
    let message = GgufFile::open(&path).unwrap_err().to_string();
    assert!(message.contains("x.gguf"), "{message}");
    message
}

#[test]
fn a_model_opens_under_hugging_face_names() {
    let (dir, path) = on_disk(&model());
    for path in [path.as_path(), dir.path()] {
        let checkpoint = Checkpoint::open(path).unwrap();
        let config = checkpoint.config();
        assert_eq!((config.vocab_size, config.head_dim), (3, 4));
        assert!(config.tie_word_embeddings);
        assert_eq!(config.eos_token_ids, [2]);
        assert_eq!(config.rope_scaling, RopeScaling::Divisors(vec![1.0, 1.0]));
        assert_eq!(checkpoint.chat_template(), Some("{{ messages }}"));
        let TokenizerSource::Gguf(tokenizer) = checkpoint.tokenizer_source().unwrap() else {
            panic!("expected the vocabulary of the file");
        };
        assert_eq!(tokenizer.merges, ["a b"]);
        // Rows 0, 2, 1, 3: rotary pairs stand next to each other in the file.
        let q = checkpoint
            .read_f32("model.layers.0.self_attn.q_proj.weight")
            .unwrap();
        assert_eq!([q[0], q[4], q[8], q[12]], [0.0, 8.0, 4.0, 12.0]);
        let down = "model.layers.0.mlp.down_proj.weight";
        assert_eq!(checkpoint.shape(down), Some(&[4, 32][..]));
        assert_eq!(checkpoint.dtype(down).unwrap(), "Q8_0");
        assert_eq!(checkpoint.read_f32(down).unwrap()[33], 0.5);
    }
}

#[test]
fn counts_the_file_cannot_hold_are_refused_before_any_allocation() {
    let good = gguf(&[], &[floats("a", &[2])]);
    for (at, what) in [(8, "tensors"), (16, "metadata entries"), (24, "string")] {
        let mut bytes = good.clone();
        bytes[at + 7] = 0x7f;
        assert!(refused(&bytes).contains(what));
    }
}

#[test]
fn a_damaged_table_is_refused_by_the_name_of_its_tensor() {
    let of = |dimensions: &[u64], kind, len| {
        let tensor = Tensor {
            name: "a",
            dimensions,
            kind,
            data: vec![0; len],
        };
        refused(&gguf(&[], &[tensor]))
    };
    assert!(of(&[33], 8, 34).contains("whole blocks of 32 (Q8_0)"));
    assert!(of(&[1 << 40, 1 << 40], 0, 0).contains("overflow"));
    assert!(of(&[1 << 20], 0, 64).contains("past the end"));
    assert!(of(&[1, 1, 1, 1, 1], 0, 4).contains("5 dimensions"));
    assert!(of(&[1], 4, 4).contains("withdrawn"));
    let twice = refused(&gguf(&[], &[floats("a", &[2]), floats("a", &[2])]));
    assert!(twice.contains("`a`") && twice.contains("twice"));
}

#[test]
fn deep_arrays_do_not_reach_the_stack() {
    let mut w = Writer::default();
    w.raw(b"GGUF").u32(3).u64(0).u64(1).string("deep").u32(9);
    for _ in 0..100_000 {
        w.u32(9).u64(1);
    }
    assert!(refused(&w.0).contains("deep"));
}

#[test]
fn types_that_are_not_decoded_are_refused_by_name_when_read() {
    let tensor = Tensor {
        name: "a",
        dimensions: &[32],
        kind: 20,
        data: vec![0; 18],
    };
    let (_dir, path) = on_disk(&gguf(&[], &[tensor]));
    let file = GgufFile::open(&path).unwrap();
    assert!(
        file.read_f32("a")
            .unwrap_err()
            .to_string()
            .contains("IQ4_NL")
    );
}

#[test]
fn other_versions_and_byte_orders_are_told_apart() {
    let mut bytes = gguf(&[], &[]);
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(refused(&bytes).contains("big-endian"));
    bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
    assert!(refused(&bytes).contains("version 1"));
    bytes[0] = b'X';
    assert!(refused(&bytes).contains("not a GGUF file"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        sparse in any::<bool>(),
    ) {
        let mut bytes = if sparse { mixture(&[]) } else { model() };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let (_dir, path) = on_disk(&bytes);
        if let Ok(file) = GgufFile::open(&path) {
            file.tensors().for_each(|(name, _)| drop(file.read_f32(name)));
        }
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            checkpoint.names().for_each(|name| drop(checkpoint.read_f32(name)));
        }
    }
}

/// A tokenizer of these tokens, as a `tokenizer.json`.
fn tokenizer_json(tokens: &[&str]) -> String {
    let ids = tokens.iter().enumerate();
    let vocabulary: serde_json::Map<_, _> = ids
        .map(|(id, token)| ((*token).into(), id.into()))
        .collect();
    let model = serde_json::json!({"type": "BPE", "vocab": vocabulary, "merges": []});
    serde_json::json!({"version": "1.0", "model": model}).to_string()
}

#[test]
fn a_tokenizer_beside_the_file_is_read_in_place_of_the_one_in_it() {
    let (dir, path) = on_disk(&model());
    let hash = |path: &Path| {
        Checkpoint::open(path)
            .unwrap()
            .tokenizer()
            .unwrap()
            .hash()
            .unwrap()
    };
    let own = hash(&path);
    let config = dir.path().join("tokenizer_config.json");
    fs::write(&config, r#"{"bos_token": "a", "chat_template": "hi"}"#).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(
        checkpoint.chat_template(),
        Some("{{ messages }}"),
        "without a tokenizer.json nothing beside is read"
    );
    fs::write(
        dir.path().join("tokenizer.json"),
        tokenizer_json(&["a", "b", "ab"]),
    )
    .unwrap();
    for path in [path.as_path(), dir.path()] {
        assert_ne!(hash(path), own, "the fingerprint is of what was read");
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!(checkpoint.chat_template(), Some("hi"));
        let tokenizer = checkpoint.tokenizer().unwrap();
        assert!(tokenizer.is_special(0));
        let special = checkpoint.special_tokens(&tokenizer);
        assert_eq!(
            (special.bos.as_deref(), special.eos.as_deref()),
            (Some("a"), Some("ab"))
        );
    }
    fs::remove_file(config).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(
        checkpoint.chat_template(),
        Some("{{ messages }}"),
        "what is not said there is the file's"
    );
}

#[test]
fn a_tokenizer_beside_the_file_that_is_of_another_model_is_refused() {
    let (dir, path) = on_disk(&model());
    for tokens in [&["b", "a", "ab"][..], &["a", "b"]] {
        fs::write(dir.path().join("tokenizer.json"), tokenizer_json(tokens)).unwrap();
        let message = Checkpoint::open(&path)
            .unwrap()
            .tokenizer()
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("tokenizer.json")
                && message.contains("x.gguf")
                && message.contains("not of one model"),
            "{message}"
        );
    }
}

#[test]
fn a_vocabulary_of_a_kind_that_is_not_known_needs_a_tokenizer_beside_it() {
    let mut bytes = model();
    let kind = bytes
        .windows(4)
        .position(|window| window == b"gpt2")
        .unwrap();
    bytes[kind..kind + 4].copy_from_slice(b"bert");
    let (dir, path) = on_disk(&bytes);
    let tokenizer = || Checkpoint::open(&path).unwrap().tokenizer();
    let message = tokenizer().unwrap_err().to_string();
    assert!(
        message.contains("tokenizer.json beside the GGUF file"),
        "{message}"
    );
    fs::write(
        dir.path().join("tokenizer.json"),
        tokenizer_json(&["a", "b", "ab"]),
    )
    .unwrap();
    assert_eq!(tokenizer().unwrap().token_id("ab"), Some(2));
}

/// One layer of two experts and a shared one; `changes` take the place of settings.
fn mixture<'a>(changes: &[(&'a str, Field<'a>)]) -> Vec<u8> {
    let mut fields = vec![
        ("general.architecture", Field::Text("qwen2moe")),
        ("qwen2moe.embedding_length", Field::U32(4)),
        ("qwen2moe.block_count", Field::U32(1)),
        ("qwen2moe.feed_forward_length", Field::U32(64)),
        ("qwen2moe.attention.head_count", Field::U32(1)),
        ("qwen2moe.context_length", Field::U32(8)),
        (
            "qwen2moe.attention.layer_norm_rms_epsilon",
            Field::F32(1e-5),
        ),
        ("qwen2moe.vocab_size", Field::U32(3)),
        ("qwen2moe.expert_count", Field::U32(2)),
        ("qwen2moe.expert_used_count", Field::U32(1)),
        ("qwen2moe.expert_feed_forward_length", Field::U32(32)),
        ("qwen2moe.expert_shared_feed_forward_length", Field::U32(5)),
    ];
    for (key, value) in changes {
        fields.retain(|(known, _)| known != key);
        if let Field::U32(value) = value {
            fields.push((key, Field::U32(*value)));
        }
    }
    // One q8_0 block a row: scale 0.5 in the first expert and 1 in the second.
    let rows = |scale: [u8; 2]| {
        scale
            .into_iter()
            .chain(0..32)
            .collect::<Vec<u8>>()
            .repeat(4)
    };
    let down = Tensor {
        name: "blk.0.ffn_down_exps.weight",
        dimensions: &[32, 4, 2],
        kind: 8,
        data: [rows([0x00, 0x38]), rows([0x00, 0x3c])].concat(),
    };
    let tensors = [
        floats("token_embd.weight", &[4, 3]),
        floats("output_norm.weight", &[4]),
        floats("blk.0.attn_norm.weight", &[4]),
        floats("blk.0.attn_q.weight", &[4, 4]),
        floats("blk.0.attn_k.weight", &[4, 4]),
        floats("blk.0.attn_v.weight", &[4, 4]),
        floats("blk.0.attn_output.weight", &[4, 4]),
        floats("blk.0.ffn_norm.weight", &[4]),
        floats("blk.0.ffn_gate_inp.weight", &[4, 2]),
        floats("blk.0.ffn_gate_exps.weight", &[4, 32, 2]),
        floats("blk.0.ffn_up_exps.weight", &[4, 32, 2]),
        down,
        floats("blk.0.ffn_gate_inp_shexp.weight", &[4]),
        floats("blk.0.ffn_gate_shexp.weight", &[4, 5]),
        floats("blk.0.ffn_up_shexp.weight", &[4, 5]),
        floats("blk.0.ffn_down_shexp.weight", &[5, 4]),
    ];
    gguf(&fields, &tensors)
}

#[test]
fn experts_that_lie_side_by_side_are_read_one_by_one() {
    let (_dir, path) = on_disk(&mixture(&[]));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let sparse = checkpoint.config().sparse.as_ref().unwrap();
    assert_eq!((sparse.num_experts, sparse.top_k, sparse.d_ff), (2, 1, 32));
    assert_eq!(
        (sparse.shared_d_ff, sparse.norm_topk_prob),
        (Some(5), false)
    );
    let read = |name: &str| {
        let name = format!("model.layers.0.mlp.{name}.weight");
        let shape = checkpoint.shape(&name).unwrap().to_vec();
        (shape, checkpoint.read_f32(&name).unwrap())
    };
    let (shape, up) = read("experts.1.up_proj");
    assert_eq!((shape, up[0], up[127]), (vec![32, 4], 128.0, 255.0));
    let halves = read("experts.0.down_proj");
    assert_eq!((halves.0, halves.1[33]), (vec![4, 32], 0.5));
    assert_eq!(read("experts.1.down_proj").1[33], 1.0);
    assert_eq!(read("shared_expert_gate").0, [1, 4]);
    assert_eq!(read("gate").0, [2, 4]);
}

#[test]
fn mixtures_of_another_kind_are_refused_by_key_or_tensor() {
    let refused = |key: &'static str, value: u32, what: &str| {
        let (_dir, path) = on_disk(&mixture(&[(key, Field::U32(value))]));
        let message = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    };
    let key = "qwen2moe.expert_gating_func";
    refused(key, 2, key);
    let key = "qwen2moe.expert_group_count";
    refused(key, 4, key);
    refused("qwen2moe.expert_count", 3, "ffn_down_exps");
    let key = "qwen2moe.expert_used_count";
    refused(key, 3, key);
    refused("qwen2moe.expert_count", 0, "qwen2moe.expert_count");
}
