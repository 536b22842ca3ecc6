//! Which host names this server answers to, and which pages may use it.
//!
//! A server on loopback is reachable from every page its user visits. Two checks keep those pages out: `Host` must name
//! this machine (else a page could rebind its own name to 127.0.0.1 and be same-origin), and `Origin`, which browsers
//! set and pages cannot, must be one of those let in.

use crate::config::AllowedOrigin;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use std::net::IpAddr;

/// Who is let in.
#[derive(Debug, Clone)]
pub struct OriginSettings {
    /// The server listens on loopback only: loopback origins are let in, foreign hosts are not.
    pub is_loopback: bool,
    /// Further origins.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// Further host names, lower-case, without port. Off loopback, an empty list allows every name.
    pub allowed_hosts: Vec<String>,
}

impl OriginSettings {
    /// Whether a request to this `Host` is answered.
    pub(super) fn allows_host(&self, host: &HeaderValue) -> bool {
        let Ok(host) = host.to_str() else { return false };
        let name = host_name(host);
        // HTTP/1.0 without a Host comes from a tool, not from a browser.
        name.is_empty()
            || self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
            || if self.is_loopback { is_loopback(name) } else { self.allowed_hosts.is_empty() }
    }

    /// Whether a page of this origin may use the server under the `Host` it asked, over TLS or not.
    pub(super) fn allows_origin(&self, origin: &HeaderValue, headers: &HeaderMap, is_tls: bool) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let listed = self.allowed_origins.iter().any(|allowed| match allowed {
            AllowedOrigin::Any => true,
            AllowedOrigin::Null => origin == "null",
            AllowedOrigin::Exact(exact) => origin == exact,
        });
        let Some(page) = WebOrigin::parse(origin) else { return listed };
        listed || page.is_of_host(headers, is_tls) || (self.is_loopback && is_loopback(page.authority.host()))
    }
}

/// Whether a request that a browser sends is one of a page of this very server, under the `Host` it asked, over TLS or not.
///
/// Where a browser says that page and server differ, in `Sec-Fetch-Site`, it is believed: without TLS here the scheme that
/// it sees may be that of a proxy in front.
pub(super) fn is_own_page(headers: &HeaderMap, is_tls: bool) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.all(|site| site == "same-origin" || site == "none")
        && headers.get_all(header::ORIGIN).iter().all(|origin| {
            let page = origin.to_str().ok().and_then(WebOrigin::parse);
            page.is_some_and(|page| page.is_of_host(headers, is_tls))
        })
}

/// The origin of a web page.
struct WebOrigin {
    is_https: bool,
    authority: Authority,
}

impl WebOrigin {
    fn parse(origin: &str) -> Option<Self> {
        let uri = origin.parse::<Uri>().ok()?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return None,
        };
        uri.authority().cloned().map(|authority| Self { is_https, authority })
    }

    /// Whether the page is of the `Host` that is asked. One that came without TLS to a server with it may be anyone's;
    /// without TLS here, a proxy may have ended that of the page.
    fn is_of_host(&self, headers: &HeaderMap, is_tls: bool) -> bool {
        (self.is_https || !is_tls)
            && headers
                .get(header::HOST)
                .is_some_and(|host| host.as_bytes() == self.authority.as_str().as_bytes())
    }
}

/// A host without its port; an IPv6 address keeps its brackets.
fn host_name(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

fn is_loopback(name: &str) -> bool {
    // What nearly every request says.
    if name == "127.0.0.1" {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn settings(is_loopback: bool, origins: Vec<AllowedOrigin>) -> OriginSettings {
        OriginSettings { is_loopback, allowed_origins: origins, allowed_hosts: vec!["log.test".into()] }
    }

    fn allows(settings: &OriginSettings, origin: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("log.test:8888"))]);
        settings.allows_origin(&HeaderValue::try_from(origin).unwrap(), &headers, false)
    }

    #[test]
    fn over_tls_a_page_of_the_same_host_must_have_come_over_tls() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("log.test:8888"))]);
        let is_let_in = |origin: &'static str, is_tls| {
            settings(false, vec![]).allows_origin(&HeaderValue::from_static(origin), &headers, is_tls)
        };
        assert!(is_let_in("https://log.test:8888", true) && !is_let_in("http://log.test:8888", true));
        assert!(is_let_in("https://log.test:8888", false) && is_let_in("http://log.test:8888", false));
    }

    #[test]
    fn pages_of_this_machine_are_let_in_and_no_others() {
        let local = settings(true, vec![]);
        for good in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5", "http://log.test:8888"] {
            assert!(allows(&local, good), "{good}");
        }
        for bad in [
            "null",
            "https://evil.test",
            "http://localhost.evil.test",
            "http://127.0.0.1.evil.test",
            "file://localhost",
            "http://log.test",
            "localhost",
            "",
        ] {
            assert!(!allows(&local, bad), "{bad}");
        }
        assert!(!allows(&settings(false, vec![]), "http://localhost:3000"));
    }

    #[test]
    fn the_list_opens_it_to_others() {
        let listed =
            settings(true, vec![AllowedOrigin::Null, AllowedOrigin::Exact("https://app.test".into())]);
        assert!(allows(&listed, "null") && allows(&listed, "https://app.test"));
        assert!(!allows(&listed, "https://app.test:444"));
        assert!(allows(&settings(true, vec![AllowedOrigin::Any]), "https://any.test"));
    }

    #[test]
    fn a_page_is_the_servers_own_only_under_the_very_host_and_port() {
        let is_own = |pairs: &[(&'static str, &'static str)]| {
            let named = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
            let headers = pairs.iter().copied().chain([("host", "log.test:8888")]).map(named).collect();
            is_own_page(&headers, false)
        };
        assert!(is_own(&[]), "what is no browser says nothing");
        assert!(is_own(&[("origin", "http://log.test:8888")]));
        assert!(is_own(&[("origin", "https://log.test:8888"), ("sec-fetch-site", "same-origin")]));
        assert!(is_own(&[("sec-fetch-site", "none")]), "an address typed into the browser");
        for bad in
            ["null", "", "http://log.test", "http://localhost:8888", "file://log.test:8888", "log.test:8888"]
        {
            assert!(!is_own(&[("origin", bad)]), "{bad}");
        }
        for site in ["same-site", "cross-site"] {
            assert!(!is_own(&[("origin", "http://log.test:8888"), ("sec-fetch-site", site)]), "{site}");
        }
    }

    #[test]
    fn over_tls_the_servers_own_page_came_over_tls() {
        let is_own = |origin: &'static str| {
            let pairs = [(header::HOST, "log.test:8888"), (header::ORIGIN, origin)];
            let headers = pairs.map(|(name, value)| (name, HeaderValue::from_static(value)));
            is_own_page(&headers.into_iter().collect(), true)
        };
        assert!(is_own("https://log.test:8888"));
        assert!(!is_own("http://log.test:8888") && !is_own("https://log.test"));
    }

    #[test]
    fn a_foreign_host_is_refused_on_loopback() {
        let host = |text: &str| HeaderValue::try_from(text).unwrap();
        let local = settings(true, vec![]);
        for good in ["localhost:8888", "127.0.0.1", "[::1]:8888", "LOG.test:1", "127.9.9.9"] {
            assert!(local.allows_host(&host(good)), "{good}");
        }
        for bad in ["evil.test:8888", "localhost.evil.test", "[::2]"] {
            assert!(!local.allows_host(&host(bad)), "{bad}");
        }
        assert!(
            !settings(false, vec![]).allows_host(&host("evil.test")),
            "a list off loopback is the whole list"
        );
    }
}
