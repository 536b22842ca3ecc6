//! `POST /api/v1/{stream}/close`: the end of a stream.

use super::append::{answer, append_problem, expected_last_seq};
use super::problem::MemberError;
use super::{App, Problem, ProblemCode, body};
use crate::event::{StreamName, check_subject};
use axum::http::HeaderMap;
use axum::response::Response;
use hyper::body::Incoming;
use serde_json::{Map, Value};

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
    let reason = reason(&bytes)?;
    let receipt = app.log.close_stream(stream, reason.as_deref(), expected).await;
    Ok(answer(&[receipt.map_err(|error| append_problem(error, false))?], false))
}

fn reason(body: &[u8]) -> Result<Option<String>, Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let offset = error.valid_up_to();
        Problem::new(ProblemCode::Utf8Invalid, "send UTF-8").with("offset", offset)
    })?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let invalid = |pointer: &str, detail: String| {
        let errors = [MemberError { pointer: pointer.to_owned(), detail }];
        let detail = "the body of a close is empty, or {\"reason\":\"...\"}";
        Problem::new(ProblemCode::EventInvalid, detail).with_errors(&errors)
    };
    let members: Value = serde_json::from_str(text).map_err(|error| {
        let errors = [MemberError { pointer: String::new(), detail: error.to_string() }];
        Problem::new(ProblemCode::JsonInvalid, "mend the JSON, or send no body").with_errors(&errors)
    })?;
    let Value::Object(mut members) = members else {
        return Err(invalid("", "must be an object".into()));
    };
    let reason = members.remove("reason");
    if let Some(name) = Map::keys(&members).next() {
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        return Err(invalid(&pointer, "is not a member of a close".into()));
    }
    match reason {
        None => Ok(None),
        Some(Value::String(reason)) => match check_subject(&reason) {
            Ok(_) => Ok(Some(reason)),
            Err(error) => Err(invalid("/reason", error.to_string())),
        },
        Some(_) => Err(invalid("/reason", "must be a string".into())),
    }
}
