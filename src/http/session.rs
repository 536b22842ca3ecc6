//! `/auth`: what a page gets for a credential, since it cannot give an EventSource one: a cookie, or a ticket for its URL.

use super::access::{SESSION_COOKIE, TICKET, credential_problem, has_cookie};
use super::guard::OverTls;
use super::members::{Object, whole};
use super::{App, Problem, ProblemCode, body};
use crate::auth::{Auth, Identity, Refused, TICKET_MAX};
use crate::event::{StreamName, Timestamp};
use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// How long a ticket opens its stream, unless it says so itself.
pub(super) const TICKET_DEFAULT: Duration = Duration::from_secs(60);

/// A ticket, and the URL that it is for.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Ticket")]
pub(super) struct TicketJson<'t> {
    /// The ticket itself.
    ticket: &'t str,
    /// The stream that it opens.
    stream: &'t str,
    /// Where to open it.
    url: String,
    /// When it ends.
    #[schemars(extend("format" = "date-time"))]
    expires_at: String,
}

/// Whether pages of other origins are kept from the path: a session is for pages of this server.
pub(super) fn is_for_own_pages(path: &str) -> bool {
    path == "/auth/session"
}

/// `POST /auth/session`: a cookie for who shows a token.
pub(super) async fn begin(Extension(app): Extension<App>, request: Request) -> Result<Response, Problem> {
    let (auth, identity) = known(&app)?;
    // Else a session would make itself longer, for ever.
    if !request.headers().contains_key(header::AUTHORIZATION) {
        return Err(credential_problem(Refused::Missing));
    }
    let Some((session, length)) = auth.session(identity) else {
        return Err(credential_problem(Refused::Missing));
    };
    let is_https = OverTls::is_in(request.extensions())
        || request
            .headers()
            .get(header::ORIGIN)
            .is_some_and(|origin| origin.as_bytes().starts_with(b"https:"));
    set_cookie(&session, length, is_https)
}

/// `DELETE /auth/session`: the cookie is taken back.
pub(super) async fn end(request: Request) -> Result<Response, Problem> {
    let is_https = OverTls::is_in(request.extensions());
    set_cookie("", Duration::ZERO, is_https)
}

fn set_cookie(session: &str, length: Duration, is_https: bool) -> Result<Response, Problem> {
    let seconds = length.as_secs();
    let secure = if is_https { "; Secure" } else { "" };
    let cookie =
        format!("{SESSION_COOKIE}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut cookie = HeaderValue::try_from(cookie).expect("base64 and numbers");
    cookie.set_sensitive(true);
    let headers =
        [(header::SET_COOKIE, cookie), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().extend(headers);
    Ok(response)
}

/// `POST /auth/tickets`: a ticket to open one stream, `{"stream":"orders","seconds":60}`.
///
/// Whether there is such a stream, and whether it may be read, is not told: the stream of the ticket is then one without
/// events.
pub(super) async fn ticket(
    Extension(app): Extension<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (auth, identity) = known(&app)?;
    app.access.check_reader()?;
    let body = body::read(&headers, body, &app.settings).await?;
    let Some(mut object) = Object::read(&headers, &body)? else {
        let detail = "say for which stream, such as {\"stream\":\"orders\"}";
        return Err(Problem::new(ProblemCode::BodyEmpty, detail));
    };
    let stream = object.take_text("stream", StreamName::parse);
    if !object.has("stream") {
        object.refuse("stream", "must name the stream that is to be opened");
    }
    let seconds = object.take("seconds", |value| {
        let seconds = whole(value).filter(|seconds| (1..=TICKET_MAX.as_secs()).contains(seconds));
        seconds.ok_or_else(|| format!("must be a whole number from 1 to {}", TICKET_MAX.as_secs()))
    });
    object.finish()?;
    let stream = stream.expect("an object without errors has its stream");
    let length = seconds.map_or(TICKET_DEFAULT, Duration::from_secs);
    let Some((ticket, length)) = auth.ticket(identity, &stream, length) else {
        return Err(credential_problem(Refused::Missing));
    };
    let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    let expires_at = Timestamp::from_microseconds(Timestamp::now().microseconds().saturating_add(micros));
    let answer = TicketJson {
        url: format!("/api/v1/{stream}?{TICKET}={ticket}"),
        ticket: &ticket,
        stream: stream.as_str(),
        expires_at: expires_at.to_string(),
    };
    let body = serde_json::to_vec(&answer).expect("a ticket always serialises");
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, headers, body).into_response())
}

/// *Errors*: authentication is off, or nobody in particular asks.
fn known(app: &App) -> Result<(&Auth, &Identity), Problem> {
    if app.auth.is_none() {
        let detail =
            "authentication is off, and nothing here needs a credential; EVERTAIL_AUTH=on turns it on";
        return Err(Problem::new(ProblemCode::RouteNotFound, detail));
    }
    app.access.known().ok_or_else(|| credential_problem(Refused::Missing))
}

/// Whether a request ends a session: that needs no valid one, so that an old cookie can be got rid of.
pub(super) fn is_end(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    method == Method::DELETE && uri.path() == "/auth/session" && has_cookie(headers)
}
