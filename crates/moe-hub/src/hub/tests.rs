//! The Hub, played by a server on this machine.

use super::*;
use crate::loopback::{COMMIT, Fault, NEXT, Server};

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
fn a_broken_transfer_is_gone_on_with_and_never_leaves_half_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let shard = "model-2.safetensors";
    let server = model().fails(shard, &[Fault::CutAfter(20_000); 3]);
    let address = server.start();
    let error = fetch(&address, dir.path(), false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("model-2.safetensors of tiny/model: "),
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
    assert_eq!(server.sent(shard), 90_000, "no byte came twice");
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

/// The files of a version of a model, each full of `byte`, of different lengths: the same bytes would be one content.
fn version(byte: u8) -> [(&'static str, Vec<u8>); 3] {
    let names = ["config.json", "tokenizer.json", "model.safetensors"];
    let mut length = 0;
    names.map(|name| {
        length += 1;
        (name, vec![byte; length])
    })
}

/// A server with these files.
fn serving(files: &[(&str, Vec<u8>)]) -> Server {
    Server::with(&borrowed(files))
}

fn borrowed<'a>(files: &'a [(&'a str, Vec<u8>)]) -> Vec<(&'a str, &'a [u8])> {
    let files = files.iter();
    files
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .collect()
}

/// What the files of a folder are full of.
fn bytes(folder: &Path) -> Vec<u8> {
    let names = ["config.json", "tokenizer.json", "model.safetensors"];
    names
        .map(|name| std::fs::read(folder.join(name)).unwrap())
        .concat()
}

#[test]
fn a_branch_that_moves_while_it_is_fetched_gives_one_version() {
    let dir = tempfile::tempdir().unwrap();
    // It moves right after it was asked for first: files of both versions have the same length.
    let server = serving(&version(b'1')).moves(1, &borrowed(&version(b'2')));
    let address = server.start();
    let folder = fetch(&address, dir.path(), false).unwrap();
    assert_eq!(bytes(&folder), b"111111");
    assert!(folder.ends_with(COMMIT));
    let refs = dir.path().join("hub/models--tiny--model/refs/main");
    assert_eq!(std::fs::read_to_string(&refs).unwrap(), COMMIT);
    // Offline it is what it was, and the next fetch asks again.
    assert_eq!(fetch(&address, dir.path(), true).unwrap(), folder);
    let folder = fetch(&address, dir.path(), false).unwrap();
    assert_eq!(bytes(&folder), b"222222");
    assert_eq!(std::fs::read_to_string(&refs).unwrap(), NEXT);
}

#[test]
fn a_version_that_came_by_half_does_not_take_the_place_of_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let old = serving(&version(b'1'));
    let folder = fetch(&old.start(), dir.path(), false).unwrap();
    let new = serving(&version(b'1'))
        .moves(0, &borrowed(&version(b'2')))
        .fails("model.safetensors", &[Fault::CutAfter(0); 3]);
    fetch(&new.start(), dir.path(), false).unwrap_err();
    assert_eq!(
        fetch("http://127.0.0.1:9", dir.path(), true).unwrap(),
        folder
    );
    assert_eq!(bytes(&folder), b"111111");
}

#[test]
fn an_endpoint_with_a_password_is_told_without_it() {
    let dir = tempfile::tempdir().unwrap();
    for address in [
        "http://me:hunter2@127.0.0.1:9",
        "http://me:hun/hunter2@127.0.0.1:9",
    ] {
        let error = match Hub::at(address, dir.path(), false) {
            Ok(_) => fetch(address, dir.path(), false).unwrap_err(),
            Err(error) => error,
        };
        let told = format!("{error} {} {error:?}", error.hint().unwrap_or_default());
        assert!(!told.contains("hunter2"), "{told}");
    }
}

/// Every file below a folder.
fn all(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = |path: PathBuf| match path.is_dir() {
        true => all(&path),
        false => vec![path],
    };
    entries.flat_map(|entry| below(entry.path())).collect()
}

#[test]
fn what_the_server_says_chooses_no_place_outside_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "mine").unwrap();
    let absolute = format!("\"{}\"", outside.display());
    let many = "a".repeat(1000);
    for (etag, commit) in [
        (absolute.as_str(), COMMIT),
        ("\"../../../outside\"", COMMIT),
        ("..", COMMIT),
        (many.as_str(), COMMIT),
        ("\"plain\"", "../../../outside"),
        ("\"plain\"", absolute.as_str()),
        ("\"plain\"", "main"),
        ("\"plain\"", ""),
    ] {
        let server = model().says(etag, commit);
        let error = fetch(&server.start(), dir.path(), false).unwrap_err();
        assert!(error.hint().unwrap().contains("HF_ENDPOINT"), "{error}");
        assert_eq!(
            all(dir.path()),
            std::slice::from_ref(&outside),
            "{etag} {commit}"
        );
    }
    assert_eq!(std::fs::read(&outside).unwrap(), b"mine");
}

#[test]
fn a_file_that_is_not_as_long_as_announced_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let server = model().tells_no_size();
    // Without a size, small files arrive, and what they are called by tells whether they are whole.
    let folder = fetch(&server.start(), dir.path(), false).unwrap();
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), b"{}");
}
