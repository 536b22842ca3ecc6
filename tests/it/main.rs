//! The HTTP boundary: a real listener on port 0, a log in a temporary folder, requests as clients send them.
//!
//! | file | holds |
//! |---|---|
//! | `server`, `raw`, `stream`, `table` | the server of a test; a bare connection; an event stream; the table as it is |
//! | `resume`, `dialect` | the resume contract: where a reader begins, and every byte it is sent |
//! | `append`, `pages`, `selection` | POST in all its forms; JSON pages, NDJSON, one event; what is selected, everywhere the same |
//! | `cloudevents` | CloudEvents in and out |
//! | `trace` | the span that an event was made in |
//! | `streams` | which streams there are, and their totals |
//! | `retention` | trims, holds and dry runs; what readers are told of what is gone |
//! | `auth`, `jwt` | who may do what; JSON Web Tokens, right and forged |
//! | `errors`, `malformed` | problems, origins, the shapes of smuggling; ten thousand broken requests |
//! | `hostile` | texts and JSON that would break what they are put into; broken requests to the other routes |
//! | `metrics`, `top` | what is scraped, and when it moves; what `evertail top` makes of it |
//! | `openapi`, `reference` | the document of all routes and problems, held against both; `docs/http.md`, made of it |
//! | `docs` | every curl line of the documents |
//! | `bench` | the load generator, and that it finds what a server does wrong |
//! | `slow` | clients that send or read slowly or not at all |
//! | `tls`, `http2` | certificates and handshakes; many streams on one connection, and who abuses it |
//! | `regression` | one test for each bug there was |
//!
//! Tests wait for conditions. A time-out in here only ends a test that hangs.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

mod append;
mod auth;
mod bench;
mod cloudevents;
mod dialect;
mod docs;
mod errors;
mod hostile;
mod http2;
mod jwt;
mod limits;
mod malformed;
mod metrics;
#[path = "../fuzz/mutate.rs"]
mod mutate;
mod openapi;
mod pages;
mod raw;
mod reference;
mod regression;
mod resume;
mod retention;
mod selection;
mod server;
mod slow;
mod stream;
mod streams;
mod table;
mod tls;
mod top;
mod trace;
