//! `POST /api/v1/{stream}/close`: the end of a stream.

use super::append::{answer, append_problem, expected_last_seq};
use super::members::Object;
use super::{App, Problem, body};
use crate::event::{StreamName, check_reason};
use axum::http::HeaderMap;
use axum::response::Response;
use hyper::body::Incoming;
use std::sync::Arc;

/// Appends the final event. The body is empty, or `{"reason":"..."}`.
pub(super) async fn close(
    app: &App,
    stream: StreamName,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Response, Problem> {
    if let Some(closing) = app.closing() {
        return Err(Problem::closing(closing));
    }
    app.access.check_append(&stream)?;
    let expected = expected_last_seq(headers, Some(&stream))?;
    let bytes = body::read(headers, body, &app.settings).await?;
    let reason = reason(headers, &bytes)?;
    let receipt = app.log.close_stream(stream, reason.as_deref(), expected).await;
    Ok(answer(&[receipt.map_err(|error| append_problem(error, false))?], false))
}

fn reason(headers: &HeaderMap, body: &[u8]) -> Result<Option<Arc<str>>, Problem> {
    let Some(mut object) = Object::read(headers, body)? else { return Ok(None) };
    let reason = object.take_text("reason", check_reason);
    object.finish()?;
    Ok(reason)
}
