//! History as JSON pages, each of which ends at the `last_seq` of the moment it was asked for.

use super::history::{Range, gap_data, read_failed, tell_gaps};
use super::query::{self, ReadQuery};
use super::{App, Problem};
use crate::event::{Origin, Seq, StreamName};
use crate::log::{From, Gap, ReaderOptions, Step};
use crate::wire::{GapData, cloud};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Events of a page that does not say its limit.
pub(super) const LIMIT_DEFAULT: u64 = 100;
/// Most events of a page.
pub(super) const LIMIT_MAX: u64 = 1_000;

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
    let lines = match query.with_producer {
        true => with_producers(app, &page.lines).await?,
        false => page.lines,
    };
    let mut body = Vec::from(b"{\"events\":[".as_slice());
    for (index, line) in lines.iter().enumerate() {
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
    let mut reader = range.reader(app, query, range.options(app, query));
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
    let mut reader = query.reader(&app.log, start, range.options(app, query));
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
    let mut reader = query.reader(&app.log, range.through, options);
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

/// Events as JSON with who appended them, and from where, as their last members.
pub(super) async fn with_producers(app: &App, events: &[Bytes]) -> Result<Vec<Bytes>, Problem> {
    let seqs: Vec<Seq> = events.iter().filter_map(|event| seq_of(event)).collect();
    let origins = app.log.origins(&seqs).await.map_err(|error| Problem::read_failed(&error))?;
    let with_its_own = |event: &Bytes| {
        let origin = seq_of(event).and_then(|seq| origins.get(&seq));
        let (Some(Origin { producer, address }), Some(start)) = (origin, event.strip_suffix(b"}")) else {
            return event.clone();
        };
        let mut out = start.to_vec();
        for (name, value) in [("producer", Some(producer)), ("address", address.as_ref())] {
            let Some(value) = value else { continue };
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            serde_json::to_writer(&mut out, &**value).expect("a string always serialises");
        }
        out.push(b'}');
        Bytes::from(out)
    };
    Ok(events.iter().map(with_its_own).collect())
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
