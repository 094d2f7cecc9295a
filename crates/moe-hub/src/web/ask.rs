//! Questions to a server whose answers are no files: a header, a short text.

use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response, StatusCode};

use super::{Fault, Web, refuse, root_cause, unreached};
use crate::error::{SourceError, Unanswered};

/// No answer that is kept in memory is longer.
const MAX_BYTES: usize = 64 << 20;

/// Redirections that are followed.
const REDIRECTS: usize = 5;

/// Follows a server within its host alone.
pub(super) fn within_a_host() -> Policy {
    Policy::custom(|attempt| {
        let same = attempt.previous().last().is_some_and(|last| {
            (last.host_str(), last.port()) == (attempt.url().host_str(), attempt.url().port())
        });
        match same && attempt.previous().len() <= REDIRECTS {
            true => attempt.follow(),
            false => attempt.stop(),
        }
    })
}

impl Web {
    /// What a server says of the file at `address`, without the file; none where it has no such file.
    ///
    /// # Errors
    /// When the server is not reached, or does not give it.
    pub(crate) fn head(
        &self,
        address: &str,
        token: Option<&str>,
    ) -> Result<Option<HeaderMap>, Unanswered> {
        let mut request = self.asking.head(address);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = self.answer(address, request)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !response.status().is_redirection() {
            refuse(address, &response).map_err(|fault| unanswered(address, fault))?;
        }
        Ok(Some(response.headers().clone()))
    }

    /// What the header `name` says of the file at `address`, without the file.
    ///
    /// # Errors
    /// When the server is not reached, or has no such file or does not give it.
    pub(crate) fn header(
        &self,
        address: &str,
        token: Option<&str>,
        name: &str,
    ) -> Result<Option<String>, Unanswered> {
        let head = self.head(address, token)?.ok_or_else(|| {
            Unanswered::Refused(SourceError::new(format!(
                "{address} is not there (any more)"
            )))
        })?;
        let value = head.get(name);
        Ok(value.and_then(|value| Some(value.to_str().ok()?.to_owned())))
    }

    /// The bytes at `address`.
    ///
    /// # Errors
    /// As [`Self::header`], and when they are too many.
    pub(crate) fn text(&self, address: &str) -> Result<Vec<u8>, Unanswered> {
        let mut response = self.answer(address, self.client.get(address))?;
        refuse(address, &response).map_err(|fault| unanswered(address, fault))?;
        let mut text = Vec::new();
        let read = async {
            while let Some(bytes) = response.chunk().await? {
                text.extend_from_slice(&bytes);
                if text.len() > MAX_BYTES {
                    break;
                }
            }
            Ok::<(), reqwest::Error>(())
        };
        let read = self.runtime.block_on(read);
        read.map_err(|error| unanswered(address, Fault::Passing(root_cause(&error))))?;
        match text.len() > MAX_BYTES {
            true => Err(Unanswered::Refused(SourceError::new(format!(
                "{address} has more than {MAX_BYTES} bytes"
            )))),
            false => Ok(text),
        }
    }

    fn answer(&self, address: &str, request: RequestBuilder) -> Result<Response, Unanswered> {
        // Within the runtime: a request that is sent asks for its clock.
        let response = self.runtime.block_on(async { request.send().await });
        response.map_err(|error| match unreached(address, &error) {
            Fault::Final(error) => Unanswered::Unreached(error),
            passing => unanswered(address, passing),
        })
    }
}

fn unanswered(address: &str, fault: Fault) -> Unanswered {
    match fault {
        Fault::Final(error) => Unanswered::Refused(error),
        Fault::Passing(why) => Unanswered::Unreached(SourceError::new(format!(
            "{address} does not answer: {why}"
        ))),
    }
}
