//! A model's life as its owner sees it, through the binary alone.

use serde_json::Value;

use super::*;

/// Standard output, standard error and exit status of a command.
pub(super) fn moe_cl(folder: &Path, arguments: &[&str]) -> (String, String, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_moe-cl"))
        .current_dir(folder)
        .env("MOE_CL_CACHE", folder.join("cache"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code().expect("an exit status"),
    )
}

/// The same of one that has to succeed.
fn good(folder: &Path, arguments: &[&str]) -> String {
    let (out, error, status) = moe_cl(folder, arguments);
    assert_eq!(status, 0, "{arguments:?}: {out}{error}");
    out
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&good(folder, &[arguments, &["--json"]].concat())).unwrap()
}

/// A task whose texts say `words`, under labels that stand for them in this order.
fn write_task(folder: &Path, name: &str, words: [&str; 2], labels: [&str; 2]) {
    let rows: String = (0..16)
        .map(|row| {
            let filler = ["the", "very", "the very", "very the"][row % 4];
            let (word, label) = (words[row % 2], labels[row % 2]);
            format!("{{\"text\": \"{filler} {word}\", \"label\": \"{label}\"}}\n")
        })
        .collect();
    fs::write(folder.join(format!("{name}.jsonl")), rows).unwrap();
}

fn task(name: &str) -> String {
    format!(
        "[[tasks]]\nname = \"{name}\"\ntrain = \"{name}.jsonl\"\ndev = \"{name}.jsonl\"\ntest = \"{name}.jsonl\"\n"
    )
}

/// Score of a task with the task given.
fn score(tasks: &Value, name: &str) -> f64 {
    let rows = tasks.as_array().unwrap();
    let row = rows.iter().find(|row| row["task"] == name).unwrap();
    row["score_now"].as_f64().unwrap()
}

#[test]
fn a_model_lives() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_task(folder, "colours", ["red", "blue"], ["a", "b"]);
    write_task(folder, "weather", ["sun", "rain"], ["a", "b"]);
    write_task(folder, "turned", ["red", "blue"], ["b", "a"]);
    write_task(folder, "other", ["sun", "red"], ["c", "d"]);
    let config = format!(
        "name = \"life\"\nseed = 3\n[base]\nsource = \"base\"\n[data]\nroot = \".\"\n[adapters]\nrank = 2\n\
         [method]\nname = \"sequential\"\n[router]\nfeatures = 64\n[training]\nepochs = 30\nbatch_size = 4\n\
         learning_rate = 0.02\nschedule = \"constant\"\npooling = \"last\"\ncheckpoint_every = 5\n{}{}",
        task("colours"),
        task("weather")
    );
    fs::write(folder.join("life.toml"), config).unwrap();
    fs::write(folder.join("turned.toml"), task("turned")).unwrap();

    // Two tasks, killed in the middle, and on again.
    let train = ["train", "--config", "life.toml", "--out", "m"];
    let mut run = Command::new(env!("CARGO_BIN_EXE_moe-cl"))
        .current_dir(folder)
        .env("MOE_CL_CACHE", folder.join("cache"))
        .args(train)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let first_save = folder.join("m/checkpoints/step-00000005");
    while !first_save.exists() && run.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let (_, error, status) = moe_cl(folder, &train);
    assert!(status == 1 && error.contains("--resume"), "{error}");
    good(folder, &[&train[..], &["--resume"]].concat());
    good(
        folder,
        &["train", "--config", "life.toml", "--out", "whole"],
    );
    let substance = |run: &str| {
        let newest = fs::read_dir(folder.join(run).join("checkpoints")).unwrap();
        let newest = newest.map(|it| it.unwrap().path()).max().unwrap();
        let state = fs::read(newest.join("state.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        state["layout"].clone()
    };
    assert_eq!(
        substance("m"),
        substance("whole"),
        "the kill changed the weights"
    );

    // A third, from a file alone.
    let learn = ["learn", "m", "--data", "other.jsonl", "--name", "other"];
    let split = ["--dev", "other.jsonl", "--test", "other.jsonl"];
    good(folder, &[&learn[..], &split].concat());
    let said = good(folder, &[&learn[..], &split].concat());
    assert!(said.contains("learnt already"), "{said}");
    let before = json(folder, &["tasks", "m"]);
    assert_eq!(before.as_array().unwrap().len(), 3);

    // Back, which is asked for.
    let back = ["rollback", "m", "--to", "weather"];
    let (_, error, status) = moe_cl(folder, &back);
    assert!(
        status == 1 && error.contains("other") && error.contains("--yes"),
        "{error}"
    );
    good(folder, &[&back[..], &["--yes"]].concat());
    let two = json(folder, &["tasks", "m"]);
    assert_eq!(two.as_array().unwrap().len(), 2);

    // Again, under a guard that refuses and one that accepts.
    let turned = [
        "learn",
        "m",
        "--task",
        "turned.toml",
        "--set",
        "training.epochs=40",
    ];
    let (_, error, status) = moe_cl(folder, &[&turned[..], &["--guard", "0.05"]].concat());
    assert_eq!(status, 3, "{error}");
    assert!(error.contains("refused: turned would cost "), "{error}");
    assert_eq!(json(folder, &["tasks", "m"]), two, "the model is as it was");
    good(folder, &[&turned[..], &["--guard", "1"]].concat());
    let three = json(folder, &["tasks", "m"]);
    assert!(score(&three, "weather") < score(&two, "weather"));

    // The folder moves, and its data are gone; nothing but the base is needed.
    fs::rename(folder.join("m"), folder.join("moved")).unwrap();
    for name in ["colours", "weather", "turned", "other"] {
        fs::remove_file(folder.join(format!("{name}.jsonl"))).unwrap();
    }
    let scored = json(folder, &["eval", "moved"]);
    for task in scored["tasks"].as_array().unwrap() {
        let name = task["task"].as_str().unwrap();
        assert_eq!(task["score"].as_f64(), Some(score(&three, name)), "{name}");
    }
    assert_eq!(json(folder, &["tasks", "moved"]), three);
    let report = json(folder, &["report", "moved"]);
    assert_eq!(report[0]["tasks"].as_array().unwrap().len(), 3);
    let prompt = [
        "generate",
        "moved",
        "--prompt",
        "the red",
        "--raw",
        "--max-new",
        "2",
    ];
    good(folder, &prompt);

    // A base that moved is found by its fingerprint; another one is not taken for it.
    fs::rename(folder.join("base"), folder.join("elsewhere")).unwrap();
    let (_, error, status) = moe_cl(folder, &["eval", "moved"]);
    assert!(status == 1 && error.contains("--base"), "{error}");
    let there = json(folder, &["eval", "moved", "--base", "elsewhere"]);
    assert_eq!(there, scored);
    // From then on the cache knows where it is.
    assert_eq!(json(folder, &["eval", "moved"]), scored);
    let weights = folder.join("elsewhere/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let other = ["eval", "moved", "--base", "elsewhere"];
    let (_, error, status) = moe_cl(folder, &other);
    assert!(status == 1 && error.contains("fingerprint"), "{error}");
    good(folder, &[&other[..], &["--allow-other-base"]].concat());
}

#[cfg(unix)]
#[test]
fn readers_of_a_directory_write_nothing_into_it() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    let set = ["--set", "training.epochs=1", "--out", "m"];
    good(
        folder,
        &[
            &["train", "--config", "killed.toml", "--base", "base"][..],
            &set,
        ]
        .concat(),
    );
    let files = || -> Vec<(std::path::PathBuf, std::time::SystemTime)> {
        let mut found = Vec::new();
        let mut folders = vec![folder.join("m")];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                found.push((
                    path.clone(),
                    fs::metadata(&path).unwrap().modified().unwrap(),
                ));
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        found
    };
    let before = files();
    fs::set_permissions(folder.join("m"), fs::Permissions::from_mode(0o555)).unwrap();
    good(folder, &["eval", "m"]);
    good(folder, &["tasks", "m"]);
    good(folder, &["report", "m"]);
    good(
        folder,
        &[
            "generate",
            "m",
            "--prompt",
            "the red",
            "--raw",
            "--max-new",
            "2",
        ],
    );
    fs::set_permissions(folder.join("m"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(files(), before);
    assert!(folder.join("report.html").is_file());
}
