//! Where to: the address, the host and the path of an `http` URL.

use super::BenchError;
use std::net::{SocketAddr, ToSocketAddrs};

/// What is driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Resolved once, so that no look-up is measured.
    pub address: SocketAddr,
    /// For the `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Reads an `http` URL.
    ///
    /// *Errors*: [`BenchError::Url`] when it is not one, or its host is not known.
    pub fn parse(url: &str) -> Result<Self, BenchError> {
        let wrong = |why: &str| BenchError::Url { url: url.to_owned(), why: why.to_owned() };
        let rest = url.strip_prefix("http://").ok_or_else(|| wrong("it does not begin with http://"))?;
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_plain(host) || !is_plain(path) {
            return Err(wrong("its host or path is not plain text"));
        }
        let has_port = host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok())
            && host.contains(':')
            && !host.ends_with(']');
        let name = if has_port { host.to_owned() } else { format!("{host}:80") };
        let mut addresses = name.to_socket_addrs().map_err(|error| wrong(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| wrong("its host has no address"))?;
        Ok(Self { address, host: host.to_owned(), path: path.to_owned() })
    }

    /// The same server, another path.
    pub fn at(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_nonsense_is_refused() {
        let target = Target::parse("http://127.0.0.1:8888/api/v1/bench?after=0").unwrap();
        assert_eq!(target.address, "127.0.0.1:8888".parse().unwrap());
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.1:8888", "/api/v1/bench?after=0"));
        let bare = Target::parse("http://127.0.0.1").unwrap();
        assert_eq!((bare.address.port(), bare.path.as_str()), (80, "/"));
        assert_eq!(Target::parse("http://[::1]").unwrap().address, "[::1]:80".parse().unwrap());
        for url in
            ["https://127.0.0.1", "127.0.0.1", "http://", "http://127.0.0.1/a b", "http://127.0.0.1:99999"]
        {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
