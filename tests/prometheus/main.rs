//! A real Prometheus, and its promtool, on the metrics of the real binary: what is scraped is what is documented, and what
//! is documented is of use.
//!
//! | file | holds |
//! |---|---|
//! | `prometheus` | Prometheus as a process, with the configuration of `docs/prometheus/` |
//! | `operate` | what an operator does: scrape, look at the dashboard, wait for an alert |
//!
//! Where they are not installed the tests fail; `scripts/test` installs them.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

#[expect(dead_code, reason = "the tests in tests/crash/ use all of it")]
#[path = "../crash/event_source.rs"]
mod event_source;
mod operate;
mod prometheus;
#[expect(dead_code, reason = "the tests in tests/crash/ use all of it")]
#[path = "../crash/server.rs"]
mod server;
