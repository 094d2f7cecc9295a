//! The Hub, played by a server on this machine.

use super::*;
use crate::loopback::{COMMIT, Fault, Server};

fn model() -> Server {
    let index = br#"{"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}}"#;
    Server::with(&[
        ("config.json", b"{}"),
        ("tokenizer.json", b"{\"version\": \"1.0\"}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", &[1; 5000]),
        ("model-2.safetensors", &[2; 90_000]),
    ])
}

fn fetch(address: &str, dir: &Path, offline: bool) -> Result<PathBuf> {
    let hub = Hub::at(address, &dir.join("hub"), offline)?;
    hub.fetch(
        "tiny/model",
        None,
        &Cache::at(dir.join("cache")),
        &mut |_| (),
    )
}

#[test]
fn a_sharded_model_arrives_whole_and_stays_usable_offline() {
    let dir = tempfile::tempdir().unwrap();
    let server = model();
    let address = server.start();
    let mut reported = Vec::new();
    let hub = Hub::at(&address, &dir.path().join("hub"), false).unwrap();
    let cache = Cache::at(dir.path().join("cache"));
    let folder = hub
        .fetch("tiny/model", None, &cache, &mut |progress| {
            reported.push(progress)
        })
        .unwrap();
    assert_eq!(
        std::fs::read(folder.join("model-1.safetensors")).unwrap(),
        [1; 5000]
    );
    assert_eq!(
        std::fs::read(folder.join("model-2.safetensors")).unwrap(),
        [2; 90_000]
    );
    assert!(folder.join("tokenizer.json").is_file());
    assert!(!folder.join("generation_config.json").exists());
    let end = Progress {
        what: "tiny/model/model-2.safetensors".into(),
        done: 90_000,
        total: Some(90_000),
    };
    assert!(reported.contains(&end), "{reported:?}");

    assert_eq!(fetch(&address, dir.path(), false).unwrap(), folder);
    assert_eq!(
        server.gets("model-2.safetensors"),
        1,
        "what is cached is not fetched again"
    );
    assert_eq!(
        fetch("http://127.0.0.1:9", dir.path(), true).unwrap(),
        folder
    );
    assert_eq!(
        fetch("http://127.0.0.1:9", dir.path(), false).unwrap(),
        folder,
        "no network, but a cache"
    );
}

#[test]
fn a_broken_transfer_is_begun_again_and_never_leaves_half_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let shard = "model-2.safetensors";
    let server = model().fails(shard, &[Fault::CutAfter(40_000); 3]);
    let address = server.start();
    let error = fetch(&address, dir.path(), false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("model-2.safetensors of tiny/model did not arrive whole"),
        "{error}"
    );
    let folder = dir
        .path()
        .join("hub/models--tiny--model/snapshots")
        .join(COMMIT);
    assert!(
        !folder.join(shard).exists(),
        "no half-written file under its final name"
    );
    assert!(
        folder.join("model-1.safetensors").exists(),
        "what is complete is kept"
    );

    let folder = fetch(&address, dir.path(), false).unwrap();
    assert_eq!(std::fs::read(folder.join(shard)).unwrap(), [2; 90_000]);
    assert_eq!(server.gets("model-1.safetensors"), 1);
}

#[test]
fn wrong_bytes_and_error_pages_are_not_taken_for_weights() {
    let dir = tempfile::tempdir().unwrap();
    let server = model()
        .fails("model-1.safetensors", &[Fault::Garbage, Fault::Status500])
        .fails("config.json", &[Fault::Status500, Fault::CutAfter(1)]);
    let folder = fetch(&server.start(), dir.path(), false).unwrap();
    assert_eq!(
        std::fs::read(folder.join("model-1.safetensors")).unwrap(),
        [1; 5000]
    );
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), b"{}");
}

#[test]
fn a_missing_model_a_dead_network_and_an_empty_cache_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let error = fetch(&Server::default().start(), dir.path(), false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("tiny/model has no config.json at revision main"),
        "{error}"
    );
    let error = fetch("http://127.0.0.1:9", &dir.path().join("empty"), false).unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    assert!(error.hint().unwrap().contains("HF_ENDPOINT"));
    let error = fetch("http://127.0.0.1:9", &dir.path().join("empty"), true).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("tiny/model is not in the Hub's cache"),
        "{error}"
    );
}

#[test]
fn an_index_that_points_outside_the_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let index = br#"{"weight_map": {"a": "../../secret"}}"#;
    let server = Server::with(&[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
    ]);
    let error = fetch(&server.start(), dir.path(), false).unwrap_err();
    assert!(
        error.to_string().contains("a file outside the model"),
        "{error}"
    );
}
