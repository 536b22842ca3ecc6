//! History: one JSON page, or everything up to now as NDJSON, as CSV or as an array of CloudEvents. All end at the
//! `last_seq` of the moment they began.
//!
//! What is gone behind a cursor is told before anything else: as 410 where all of what was asked for is, in the header
//! `Evertail-Gaps` where only single streams have lost events. Who comes without a cursor misses nothing that it ever
//! had, and is told nothing.

use super::query::{self, Payload, ReadQuery};
use super::{App, Problem, ProblemCode, cloudevents, csv, streams};
use crate::event::{Selection, Seq, StreamName};
use crate::frames::Format;
use crate::log::{From, Gap, ReadError, Reader, ReaderOptions, Reset, Step};
use crate::wire::{GapData, cloud};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

/// What single streams have lost of what was asked for: an array of [`GapData`].
pub(super) const GAPS: HeaderName = HeaderName::from_static("evertail-gaps");
/// Longest value of that header; beyond, its gaps say `*` for their streams. *Units*: bytes. Proxies refuse an answer whose
/// head does not fit into 4 KiB.
const GAPS_BYTES_MAX: usize = 2 << 10;
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
    let gaps: Vec<GapData> = page.gaps.into_iter().map(gap_data).collect();
    let (first_seq, last_seq, cursor) = (app.log.bounds().first_seq, range.last_seq, page.cursor);
    body.extend_from_slice(
        format!("],\"first_seq\":{first_seq},\"last_seq\":{last_seq},\"cursor\":{cursor}").as_bytes(),
    );
    if !gaps.is_empty() {
        body.extend_from_slice(b",\"gaps\":");
        serde_json::to_writer(&mut body, &gaps).expect("gaps always serialise");
    }
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
    tell_gaps(&mut response, gaps);
    Ok(response)
}

fn gap_data(gap: Gap) -> GapData {
    GapData { from: gap.from, to: gap.to, reason: "trimmed".into(), streams: gap.streams }
}

fn tell_gaps(response: &mut Response, mut gaps: Vec<GapData>) {
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
    /// What single streams have lost of it.
    gaps: Vec<Gap>,
}

async fn ascending(app: &App, query: &ReadQuery, range: &Range, limit: u64) -> Result<Page, Problem> {
    let mut reader = range.reader(app, range.options(app, query));
    let (mut lines, mut bytes, mut cursor, mut gaps) = (Vec::new(), 0, range.cursor, Vec::new());
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
            Step::Gap(gap) => {
                gaps.extend(range.told(app, query, gap).await?);
                cursor = reader.cursor();
            }
            Step::CaughtUp | Step::End => break,
        }
    }
    let before = query.before.map_or_else(String::new, |seq| format!("&before={seq}"));
    Ok(Page {
        lines,
        cursor,
        next: (cursor < range.through).then(|| format!("after={cursor}{before}")),
        prev: (range.cursor >= range.first_seq).then(|| format!("last={limit}&before={}", range.cursor + 1)),
        gaps,
    })
}

/// The newest events of the range, in order: a page on the way back.
async fn newest(app: &App, query: &ReadQuery, range: &Range, limit: u64) -> Result<Page, Problem> {
    let Gathered { lines, oldest, gaps } = gather(app, query, range, range.cursor).await?;
    Ok(Page {
        lines: lines.into(),
        cursor: range.through,
        // Onward is everything, not only what was before this page's end.
        next: (range.through < range.last_seq).then(|| format!("after={}", range.through)),
        prev: (oldest > range.first_seq).then(|| format!("last={limit}&before={oldest}")),
        gaps,
    })
}

/// The newest events of the range, newest first.
async fn descending(app: &App, query: &ReadQuery, range: &Range, limit: u64) -> Result<Page, Problem> {
    let selection = &query.selection;
    let newest = app.log.before_last(limit, selection, range.through).await;
    let floor = range.cursor.max(range.first_seq - 1);
    let start = newest.map_err(|error| Problem::read_failed(&error))?.max(floor);
    let Gathered { mut lines, oldest, gaps } = gather(app, query, range, start).await?;
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
        gaps,
    })
}

/// The newest events of a range, in order and within the bound of a page.
struct Gathered {
    lines: VecDeque<Bytes>,
    /// From here on they are all there.
    oldest: Seq,
    /// But for these, which went while it was read.
    gaps: Vec<Gap>,
}

async fn gather(app: &App, query: &ReadQuery, range: &Range, start: Seq) -> Result<Gathered, Problem> {
    let mut reader = app.log.reader(start, range.options(app, query));
    reader.begin_here();
    let (mut lines, mut bytes, mut oldest, mut gaps) = (VecDeque::new(), 0, start + 1, Vec::new());
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
            Step::Gap(gap) if gap.streams.is_empty() => {
                // Everything up to its end is gone meanwhile: the page begins behind it.
                (lines, bytes, oldest) = (VecDeque::new(), 0, gap.to + 1);
                gaps.clear();
            }
            Step::Gap(gap) => gaps.extend(Some(gap).filter(|_| !lines.is_empty())),
            Step::CaughtUp | Step::End => return Ok(Gathered { lines, oldest, gaps }),
        }
    }
}

/// The seq behind the page that is newer than a page in descending order, if there is anything in it.
async fn newer(app: &App, query: &ReadQuery, range: &Range, limit: u64) -> Result<Option<Seq>, Problem> {
    let options =
        ReaderOptions { through: Some(range.last_seq), limit: Some(limit), ..range.options(app, query) };
    let mut reader = app.log.reader(range.through, options);
    reader.begin_here();
    let mut last = None;
    loop {
        match reader.next().await.map_err(read_failed)? {
            Step::Page(page) => last = page.last_seq.or(last),
            // What is gone meanwhile is not in it.
            Step::Gap(_) => {}
            Step::CaughtUp | Step::End => return Ok(last.map(|last| last + 1)),
        }
    }
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
    let mut reader = range.reader(app, options);
    let mut gaps = Vec::new();
    let first = loop {
        match reader.next().await.map_err(read_failed)? {
            Step::Gap(gap) => gaps.extend(range.told(app, query, gap).await?.map(gap_data)),
            Step::Page(page) => break page.bytes,
            Step::CaughtUp | Step::End => break Bytes::new(),
        }
    };
    let first = futures_util::stream::iter(Some(first).filter(|first| !first.is_empty()).map(Ok));
    Ok(Opened { pages: first.chain(pages(reader)), gaps })
}

/// The bytes of a reader's pages to its end.
fn pages(reader: Reader) -> impl Stream<Item = io::Result<Bytes>> {
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
    /// It was asked for without a cursor, or backward: what is gone by now is nothing that it misses.
    is_anew: bool,
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
        let is_anew = query.is_descending || !matches!(query.from, Some(From::After(1..)));
        Ok(Self { cursor, through, first_seq, last_seq: bounds.last_seq, is_anew })
    }

    /// A reader in ascending order.
    fn reader(&self, app: &App, options: ReaderOptions) -> Reader {
        let mut reader = app.log.reader(self.cursor, options);
        if self.is_anew {
            reader.begin_here();
        }
        reader
    }

    /// A gap before the first event that is sent: what is to be told of it beside the events, if anything.
    ///
    /// *Errors*: 410, if nothing but the gap would answer the cursor.
    async fn told(&self, app: &App, query: &ReadQuery, gap: Gap) -> Result<Option<Gap>, Problem> {
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
