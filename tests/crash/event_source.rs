//! An `EventSource` as browsers have it: reconnects with the last id it was given, and knows nothing else.
//!
//! Its parser takes the portable dialect and no more, so that anything beyond it is a fault.

use reqwest::header::{ACCEPT, CONTENT_TYPE};

/// One block of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `message` if the block has no name.
    pub(crate) event: String,
    pub(crate) data: String,
    pub(crate) id: Option<u64>,
    pub(crate) retry_milliseconds: Option<u64>,
}

impl Frame {
    /// A whole block with the keep-alives before it, without the blank line after it.
    fn parse(block: &str) -> Result<Self, String> {
        let mut frame = Self { event: "message".to_owned(), ..Self::default() };
        let mut data = Vec::new();
        for line in block.split('\n').skip_while(|line| *line == ":") {
            match line.split_once(": ") {
                _ if frame.id.is_some() => return Err(format!("a field after the id: {block:?}")),
                Some(("retry", milliseconds)) if frame.retry_milliseconds.is_none() => {
                    let parsed = milliseconds.parse().map_err(|_| format!("the retry: {block:?}"))?;
                    frame.retry_milliseconds = Some(parsed);
                }
                Some(("event", event)) if data.is_empty() => frame.event = event.to_owned(),
                Some(("data", line)) => data.push(line),
                Some(("id", id)) => frame.id = Some(id.parse().map_err(|_| format!("the id: {block:?}"))?),
                _ => return Err(format!("outside the dialect: {line:?} in {block:?}")),
            }
        }
        if block.contains(['\r', '\0']) || data.iter().all(|line| line.is_empty()) {
            return Err(format!("outside the dialect: {block:?}"));
        }
        frame.data = data.join("\n");
        Ok(frame)
    }

    /// Whether the server speaks, and not the log.
    pub(crate) fn is_control(&self) -> bool {
        self.event.starts_with("evertail.")
    }
}

/// What the page is given next.
#[derive(Debug)]
pub(crate) enum Heard {
    Frame(Frame),
    /// The connection is gone; the next call makes another.
    Gone {
        /// The server ended the stream itself, behind a whole frame.
        is_ended: bool,
    },
}

pub(crate) struct EventSource {
    http: reqwest::Client,
    url: String,
    cursor: Option<u64>,
    open: Option<Open>,
}

struct Open {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// The cursor it resumed from, until the first frame has repeated it.
    resumed: Option<u64>,
    is_new: bool,
}

impl EventSource {
    pub(crate) fn new(url: String) -> Self {
        Self::with_client(http_client(), url)
    }

    /// One of many that share a client, which costs more than a connection.
    pub(crate) fn with_client(http: reqwest::Client, url: String) -> Self {
        Self { http, url, cursor: None, open: None }
    }

    /// Drops the connection, as a laptop does that is shut.
    pub(crate) fn hang_up(&mut self) {
        self.open = None;
    }

    /// *Errors*: what the server must never do.
    pub(crate) async fn next(&mut self) -> Result<Heard, String> {
        let Some(open) = &mut self.open else {
            return match self.connect().await? {
                Some(open) => {
                    self.open = Some(open);
                    Box::pin(self.next()).await
                }
                None => Ok(Heard::Gone { is_ended: false }),
            };
        };
        loop {
            if let Some(end) = open.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = open.buffer.drain(..end + 2).collect();
                let block = std::str::from_utf8(&block[..end]).map_err(|error| error.to_string())?;
                let frame = Frame::parse(block)?;
                open.check(&frame)?;
                self.cursor = frame.id.or(self.cursor);
                return Ok(Heard::Frame(frame));
            }
            let chunk = open.response.chunk().await;
            if let Ok(Some(chunk)) = chunk {
                open.buffer.extend_from_slice(&chunk);
                continue;
            }
            let rest = self.open.take().map(|open| open.buffer).unwrap_or_default();
            let is_ended = chunk.is_ok();
            if is_ended && rest.iter().any(|byte| !b":\n".contains(byte)) {
                return Err(format!("ended within a frame: {:?}", String::from_utf8_lossy(&rest)));
            }
            return Ok(Heard::Gone { is_ended });
        }
    }

    async fn connect(&self) -> Result<Option<Open>, String> {
        let mut request = self.http.get(&self.url).header(ACCEPT, "text/event-stream");
        if let Some(cursor) = self.cursor {
            request = request.header("last-event-id", cursor);
        }
        let Ok(response) = request.send().await else { return Ok(None) };
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| value.as_bytes().to_owned());
        if response.status() != 200 || content_type.as_deref() != Some(b"text/event-stream; charset=utf-8") {
            return Err(format!("a native EventSource ends for good: {response:?}"));
        }
        Ok(Some(Open { response, buffer: Vec::new(), resumed: self.cursor, is_new: true }))
    }
}

impl Open {
    /// The first frame hands out the cursor, which is the reader's own; or says why there is nothing to read now.
    fn check(&mut self, frame: &Frame) -> Result<(), String> {
        if std::mem::take(&mut self.is_new) {
            let is_cursor = frame.event == "evertail.cursor" && frame.id.is_some();
            let is_own = self.resumed.is_none_or(|cursor| frame.id == Some(cursor));
            let is_notice = frame.event == "evertail.notice";
            if frame.event != "evertail.reset" && !is_notice && !(is_cursor && is_own) {
                return Err(format!("resumed from {:?} and was first given {frame:?}", self.resumed));
            }
        }
        if frame.is_control() && frame.event != "evertail.cursor" && frame.id.is_some() {
            return Err(format!("a control frame with an id: {frame:?}"));
        }
        Ok(())
    }
}

/// A client of plain HTTP, which is made with cryptography all the same. The certificates of the system would take it longer
/// to read than some servers here have to live.
pub(crate) fn http_client() -> reqwest::Client {
    http_builder().build().unwrap()
}

pub(crate) fn http_builder() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_certs_only([])
}
