//! SIGHUP: the certificate and the keys of tokens are read again while the server serves.

use crate::auth::Auth;
use crate::cli::supervisor;
use crate::http::Tls;
use std::io::{self, IsTerminal};
use tokio::signal::unix::Signal;

/// Reloads at each hangup. Returns when the hangup was that of the terminal the server was started in, which is the end of
/// it as of any other program there.
pub(super) async fn at_each_hangup(hangup: &mut Signal, tls: Option<&Tls>, auth: Option<&Auth>, page: &str) {
    let had_terminal = io::stderr().is_terminal();
    while hangup.recv().await.is_some() {
        if had_terminal && !io::stderr().is_terminal() {
            return;
        }
        supervisor::tell_reloading();
        reload(tls, auth).await;
        supervisor::tell_ready(&format!("serving on {page}"));
    }
}

/// Reads the certificate and the keys of tokens again. What cannot be used changes nothing.
async fn reload(tls: Option<&Tls>, auth: Option<&Auth>) {
    let mut has_reloaded = false;
    if let Some(tls) = tls.cloned() {
        has_reloaded = true;
        // A file may be on a slow disk.
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            // It has told so.
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => tracing::info!("the certificate was read again, and is the same"),
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the new certificate is not used; the one before still is"
            ),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "reading the certificate failed")
            }
        }
    }
    match auth.map(Auth::reload) {
        None => {}
        Some(reloading) => match reloading.await {
            Ok(None) => {}
            Ok(Some(keys)) => {
                has_reloaded = true;
                tracing::info!(keys, "the keys of tokens were read again");
            }
            Err(error) => {
                has_reloaded = true;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the new keys of tokens are not used; those before still are"
                );
            }
        },
    }
    if !has_reloaded {
        tracing::info!("there is nothing to reload: no certificate, and no keys of JSON Web Tokens");
    }
}
