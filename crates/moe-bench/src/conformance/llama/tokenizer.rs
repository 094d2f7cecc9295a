//! Ids and texts of a `tokenizer.json`.

use std::collections::BTreeMap;

use anyhow::Context;
use moe_core::tokenizer::Tokenizer;
use serde_json::Value;

use super::super::case::Case;
use super::super::check::{Check, Verdict};

/// Ids and texts of every string, with and without special tokens.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let mut check = Check::default();
    let cases = case.json_file("encodings.json")?;
    let mut files = BTreeMap::from([("tokenizer.json", case.dir.join("tokenizer.json"))]);
    let again = case.dir.join("hf").join("tokenizer.json");
    if again.is_file() {
        files.insert("hf/tokenizer.json", again);
    }
    for (file, path) in files {
        let tokenizer = Tokenizer::from_file(&path)?;
        check_encodings(&mut check, file, &tokenizer, &cases)?;
    }
    Ok(check.verdict())
}

fn check_encodings(
    check: &mut Check,
    file: &str,
    tokenizer: &Tokenizer,
    cases: &Value,
) -> anyhow::Result<()> {
    for (key, value) in cases.as_object().context("encodings.json is not a table")? {
        match value {
            Value::Array(list)
                if list
                    .iter()
                    .all(|one| one["text"].is_string() && one["ids"].is_array()) =>
            {
                for (index, one) in list.iter().enumerate() {
                    encoding(check, &format!("{file} {key}[{index}]"), tokenizer, one)?;
                }
            }
            Value::Number(size) if key == "vocab_size" => {
                check.exact(
                    "vocab_size",
                    &[Some(tokenizer.vocab_size() as u64)],
                    &[size.as_u64()],
                );
            }
            _ => check.note(format!("not compared: {key}")),
        }
    }
    Ok(())
}

fn encoding(
    check: &mut Check,
    name: &str,
    tokenizer: &Tokenizer,
    one: &Value,
) -> anyhow::Result<()> {
    let text = one["text"].as_str().context("no text")?;
    let ids = |key: &str| -> Option<Vec<u32>> {
        one[key]
            .as_array()?
            .iter()
            .map(|id| id.as_u64().map(|id| id as u32))
            .collect()
    };
    let with = ids("ids").context("no ids")?;
    check.exact(
        &format!("{name}.ids"),
        &tokenizer.encode(text, true)?,
        &with,
    );
    if let Some(without) = ids("ids_no_special") {
        check.exact(
            &format!("{name}.ids_no_special"),
            &tokenizer.encode(text, false)?,
            &without,
        );
    }
    for (key, skip) in [
        ("decoded_skip_special", true),
        ("decoded_keep_special", false),
    ] {
        if let Some(want) = one[key].as_str() {
            check.exact(
                &format!("{name}.{key}"),
                &[tokenizer.decode(&with, skip)?],
                &[want.to_string()],
            );
        }
    }
    if let Some(want) = one["tokens"].as_array() {
        let spelled: Vec<Option<String>> = with.iter().map(|&id| tokenizer.token(id)).collect();
        let want: Vec<Option<String>> = want
            .iter()
            .map(|token| token.as_str().map(str::to_string))
            .collect();
        check.exact(&format!("{name}.tokens"), &spelled, &want);
    }
    Ok(())
}
