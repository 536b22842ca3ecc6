//! Clients that must work unmodified, each against the real server over every kind of disconnect. The programs in the folders
//! beside this file are the recipes of `docs/clients.md`, and what they are seen to do is its table.
//!
//! | file | holds |
//! |---|---|
//! | `kind` | the clients: their programs, their versions |
//! | `program` | one as a process, and the lines that it writes |
//! | `page` | one in a browser: the page, and where it reports to |
//! | `cutter` | a proxy that cuts connections where it is told to, and hears what clients ask for |
//! | `scenario` | what every client is put through |
//! | `document` | `docs/clients.md`: its table and its recipes. `UPDATE_DOCUMENTS=1` writes both |
//!
//! A client that is not installed fails its test; `scripts/test` installs all.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod cutter;
mod document;
#[expect(dead_code, reason = "the tests in tests/crash/ use all of it")]
#[path = "../crash/event_source.rs"]
mod event_source;
mod kind;
mod page;
mod program;
mod scenario;
#[expect(dead_code, reason = "the tests in tests/crash/ use all of it")]
#[path = "../crash/server.rs"]
mod server;

/// The same test for each client.
macro_rules! clients {
    ($($name:ident $kind:ident;)*) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn has_every_event_once_and_in_order_over_every_disconnect() {
                crate::scenario::run(crate::kind::Kind::$kind).await;
            }
        })*
    };
}

clients! {
    chromium Chromium;
    firefox Firefox;
    firefox_elsewhere FirefoxElsewhere;
    fetch_event_source FetchEventSource;
    npm_eventsource NpmEventsource;
    npm_eventsource_client NpmEventsourceClient;
    httpx_sse HttpxSse;
    requests_sse RequestsSse;
    sseclient_py SseclientPy;
    sse_stream SseStream;
    cargo_eventsource_client CargoEventsourceClient;
    curl Curl;
    httpie Httpie;
}
