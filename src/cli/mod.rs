//! The command line: reads flags and settings, builds the parts, maps results to exit codes.
//!
//! Layer L4. stdout is data, stderr is for people. An error is one sentence that ends with the next step.

mod append;
mod arguments;
mod backup;
mod bench;
mod check;
mod doctor;
mod export;
mod findings;
mod hold;
mod import;
mod items;
mod logging;
mod manual;
mod output;
mod progress;
mod reload;
mod serve;
mod supervisor;
mod tail;
mod token;
mod top;
mod trim;
mod version;

pub use arguments::command;

use crate::client::ClientError;
use std::io;
use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked is done.
    Ok = 0,
    /// It could not be done.
    Failed = 1,
    /// It was not asked rightly.
    Usage = 2,
    /// The user interrupted it, as a shell counts it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What helps against a certificate that is not trusted.
const TRUST_STEP: &str =
    "name the file of its authority with --ca-file, or the server as its certificate does with --url";

/// A command failed; the message is for people.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    /// An error with its chain, then the next step if the error does not say it itself.
    fn from_error(error: &(dyn std::error::Error + 'static), next_step: &str) -> Self {
        // Whatever was asked, this comes first.
        let is_untrusted = matches!(error.downcast_ref(), Some(ClientError::Untrusted { .. }));
        let next_step = if is_untrusted { TRUST_STEP } else { next_step };
        let mut causes = String::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push_str(&format!("; {cause}"));
            source = cause.source();
        }
        // The error's own next step stays last.
        let text = error.to_string();
        let message = match (next_step.is_empty(), text.split_once("; ")) {
            (true, Some((what, step))) => format!("{what}{causes}; {step}"),
            (true, None) => format!("{text}{causes}"),
            (false, _) => format!("{text}{causes}; {next_step}"),
        };
        Self::failed(message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Whoever reads our output has had enough: that is success.
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Ok } else { Exit::Failed };
        Self { exit, message: format!("writing the output failed: {error}; check where it goes") }
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = error.print();
            return exit.into();
        }
    };
    let passed = match matches.subcommand_name() {
        None | Some("serve") => supervisor::passed_listener(),
        Some(_) => Ok(None),
    };
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    if let Some(("bench", matches)) = matches.subcommand() {
        threads = bench::runtime(matches);
    }
    let threads = threads.enable_all().thread_name("evertail").build();
    let outcome = threads.and_then(|runtime| {
        let outcome = match matches.subcommand() {
            Some(("append", matches)) => runtime.block_on(append::run(matches)),
            Some(("bench", matches)) => runtime.block_on(bench::run(matches)),
            Some(("backup", matches)) => runtime.block_on(backup::run(matches)),
            Some(("restore", matches)) => runtime.block_on(backup::run_restore(matches)),
            Some(("check", matches)) => runtime.block_on(check::run(matches)),
            Some(("doctor", matches)) => runtime.block_on(doctor::run(matches)),
            Some(("export", matches)) => runtime.block_on(export::run(matches)),
            Some(("hold", matches)) => runtime.block_on(hold::run(matches)),
            Some(("import", matches)) => runtime.block_on(import::run(matches)),
            Some(("completions", matches)) => manual::run_completions(matches),
            Some(("man", matches)) => manual::run_man(matches),
            Some(("tail", matches)) => runtime.block_on(tail::run(matches)),
            Some(("token", matches)) => runtime.block_on(token::run(matches)),
            Some(("top", matches)) => runtime.block_on(top::run(matches)),
            Some(("trim", matches)) => runtime.block_on(trim::run(matches)),
            serve => {
                let streams = serve::stream_threads()?;
                let matches = serve.map_or(&matches, |(_, matches)| matches);
                let outcome =
                    runtime.block_on(async { serve::run(matches, streams.handle(), passed?).await });
                streams.shutdown_background();
                outcome
            }
        };
        // A line that stdin never finishes must not hold the process.
        runtime.shutdown_background();
        Ok(outcome)
    });
    let outcome = outcome.unwrap_or_else(|error| {
        Err(Failure::failed(format!("the system gives no threads: {error}; raise its process limit")))
    });
    match outcome {
        Ok(exit) => exit.into(),
        Err(Failure { exit: Exit::Ok, .. }) => ExitCode::SUCCESS,
        Err(Failure { exit, message }) => {
            output::complain(&message);
            exit.into()
        }
    }
}
