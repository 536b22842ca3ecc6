//! What every request is checked for on its way in: its shape, its host and its origin.

use super::origin::is_own_page;
use super::{App, Problem, ProblemCode, admin, session};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderValue, Version, header};

/// Goes with a request that came over TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct OverTls;

impl OverTls {
    pub(super) fn is_in(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some()
    }
}

/// Refuses what no handler should see.
pub(super) fn check(app: &App, request: &Parts) -> Result<(), Problem> {
    let headers = &request.headers;
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        let detail = "Content-Length and Transfer-Encoding exclude each other; send one of them";
        return Err(Problem::new(ProblemCode::RequestInvalid, detail));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if request.version == Version::HTTP_10 => &HeaderValue::from_static(""),
        _ => return Err(Problem::new(ProblemCode::RequestInvalid, "send exactly one Host header")),
    };
    let bytes_max = app.settings.uri_bytes_max;
    if request.uri.path_and_query().is_some_and(|uri| uri.as_str().len() > bytes_max) {
        let detail = format!("send at most {bytes_max} bytes");
        return Err(Problem::new(ProblemCode::UriTooLong, detail).with("bytes_max", bytes_max));
    }
    let origins = &app.settings.origins;
    let is_tls = OverTls::is_in(&request.extensions);
    if !origins.allows_host(host) {
        let detail = "use localhost, or add the name with EVERTAIL_ALLOWED_HOSTS";
        return Err(Problem::new(ProblemCode::HostRefused, detail));
    }
    let path = request.uri.path();
    if (admin::is_route(path) || session::is_for_own_pages(path)) && !is_own_page(headers, is_tls) {
        let detail = "pages of other origins never use /admin and sessions; use the command line, or a page of this server";
        return Err(Problem::new(ProblemCode::OriginRefused, detail));
    }
    // Browsers send Origin with every cross-site request that could do harm; what is no browser sends none.
    match headers.get(header::ORIGIN) {
        Some(origin) if !origins.allows_origin(origin, headers, is_tls) => {
            let detail = "add the origin of the page with EVERTAIL_ALLOWED_ORIGINS";
            Err(Problem::new(ProblemCode::OriginRefused, detail))
        }
        _ => Ok(()),
    }
}
