//! The SSE body: the frames of the resume contract around a [`Reader`].
//!
//! A native EventSource ends for good on any answer but a 200 event stream. So once a request is well-formed, whatever
//! must be said is said inside a stream that then ends: the EventSource comes back by itself.

use super::query::{Payload, ReadQuery};
use super::{App, Closing, Problem};
use crate::event::Seq;
use crate::frames::Format;
use crate::log::{From, Gap, Log, Reader, Reset, Step};
use crate::sse::{Block, KEEP_ALIVE, put_block};
use crate::wire::{CursorData, GapData, NoticeData, ResetData, control};
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Opens a stream.
pub(super) async fn open(app: App, query: ReadQuery) -> Response {
    let format = match query.payload {
        Payload::Event => Format::Sse { as_message: query.as_message },
        Payload::Data => Format::SseData { as_message: query.as_message },
    };
    let from = query.from.unwrap_or(From::Now);
    let retry = random_between(app.settings.retry);
    let resume = match app.log.resume(from, query.log_id.as_deref(), &query.selection).await {
        Ok(resume) => resume,
        Err(error) => {
            Problem::read_failed(&error);
            let mut out = Vec::new();
            put_notice(&mut out, Closing::Unavailable, Some(retry));
            return respond(Body::from(out));
        }
    };
    let reader = app.log.reader(resume.cursor, query.reader_options(&app.settings, format));
    tracing::info!(cursor = resume.cursor, "stream opened");
    let stream = EventStream {
        log: app.log.clone(),
        reader,
        opening: Some(resume.reset),
        retry,
        told: resume.cursor,
        is_cursor_due: false,
        keep_alive: app.settings.keep_alive,
        silent_until: Instant::now() + app.settings.keep_alive,
        closing: app.closing.clone(),
        is_over: false,
        record: Record { reason: "disconnected", events: 0, bytes: 0 },
    };
    let chunks = futures_util::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, Infallible>(chunk), stream))
    });
    respond(Body::from_stream(chunks))
}

fn respond(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
    ];
    // nginx buffers a proxied answer unless told not to.
    let unbuffered = [("x-accel-buffering", "no")];
    (headers, unbuffered, body).into_response()
}

/// One open stream. Holds its reader and what the client has been told, and no events.
struct EventStream {
    log: Log,
    reader: Reader,
    /// The first chunk is still to be sent; with it, a reset if the cursor did not hold.
    opening: Option<Option<Reset>>,
    retry: Duration,
    /// The last id that the client was given: where it would resume.
    told: Seq,
    /// A gap was told: its end is to be handed out as a cursor as soon as no event does it.
    is_cursor_due: bool,
    keep_alive: Duration,
    /// When a sign of life is due. Moved on by every chunk.
    silent_until: Instant,
    closing: watch::Receiver<Option<Closing>>,
    is_over: bool,
    record: Record,
}

impl EventStream {
    /// The next chunk, whole frames only; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let chunk = match self.opening.take() {
            Some(reset) => self.open(reset),
            None => self.follow().await?,
        };
        self.silent_until = Instant::now() + self.keep_alive;
        self.record.bytes += chunk.len() as u64;
        Some(chunk)
    }

    /// The first chunk: `retry`, then a reset if there is one, then the reader's own cursor.
    fn open(&mut self, reset: Option<Reset>) -> Bytes {
        let mut out = Vec::with_capacity(256);
        let mut retry = Some(self.retry);
        if let Some(reset) = reset {
            let (cursor, reason) = match reset {
                Reset::Ahead { cursor } => (Some(cursor), "ahead"),
                Reset::Replaced { cursor } => (cursor, "replaced"),
            };
            let data = ResetData { cursor, last_seq: self.log.bounds().last_seq, reason: reason.into() };
            put_control(&mut out, control::RESET, &data, None, retry.take());
        }
        self.put_cursor(&mut out, retry);
        Bytes::from(out)
    }

    /// Waits for the next chunk; the end of the server comes before everything else.
    async fn follow(&mut self) -> Option<Bytes> {
        let mut closing = self.closing.clone();
        tokio::select! {
            biased;
            reason = closing.wait_for(Option::is_some) => Some(self.end(reason.ok().and_then(|reason| *reason).unwrap_or(Closing::Drain))),
            chunk = self.step() => chunk,
        }
    }

    async fn step(&mut self) -> Option<Bytes> {
        loop {
            match self.reader.next().await {
                Ok(Step::Page(page)) => {
                    self.record.events += page.events as u64;
                    if let Some(last_seq) = page.last_seq {
                        self.told = last_seq;
                        self.is_cursor_due = false;
                        return Some(page.bytes);
                    }
                    if Instant::now() >= self.silent_until {
                        return Some(self.sign_of_life());
                    }
                }
                Ok(Step::Gap(Gap { from, to })) => {
                    self.is_cursor_due = true;
                    let mut out = Vec::new();
                    let data = GapData { from, to, reason: "trimmed".into() };
                    put_control(&mut out, control::GAP, &data, None, None);
                    return Some(Bytes::from(out));
                }
                Ok(Step::CaughtUp) if self.is_cursor_due => return Some(self.sign_of_life()),
                Ok(Step::CaughtUp) => {
                    if tokio::time::timeout_at(self.silent_until, self.reader.wait()).await.is_err() {
                        return Some(self.sign_of_life());
                    }
                }
                Ok(Step::End) => {
                    self.record.reason = "limit reached";
                    return None;
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "reading for a stream failed");
                    return Some(self.end(Closing::Unavailable));
                }
            }
        }
    }

    /// The cursor if it has moved past what the client was given, so that a resume does not look at it again; else a
    /// comment.
    fn sign_of_life(&mut self) -> Bytes {
        self.is_cursor_due = false;
        if self.reader.cursor() == self.told {
            return Bytes::from_static(KEEP_ALIVE);
        }
        let mut out = Vec::new();
        self.put_cursor(&mut out, None);
        Bytes::from(out)
    }

    fn put_cursor(&mut self, out: &mut Vec<u8>, retry: Option<Duration>) {
        let bounds = self.log.bounds();
        let data = CursorData {
            first_seq: bounds.first_seq,
            last_seq: bounds.last_seq,
            log: self.log.id().to_owned(),
        };
        self.told = self.reader.cursor();
        put_control(out, control::CURSOR, &data, Some(self.told), retry);
    }

    /// The last chunk.
    fn end(&mut self, closing: Closing) -> Bytes {
        self.is_over = true;
        self.record.reason = closing.reason();
        let mut out = Vec::new();
        put_notice(&mut out, closing, None);
        Bytes::from(out)
    }
}

/// Says why the stream ends. Without an id, so that the client resumes exactly where it was.
fn put_notice(out: &mut Vec<u8>, closing: Closing, retry: Option<Duration>) {
    put_control(out, control::NOTICE, &NoticeData { reason: closing.reason().into() }, None, retry);
}

fn put_control(
    out: &mut Vec<u8>,
    event: &str,
    data: &impl Serialize,
    id: Option<Seq>,
    retry: Option<Duration>,
) {
    let data = serde_json::to_string(data).expect("control data always serialises");
    let retry_milliseconds = retry.map(|retry| u64::try_from(retry.as_millis()).unwrap_or(u64::MAX));
    put_block(out, &Block { retry_milliseconds, event: Some(event), data: &data, id });
}

/// A delay within bounds, so that a herd that lost its server does not come back as one.
fn random_between((min, max): (Duration, Duration)) -> Duration {
    if min >= max { min } else { rand::random_range(min..=max) }
}

/// What the log says of a stream when it is over, however it ended.
struct Record {
    reason: &'static str,
    events: u64,
    bytes: u64,
}

impl Drop for Record {
    fn drop(&mut self) {
        tracing::info!(reason = self.reason, events = self.events, bytes = self.bytes, "stream closed");
    }
}
