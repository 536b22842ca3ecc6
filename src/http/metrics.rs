//! `GET /metrics`: what the server counts and what it is, for Prometheus; on the port of the API, or on one of its own.

use super::{App, ProblemCode};
use crate::metrics::{
    BuildReadings, Declaration, Fact, HttpMetrics, Label, ProcessReadings, Risen, Text, declarations,
};
use axum::Extension;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::sync::Arc;

/// The route.
pub(super) const PATH: &str = "/metrics";

/// What the HTTP side counts.
pub(super) type Metrics = HttpMetrics<ProblemCode>;

impl Label for ProblemCode {
    const NAME: &'static str = "code";
    const VALUES: &'static [&'static str] = Self::NAMES;

    fn index(self) -> usize {
        self as usize
    }
}

/// A connection that counts while this lives.
pub(super) struct Connected(Arc<Metrics>);

impl Connected {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.increment();
        Self(metrics.clone())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.decrement();
    }
}

/// Every metric that `/metrics` can show.
pub fn all_metrics() -> Vec<Declaration> {
    declarations::<ProblemCode>()
}

/// Writes all metrics. Asks the system for sizes and walks the open event streams; reads nothing of the log.
pub(super) async fn scrape(Extension(app): Extension<App>) -> Response {
    let mut text = Text::default();
    BuildReadings { build_info: Fact("version", env!("CARGO_PKG_VERSION")) }.write(&mut text);
    app.log.metrics().write(&mut text);
    app.log.readings().write(&mut text);
    app.metrics.write(&mut text);
    process().write(&mut text);
    let headers = [(header::CONTENT_TYPE, Text::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
    (headers, text.into_string()).into_response()
}

/// What the system says of this process, from `/proc`; absent elsewhere.
fn process() -> ProcessReadings {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the name, may hold anything but ends with the last parenthesis. *Source*: proc(5).
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    let pages = field(24).map(|pages| pages as u64);
    ProcessReadings {
        start_time: boot.zip(field(22)).map(|(boot, started)| boot + started / ticks),
        cpu_seconds: Risen(field(14).zip(field(15)).map_or(0.0, |(user, kernel)| (user + kernel) / ticks)),
        resident_bytes: pages.map(|pages| pages * rustix::param::page_size() as u64),
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64),
        max_fds: getrlimit(Resource::Nofile).current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_beginning_and_a_size() {
        let ProcessReadings { start_time, resident_bytes, open_fds, max_fds, .. } = process();
        let now = crate::event::Timestamp::now().microseconds() as f64 / 1e6;
        // The kernel tells the start to its tick, and when it booted to the second.
        assert!((now - 86_400.0..now + 2.0).contains(&start_time.unwrap()), "{start_time:?}");
        assert!(resident_bytes.unwrap() > 1 << 20);
        assert!(open_fds.unwrap() > 2 && max_fds.unwrap() >= open_fds.unwrap());
    }
}
