//! The service behind every connection: what each request passes on its way in and out, and who answers it.
//!
//! The routes of the log are dispatched here, on hyper's types: at 50,000 requests a second a router's boxes and clones
//! cost more than the append itself. Everything else is an axum router.

use super::access::{self, Access};
use super::asked::{Asked, REQUEST_ID};
use super::guard::{self, OverTls};
use super::limits::{self, Client, Held, Limits};
use super::listen::Peer;
use super::metrics::{self, Connected};
use super::openapi::Credentials;
use super::stream::{self as event_stream, EventStream};
use super::{
    App, Caller, Closing, HttpSettings, Problem, ProblemCode, accept, address, admin, append, body, close,
    history, openapi, read, session, streams, tokens,
};
use crate::auth::{Auth, Refused};
use crate::event::{NameError, StreamName};
use crate::log::Log;
use crate::traces::Traces;
use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use futures_util::FutureExt;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use std::convert::Infallible;
use std::future::ready;
use std::io::Write;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument;

const ALLOW_SAYS: &str = "the Allow header names the methods of this path";

/// An answer before it is sent.
pub(super) type Answer = Response<AnswerBody>;

/// What follows the head of an answer.
pub(super) enum AnswerBody {
    /// A body that hyper sends.
    Whole(Body),
    /// An event stream, which takes the connection over.
    Stream(Box<EventStream>),
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::Whole(Body::empty())
    }
}

/// All routes, with what every request passes. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

struct Shared {
    app: App,
    /// What is not the log.
    router: Router,
    cors: CorsLayer,
    /// It answers for the log; else only for who operates the server.
    has_log: bool,
}

impl Service {
    /// The service of this log. `closing` is set once, when the server begins to stop.
    ///
    /// Without `auth` everyone who reaches it may do everything.
    pub fn new(
        log: Log,
        auth: Option<Auth>,
        settings: HttpSettings,
        closing: watch::Receiver<Option<Closing>>,
    ) -> Self {
        let limits = Arc::new(Limits::new(&settings.limits));
        let openapi = openapi::text(&settings, Credentials::of(auth.as_ref()));
        let app = App {
            limits,
            metrics: Arc::default(),
            traces: None,
            log,
            settings: Arc::new(settings),
            closing,
            auth,
            openapi,
            access: Access::default(),
        };
        let router = beside_the_log(operating());
        Self(Arc::new(Shared { cors: cors(&app), router, app, has_log: true }))
    }

    /// The same service, which sends a span for each request.
    pub fn with_traces(self, traces: Traces) -> Self {
        let Shared { app, router, cors, has_log } = &*self.0;
        let app = App { traces: Some(traces), ..app.clone() };
        Self(Arc::new(Shared { app, router: router.clone(), cors: cors.clone(), has_log: *has_log }))
    }

    /// The same server on two ports: the API, and what is for who operates it, which is not on the first any more.
    pub fn apart(self, settings: HttpSettings) -> (Self, Self) {
        let Shared { app, .. } = &*self.0;
        let of_log =
            Shared { app: app.clone(), router: beside_the_log(health()), cors: cors(app), has_log: true };
        let app = App { settings: Arc::new(settings), ..app.clone() };
        let router = operating()
            .fallback(|| async {
                Problem::new(ProblemCode::RouteNotFound, "this port has /metrics, /healthz and /readyz")
            })
            .method_not_allowed_fallback(|| async {
                Problem::new(ProblemCode::MethodNotAllowed, ALLOW_SAYS)
            });
        let of_operators = Shared { cors: cors(&app), app, router, has_log: false };
        (Self(Arc::new(of_log)), Self(Arc::new(of_operators)))
    }

    /// Counts a connection of the API while the value lives.
    pub(super) fn connected(&self) -> Option<Connected> {
        self.0.has_log.then(|| Connected::new(&self.0.app.metrics))
    }

    /// Notes how many connections of the API there may be.
    pub(super) fn note_connections_max(&self, max: usize) {
        if self.0.has_log {
            self.0.app.metrics.connections_max.set(max as u64);
        }
    }

    /// The route of the log that a path is.
    fn route_of<'p>(&self, path: &'p str) -> Option<Route<'p>> {
        Route::of(path).filter(|_| self.0.has_log)
    }

    /// A place for a connection of this address; `None` if it has as many as it may. A trusted proxy has no limit.
    pub(super) fn place_of(&self, address: IpAddr) -> Option<Held> {
        let App { limits, settings, .. } = &self.0.app;
        let is_proxy = address::is_trusted(address.to_canonical(), &settings.trusted_proxies);
        limits.connection(Client::of_address(address, &settings.limits).filter(|_| !is_proxy).as_ref())
    }

    /// Answers a request, whatever it is. `peer` is the other end of its connection.
    ///
    /// From here on its head is passed by reference, and everything but appending is in a box: the future of a connection is
    /// moved for each request, so it must be small.
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Answer {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let settings = &self.0.app.settings;
        let address = address::client(peer.address, &parts.headers, &settings.trusted_proxies);
        let asked = Asked::of(&parts, self.route_of(parts.uri.path()).map(Route::template));
        let span = asked.span();
        let caller = Caller { address, client: Client::of_address(address, &settings.limits), asked };
        let mut answer = match span.is_disabled() {
            true => self.answer_to(&parts, body, peer, &caller).await,
            false => Box::pin(self.answer_to(&parts, body, peer, &caller).instrument(span.clone())).await,
        };
        if parts.method == Method::HEAD && matches!(answer.body(), AnswerBody::Stream(_)) {
            *answer.body_mut() = AnswerBody::default();
        }
        let headers = answer.headers_mut();
        if self.0.app.auth.is_some() {
            // Nor one that is for one credential to another.
            headers.append(header::VARY, HeaderValue::from_static("authorization, cookie"));
        }
        // What is served is data, never a page or a script of its own accord.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        span.in_scope(|| {
            tracing::debug!(
                client = %address,
                status = answer.status().as_u16(),
                seconds = began.elapsed().as_secs_f64(),
                "answered"
            );
        });
        // Who operates the server asks for its health every few seconds, and on a port of its own for nothing else.
        if let Some(traces) = self.0.app.traces.as_ref().filter(|_| self.0.has_log) {
            traces.add(&caller.asked.answered(answer.status().as_u16(), began));
        }
        answer.headers_mut().insert(REQUEST_ID, caller.asked.id().header());
        answer
    }

    /// Answers whoever it is, page or not.
    async fn answer_to(&self, parts: &Parts, body: Incoming, peer: Peer, caller: &Caller) -> Answer {
        // The routes of /admin are for no page of another origin, so nothing is told of them to one.
        let is_from_page = (parts.method == Method::OPTIONS || parts.headers.contains_key(header::ORIGIN))
            && !admin::is_route(parts.uri.path());
        if is_from_page {
            return Box::pin(self.answer_page(parts, body, peer, caller)).await;
        }
        let mut answer = self.serve(parts, body, peer, caller).await;
        // A cache must not give this answer, which lets no page in, to a page.
        answer.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
        answer
    }

    /// Answers a page, with what it may see of the answer; a preflight has no other answer.
    async fn answer_page(&self, parts: &Parts, body: Incoming, peer: Peer, caller: &Caller) -> Answer {
        let bare = service_fn(|_| ready(Ok::<_, Infallible>(Response::new(AnswerBody::default()))));
        let asked = Request::from_parts(parts.clone(), ());
        let Ok(allowed) = self.0.cors.layer(bare).oneshot(asked).await;
        if parts.method == Method::OPTIONS {
            return allowed;
        }
        let mut answer = self.serve(parts, body, peer, caller).await;
        for (name, value) in allowed.headers() {
            answer.headers_mut().append(name, value.clone());
        }
        answer
    }

    /// Checks a request, has it answered, and writes out the problem if there is one.
    async fn serve(&self, parts: &Parts, mut body: Incoming, peer: Peer, caller: &Caller) -> Answer {
        let app = &self.0.app;
        let checked = guard::check(app, parts);
        let limited = checked.as_ref().map_or(None, |()| limits::refusal(app, peer, caller));
        let mut answer = match checked {
            Ok(()) if let Some(refusal) = limited => {
                let mut answer = refuse(app, parts, refusal);
                if peer.is_turned_away {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
            Ok(()) => match AssertUnwindSafe(self.dispatch(parts, body, caller)).catch_unwind().await {
                Ok(answered) => answered.unwrap_or_else(problem),
                // Where, and why, is said by the panic hook.
                Err(_) => {
                    caller
                        .asked
                        .line()
                        .in_scope(|| tracing::error!("a request ended in a bug of the server"));
                    let detail = "the request ended in a bug of the server; report it with the instance";
                    problem(Problem::new(ProblemCode::Internal, detail))
                }
            },
            Err(refusal) => {
                let is_malformed = refusal.is_about_the_connection();
                if !is_malformed {
                    Box::pin(body::discard(&parts.headers, &mut body, &app.settings)).await;
                }
                let mut answer = problem(refusal);
                if is_malformed {
                    // Where the next request begins on this connection is anyone's guess.
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        };
        if let Some(problem) = answer.extensions_mut().remove::<Problem>() {
            app.metrics.refusals.of(problem.code()).increment();
            debug_assert!(
                !self.0.has_log
                    || openapi::is_listed(parts.method.as_str(), parts.uri.path(), problem.code()),
                "the document does not say that {} {} may answer {:?}",
                parts.method,
                parts.uri.path(),
                problem.code()
            );
            let (rendered, body) = problem.render(caller.asked.id().as_str()).into_parts();
            *answer.status_mut() = rendered.status;
            answer.headers_mut().remove(header::CONTENT_LENGTH);
            answer.headers_mut().extend(rendered.headers);
            *answer.body_mut() = AnswerBody::Whole(body);
        }
        answer
    }

    async fn dispatch(&self, parts: &Parts, body: Incoming, caller: &Caller) -> Result<Answer, Problem> {
        let app = &self.0.app;
        match (&app.auth, self.route_of(parts.uri.path())) {
            (None, Some(route)) => self.of_the_log(app, route, parts, body, caller).await,
            (None, None) => Ok(Box::pin(self.elsewhere(app, parts, body)).await),
            (Some(auth), route) => Box::pin(self.authorised(auth, route, parts, body, caller)).await,
        }
    }

    /// Finds out who asks, and answers on its behalf.
    async fn authorised(
        &self,
        auth: &Auth,
        route: Option<Route<'_>>,
        parts: &Parts,
        body: Incoming,
        caller: &Caller,
    ) -> Result<Answer, Problem> {
        let app = &self.0.app;
        let path = parts.uri.path();
        let is_public =
            route.is_none() && !admin::is_route(path) && !path.starts_with("/auth/") && path != metrics::PATH;
        if is_public || session::is_end(&parts.method, &parts.uri, &parts.headers) {
            return Ok(self.elsewhere(app, parts, body).await);
        }
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        let stream = match route {
            Some(Route::Stream(name)) if is_read => stream_name(name).ok(),
            _ => None,
        };
        let is_event_source = is_read
            && matches!(route, Some(Route::Log | Route::Stream(_)))
            && accept::is_event_source(&parts.headers);
        let access = match Access::of(auth, parts, caller, stream.as_ref()).await {
            Ok(access) => access,
            Err(refusal) => match refusal.reason().filter(|_| is_event_source) {
                Some(reason) => return Ok(event_stream::refuse(app, &parts.headers, reason)),
                None => return Err(refusal.into()),
            },
        };
        if is_event_source && !access.is_reader() {
            return Ok(event_stream::refuse(app, &parts.headers, access::reason(Refused::Missing)));
        }
        if admin::is_route(path) {
            access.check_admin()?;
        }
        if path == metrics::PATH {
            access.check_metrics()?;
        }
        let log = app.log.by(access.origin(caller));
        let mut caller = caller.clone();
        if let Some((_, identity)) = access.known() {
            caller.client = Some(Client::Credential(identity.name.clone()));
            if let Some((problem, reason)) = limits::rate(app, &caller) {
                return match is_event_source {
                    true => Ok(event_stream::refuse(app, &parts.headers, reason)),
                    false => Err(problem),
                };
            }
        }
        let app = App { log, access, ..app.clone() };
        match route {
            Some(route) => self.of_the_log(&app, route, parts, body, &caller).await,
            None => Ok(self.elsewhere(&app, parts, body).await),
        }
    }

    /// Answers on a route that is not of the log.
    async fn elsewhere(&self, app: &App, parts: &Parts, body: Incoming) -> Answer {
        let mut request = Request::from_parts(parts.clone(), Body::new(body));
        request.extensions_mut().insert(app.clone());
        let Ok(answer) = self.0.router.clone().oneshot(request).await;
        answer.map(AnswerBody::Whole)
    }

    /// Answers on a route of the log, and takes what is left of the body of a refused request.
    async fn of_the_log(
        &self,
        app: &App,
        route: Route<'_>,
        parts: &Parts,
        mut body: Incoming,
        caller: &Caller,
    ) -> Result<Answer, Problem> {
        let answered = on_the_log(app, route, parts, &mut body, caller).await;
        if answered.as_ref().is_err_and(|problem| !problem.is_about_a_broken_body()) {
            Box::pin(body::discard(&parts.headers, &mut body, &app.settings)).await;
        }
        answered
    }
}

async fn on_the_log(
    app: &App,
    route: Route<'_>,
    parts: &Parts,
    body: &mut Incoming,
    caller: &Caller,
) -> Result<Answer, Problem> {
    match (&parts.method, route) {
        (&Method::POST, Route::Log) => {
            Ok(append::append(app, None, &parts.headers, body, caller).await?.map(AnswerBody::Whole))
        }
        (&Method::POST, Route::Stream(name)) => {
            let stream = append::appendable(stream_name(name)?)?;
            Ok(append::append(app, Some(stream), &parts.headers, body, caller).await?.map(AnswerBody::Whole))
        }
        (&Method::GET | &Method::HEAD, Route::Log) => Box::pin(read::read(app, parts, None, caller)).await,
        (&Method::GET | &Method::HEAD, Route::Stream(name)) => {
            Box::pin(read::read(app, parts, Some(stream_name(name)?), caller)).await
        }
        (&Method::GET | &Method::HEAD, Route::Event(seq)) => {
            Ok(Box::pin(read::event(app, parts, seq)).await?.map(AnswerBody::Whole))
        }
        (&Method::POST, Route::Close(name)) => {
            let stream = append::appendable(stream_name(name)?)?;
            Ok(Box::pin(close::close(app, stream, &parts.headers, body)).await?.map(AnswerBody::Whole))
        }
        (&Method::GET | &Method::HEAD, Route::Streams) => {
            Ok(Box::pin(streams::list(app, parts)).await?.map(AnswerBody::Whole))
        }
        (&Method::GET | &Method::HEAD, Route::Totals(name)) => {
            Ok(Box::pin(streams::one(app, parts, stream_name(name)?)).await?.map(AnswerBody::Whole))
        }
        (_, Route::Log | Route::Stream(_)) => Ok(method_not_allowed("GET,HEAD,POST")),
        (_, Route::Close(_)) => Ok(method_not_allowed("POST")),
        (_, Route::Event(_) | Route::Streams | Route::Totals(_)) => Ok(method_not_allowed("GET,HEAD")),
    }
}

/// What is not the log, with these routes too.
fn beside_the_log(routes: Router) -> Router {
    routes
        .route("/", get(read::console))
        .route("/openapi.json", get(openapi::serve))
        .route("/admin/trim", post(admin::trim))
        .route("/admin/holds", get(admin::holds))
        .route("/admin/holds/{stream}/{name}", put(admin::hold).delete(admin::release))
        .route("/admin/tokens", get(tokens::list).post(tokens::create))
        .route("/admin/tokens/{id}", delete(tokens::revoke))
        .route("/auth/session", post(session::begin).delete(session::end))
        .route("/auth/tickets", post(session::ticket))
        .fallback(|| async {
            Problem::new(ProblemCode::RouteNotFound, "the API is at /api/v1/{stream} and /api/v1/events")
        })
        .method_not_allowed_fallback(|| async { Problem::new(ProblemCode::MethodNotAllowed, ALLOW_SAYS) })
}

/// Whether the process runs, and takes appends.
fn health() -> Router {
    Router::new().route("/healthz", get(read::healthz)).route("/readyz", get(read::readyz))
}

/// The routes of who operates the server.
fn operating() -> Router {
    health().route("/metrics", get(metrics::scrape))
}

/// A route of the log.
#[derive(Clone, Copy)]
enum Route<'p> {
    /// `/api/v1/events`
    Log,
    /// `/api/v1/events/{seq}`
    Event(&'p str),
    /// `/api/v1/streams`
    Streams,
    /// `/api/v1/streams/{stream}`
    Totals(&'p str),
    /// `/api/v1/{stream}/close`
    Close(&'p str),
    /// `/api/v1/{stream}`
    Stream(&'p str),
}

impl<'p> Route<'p> {
    fn template(self) -> &'static str {
        match self {
            Self::Log => "/api/v1/events",
            Self::Event(_) => "/api/v1/events/{seq}",
            Self::Streams => "/api/v1/streams",
            Self::Totals(_) => "/api/v1/streams/{stream}",
            Self::Close(_) => "/api/v1/{stream}/close",
            Self::Stream(_) => "/api/v1/{stream}",
        }
    }

    fn of(path: &'p str) -> Option<Self> {
        let path = path.strip_prefix("/api/v1/")?;
        match path.split_once('/') {
            None if path.is_empty() => None,
            None if path == "events" => Some(Self::Log),
            None if path == "streams" => Some(Self::Streams),
            None => Some(Self::Stream(path)),
            Some(("events", seq)) if !seq.is_empty() && !seq.contains('/') => Some(Self::Event(seq)),
            Some(("streams", name)) if !name.is_empty() && !name.contains('/') => Some(Self::Totals(name)),
            Some((name, "close")) if !name.is_empty() => Some(Self::Close(name)),
            Some(_) => None,
        }
    }
}

/// The stream of the URL.
pub(super) fn stream_name(segment: &str) -> Result<StreamName, Problem> {
    let name = percent_decode_str(segment).decode_utf8().map_err(|_| NameError::StreamForm);
    name.and_then(|name| StreamName::parse(&name))
        .map_err(|error| Problem::new(ProblemCode::StreamInvalid, format!("the stream's name {error}")))
}

/// Tells a client that it has to wait: an EventSource by a stream that ends, since it would take any other answer for
/// the end.
fn refuse(app: &App, request: &Parts, (refusal, reason): (Problem, &'static str)) -> Answer {
    let is_read = matches!(request.method, Method::GET | Method::HEAD);
    let is_stream = matches!(Route::of(request.uri.path()), Some(Route::Log | Route::Stream(_)));
    if is_read && is_stream && accept::is_event_source(&request.headers) {
        event_stream::refuse(app, &request.headers, reason)
    } else {
        problem(refusal)
    }
}

fn problem(problem: Problem) -> Answer {
    problem.into_response().map(AnswerBody::Whole)
}

fn method_not_allowed(allowed: &'static str) -> Answer {
    let mut answer = problem(Problem::new(ProblemCode::MethodNotAllowed, ALLOW_SAYS));
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn cors(app: &App) -> CorsLayer {
    let origins = app.settings.origins.clone();
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, request| {
            origins.allows_origin(origin, &request.headers, OverTls::is_in(&request.extensions))
        }))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::CACHE_CONTROL,
            header::IF_MATCH,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([
            header::WWW_AUTHENTICATE,
            header::LOCATION,
            header::LINK,
            header::RETRY_AFTER,
            history::GAPS,
            REQUEST_ID,
        ])
        .max_age(Duration::from_secs(3600))
}

/// A header's value that is a short text and a number. Every ack has two, so it is written without a formatter.
pub(super) fn numbered(prefix: &str, number: u64) -> HeaderValue {
    let mut text = [0; 64];
    let mut rest = &mut text[..];
    let written =
        rest.write_all(prefix.as_bytes()).and_then(|()| Ok(serde_json::to_writer(&mut rest, &number)?));
    written.expect("the prefix is short");
    let room = rest.len();
    HeaderValue::from_bytes(&text[..64 - room]).expect("the prefix is text")
}
