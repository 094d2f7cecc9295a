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

/// A checkpoint of zeros without a tokenizer in the new folder `dir`, for what asks for one.
pub(crate) fn zeros(dir: &Path) -> Checkpoint {
    let (folder, shapes) = folder(true);
    open(folder.path(), &shapes).unwrap();
    fs::create_dir(dir).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(folder.path().join(name), dir.join(name)).unwrap();
    }
    Checkpoint::open(dir).unwrap()
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

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";

#[test]
fn pointers_of_git_lfs_are_refused_where_they_would_be_read_and_nowhere_else() {
    let (dir, shapes) = folder(true);
    for unread in ["pytorch_model.bin", "picture.png", "model.onnx"] {
        fs::write(dir.path().join(unread), POINTER).unwrap();
    }
    let checkpoint = open(dir.path(), &shapes).unwrap();
    for read in [
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        let path = dir.path().join(read);
        let before = fs::read(&path).ok();
        fs::write(&path, POINTER).unwrap();
        let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains(read) && message.contains("git lfs pull"),
            "{message}"
        );
        match before {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
    }
    // The weights are read without the tokenizer.
    fs::write(dir.path().join("tokenizer.json"), POINTER).unwrap();
    drop(checkpoint);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let message = checkpoint.tokenizer().unwrap_err().to_string();
    assert!(
        message.contains("tokenizer.json") && message.contains("git lfs pull"),
        "{message}"
    );
}

#[test]
fn a_head_that_is_stored_beside_a_tied_embedding_is_the_models_where_it_differs() {
    let (dir, mut shapes) = folder(true);
    shapes.push(("lm_head.weight".into(), vec![5, 4]));
    // Every tensor begins with one half: the head is the embedding once more.
    assert!(
        open(dir.path(), &shapes)
            .unwrap()
            .config()
            .tie_word_embeddings
    );
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    let start = file.tensor("lm_head.weight").unwrap().bytes.start as usize;
    bytes[start..start + 4].copy_from_slice(&0.25f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert!(!checkpoint.config().tie_word_embeddings);
    assert_eq!(checkpoint.read_f32("lm_head.weight").unwrap()[0], 0.25);
}

#[test]
fn the_ids_of_a_generation_config_are_read_and_checked_against_the_vocabulary() {
    let (dir, shapes) = folder(true);
    let path = dir.path().join("generation_config.json");
    fs::write(
        &path,
        r#"{"bos_token_id": 0, "eos_token_id": 3, "pad_token_id": 4}"#,
    )
    .unwrap();
    let checkpoint = open(dir.path(), &shapes).unwrap();
    let config = checkpoint.config();
    assert_eq!(
        (config.bos_token_id, config.pad_token_id),
        (Some(0), Some(4))
    );
    assert_eq!(config.eos_token_ids, [1, 3]);
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        fs::write(&path, json!({key: 5}).to_string()).unwrap();
        let message = refused(dir.path(), &shapes);
        assert!(
            message.contains(&format!("generation_config.json: `{key}`")),
            "{message}"
        );
    }
}

/// A folder whose tokenizer has `tokens`, the last of them added and not special; the embedding has 5 rows.
fn with_tokenizer(tokens: &[&str], config: Value) -> (tempfile::TempDir, Checkpoint) {
    let (dir, shapes) = folder(true);
    let last = tokens.len() - 1;
    let vocabulary: serde_json::Map<_, _> = (tokens[..last].iter().enumerate())
        .map(|(id, token)| ((*token).into(), id.into()))
        .collect();
    let json = json!({
        "version": "1.0",
        "added_tokens": [{"id": last, "content": tokens[last], "special": false, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false}],
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    });
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let checkpoint = open(dir.path(), &shapes).unwrap();
    (dir, checkpoint)
}

#[test]
fn a_control_token_that_the_tokenizer_calls_plain_is_special_and_ends_answers() {
    let template = "{% for m in messages %}{{ m.content }}<z>{% endfor %}";
    for config in [
        json!({"added_tokens_decoder": {"3": {"content": "<z>", "special": true}}}),
        json!({"additional_special_tokens": ["<z>"]}),
        json!({"extra_special_tokens": {"end": "<z>"}}),
        json!({"eos_token": "<z>"}),
    ] {
        let mut config = config;
        config["chat_template"] = template.into();
        let (_dir, checkpoint) = with_tokenizer(&["<", "z", ">", "<z>"], config);
        let tokenizer = checkpoint.tokenizer().unwrap();
        assert!(tokenizer.is_special(3));
        assert_eq!(tokenizer.encode_text("<z>", false).unwrap(), [0, 1, 2]);
        let chat = checkpoint.chat(&tokenizer).unwrap().unwrap();
        assert_eq!(chat.end_of_answer(&tokenizer).unwrap(), Some(3));
        let ends = checkpoint.answer_ends(&tokenizer, Some(&chat)).unwrap();
        assert_eq!(ends.all(), [3, 1]);
    }
}

#[test]
fn named_tokens_are_added_while_the_embedding_has_rows_for_them() {
    let tokens = ["a", "b", "<z>"];
    let (_dir, checkpoint) =
        with_tokenizer(&tokens, json!({"pad_token": "<p>", "eos_token": "<e>"}));
    let tokenizer = checkpoint.tokenizer().unwrap();
    let ids = ["<e>", "<p>"].map(|token| tokenizer.token_id(token));
    assert_eq!(ids, [Some(3), Some(4)]);
    assert_eq!(
        checkpoint
            .answer_ends(&tokenizer, None)
            .unwrap()
            .first()
            .unwrap(),
        3
    );
    assert_eq!(
        checkpoint.special_tokens(&tokenizer).pad.as_deref(),
        Some("<p>")
    );
    // No row is left for the third of these. Nothing needs padding; without its end no text is read.
    let three = |third: &str| json!({"additional_special_tokens": ["<x>", "<y>"], third: "<t>"});
    let (_dir, checkpoint) = with_tokenizer(&tokens, three("pad_token"));
    assert_eq!(checkpoint.tokenizer().unwrap().token_id("<t>"), None);
    let (_dir, checkpoint) = with_tokenizer(&tokens, three("eos_token"));
    let message = checkpoint.tokenizer().unwrap_err().to_string();
    for part in ["tokenizer_config.json: `", "id 5", "5 rows"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn tokens_beyond_the_embedding_are_refused_by_their_spelling() {
    let tokens = ["a", "b", "c", "d", "e", "<z>"];
    let (_dir, checkpoint) = with_tokenizer(&tokens, json!({}));
    let message = checkpoint.tokenizer().unwrap_err().to_string();
    assert!(
        message.contains("\"<z>\" has the id 5") && message.contains("5 rows"),
        "{message}"
    );
}

#[test]
fn an_end_of_text_that_is_not_in_the_vocabulary_is_said_to_be_so() {
    let (dir, checkpoint) = with_tokenizer(&["a", "<z>"], json!({"eos_token": "<e>"}));
    let other = crate::tokenizer::Tokenizer::from_file(&dir.path().join("tokenizer.json")).unwrap();
    let message = checkpoint
        .answer_ends(&other, None)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`eos_token`") && message.contains("not in the vocabulary"),
        "{message}"
    );
}
