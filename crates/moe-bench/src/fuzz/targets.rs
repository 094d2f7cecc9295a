//! The parsers, each as a function of bytes. What they refuse is fine; what they may not do is panic, hang or take the memory.

use std::fs;
use std::path::Path;

use moe_cl::config::Experiment;
use moe_cl::data::{new_texts, rows};
use moe_cl::events::read_log;
use moe_core::chat::{ChatTemplate, Message, SpecialTokens};
use moe_core::checkpoint::Checkpoint;
use moe_core::checkpoint::gguf::GgufFile;
use moe_core::checkpoint::safetensors::SafetensorsFile;
use moe_core::config::ModelConfig;
use moe_core::tokenizer::Tokenizer;
use moe_hub::data::suites::Manifest;
use moe_report::RunData;

use super::fetched::{hub, tar, wheel};
use super::model::{part, state};

/// A parser: reads an input, with a folder of its own for files; true where it takes it.
pub(super) type Target = fn(&[u8], &Path) -> bool;

/// All of them by name, which is also the folder of their corpus.
pub(super) const TARGETS: [(&str, Target); 21] = [
    ("safetensors", safetensors),
    ("index", |input, folder| {
        checkpoint("model.safetensors.index.json", input, folder)
    }),
    ("config", config),
    ("tokenizer", tokenizer),
    ("tokenizer-config", |input, folder| {
        checkpoint("tokenizer_config.json", input, folder)
    }),
    ("gguf", gguf),
    ("template", template),
    ("jsonl", |input, folder| data("a.jsonl", input, folder)),
    ("csv", |input, folder| data("a.csv", input, folder)),
    ("parquet", |input, folder| data("a.parquet", input, folder)),
    ("experiment", experiment),
    ("set", set),
    ("state", state),
    ("part", part),
    ("events", events),
    ("times", times),
    ("report", report),
    ("manifest", manifest),
    ("tar", tar),
    ("wheel", wheel),
    ("hub", hub),
];

pub(super) fn written(name: &str, input: &[u8], folder: &Path) -> Option<std::path::PathBuf> {
    let path = folder.join(name);
    fs::write(&path, input).ok()?;
    Some(path)
}

fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

fn safetensors(input: &[u8], folder: &Path) -> bool {
    let Some(file) = written("a.safetensors", input, folder) else {
        return false;
    };
    let Ok(file) = SafetensorsFile::open(&file) else {
        return false;
    };
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for name in &names {
        let _ = (file.read_f32(name), file.read_i64(name));
    }
    true
}

fn config(input: &[u8], _: &Path) -> bool {
    ModelConfig::from_json(&text(input), Path::new("config.json")).is_ok()
}

fn used(tokenizer: &Tokenizer) {
    for special in [false, true] {
        let ids = tokenizer.encode("Hello, world 123 \u{e9}\u{1f642}", special);
        let _ = ids.map(|ids| tokenizer.decode(&ids, special));
        let _ = tokenizer.encode_text("<s>a</s>", special);
    }
    let _ = tokenizer.hash();
}

fn tokenizer(input: &[u8], _: &Path) -> bool {
    let tokenizer = Tokenizer::from_json(input);
    tokenizer.inspect(used).is_ok()
}

/// A checkpoint of valid files, of which one is the input.
fn checkpoint(name: &str, input: &[u8], folder: &Path) -> bool {
    const CONFIG: &[u8] = include_bytes!("../../corpus/config/llama.json");
    const WEIGHTS: &[u8] = include_bytes!("../../corpus/safetensors/two.safetensors");
    const TOKENIZER: &[u8] = include_bytes!("../../corpus/tokenizer/bpe.json");
    const INDEX: &[u8] = include_bytes!("../../corpus/index/one.json");
    for (file, content) in [
        ("config.json", CONFIG),
        ("a.safetensors", WEIGHTS),
        ("model.safetensors.index.json", INDEX),
        ("tokenizer.json", TOKENIZER),
    ] {
        let content = if file == name { input } else { content };
        if (file == name || !folder.join(file).exists()) && written(file, content, folder).is_none()
        {
            return false;
        }
    }
    written(name, input, folder);
    opened(folder)
}

fn opened(path: &Path) -> bool {
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return false;
    };
    if let Ok(tokenizer) = checkpoint.tokenizer() {
        used(&tokenizer);
        let _ = checkpoint.chat(&tokenizer);
    }
    true
}

fn gguf(input: &[u8], folder: &Path) -> bool {
    let Some(path) = written("a.gguf", input, folder) else {
        return false;
    };
    let Ok(file) = GgufFile::open(&path) else {
        return false;
    };
    let names: Vec<String> = file.tensors().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        let _ = file.read_f32(name);
    }
    opened(&path);
    true
}

fn template(input: &[u8], _: &Path) -> bool {
    let special = SpecialTokens {
        bos: Some("<s>".into()),
        ..SpecialTokens::default()
    };
    let messages = [Message::new("user", "a\nb"), Message::new("assistant", "c")];
    match ChatTemplate::new(&text(input), &special) {
        Ok(template) => template.render(&messages, true).is_ok(),
        Err(_) => false,
    }
}

fn data(name: &str, input: &[u8], folder: &Path) -> bool {
    let Some(path) = written(name, input, folder) else {
        return false;
    };
    let _ = new_texts(&path);
    rows(&path).is_ok()
}

fn experiment(input: &[u8], _: &Path) -> bool {
    Experiment::parse(&text(input), Path::new("a.toml"), &[]).is_ok()
}

fn set(input: &[u8], _: &Path) -> bool {
    const VALID: &str = include_str!("../../../../configs/sentiment.toml");
    let sets: Vec<String> = text(input).lines().map(str::to_owned).collect();
    Experiment::parse(VALID, Path::new("a.toml"), &sets).is_ok()
}

fn events(input: &[u8], folder: &Path) -> bool {
    written("events.jsonl", input, folder).is_some_and(|path| read_log(&path).is_ok())
}

/// The times of a log of which the events are known.
fn times(input: &[u8], folder: &Path) -> bool {
    const EVENTS: &[u8] = include_bytes!("../../corpus/events/plain.jsonl");
    let events = written("events.jsonl", EVENTS, folder);
    let times = written("times.jsonl", input, folder);
    let log = events.filter(|_| times.is_some()).map(|it| read_log(&it));
    log.is_some_and(|log| log.is_ok_and(|log| !log.lines.is_empty()))
}

/// The whole page of a log.
fn report(input: &[u8], folder: &Path) -> bool {
    if written("events.jsonl", input, folder).is_none() {
        return false;
    }
    let run = RunData::load(folder);
    run.is_ok_and(|run| moe_report::write(&[run], &folder.join("report.html")).is_ok())
}

fn manifest(input: &[u8], folder: &Path) -> bool {
    let path = written("a.toml", input, folder);
    path.is_some_and(|path| Manifest::open(&path.to_string_lossy()).is_ok())
}
