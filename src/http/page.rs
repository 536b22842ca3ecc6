//! History: one JSON page, or everything up to now as NDJSON. Both end at the `last_seq` of the moment they began.

use super::query::{self, Payload, ReadQuery};
use super::{App, Problem, ProblemCode};
use crate::event::{Seq, StreamName};
use crate::frames::Format;
use crate::log::{From, Reader, ReaderOptions, Reset, Step};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::io;

/// Events of a page that does not say its limit.
const LIMIT_DEFAULT: u64 = 100;
/// Most events of a page.
const LIMIT_MAX: u64 = 1_000;

/// `{"events":[...],"first_seq":..,"last_seq":..,"cursor":..,"next":".."}`. `cursor` is where a stream continues
/// without hole or overlap; `next` is there when more is stored.
pub(super) async fn json(
    app: &App,
    mut query: ReadQuery,
    stream: Option<&StreamName>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > LIMIT_MAX {
        return Err(query::parameter("limit", &format!("is at most {LIMIT_MAX} for a page")));
    }
    query.limit = Some(limit);
    let (mut reader, last_seq) = open(app, &query).await?;
    let mut body = Vec::from(b"{\"events\":[".as_slice());
    let mut count = 0;
    let mut cursor = reader.cursor();
    // A page is bounded in bytes too: whoever wants more follows `next`.
    while count < limit && body.len() < app.settings.page_bytes_max {
        match reader.next().await.map_err(|error| Problem::read_failed(&error))? {
            Step::Page(page) => {
                count += page.events as u64;
                cursor = page.cursor;
                for line in page.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    if !body.ends_with(b"[") {
                        body.push(b',');
                    }
                    body.extend_from_slice(line);
                }
            }
            // Trimmed while the page was read: what it has is whole, and the next page tells.
            Step::Gap(gap) if count > 0 => {
                cursor = gap.from - 1;
                break;
            }
            Step::Gap(gap) => return Err(Problem::gone(gap.to + 1)),
            Step::CaughtUp | Step::End => break,
        }
    }
    let first_seq = app.log.bounds().first_seq;
    body.extend_from_slice(
        format!("],\"first_seq\":{first_seq},\"last_seq\":{last_seq},\"cursor\":{cursor}").as_bytes(),
    );
    let next = (cursor < last_seq).then(|| next_url(stream, cursor, &query.rest));
    if let Some(next) = &next {
        body.extend_from_slice(b",\"next\":");
        serde_json::to_writer(&mut body, next).expect("a string always serialises");
    }
    body.push(b'}');
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    let mut response = (headers, body).into_response();
    if let Some(link) = next.and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

fn next_url(stream: Option<&StreamName>, cursor: Seq, rest: &str) -> String {
    let path = stream.map_or("events", StreamName::as_str);
    let separator = if rest.is_empty() { "" } else { "&" };
    format!("/api/v1/{path}?after={cursor}{separator}{rest}")
}

/// Everything from the cursor to the end of the log as it is now, in constant memory.
///
/// If it cannot be completed, or a part is trimmed under way, the connection breaks off rather than end as if it were
/// whole.
pub(super) async fn lines(app: &App, query: ReadQuery) -> Result<Response, Problem> {
    let (reader, _) = open(app, &query).await?;
    let chunks = futures_util::stream::try_unfold(reader, |mut reader| async move {
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
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// A reader that ends at the log's end of now, and that end.
///
/// *Errors*: 410 where the stream route would tell of a gap or a reset: history cannot say it in between.
async fn open(app: &App, query: &ReadQuery) -> Result<(Reader, Seq), Problem> {
    for (name, is_given) in [("format", query.payload != Payload::Event), ("event", query.as_message)] {
        if is_given {
            return Err(query::parameter(name, "is for event streams; leave it out for history"));
        }
    }
    let bounds = app.log.bounds();
    let from = query.from.unwrap_or(From::After(0));
    let resume = app.log.resume(from, query.log_id.as_deref(), &query.selection).await;
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
    let first_seq = app.log.bounds().first_seq;
    if resume.cursor + 1 < first_seq {
        return Err(Problem::gone(first_seq));
    }
    let options = ReaderOptions {
        through: Some(bounds.last_seq),
        ..query.reader_options(&app.settings, Format::Lines)
    };
    Ok((app.log.reader(resume.cursor, options), bounds.last_seq))
}
