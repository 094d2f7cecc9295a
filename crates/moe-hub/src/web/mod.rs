//! Single files by their address, gone on with where a transfer broke off.

mod ask;
mod part;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use tokio::runtime::Runtime;

use self::part::Part;
use crate::error::{Result, SourceError, without_secrets};
use crate::file::make_parent;
use crate::progress::Progress;

/// What lets this build fetch what it cannot reach, for people.
pub(crate) const REMEDY: &str = "a network; a proxy can be named in HTTPS_PROXY, a mirror of GitHub in MOE_CL_GITHUB, of the Hugging Face Hub in HF_ENDPOINT";

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
    /// Follows no redirection to another host: what a hub says of a file stands in its own answer.
    asking: Client,
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
        let client = || {
            Client::builder()
                .user_agent(concat!("moe-cl/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(SILENCE)
                .read_timeout(SILENCE)
        };
        let asking = client().redirect(ask::within_a_host());
        Ok(Self {
            client: client().build().map_err(|error| unusable(&error))?,
            asking: asking.build().map_err(|error| unusable(&error))?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| unusable(&error))?,
        })
    }

    /// Fetches `address` to `path`, where the file appears when it is complete. What arrived before a break is kept beside it, as
    /// `path.part`, and only the rest is asked for, as long as the file there is the same (its `ETag`); else it begins anew.
    /// Processes that fetch the same file do not meet: the first one has `path.part`, others write files of their own.
    /// `token` is sent as the bearer of the request, to the host of `address` alone.
    ///
    /// # Errors
    /// When the address cannot be reached, has no such file or does not give it, or more than `at_most` bytes of it, or the transfer
    /// breaks off three times.
    pub fn fetch(
        &self,
        address: &str,
        token: Option<&str>,
        path: &Path,
        at_most: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        make_parent(path)?;
        let mut part = Part::of(path)?;
        match self.arrive((address, token), &mut part, at_most, progress) {
            Ok(()) => part.becomes(path),
            Err(error) => {
                part.leave();
                Err(error)
            }
        }
    }

    /// Fetches what is not there of a file.
    fn arrive(
        &self,
        (address, token): (&str, Option<&str>),
        part: &mut Part,
        at_most: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let mut broken = String::new();
        for attempt in 0..ATTEMPTS as u32 {
            if attempt > 0 {
                std::thread::sleep(PAUSE * attempt);
            }
            let transfer = self.transfer((address, token), part, at_most, progress);
            match self.runtime.block_on(transfer) {
                Ok(()) => return Ok(()),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing(why)) => broken = why,
            }
        }
        Err(SourceError::new(format!(
            "{address} did not arrive whole in {ATTEMPTS} attempts: {broken}"
        ))
        .with_hint("run the same command again: it goes on where the transfer broke off"))
    }

    async fn transfer(
        &self,
        (address, token): (&str, Option<&str>),
        part: &mut Part,
        at_most: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> std::result::Result<(), Fault> {
        let (mut done, tag) = part.kept().map_err(Fault::Final)?;
        let mut request = self.client.get(address);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(tag) = &tag {
            let range = format!("bytes={done}-");
            request = request.header(RANGE, range).header(IF_RANGE, tag);
        }
        let mut response = request
            .send()
            .await
            .map_err(|error| unreached(address, &error))?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // What lies here is no part of what lies there.
            part.begin(None).map_err(Fault::Final)?;
            return Err(Fault::Passing(response.status().to_string()));
        }
        refuse(address, &response)?;
        let there = response.headers().get(ETAG);
        let there = there.and_then(|tag| tag.to_str().ok()).map(String::from);
        if !goes_on_at(&response, done) {
            // The whole file: a server may have no ranges, or another file than the one that was begun.
            done = 0;
            part.begin(there.as_deref()).map_err(Fault::Final)?;
        } else if there.is_some() && there != tag {
            // A server that knows ranges but no `If-Range`.
            part.begin(None).map_err(Fault::Final)?;
            return Err(Fault::Passing("the file has changed meanwhile".into()));
        }
        let total = response
            .content_length()
            .map(|rest| done.saturating_add(rest));
        let too_large = |bytes: u64| {
            SourceError::new(format!(
                "{address} has {bytes} bytes or more, and at most {at_most} are taken"
            ))
        };
        if let Some(total) = total.filter(|total| *total > at_most) {
            return Err(Fault::Final(too_large(total)));
        }
        let what = without_secrets(address);
        let mut tell = |done| {
            progress(Progress {
                what: what.clone(),
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
            done += bytes.len() as u64;
            // Not every server says before how much will come.
            if done > at_most {
                part.begin(None).map_err(Fault::Final)?;
                return Err(Fault::Final(too_large(done)));
            }
            part.write(&bytes).map_err(Fault::Final)?;
            tell(done);
        }
        part.sync().map_err(Fault::Final)?;
        match total {
            Some(total) if total != done => Err(Fault::Passing(format!("{done} bytes of {total}"))),
            _ => Ok(()),
        }
    }
}

/// Whether the answer begins at byte `done` of what was begun.
fn goes_on_at(response: &Response, done: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE);
    let range = range.and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {done}-")))
}

fn refuse(address: &str, response: &Response) -> std::result::Result<(), Fault> {
    let status = response.status();
    let finally = |what: &str| Err(Fault::Final(SourceError::new(format!("{address} {what}"))));
    match status {
        status if status.is_success() => Ok(()),
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
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
