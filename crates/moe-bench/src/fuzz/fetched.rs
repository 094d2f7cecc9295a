//! What is fetched as an input: archives, and a hub's answers.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use flate2::Compression;
use flate2::read::GzEncoder;
use moe_hub::{Cache, Hub};

use super::targets::written;

/// What a tarball holds, packed so that what changes is the tarball and not its packing.
pub(super) fn tar(input: &[u8], _: &Path) -> bool {
    let packed = GzEncoder::new(input, Compression::none());
    moe_hub::attacked::tarball(packed, 1 << 24, |_| true).is_ok()
}

pub(super) fn wheel(input: &[u8], folder: &Path) -> bool {
    let (Some(path), Ok(mut to)) = (
        written("a.whl", input, folder),
        fs::File::create(folder.join("out")),
    ) else {
        return false;
    };
    moe_hub::attacked::wheel(&path, "m/f", &mut to).is_ok()
}

/// What a model hub answers: the first to the first request, and so on; answers end with a line of three dashes.
pub(super) fn hub(input: &[u8], folder: &Path) -> bool {
    static PORT: OnceLock<Option<(u16, Arc<Mutex<Answers>>)>> = OnceLock::new();
    let Some((port, answers)) = PORT.get_or_init(|| serve().ok()) else {
        return false;
    };
    let parts = split(input, b"\n---\n");
    if let Ok(mut answers) = answers.lock() {
        *answers = Answers {
            all: parts,
            next: 0,
        };
    }
    let cache = folder.join("hub");
    fs::remove_dir_all(&cache).ok();
    let Ok(hub) = Hub::at(&format!("http://127.0.0.1:{port}"), &cache, false) else {
        return false;
    };
    let mut arrived = false;
    let fetched = hub.fetch("a/b", None, &Cache::at(folder.join("cache")), &mut |it| {
        arrived |= it.done > 0;
    });
    arrived || fetched.is_ok()
}

/// What the server on this machine says next.
struct Answers {
    all: Vec<Vec<u8>>,
    next: usize,
}

fn serve() -> std::io::Result<(u16, Arc<Mutex<Answers>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let answers = Arc::new(Mutex::new(Answers {
        all: Vec::new(),
        next: 0,
    }));
    let served = answers.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let Ok(mut answers) = served.lock() else {
                return;
            };
            let count = answers.all.len();
            if let Some(answer) = answers.all.get(answers.next.min(count.saturating_sub(1))) {
                let _ = (&stream).write_all(answer);
            }
            answers.next += 1;
        }
    });
    Ok((port, answers))
}

fn split(input: &[u8], between: &[u8]) -> Vec<Vec<u8>> {
    let (mut parts, mut rest) = (Vec::new(), input);
    while let Some(place) = rest.windows(between.len()).position(|it| it == between) {
        parts.push(rest[..place].to_vec());
        rest = &rest[place + between.len()..];
    }
    parts.push(rest.to_vec());
    parts
}
