//! Experiments that name a suite.

use super::*;

const MANIFEST: &str = r#"
suite = "s"
[[tasks]]
name = "t"
source = "https://github.com/o/r"
commit = "c0ffee0"
files = ["a.csv"]
labels = ["a", "b"]
licence = "MIT"
read = { format = "csv", text = "text", label = "label" }
train = { file = "s/t/train.jsonl", rows = 4 }
dev = { file = "s/t/dev.jsonl", rows = 2 }
test = { file = "s/t/test.jsonl", rows = 2 }
"#;

const EXPERIMENT: &str = r#"
name = "x"
[base]
source = "base"
[data]
suite = "own.toml"
[[tasks]]
name = "t"
train = "s/t/train.jsonl"
test = "s/t/test.jsonl"
"#;

/// A plan of the experiment.
fn plan(folder: &Path, more: &[&str]) -> (bool, String) {
    train(folder, &[&["--dry-run"], more].concat())
}

/// Trains it, by a program for which GitHub is a port that nobody listens at.
fn train(folder: &Path, more: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_moe-cl"))
        .current_dir(folder)
        .env("MOE_CL_CACHE", folder.join("cache"))
        .env("MOE_CL_GITHUB", "http://127.0.0.1:9")
        .args(["train", "--config", "x.toml"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.success(), error)
}

fn write_files(root: &Path) {
    let rows = "{\"text\": \"red\", \"label\": \"a\"}\n{\"text\": \"blue\", \"label\": \"b\"}\n";
    let task = root.join("s/t");
    fs::create_dir_all(&task).unwrap();
    for split in ["train", "test"] {
        fs::write(task.join(format!("{split}.jsonl")), rows).unwrap();
    }
}

#[test]
fn a_run_that_has_learnt_its_suite_needs_its_files_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    fs::write(folder.join("own.toml"), MANIFEST).unwrap();
    fs::write(folder.join("x.toml"), EXPERIMENT).unwrap();
    write_files(&folder.join("cache/data"));
    let small = ["--set", "adapters.rank=2", "--set", "training.epochs=1"];
    let (good, error) = train(folder, &small);
    assert!(good, "{error}");
    let result = fs::read(folder.join("runs/x/result.json")).unwrap();
    fs::remove_dir_all(folder.join("cache/data")).unwrap();
    let (good, error) = train(folder, &[&small[..], &["--resume"]].concat());
    assert!(good && error.contains("warning: "), "{error}");
    assert!(error.contains("data fetch own.toml"), "{error}");
    assert!(fs::read(folder.join("runs/x/result.json")).unwrap() == result);
}

#[test]
fn a_suite_is_read_where_it_was_fetched_to_and_what_is_missing_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    fs::write(folder.join("own.toml"), MANIFEST).unwrap();
    fs::write(folder.join("x.toml"), EXPERIMENT).unwrap();
    for root in ["cache/data", "elsewhere"] {
        write_files(&folder.join(root));
    }
    // A part that the experiment does not name (dev) may be missing.
    let (good, error) = plan(folder, &[]);
    assert!(good, "{error}");

    fs::remove_dir_all(folder.join("cache/data/s")).unwrap();
    let (good, error) = plan(folder, &[]);
    assert!(!good);
    for words in [
        "the files of the suite own.toml are not there",
        "cannot be reached",
        "data fetch own.toml",
        "--set data.root=DIR",
    ] {
        assert!(error.contains(words), "{error} lacks {words}");
    }
    let (good, error) = plan(folder, &["--set", "data.root=elsewhere"]);
    assert!(good, "{error}");
    let (good, error) = plan(folder, &["--set", "data.suite=nope"]);
    assert!(
        !good && error.contains("known are mtl5, moderation"),
        "{error}"
    );
}
