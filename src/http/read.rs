//! `GET`: the log and its streams as SSE, JSON or NDJSON, one event, and the few routes beside the API.

use super::accept::{Representation, negotiate};
use super::append::stream_name;
use super::query::{self, ReadQuery};
use super::{App, Closing, Problem, ProblemCode, page, stream as event_stream};
use crate::event::{Seq, StreamName};
use crate::frames::Frames;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

/// The plain live page.
pub(super) async fn console() -> Response {
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("console.html")).into_response()
}

/// The process runs.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Appends are taken.
pub(super) async fn readyz(State(app): State<App>) -> Result<&'static str, Problem> {
    match app.closing() {
        None if app.log.is_open() => Ok("ready\n"),
        closing => Err(Problem::closing(closing.unwrap_or(Closing::Unavailable))),
    }
}

/// One stream.
pub(super) async fn stream(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let stream = stream_name(path)?;
    read(app, headers, query.as_deref().unwrap_or_default(), Some(stream)).await
}

/// The whole log.
pub(super) async fn log(
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    read(app, headers, query.as_deref().unwrap_or_default(), None).await
}

async fn read(
    app: App,
    headers: HeaderMap,
    query: &str,
    stream: Option<StreamName>,
) -> Result<Response, Problem> {
    let representation = negotiate(&headers)?;
    let query: ReadQuery = query::read(&headers, query, stream.as_ref())?;
    match representation {
        Representation::Sse => Ok(event_stream::open(app, query).await),
        Representation::Json => page::json(app, query, stream.as_ref()).await,
        Representation::Lines => page::lines(app, query).await,
    }
}

/// One event, as JSON.
pub(super) async fn event(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let seq = match path {
        Ok(Path(seq)) if seq.bytes().all(|byte| byte.is_ascii_digit()) => seq.parse::<Seq>().ok(),
        _ => None,
    };
    let Some(seq) = seq else {
        return Err(Problem::new(
            ProblemCode::CursorInvalid,
            "an event is named by its seq, a whole number from 1",
        ));
    };
    match app.log.event(seq).await {
        Ok(Some(event)) => {
            let json = Frames::encode(&[event]).first_json();
            Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(json)).into_response())
        }
        Ok(None) => {
            let bounds = app.log.bounds();
            if (1..bounds.first_seq).contains(&seq) {
                return Err(Problem::gone(bounds.first_seq));
            }
            let detail = format!("the newest event is seq {}", bounds.last_seq);
            Err(Problem::new(ProblemCode::EventNotFound, detail).with("last_seq", bounds.last_seq))
        }
        Err(error) => Err(Problem::read_failed(&error)),
    }
}
