//! History in one answer: everything from the cursor to the `last_seq` of the moment it began, as NDJSON, as CSV or as an
//! array of CloudEvents; and what of the log any request for history is about.
//!
//! What is gone behind a cursor is told before anything else: as 410 where all of what was asked for is, in the header
//! `Evertail-Gaps` where only single streams have lost events. Who comes without a cursor misses nothing that it ever
//! had, and is told nothing.

use super::access::Access;
use super::query::{self, Payload, ReadQuery};
use super::{App, Problem, ProblemCode, cloudevents, csv, streams};
use crate::event::{Selection, Seq, StreamName};
use crate::frames::Format;
use crate::log::{From, Gap, ReadError, Reader, ReaderOptions, Reset, Step};
use crate::wire::GapData;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use std::io;
use tracing::Span;

/// What single streams have lost of what was asked for: an array of [`GapData`].
pub(super) const GAPS: HeaderName = HeaderName::from_static("evertail-gaps");
/// Longest value of that header; beyond, its gaps say `*` for their streams. *Units*: bytes. Proxies refuse an answer whose
/// head does not fit into 4 KiB.
const GAPS_BYTES_MAX: usize = 2 << 10;

/// Everything from the cursor to the end of the log as it is now, in constant memory.
///
/// If it cannot be completed, or a part is trimmed under way, the connection breaks off rather than end as if it were
/// whole.
pub(super) async fn lines(app: &App, query: ReadQuery) -> Result<Response, Problem> {
    let Opened { pages, gaps } = open(app, &query, None).await?;
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-cache")];
    let mut response = (headers, Body::from_stream(pages)).into_response();
    tell_gaps(&mut response, gaps);
    Ok(response)
}

/// The same as CSV.
pub(super) async fn csv(app: &App, query: ReadQuery, has_header: bool) -> Result<Response, Problem> {
    if query.payload != Payload::Event {
        return Err(query::parameter(
            "format",
            "cannot be given for CSV; its columns are those of the table",
        ));
    }
    let Opened { pages, gaps } = open(app, &query, None).await?;
    let records = pages.and_then(|lines| std::future::ready(csv::records(&lines)));
    let header = futures_util::stream::iter(has_header.then(|| Ok(csv::header())));
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"events.csv\""),
    ];
    let mut response = (headers, Body::from_stream(header.chain(records))).into_response();
    tell_gaps(&mut response, gaps);
    Ok(response)
}

/// The same as one array of CloudEvents.
pub(super) async fn cloud_events(app: &App, query: ReadQuery) -> Result<Response, Problem> {
    let Opened { pages, gaps } = open(app, &query, Some(Format::CloudEventItems)).await?;
    let mut is_first = true;
    // Every item has a comma behind it: the last one of a page is put before the next page.
    let items = pages.map_ok(move |page| {
        let items = page.slice(..page.len() - 1);
        match std::mem::take(&mut is_first) {
            true => items,
            false => Bytes::from([b",", &*items].concat()),
        }
    });
    let bracket = |bracket: &'static [u8]| futures_util::stream::iter([Ok(Bytes::from_static(bracket))]);
    let body = Body::from_stream(bracket(b"[").chain(items).chain(bracket(b"]")));
    let headers = [(header::CONTENT_TYPE, cloudevents::BATCH), (header::CACHE_CONTROL, "no-cache")];
    let mut response = (headers, body).into_response();
    tell_gaps(&mut response, gaps);
    Ok(response)
}

/// History that is about to be sent.
struct Opened<S> {
    pages: S,
    /// What single streams have lost of it, for its head.
    gaps: Vec<GapData>,
}

/// Reads up to the first page, so that what is gone before it is told before it. Another `format` than that of the query
/// may be named.
async fn open(
    app: &App,
    query: &ReadQuery,
    format: Option<Format>,
) -> Result<Opened<impl Stream<Item = io::Result<Bytes>> + use<>>, Problem> {
    let range = Range::open(app, query).await?;
    let mut options = range.options(app, query);
    options.format = format.unwrap_or(options.format);
    let mut reader = range.reader(app, query, options);
    let mut gaps = Vec::new();
    let first = loop {
        match reader.next().await.map_err(read_failed)? {
            Step::Gap(gap) => gaps.extend(range.told(app, query, gap).await?.map(gap_data)),
            Step::Page(page) => break page.bytes,
            Step::CaughtUp | Step::End => break Bytes::new(),
        }
    };
    let first = futures_util::stream::iter(Some(first).filter(|first| !first.is_empty()).map(Ok));
    Ok(Opened { pages: first.chain(pages(reader, app.access.clone())), gaps })
}

/// The bytes of a reader's pages to its end, as long as the credential holds.
fn pages(reader: Reader, access: Access) -> impl Stream<Item = io::Result<Bytes>> {
    // hyper asks for them when the request is over.
    let span = Span::current();
    futures_util::stream::try_unfold((reader, access, span), |(mut reader, access, span)| async move {
        loop {
            access.check_still().map_err(io::Error::other)?;
            match reader.next().await {
                Ok(Step::Page(page)) if page.bytes.is_empty() => {}
                Ok(Step::Page(page)) => return Ok(Some((page.bytes, (reader, access, span)))),
                Ok(Step::CaughtUp | Step::End) => return Ok(None),
                Ok(Step::Gap(gap)) => {
                    return Err(io::Error::other(format!("seq {} to {} were trimmed", gap.from, gap.to)));
                }
                Err(error) => {
                    span.in_scope(|| Problem::read_failed(&error));
                    return Err(io::Error::other("the log could not be read"));
                }
            }
        }
    })
}

/// What of the log a history request is about: `cursor < seq <= through`.
pub(super) struct Range {
    pub(super) cursor: Seq,
    pub(super) through: Seq,
    /// Of the log, when the request came.
    pub(super) first_seq: Seq,
    pub(super) last_seq: Seq,
    /// It was asked for without a cursor, or backward: what is gone by now is nothing that it misses.
    is_anew: bool,
}

impl Range {
    /// *Errors*: 410 where the stream route would tell of a gap or a reset: history cannot say it in between.
    pub(super) async fn open(app: &App, query: &ReadQuery) -> Result<Self, Problem> {
        for (name, is_given) in [("format", query.payload == Payload::Data), ("event", query.as_message)] {
            if is_given {
                return Err(query::parameter(name, "is for event streams; leave it out for history"));
            }
        }
        let bounds = app.log.bounds();
        let mut through = bounds.last_seq;
        if let Some(before) = query.before {
            if before <= bounds.first_seq && bounds.first_seq > 1 {
                return Err(Problem::gone(bounds.first_seq));
            }
            through = through.min(before - 1);
        }
        if let Some(until) = query.until {
            let before = app.log.cursor_before(until).await.map_err(|error| Problem::read_failed(&error))?;
            through = through.min(before);
        }
        let selection: &Selection = &query.selection;
        let (from, last) = match query.from.unwrap_or(From::After(0)) {
            // In descending order `last` and `limit` would say the same.
            From::Last(_) if query.is_descending => {
                return Err(query::parameter("last", "is for ascending order; give limit for descending"));
            }
            From::Last(count) => (From::Now, Some(count)),
            from => (from, None),
        };
        let resume = app.log.resume(from, query.log_id.as_deref(), selection).await;
        let resume = resume.map_err(|error| Problem::read_failed(&error))?;
        match resume.reset {
            None => {}
            Some(Reset::Ahead { cursor }) => {
                let detail = format!("the cursor is {cursor}, the newest event seq {}", bounds.last_seq);
                return Err(Problem::new(ProblemCode::CursorAhead, detail).with("last_seq", bounds.last_seq));
            }
            Some(Reset::Replaced { .. }) => {
                let detail = format!("this log is {}; read it from the beginning", app.log.id());
                return Err(Problem::new(ProblemCode::LogReplaced, detail).with("log", app.log.id()));
            }
        }
        let cursor = match last {
            None => resume.cursor,
            Some(count) => {
                let cursor = app.log.before_last(count, selection, through).await;
                cursor.map_err(|error| Problem::read_failed(&error))?
            }
        };
        let first_seq = app.log.bounds().first_seq;
        if cursor + 1 < first_seq {
            return Err(Problem::gone(first_seq));
        }
        let is_anew = query.is_descending || !matches!(query.from, Some(From::After(1..)));
        Ok(Self { cursor, through, first_seq, last_seq: bounds.last_seq, is_anew })
    }

    /// A reader in ascending order.
    pub(super) fn reader(&self, app: &App, query: &ReadQuery, options: ReaderOptions) -> Reader {
        let mut reader = query.reader(&app.log, self.cursor, options);
        if self.is_anew {
            reader.begin_here();
        }
        reader
    }

    /// A gap before the first event that is sent: what is to be told of it beside the events, if anything.
    ///
    /// *Errors*: 410, if nothing but the gap would answer the cursor.
    pub(super) async fn told(&self, app: &App, query: &ReadQuery, gap: Gap) -> Result<Option<Gap>, Problem> {
        if self.is_anew {
            return Ok(None);
        }
        if gap.streams.is_empty() {
            return Err(Problem::gone(gap.to + 1));
        }
        let Some(stream) = query.selection.one_stream() else { return Ok(Some(gap)) };
        let totals = app.log.stream(&StreamName::stored(stream.into())).await;
        match totals {
            Ok(Some(totals)) => Err(Problem::gone_of_stream(stream, totals.first_seq)),
            Ok(None) => Err(Problem::gone(gap.to + 1)),
            Err(error) => Err(streams::problem(error)),
        }
    }

    pub(super) fn options(&self, app: &App, query: &ReadQuery) -> ReaderOptions {
        let format = match query.payload {
            Payload::CloudEvent => Format::CloudEventLines,
            Payload::Event | Payload::Data => Format::Lines,
        };
        ReaderOptions {
            through: Some(self.through),
            until: None,
            ..query.reader_options(&app.settings, format)
        }
    }
}

pub(super) fn gap_data(gap: Gap) -> GapData {
    GapData { from: gap.from, to: gap.to, reason: "trimmed".into(), streams: gap.streams }
}

/// Tells them in the head of an answer.
pub(super) fn tell_gaps(response: &mut Response, mut gaps: Vec<GapData>) {
    if gaps.is_empty() {
        return;
    }
    let text = |gaps: &[GapData]| serde_json::to_string(gaps).expect("gaps always serialise");
    let mut value = text(&gaps);
    if value.len() > GAPS_BYTES_MAX {
        // Any of them may be meant: one gap from the first seq to the last says it all.
        let from = gaps.iter().map(|gap| gap.from).min().unwrap_or(0);
        let to = gaps.iter().map(|gap| gap.to).max().unwrap_or(0);
        gaps = vec![GapData { from, to, reason: "trimmed".into(), streams: vec!["*".into()] }];
        value = text(&gaps);
    }
    let value = HeaderValue::try_from(value).expect("names of streams are ASCII");
    response.headers_mut().insert(GAPS, value);
}

pub(super) fn read_failed(error: ReadError) -> Problem {
    Problem::read_failed(&error)
}
