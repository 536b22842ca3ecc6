//! HTTP: the only place that knows axum.
//!
//! Layer L3. May import `event`, `frames`, `wire`, `sse` and `log`; never `store`.
//!
//! | file | holds |
//! |---|---|
//! | `listen` | the accept loop and the connection's time-outs |
//! | `guard` | what every request passes: id, host, origin, shape; and how problems are written |
//! | `origin` | which hosts and origins are let in |
//! | `append`, `body`, `envelope`, `form` | POST: handler, reading the body, what it means |
//! | `read`, `query`, `accept` | GET: handlers, parameters, content negotiation |
//! | `stream`, `page` | the SSE body; JSON pages and NDJSON |
//! | `problem` | RFC 9457 |

mod accept;
mod append;
mod body;
mod envelope;
mod form;
mod guard;
mod listen;
mod origin;
mod page;
mod problem;
mod query;
mod read;
mod stream;

pub use listen::{ConnectionSettings, serve};
pub use origin::OriginSettings;
pub use problem::{Problem, ProblemCode};

use crate::log::Log;
use axum::Router;
use axum::http::{HeaderName, Method, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Limits and times of requests and streams.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Who is let in.
    pub origins: OriginSettings,
    /// Largest event, all its texts together. *Units*: bytes.
    pub event_bytes_max: usize,
    /// Most events of one request.
    pub batch_events_max: usize,
    /// Largest body. *Units*: bytes.
    pub batch_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// Most bytes of one step of a reader. *Units*: bytes.
    pub page_bytes_max: usize,
    /// Longest silence on a stream.
    pub keep_alive: Duration,
    /// Bounds of the random delay after which a client that lost its stream comes back.
    pub retry: (Duration, Duration),
}

/// Why streams end and appends are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The server was asked to stop.
    Drain,
    /// The log has failed.
    Unavailable,
}

impl Closing {
    /// The word for it in a notice.
    fn reason(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What every handler works with.
#[derive(Debug, Clone)]
pub(crate) struct App {
    log: Log,
    settings: Arc<HttpSettings>,
    /// Set once, when the server begins to stop; every open stream waits for it.
    closing: watch::Receiver<Option<Closing>>,
}

impl App {
    fn closing(&self) -> Option<Closing> {
        *self.closing.borrow()
    }
}

/// The routes, with all that every request passes.
pub fn router(log: Log, settings: HttpSettings, closing: watch::Receiver<Option<Closing>>) -> Router {
    let app = App { log, settings: Arc::new(settings), closing };
    let origins = app.settings.origins.clone();
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, request| {
            origins.allows_origin(origin, &request.headers)
        }))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::CACHE_CONTROL,
            header::IF_MATCH,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::LOCATION, header::LINK, header::RETRY_AFTER, guard::REQUEST_ID])
        .max_age(Duration::from_secs(3600));
    Router::new()
        .route("/", get(read::console))
        .route("/healthz", get(read::healthz))
        .route("/readyz", get(read::readyz))
        .route("/api/v1/events", get(read::log).post(append::log))
        .route("/api/v1/events/{seq}", get(read::event))
        .route("/api/v1/{stream}", get(read::stream).post(append::stream))
        .fallback(|| async {
            Problem::new(ProblemCode::RouteNotFound, "the API is at /api/v1/{stream} and /api/v1/events")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(ProblemCode::MethodNotAllowed, "the Allow header names the methods of this path")
        })
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::admit))
        .layer(CatchPanicLayer::custom(|_| {
            // The panic hook has logged it.
            Problem::new(
                ProblemCode::Internal,
                "the request ended in a bug of the server; report it with the instance",
            )
            .into_response()
        }))
        .layer(cors)
        .layer(axum::middleware::from_fn(guard::answer))
        .with_state(app)
}
