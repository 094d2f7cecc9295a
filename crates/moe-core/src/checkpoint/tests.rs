use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::safetensors::SafetensorsFile;
use super::*;

/// One half.
const HALF: [u8; 4] = 0.5f32.to_le_bytes();

/// Writes `tensors` as one safetensors file: the element `first`, then zeros of as many bytes.
fn write(path: &Path, tensors: &[(String, Vec<usize>)], dtype: &str, first: &[u8]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let begin = data.len();
        data.resize(begin + first.len() * shape.iter().product::<usize>(), 0);
        data[begin..begin + first.len()].copy_from_slice(first);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&data);
    fs::write(path, bytes).unwrap();
}

/// A folder with a config for one layer of width 4, and the tensors it asks for.
fn folder(tied: bool) -> (tempfile::TempDir, Vec<(String, Vec<usize>)>) {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "llama", "vocab_size": 5, "hidden_size": 4, "intermediate_size": 6,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8,
        "eos_token_id": 1, "tie_word_embeddings": tied,
    });
    let path = dir.path().join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    let shapes = ModelConfig::from_json(&config.to_string(), &path)
        .unwrap()
        .parameter_shapes();
    (dir, shapes)
}

fn open(dir: &Path, tensors: &[(String, Vec<usize>)]) -> Result<Checkpoint> {
    write(&dir.join("model.safetensors"), tensors, "F32", &HALF);
    Checkpoint::open(dir)
}

fn refused(dir: &Path, tensors: &[(String, Vec<usize>)]) -> String {
    open(dir, tensors).unwrap_err().to_string()
}

#[test]
fn weights_that_fit_their_config_open() {
    let (dir, shapes) = folder(false);
    fs::write(
        dir.path().join("generation_config.json"),
        r#"{"eos_token_id": [1, 3]}"#,
    )
    .unwrap();
    let template = r#"{"chat_template": [{"name": "default", "template": "hi"}]}"#;
    fs::write(dir.path().join("tokenizer_config.json"), template).unwrap();
    let checkpoint = open(dir.path(), &shapes).unwrap();
    assert_eq!(checkpoint.names().count(), shapes.len());
    assert_eq!(checkpoint.config().eos_token_ids, [1, 3]);
    assert_eq!(checkpoint.chat_template(), Some("hi"));
    assert_eq!(checkpoint.shape("lm_head.weight"), Some(&[5, 4][..]));
    assert_eq!(
        checkpoint.read_f32("model.norm.weight").unwrap(),
        [0.5, 0., 0., 0.]
    );
    assert!(checkpoint.read_f32("nothing").is_err());
    assert!(checkpoint.tokenizer_source().is_err());
}

/// A folder with a tokenizer of three tokens for an embedding of five rows, and these files beside it.
fn with_tokenizer(files: &[(&str, Value)]) -> Result<crate::tokenizer::Tokenizer> {
    let (dir, shapes) = folder(true);
    let added = json!({"id": 2, "content": "<|z|>", "special": false, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false});
    let tokenizer = json!({"version": "1.0", "added_tokens": [added],
        "model": {"type": "BPE", "vocab": {"a": 0, "<e>": 1, "<|z|>": 2}, "merges": []}});
    let tokenizer = [("tokenizer.json", tokenizer)];
    for (name, text) in tokenizer.iter().chain(files) {
        fs::write(dir.path().join(name), text.to_string()).unwrap();
    }
    open(dir.path(), &shapes)?.tokenizer()
}

#[test]
fn a_token_that_any_file_calls_special_is_special() {
    let plain = with_tokenizer(&[]).unwrap();
    assert!(plain.special_tokens().is_empty());
    let z = json!({"content": "<|z|>", "special": true});
    for (config, special) in [
        (json!({"added_tokens_decoder": {"2": z}}), "<|z|>"),
        (json!({"additional_special_tokens": ["<|z|>"]}), "<|z|>"),
        (json!({"extra_special_tokens": ["<|z|>"]}), "<|z|>"),
        (
            json!({"extra_special_tokens": {"end_token": {"content": "<|z|>"}}}),
            "<|z|>",
        ),
        // In the vocabulary, and no added token yet.
        (json!({"eos_token": "<e>"}), "<e>"),
    ] {
        let tokenizer = with_tokenizer(&[("tokenizer_config.json", config.clone())]).unwrap();
        assert_eq!(tokenizer.special_tokens(), [special], "{config}");
        let id = tokenizer.token_id(special).unwrap();
        assert_eq!(
            (tokenizer.vocab_size(), tokenizer.is_special(id)),
            (3, true)
        );
        assert!(!tokenizer.encode_text(special, false).unwrap().contains(&id));
    }
}

#[test]
fn control_tokens_get_the_rows_that_are_left() {
    let named = |config: Value| with_tokenizer(&[("tokenizer_config.json", config)]);
    let two = named(json!({"eos_token": "<|end|>", "pad_token": "<pad>"})).unwrap();
    assert_eq!(
        (two.token_id("<|end|>"), two.token_id("<pad>")),
        (Some(3), Some(4))
    );
    // No row is left for the third, which nothing needs.
    let three = json!({"additional_special_tokens": ["<x>", "<y>"], "pad_token": "<pad>"});
    assert_eq!(named(three).unwrap().token_id("<pad>"), None);
    let three = json!({"additional_special_tokens": ["<x>", "<y>"], "eos_token": "<end>"});
    let message = named(three).unwrap_err().to_string();
    assert!(
        message.contains("<end>") && message.contains("not in the vocabulary"),
        "{message}"
    );
}

#[test]
fn tokens_without_a_row_or_with_another_id_are_refused() {
    let message = |files: &[(&str, Value)]| with_tokenizer(files).unwrap_err().to_string();
    let beyond = message(&[(
        "tokenizer_config.json",
        json!({"additional_special_tokens": ["<x>", "<y>", "<w>"]}),
    )]);
    assert!(
        beyond.contains("\"<w>\" has the id 5") && beyond.contains("5 rows"),
        "{beyond}"
    );
    let dir = "/"; // The folder's name stands before what is wrong in it.
    let gap = message(&[("added_tokens.json", json!({"<x>": 4}))]);
    assert!(
        gap.contains("<x>") && gap.contains("Some(4)") && gap.contains(dir),
        "{gap}"
    );
    for key in ["eos_token_id", "bos_token_id", "pad_token_id"] {
        let beyond = message(&[("generation_config.json", json!({ key: 7 }))]);
        assert!(
            beyond.contains("generation_config.json") && beyond.contains(key),
            "{beyond}"
        );
    }
}

#[test]
fn only_what_is_read_may_not_be_a_pointer() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let (dir, shapes) = folder(true);
    for name in ["pytorch_model.bin", "picture.png", "model.onnx"] {
        fs::write(dir.path().join(name), pointer).unwrap();
    }
    open(dir.path(), &shapes).unwrap();
    for name in ["model.safetensors", "tokenizer_config.json", "config.json"] {
        let path = dir.path().join(name);
        let before = fs::read(&path).ok();
        fs::write(&path, pointer).unwrap();
        let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains(name) && message.contains("git lfs pull"),
            "{message}"
        );
        match before {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
}

#[test]
fn a_head_that_is_stored_and_differs_is_the_models_whatever_the_flag_says() {
    let (dir, mut shapes) = folder(true);
    shapes.push(("lm_head.weight".into(), vec![5, 4]));
    write(&dir.path().join("model.safetensors"), &shapes, "F32", &HALF);
    assert!(
        Checkpoint::open(dir.path())
            .unwrap()
            .config()
            .tie_word_embeddings
    );
    // The first element of each tensor is its own.
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let head = header["lm_head.weight"]["data_offsets"][0]
        .as_u64()
        .unwrap() as usize;
    bytes[data + head..data + head + 4].copy_from_slice(&2.0f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(
        !Checkpoint::open(dir.path())
            .unwrap()
            .config()
            .tie_word_embeddings
    );
}

#[test]
fn missing_left_over_and_misshaped_tensors_are_listed_with_the_settings() {
    let (dir, mut shapes) = folder(true);
    let norm = shapes.pop().unwrap();
    assert!(refused(dir.path(), &shapes).contains("missing: model.norm.weight"));
    shapes.push(("model.norm.weight".into(), vec![3]));
    let message = refused(dir.path(), &shapes);
    assert!(
        message.contains("is [3], expected [4] from hidden_size"),
        "{message}"
    );
    shapes.pop();
    shapes.push(norm);
    shapes.push(("model.layers.1.input_layernorm.weight".into(), vec![4]));
    let message = refused(dir.path(), &shapes);
    assert!(message.contains("left over: model.layers.1"), "{message}");
    assert!(message.contains("num_hidden_layers = 1"), "{message}");
}

#[test]
fn known_extras_and_a_stored_tied_head_are_accepted() {
    let (dir, mut shapes) = folder(true);
    shapes.push((
        "model.layers.0.self_attn.rotary_emb.inv_freq".into(),
        vec![1],
    ));
    shapes.push(("lm_head.weight".into(), vec![5, 4]));
    open(dir.path(), &shapes).unwrap();
}

#[test]
fn an_untied_model_without_head_is_told_so() {
    let (dir, mut shapes) = folder(false);
    shapes.retain(|(name, _)| name != "lm_head.weight");
    assert!(refused(dir.path(), &shapes).contains("tie_word_embeddings"));
}

#[test]
fn integer_weights_and_non_finite_values_are_refused_by_name() {
    let (dir, shapes) = folder(true);
    let path = dir.path().join("model.safetensors");
    write(&path, &shapes, "I32", &[0; 4]);
    let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("not floats") && message.contains("I32"),
        "{message}"
    );
    write(&path, &shapes, "F32", &f32::NAN.to_le_bytes());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let message = checkpoint
        .read_f32("model.norm.weight")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("model.norm.weight") && message.contains("NaN"),
        "{message}"
    );
}

/// Both shards of a folder, and their index.
fn write_shards(dir: &Path, shapes: &[(String, Vec<usize>)]) {
    let (one, two) = shapes.split_at(3);
    write(&dir.join("1.safetensors"), one, "F32", &HALF);
    write(&dir.join("2.safetensors"), two, "F32", &HALF);
    let place = |(index, (name, _)): (usize, &(String, Vec<usize>))| {
        let shard = if index < 3 { 1 } else { 2 };
        (name.clone(), Value::from(format!("{shard}.safetensors")))
    };
    let map: serde_json::Map<_, _> = shapes.iter().enumerate().map(place).collect();
    let index = json!({"weight_map": map}).to_string();
    fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
}

#[test]
fn the_fingerprint_is_that_of_the_tensors_whatever_files_they_lie_in() {
    let (dir, shapes) = folder(true);
    let whole = open(dir.path(), &shapes).unwrap().fingerprint().unwrap();
    assert_eq!(whole.len(), 64);

    let (dir, mut shapes) = folder(true);
    write_shards(dir.path(), &shapes);
    let sharded = Checkpoint::open(dir.path()).unwrap().fingerprint().unwrap();
    assert_eq!(sharded, whole, "in shards");

    shapes.reverse();
    let (dir, _) = folder(true);
    let turned = open(dir.path(), &shapes).unwrap().fingerprint().unwrap();
    assert_eq!(turned, whole, "in another order");
    shapes.push((
        "model.layers.0.self_attn.rotary_emb.inv_freq".into(),
        vec![1],
    ));
    let more = open(dir.path(), &shapes).unwrap().fingerprint().unwrap();
    assert_eq!(more, whole, "with a tensor that nothing reads");
}

#[test]
fn a_byte_a_name_or_a_type_makes_another_fingerprint() {
    let (dir, shapes) = folder(true);
    let path = dir.path().join("model.safetensors");
    let fingerprint = || {
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        checkpoint.fingerprint().unwrap()
    };
    let mut found = Vec::new();
    for dtype in ["F16", "BF16"] {
        write(&path, &shapes, dtype, &[0; 2]);
        found.push(fingerprint());
    }
    // The same byte in one of two tensors of one shape.
    let bytes = fs::read(&path).unwrap();
    for name in ["gate_proj", "up_proj"] {
        let file = SafetensorsFile::open(&path).unwrap();
        let name = format!("model.layers.0.mlp.{name}.weight");
        let start = file.tensor(&name).unwrap().bytes.start as usize;
        let mut changed = bytes.clone();
        changed[start] = 1;
        fs::write(&path, changed).unwrap();
        found.push(fingerprint());
    }
    let different: HashSet<&String> = found.iter().collect();
    assert_eq!(different.len(), 4, "{found:?}");
}

/// The message about a folder whose tensors lie in two shards and are listed by `index`.
fn refused_shards(index: impl Fn(&str, bool) -> Option<String>) -> Option<String> {
    let (dir, shapes) = folder(true);
    let (one, two) = shapes.split_at(3);
    write(&dir.path().join("1.safetensors"), one, "F32", &HALF);
    write(&dir.path().join("2.safetensors"), two, "F32", &HALF);
    let mut map = serde_json::Map::new();
    for (name, _) in &shapes {
        let first = one.iter().any(|(listed, _)| listed == name);
        if let Some(shard) = index(name, first) {
            map.insert(name.clone(), shard.into());
        }
    }
    let extra = "model.layers.0.self_attn.rotary_emb.inv_freq";
    map.insert(extra.into(), "1.safetensors".into());
    let text = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    fs::write(dir.path().join("model.safetensors.index.json"), text).unwrap();
    match Checkpoint::open(dir.path()) {
        Ok(checkpoint) => {
            assert_eq!(checkpoint.read_f32("model.norm.weight").unwrap().len(), 4);
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn shards_open_as_one_and_a_wrong_index_is_refused_by_name() {
    let right = |first| Some(format!("{}.safetensors", if first { 1 } else { 2 }));
    assert_eq!(refused_shards(|_, first| right(first)), None);
    let norm = |other: Option<&str>| {
        let other = other.map(str::to_owned);
        let index = |name: &str, first| match name {
            "model.norm.weight" => other.clone(),
            _ => right(first),
        };
        refused_shards(index).unwrap()
    };
    let message = norm(None);
    assert!(
        message.contains("`model.norm.weight`") && message.contains("not list"),
        "{message}"
    );
    let message = norm(Some("1.safetensors"));
    assert!(
        message.contains("`model.norm.weight`") && message.contains("does not hold"),
        "{message}"
    );
    assert!(norm(Some("3.safetensors")).contains("3.safetensors"));
    for outside in ["../2.safetensors", "/etc/x.safetensors", "2.bin"] {
        let message = norm(Some(outside));
        assert!(
            message.contains("inside the folder") && message.contains(outside),
            "{message}"
        );
    }
}

#[test]
fn what_is_not_a_checkpoint_says_what_one_would_be() {
    let dir = tempfile::tempdir().unwrap();
    let message = |path: &Path| Checkpoint::open(path).unwrap_err().to_string();
    assert!(message(dir.path()).contains("config.json"));
    assert!(message(&dir.path().join("none")).contains("none"));
    let text = dir.path().join("x.txt");
    fs::write(&text, "").unwrap();
    assert!(message(&text).contains(".gguf"));
    let (dir, _) = folder(true);
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(message(dir.path()).contains("save the model as safetensors"));
}
