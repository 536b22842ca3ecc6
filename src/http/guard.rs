//! What every request passes: on the way in the checks of its shape, host and origin, on the way out an id and, for a
//! problem, its body.

use super::{App, Problem, ProblemCode};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The header that carries the id of a request in its answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest path and query. *Units*: bytes.
const URI_BYTES_MAX: usize = 8 << 10;

/// The outermost layer: gives the request its id, writes a problem out, logs the exchange.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let id = request_id();
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let rendered = problem.render(&id);
        *response.status_mut() = rendered.status();
        let (parts, body) = rendered.into_parts();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
    }
    let value = HeaderValue::try_from(&id).expect("an id is digits and letters");
    response.headers_mut().insert(REQUEST_ID, value);
    // What is served is data, never a page or a script of its own accord.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    tracing::debug!(
        request_id = id,
        %method,
        route = route.as_deref().unwrap_or("none"),
        status = response.status().as_u16(),
        seconds = began.elapsed().as_secs_f64(),
        "answered"
    );
    response
}

/// The inner layer: refuses what no handler should see.
pub(super) async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    if let Err(problem) = check(&app, &request) {
        let is_malformed = problem.is_about_the_connection();
        let mut response = problem.into_response();
        if is_malformed {
            // Where the next request begins on this connection is anyone's guess.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        return response;
    }
    next.run(request).await
}

fn check(app: &App, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        let detail = "Content-Length and Transfer-Encoding exclude each other; send one of them";
        return Err(Problem::new(ProblemCode::RequestInvalid, detail));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if request.version() == Version::HTTP_10 => &HeaderValue::from_static(""),
        _ => return Err(Problem::new(ProblemCode::RequestInvalid, "send exactly one Host header")),
    };
    if request.uri().path_and_query().is_some_and(|uri| uri.as_str().len() > URI_BYTES_MAX) {
        let detail = format!("send at most {URI_BYTES_MAX} bytes");
        return Err(Problem::new(ProblemCode::UriTooLong, detail).with("bytes_max", URI_BYTES_MAX));
    }
    let origins = &app.settings.origins;
    if !origins.allows_host(host) {
        let detail = "use localhost, or add the name with EVERTAIL_ALLOWED_HOSTS";
        return Err(Problem::new(ProblemCode::HostRefused, detail));
    }
    // Browsers send Origin with every cross-site request that could do harm; what is no browser sends none.
    match headers.get(header::ORIGIN) {
        Some(origin) if !origins.allows_origin(origin, headers) => {
            let detail = "add the origin of the page with EVERTAIL_ALLOWED_ORIGINS";
            Err(Problem::new(ProblemCode::OriginRefused, detail))
        }
        _ => Ok(()),
    }
}

/// Unique within this process and, by its random part, among restarts.
fn request_id() -> String {
    static PROCESS: OnceLock<u32> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(rand::random);
    format!("req-{process:08x}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
