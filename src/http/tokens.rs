//! `/admin/tokens`: API tokens, made, listed and revoked.

use super::admin::{change_problem, check, check_change, json, unavailable};
use super::members::Object;
use super::{App, Problem, ProblemCode, body};
use crate::auth::{Grants, TokenDraft, all_shown, shown};
use crate::config;
use crate::event::{Pattern, Timestamp, check_hold_name};
use crate::log::{TOKENS_MAX, TokenError};
use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::Value;
use std::sync::Arc;

/// `GET /admin/tokens`: all of them, those that do not hold any more too.
pub(super) async fn list(
    Extension(app): Extension<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check(&uri, &headers)?;
    let table = app.log.tokens().borrow().clone();
    Ok(json(StatusCode::OK, &all_shown(&table)))
}

/// `POST /admin/tokens`: makes one. Its answer is the only place where the token itself is ever shown.
pub(super) async fn create(
    Extension(app): Extension<App>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_change(&app, &uri, &headers)?;
    let body = body::read(&headers, body, &app.settings).await?;
    let draft = draft(&headers, &body)?;
    let (secret, token) = draft.make().map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "no token was made");
        unavailable()
    })?;
    let token = app.log.create_token(token).await.map_err(token_problem)?;
    Ok(json(StatusCode::CREATED, &shown(&token, Some(&secret))))
}

/// `DELETE /admin/tokens/{id}`: revokes one, or finds it revoked already.
pub(super) async fn revoke(
    Extension(app): Extension<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check_change(&app, &uri, &headers)?;
    let id = uri.path().strip_prefix("/admin/tokens/").unwrap_or_default();
    let token = app.log.revoke_token(Arc::from(id)).await.map_err(token_problem)?;
    Ok(json(StatusCode::OK, &shown(&token, None)))
}

fn draft(headers: &HeaderMap, body: &[u8]) -> Result<TokenDraft, Problem> {
    let Some(mut object) = Object::read(headers, body)? else {
        let detail = "say what it is called and may do, such as {\"name\":\"ci\",\"append\":[\"audits\"]}";
        return Err(Problem::new(ProblemCode::BodyEmpty, detail));
    };
    let name = object.take_text("name", check_hold_name);
    if !object.has("name") {
        object.refuse("name", "must say what the token is called");
    }
    let append = object.take("append", patterns);
    let read = object.take("read", patterns);
    let is_flag = |value: &Value| value.as_bool().ok_or("must be true or false".to_owned());
    let admin = object.take("admin", is_flag);
    let metrics = object.take("metrics", is_flag);
    let expires_in = object.take_text("expires_in", |text| {
        config::age(text).and_then(after).ok_or("must be a duration such as 12h, 90d or 1year")
    });
    let expires_at = object.take_text("expires_at", |text| {
        let time = Timestamp::parse(text).filter(|time| *time > Timestamp::now());
        time.ok_or("must be an RFC 3339 time to come")
    });
    if expires_in.is_some() && object.has("expires_at") {
        object.refuse("expires_at", "excludes expires_in; give one of them");
    }
    let grants = Grants {
        append: append.unwrap_or_default().into(),
        read: read.unwrap_or_default().into(),
        admin: admin.unwrap_or(false),
        metrics: metrics.unwrap_or(false),
    };
    let is_for_nothing =
        grants.append.is_empty() && grants.read.is_empty() && !grants.admin && !grants.metrics;
    if is_for_nothing && !["append", "read", "admin", "metrics"].iter().any(|member| object.has(member)) {
        object.refuse("", "must grant something: any of append, read, admin and metrics");
    }
    object.finish()?;
    let name = name.expect("an object without errors has its name");
    Ok(TokenDraft { name, grants, expires_at: expires_in.or(expires_at) })
}

fn patterns(value: &Value) -> Result<Vec<Pattern>, String> {
    let texts = value.as_array().map(|texts| texts.iter().map(Value::as_str).collect::<Option<Vec<&str>>>());
    let texts = texts.flatten().ok_or("must be an array of streams such as audits or orders.*")?;
    Grants::patterns(texts).map_err(|error| error.to_string())
}

/// So long from now; `None` beyond the years there are.
fn after(length: std::time::Duration) -> Option<Timestamp> {
    let end = Timestamp::now().microseconds().checked_add(i64::try_from(length.as_micros()).ok()?)?;
    Some(Timestamp::from_microseconds(end)).filter(|time| time.microseconds() == end)
}

fn token_problem(error: TokenError) -> Problem {
    match error {
        TokenError::TooMany => {
            let detail = format!("there are {TOKENS_MAX} tokens; revoke one first");
            Problem::new(ProblemCode::TokensFull, detail).with("tokens_max", TOKENS_MAX)
        }
        TokenError::Unknown => {
            Problem::new(ProblemCode::TokenNotFound, "GET /admin/tokens lists the tokens that there are")
        }
        TokenError::Append(error) => change_problem(error),
    }
}
