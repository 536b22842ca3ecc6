//! What `docs/proxies.md` says, done: the real nginx, Apache, HAProxy and Caddy with the configuration of that page, in
//! front of the real binary.
//!
//! | file | holds |
//! |---|---|
//! | `proxy` | a proxy as a process: its configuration taken from the page, started, killed |
//! | `through` | what is asked of each of them |
//!
//! A proxy that is not installed fails its tests; `scripts/test` installs all four.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

#[expect(dead_code, reason = "the tests in tests/crash/ use all of it")]
#[path = "../crash/event_source.rs"]
mod event_source;
mod proxy;
#[expect(dead_code, reason = "the tests in tests/crash/ use all of it")]
#[path = "../crash/server.rs"]
mod server;
mod through;

/// The same tests for each proxy.
macro_rules! behind {
    ($($name:ident $kind:ident: $($test:ident)*;)*) => {
        $(mod $name {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::through::$test(crate::proxy::Kind::$kind).await;
            })*
        })*
    };
}

behind! {
    nginx Nginx: events_are_seen_at_once keep_alives_pass reader_cut_off_by_the_proxy_resumes_exactly
        clients_are_known_by_their_own_addresses large_bodies_pass_whole restart_of_the_server_ends_no_event_source;
    apache Apache: events_are_seen_at_once keep_alives_pass reader_cut_off_by_the_proxy_resumes_exactly
        clients_are_known_by_their_own_addresses large_bodies_pass_whole;
    haproxy Haproxy: events_are_seen_at_once keep_alives_pass reader_cut_off_by_the_proxy_resumes_exactly
        clients_are_known_by_their_own_addresses large_bodies_pass_whole restart_of_the_server_ends_no_event_source;
    caddy Caddy: events_are_seen_at_once keep_alives_pass reader_cut_off_by_the_proxy_resumes_exactly
        clients_are_known_by_their_own_addresses large_bodies_pass_whole restart_of_the_server_ends_no_event_source;
}
