//! `GET /api/v1/streams`: which streams there are, and how much is in them. JSON only.

use super::query::{once, parameter, push};
use super::{App, Problem, ProblemCode, accept, form, page};
use crate::event::{Pattern, Selection, Seq, StreamName};
use crate::log::{StreamTotals, StreamsError};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

/// Streams of a listing that does not say its limit.
pub(super) const LIMIT_DEFAULT: usize = 100;
/// Most streams of a listing.
pub(super) const LIMIT_MAX: usize = 1_000;

/// One stream: what is in it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Stream")]
pub(super) struct StreamJson<'s> {
    /// Its name.
    name: &'s str,
    /// Retained events.
    events: u64,
    /// Their data. *Units*: bytes.
    bytes: u64,
    /// Oldest retained; `last_seq + 1` when nothing is.
    first_seq: Seq,
    /// Newest ever.
    last_seq: Seq,
    /// When the oldest retained was received.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    first_created_at: Option<&'s str>,
    /// When the newest retained was received.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    last_created_at: Option<&'s str>,
    /// Its final event, if it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_seq: Option<Seq>,
}

impl<'s> StreamJson<'s> {
    fn of(totals: &'s StreamTotals) -> Self {
        Self {
            name: totals.name.as_str(),
            events: totals.events,
            bytes: totals.bytes,
            first_seq: totals.first_seq,
            last_seq: totals.last_seq,
            first_created_at: totals.first_created_at.as_deref(),
            last_created_at: totals.last_created_at.as_deref(),
            closed_seq: totals.closed_seq,
        }
    }
}

/// A listing: `{"streams":[...],"next":"..."}`, by name; `next` is there when there are more.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Streams")]
pub(super) struct Listing<'s> {
    /// By name.
    streams: Vec<StreamJson<'s>>,
    /// The URL of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'s str>,
}

/// The streams, a page at a time.
pub(super) async fn list(app: &App, request: &Parts) -> Result<Response, Problem> {
    accept::check_json(&request.headers)?;
    app.access.check_reader()?;
    let query = ListQuery::read(request.uri.query().unwrap_or_default())?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    let after = query.after_name.unwrap_or_default();
    let granted = app.access.reading();
    // One more than is shown tells whether there is a next page.
    let mut found =
        app.log.streams(&query.streams, granted.as_deref(), &after, limit + 1).await.map_err(problem)?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(|last| {
        let mut rest = form_urlencoded::Serializer::new(String::new());
        rest.append_pair("after_name", last.name.as_str()).extend_pairs(query.rest);
        format!("/api/v1/streams?{}", rest.finish())
    });
    let listing = Listing { streams: found.iter().map(StreamJson::of).collect(), next: next.as_deref() };
    let body = serde_json::to_vec(&listing).expect("totals always serialise");
    let mut response = page::unless_known(&request.headers, "application/json", body);
    if let Some(next) = next
        && let Ok(link) = HeaderValue::try_from(format!("<{next}>; rel=\"next\""))
    {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// One stream.
pub(super) async fn one(app: &App, request: &Parts, name: StreamName) -> Result<Response, Problem> {
    accept::check_json(&request.headers)?;
    if let Some(pair) = form::pairs(request.uri.query().unwrap_or_default()).next() {
        let name = pair.map_or_else(|name| name, |(name, _)| name);
        return Err(parameter(&name, "is not known; the totals of a stream take none"));
    }
    app.access.check_reader()?;
    let granted = Selection { granted: app.access.reading(), ..Selection::all() };
    let found = app.log.stream(&name).await.map_err(problem)?;
    let Some(totals) = found.filter(|_| granted.may_read(name.as_str())) else {
        return Err(not_found(&name));
    };
    let body = serde_json::to_vec(&StreamJson::of(&totals)).expect("totals always serialise");
    Ok(page::unless_known(&request.headers, "application/json", body))
}

/// There is no such stream.
pub(super) fn not_found(name: &StreamName) -> Problem {
    let detail = format!("the stream {name} has never had an event");
    Problem::new(ProblemCode::StreamNotFound, detail).with("stream", name.as_str())
}

/// What a listing is asked for.
#[derive(Default)]
struct ListQuery {
    streams: Vec<Pattern>,
    /// The name that the page before ended with.
    after_name: Option<String>,
    limit: Option<usize>,
    /// All but `after_name`, as given: what the link to the next page repeats.
    rest: Vec<(String, String)>,
}

impl ListQuery {
    fn read(query: &str) -> Result<Self, Problem> {
        let mut read = Self::default();
        for pair in form::pairs(query) {
            let (name, value) = pair.map_err(|part| parameter(&part, "is not UTF-8"))?;
            match name.as_str() {
                "stream" => push(&mut read.streams, &name, &value)?,
                "after_name" => {
                    once(&read.after_name, &name)?;
                    read.after_name = Some(value);
                    continue;
                }
                "limit" => {
                    once(&read.limit, &name)?;
                    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    let limit = limit.ok_or_else(|| {
                        parameter(&name, &format!("must be a whole number from 1 to {LIMIT_MAX}"))
                    })?;
                    read.limit = Some(limit);
                }
                _ => return Err(parameter(&name, "is not known; known are stream, after_name and limit")),
            }
            read.rest.push((name, value));
        }
        Ok(read)
    }
}

pub(super) fn problem(error: StreamsError) -> Problem {
    match error {
        StreamsError::Ahead => {
            let detail = "another process has added events that could not be made durable yet; try again";
            Problem::new(ProblemCode::LogBusy, detail)
        }
        StreamsError::Store(error) => Problem::read_failed(&error),
    }
}
