//! A request as every line of the server's own log names it: id, method, matched route and trace.
//!
//! A span costs more than a tenth of an append. So appends have one only where `debug` asks for it, and what is said of one
//! anyway, rarely, is said in [`Asked::line`]; all other requests have one. See `docs/logs.md`.

use super::envelope;
use crate::traces::Answered;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::io::Write;
use std::str;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tracing::Span;

/// The header that carries the id of a request, in an answer and, if a proxy has given it one, in the request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id of a request. *Units*: bytes.
const ID_BYTES_MAX: usize = 64;

/// The routes that are not of the log. `tests/tidy.rs` holds them against the router.
const ROUTES: [&str; 12] = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/admin/trim",
    "/admin/holds",
    "/admin/holds/{stream}/{name}",
    "/admin/tokens",
    "/admin/tokens/{id}",
    "/auth/session",
    "/auth/tickets",
];

/// A span of a request. A macro, since a level is part of the place where a span is made.
macro_rules! span {
    ($asked:expr, $level:ident) => {
        tracing::span!(
            parent: None,
            tracing::Level::$level,
            "request",
            request_id = $asked.id.as_str(),
            method = $asked.method,
            route = $asked.route,
            trace_id = $asked.trace_id(),
        )
    };
}

/// What is known of a request before it is answered. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    id: RequestId,
    /// One of those that HTTP names; anyone may make up others, of any length.
    method: &'static str,
    /// Which route it is, as a template; `None` where there is none.
    route: Option<&'static str>,
    traceparent: Option<Arc<str>>,
}

impl Asked {
    /// Takes up a request. `route` is that of the log, if it is one.
    pub(super) fn of(request: &Parts, route: Option<&'static str>) -> Self {
        Self {
            id: RequestId::of(&request.headers),
            method: method(&request.method),
            route: route.or_else(|| route_of(request.uri.path())),
            traceparent: envelope::traceparent(&request.headers),
        }
    }

    /// Its id.
    pub(super) fn id(&self) -> &RequestId {
        &self.id
    }

    /// The span that it is part of.
    pub(super) fn traceparent(&self) -> Option<Arc<str>> {
        self.traceparent.clone()
    }

    fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref().and_then(|traceparent| traceparent.get(3..35))
    }

    /// What its span in the traces says, once it is answered.
    pub(super) fn answered(&self, status: u16, began: Instant) -> Answered<'_> {
        Answered {
            method: self.method,
            route: self.route,
            request_id: self.id.as_str(),
            traceparent: self.traceparent.as_deref(),
            status,
            began,
        }
    }

    /// The span in which it is answered: disabled for an append, unless `debug` is on.
    pub(super) fn span(&self) -> Span {
        let is_append =
            self.method == "POST" && matches!(self.route, Some("/api/v1/{stream}" | "/api/v1/events"));
        if is_append { span!(self, DEBUG) } else { span!(self, ERROR) }
    }

    /// A span for a line that is written outside of the other one, or where there may be none.
    pub(super) fn line(&self) -> Span {
        span!(self, ERROR)
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "other",
    }
}

/// The route of a path that is not of the log.
fn route_of(path: &str) -> Option<&'static str> {
    ROUTES.into_iter().find(|route| {
        let mut segments = path.split('/');
        route.split('/').all(|wanted| {
            segments
                .next()
                .is_some_and(|segment| segment == wanted || (wanted.starts_with('{') && !segment.is_empty()))
        }) && segments.next().is_none()
    })
}

/// The id of a request. Inline, because each append has one and it is in its answer alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestId {
    text: [u8; ID_BYTES_MAX],
    length: usize,
}

impl RequestId {
    /// The id that a proxy has given the request, so that its log and ours name it alike; else one of our own.
    ///
    /// One that could be read as more than an id (white space, quotes, braces) is not taken.
    fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(REQUEST_ID).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::given(value.as_bytes()).unwrap_or_else(Self::own),
            _ => Self::own(),
        }
    }

    fn given(bytes: &[u8]) -> Option<Self> {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:/+=".contains(byte);
        let mut text = [0; ID_BYTES_MAX];
        text.get_mut(..bytes.len())?.copy_from_slice(bytes);
        (!bytes.is_empty() && bytes.iter().all(is_part)).then_some(Self { text, length: bytes.len() })
    }

    /// Unique within this process and, by its random part, among restarts. Written without a formatter.
    fn own() -> Self {
        static PREFIX: OnceLock<String> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let prefix = PREFIX.get_or_init(|| format!("req-{:08x}-", rand::random::<u32>()));
        let mut text = [0; ID_BYTES_MAX];
        let mut rest = &mut text[..];
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let written =
            rest.write_all(prefix.as_bytes()).and_then(|()| Ok(serde_json::to_writer(&mut rest, &number)?));
        written.expect("the prefix is short");
        let length = ID_BYTES_MAX - rest.len();
        Self { text, length }
    }

    /// The id.
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.text[..self.length]).expect("it is ASCII")
    }

    /// The id as a header of the answer.
    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.text[..self.length]).expect("it is visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_proxies_are_taken_if_they_are_nothing_but_ids() {
        for good in ["a", "7f2c-4e", "Root=1-67891233-abcdef", "a/b+c==", &"x".repeat(64)] {
            assert_eq!(RequestId::given(good.as_bytes()).unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "a\"", "a}", "{a", "a\n", "é", "a\tb", "a,b", &"x".repeat(65)] {
            assert!(RequestId::given(bad.as_bytes()).is_none(), "{bad:?}");
        }
        let (one, other) = (RequestId::own(), RequestId::own());
        assert!(one.as_str().starts_with("req-") && one.as_str() != other.as_str());
    }

    #[test]
    fn routes_are_told_by_their_templates() {
        for (path, route) in [
            ("/", Some("/")),
            ("/admin/trim", Some("/admin/trim")),
            ("/admin/holds/a/b", Some("/admin/holds/{stream}/{name}")),
            ("/admin/holds/a", None),
            ("/admin/holds//b", None),
            ("/admin/tokens/x", Some("/admin/tokens/{id}")),
            ("/auth/tickets", Some("/auth/tickets")),
            ("/auth/tickets/", None),
            ("/nowhere", None),
            ("", None),
        ] {
            assert_eq!(route_of(path), route, "{path}");
        }
    }
}
