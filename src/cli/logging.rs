//! The server's own log on stderr: text on a terminal, else JSON. `docs/logs.md` has its lines.

use super::Failure;
use crate::config::{Config, LogFormat};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use tracing_subscriber::EnvFilter;

/// Begins to log.
///
/// *Errors*: the filter is none.
pub(super) fn start(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(&config.log_filter).map_err(|error| {
        Failure::usage(format!(
            "EVERTAIL_LOG is {:?}: {error}; give it a level such as info",
            config.log_filter
        ))
    })?;
    // A line for each frame of HTTP/2 is for who asks for it by name.
    let filter = match config.log_filter.contains("h2") {
        true => filter,
        false => filter.add_directive("h2=warn".parse().expect("a directive")),
    };
    let is_text = match config.log_format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // It would complain on stderr that stderr is gone, and panic of that.
        .log_internal_errors(false);
    if is_text {
        subscriber.with_target(false).with_ansi(io::stderr().is_terminal()).init();
    } else {
        // A request has one span, so the list of them says nothing that it does not.
        subscriber.json().flatten_event(true).with_span_list(false).init();
    }
    // What reads the log as lines of JSON must be able to read this one too.
    panic::set_hook(Box::new(tell_panic));
    Ok(())
}

fn tell_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        panic = panic.payload_as_str(),
        place = panic.location().map(ToString::to_string),
        thread = std::thread::current().name(),
        backtrace,
        "a bug: a task of the server panicked; report it"
    );
}
