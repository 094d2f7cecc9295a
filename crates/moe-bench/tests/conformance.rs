//! The conformance program on fixtures made up here: what it prints and how it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path) -> (bool, String) {
    let output = output(folder);
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

fn output(folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conformance"))
        .arg(folder)
        .output()
        .expect("the program runs")
}

fn case(folder: &Path, name: &str, json: &str) {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).expect("a folder can be made");
    fs::write(folder.join("case.json"), json).expect("a file can be written");
}

/// A case of learning rates whose second one should be `second`; 0.75 is right.
fn rates(folder: &Path, second: f64) {
    case(
        folder,
        "train_utils/rates",
        r#"{"name": "train_utils/rates", "tolerance": {"values": "1e-9"}}"#,
    );
    let values =
        format!(r#"{{"linear_warmup0": {{"warmup": 0, "total": 4, "values": [1.0, {second}]}}}}"#);
    fs::write(folder.join("train_utils/rates/values.json"), values).expect("a file can be written");
}

#[test]
fn a_case_that_is_not_supported_is_skipped_by_name() {
    let folder = tempfile::tempdir().unwrap();
    rates(folder.path(), 0.75);
    case(folder.path(), "novel/other", r#"{"name": "novel/other"}"#);
    case(folder.path(), "novel/thing", r#"{"name": "novel/thing"}"#);
    case(folder.path(), "llama/odd", r#"{"name": "llama/odd"}"#);
    let (good, output) = run(folder.path());
    assert!(good, "{output}");
    for line in [
        "SKIP novel/other unknown group `novel`",
        "SKIP novel/thing unknown group `novel`",
        "SKIP llama/odd unknown kind of llama case",
    ] {
        assert!(output.contains(line), "{output}");
    }
    assert!(
        output.ends_with("1 passed, 0 failed, 3 skipped\n"),
        "{output}"
    );
    assert!(!output.contains("NOT RUN"), "{output}");
}

#[test]
fn where_every_case_is_skipped_nothing_was_run() {
    let folder = tempfile::tempdir().unwrap();
    case(folder.path(), "novel/thing", r#"{"name": "novel/thing"}"#);
    let output = output(folder.path());
    assert_eq!(output.status.code(), Some(3));
    let output = String::from_utf8_lossy(&output.stdout);
    assert!(output.contains("NOT RUN: all 1 cases"), "{output}");
    assert!(
        output.ends_with("0 passed, 0 failed, 1 skipped\n"),
        "{output}"
    );
}

#[test]
fn a_case_that_cannot_be_read_fails() {
    let folder = tempfile::tempdir().unwrap();
    case(folder.path(), "llama/broken", "{");
    case(
        folder.path(),
        "metrics/empty",
        r#"{"name": "metrics/empty"}"#,
    );
    let (good, output) = run(folder.path());
    assert!(!good);
    assert!(
        output.contains("FAIL llama/broken") && output.contains("FAIL metrics/empty"),
        "{output}"
    );
    assert!(
        output.ends_with("0 passed, 2 failed, 0 skipped\n"),
        "{output}"
    );
}

#[test]
fn a_folder_without_cases_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (good, output) = run(folder.path());
    assert!(!good && output.contains("holds no case.json"), "{output}");
}

#[test]
fn without_fixtures_nothing_was_run() {
    let folder = tempfile::tempdir().unwrap();
    let output = output(&folder.path().join("absent"));
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("NOT RUN: there is no folder"), "{said}");
}

#[test]
fn a_wrong_number_fails_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    rates(folder.path(), 0.75);
    let (good, output) = run(folder.path());
    assert!(
        good && output.contains("PASS train_utils/rates worst="),
        "{output}"
    );
    rates(folder.path(), 0.7);
    let (good, output) = run(folder.path());
    assert!(
        !good
            && output.contains("FAIL train_utils/rates tensor linear_warmup0[1] got 0.75 want 0.7"),
        "{output}"
    );
}

#[test]
fn a_file_that_must_be_refused_but_loads_fails() {
    let folder = tempfile::tempdir().unwrap();
    let json = |note: &str| {
        format!(
            r#"{{"name": "bad_jsonl", "notes": ["Known labels: a, b."], "files": {{"x.jsonl": "{note}"}}}}"#
        )
    };
    case(folder.path(), "bad_jsonl", &json("loads: 1 row"));
    fs::write(
        folder.path().join("bad_jsonl/x.jsonl"),
        "{\"text\": \"t\", \"label\": \"a\"}\n",
    )
    .unwrap();
    assert!(run(folder.path()).0);
    for note in ["line 1: broken", "loads: 2 rows"] {
        case(folder.path(), "bad_jsonl", &json(note));
        let (good, output) = run(folder.path());
        assert!(
            !good && output.contains("FAIL bad_jsonl file x.jsonl"),
            "{output}"
        );
    }
}
