//! `/admin`: trims and holds; for tokens see `tokens`. Never for pages of other origins, see `guard`.

use super::members::{Object, whole};
use super::query::{once, parameter};
use super::service::stream_name;
use super::{App, Closing, Problem, ProblemCode, accept, body, form};
use crate::config;
use crate::event::{Seq, StreamName, check_hold_name, check_reason};
use crate::log::{AppendError, HOLDS_MAX, HeldStream, Hold, HoldError, TrimReport, TrimRequest};
use crate::wire::admin::{HoldJson, HoldsJson, RetentionAnswer, ShareJson, TrimAnswer, TrimJson};
use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// What a trim may be asked.
const CRITERIA: [&str; 4] = ["before", "older_than", "keep_events", "keep_bytes"];

/// Whether the path is one of these routes, or looks like one.
pub(super) fn is_route(path: &str) -> bool {
    path.strip_prefix("/admin").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `POST /admin/trim`: trims, or says what a trim, or retention as it is set, would do.
///
/// A trim goes on when the client does not wait for the answer.
pub(super) async fn trim(
    Extension(app): Extension<App>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_change(&app, &uri, &headers)?;
    let body = body::read(&headers, body, &app.settings).await?;
    let Asked { request, is_dry_run, has_criteria } = asked(&headers, &body)?;
    if let Some(stream) = &request.stream {
        let known = app.log.stream(stream).await.map_err(super::streams::problem)?;
        if known.is_none() {
            return Err(super::streams::not_found(stream));
        }
    }
    if !has_criteria {
        let trims = app.log.plan_retention().await.map_err(|error| Problem::read_failed(&error))?;
        return Ok(json(StatusCode::OK, &planned(&app, trims)));
    }
    let report = match is_dry_run {
        true => app.log.plan_trim(&request).await.map_err(|error| Problem::read_failed(&error))?,
        false => app.log.trim(&request).await.map_err(trim_problem)?,
    };
    let first_seq = app.log.bounds().first_seq;
    Ok(json(StatusCode::OK, &TrimAnswer { dry_run: is_dry_run, first_seq, trim: trim_json(report) }))
}

/// What the body of a trim says.
struct Asked {
    request: TrimRequest,
    is_dry_run: bool,
    /// It says what is to go. If not, retention as it is set is asked about.
    has_criteria: bool,
}

fn asked(headers: &HeaderMap, body: &[u8]) -> Result<Asked, Problem> {
    let Some(mut object) = Object::read(headers, body)? else {
        let detail = "say what is to go, such as {\"older_than\":\"30d\"}, or {\"dry_run\":true}";
        return Err(Problem::new(ProblemCode::BodyEmpty, detail));
    };
    let mut request = TrimRequest {
        stream: object.take_text("stream", StreamName::parse),
        before: object.take("before", whole_number),
        ..TrimRequest::default()
    };
    request.keep.age = object.take_text("older_than", |text| {
        config::age(text).ok_or("must be a duration such as 12h, 30d or 1year")
    });
    request.keep.events = object.take("keep_events", whole_number);
    request.keep.bytes = object.take("keep_bytes", |value| {
        match value {
            Value::String(text) => config::bytes(text).filter(|bytes| is_number(*bytes)),
            number => whole_number(number).ok(),
        }
        .ok_or_else(|| "must be a whole number of bytes from 1, or a text such as 1GiB".to_owned())
    });
    request.reason = object.take_text("reason", check_reason);
    let dry_run = object.take("dry_run", |value| value.as_bool().ok_or("must be true or false".to_owned()));
    let is_dry_run = dry_run.unwrap_or(false);
    let has_criteria = CRITERIA.iter().any(|name| object.has(name));
    let is_about_retention = is_dry_run && request.stream.is_none();
    if !(has_criteria || is_about_retention) {
        let detail = "must say what is to go: any of before, older_than, keep_events and keep_bytes; \
                      {\"dry_run\":true} alone tells what retention as it is set would trim";
        object.refuse("", detail);
    }
    object.finish()?;
    Ok(Asked { request, is_dry_run, has_criteria })
}

/// From 1: a 0 that means "keep all" in a setting must not mean "keep nothing" here.
fn whole_number(value: &Value) -> Result<u64, String> {
    let number = whole(value).filter(|number| is_number(*number));
    number.ok_or_else(|| "must be a whole number from 1".to_owned())
}

/// Whether SQLite can hold it, and it is not 0.
fn is_number(number: u64) -> bool {
    number > 0 && i64::try_from(number).is_ok()
}

fn planned(app: &App, trims: Vec<TrimReport>) -> RetentionAnswer {
    RetentionAnswer {
        dry_run: true,
        first_seq: app.log.bounds().first_seq,
        events: trims.iter().map(|trim| trim.events).sum(),
        bytes: trims.iter().map(|trim| trim.bytes).sum(),
        trims: trims.into_iter().map(trim_json).collect(),
    }
}

fn trim_json(report: TrimReport) -> TrimJson {
    let share = |(stream, (events, bytes)): (StreamName, (u64, u64))| ShareJson {
        stream: stream.as_str().to_owned(),
        events,
        bytes,
    };
    TrimJson {
        stream: report.stream.map(|stream| stream.as_str().to_owned()),
        events: report.events,
        bytes: report.bytes,
        through_seq: report.through_seq,
        streams: report.streams.into_iter().map(share).collect(),
        held_by: report.held_by.as_ref().map(held_json),
    }
}

/// Why a trim was not done, or not all of it: it goes in steps.
fn trim_problem(error: AppendError) -> Problem {
    let incomplete = |why: &str| {
        let detail = format!("{why}, so that only a part may be trimmed; ask again, and it goes on");
        Problem::new(ProblemCode::TrimIncomplete, detail)
    };
    match error {
        AppendError::DiskFull => incomplete("the disk is full"),
        AppendError::Busy | AppendError::QueueFull => {
            incomplete("another process holds the write lock of the log file")
        }
        AppendError::Closed => Problem::closing(Closing::Drain),
        AppendError::Unavailable | AppendError::Refused(_) => unavailable(),
    }
}

/// `GET /admin/holds`.
pub(super) async fn holds(
    Extension(app): Extension<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check(&uri, &headers)?;
    let holds = app.log.holds().await.map_err(|error| Problem::read_failed(&error))?;
    Ok(json(StatusCode::OK, &HoldsJson { holds: holds.iter().map(held_json).collect() }))
}

/// `PUT /admin/holds/{stream}/{name}`: holds a stream, or finds it held so already.
pub(super) async fn hold(
    Extension(app): Extension<App>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_change(&app, &uri, &headers)?;
    let (stream, name) = hold_of(&uri)?;
    let body = body::read(&headers, body, &app.settings).await?;
    let Some(mut object) = Object::read(&headers, &body)? else {
        return Err(Problem::new(ProblemCode::BodyEmpty, "say why, such as {\"reason\":\"case 17\"}"));
    };
    let reason = object.take_text("reason", check_reason);
    if !object.has("reason") {
        object.refuse("reason", "must say why the stream is held");
    }
    object.finish()?;
    let reason = reason.expect("an object without errors has its reason");
    let (hold, is_new) = app.log.hold(stream, name, reason).await.map_err(hold_problem)?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &hold_json(&hold)))
}

/// `DELETE /admin/holds/{stream}/{name}`: releases a hold, for a reason if one is given, and answers what it was.
pub(super) async fn release(
    Extension(app): Extension<App>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    refuse_closing(&app)?;
    accept::check_json(&headers)?;
    let (stream, name) = hold_of(&uri)?;
    let mut reason = None;
    for pair in form::pairs(uri.query().unwrap_or_default()) {
        let (parameter_name, value) = pair.map_err(|part| parameter(&part, "is not UTF-8"))?;
        if parameter_name != "reason" {
            return Err(parameter(&parameter_name, "is not known; known is reason"));
        }
        once(&reason, "reason")?;
        let checked = check_reason(&value).map_err(|error| parameter("reason", &error.to_string()))?;
        reason = Some(checked);
    }
    let body = body::read(&headers, body, &app.settings).await?;
    if let Some(mut object) = Object::read(&headers, &body)? {
        let given = object.take_text("reason", check_reason);
        if reason.is_some() && given.is_some() {
            object.refuse("reason", "is in the query already");
        }
        object.finish()?;
        reason = given.or(reason);
    }
    let hold = app.log.release(stream, name, reason).await.map_err(hold_problem)?;
    Ok(json(StatusCode::OK, &hold_json(&hold)))
}

/// The hold that the path names.
fn hold_of(uri: &Uri) -> Result<(StreamName, Arc<str>), Problem> {
    let names = uri.path().strip_prefix("/admin/holds/").and_then(|names| names.split_once('/'));
    let (stream, name) = names.expect("the router has matched it");
    let stream = stream_name(stream)?;
    let invalid = |what: &str| Problem::new(ProblemCode::HoldInvalid, format!("the name of the hold {what}"));
    let name = percent_decode_str(name).decode_utf8().map_err(|_| invalid("is not UTF-8"))?;
    Ok((stream, check_hold_name(&name).map_err(|error| invalid(&error.to_string()))?))
}

fn hold_problem(error: HoldError) -> Problem {
    match error {
        HoldError::Differs(hold) => {
            let detail = format!(
                "{} is held under this name since {}; choose another name, or release that hold first",
                hold.stream, hold.created_at
            );
            Problem::new(ProblemCode::HoldDiffers, detail).with("reason", &*hold.reason)
        }
        HoldError::TooMany => {
            let detail = format!("there are {HOLDS_MAX} holds; release one first");
            Problem::new(ProblemCode::HoldsFull, detail).with("holds_max", HOLDS_MAX)
        }
        HoldError::Unknown => {
            Problem::new(ProblemCode::HoldNotFound, "GET /admin/holds lists the holds that there are")
        }
        HoldError::Append(error) => change_problem(error),
    }
}

/// Why the log did not commit a change.
pub(super) fn change_problem(error: AppendError) -> Problem {
    match error {
        AppendError::DiskFull => {
            let detail = "nothing was changed; repeat the request when there is space";
            Problem::new(ProblemCode::DiskFull, detail)
        }
        AppendError::Busy | AppendError::QueueFull => {
            Problem::new(ProblemCode::LogBusy, "nothing was changed; repeat the request")
        }
        AppendError::Closed => Problem::closing(Closing::Drain),
        AppendError::Unavailable | AppendError::Refused(_) => unavailable(),
    }
}

/// The log has failed, perhaps meanwhile.
pub(super) fn unavailable() -> Problem {
    let detail =
        "the log has failed, and whether anything was changed is not known; look when the server is back";
    Problem::new(ProblemCode::LogUnavailable, detail)
}

fn held_json(held: &HeldStream) -> HoldJson {
    HoldJson { first_seq: held.first_seq, ..hold_json(&held.hold) }
}

fn hold_json(hold: &Hold) -> HoldJson {
    HoldJson {
        stream: hold.stream.as_str().to_owned(),
        name: hold.name.to_string(),
        reason: hold.reason.to_string(),
        created_at: hold.created_at.to_string(),
        first_seq: None::<Seq>,
    }
}

/// What a route that changes something checks first. Above all, nothing must be trimmed for real because `?dry_run=true` was
/// not read.
pub(super) fn check_change(app: &App, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    refuse_closing(app)?;
    check(uri, headers)
}

/// What a route without parameters checks first.
pub(super) fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    refuse_parameters(uri)?;
    accept::check_json(headers)
}

fn refuse_closing(app: &App) -> Result<(), Problem> {
    match app.closing() {
        None => Ok(()),
        Some(Closing::Drain) => Err(Problem::closing(Closing::Drain)),
        Some(Closing::Unavailable) => Err(unavailable()),
    }
}

fn refuse_parameters(uri: &Uri) -> Result<(), Problem> {
    match form::pairs(uri.query().unwrap_or_default()).next() {
        None => Ok(()),
        Some(pair) => {
            let name = pair.map_or_else(|name| name, |(name, _)| name);
            Err(parameter(&name, "is not known; this route takes none"))
        }
    }
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("an answer always serialises");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
