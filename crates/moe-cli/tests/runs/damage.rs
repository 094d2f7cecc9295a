//! What is damaged or in the way is said, and nothing is lost to it.

use std::path::PathBuf;

use super::walk::moe_cl;
use super::*;

/// Checkpoint directories, oldest first.
fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_command_says_which_checkpoint_it_passes_over_and_a_run_keeps_what_it_writes_after() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    assert!(train(folder, "whole").status().unwrap().success());
    assert!(train(folder, "run").status().unwrap().success());
    let run = folder.join("run");
    let newest = checkpoints(&run).pop().unwrap();
    let state = newest.join("state.json");
    let mut bytes = fs::read(&state).unwrap();
    // One bit would be mended.
    bytes[40] ^= 1;
    bytes[60] ^= 1;
    fs::write(&state, bytes).unwrap();

    fs::write(folder.join("texts.txt"), "red\n").unwrap();
    let base = ["--base", "base"];
    for arguments in [
        vec!["tasks", "run"],
        [&["eval", "run"], &base[..]].concat(),
        [
            &["classify", "run", "texts.txt", "--task", "auto"],
            &base[..],
        ]
        .concat(),
    ] {
        let (_, error, _) = moe_cl(folder, &arguments);
        let name = newest.file_name().unwrap().to_str().unwrap();
        assert!(
            error.contains("warning: ")
                && error.contains(name)
                && error.contains("the one before it is used"),
            "{arguments:?}: {error}"
        );
    }

    // What is learnt again is kept beside the damaged one, and is what it was.
    assert!(train(folder, "run").status().unwrap().success());
    let base = Base::load(&folder.join("base"), &Device::flex()).unwrap();
    assert!(weights(&run, &base) == weights(&folder.join("whole"), &base));
    let (_, error, status) = moe_cl(folder, &["tasks", "run"]);
    assert!(status == 0 && error.is_empty(), "{error}");
}

#[test]
fn what_a_killed_process_was_writing_is_gone_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    assert!(train(folder, "run").status().unwrap().success());
    let left = [
        "run/checkpoints/.step-00000099.x1",
        "run/checkpoints/.step-00000098.x2",
    ];
    for path in left {
        fs::create_dir(folder.join(path)).unwrap();
        fs::write(folder.join(path).join("state.json"), "{").unwrap();
    }
    fs::write(folder.join("run/.result.json.x3"), "{").unwrap();
    assert!(train(folder, "run").status().unwrap().success());
    assert!(!left.iter().any(|path| folder.join(path).exists()));
    assert!(!folder.join("run/.result.json.x3").exists());
}

#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_not_a_death() {
    let folder = tempfile::tempdir().unwrap();
    write_base(&folder.path().join("base"));
    write_experiment(folder.path());
    let program = env!("CARGO_BIN_EXE_moe-cl");
    let script =
        format!("ulimit -f 8; exec {program} train --config killed.toml --base base --out small");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("MOE_CL_CACHE", folder.path().join("cache"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("File too large"), "{error}");
}

#[test]
fn escapes_in_names_and_texts_reach_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let evil = "\u{1b}]0;title\u{7}\u{9b}2J";
    fs::write(folder.join(format!("{evil}.jsonl")), "{\"text\": 1}\n").unwrap();
    let row = serde_json::json!({"text": evil, "label": evil, evil: 1});
    fs::write(folder.join("rows.jsonl"), format!("{row}\n{row}\n")).unwrap();
    for file in [
        format!("{evil}.jsonl"),
        "rows.jsonl".into(),
        format!("no{evil}"),
    ] {
        let (out, error, _) = moe_cl(folder, &["data", "check", &file]);
        let obeyed = |c: char| c.is_control() && !"\n\t".contains(c);
        assert!(
            !out.chars().chain(error.chars()).any(obeyed),
            "{out:?} {error:?}"
        );
        assert!(
            out.contains("\\u001b") || error.contains("\\u001b"),
            "{out:?} {error:?}"
        );
    }
}

#[test]
fn a_flipped_bit_is_mended_by_whoever_writes_and_read_by_whoever_reads() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    assert!(train(folder, "run").status().unwrap().success());
    let run = folder.join("run");
    let newest = checkpoints(&run).pop().unwrap();
    let part = fs::read_dir(run.join("parts")).unwrap().next().unwrap();
    let damaged = [
        newest.join("state.json"),
        newest.join("state.seal"),
        run.join("config.toml"),
        run.join("result.json"),
        part.unwrap().path(),
    ];
    let whole = damaged.each_ref().map(|path| fs::read(path).unwrap());
    for (path, bytes) in damaged.iter().zip(&whole) {
        let mut bytes = bytes.clone();
        bytes[40] ^= 4;
        fs::write(path, bytes).unwrap();
    }
    let (_, error, status) = moe_cl(folder, &["eval", "run", "--base", "base"]);
    assert!(status == 0 && error.is_empty(), "{error}");
    assert!(train(folder, "run").status().unwrap().success());
    for (path, bytes) in damaged.iter().zip(&whole).take(4) {
        assert!(fs::read(path).unwrap() == *bytes, "{}", path.display());
    }
    // Damage to the log is said.
    let events = run.join("events.jsonl");
    let mut bytes = fs::read(&events).unwrap();
    bytes[40] ^= 4;
    fs::write(&events, bytes).unwrap();
    let (_, error, status) = moe_cl(folder, &["report", "run"]);
    assert!(status == 0 && error.contains("events.jsonl:1"), "{error}");
}
