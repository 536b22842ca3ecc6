//! The other end of the wire: appends, and a tail that reconnects and resumes by itself.
//!
//! Shares only `event`-free L0 with the server (`sse`, `wire`), so that a test through it checks the wire.

mod admin;
mod tail;

pub use tail::{Tail, TailItem};

use crate::wire::{GapData, ReceiptJson};
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::io;
use std::time::Duration;

/// Most of an answer that is not what was asked for.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// Something the client could not do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer. An append may or may not be stored, unless `is_unsent`.
    #[error("no answer from {url}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// The connection was never made, so nothing was asked.
        is_unsent: bool,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server has a certificate that is not trusted. Nothing was asked.
    #[error("{url} has a certificate that is not trusted")]
    Untrusted {
        /// What was to be asked.
        url: String,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// The server refused, and says why.
    #[error("{status} {code}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Problem code; empty if the answer was no problem.
        code: String,
        /// What to change.
        detail: String,
        /// The same request may succeed later.
        is_retryable: bool,
        /// It certainly changed nothing.
        had_no_effect: bool,
        /// Which part of the body it is about, if it is about one: the JSON pointer of the first error.
        pointer: Option<String>,
    },
    /// The answer is not what the contract says.
    #[error("{url} did not answer as an Evertail server: {what}")]
    NotEvertail {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },
}

impl ClientError {
    /// Whether trying again is of use, and certainly does not append twice.
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::Unreachable { is_unsent, .. } => *is_unsent,
            Self::Refused { is_retryable, had_no_effect, .. } => *is_retryable && *had_no_effect,
            Self::Untrusted { .. } | Self::NotEvertail { .. } => false,
        }
    }
}

/// There are no certificates to trust a server by.
#[derive(Debug, thiserror::Error)]
#[error("no server can be trusted over https")]
pub struct TrustError(#[source] reqwest::Error);

/// A client of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    /// Shown with every request; its Debug does not show it.
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the server at this http URL, such as `http://127.0.0.1:8888`.
    pub fn new(base: &str) -> Self {
        let built = Self::of(base, |builder| builder.tls_certs_only([]));
        built.expect("a client that trusts no certificate needs nothing of the system")
    }

    /// A client of the server at this https URL, whose certificate must be of one of these authorities (PEM), else of one
    /// that the system trusts.
    ///
    /// *Errors*: no certificate can be read.
    pub fn over_tls(base: &str, authorities: Option<&[u8]>) -> Result<Self, TrustError> {
        let authorities = authorities.map(reqwest::Certificate::from_pem_bundle).transpose();
        let authorities = authorities.map_err(TrustError)?;
        Self::of(base, |builder| match authorities {
            Some(authorities) => builder.tls_certs_only(authorities),
            None => builder,
        })
    }

    fn of(
        base: &str,
        trust: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<Self, TrustError> {
        // For the process, once. Whoever was first has taken one that does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = trust(reqwest::Client::builder())
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("evertail/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(TrustError)?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), http, authorization: None })
    }

    /// Shows this token with every request; `None` if it holds what no token can.
    pub fn with_token(mut self, token: &str) -> Option<Self> {
        let mut value =
            HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| !token.is_empty())?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Some(self)
    }

    fn request(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, url);
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        }
    }

    /// The URL of a stream, or of the whole log.
    pub fn url(&self, stream: Option<&str>) -> String {
        format!("{}{}", self.base, path(stream))
    }

    /// Appends a body of this content type, and returns the receipts.
    ///
    /// *Errors*: see [`ClientError::is_safe_to_retry`]. *Cancel safety*: the server commits all the same.
    pub async fn append(
        &self,
        stream: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Vec<ReceiptJson>, ClientError> {
        let url = self.url(Some(stream));
        let sent =
            self.request(Method::POST, &url).header("content-type", content_type).body(body).send().await;
        let response = sent.map_err(|source| unreachable(&url, source))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let bytes = response.bytes().await.map_err(|source| unreachable(&url, source))?;
        let parsed = if bytes.starts_with(b"[") {
            serde_json::from_slice(&bytes)
        } else {
            serde_json::from_slice(&bytes).map(|receipt| vec![receipt])
        };
        parsed.map_err(|error| ClientError::NotEvertail { url, what: error.to_string() })
    }

    /// Ends a stream, with the body of that route, and returns the receipt of its final event.
    ///
    /// *Errors*: see [`ClientError::is_safe_to_retry`]; closing it again is no error. *Cancel safety*: the server commits
    /// all the same.
    pub async fn close(&self, stream: &str, body: Vec<u8>) -> Result<ReceiptJson, ClientError> {
        let path = format!("{}/close", path(Some(stream)));
        let text = self.ask(Method::POST, &path, Some(body)).await?;
        serde_json::from_str(&text).map_err(|error| ClientError::NotEvertail {
            url: format!("{}{path}", self.base),
            what: error.to_string(),
        })
    }

    /// Asks for history in the representation that `accept` names. `query` has the parameters, without a `?`.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: safe.
    pub async fn history(
        &self,
        stream: Option<&str>,
        query: &str,
        accept: &str,
    ) -> Result<History, ClientError> {
        let separator = if query.is_empty() { "" } else { "?" };
        let url = format!("{}{separator}{query}", self.url(stream));
        let sent = self.request(Method::GET, &url).header("accept", accept).send().await;
        let response = sent.map_err(|source| unreachable(&url, source))?;
        if response.status().is_success() {
            Ok(History { url, response })
        } else {
            Err(refused(response).await)
        }
    }

    /// Tails a stream, or the whole log. `query` has the parameters of the route, without a `?`; they say where to
    /// begin, and after that the tail's own cursor does.
    pub fn tail(&self, stream: Option<&str>, query: &str) -> Tail {
        let separator = if query.is_empty() { "" } else { "?" };
        Tail::new(self.clone(), format!("{}{separator}{query}", self.url(stream)))
    }

    /// Asks on a path, with a body of JSON if there is one, and returns the text of an answer that is what was asked for.
    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<String, ClientError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.request(method, &url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|source| unreachable(&url, source))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        response.text().await.map_err(|source| unreachable(&url, source))
    }
}

/// History as it comes.
#[derive(Debug)]
pub struct History {
    url: String,
    response: reqwest::Response,
}

impl History {
    /// What single streams have lost of it before it was asked for.
    ///
    /// *Errors*: the server says it in another shape.
    pub fn gaps(&self) -> Result<Vec<GapData>, ClientError> {
        let Some(value) = self.response.headers().get("evertail-gaps") else { return Ok(Vec::new()) };
        serde_json::from_slice(value.as_bytes())
            .map_err(|error| ClientError::NotEvertail { url: self.url.clone(), what: error.to_string() })
    }

    /// The next bytes; `None` at the end, which is reached only when it is whole.
    ///
    /// *Errors*: the connection broke. *Cancel safety*: safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.response.chunk().await.map_err(|source| unreachable(&self.url, source))
    }

    /// All of it as JSON of this shape.
    ///
    /// *Errors*: the connection broke, or it is another shape.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let Self { url, response } = self;
        let body = response.bytes().await.map_err(|source| unreachable(&url, source))?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::NotEvertail { url, what: error.to_string() })
    }
}

/// The path of a stream, or of the whole log.
fn path(stream: Option<&str>) -> String {
    let name: String = form_urlencoded::byte_serialize(stream.unwrap_or("events").as_bytes()).collect();
    format!("/api/v1/{name}")
}

fn unreachable(url: &str, source: reqwest::Error) -> ClientError {
    let url = url.to_owned();
    match tls_error(&source) {
        Some(source @ rustls::Error::InvalidCertificate(_)) => ClientError::Untrusted { url, source },
        _ => ClientError::Unreachable { url, is_unsent: source.is_connect(), source: source.without_url() },
    }
}

/// What TLS says, if it was that which failed.
fn tls_error(error: &reqwest::Error) -> Option<rustls::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error.clone());
        }
        cause = match error.downcast_ref::<io::Error>() {
            // Its source is that of what it holds.
            Some(error) => error.get_ref().map(|held| held as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

async fn refused(mut response: reqwest::Response) -> ClientError {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > PROBLEM_BYTES_MAX {
            break;
        }
    }
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    ClientError::Refused {
        status,
        code: text("code"),
        detail: text("detail"),
        is_retryable: problem["retryable"].as_bool().unwrap_or(status >= 500),
        had_no_effect: problem["no_effect"].as_bool().unwrap_or(false),
        pointer: problem["errors"][0]["pointer"].as_str().map(str::to_owned),
    }
}
