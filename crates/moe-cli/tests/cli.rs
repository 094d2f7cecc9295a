//! The command as users meet it: what it prints, where, and with which exit status.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use moe_core::config::ModelConfig;

/// A command that reaches no network and keeps its caches in `home`.
fn moe_cl(home: &Path) -> Command {
    let mut command = Command::cargo_bin("moe-cl").unwrap();
    command
        .current_dir(home)
        .env("MOE_CL_CACHE", home.join("cache"))
        .env("HF_HUB_CACHE", home.join("hub"));
    command
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("HF_ENDPOINT")
        .env_remove("RUST_LOG")
        .env("NO_PROXY", "127.0.0.1");
    command
        .env("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        .env("PIP_CONFIG_FILE", "/dev/null")
        .env("PIP_RETRIES", "0");
    command
        .env_remove("PIP_EXTRA_INDEX_URL")
        .env("PIP_FIND_LINKS", "");
    command
}

/// Exit status, standard output and standard error.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A folder with a model of a few thousand parameters.
fn tiny_model(folder: &Path) -> PathBuf {
    let config = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": true}"#;
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in ModelConfig::from_json(config, folder)
        .unwrap()
        .parameter_shapes()
    {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(
            name,
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + end, 0);
    fs::write(folder.join("model.safetensors"), file).unwrap();
    folder.to_path_buf()
}

#[test]
fn help_names_every_command_and_a_wrong_one_exits_with_2() {
    let home = tempfile::tempdir().unwrap();
    let (status, out, _) = run(moe_cl(home.path()).arg("--help"));
    assert_eq!(status, Some(0));
    for name in [
        "demo", "train", "learn", "tasks", "rollback", "eval", "generate", "report", "data",
        "inspect", "upcycle", "methods", "schema", "--device",
    ] {
        assert!(out.contains(name), "{name} in {out}");
    }
    let (status, _, err) = run(moe_cl(home.path()).arg("eval"));
    assert_eq!(status, Some(2));
    assert!(
        err.contains("<MODEL|--run <DIR>|--checkpoint <DIR>>"),
        "{err}"
    );
    let (status, _, err) = run(moe_cl(home.path()).arg("trian"));
    assert_eq!(status, Some(2));
    assert!(err.contains("'train'"), "{err}");
}

#[test]
fn the_schema_is_json_that_describes_the_experiment() {
    let home = tempfile::tempdir().unwrap();
    let (status, out, _) = run(moe_cl(home.path()).arg("schema"));
    assert_eq!(status, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(schema["properties"]["training"].is_object());
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_key() {
    let home = tempfile::tempdir().unwrap();
    let config = "name = \"x\"\n[training]\nlerning_rate = 1e-3\n[[tasks]]\nname = \"a\"\ntrain = \"a\"\ntest = \"a\"\n";
    fs::write(home.path().join("x.toml"), config).unwrap();
    let (status, out, err) = run(moe_cl(home.path()).args(["train", "--config", "x.toml"]));
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.starts_with("error: x.toml:3:1: "), "{err}");
    assert!(
        err.contains("lerning_rate") && err.contains("learning_rate"),
        "{err}"
    );
    assert!(
        !err.contains("backtrace") && !err.contains("panicked"),
        "{err}"
    );
}

#[test]
fn a_tiny_model_is_inspected() {
    let home = tempfile::tempdir().unwrap();
    let model = tiny_model(&home.path().join("model"));
    let (status, out, err) = run(moe_cl(home.path()).arg("inspect").arg(&model));
    assert_eq!(status, Some(0), "{err}");
    for line in [
        "architecture          llama",
        "layers                2",
        "d_model, d_ff         16, 24",
        "stored as F32",
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    let base = |dtype: &str| {
        let mut command = moe_cl(home.path());
        command
            .arg("inspect")
            .arg(&model)
            .args(["--base-dtype", dtype]);
        let (_, out, err) = run(&mut command);
        let name = format!("base ({dtype}), frozen");
        let line = out.lines().find_map(|line| line.strip_prefix(&name));
        let size: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        size.unwrap_or_else(|| panic!("{name} in {out}{err}"))
    };
    assert!((base("f32") / base("bf16") - 2.0).abs() < 0.05);
    let (status, _, err) = run(moe_cl(home.path()).args(["inspect", "no/such"]));
    assert_eq!(status, Some(1));
    assert!(
        err.contains("error: no such file or folder: no/such\n  hint: "),
        "{err}"
    );
}

#[test]
fn without_network_and_cache_there_are_three_ways_out() {
    let home = tempfile::tempdir().unwrap();
    let (status, out, err) = run(moe_cl(home.path()).arg("inspect"));
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert_eq!(err.matches("error: ").count(), 1, "one message: {err}");
    for text in [
        "three ways out",
        "1. a model on this machine: --base PATH",
        "2. the Hugging Face Hub",
        "3. a Python package index",
    ] {
        assert!(err.contains(text), "{text} in {err}");
    }
    assert!(
        err.contains(
            &home
                .path()
                .join("cache")
                .join("downloads")
                .display()
                .to_string()
        ),
        "{err}"
    );
}

#[test]
fn the_demo_without_network_and_cache_says_the_same() {
    let home = tempfile::tempdir().unwrap();
    let (status, _, err) = run(moe_cl(home.path()).arg("demo"));
    assert_eq!(status, Some(1));
    assert!(err.contains("three ways out"), "{err}");
}

/// Serves the files of `folder` as a model repository, as the Hub does, until the process ends; returns the address.
fn hub(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &folder);
        }
    });
    address
}

fn serve(mut stream: TcpStream, folder: &Path) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?)
        .lines()
        .map_while(Result::ok);
    let request = lines.next()?;
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let name = request.split(' ').nth(1)?.rsplit('/').next()?;
    let (status, body) =
        fs::read(folder.join(name)).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"{name}\"\r\nX-Repo-Commit: {commit}\r\n"
    );
    stream
        .write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())
        .ok()?;
    if request.starts_with("GET") {
        stream.write_all(&body).ok()
    } else {
        Some(())
    }
}

#[test]
fn a_model_comes_from_the_endpoint_and_into_the_cache_that_the_environment_names() {
    let home = tempfile::tempdir().unwrap();
    let address = hub(tiny_model(&home.path().join("model")));
    let inspect = |offline: &str| {
        let mut command = moe_cl(home.path());
        run(command
            .args(["inspect", "hf:tiny/model"])
            .env("HF_ENDPOINT", &address)
            .env("HF_HUB_OFFLINE", offline))
    };
    let (status, _, err) = inspect("1");
    assert_eq!(status, Some(1));
    assert!(
        err.contains("tiny/model is not in the Hub's cache"),
        "{err}"
    );
    let (status, out, err) = inspect("0");
    assert_eq!(status, Some(0), "{err}");
    assert!(out.contains("hf:tiny/model"), "{out}");
    assert!(
        home.path()
            .join("hub/models--tiny--model/snapshots")
            .is_dir()
    );
    assert_eq!(inspect("1").0, Some(0), "from the cache");
}

/// A manifest of one task whose texts are `texts.txt` of `source`.
fn manifest(folder: &Path, source: &str) {
    let split = |name: &str| format!("{name} = {{ file = \"own/t/{name}.jsonl\", rows = 2 }}\n");
    let text = format!(
        "suite = \"own\"\n[[tasks]]\nname = \"t\"\nsource = \"{source}\"\ncommit = \"c0ffee0\"\nfiles = [\"d/texts.txt\"]\n\
         read = {{ format = \"lines\" }}\nlicence = \"MIT\"\nlabels = [\"good\", \"bad\"]\n{}{}{}",
        split("train"),
        split("dev"),
        split("test")
    );
    fs::write(folder.join("own.toml"), text).unwrap();
}

#[test]
fn a_suite_comes_from_the_hubs_that_the_environment_names() {
    let home = tempfile::tempdir().unwrap();
    let files = home.path().join("files");
    fs::create_dir_all(&files).unwrap();
    let lines = (0..6).map(|i| format!("text {i}\t{}\n", ["good", "bad"][i % 2]));
    fs::write(files.join("texts.txt"), lines.collect::<String>()).unwrap();
    let address = hub(files);
    for (source, variable) in [
        ("https://github.com/tiny/texts", "MOE_CL_GITHUB"),
        ("hf:datasets/tiny/texts", "HF_ENDPOINT"),
    ] {
        manifest(home.path(), source);
        let out = home.path().join(variable);
        let mut command = moe_cl(home.path());
        command
            .args(["data", "fetch", "own.toml", "--out"])
            .arg(&out);
        let (status, said, err) = run(command.env(variable, &address));
        assert_eq!(status, Some(0), "{err}");
        assert!(said.contains("own/t: train 2, dev 2, test 2"), "{said}");
        assert!(
            said.contains("NOT the files that docs/RESULTS.md speaks of"),
            "{said}"
        );
        let made = out.join("own/t/train.jsonl");
        let (status, said, _) = run(moe_cl(home.path()).args(["data", "check"]).arg(made));
        assert_eq!(status, Some(0));
        assert!(said.contains("2 records, 0 refused"), "{said}");
    }
}

#[test]
fn a_suite_that_cannot_be_had_says_for_every_task_what_to_put_where() {
    let home = tempfile::tempdir().unwrap();
    let mut command = moe_cl(home.path());
    command.env("MOE_CL_GITHUB", "http://127.0.0.1:9");
    let (status, _, err) = run(command.args(["data", "fetch", "moderation"]));
    assert_eq!(status, Some(1));
    for task in [
        "youtube_spam",
        "twitter_offensive",
        "forum_hate",
        "social_toxicity",
    ] {
        assert!(err.contains(&format!("no source for {task}")), "{err}");
    }
    let place = home
        .path()
        .join("cache/downloads/github/Vicomtech/hate-speech-dataset");
    assert!(err.contains(&place.display().to_string()), "{err}");
    assert!(err.contains("MOE_CL_GITHUB"), "{err}");
    let (status, _, err) = run(moe_cl(home.path()).args(["data", "fetch", "mtl6"]));
    assert_eq!(status, Some(1));
    assert!(err.contains("known are mtl5, moderation"), "{err}");
}

#[test]
fn a_good_data_file_passes_and_a_bad_one_names_its_line() {
    let home = tempfile::tempdir().unwrap();
    let good =
        "{\"text\": \"fine\", \"label\": \"good\"}\n{\"text\": \"poor\", \"label\": \"bad\"}\n";
    fs::write(home.path().join("good.jsonl"), good).unwrap();
    fs::write(
        home.path().join("bad.jsonl"),
        format!("{good}{{\"text\": 3, \"label\": \"bad\"}}\n"),
    )
    .unwrap();
    let (status, out, err) = run(moe_cl(home.path()).args(["data", "check", "good.jsonl"]));
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert!(out.contains("good.jsonl: 2 records, 0 refused"), "{out}");
    let (status, out, err) = run(moe_cl(home.path()).args(["data", "check", "bad.jsonl"]));
    assert_eq!(status, Some(1));
    assert!(out.contains("bad.jsonl:3:"), "{out}");
    assert!(
        err.starts_with("error: 1 records are refused\n  hint: "),
        "{err}"
    );
}
