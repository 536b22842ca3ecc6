//! The benchmark: a load generator over real sockets that verifies what it is given.
//!
//! A client, beside layer L3: knows no log, no store and no HTTP library. It shares the machine with what it measures, so
//! it is cheap: requests are prebuilt bytes patched in place, answers are scanned, not parsed. It drives any server that
//! takes a POST and serves SSE, so that others are measured by the same code.
//!
//! | file | holds |
//! |---|---|
//! | `target`, `connection`, `response` | where to, one connection, HTTP/1.1 answers |
//! | `mark`, `request`, `scan` | what an event carries, how it is sent, how it is found again |
//! | `pace`, `producer` | when to send; appending |
//! | `reader`, `order`, `crowd` | a reader; each event once and in order; many readers |
//! | `append`, `tail`, `herd`, `replay`, `mixed` | the runs |
//! | `process`, `figures`, `report` | what a process costs; latencies; what a run has found |

pub mod append;
pub mod connection;
mod crowd;
pub mod figures;
pub mod herd;
pub mod mark;
pub mod mixed;
pub mod order;
pub mod pace;
pub mod process;
pub mod producer;
pub mod reader;
pub mod replay;
pub mod report;
pub mod request;
pub mod response;
pub mod scan;
pub mod tail;
pub mod target;

use std::io;

/// A run could not be made. Each says the next step.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The URL is none that can be driven.
    #[error("{url:?} cannot be driven: {why}; give an address such as http://127.0.0.1:8888/path")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// No connection, or it broke.
    #[error("{what} failed; check that the server runs and takes so many connections")]
    Connection {
        /// What was being done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What came is not HTTP/1.1, or not what was asked for.
    #[error("the answer is not usable: {0}; check that the URL is the right one")]
    Answer(String),
    /// The server refused what the run needs.
    #[error("the server refused with {status}: {body}; change the request as it says")]
    Refused {
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
}

impl BenchError {
    pub(crate) fn connection(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Connection { what, source }
    }
}
