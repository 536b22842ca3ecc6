//! What single settings are written as.

use super::resolve::{AllowedOrigin, BYTES_MAX, EVENTS_MAX};
use crate::event::{Pattern, Retention, StreamName, StreamRetention};
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// A stream, or a prefix of streams.
pub(super) fn streams(text: &str) -> Option<Pattern> {
    let pattern = Pattern::parse(text)?;
    let name = match &pattern {
        Pattern::Exact(name) => name.clone(),
        Pattern::Prefix(prefix) => format!("{prefix}x"),
    };
    StreamName::parse(&name).ok().map(|_| pattern)
}

/// What is kept of the streams of a pattern: `debug.* age=7d events=10000`.
pub(super) fn stream_retention(rule: &str) -> Option<StreamRetention> {
    let mut words = rule.split_ascii_whitespace();
    let streams = streams(words.next()?)?;
    let mut keep = Retention::default();
    for word in words {
        let (limit, value) = word.split_once('=')?;
        let is_again = match limit {
            "events" => {
                keep.events.replace(value.parse().ok().filter(|n| (1..=EVENTS_MAX).contains(n))?).is_some()
            }
            "bytes" => keep.bytes.replace(bytes(value).filter(|n| (1..=BYTES_MAX).contains(n))?).is_some(),
            "age" => keep.age.replace(age(value)?).is_some(),
            _ => return None,
        };
        if is_again {
            return None;
        }
    }
    Some(StreamRetention { streams, keep })
}

/// How long ago: `12h`, `30d`, `1year`, but not 0.
pub fn age(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|age| !age.is_zero())
}

/// A number of bytes, with or without a binary unit: `1048576`, `64 MiB`, `1GiB`.
pub fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// An origin that may read answers.
pub(super) fn origin(text: &str) -> Option<AllowedOrigin> {
    match text {
        "*" => return Some(AllowedOrigin::Any),
        "null" => return Some(AllowedOrigin::Null),
        _ => {}
    }
    let (scheme, host) = text.split_once("://")?;
    let is_origin = !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*']);
    is_origin.then(|| AllowedOrigin::Exact(text.to_ascii_lowercase()))
}

/// The name of a host, without its port.
pub(super) fn host(text: &str) -> Option<String> {
    let is_name = text.starts_with('[') || !text.contains([':', '/', '*', ' ']);
    is_name.then(|| text.to_ascii_lowercase())
}

/// A network, or the one of a single address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_binary_units() {
        assert_eq!(bytes("10"), Some(10));
        assert_eq!(bytes("64 MiB"), Some(64 << 20));
        for bad in ["", "KiB", "1KB", "-1", "99999999999TiB"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
