//! Evertail: a durable event log in one binary and one SQLite file. `docs/ARCHITECTURE.md` is the way in.
//!
//! Layers look only down: `event <- store <- log <- http <- cli`.

pub mod auth;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod event;
pub mod frames;
pub mod http;
pub mod log;
pub mod metrics;
pub mod sse;
pub mod store;
pub mod traces;
pub mod wire;
