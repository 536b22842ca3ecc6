//! A stream that is followed across disconnects.

use super::{Client, ClientError, refused, unreachable};
use crate::sse::{self, Item, Parser};
use reqwest::Method;
use std::time::Duration;

/// Largest event that the tail takes. *Units*: bytes. The server's largest is 16 MiB, before JSON escapes.
const EVENT_BYTES_MAX: usize = 64 << 20;
/// Three keep-alives of the default interval: a connection silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Until the server says otherwise.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);
/// Longest wait between attempts, while a server is down.
const RETRY_MAX: Duration = Duration::from_secs(30);

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
    pub(super) fn new(client: Client, url: String) -> Self {
        Self { client, url, cursor: String::new(), retry: RETRY_DEFAULT, failures: 0, open: None }
    }

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
