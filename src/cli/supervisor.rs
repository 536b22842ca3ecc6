//! What is agreed with a supervisor such as systemd: a socket that it has passed, and what it is told of the server's life.
//!
//! Without a supervisor nothing of this is there, and nothing of it is missed. *Source*: sd_listen_fds(3), sd_notify(3).

use super::Failure;
use crate::log::Log;
use sd_notify::NotifyState;
use std::env;
use std::future::pending;
use std::net::TcpListener;

/// The socket that was passed to this process, if one was.
///
/// To be called while the process has one thread: it takes what it has read out of the environment.
///
/// *Errors*: what was passed cannot be served on.
pub(super) fn passed_listener() -> Result<Option<TcpListener>, Failure> {
    // Variables that were meant for another process, a shell around this one say, are none of ours.
    let is_ours = |pid: String| pid.parse() == Ok(std::process::id());
    if !env::var("LISTEN_PID").is_ok_and(is_ours) {
        return Ok(None);
    }
    let mut passed = listenfd::ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => passed.take_tcp_listener(0).map_err(|error| {
            Failure::failed(format!("the supervisor passed what is no TCP socket: {error}; give its unit an IP address in ListenStream="))
        }),
        sockets => Err(Failure::failed(format!(
            "the supervisor passed {sockets} sockets, and one is served on; give its unit one ListenStream="
        ))),
    }
}

/// It serves; `status` is for people.
pub(super) fn tell_ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reloads; to be followed by [`tell_ready`].
pub(super) fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "there is no monotonic clock"),
    }
}

/// It stops.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: requests end, readers are told")]);
}

/// Tells a supervisor that wants to know, for ever, that the server is alive: as long as the writer answers, since a server
/// whose writer does not is of no use to anyone.
///
/// *Cancel safety*: safe.
pub(super) async fn tell_alive(log: &Log) {
    let Some(period) = sd_notify::watchdog_enabled() else { return pending().await };
    while log.is_answering().await {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(period / 2).await;
    }
    // It has ended, which is told otherwise.
    pending().await
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(error = &error as &dyn std::error::Error, "the supervisor could not be told");
    }
}
