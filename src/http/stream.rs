//! The SSE body: the frames of the resume contract around a [`Reader`].
//!
//! A native EventSource ends for good on any answer but a 200 event stream. So once a request is well-formed, whatever
//! must be said is said inside a stream that then ends: the EventSource comes back by itself.

use super::accept::is_event_source;
use super::access;
use super::asked::Asked;
use super::limits::{Held, OVERLOADED};
use super::metrics::Metrics;
use super::query::{self, Payload, ReadQuery};
use super::service::{Answer, AnswerBody};
use super::transfer::Transfer;
use super::{App, Caller, Closing, Problem, ProblemCode};
use crate::auth::Refused;
use crate::event::{EventType, Pattern, Seq};
use crate::frames::Format;
use crate::log::{From, Gap, Log, Reader, ReaderOptions, Reset, Step};
use crate::metrics::Notice;
use crate::sse::{Block, KEEP_ALIVE, put_block};
use crate::wire::{CursorData, GapData, NoticeData, ResetData, control};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use serde::Serialize;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

/// The reason in the notice of a stream that has lasted long enough.
const AGE: &str = "age";

/// Opens a stream.
pub(super) async fn open(
    app: &App,
    query: ReadQuery,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Answer, Problem> {
    let client = caller.client.as_ref();
    let Some(place) = app.limits.stream(client) else {
        if is_event_source(headers) {
            return Ok(refuse(app, headers, OVERLOADED));
        }
        let detail = "close one of the client's streams first";
        let max = app.settings.limits.client_streams_max;
        return Err(Problem::new(ProblemCode::StreamsFull, detail).with("streams_max", max));
    };
    Ok(open_at(app, query, caller, came_with(headers), place).await)
}

/// A stream that says why there is none now, and when to come back.
pub(super) fn refuse(app: &App, headers: &HeaderMap, reason: &str) -> Answer {
    let mut out = Vec::new();
    count_notice(&app.metrics, reason);
    put_notice(&mut out, reason, came_with(headers), Some(random_between(app.settings.retry)));
    respond(AnswerBody::Whole(Body::from(out)))
}

async fn open_at(
    app: &App,
    query: ReadQuery,
    caller: &Caller,
    came_with: Option<Seq>,
    place: Held,
) -> Answer {
    let format = match query.payload {
        Payload::Event => Format::Sse { as_message: query.as_message },
        Payload::Data => Format::SseData { as_message: query.as_message },
        Payload::CloudEvent => Format::SseCloudEvents { as_message: query.as_message },
    };
    // The newest events that pass a filter may be anywhere in the log. Whoever wants those is answered first.
    let (from, newest) = match query.from.unwrap_or(From::Now) {
        From::Last(count) if !query.selection.filter.is_all() => (From::Now, Some(count)),
        from => (from, None),
    };
    let retry = random_between(app.settings.retry);
    let resume = match app.log.resume(from, query.log_id.as_deref(), &query.selection).await {
        Ok(resume) => resume,
        Err(error) => return unavailable(app, &error, came_with, retry),
    };
    let mut options = query.reader_options(&app.settings, format);
    let one_stream = query.selection.one_stream();
    let one_stream_name = one_stream.map(str::to_owned);
    // After the reader has its place: a stream that is closed from here on is seen to close.
    if let Some(stream) = one_stream {
        let closed_seq = match app.log.closed_seq(stream).await {
            Ok(closed_seq) => closed_seq,
            Err(error) => return unavailable(app, &error, came_with, retry),
        };
        options.through = options.through.into_iter().chain(closed_seq).min();
        // Whoever follows some events of the stream is told of its end like everyone else.
        options.selection.filter.with_ends = true;
        if !options.selection.types.is_empty() {
            options.selection.types.push(Pattern::Exact(EventType::CLOSED.to_owned()));
        }
    }
    let mut reader = query.reader(&app.log, resume.cursor, options.clone());
    reader.count();
    if !matches!(from, From::After(1..)) || resume.reset.is_some() {
        reader.begin_here();
    }
    let search: Option<Search> = match newest {
        // A reader of another log begins at the beginning.
        Some(count) if resume.reset.is_none() => {
            Some(Box::pin(look_back(app.log.clone(), query, count, resume.cursor, options, caller.clone())))
        }
        _ => None,
    };
    match reader.is_over().await {
        // The one answer after which an EventSource does not come back. A reset must be told before it, and where a
        // search begins, what it finds.
        Ok(true) if resume.reset.is_none() && search.is_none() => {
            let mut answer = Answer::default();
            *answer.status_mut() = StatusCode::NO_CONTENT;
            return answer;
        }
        Ok(_) => {}
        Err(error) => return unavailable(app, &error, came_with, retry),
    }
    let silent_until = Instant::now() + app.settings.keep_alive;
    if search.is_none() {
        opened(caller, one_stream_name.as_deref(), resume.cursor);
    }
    let stream = EventStream {
        log: app.log.clone(),
        metrics: app.metrics.clone(),
        frames: 0,
        reader,
        search,
        reset: resume.reset,
        retry,
        told: resume.cursor,
        is_cursor_due: false,
        is_one_stream: one_stream_name.is_some(),
        keep_alive: app.settings.keep_alive,
        silent_until,
        timer: Box::pin(sleep_until(silent_until)),
        closing: app.closing.clone(),
        ended: app.access.ended().map(|ended| Box::pin(ended) as Ended),
        is_over: false,
        aged_at: app
            .settings
            .limits
            .stream_age_max
            .map(|age| Instant::now() + random_between((age - age / 10, age))),
        _place: place,
        record: Record {
            client: caller.address,
            asked: caller.asked.clone(),
            reason: "disconnected",
            events: 0,
            bytes: 0,
        },
    };
    respond(AnswerBody::Stream(Box::new(stream)))
}

/// A search for the place of a reader that wants the newest events that pass a filter.
type Search = Pin<Box<dyn Future<Output = Result<Reader, Problem>> + Send>>;

/// The reader of the newest so many events up to `last` that are selected, and of what follows them.
async fn look_back(
    log: Log,
    query: ReadQuery,
    count: u64,
    last: Seq,
    options: ReaderOptions,
    caller: Caller,
) -> Result<Reader, Problem> {
    let cursor = log.before_last(count, &query.selection, last).await;
    // What came after the search began, and was trimmed before it ended, is told as a gap.
    let cursor = cursor.map_err(|error| caller.asked.line().in_scope(|| Problem::read_failed(&error)));
    let cursor = cursor?.min(last);
    opened(&caller, query.selection.one_stream(), cursor);
    let mut reader = query.reader(&log, cursor, options);
    reader.count();
    Ok(reader)
}

fn opened(caller: &Caller, stream: Option<&str>, cursor: Seq) {
    let client = caller.address;
    caller.asked.line().in_scope(|| tracing::info!(%client, stream, cursor, "stream opened"));
}

fn unavailable(
    app: &App,
    error: &(dyn std::error::Error + 'static),
    came_with: Option<Seq>,
    retry: Duration,
) -> Answer {
    Problem::read_failed(error);
    let mut out = Vec::new();
    count_notice(&app.metrics, Closing::Unavailable.reason());
    put_notice(&mut out, Closing::Unavailable.reason(), came_with, Some(retry));
    respond(AnswerBody::Whole(Body::from(out)))
}

/// The cursor that a client gives by itself when it comes back.
pub(super) fn came_with(headers: &HeaderMap) -> Option<Seq> {
    query::header_cursor(headers).ok().flatten()
}

fn respond(body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    let content_type = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // nginx buffers a proxied answer unless told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// One open stream. Holds its reader and what the client has been told, and no events.
pub(super) struct EventStream {
    log: Log,
    metrics: Arc<Metrics>,
    /// Frames of the chunk that is to be sent.
    frames: u64,
    reader: Reader,
    /// Finds the reader that takes the place of this one. Meanwhile the client is given comments and no cursor: if the
    /// connection breaks, it comes back as it came, and the search begins anew.
    search: Option<Search>,
    /// The cursor did not hold: told first.
    reset: Option<Reset>,
    retry: Duration,
    /// The last id that the client was given: where it would resume.
    told: Seq,
    /// A gap was told: its end is to be handed out as a cursor as soon as no event does it.
    is_cursor_due: bool,
    /// Everything that is wanted is of one stream, so its final event is the end.
    is_one_stream: bool,
    keep_alive: Duration,
    /// When a sign of life is due. Moved on by every chunk.
    silent_until: Instant,
    /// Rings at `silent_until` or before; put forward only when it has rung, so that a chunk does not touch it.
    timer: Pin<Box<Sleep>>,
    closing: watch::Receiver<Option<Closing>>,
    /// Comes to its end with the credential, if there is one that can end.
    ended: Option<Ended>,
    is_over: bool,
    /// When it has lasted long enough.
    aged_at: Option<Instant>,
    /// Of the streams that its client may have open.
    _place: Held,
    record: Record,
}

/// The end of a credential.
type Ended = Pin<Box<dyn Future<Output = Refused> + Send>>;

impl EventStream {
    /// Sends the stream to its end: the limit's, the client's or the server's.
    ///
    /// *Errors*: the connection broke.
    pub(super) async fn send(mut self: Box<Self>, mut transfer: Transfer) -> io::Result<()> {
        let mut closing = self.closing.clone();
        let mut closed = pin!(closing.wait_for(Option::is_some));
        let aged_at = self.aged_at;
        // In a box where there is an end: most streams have none.
        let mut aged: Pin<Box<dyn Future<Output = ()> + Send>> = match aged_at {
            Some(at) => Box::pin(sleep_until(at)),
            None => Box::pin(std::future::pending()),
        };
        let mut ended = self.ended.take();
        // Even a stream that ends at once says first when to come back.
        let opening = match self.search {
            None => self.open(),
            Some(_) => Bytes::from_static(KEEP_ALIVE),
        };
        self.record.bytes += opening.len() as u64;
        transfer.send(&opening).await?;
        self.count_sent(&opening);
        loop {
            // The end of the server comes before everything else.
            let chunk = tokio::select! {
                biased;
                closed = &mut closed => {
                    let closing = closed.ok().and_then(|closing| *closing).unwrap_or(Closing::Drain);
                    Some(self.end(closing.reason()))
                }
                () = &mut aged => Some(self.end(AGE)),
                refused = holds(&mut ended) => Some(self.end(access::reason(refused))),
                () = transfer.gone() => return Ok(()),
                chunk = self.next() => chunk,
            };
            let Some(chunk) = chunk else { break };
            // Reading first: SQLite's thread works while this one sends.
            let ((), sent) = tokio::join!(biased; self.reader.read_ahead(), transfer.send(&chunk));
            sent?;
            self.count_sent(&chunk);
            if self.is_over {
                break;
            }
        }
        transfer.end().await
    }

    /// All that is sent of a stream for which there is no place: why, and when to come back.
    pub(super) fn turn_away(mut self: Box<Self>, came_with: Option<Seq>) -> Vec<u8> {
        self.record.reason = OVERLOADED;
        let mut out = Vec::new();
        count_notice(&self.metrics, OVERLOADED);
        put_notice(&mut out, OVERLOADED, came_with, Some(self.retry));
        out
    }

    fn count_sent(&mut self, chunk: &Bytes) {
        self.metrics.sent_frames.add(std::mem::take(&mut self.frames));
        self.metrics.sent_bytes.add(chunk.len() as u64);
    }

    /// The next chunk, whole frames only; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let chunk = self.step().await?;
        self.silent_until = Instant::now() + self.keep_alive;
        self.record.bytes += chunk.len() as u64;
        Some(chunk)
    }

    /// The first blocks: `retry`, then a reset if there is one, then the reader's own cursor.
    fn open(&mut self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        let mut retry = Some(self.retry);
        if let Some(reset) = self.reset {
            let (cursor, reason) = match reset {
                Reset::Ahead { cursor } => (Some(cursor), "ahead"),
                Reset::Replaced { cursor } => (cursor, "replaced"),
            };
            let data = ResetData { cursor, last_seq: self.log.bounds().last_seq, reason: reason.into() };
            put_control(&mut out, control::RESET, &data, None, retry.take());
            self.metrics.resets.increment();
            self.frames += 1;
        }
        self.put_cursor(&mut out, retry);
        Bytes::from(out)
    }

    async fn step(&mut self) -> Option<Bytes> {
        if let Some(search) = &mut self.search {
            let found = tokio::select! {
                biased;
                found = search => found,
                () = silence(&mut self.timer, self.silent_until) => return Some(Bytes::from_static(KEEP_ALIVE)),
            };
            let Ok(reader) = found else { return Some(self.end(Closing::Unavailable.reason())) };
            self.search = None;
            self.reader = reader;
            return Some(self.open());
        }
        loop {
            match self.reader.next().await {
                Ok(Step::Page(page)) => {
                    self.record.events += page.events as u64;
                    self.frames += page.events as u64;
                    if let Some(last_seq) = page.last_seq {
                        self.told = last_seq;
                        self.is_cursor_due = false;
                        if page.is_end && self.is_one_stream {
                            self.is_over = true;
                            self.record.reason = "stream closed";
                        }
                        return Some(page.bytes);
                    }
                    if Instant::now() >= self.silent_until {
                        return Some(self.sign_of_life());
                    }
                }
                Ok(Step::Gap(Gap { from, to, streams })) => {
                    self.is_cursor_due = true;
                    let mut out = Vec::new();
                    let data = GapData { from, to, reason: "trimmed".into(), streams };
                    put_control(&mut out, control::GAP, &data, None, None);
                    self.metrics.gaps.increment();
                    self.frames += 1;
                    return Some(Bytes::from(out));
                }
                // Whoever came back without it would be told the gap again and again.
                Ok(Step::CaughtUp | Step::End) if self.is_cursor_due => return Some(self.sign_of_life()),
                Ok(Step::CaughtUp) => tokio::select! {
                    biased;
                    () = self.reader.wait() => {}
                    () = silence(&mut self.timer, self.silent_until) => return Some(self.sign_of_life()),
                },
                // Where nothing was wanted at the end: whoever comes back must come from there.
                Ok(Step::End) if self.reader.cursor() != self.told => return Some(self.sign_of_life()),
                Ok(Step::End) => {
                    self.record.reason = "end reached";
                    return None;
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    let line = self.record.asked.line();
                    line.in_scope(|| tracing::error!(error, "reading for a stream failed"));
                    return Some(self.end(Closing::Unavailable.reason()));
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
        self.frames += 1;
        put_control(out, control::CURSOR, &data, Some(self.told), retry);
    }

    /// The last chunk.
    fn end(&mut self, reason: &'static str) -> Bytes {
        self.is_over = true;
        self.record.reason = reason;
        self.frames += 1;
        count_notice(&self.metrics, reason);
        let mut out = Vec::new();
        // During a search nothing has yet said when to come back.
        put_notice(&mut out, reason, None, self.search.is_some().then_some(self.retry));
        Bytes::from(out)
    }
}

/// Waits for the end of a credential, for ever where there is none.
async fn holds(ended: &mut Option<Ended>) -> Refused {
    match ended {
        Some(ended) => ended.await,
        None => std::future::pending().await,
    }
}

/// Waits until this time.
async fn silence(timer: &mut Pin<Box<Sleep>>, until: Instant) {
    timer.as_mut().await;
    while Instant::now() < until {
        timer.as_mut().reset(until);
        timer.as_mut().await;
    }
}

fn count_notice(metrics: &Metrics, reason: &str) {
    let notice = Notice::of(reason);
    debug_assert!(notice.is_some(), "{reason} is no reason");
    notice.into_iter().for_each(|notice| metrics.notices.of(notice).increment());
}

/// Says why the stream ends. Without an id, the client resumes exactly where it was. But where it is the first block, it has
/// the cursor that the client came with: the crate eventsource-client forgets it at a first block without an id, and
/// requests-sse then takes over the id of an event whose frame was cut off behind it.
fn put_notice(out: &mut Vec<u8>, reason: &str, id: Option<Seq>, retry: Option<Duration>) {
    put_control(out, control::NOTICE, &NoticeData { reason: reason.into() }, id, retry);
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
    client: IpAddr,
    asked: Asked,
    reason: &'static str,
    events: u64,
    bytes: u64,
}

impl Drop for Record {
    fn drop(&mut self) {
        let Self { client, asked, reason, events, bytes } = self;
        asked.line().in_scope(|| tracing::info!(%client, reason, events, bytes, "stream closed"));
    }
}
