//! Problems: every answer that is not what was asked for, as RFC 9457 says it.
//!
//! One closed list of codes, a row each: a new code does not compile until someone has decided its status, its title,
//! whether repeating helps, and whether it certainly changed nothing.
//!
//! A handler returns a [`Problem`]; the outermost layer gives it the request's id and writes it out, so that refusals
//! by the router, time-outs and panics look the same.

use super::Closing;
use crate::event::Seq;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

macro_rules! problem_codes {
    ($($name:ident: $code:literal, $status:ident, $retry:expr, $no_effect:literal, $title:literal;)*) => {
        /// What went wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemCode {
            $(#[doc = $title] $name,)*
        }

        impl ProblemCode {
            /// Every code, for tables and tests.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The codes as they stand in bodies, by index.
            pub(super) const NAMES: &[&str] = &[$($code),*];

            /// The code as it stands in the body.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What it means, for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// The HTTP status.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The very same request may succeed later, after so long. *Units*: seconds.
            pub fn retry_after_seconds(self) -> Option<u32> {
                match self { $(Self::$name => $retry,)* }
            }

            /// It is certain that the request changed nothing. Where it is not, repeat with the same id.
            pub fn certainly_had_no_effect(self) -> bool {
                match self { $(Self::$name => $no_effect,)* }
            }
        }
    };
}

// name: code, status, retry after so many seconds, certainly no effect, title
problem_codes! {
    RequestInvalid: "request_invalid", BAD_REQUEST, None, true, "The request is not valid HTTP for this server";
    HostRefused: "host_refused", MISDIRECTED_REQUEST, None, true, "This server does not answer under this host name";
    OriginRefused: "origin_refused", FORBIDDEN, None, true, "Pages of this origin may not use this server";
    Unauthorized: "unauthorized", UNAUTHORIZED, None, true, "A credential is needed";
    CredentialInvalid: "credential_invalid", UNAUTHORIZED, None, true, "The credential is not valid";
    CredentialExpired: "credential_expired", UNAUTHORIZED, None, true, "The credential has expired";
    KeysUnavailable: "keys_unavailable", SERVICE_UNAVAILABLE, Some(10), true, "The keys of tokens could not be fetched";
    Forbidden: "forbidden", FORBIDDEN, None, true, "The credential does not grant this";
    RouteNotFound: "route_not_found", NOT_FOUND, None, true, "There is nothing at this path";
    MethodNotAllowed: "method_not_allowed", METHOD_NOT_ALLOWED, None, true, "The path does not take this method";
    NotAcceptable: "not_acceptable", NOT_ACCEPTABLE, None, true, "None of the accepted content types can be sent";
    RequestTimeout: "request_timeout", REQUEST_TIMEOUT, Some(0), true, "The request took too long to arrive";
    UriTooLong: "uri_too_long", URI_TOO_LONG, None, true, "The path and query are too long";
    BodyEmpty: "body_empty", BAD_REQUEST, None, true, "The request has no body";
    BodyTooLarge: "body_too_large", PAYLOAD_TOO_LARGE, None, true, "The body is too large";
    ContentTypeUnsupported: "content_type_unsupported", UNSUPPORTED_MEDIA_TYPE, None, true, "The content type is not supported";
    ContentEncodingUnsupported: "content_encoding_unsupported", UNSUPPORTED_MEDIA_TYPE, None, true, "A body with a content encoding is not supported";
    BodyInvalid: "body_invalid", BAD_REQUEST, None, true, "The body does not say what this route needs";
    Utf8Invalid: "utf8_invalid", BAD_REQUEST, None, true, "The body is not valid UTF-8";
    JsonInvalid: "json_invalid", BAD_REQUEST, None, true, "The body is not valid JSON";
    EventInvalid: "event_invalid", UNPROCESSABLE_ENTITY, None, true, "An event does not have the shape of an event";
    EventTooLarge: "event_too_large", PAYLOAD_TOO_LARGE, None, true, "An event is too large";
    BatchTooLarge: "batch_too_large", PAYLOAD_TOO_LARGE, None, true, "The batch is too large";
    StreamInvalid: "stream_invalid", BAD_REQUEST, None, true, "This is not the name of a stream";
    StreamReserved: "stream_reserved", FORBIDDEN, None, true, "Only the server appends to this stream";
    IdReused: "id_reused", UNPROCESSABLE_ENTITY, None, true, "The id belongs to another event of the stream";
    IdempotencyKeyInvalid: "idempotency_key_invalid", BAD_REQUEST, None, true, "The Idempotency-Key cannot be used";
    PreconditionInvalid: "precondition_invalid", BAD_REQUEST, None, true, "The If-Match header cannot be used";
    PreconditionFailed: "precondition_failed", PRECONDITION_FAILED, None, true, "The last seq is another one";
    ParameterInvalid: "parameter_invalid", BAD_REQUEST, None, true, "A query parameter cannot be used";
    CursorInvalid: "cursor_invalid", BAD_REQUEST, None, true, "The cursor is not a seq";
    CursorAhead: "cursor_ahead", GONE, None, true, "The cursor is beyond the end of the log";
    LogReplaced: "log_replaced", GONE, None, true, "This is another log than the one asked for";
    Gone: "gone", GONE, None, true, "Events after the cursor were trimmed";
    EventNotFound: "event_not_found", NOT_FOUND, None, true, "There is no event with this seq";
    StreamNotFound: "stream_not_found", NOT_FOUND, None, true, "There is no stream of this name";
    StreamClosed: "stream_closed", CONFLICT, None, true, "The stream is closed";
    HoldInvalid: "hold_invalid", BAD_REQUEST, None, true, "This is not the name of a hold";
    HoldNotFound: "hold_not_found", NOT_FOUND, None, true, "The stream has no hold of this name";
    HoldDiffers: "hold_differs", CONFLICT, None, true, "The stream has a hold of this name for another reason";
    HoldsFull: "holds_full", CONFLICT, None, true, "There are as many holds as there may be";
    TokenNotFound: "token_not_found", NOT_FOUND, None, true, "There is no token of this id";
    TokensFull: "tokens_full", CONFLICT, None, true, "There are as many tokens as there may be";
    TrimIncomplete: "trim_incomplete", SERVICE_UNAVAILABLE, Some(1), false, "The trim was not finished";
    RateLimited: "rate_limited", TOO_MANY_REQUESTS, Some(1), true, "The client makes too many requests";
    StreamsFull: "streams_full", TOO_MANY_REQUESTS, Some(5), true, "The client has as many event streams open as it may";
    ConnectionsFull: "connections_full", SERVICE_UNAVAILABLE, Some(5), true, "There are as many connections as there may be";
    QueueFull: "queue_full", TOO_MANY_REQUESTS, Some(1), true, "The server has as many appends waiting as it may";
    DiskFull: "disk_full", INSUFFICIENT_STORAGE, Some(10), true, "The disk is full";
    LogBusy: "log_busy", SERVICE_UNAVAILABLE, Some(1), true, "Another process holds the write lock of the log file";
    LogUnavailable: "log_unavailable", SERVICE_UNAVAILABLE, Some(2), false, "The log cannot be appended to";
    Draining: "draining", SERVICE_UNAVAILABLE, Some(2), true, "The server is stopping";
    ReadFailed: "read_failed", SERVICE_UNAVAILABLE, Some(1), true, "The log file could not be read";
    Internal: "internal", INTERNAL_SERVER_ERROR, None, false, "The server has a bug";
}

/// Most entries of `errors` in one body.
pub(super) const ERRORS_MAX: usize = 16;

/// One thing wrong with a body: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberError {
    /// JSON pointer (RFC 6901) into the body.
    pub(super) pointer: String,
    /// What is wrong there.
    pub(super) detail: String,
}

/// A problem on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    code: ProblemCode,
    detail: String,
    extras: Map<String, Value>,
}

impl Problem {
    /// `detail` is one sentence about this very request that says what to change.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), extras: Map::new() }
    }

    /// Trimmed: what is left begins here.
    pub(super) fn gone(first_seq: Seq) -> Self {
        let detail = format!("the oldest retained event is seq {first_seq}; read after {}", first_seq - 1);
        Self::new(ProblemCode::Gone, detail).with("first_seq", first_seq)
    }

    /// The stream that was asked for is trimmed beyond the cursor.
    pub(super) fn gone_of_stream(stream: &str, first_seq: Seq) -> Self {
        let after = first_seq.saturating_sub(1);
        let detail = format!("the stream {stream} is trimmed before seq {first_seq}; read after {after}");
        Self::new(ProblemCode::Gone, detail).with("first_seq", first_seq).with("stream", stream)
    }

    /// The server stops, or its log has failed.
    pub(super) fn closing(closing: Closing) -> Self {
        match closing {
            Closing::Drain => {
                let detail = "nothing was stored; repeat the request when the server is back";
                Self::new(ProblemCode::Draining, detail)
            }
            Closing::Unavailable => {
                let detail = "whether the events are stored is not known; repeat the request with the same ids when the \
                              server is back";
                Self::new(ProblemCode::LogUnavailable, detail)
            }
        }
    }

    /// The table could not be read. Logged here, where it is handled.
    pub(super) fn read_failed(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "reading the log failed");
        Self::new(ProblemCode::ReadFailed, "try again; if it persists, look at the server's log")
    }

    /// What went wrong.
    pub(super) fn code(&self) -> ProblemCode {
        self.code
    }

    /// Adds a typed member to the body.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extras.insert(name.to_owned(), value.into());
        self
    }

    /// Adds `errors`.
    pub(super) fn with_errors(self, errors: &[MemberError]) -> Self {
        let listed = errors.iter().take(ERRORS_MAX);
        let listed = listed.map(|error| json!({"pointer": error.pointer, "detail": error.detail}));
        self.with("errors", listed.collect::<Vec<_>>())
    }

    /// The request could not even be delimited, so the connection cannot be used again.
    pub(super) fn is_about_the_connection(&self) -> bool {
        self.code == ProblemCode::RequestInvalid
    }

    /// Whether the body did not come as it should: nothing is to be expected of what is left of it.
    pub(super) fn is_about_a_broken_body(&self) -> bool {
        matches!(self.code, ProblemCode::RequestInvalid | ProblemCode::RequestTimeout)
    }

    /// What a credential must be (RFC 6750, section 3).
    fn challenge(&self) -> Option<&'static str> {
        match self.code {
            ProblemCode::Unauthorized => Some("Bearer realm=\"evertail\""),
            ProblemCode::CredentialInvalid | ProblemCode::CredentialExpired => {
                Some("Bearer realm=\"evertail\", error=\"invalid_token\"")
            }
            ProblemCode::Forbidden => Some("Bearer realm=\"evertail\", error=\"insufficient_scope\""),
            _ => None,
        }
    }

    /// Writes the problem out as the answer to the request with this id.
    pub(super) fn render(&self, request_id: &str) -> Response {
        let code = self.code.as_str();
        let body = Body {
            r#type: format!("urn:evertail:problem:{code}"),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            instance: request_id,
            code,
            retryable: self.code.retry_after_seconds().is_some(),
            no_effect: self.code.certainly_had_no_effect(),
            extras: &self.extras,
        };
        let body = serde_json::to_vec(&body).expect("a problem always serialises");
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge() {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.code.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The body of a problem, in the order in which a person reads it.
#[derive(serde::Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'static str,
    retryable: bool,
    no_effect: bool,
    #[serde(flatten)]
    extras: &'a Map<String, Value>,
}

impl IntoResponse for Problem {
    /// The status with the problem attached; the outermost layer writes the body.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_their_status_is_an_error() {
        let names: std::collections::HashSet<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ProblemCode::ALL.len());
        for code in ProblemCode::ALL.iter().copied() {
            let status = code.status();
            assert!(status.is_client_error() || status.is_server_error(), "{code:?}");
            let must_wait = [429, 503, 507].contains(&status.as_u16());
            assert!(!must_wait || code.retry_after_seconds().is_some(), "{code:?} needs a Retry-After");
        }
    }
}
