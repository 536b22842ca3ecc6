//! HTTP: the only place that knows axum.
//!
//! Layer L3. May import `auth`, `event`, `frames`, `metrics`, `wire`, `sse` and `log`; never `store`.
//!
//! | file | holds |
//! |---|---|
//! | `limits` | how much each client may have |
//! | `listen`, `connection` | the accept loop; one connection and its time-outs |
//! | `http2` | one connection of HTTP/2: its streams and its bounds |
//! | `tls`, `socket` | the certificate and its replacement; a socket, plain or within TLS |
//! | `service` | the routes, and what every request passes |
//! | `guard` | what every request is checked for: shape, host, origin |
//! | `origin` | which hosts and origins are let in |
//! | `address` | where a request comes from, across proxies |
//! | `asked` | what the server's own log says of each request |
//! | `append`, `body`, `envelope`, `form` | POST: handler, reading the body, what it means |
//! | `cloudevents` | POST: events that come as CloudEvents |
//! | `close` | the end of a stream |
//! | `read`, `query`, `accept` | GET: handlers, parameters, content negotiation |
//! | `stream`, `transfer` | an event stream; how it is sent, alone on a socket or among others |
//! | `page` | JSON pages |
//! | `history`, `csv` | NDJSON, CSV and arrays of CloudEvents; what is gone of history |
//! | `streams` | which streams there are, and how much is in them |
//! | `access`, `session` | who asks, and what that allows; cookies and tickets of pages |
//! | `admin`, `tokens`, `members` | trims and holds; API tokens; the small JSON objects that ask for them |
//! | `metrics` | what the server counts, for Prometheus |
//! | `problem` | RFC 9457 |

mod accept;
mod access;
mod address;
mod admin;
mod append;
mod asked;
mod body;
mod close;
mod cloudevents;
mod connection;
mod csv;
mod envelope;
mod form;
mod guard;
mod history;
mod http2;
mod limits;
mod listen;
mod members;
mod metrics;
mod openapi;
mod origin;
mod page;
mod problem;
mod query;
mod read;
mod service;
mod session;
mod socket;
mod stream;
mod streams;
mod tls;
mod tokens;
mod transfer;

pub use envelope::{parse_body, parse_request};
pub use limits::LimitSettings;
pub use listen::{ConnectionSettings, adopt, bind, serve, turned_away_max};
pub use metrics::all_metrics;
pub use origin::OriginSettings;
pub use problem::{Problem, ProblemCode};
pub use query::parse_query;
pub use service::Service;
pub use tls::{Tls, TlsError, TlsFiles};

use crate::auth::Auth;
use crate::log::Log;
use crate::traces::Traces;
use access::Access;
use asked::Asked;
use bytes::Bytes;
use ipnet::IpNet;
use limits::{Client, Limits};
use metrics::Metrics;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Limits and times of requests and streams.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Who is let in.
    pub origins: OriginSettings,
    /// How much each client may have.
    pub limits: LimitSettings,
    /// Proxies that are believed when they say where a request comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// Longest path and query. *Units*: bytes.
    pub uri_bytes_max: usize,
    /// Deepest JSON.
    pub depth_max: usize,
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
    /// The word for it in a notice and in the log.
    pub(crate) fn reason(self) -> &'static str {
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
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    /// Where the span of each request goes, if anywhere.
    traces: Option<Traces>,
    /// Who is let in; `None` where everyone is.
    auth: Option<Auth>,
    /// What is said of all this, in JSON.
    openapi: Bytes,
    /// Of the request that is answered.
    access: Access,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Where the request comes from, across trusted proxies.
    address: IpAddr,
    /// Whom limits are of; `None` for this machine.
    client: Option<Client>,
    /// What is asked, as the server's own log names it.
    asked: Asked,
}

impl App {
    fn closing(&self) -> Option<Closing> {
        *self.closing.borrow()
    }
}
