//! GGUF files: whole models, one tensor of every type with metadata of every type, and damaged files.

use std::path::{Path, PathBuf};

use moe_core::checkpoint::Checkpoint;
use moe_core::checkpoint::gguf::{Array, GgufFile, Value};
use moe_core::model::Decoder;
use serde_json::{Value as Json, json};

use super::case::Case;
use super::check::{Check, Tolerance, Verdict};
use super::device::{all_real, cpu, flat, tokens, values};
use super::hostile::Files;
use super::probe::{self, Outcome, Subject};

/// Types whose blocks have to be decoded; any other may be refused by its name.
const DECODED: [&str; 13] = [
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K",
];
/// Types whose decoding is one product and one sum in f32, so that at most the last bit may differ.
const EXACT: [&str; 5] = ["F32", "F16", "Q8_0", "Q4_0", "Q4_1"];
const ONE_ULP: Tolerance = Tolerance {
    rtol: 1.2e-7,
    atol: 0.0,
};

/// Runs a case, told apart by the files that it has.
///
/// # Errors
/// When the fixture, or a file of it that must load, cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    if case.json["files"].is_object() {
        damaged(case)
    } else if case.dir.join("metadata.json").is_file() {
        blocks(case)
    } else if case.dir.join("model.gguf").is_file() {
        model(case)
    } else {
        Ok(Verdict::Skip("unknown kind of gguf case".into()))
    }
}

/// A model: every tensor in Hugging Face and in GGUF order, its settings, and logits.
fn model(case: &Case) -> anyhow::Result<Verdict> {
    let tensors = case.tensors()?;
    let path = case.dir.join("model.gguf");
    let (file, checkpoint) = (GgufFile::open(&path)?, Checkpoint::open(&path)?);
    let mut check = Check::default();
    let loose = case.tolerance("dequantised")?;
    for name in tensors.names() {
        let (got, dtype) = if let Some(inner) = name.strip_prefix("hf.") {
            (
                checkpoint.read_f32(inner)?,
                checkpoint.dtype(inner).unwrap_or_default(),
            )
        } else if let Some(inner) = name.strip_prefix("gguf.") {
            (
                file.read_f32(inner)?,
                file.tensor(inner)
                    .map(|tensor| tensor.dtype.name().to_string())
                    .unwrap_or_default(),
            )
        } else {
            continue;
        };
        let tolerance = if EXACT.contains(&dtype.as_str()) {
            ONE_ULP
        } else {
            loose
        };
        check.close(name, &got, &tensors.f32(name)?, tolerance);
    }
    settings(&mut check, case, &checkpoint);
    let device = cpu()?;
    let decoder = Decoder::load(&checkpoint, &device)?;
    let ids = tokens(&tensors, "input_ids", &device)?;
    let real = all_real(ids.dims(), &device);
    let logits = decoder.logits(flat(decoder.forward(ids, real)));
    check.close(
        "logits",
        &values(logits),
        &tensors.f32("logits")?,
        case.tolerance("logits")?,
    );
    check.note_unused(&tensors);
    Ok(check.verdict())
}

/// The settings that case.json lists, against those read from the file's metadata.
fn settings(check: &mut Check, case: &Case, checkpoint: &Checkpoint) {
    let config = checkpoint.config();
    for (key, want) in case.json["config"].as_object().into_iter().flatten() {
        let got = match key.as_str() {
            "vocab_size" => json!(config.vocab_size),
            "hidden_size" => json!(config.d_model),
            "intermediate_size" => json!(config.d_ff),
            "num_hidden_layers" => json!(config.num_layers),
            "num_attention_heads" => json!(config.num_heads),
            "num_key_value_heads" => json!(config.num_kv_heads),
            "max_position_embeddings" => json!(config.max_position_embeddings),
            "rms_norm_eps" => json!(config.rms_norm_eps as f32),
            "rope_theta" => json!(config.rope_theta),
            "tie" => json!(config.tie_word_embeddings),
            _ => continue,
        };
        let same = got == *want
            || got
                .as_f64()
                .zip(want.as_f64())
                .is_some_and(|(got, want)| got as f32 == want as f32);
        check.holds(same, || format!("config {key} got {got} want {want}"));
    }
}

/// Every file of the case holds the same tensors and metadata.
fn blocks(case: &Case) -> anyhow::Result<Verdict> {
    let mut check = Check::default();
    let tolerance = case.tolerance("dequantised")?;
    let metadata = case.json_file("metadata.json")?;
    for path in gguf_files(&case.dir)? {
        let tensors = case.tensors()?;
        let file = GgufFile::open(&path)?;
        let mut refused = Vec::new();
        for name in tensors.names() {
            let want = tensors.f32(name)?;
            let Some(info) = file.tensor(name) else {
                check.holds(false, || {
                    format!("tensor {name} got `not in {}`", path.display())
                });
                continue;
            };
            check.exact(
                &format!("shape of {name}"),
                &info.shape,
                tensors.shape(name)?,
            );
            let dtype = info.dtype.name();
            match file.read_f32(name) {
                Ok(got) => check.close(name, &got, &want, tolerance),
                Err(error) => {
                    let by_name = !DECODED.contains(&dtype) && error.to_string().contains(dtype);
                    check.holds(by_name, || format!("tensor {name} got `{error}`"));
                    refused.push(dtype.to_string());
                }
            }
        }
        let bytes = std::fs::read(&path)?;
        for (key, want) in metadata.as_object().into_iter().flatten() {
            // The writer of the fixtures leaves empty values out.
            if !bytes
                .windows(key.len())
                .any(|window| window == key.as_bytes())
            {
                check.note(format!("{key} is not in the file"));
                continue;
            }
            let got = file.metadata().get(key).map(plain);
            check.holds(
                got.as_ref().is_some_and(|got| same(got, &want["value"])),
                || format!("metadata {key} got {got:?} want {want}"),
            );
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !refused.is_empty() {
            check.note(format!(
                "{name}: types refused by name: {}",
                refused.join(" ")
            ));
        }
    }
    Ok(check.verdict())
}

fn gguf_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "gguf")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A metadata value as JSON.
fn plain(value: &Value) -> Json {
    match value {
        Value::Unsigned(number) => json!(number),
        Value::Signed(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Bool(truth) => json!(truth),
        Value::String(text) => json!(text),
        Value::Array(array) => plain_array(array),
    }
}

fn plain_array(array: &Array) -> Json {
    match array {
        Array::U8(items) => json!(items),
        Array::I8(items) => json!(items),
        Array::U16(items) => json!(items),
        Array::I16(items) => json!(items),
        Array::U32(items) => json!(items),
        Array::I32(items) => json!(items),
        Array::U64(items) => json!(items),
        Array::I64(items) => json!(items),
        Array::F32(items) => json!(items),
        Array::F64(items) => json!(items),
        Array::Bool(items) => json!(items),
        Array::String(items) => json!(items),
        Array::Array(items) => Json::Array(items.iter().map(plain_array).collect()),
    }
}

/// Equal values; numbers as numbers, whatever JSON's spelling of them.
fn same(got: &Json, want: &Json) -> bool {
    match (got, want) {
        (Json::Array(got), Json::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| same(got, want))
        }
        (Json::Number(got), Json::Number(want)) => got == want || got.as_f64() == want.as_f64(),
        (got, want) => got == want,
    }
}

/// Damaged files, each read in a child process.
fn damaged(case: &Case) -> anyhow::Result<Verdict> {
    let listed = case.files()?;
    let mut files = Files::default();
    for (name, note) in &listed {
        let outcome = probe::ask(Subject::Gguf, &case.dir.join(name), &[])?;
        files.judge(name, note, outcome, |message| {
            if message.contains(name) {
                Ok(())
            } else {
                Err("the error does not name the file".into())
            }
        });
    }
    Ok(files.verdict(case, &listed))
}

/// Opens the file and reads every tensor; then opens it as a model too, which may go either way but not crash.
pub fn read_hostile(path: &Path) -> Outcome {
    let outcome = GgufFile::open(path).and_then(|file| {
        let names: Vec<String> = file.tensors().map(|(name, _)| name.to_string()).collect();
        names
            .iter()
            .try_for_each(|name| file.read_f32(name).map(drop))?;
        Ok(names.len())
    });
    // Only crashes count here; most of these files are no models.
    drop(Checkpoint::open(path));
    match outcome {
        Ok(items) => Outcome::Loaded {
            items,
            differences: Vec::new(),
        },
        Err(error) => Outcome::Refused(error.to_string()),
    }
}
