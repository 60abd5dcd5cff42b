//! One request on the wire, and what came back: at most so many bytes in at most so much time.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use url::Url;

use super::address::Base;
use super::body::Body;
use super::key::Key;
use super::retry;
use crate::error::{DiffusionError, Result};

/// A connection that is not made after this long will not be.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of an answer that is an error; the rest of it would tell no more.
const ERROR_BYTES: usize = 64 << 10;

/// An answer.
pub(super) struct Reply {
    pub status: StatusCode,
    pub content_type: String,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// The whole body of a success, the beginning of any other.
    pub bytes: Vec<u8>,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// No connection was made, so the server has seen nothing.
    Unreachable(String),
    /// The connection broke after the request was on its way.
    Broken(String),
    /// The whole time was used up.
    TimedOut,
    /// The answer has more bytes than are read.
    TooLarge,
}

/// The clients: one for the server itself, one without its key for links.
pub(super) struct Wire {
    api: Client,
    links: Client,
    key: Option<Key>,
    timeout: Duration,
    max_bytes: usize,
}

impl Wire {
    pub fn new(base: &Base, key: Option<Key>, timeout: Duration, max_bytes: usize) -> Result<Self> {
        let client = || {
            let client = Client::builder()
                .user_agent(concat!("evenset/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(CONNECT_TIMEOUT.min(timeout));
            if base.is_local() { client.no_proxy() } else { client }
        };
        let failed = |error| DiffusionError::HttpClient(chain(&error));
        let api = client().build().map_err(failed)?;
        let links = client().dns_resolver(base.clone()).build().map_err(failed)?;
        Ok(Self { api, links, key, timeout, max_bytes })
    }

    /// Sends a request to the server, with the key.
    pub async fn post(&self, url: &Url, body: &Body) -> Result<Reply, Failure> {
        let mut request = self.api.post(url.clone()).header(CONTENT_TYPE, &body.content_type);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.header());
        }
        self.exchange(request.body(Bytes::clone(&body.bytes))).await
    }

    /// Fetches a link, without the key.
    pub async fn get(&self, url: &Url) -> Result<Reply, Failure> {
        self.exchange(self.links.get(url.clone())).await
    }

    /// A server's text without the key.
    pub fn strike(&self, text: String) -> String {
        match &self.key {
            Some(key) => key.strike(text),
            None => text,
        }
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Reply, Failure> {
        let mut response = request.timeout(self.timeout).send().await.map_err(failure)?;
        let status = response.status();
        let header = |name: HeaderName| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (content_type, location) = (header(CONTENT_TYPE).unwrap_or_default(), header(LOCATION));
        let retry_after = header(RETRY_AFTER).and_then(|value| retry::after(&value, SystemTime::now()));
        let bytes = match status.is_success() {
            true => whole(&mut response, self.max_bytes).await?,
            false => beginning(&mut response).await,
        };
        Ok(Reply { status, content_type, retry_after, location, bytes })
    }
}

/// The body of a success, which must fit.
async fn whole(response: &mut Response, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    if response.content_length().is_some_and(|length| length > max_bytes as u64) {
        return Err(Failure::TooLarge);
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(Failure::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What can be had of an error's text. That it breaks off makes it no other error.
async fn beginning(response: &mut Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk[..chunk.len().min(ERROR_BYTES - bytes.len())]);
        if bytes.len() == ERROR_BYTES {
            break;
        }
    }
    bytes
}

fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    match () {
        () if error.is_connect() => Failure::Unreachable(chain(&error)),
        () if error.is_timeout() => Failure::TimedOut,
        () => Failure::Broken(chain(&error)),
    }
}

/// An error with its causes: the outermost says little.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
