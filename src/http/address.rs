//! Where a request comes from, across the proxies in front.
//!
//! A proxy notes the address it was asked from at the right end of `X-Forwarded-For`, or of `Forwarded` (RFC 7239).
//! Whatever is left of that was sent by the client itself and may say anything. So the headers count only if the peer
//! is one of ours, and are read from the right: each trusted address vouches for the one it has noted, and the first
//! that is not trusted is the client's.

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client of a request that came from `peer`.
///
/// What cannot be read ends the search at the last proxy that was vouched for. Both headers count only if they agree: a
/// proxy writes one of them and lets the other through as the client has made it up.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let forwarded = chain(peer, trusted, headers, &header::FORWARDED, forwarded_for);
    let x_forwarded_for = chain(peer, trusted, headers, &X_FORWARDED_FOR, address);
    match (forwarded, x_forwarded_for) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

/// Whether this address is one of a proxy that is believed.
pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The client as one header tells it; `None` without that header.
fn chain(
    peer: IpAddr,
    trusted: &[IpNet],
    headers: &HeaderMap,
    name: &HeaderName,
    read: fn(&str) -> Option<IpAddr>,
) -> Option<IpAddr> {
    let values = headers.get_all(name);
    values.iter().next()?;
    let mut client = peer;
    for value in values.iter().rev() {
        for hop in rsplit_unquoted(value.as_bytes(), b',') {
            match std::str::from_utf8(hop).ok().and_then(|hop| read(hop.trim_matches([' ', '\t']))) {
                Some(address) => client = address.to_canonical(),
                None => return Some(client),
            }
            if !is_trusted(client, trusted) {
                return Some(client);
            }
        }
    }
    Some(client)
}

/// The `for` of one element of `Forwarded`: `for="[2001:db8::17]:4711";proto=https`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in rsplit_unquoted(element.as_bytes(), b';') {
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        if name.trim_start().eq_ignore_ascii_case("for") && found.replace(value.trim_end()).is_some() {
            return None;
        }
    }
    let value = found?;
    address(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

/// An address with or without a port, an IPv6 address with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).parse().ok();
    bare().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

/// The parts between separators that stand outside of quotes, the last one first. Quotes are counted from the right, so
/// that one which is left open on the left has no part in what a proxy has added.
fn rsplit_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut is_quoted = false;
        let at = text.iter().rposition(|byte| {
            is_quoted ^= *byte == b'"';
            *byte == separator && !is_quoted
        });
        let (before, part) = match at {
            Some(at) => (Some(&text[..at]), &text[at + 1..]),
            None => (None, text),
        };
        rest = before;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn seen(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        client(peer.parse().unwrap(), &map, &trusted).to_string()
    }

    fn x(value: &str) -> String {
        seen("127.0.0.1", &[("x-forwarded-for", value)])
    }

    fn forwarded(value: &str) -> String {
        seen("127.0.0.1", &[("forwarded", value)])
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        let headers = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        assert_eq!(seen("198.51.100.7", &headers), "198.51.100.7");
        assert_eq!(seen("127.0.0.2", &headers), "127.0.0.2");
        assert_eq!(seen("10.1.2.3", &headers), "192.0.2.1");
        assert_eq!(seen("::ffff:10.1.2.3", &headers), "192.0.2.1", "an IPv4 peer of an IPv6 socket");
        assert_eq!(seen("::ffff:198.51.100.7", &headers), "198.51.100.7");
        assert_eq!(client([127, 0, 0, 1].into(), &HeaderMap::new(), &[]).to_string(), "127.0.0.1");
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_no_proxy_of_ours() {
        assert_eq!(x("192.0.2.1"), "192.0.2.1");
        assert_eq!(x("6.6.6.6, 192.0.2.1"), "192.0.2.1", "what a client sends is left of what is noted");
        assert_eq!(x("6.6.6.6,192.0.2.1 ,10.0.0.9,\t10.0.0.8"), "192.0.2.1");
        assert_eq!(x("10.0.0.9, 10.0.0.8"), "10.0.0.9", "a client within the trusted network");
        assert_eq!(x("6.6.6.6, 10.0.0.6, 192.0.2.1, 10.0.0.9"), "192.0.2.1");
        let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(seen("127.0.0.1", &lines), "192.0.2.1", "a line of its own is as good as a comma");
    }

    #[test]
    fn addresses_come_with_and_without_ports_and_brackets() {
        for text in ["2001:db8::17", "[2001:db8::17]", "[2001:db8::17]:4711"] {
            assert_eq!(x(text), "2001:db8::17");
            assert_eq!(forwarded(&format!("for=\"{text}\"")), "2001:db8::17");
        }
        assert_eq!(x("192.0.2.1:80"), "192.0.2.1");
        assert_eq!(x("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(x("192.0.2.1, ::ffff:10.0.0.9"), "192.0.2.1", "a proxy of ours written as IPv6");
    }

    #[test]
    fn forwarded_is_read_by_rfc_7239() {
        assert_eq!(forwarded("for=192.0.2.43"), "192.0.2.43");
        assert_eq!(forwarded("For=\"192.0.2.43:47011\";proto=http; by=10.0.0.1"), "192.0.2.43");
        assert_eq!(
            forwarded("for=6.6.6.6, for=192.0.2.43 , for=10.0.0.9;host=\"a,b;for=7.7.7.7\""),
            "192.0.2.43"
        );
        assert_eq!(
            forwarded("for=\"6.6.6.6, for=192.0.2.43"),
            "192.0.2.43",
            "a quote left open by the client"
        );
    }

    #[test]
    fn what_cannot_be_read_ends_at_the_last_proxy_that_was_vouched_for() {
        for text in ["", "unknown", "6.6.6.6,", "6.6.6.6, 192.0.2.1.5", "6.6.6.6, é"] {
            assert_eq!(x(text), "127.0.0.1", "{text}");
        }
        assert_eq!(x("6.6.6.6, unknown, 10.0.0.9"), "10.0.0.9");
        for text in
            ["", "for=_hidden", "for=unknown", "proto=http", "for=1.1.1.1;for=2.2.2.2", "192.0.2.1", "for"]
        {
            assert_eq!(forwarded(text), "127.0.0.1", "{text}");
        }
        assert_eq!(forwarded("for=6.6.6.6, for=_hidden, for=10.0.0.9"), "10.0.0.9");
    }

    #[test]
    fn two_headers_that_differ_are_both_not_believed() {
        let both = |one, other| seen("127.0.0.1", &[("forwarded", one), ("x-forwarded-for", other)]);
        assert_eq!(both("for=192.0.2.1", "192.0.2.1"), "192.0.2.1");
        assert_eq!(both("for=6.6.6.6", "192.0.2.1"), "127.0.0.1");
        assert_eq!(both("for=192.0.2.1", "6.6.6.6"), "127.0.0.1");
    }
}
