//! `evertail backup` and `evertail restore`: a copy of a log that may be serving, and the way back.

use super::{Exit, Failure, doctor, findings, output, progress};
use crate::store::{self, CopyError, CopyProgress, LogSummary};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use findings::LogJson;
use serde::Serialize;
use std::path::{Path, PathBuf};

pub(super) fn command() -> Command {
    Command::new("backup")
        .about("Copy the log file of a server, running or not, to a file that is checked")
        .after_help(
            "Every event that was acked before is in the copy; no append waits for it. The copy is one file, complete and found \
             sound before it has its name. It holds the hashes of tokens and the key of sessions too: keep it as you keep the \
             log.\n\nExamples:\n  evertail backup backup.db\n  \
             evertail backup --file /var/lib/evertail/evertail.db /backups/evertail-$(date +%F).db\n  \
             evertail backup --force latest.db",
        )
        .arg(
            Arg::new("target")
                .required(true)
                .value_name("TARGET")
                .value_parser(value_parser!(PathBuf))
                .help("The file to make"),
        )
        .arg(doctor::file())
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Replace what is there, once the new copy is complete"),
        )
        .arg(findings::json())
}

pub(super) fn restore_command() -> Command {
    Command::new("restore")
        .about("Put a backup in the place of the log file of a server that is stopped")
        .after_help(
            "The backup is copied and checked before anything is replaced; it stays where it is. What was there before is kept \
             beside it, as FILE.before-<time>. Readers that have been given more than the backup holds are told so by \
             `evertail.reset` when they come back, for as long as the log ends before their cursor.\n\nExamples:\n  \
             evertail restore backup.db\n  evertail restore backup.db --file /var/lib/evertail/evertail.db",
        )
        .arg(
            Arg::new("backup")
                .required(true)
                .value_name("BACKUP")
                .value_parser(value_parser!(PathBuf))
                .help("The backup"),
        )
        .arg(doctor::file())
        .arg(findings::json())
}

/// What was made, for scripts.
#[derive(Debug, Serialize)]
struct CopyJson<'a> {
    file: String,
    #[serde(flatten)]
    log: LogJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let target = matches.get_one::<PathBuf>("target").expect("clap requires it");
    let file = doctor::config(matches)?.file;
    let mut show = shown();
    let copied = tokio::select! {
        copied = store::back_up(&file, target, matches.get_flag("force"), &mut show) => copied,
        _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
    };
    drop(show);
    let log = copied.map_err(failed)?;
    let said = format!("{} holds {}", target.display(), findings::in_words(&log));
    tell(matches, target, &log, None, said)
}

pub(super) async fn run_restore(matches: &ArgMatches) -> Result<Exit, Failure> {
    let backup = matches.get_one::<PathBuf>("backup").expect("clap requires it");
    let file = doctor::config(matches)?.file;
    let mut show = shown();
    let restored = tokio::select! {
        restored = store::restore(backup, &file, &mut show) => restored,
        _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
    };
    drop(show);
    let restored = restored.map_err(failed)?;
    let kept = restored
        .kept
        .as_ref()
        .map_or(String::new(), |kept| format!("; what was there is {}", kept.display()));
    let said = format!("{} holds {}{kept}", file.display(), findings::in_words(&restored.log));
    tell(matches, &file, &restored.log, restored.kept.as_deref(), said)
}

fn tell(
    matches: &ArgMatches,
    file: &Path,
    log: &LogSummary,
    kept: Option<&Path>,
    said: String,
) -> Result<Exit, Failure> {
    if matches.get_flag("json") || !output::is_terminal() {
        let kept = kept.map(|kept| kept.display().to_string());
        let made = CopyJson { file: file.display().to_string(), log: LogJson::of(log), kept };
        output::line(&serde_json::to_string(&made).expect("a copy always serialises"))?;
    } else {
        output::line(&output::printable(&said))?;
    }
    Ok(Exit::Ok)
}

/// Two bars, one after the other: the bytes of the copy, then its events. Both are gone with the closure.
fn shown() -> impl FnMut(CopyProgress) {
    let mut bars = (None, None);
    move |progress| {
        let (bar, unit, done) = match progress {
            CopyProgress::Copying(done) => (&mut bars.0, "bytes", done),
            CopyProgress::Checking(done) => {
                bars.0.take();
                (&mut bars.1, "events", done)
            }
        };
        let bar = bar.get_or_insert_with(|| progress::Bar::new(done.total, unit));
        bar.move_to(done.done, done.total);
    }
}

fn failed(error: CopyError) -> Failure {
    match error {
        CopyError::Inspect(error) => findings::failed(error),
        CopyError::Exists { .. } | CopyError::Taken { .. } => Failure::usage(error.to_string()),
        _ => Failure::from_error(&error, ""),
    }
}
