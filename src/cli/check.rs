//! `evertail check`: whether a log file that nobody has open keeps what a log promises.

use super::{Exit, Failure, findings, output, progress};
use crate::store::Inspection;
use clap::{Arg, ArgMatches, Command, value_parser};
use std::path::PathBuf;

pub(super) fn command() -> Command {
    Command::new("check")
        .about("Check a copy of a log file: every page, every event, every id")
        .after_help(
            "Reads and changes nothing. For the file of a running server there is `evertail doctor`, or a check of what \
             `evertail backup` makes of it. Exit codes: 0 all is well, 1 something is not or it could not be read, 2 there is \
             no such file or a server has it.\n\nExamples:\n  evertail check backup.db\n  \
             evertail check --json backup.db | jq '.findings[] | select(.outcome == \"problem\")'",
        )
        .arg(
            Arg::new("file")
                .required(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("The log file, with its -wal beside it if it has one"),
        )
        .arg(findings::json())
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let file = matches.get_one::<PathBuf>("file").expect("clap requires it");
    let mut inspection = Inspection::open(file).await.map_err(findings::failed)?;
    if let Some(holder) = inspection.server() {
        // Everything is read in one transaction: while it is open the server's WAL grows.
        return Err(Failure::usage(format!(
            "{} is in use by a server{holder}; `evertail doctor` looks at it as it runs, `evertail backup` makes a copy to check",
            file.display()
        )));
    }
    let log = inspection.summary().await.map_err(findings::failed)?;
    let bar = progress::Bar::new(log.last_seq + 1 - log.first_seq, "events");
    let found = inspection.check(&mut |progress| bar.move_to(progress.done, progress.total)).await;
    drop(bar);
    let found = found.map_err(findings::failed)?;
    let exit = findings::report(
        file,
        &inspection,
        &log,
        &found,
        matches.get_flag("json") || !output::is_terminal(),
    )?;
    inspection.close().await.map_err(findings::failed)?;
    Ok(exit)
}
