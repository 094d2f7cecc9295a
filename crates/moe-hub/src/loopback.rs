//! A server on this machine, for tests: a model hub, a package index, any files.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// What a branch stands for once it has moved.
pub(super) const NEXT: &str = "89abcdef0123456789abcdef0123456789abcdef";

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

type Files = HashMap<String, Vec<u8>>;

#[derive(Clone, Default)]
pub(super) struct Server {
    files: Arc<Files>,
    /// What branches stand for after so many requests that name one.
    next: Option<(usize, Arc<Files>)>,
    named: Arc<AtomicUsize>,
    ignores_if_range: bool,
    tells_no_size: bool,
    /// ETag and commit that it says in place of the true ones.
    says: Option<(String, String)>,
    faults: Arc<Mutex<HashMap<String, VecDeque<Fault>>>>,
    /// Requests seen, as `GET /path`.
    seen: Arc<Mutex<Vec<String>>>,
    /// Bytes of each file that went out.
    sent: Arc<Mutex<HashMap<String, usize>>>,
}

impl Server {
    pub(super) fn with(files: &[(&str, &[u8])]) -> Self {
        Self {
            files: Arc::new(owned(files)),
            ..Self::default()
        }
    }

    /// Every branch moves on to these files after `count` requests that name one.
    pub(super) fn moves(self, count: usize, files: &[(&str, &[u8])]) -> Self {
        Self {
            next: Some((count, Arc::new(owned(files)))),
            ..self
        }
    }

    /// Sends the rest of a file whichever file was begun.
    pub(super) fn ignores_if_range(self) -> Self {
        Self {
            ignores_if_range: true,
            ..self
        }
    }

    /// Sends files without saying before how long they are.
    pub(super) fn tells_no_size(self) -> Self {
        Self {
            tells_no_size: true,
            ..self
        }
    }

    /// Calls every file, and the commit of every branch, by these names.
    pub(super) fn says(self, etag: &str, commit: &str) -> Self {
        Self {
            says: Some((etag.into(), commit.into())),
            ..self
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
        let header = |name: &str| {
            headers.iter().find_map(|line| {
                let line = line.to_ascii_lowercase();
                Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned())
            })
        };
        let (method, rest) = request.split_once(' ')?;
        let path = rest.split(' ').next()?.to_string();
        let (revision, key) = match path.split_once("/resolve/") {
            Some((_, rest)) => {
                let (revision, key) = rest.split_once('/').unwrap();
                (revision.to_owned(), key.to_owned())
            }
            None => (COMMIT.into(), path.clone()),
        };
        self.seen.lock().unwrap().push(format!("{method} {key}"));
        let moved = match (revision.as_str(), &self.next) {
            (NEXT, _) => true,
            (COMMIT, _) | (_, None) => false,
            (_, Some((count, _))) => self.named.fetch_add(1, Ordering::SeqCst) >= *count,
        };
        let (commit, files) = match &self.next {
            Some((_, files)) if moved => (NEXT, files),
            _ => (COMMIT, &self.files),
        };
        let Some(bytes) = files.get(&key) else {
            let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n";
            return stream
                .write_all(format!("{head}X-Repo-Commit: {commit}\r\n\r\n").as_bytes())
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
        let etag = format!("\"{}\"", hex::encode(Sha256::digest(bytes)));
        let (etag, commit) = self.says.clone().unwrap_or((etag, commit.into()));
        let all = bytes.len();
        let same = header("if-range").is_none_or(|tag| tag == etag);
        let from = header("range").filter(|_| same || self.ignores_if_range);
        let from: Option<usize> = from.and_then(|range| {
            let range = range.strip_prefix("bytes=")?.strip_suffix('-')?;
            range.parse().ok()
        });
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
        let size = match self.tells_no_size {
            true => String::new(),
            false => format!("Content-Length: {length}\r\n"),
        };
        let head =
            format!("HTTP/1.1 {status}\r\n{size}Content-Type: {kind}\r\nConnection: close\r\n");
        stream
            .write_all(format!("{head}ETag: {etag}\r\nX-Repo-Commit: {commit}\r\n\r\n").as_bytes())
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

fn owned(files: &[(&str, &[u8])]) -> Files {
    let files = files.iter();
    files
        .map(|(path, bytes)| (path.to_string(), bytes.to_vec()))
        .collect()
}
