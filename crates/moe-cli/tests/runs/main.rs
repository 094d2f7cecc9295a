//! Whole runs through the binary on a base of a few thousand weights: every command of a run's life, and `kill -9` in the middle of it.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod adapters;
mod damage;
mod guide;
mod stop;
mod suite;
mod upcycle;
mod walk;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};
use moe_cl::{Base, training::Trained};
use moe_core::config::ModelConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const WORDS: [&str; 8] = [
    "<pad>", "<end>", "red", "blue", "sun", "rain", "the", "very",
];

/// A base of random weights with a tokenizer of eight words.
fn write_base(folder: &Path) {
    let config = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "eos_token_id": 1, "pad_token_id": 0, "hidden_act": "silu"}"#;
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
    let vocabulary: serde_json::Map<_, _> = WORDS
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), id.into()))
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "the"}
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();

    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, shape) in ModelConfig::from_json(config, folder)
        .unwrap()
        .parameter_shapes()
    {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            data.extend(rng.random_range(-0.4f32..0.4).to_le_bytes());
        }
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

fn write_experiment(folder: &Path) {
    let mut config = String::from(
        "name = \"killed\"\nseed = 3\n[data]\nroot = \".\"\n[adapters]\nrank = 2\ndropout = 0.1\n\
         [training]\nepochs = 20\nbatch_size = 2\nlearning_rate = 0.01\ncheckpoint_every = 3\n",
    );
    for (task, [one, other]) in [("colours", ["red", "blue"]), ("weather", ["sun", "rain"])] {
        let rows: String = (0..8)
            .map(|row| {
                let (word, label) = if row % 2 == 0 {
                    (one, "a")
                } else {
                    (other, "b")
                };
                let filler = ["the", "very", "the very", "very the"][row % 4];
                format!("{{\"text\": \"{filler} {word}\", \"label\": \"{label}\"}}\n")
            })
            .collect();
        fs::write(folder.join(format!("{task}.jsonl")), rows).unwrap();
        config += &format!(
            "[[tasks]]\nname = \"{task}\"\ntrain = \"{task}.jsonl\"\ntest = \"{task}.jsonl\"\n"
        );
    }
    fs::write(folder.join("killed.toml"), config).unwrap();
}

fn train(folder: &Path, out: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moe-cl"));
    command
        .current_dir(folder)
        .args([
            "train",
            "--config",
            "killed.toml",
            "--base",
            "base",
            "--resume",
            "--out",
            out,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The bits of every trained number.
fn weights(run: &Path, base: &Base) -> Vec<u32> {
    struct Bits(Vec<u32>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0
                .extend(param.val().into_data().iter::<f32>().map(f32::to_bits));
        }
    }
    let mut bits = Bits(Vec::new());
    Trained::open(run, base).unwrap().learner().visit(&mut bits);
    bits.0
}

#[test]
fn a_run_killed_at_any_moment_ends_with_the_weights_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    write_base(&folder.path().join("base"));
    write_experiment(folder.path());
    assert!(train(folder.path(), "whole").status().unwrap().success());

    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut killed = 0;
    for _ in 0..12 {
        let mut run = train(folder.path(), "broken").spawn().unwrap();
        sleep(Duration::from_millis(rng.random_range(20..400)));
        if run.try_wait().unwrap().is_none() {
            run.kill().unwrap();
            killed += 1;
        }
        run.wait().unwrap();
    }
    assert!(killed > 0, "every run was over before it could be killed");
    assert!(train(folder.path(), "broken").status().unwrap().success());

    let base = Base::load(&folder.path().join("base"), &Device::flex()).unwrap();
    let [whole, broken] = ["whole", "broken"].map(|run| weights(&folder.path().join(run), &base));
    assert!(whole == broken, "{killed} kills changed the weights");
}

/// Standard output of a command that has to succeed.
fn out_of(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_moe-cl"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_run_is_planned_trained_scored_prompted_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    let train = [
        "train",
        "--config",
        "killed.toml",
        "--base",
        "base",
        "--set",
        "training.epochs=1",
    ];

    let plan = out_of(folder, &[&train[..], &["--dry-run"]].concat());
    for said in ["colours", "weather", "steps", "memory", "time"] {
        assert!(plan.contains(said), "{said} in {plan}");
    }
    assert!(
        !folder.join("runs").exists(),
        "a plan leaves nothing behind"
    );

    out_of(folder, &[&train[..], &["--out", "runs/a"]].concat());
    out_of(
        folder,
        &[
            &train[..],
            &["--out", "runs/b", "--set", "method.name=sequential"],
        ]
        .concat(),
    );
    for file in ["config.toml", "events.jsonl", "result.json", "report.html"] {
        assert!(folder.join("runs/a").join(file).is_file(), "{file}");
    }
    assert!(
        fs::read_dir(folder.join("runs/a/tensorboard"))
            .unwrap()
            .next()
            .is_some()
    );

    let scores = out_of(folder, &["eval", "--run", "runs/a"]);
    assert!(
        scores.contains("colours") && scores.contains("weather"),
        "{scores}"
    );
    for said in ["task inferred", "sent to", "routing accuracy"] {
        assert!(scores.contains(said), "{said} in {scores}");
    }
    let one = out_of(folder, &["eval", "--run", "runs/a", "--task", "weather"]);
    assert!(one.contains("weather") && !one.contains("colours"), "{one}");
    let first = fs::read_dir(folder.join("runs/a/checkpoints"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    out_of(
        folder,
        &["eval", "--checkpoint", &first.display().to_string()],
    );
    let prompt = [
        "generate",
        "--run",
        "runs/a",
        "--task",
        "colours",
        "--prompt",
        "the red",
        "--raw",
        "--max-new",
        "4",
    ];
    assert_eq!(
        out_of(folder, &prompt),
        out_of(folder, &prompt),
        "greedy text is the same each time"
    );
    let auto = prompt.map(|word| if word == "colours" { "auto" } else { word });
    out_of(folder, &auto);
    out_of(
        folder,
        &["report", "runs/a", "runs/b", "--out", "both.html"],
    );
    let page = fs::read_to_string(folder.join("both.html")).unwrap();
    assert!(page.contains("sequential") && page.contains("moe_cl (improved)"));
}

#[test]
fn a_run_remembers_that_its_base_is_in_bf16() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    let train = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_moe-cl"))
            .current_dir(folder)
            .args(["train", "--config", "killed.toml", "--base", "base"])
            .args(["--set", "training.epochs=1"])
            .args(more)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), error)
    };
    let bf16 = ["--base-dtype", "bf16", "--out", "runs/a"];
    let (trained, error) = train(&bf16);
    assert!(trained, "{error}");
    let config = fs::read_to_string(folder.join("runs/a/config.toml")).unwrap();
    assert!(config.contains("dtype = \"bf16\""), "{config}");
    out_of(folder, &["eval", "--run", "runs/a"]);
    let prompt = ["--task", "colours", "--prompt", "the red", "--raw"];
    out_of(
        folder,
        &[
            &["generate", "--run", "runs/a", "--max-new", "2"][..],
            &prompt,
        ]
        .concat(),
    );

    let (resumed, error) = train(&["--resume", "--out", "runs/a"]);
    assert!(!resumed && error.contains("dtype"), "{error}");
    let (unknown, error) = train(&["--base-dtype", "f16"]);
    assert!(!unknown && error.contains("f32, bf16 or stored"), "{error}");
    let all = ["--set", "method={name='sequential',weights='all'}"];
    let (trained, error) =
        train(&[&all[..], &["--set", "base.dtype=bf16", "--out", "runs/b"]].concat());
    assert!(trained, "{error}");
}

#[test]
fn every_method_trains_reports_and_is_scored_again() {
    let folder = tempfile::tempdir().unwrap();
    write_base(&folder.path().join("base"));
    write_experiment(folder.path());
    let moe_cl = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moe-cl"));
        let output = command
            .current_dir(folder.path())
            .args(arguments)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = moe_cl(&["methods"]);
    let names: Vec<&str> = table
        .lines()
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() >= 12 && names.contains(&"o_lora"), "{table}");
    for name in names {
        let (method, base) = (format!("method={{name='{name}'}}"), ["--base", "base"]);
        let out = format!("runs/{name}");
        let short = ["--set", "training.epochs=2", "--set", &method];
        let train = ["train", "--config", "killed.toml", "--out", &out];
        moe_cl(&[&train[..], &short, &base, &["--dry-run"]].concat());
        let trained = moe_cl(&[&train[..], &short, &base].concat());
        assert!(trained.contains(name), "{trained}");
        assert!(folder.path().join(&out).join("report.html").is_file());
        let scored = moe_cl(&[&["eval", "--run", &out][..], &base].concat());
        assert!(scored.contains("mean of the 2 learnt"), "{scored}");
    }
}

/// `train --tui` on a terminal of its own, as `script` of util-linux gives one.
#[cfg(target_os = "linux")]
#[test]
fn the_dashboard_takes_a_terminal_and_gives_it_back() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("SKIP: there is no `script` to make a terminal with");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    write_base(&dir.path().join("base"));
    write_experiment(dir.path());
    let line = format!(
        "stty rows 40 cols 120; exec '{}' train --config killed.toml --base base --out watched --set training.epochs=2 --tui",
        env!("CARGO_BIN_EXE_moe-cl")
    );
    let output = Command::new("timeout")
        .args(["60", "script", "--quiet", "--return", "--command", &line])
        .arg("/dev/null")
        .current_dir(dir.path())
        .env("TERM", "xterm-256color")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}", output.status);
    let (_, shown) = said
        .split_once("\u{1b}[?1049h")
        .expect("the screen is taken");
    let (shown, after) = shown.split_once("\u{1b}[?1049l").expect("and given back");
    assert!(shown.contains("Loss"), "{shown}");
    assert!(
        after.contains("AvgAcc"),
        "the table comes after it: {after}"
    );
    assert!(dir.path().join("watched/result.json").is_file());
}
