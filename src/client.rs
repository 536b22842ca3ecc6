//! The other end of the wire: appends, and a tail that reconnects and resumes by itself.
//!
//! Shares only `event`-free L0 with the server (`sse`, `wire`), so that a test through it checks the wire.

use crate::sse::{self, Item, Parser};
use crate::wire::{GapData, ReceiptJson};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::io;
use std::time::Duration;

/// Largest event that the tail takes. *Units*: bytes. The server's largest is 16 MiB, before JSON escapes.
const EVENT_BYTES_MAX: usize = 64 << 20;
/// Three keep-alives of the default interval: a connection silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Until the server says otherwise.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);
/// Longest wait between attempts, while a server is down.
const RETRY_MAX: Duration = Duration::from_secs(30);
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
        let name: String = form_urlencoded::byte_serialize(stream.unwrap_or("events").as_bytes()).collect();
        format!("{}/api/v1/{name}", self.base)
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
        let url = format!("{}/close", self.url(Some(stream)));
        let sent = self
            .request(Method::POST, &url)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        let text = answer(&url, sent).await?;
        serde_json::from_str(&text).map_err(|error| ClientError::NotEvertail { url, what: error.to_string() })
    }

    /// Has the server trim, or say what it would trim: the body and the answer of that route. A trim may take minutes.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: the server trims all the same.
    pub async fn trim(&self, body: Vec<u8>) -> Result<String, ClientError> {
        let url = format!("{}/admin/trim", self.base);
        let sent = self
            .request(Method::POST, &url)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        answer(&url, sent).await
    }

    /// All holds, as that route lists them.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: safe.
    pub async fn holds(&self) -> Result<String, ClientError> {
        let url = format!("{}/admin/holds", self.base);
        answer(&url, self.request(Method::GET, &url).send().await).await
    }

    /// Holds a stream, and returns the hold.
    ///
    /// *Errors*: the server refuses, or does not answer; repeating it is no error. *Cancel safety*: the server commits all
    /// the same.
    pub async fn hold(&self, stream: &str, name: &str, body: Vec<u8>) -> Result<String, ClientError> {
        let url = self.hold_url(stream, name);
        let sent = self
            .request(Method::PUT, &url)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        answer(&url, sent).await
    }

    /// Releases a hold, and returns what it was.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: the server commits all the same.
    pub async fn release(&self, stream: &str, name: &str, body: Vec<u8>) -> Result<String, ClientError> {
        let url = self.hold_url(stream, name);
        let sent = self
            .request(Method::DELETE, &url)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        answer(&url, sent).await
    }

    /// All tokens, as that route lists them.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: safe.
    pub async fn tokens(&self) -> Result<String, ClientError> {
        let url = format!("{}/admin/tokens", self.base);
        answer(&url, self.request(Method::GET, &url).send().await).await
    }

    /// Has the server make a token, and returns it: the one time that it is shown.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: the server makes it all the same.
    pub async fn create_token(&self, body: Vec<u8>) -> Result<String, ClientError> {
        let url = format!("{}/admin/tokens", self.base);
        let request = self.request(Method::POST, &url).header("content-type", "application/json");
        answer(&url, request.body(body).send().await).await
    }

    /// Has the server revoke a token.
    ///
    /// *Errors*: the server refuses, or does not answer; repeating it is no error. *Cancel safety*: the server revokes it
    /// all the same.
    pub async fn revoke_token(&self, id: &str) -> Result<String, ClientError> {
        let url = format!("{}/admin/tokens/{}", self.base, utf8_percent_encode(id, NON_ALPHANUMERIC));
        answer(&url, self.request(Method::DELETE, &url).send().await).await
    }

    /// Where the metrics are.
    pub fn metrics_url(&self) -> String {
        format!("{}/metrics", self.base)
    }

    /// The metrics, as text for Prometheus.
    ///
    /// *Errors*: the server refuses, or does not answer. *Cancel safety*: safe.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let url = self.metrics_url();
        answer(&url, self.request(Method::GET, &url).send().await).await
    }

    fn hold_url(&self, stream: &str, name: &str) -> String {
        let part = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        format!("{}/admin/holds/{}/{}", self.base, part(stream), part(name))
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
        Tail {
            client: self.clone(),
            url: format!("{}{separator}{query}", self.url(stream)),
            cursor: String::new(),
            retry: RETRY_DEFAULT,
            failures: 0,
            open: None,
        }
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

/// What a tail yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailItem {
    /// An event, or a control frame, whose type begins with `evertail.`.
    Event(sse::Event),
    /// The connection is gone; the tail comes back after this time.
    Disconnected(Duration),
    /// The server says that nothing more will come (204): what was asked for has an end, and that was reached.
    End,
}

/// A stream that is followed across disconnects. Holds its cursor.
#[derive(Debug)]
pub struct Tail {
    client: Client,
    url: String,
    cursor: String,
    retry: Duration,
    failures: u32,
    open: Option<(reqwest::Response, Parser)>,
}

impl Tail {
    /// The id of the last event that was yielded, empty before the first.
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The next item. After [`TailItem::Disconnected`] the next call waits that long, then reconnects.
    ///
    /// *Errors*: the server refuses the request for good. *Cancel safety*: safe; no item is lost.
    pub async fn next(&mut self) -> Result<TailItem, ClientError> {
        loop {
            let Some((response, parser)) = &mut self.open else {
                if self.failures > 0 {
                    tokio::time::sleep(self.delay()).await;
                }
                match self.connect().await {
                    Ok(Some(response)) => self.open = Some((response, Parser::new(EVENT_BYTES_MAX))),
                    Ok(None) => return Ok(TailItem::End),
                    Err(error @ ClientError::Refused { is_retryable: false, status: ..500, .. }) => {
                        return Err(error);
                    }
                    Err(error @ (ClientError::NotEvertail { .. } | ClientError::Untrusted { .. })) => {
                        return Err(error);
                    }
                    Err(_) => return Ok(self.disconnected()),
                }
                continue;
            };
            match parser.next() {
                Some(Ok(Item::Event(event))) => {
                    self.failures = 0;
                    if !event.last_event_id.is_empty() {
                        self.cursor.clone_from(&event.last_event_id);
                    }
                    return Ok(TailItem::Event(event));
                }
                Some(Ok(Item::Retry(milliseconds))) => {
                    self.retry = Duration::from_millis(milliseconds).min(RETRY_MAX)
                }
                Some(Ok(Item::Comment)) => {}
                Some(Err(error)) => {
                    return Err(ClientError::NotEvertail { url: self.url.clone(), what: error.to_string() });
                }
                None => match tokio::time::timeout(SILENCE_MAX, response.chunk()).await {
                    Ok(Ok(Some(chunk))) => parser.push(&chunk),
                    _ => return Ok(self.disconnected()),
                },
            }
        }
    }

    /// The open stream; `None` if there is nothing more to come.
    async fn connect(&self) -> Result<Option<reqwest::Response>, ClientError> {
        let mut request = self.client.request(Method::GET, &self.url).header("accept", "text/event-stream");
        if !self.cursor.is_empty() {
            request = request.header("last-event-id", &self.cursor);
        }
        let response = request.send().await.map_err(|source| unreachable(&self.url, source))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        if response.status() == reqwest::StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        match content_type {
            Some(content_type) if content_type.starts_with("text/event-stream") => Ok(Some(response)),
            other => {
                let what = format!("its content type is {}", other.unwrap_or("missing"));
                Err(ClientError::NotEvertail { url: self.url.clone(), what })
            }
        }
    }

    fn disconnected(&mut self) -> TailItem {
        self.open = None;
        self.failures = self.failures.saturating_add(1);
        TailItem::Disconnected(self.delay())
    }

    /// The server's own hint first, which is jittered; doubled with every failure in a row.
    fn delay(&self) -> Duration {
        let doubled = self.retry.saturating_mul(1 << self.failures.saturating_sub(1).min(5));
        doubled.min(RETRY_MAX)
    }
}

/// The text of an answer that is what was asked for.
async fn answer(url: &str, sent: Result<reqwest::Response, reqwest::Error>) -> Result<String, ClientError> {
    let response = sent.map_err(|source| unreachable(url, source))?;
    if !response.status().is_success() {
        return Err(refused(response).await);
    }
    response.text().await.map_err(|source| unreachable(url, source))
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
