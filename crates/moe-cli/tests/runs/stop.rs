//! Signals: a run stops where it can go on, and says how.
#![cfg(unix)]

use std::{
    process::Child,
    time::{Duration, Instant},
};

use super::*;

/// Starts a run in `stopped` and sends it `signal` once it has taken a step beyond those in its log; what it said, and its exit status.
fn interrupted(folder: &Path, signal: &str) -> (String, i32) {
    let steps = || {
        let log = fs::read_to_string(folder.join("stopped/events.jsonl")).unwrap_or_default();
        log.matches("\"event\":\"step\"").count()
    };
    let before = steps();
    let run = long_run(folder, "stopped")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let patience = Instant::now();
    while steps() <= before {
        assert!(patience.elapsed() < Duration::from_secs(60), "no step");
        sleep(Duration::from_millis(2));
    }
    kill(&run, signal);
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (said, output.status.code().expect("an exit status"))
}

fn kill(run: &Child, signal: &str) {
    let id = run.id().to_string();
    let status = Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(status.success());
}

/// A run that takes some seconds and writes no checkpoint by itself in the middle of a task.
fn long_run(folder: &Path, out: &str) -> Command {
    let mut command = train(folder, out);
    command.args(["--set", "training.checkpoint_every=100000"]);
    command.args(["--set", "training.epochs=100"]);
    command
}

#[test]
fn a_first_signal_stops_a_run_after_its_step_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    assert!(long_run(folder, "whole").status().unwrap().success());

    for (signal, status) in [("-INT", 130), ("-TERM", 143)] {
        let (said, code) = interrupted(folder, signal);
        assert_eq!(code, status, "{said}");
        assert!(said.contains("stopped after step"), "{said}");
        let again = "moe-cl train --config killed.toml --base base --resume --out stopped";
        assert!(said.contains(again), "{said}");
        // The checkpoint is that of the last step in the log.
        let log = fs::read_to_string(folder.join("stopped/events.jsonl")).unwrap();
        let last = log
            .lines()
            .rev()
            .find(|it| it.contains("\"event\":\"step\""));
        let last: serde_json::Value = serde_json::from_str(last.unwrap()).unwrap();
        let name = format!("step-{:08}", last["step"].as_u64().unwrap());
        assert!(folder.join("stopped/checkpoints").join(name).is_dir());
    }
    assert!(long_run(folder, "stopped").status().unwrap().success());
    let base = Base::load(&folder.join("base"), &Device::flex()).unwrap();
    let [whole, stopped] = ["whole", "stopped"].map(|run| weights(&folder.join(run), &base));
    assert!(whole == stopped, "signals changed the weights");
}

#[test]
fn a_run_that_nobody_watches_any_more_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    // A file where TensorBoard's folder would be.
    fs::create_dir_all(folder.join("a")).unwrap();
    fs::write(folder.join("a/tensorboard"), "in the way").unwrap();
    let output = train(folder, "a").stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("goes on without it").count(), 1, "{said}");

    // A reader that goes away at once.
    let mut run = train(folder, "b").stderr(Stdio::piped()).spawn().unwrap();
    drop(run.stderr.take());
    run.wait().unwrap();
    assert!(folder.join("b/result.json").is_file());
}
