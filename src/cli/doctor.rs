//! `evertail doctor`: what is wrong with a log file, running or not, and with what it lies in.

use super::{Exit, Failure, arguments, findings, output};
use crate::config::{self, Config};
use crate::event::Timestamp;
use crate::store::{Inspection, Surroundings};
use clap::{Arg, ArgMatches, Command};
use std::path::PathBuf;

pub(super) fn command() -> Command {
    Command::new("doctor")
        .about("Say what is wrong with the log file of a server, running or not, and what to do")
        .after_help(
            "Looks at permissions, file system, free space, WAL, clock, schema, the newest events and the totals of streams, and \
             changes nothing. It takes moments: for every page and every event there is `evertail check`. Exit codes: 0 all is \
             well or only to be warned of, 1 something is wrong, 2 there is no such file.\n\nExamples:\n  evertail doctor\n  \
             evertail doctor --file /var/lib/evertail/evertail.db\n  \
             evertail doctor --json | jq -r '.findings[] | select(.next_step) | .next_step'",
        )
        .arg(file())
        .arg(findings::json())
}

/// The log file, as the server finds it.
pub(super) fn file() -> Arg {
    arguments::text(
        "file",
        "FILE",
        "The log file [default: as the server, data/evertail.db] [env: EVERTAIL_FILE]",
    )
}

/// The settings of the server, with the file that was named.
pub(super) fn config(matches: &ArgMatches) -> Result<Config, Failure> {
    let mut raw = arguments::server_variables()?;
    if let Some(file) = matches.get_one::<String>("file") {
        raw.insert("EVERTAIL_FILE", file.clone());
    }
    let state_directory = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    config::resolve(&raw, state_directory).map_err(|errors| Failure::usage(errors.to_string()))
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let config = config(matches)?;
    let surroundings =
        Surroundings { disk_free_bytes_min: config.disk_free_bytes_min, now: Timestamp::now() };
    let mut inspection = Inspection::open(&config.file).await.map_err(findings::failed)?;
    let log = inspection.summary().await.map_err(findings::failed)?;
    let found = inspection.diagnose(&surroundings).await.map_err(findings::failed)?;
    let is_raw = matches.get_flag("json") || !output::is_terminal();
    let exit = findings::report(&config.file, &inspection, &log, &found, is_raw)?;
    inspection.close().await.map_err(findings::failed)?;
    Ok(exit)
}
