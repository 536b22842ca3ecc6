//! `evertail hold`: keeps streams of a running server from being trimmed.

use super::trim::{json, parsed};
use super::{Exit, Failure, TRUST_STEP, arguments, output};
use crate::client::ClientError;
use crate::wire::admin::{HoldJson, HoldsJson};
use arguments::text;
use clap::{Arg, ArgMatches, Command};
use serde_json::json;

pub(super) fn command() -> Command {
    let stream = || Arg::new("stream").required(true).value_name("STREAM").help("The stream");
    let name = || text("name", "NAME", "What the hold is called, once for each stream").required(true);
    Command::new("hold")
        .about("Keep a stream of a running server from being trimmed")
        .after_help(
            "While a stream is held nothing of it is trimmed, and the log as a whole not beyond its oldest event, whoever asks \
             for it.\n\nExamples:\n  evertail hold add audits --name case-17 --reason 'letter of 2026-11-21'\n  \
             evertail hold list\n  evertail hold release audits --name case-17",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("add")
                .about("Hold a stream")
                .arg(stream())
                .arg(name())
                .arg(text("reason", "TEXT", "Why").required(true))
                .arg(json())
                .args(arguments::server()),
        )
        .subcommand(
            Command::new("release")
                .about("Release a hold")
                .arg(stream())
                .arg(name())
                .arg(text("reason", "TEXT", "Why; told in the event of the release"))
                .arg(json())
                .args(arguments::server()),
        )
        .subcommand(Command::new("list").about("List all holds").arg(json()).args(arguments::server()))
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let (what, matches) = matches.subcommand().expect("clap requires it");
    let client = arguments::client(matches)?;
    let is_raw = matches.get_flag("json") || !output::is_terminal();
    let failed = |error: ClientError| Failure::from_error(&error, next_step(&error));
    if what == "list" {
        let answer = client.holds().await.map_err(failed)?;
        let lines = if is_raw { vec![answer] } else { list_in_words(&parsed(&answer)?) };
        lines.iter().try_for_each(|line| output::line(line))?;
        return Ok(Exit::Ok);
    }
    let text = |name: &str| matches.get_one::<String>(name);
    let (stream, name) = (text("stream").expect("clap requires it"), text("name").expect("clap requires it"));
    let body =
        text("reason").map_or_else(Vec::new, |reason| json!({ "reason": reason }).to_string().into_bytes());
    let answer = match what {
        "add" => client.hold(stream, name, body).await,
        _ => client.release(stream, name, body).await,
    };
    let answer = answer.map_err(failed)?;
    if is_raw {
        output::line(&answer)?;
    } else {
        let hold: HoldJson = parsed(&answer)?;
        let said = if what == "add" { "is held" } else { "is released from the hold" };
        output::line(&output::printable(&format!(
            "{} {said}: {} ({})",
            hold.stream, hold.name, hold.reason
        )))?;
    }
    Ok(Exit::Ok)
}

fn next_step(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { is_unsent: true, .. } => "start the server, or name another with --url",
        ClientError::Unreachable { .. } => "look with `evertail hold list` whether it is done",
        ClientError::Refused { code, .. } if code == "hold_not_found" => {
            "`evertail hold list` lists the holds"
        }
        ClientError::Refused { is_retryable: true, .. } => "try again later",
        ClientError::Refused { .. } => "change the command as it says",
        ClientError::Untrusted { .. } => TRUST_STEP,
        ClientError::NotEvertail { .. } => "name an Evertail server with --url",
    }
}

fn list_in_words(HoldsJson { holds }: &HoldsJson) -> Vec<String> {
    if holds.is_empty() {
        return vec!["no stream is held".to_owned()];
    }
    let line = |hold: &HoldJson| {
        let HoldJson { stream, name, reason, created_at, first_seq } = hold;
        let from = first_seq.map_or_else(|| "no events yet".to_owned(), |seq| format!("from seq {seq} on"));
        output::printable(&format!("{stream}  {name}  {from}  since {created_at}  {reason}"))
    };
    holds.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_are_listed_a_line_each() {
        let listed = |json: &str| list_in_words(&parsed(json).unwrap());
        assert_eq!(listed(r#"{"holds":[]}"#), ["no stream is held"]);
        let holds = r#"{"holds":[{"stream":"a","name":"n","reason":"r","created_at":"T","first_seq":3},
            {"stream":"b","name":"n","reason":"r\u001b","created_at":"T"}]}"#;
        assert_eq!(
            listed(holds),
            ["a  n  from seq 3 on  since T  r", "b  n  no events yet  since T  r\u{FFFD}"]
        );
    }
}
