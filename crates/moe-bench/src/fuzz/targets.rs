//! The parsers, each as a function of bytes. What they refuse is fine; what they may not do is panic, hang or take the memory.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::Context;
use burn::tensor::Device;
use flate2::Compression;
use flate2::read::GzEncoder;
use moe_cl::config::Experiment;
use moe_cl::data::{new_texts, rows};
use moe_cl::directory::{Part, Saved, newest_saved};
use moe_cl::events::{Event, Recorder, read_log};
use moe_cl::training::{RunOptions, Trained, train};
use moe_cl::{Base, Error};
use moe_core::chat::{ChatTemplate, Message, SpecialTokens};
use moe_core::checkpoint::Checkpoint;
use moe_core::checkpoint::gguf::GgufFile;
use moe_core::checkpoint::safetensors::SafetensorsFile;
use moe_core::config::ModelConfig;
use moe_core::tokenizer::Tokenizer;
use moe_hub::data::suites::Manifest;
use moe_hub::{Cache, Hub};
use moe_report::RunData;
use tempfile::TempDir;

use crate::tiny::{write_base, write_task};

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

fn written(name: &str, input: &[u8], folder: &Path) -> Option<std::path::PathBuf> {
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

/// A checkpoint whose state is the input, with the seal that it has.
fn state(input: &[u8], folder: &Path) -> bool {
    let step = folder.join("checkpoints/step-00000001");
    let made = step.exists() || fs::create_dir_all(&step).is_ok();
    if !made || !sealed(input, &step) {
        return false;
    }
    match Saved::open(&step) {
        Ok(_) => true,
        // It was read, and names parts that are not here.
        Err(Error::Checkpoint { path, .. }) => path.starts_with(folder.join("parts")),
        Err(_) => false,
    }
}

/// Writes a manifest and its seal.
fn sealed(state: &[u8], step: &Path) -> bool {
    let seal = serde_json::to_vec(&Part::of(state)).unwrap_or_default();
    written("state.json", state, step).is_some() && written("state.seal", &seal, step).is_some()
}

/// A model with one part in the place of another: the first byte says of which, the rest is the part. Its hash is right.
fn part(input: &[u8], folder: &Path) -> bool {
    static MODEL: OnceLock<Option<(TempDir, Base, Saved)>> = OnceLock::new();
    let Some((model, base, saved)) = MODEL.get_or_init(|| tiny_model().ok()) else {
        return false;
    };
    let [which, content @ ..] = input else {
        return false;
    };
    let run = folder.join("run");
    let step = run.join("checkpoints/step-00000001");
    if !step.exists() {
        let parts = model.path().join("run/parts");
        let made = fs::create_dir_all(&step)
            .and_then(|()| fs::write(run.join("config.toml"), ""))
            .and_then(|()| fs::create_dir_all(run.join("parts")))
            .and_then(|()| {
                fs::read_dir(parts)?.try_for_each(|part| {
                    let part = part?;
                    let to = run.join("parts").join(part.file_name());
                    fs::copy(part.path(), to).map(|_| ())
                })
            });
        if made.is_err() {
            return false;
        }
    }
    let parts: Vec<&Part> = saved.state.parts().collect();
    let old = parts[usize::from(*which) % parts.len()];
    let new = Part::of(content);
    let (Ok(state), Ok(old), Ok(new_text)) = (
        serde_json::to_string(&saved.state),
        serde_json::to_string(old),
        serde_json::to_string(&new),
    ) else {
        return false;
    };
    let state = state.replace(&old, &new_text);
    let path = run.join("parts").join(new.sha256());
    let is_new = !path.exists();
    let read = fs::write(&path, content).is_ok()
        && sealed(state.as_bytes(), &step)
        && Trained::open(&run, base).is_ok();
    if is_new {
        fs::remove_file(path).ok();
    }
    read
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

/// What a tarball holds, packed so that what changes is the tarball and not its packing.
fn tar(input: &[u8], _: &Path) -> bool {
    let packed = GzEncoder::new(input, Compression::none());
    moe_hub::attacked::tarball(packed, 1 << 24, |_| true).is_ok()
}

fn wheel(input: &[u8], folder: &Path) -> bool {
    let (Some(path), Ok(mut to)) = (
        written("a.whl", input, folder),
        fs::File::create(folder.join("out")),
    ) else {
        return false;
    };
    moe_hub::attacked::wheel(&path, "m/f", &mut to).is_ok()
}

/// What a model hub answers: the first to the first request, and so on; answers end with a line of three dashes.
fn hub(input: &[u8], folder: &Path) -> bool {
    static PORT: OnceLock<Option<(u16, Arc<Mutex<Answers>>)>> = OnceLock::new();
    let Some((port, answers)) = PORT.get_or_init(|| serve().ok()) else {
        return false;
    };
    let parts = split(input, b"\n---\n");
    if let Ok(mut answers) = answers.lock() {
        *answers = Answers {
            all: parts,
            next: 0,
        };
    }
    let cache = folder.join("hub");
    fs::remove_dir_all(&cache).ok();
    let Ok(hub) = Hub::at(&format!("http://127.0.0.1:{port}"), &cache, false) else {
        return false;
    };
    let mut arrived = false;
    let fetched = hub.fetch("a/b", None, &Cache::at(folder.join("cache")), &mut |it| {
        arrived |= it.done > 0;
    });
    arrived || fetched.is_ok()
}

/// What the server on this machine says next.
struct Answers {
    all: Vec<Vec<u8>>,
    next: usize,
}

fn serve() -> std::io::Result<(u16, Arc<Mutex<Answers>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let answers = Arc::new(Mutex::new(Answers {
        all: Vec::new(),
        next: 0,
    }));
    let served = answers.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let Ok(mut answers) = served.lock() else {
                return;
            };
            let count = answers.all.len();
            if let Some(answer) = answers.all.get(answers.next.min(count.saturating_sub(1))) {
                let _ = (&stream).write_all(answer);
            }
            answers.next += 1;
        }
    });
    Ok((port, answers))
}

fn split(input: &[u8], between: &[u8]) -> Vec<Vec<u8>> {
    let (mut parts, mut rest) = (Vec::new(), input);
    while let Some(place) = rest.windows(between.len()).position(|it| it == between) {
        parts.push(rest[..place].to_vec());
        rest = &rest[place + between.len()..];
    }
    parts.push(rest.to_vec());
    parts
}

/// A model of two tasks on a base of a few thousand weights.
fn tiny_model() -> anyhow::Result<(TempDir, Base, Saved)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    write_base(&path.join("base"))?;
    let mut text = format!(
        "name = \"part\"\n[data]\nroot = {:?}\n[adapters]\nrank = 2\n[router]\nfeatures = 16\n[training]\nepochs = 1\n",
        path.display().to_string()
    );
    for task in 0..2 {
        let name = write_task(path, task)?;
        text += &format!(
            "[[tasks]]\nname = \"{name}\"\ntrain = \"{name}.jsonl\"\ntest = \"{name}.jsonl\"\n"
        );
    }
    let experiment = Experiment::parse(&text, Path::new("part.toml"), &[])?;
    let base = Base::load(&path.join("base"), &Device::flex())?;
    let run = path.join("run");
    train(
        &experiment,
        &base,
        &RunOptions::new(run.clone(), false),
        &mut Nobody,
    )?;
    let saved = newest_saved(&run, |_| true)?;
    Ok((folder, base, saved.context("a run leaves a checkpoint")?))
}

/// Takes note of nothing.
struct Nobody;

impl Recorder for Nobody {
    fn record(&mut self, _: &Event) -> std::io::Result<()> {
        Ok(())
    }
}
