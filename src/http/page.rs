//! History: one JSON page, or everything up to now as NDJSON, as CSV or as an array of CloudEvents. All end at the
//! `last_seq` of the moment they began.

use super::query::{self, Payload, ReadQuery};
use super::{App, Problem, ProblemCode, cloudevents, csv};
use crate::event::{Selection, Seq, StreamName};
use crate::frames::Format;
use crate::log::{From, ReadError, Reader, ReaderOptions, Reset, Step};
use crate::wire::cloud;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

/// Events of a page that does not say its limit.
const LIMIT_DEFAULT: u64 = 100;
/// Most events of a page.
const LIMIT_MAX: u64 = 1_000;

/// `{"events":[...],"first_seq":..,"last_seq":..,"cursor":..,"next":"..","prev":".."}`. `cursor` is where a stream
/// continues without hole or overlap; `next` and `prev` are there when there is more on that side.
///
/// The links name seqs, so they mean the same while events arrive and are trimmed.
pub(super) async fn json(
    app: &App,
    mut query: ReadQuery,
    stream: Option<&StreamName>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > LIMIT_MAX {
        return Err(query::parameter("limit", &format!("is at most {LIMIT_MAX} for a page")));
    }
    query.limit = Some(limit);
    let range = Range::open(app, &query).await?;
    let page = match query.from {
        _ if query.is_descending => descending(app, &query, &range, limit).await?,
        Some(From::Last(count)) if count <= limit => newest(app, &query, &range, limit).await?,
        _ => ascending(app, &query, &range, limit).await?,
    };
    let mut body = Vec::from(b"{\"events\":[".as_slice());
    for (index, line) in page.lines.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(line);
    }
    let (first_seq, last_seq, cursor) = (app.log.bounds().first_seq, range.last_seq, page.cursor);
    body.extend_from_slice(
        format!("],\"first_seq\":{first_seq},\"last_seq\":{last_seq},\"cursor\":{cursor}").as_bytes(),
    );
    let path = stream.map_or("events", StreamName::as_str);
    let separator = if query.rest.is_empty() { "" } else { "&" };
    let mut links = Vec::new();
    for (rel, position) in [("next", page.next), ("prev", page.prev)] {
        let Some(position) = position else { continue };
        let url = format!("/api/v1/{path}?{position}{separator}{}", query.rest);
        body.extend_from_slice(format!(",\"{rel}\":").as_bytes());
        serde_json::to_writer(&mut body, &url).expect("a string always serialises");
        links.push(format!("<{url}>; rel=\"{rel}\""));
    }
    body.push(b'}');
    let mut response = unless_known(headers, "application/json", body);
    if let Ok(link) = HeaderValue::try_from(links.join(", "))
        && !links.is_empty()
    {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// An answer with an `ETag`, or 304 without a body if the client has it.
pub(super) fn unless_known(headers: &HeaderMap, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known
        .flat_map(|list| list.split(','))
        .any(|known| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag);
    let common = [(header::CACHE_CONTROL, "no-cache"), (header::ETAG, &tag)];
    if is_known {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// What a page holds, and how to go on from it.
struct Page {
    /// Its events as JSON, in the order asked for.
    lines: Vec<Bytes>,
    /// Everything up to here is in it or before it.
    cursor: Seq,
    /// The parameters of the next page, if there is one.
    next: Option<String>,
    prev: Option<String>,
}

async fn ascending(app: &App, query: &ReadQuery, range: &Range, limit: u64) -> Result<Page, Problem> {
    let mut reader = app.log.reader(range.cursor, range.options(app, query));
    let (mut lines, mut bytes, mut cursor) = (Vec::new(), 0, range.cursor);
    // A page is bounded in bytes too: whoever wants more follows `next`.
    while (lines.len() as u64) < limit && bytes < app.settings.page_bytes_max {
        match reader.next().await.map_err(read_failed)? {
            Step::Page(page) => {
                cursor = page.cursor;
                bytes += page.bytes.len();
                lines.extend(split(&page.bytes));
            }
            // Trimmed while the page was read: what it has is whole, and the next page tells.
            Step::Gap(gap) if !lines.is_empty() => {
                cursor = gap.from - 1;
                break;
            }
            Step::Gap(gap) => return Err(Problem::gone(gap.to + 1)),
            Step::CaughtUp | Step::End => break,
        }
    }
    let before = query.before.map_or_else(String::new, |seq| format!("&before={seq}"));
    Ok(Page {
        lines,
        cursor,
        next: (cursor < range.through).then(|| format!("after={cursor}{before}")),
        prev: (range.cursor >= range.first_seq).then(|| format!("last={limit}&before={}", range.cursor + 1)),
    })
}

/// The newest events of the range, in order: a page on the way back.
async fn newest(app: &App, query: &ReadQuery, range: &Range, limit: u64) -> Result<Page, Problem> {
    let (lines, oldest) = gather(app, query, range, range.cursor).await?;
    Ok(Page {
        lines: lines.into(),
        cursor: range.through,
        // Onward is everything, not only what was before this page's end.
        next: (range.through < range.last_seq).then(|| format!("after={}", range.through)),
        prev: (oldest > range.first_seq).then(|| format!("last={limit}&before={oldest}")),
    })
}

/// The newest events of the range, newest first.
async fn descending(app: &App, query: &ReadQuery, range: &Range, limit: u64) -> Result<Page, Problem> {
    let selection = &query.selection;
    let newest = app.log.before_last(limit, selection, range.through).await;
    let floor = range.cursor.max(range.first_seq - 1);
    let start = newest.map_err(|error| Problem::read_failed(&error))?.max(floor);
    let (mut lines, oldest) = gather(app, query, range, start).await?;
    lines.make_contiguous().reverse();
    let bound = match query.from {
        Some(From::After(1..) | From::Since(_)) => format!("&after={}", range.cursor),
        _ => String::new(),
    };
    let prev = match query.before {
        Some(_) => newer(app, query, range, limit).await?,
        None => None,
    };
    Ok(Page {
        lines: lines.into(),
        cursor: range.through,
        next: (oldest > floor + 1).then(|| format!("before={oldest}{bound}")),
        prev: prev.map(|before| format!("before={before}{bound}")),
    })
}

/// The newest events after `start`, in order and within the bound, and the seq from which they are all there.
async fn gather(
    app: &App,
    query: &ReadQuery,
    range: &Range,
    start: Seq,
) -> Result<(VecDeque<Bytes>, Seq), Problem> {
    let mut reader = app.log.reader(start, range.options(app, query));
    let (mut lines, mut bytes, mut oldest) = (VecDeque::new(), 0, start + 1);
    loop {
        match reader.next().await.map_err(read_failed)? {
            Step::Page(page) => {
                for line in split(&page.bytes) {
                    bytes += line.len();
                    lines.push_back(line);
                }
                // Over the bound the oldest go: they are on the page before.
                while bytes > app.settings.page_bytes_max && lines.len() > 1 {
                    bytes -= lines.pop_front().map_or(0, |line| line.len());
                    oldest = lines.front().and_then(|line| seq_of(line)).unwrap_or(oldest);
                }
            }
            // Trimmed meanwhile: the links of the page before will tell.
            Step::Gap(_) => {}
            Step::CaughtUp | Step::End => return Ok((lines, oldest)),
        }
    }
}

/// The seq behind the page that is newer than a page in descending order, if there is anything in it.
async fn newer(app: &App, query: &ReadQuery, range: &Range, limit: u64) -> Result<Option<Seq>, Problem> {
    let options =
        ReaderOptions { through: Some(range.last_seq), limit: Some(limit), ..range.options(app, query) };
    let mut reader = app.log.reader(range.through, options);
    let mut last = None;
    while let Step::Page(page) = reader.next().await.map_err(read_failed)? {
        last = page.last_seq.or(last);
    }
    Ok(last.map(|last| last + 1))
}

fn read_failed(error: ReadError) -> Problem {
    Problem::read_failed(&error)
}

/// The lines of a page, without copying them.
fn split(bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| bytes.slice_ref(line))
}

/// The seq of an event that we encoded.
fn seq_of(line: &[u8]) -> Option<Seq> {
    let Some(digits) = line.strip_prefix(b"{\"seq\":") else { return cloud::seq_of(line) };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Everything from the cursor to the end of the log as it is now, in constant memory.
///
/// If it cannot be completed, or a part is trimmed under way, the connection breaks off rather than end as if it were
/// whole.
pub(super) async fn lines(app: &App, query: ReadQuery) -> Result<Response, Problem> {
    let range = Range::open(app, &query).await?;
    let reader = app.log.reader(range.cursor, range.options(app, &query));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(pages(reader))).into_response())
}

/// The same as CSV.
pub(super) async fn csv(app: &App, query: ReadQuery, has_header: bool) -> Result<Response, Problem> {
    if query.payload != Payload::Event {
        return Err(query::parameter(
            "format",
            "cannot be given for CSV; its columns are those of the table",
        ));
    }
    let range = Range::open(app, &query).await?;
    let reader = app.log.reader(range.cursor, range.options(app, &query));
    let records = pages(reader).and_then(|lines| std::future::ready(csv::records(&lines)));
    let header = futures_util::stream::iter(has_header.then(|| Ok(csv::header())));
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"events.csv\""),
    ];
    Ok((headers, Body::from_stream(header.chain(records))).into_response())
}

/// The same as one array of CloudEvents.
pub(super) async fn cloud_events(app: &App, query: ReadQuery) -> Result<Response, Problem> {
    let range = Range::open(app, &query).await?;
    let options = ReaderOptions { format: Format::CloudEventItems, ..range.options(app, &query) };
    let mut is_first = true;
    // Every item has a comma behind it: the last one of a page is put before the next page.
    let items = pages(app.log.reader(range.cursor, options)).map_ok(move |page| {
        let items = page.slice(..page.len() - 1);
        match std::mem::take(&mut is_first) {
            true => items,
            false => Bytes::from([b",", &*items].concat()),
        }
    });
    let bracket = |bracket: &'static [u8]| futures_util::stream::iter([Ok(Bytes::from_static(bracket))]);
    let body = Body::from_stream(bracket(b"[").chain(items).chain(bracket(b"]")));
    let headers = [(header::CONTENT_TYPE, cloudevents::BATCH), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, body).into_response())
}

/// The bytes of a reader's pages to its end.
fn pages(reader: Reader) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::try_unfold(reader, |mut reader| async move {
        loop {
            match reader.next().await {
                Ok(Step::Page(page)) if page.bytes.is_empty() => {}
                Ok(Step::Page(page)) => return Ok(Some((page.bytes, reader))),
                Ok(Step::CaughtUp | Step::End) => return Ok(None),
                Ok(Step::Gap(gap)) => {
                    return Err(io::Error::other(format!("seq {} to {} were trimmed", gap.from, gap.to)));
                }
                Err(error) => {
                    Problem::read_failed(&error);
                    return Err(io::Error::other("the log could not be read"));
                }
            }
        }
    })
}

/// What of the log a history request is about: `cursor < seq <= through`.
struct Range {
    cursor: Seq,
    through: Seq,
    /// Of the log, when the request came.
    first_seq: Seq,
    last_seq: Seq,
}

impl Range {
    /// *Errors*: 410 where the stream route would tell of a gap or a reset: history cannot say it in between.
    async fn open(app: &App, query: &ReadQuery) -> Result<Self, Problem> {
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
        Ok(Self { cursor, through, first_seq, last_seq: bounds.last_seq })
    }

    fn options(&self, app: &App, query: &ReadQuery) -> ReaderOptions {
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
