//! The conformance program on fixtures made up here: what it prints and how it ends.

use std::fs;
use std::path::Path;
use std::process::Command;

fn run(folder: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .arg(folder)
        .output()
        .expect("the program runs");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

fn case(folder: &Path, name: &str, json: &str) {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).expect("a folder can be made");
    fs::write(folder.join("case.json"), json).expect("a file can be written");
}

#[test]
fn a_case_that_is_not_supported_is_skipped_by_name() {
    let folder = tempfile::tempdir().unwrap();
    case(folder.path(), "peft/adapter", r#"{"name": "peft/adapter"}"#);
    case(folder.path(), "novel/thing", r#"{"name": "novel/thing"}"#);
    case(folder.path(), "llama/odd", r#"{"name": "llama/odd"}"#);
    let (good, output) = run(folder.path());
    assert!(good, "{output}");
    for line in [
        "SKIP peft/adapter comes with later work",
        "SKIP novel/thing unknown group `novel`",
        "SKIP llama/odd unknown kind of llama case",
    ] {
        assert!(output.contains(line), "{output}");
    }
    assert!(
        output.ends_with("0 passed, 0 failed, 3 skipped\n"),
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
    assert!(!run(&folder.path().join("absent")).0);
}

#[test]
fn a_wrong_number_fails_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    case(
        folder.path(),
        "train_utils/rates",
        r#"{"name": "train_utils/rates", "tolerance": {"values": "1e-9"}}"#,
    );
    let values = |second: f64| {
        format!(r#"{{"linear_warmup0": {{"warmup": 0, "total": 4, "values": [1.0, {second}]}}}}"#)
    };
    let file = folder.path().join("train_utils/rates/values.json");
    fs::write(&file, values(0.75)).unwrap();
    let (good, output) = run(folder.path());
    assert!(
        good && output.contains("PASS train_utils/rates worst="),
        "{output}"
    );
    fs::write(&file, values(0.7)).unwrap();
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
