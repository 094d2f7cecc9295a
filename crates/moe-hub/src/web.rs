//! Single files by their address, gone on with where a transfer broke off.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use tokio::runtime::Runtime;

use crate::error::{Result, SourceError};
use crate::file::make_parent;
use crate::part::Part;
use crate::progress::Progress;

/// How often a file is asked for whose transfer broke off.
const ATTEMPTS: usize = 3;
/// Pause before the second attempt; the third waits twice as long.
const PAUSE: Duration = Duration::from_millis(300);
/// A server that is silent for so long has gone away.
const SILENCE: Duration = Duration::from_secs(60);

/// An HTTP client. Proxies are as `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
#[derive(Debug)]
pub struct Web {
    client: Client,
    runtime: Runtime,
}

/// Why an attempt failed.
enum Fault {
    /// Trying again will not help.
    Final(SourceError),
    /// It may.
    Passing(String),
}

impl Web {
    /// A client that has not called anyone yet.
    ///
    /// # Errors
    /// When the system gives it no thread of events or no certificates.
    pub fn new() -> Result<Self> {
        let unusable = |error: &dyn std::fmt::Display| {
            SourceError::new(format!("there is no HTTP client here: {error}"))
        };
        let client = Client::builder()
            .user_agent(concat!("moe-cl/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE);
        Ok(Self {
            client: client.build().map_err(|error| unusable(&error))?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| unusable(&error))?,
        })
    }

    /// Fetches `address` to `path`, where the file appears when it is complete. What arrived before a break is kept beside it, as
    /// `path.part`, and only the rest is asked for, of the same version as far as the server tells versions apart (`ETag`). Of two processes
    /// that fetch the same file, each has a part of its own. `token` is sent as the bearer of the request.
    ///
    /// # Errors
    /// When the address cannot be reached, has no such file or does not give it, or the transfer breaks off three times.
    pub fn fetch(
        &self,
        address: &str,
        token: Option<&str>,
        path: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        make_parent(path)?;
        let unwritable = |error| SourceError::io("write", path, &error);
        let mut part = Part::claim(path).map_err(unwritable)?;
        let mut broken = String::new();
        for attempt in 0..ATTEMPTS as u32 {
            if attempt > 0 {
                std::thread::sleep(PAUSE * attempt);
            }
            let transfer = self.transfer(address, token, &mut part, progress);
            match self.runtime.block_on(transfer) {
                Ok(()) => {
                    return part
                        .finish(path)
                        .map_err(|error| SourceError::io("move a download to", path, &error));
                }
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing(why)) => broken = why,
            }
        }
        Err(SourceError::new(format!(
            "{address} did not arrive whole in {ATTEMPTS} attempts: {broken}"
        ))
        .with_hint("run the same command again: it goes on where the transfer broke off"))
    }

    /// The commit that the Hugging Face Hub gives `address` of, in which a branch or tag stands.
    ///
    /// # Errors
    /// When it cannot be reached, has no such file, or names no commit.
    pub fn commit_of(&self, address: &str, token: Option<&str>) -> Result<String> {
        // Where the file itself lies, to which the Hub redirects, nobody knows of commits.
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE);
        let client = client
            .build()
            .map_err(|error| SourceError::new(format!("there is no HTTP client here: {error}")))?;
        let mut request = client.head(address);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = self
            .runtime
            .block_on(async { request.send().await })
            .map_err(|error| {
                let cause = root_cause(&error);
                SourceError::new(format!("{address} cannot be reached: {cause}"))
                    .with_hint("is there a network? A proxy can be named in HTTPS_PROXY")
            })?;
        let commit = response.headers().get("x-repo-commit");
        let commit = commit.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let is_commit = commit.len() == 40 && commit.bytes().all(|it| it.is_ascii_hexdigit());
        match is_commit {
            true => Ok(commit.to_ascii_lowercase()),
            false => Err(SourceError::new(format!(
                "{address}: the server says {} and no commit; name the commit itself in the manifest",
                response.status()
            ))),
        }
    }

    async fn transfer(
        &self,
        address: &str,
        token: Option<&str>,
        part: &mut Part,
        progress: &mut dyn FnMut(Progress),
    ) -> std::result::Result<(), Fault> {
        let mut done = part.len();
        let mut request = self.client.get(address);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if done > 0 {
            request = request.header(RANGE, format!("bytes={done}-"));
            if let Some(etag) = part.etag() {
                request = request.header(IF_RANGE, etag);
            }
        }
        let mut response = request
            .send()
            .await
            .map_err(|error| unreached(address, &error))?;
        if !goes_on_at(&response, done) {
            done = 0;
        }
        refuse(address, &response, part)?;
        let total = response.content_length().map(|rest| done + rest);
        let place = part.path().to_path_buf();
        let disk = |error: std::io::Error| Fault::Final(SourceError::io("write", &place, &error));
        if done == 0 {
            part.begin(version(&response)).map_err(disk)?;
        }
        let mut tell = |done| {
            progress(Progress {
                what: address.into(),
                done,
                total,
            });
        };
        tell(done);
        while let Some(bytes) = response
            .chunk()
            .await
            .map_err(|error| Fault::Passing(root_cause(&error)))?
        {
            part.write(&bytes).map_err(disk)?;
            done += bytes.len() as u64;
            tell(done);
        }
        part.sync().map_err(disk)?;
        match total {
            Some(total) if total != done => Err(Fault::Passing(format!("{done} bytes of {total}"))),
            _ => Ok(()),
        }
    }
}

/// What the server says of the version that it sends, where that can be relied on byte by byte: what begins with `W/` cannot.
fn version(response: &Response) -> Option<&str> {
    let etag = response.headers().get(ETAG)?.to_str().ok()?;
    etag.starts_with('"').then_some(etag)
}

/// Whether the answer begins at byte `done`; a server may send the whole file instead.
fn goes_on_at(response: &Response, done: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE);
    let range = range.and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {done}-")))
}

fn refuse(address: &str, response: &Response, part: &mut Part) -> std::result::Result<(), Fault> {
    let status = response.status();
    let finally = |what: &str| Err(Fault::Final(SourceError::new(format!("{address} {what}"))));
    match status {
        status if status.is_success() => Ok(()),
        // What lies here is no part of what lies there.
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let _ = part.begin(None);
            Err(Fault::Passing(status.to_string()))
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => finally("is not there (any more)"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            finally(&format!("is not given to you: {status}"))
        }
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err(Fault::Passing(format!("the server says {status}")))
        }
        status => finally(&format!("cannot be fetched: the server says {status}")),
    }
}

fn unreached(address: &str, error: &reqwest::Error) -> Fault {
    let cause = root_cause(error);
    if error.is_connect() || error.is_builder() {
        Fault::Final(
            SourceError::new(format!("{address} cannot be reached: {cause}"))
                .with_hint("is there a network? A proxy can be named in HTTPS_PROXY"),
        )
    } else {
        Fault::Passing(cause)
    }
}

/// The innermost reason; the outer ones repeat the address.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::loopback::{Fault::*, Server};

    const PLACE: &str = "/owner/repo/raw/0123/data.csv";

    fn fetch(address: &str, path: &Path) -> Result<()> {
        Web::new()
            .unwrap()
            .fetch(&format!("{address}{PLACE}"), None, path, &mut |_| ())
    }

    #[test]
    fn a_broken_transfer_goes_on_where_it_broke_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/data.csv");
        let bytes: Vec<u8> = (0..90_000u32).map(|i| (i % 251) as u8).collect();
        let server = Server::with(&[(PLACE, &bytes)]).fails(PLACE, &[CutAfter(40_000); 3]);
        let address = server.start();
        // Three attempts, each with 40,000 bytes of what is left.
        fetch(&address, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(server.gets(PLACE), 3);
        assert_eq!(server.sent(PLACE), 90_000, "no byte came twice");
    }

    #[test]
    fn what_arrived_is_kept_for_the_next_run_and_never_taken_for_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.csv");
        let server = Server::with(&[(PLACE, &[7; 5000])]).fails(PLACE, &[CutAfter(1000); 3]);
        let address = server.start();
        let error = fetch(&address, &path).unwrap_err();
        assert!(
            error.to_string().contains("did not arrive whole"),
            "{error}"
        );
        assert!(!path.exists());
        fetch(&address, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [7; 5000]);
        assert_eq!(server.sent(PLACE), 5000);
    }

    #[test]
    fn what_is_of_another_version_is_not_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.csv");
        let old = Server::with(&[(PLACE, &[7; 5000])]).fails(PLACE, &[CutAfter(1000); 3]);
        fetch(&old.start(), &path).unwrap_err();
        let new = Server::with(&[(PLACE, &[8; 6000])]);
        fetch(&new.start(), &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [8; 6000]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_a_failing_server_and_a_dead_network_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.csv");
        let error = fetch(&Server::default().start(), &path).unwrap_err();
        assert!(
            error.to_string().ends_with("is not there (any more)"),
            "{error}"
        );
        let error = fetch("http://127.0.0.1:9", &path).unwrap_err();
        assert!(error.to_string().contains("cannot be reached"), "{error}");
        let server = Server::with(&[(PLACE, b"x")]).fails(PLACE, &[Status500, Status500]);
        fetch(&server.start(), &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
}
