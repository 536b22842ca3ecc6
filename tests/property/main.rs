//! Properties: what holds whatever is sent, in whatever order, by whomever. `PROPTEST_CASES` raises the number of cases.

mod blocks;
mod cloudevents;
#[expect(dead_code, reason = "the tests in tests/log/ use all of it")]
#[path = "../log/fixture.rs"]
mod fixture;
mod log;
mod model;
mod seam;
mod selection;
mod sse;
mod texts;

use proptest::test_runner::Config;

/// So many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(default: u32) -> Config {
    let config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { Config { cases: default, ..config } }
}
