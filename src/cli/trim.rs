//! `evertail trim`: deletes the oldest events of a running server, or says what would go.

use super::{Exit, Failure, TRUST_STEP, arguments, output};
use crate::client::ClientError;
use crate::wire::admin::{HoldJson, RetentionAnswer, TrimAnswer, TrimJson};
use arguments::text;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Streams of one trim that are named to people; `--json` has them all.
const STREAMS_SHOWN_MAX: usize = 20;

pub(super) fn command() -> Command {
    Command::new("trim")
        .about("Delete the oldest events of a running server, or say what would go")
        .after_help(
            "What any of the criteria says is deleted, for good, as far as no hold keeps it; readers that still want it are \
             told. --dry-run alone tells what retention as it is set would trim now.\n\nExamples:\n  \
             evertail trim --older-than 90d --dry-run\n  evertail trim --stream debug --keep-events 10000 --reason 'disk'\n  \
             evertail trim --dry-run",
        )
        .arg(text("stream", "STREAM", "Only of this stream"))
        .arg(text("before", "SEQ", "Every event before this seq").value_parser(value_parser!(u64).range(1..)))
        .arg(text("older-than", "AGE", "Every event received longer ago than this: 12h, 30d, 1year"))
        .arg(text("keep-events", "N", "All but the newest N events").value_parser(value_parser!(u64).range(1..)))
        .arg(text("keep-bytes", "BYTES", "All but the newest events with so much data: 1GiB"))
        .arg(text("reason", "TEXT", "Why; told in the event of the trim"))
        .arg(Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue).help("Delete nothing: say what would go"))
        .arg(json())
        .args(arguments::server())
}

pub(super) fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print the server's answer as it is [default where stdout is no terminal]")
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let client = arguments::client(matches)?;
    let mut body = Map::new();
    for (flag, member) in [("before", "before"), ("keep-events", "keep_events")] {
        body.extend(matches.get_one::<u64>(flag).map(|number| (member.to_owned(), Value::from(*number))));
    }
    for (flag, member) in [("older-than", "older_than"), ("keep-bytes", "keep_bytes")] {
        body.extend(
            matches.get_one::<String>(flag).map(|text| (member.to_owned(), Value::from(text.as_str()))),
        );
    }
    let has_criteria = !body.is_empty();
    for name in ["stream", "reason"] {
        body.extend(
            matches.get_one::<String>(name).map(|text| (name.to_owned(), Value::from(text.as_str()))),
        );
    }
    let is_dry_run = matches.get_flag("dry-run");
    if !has_criteria && (!is_dry_run || body.contains_key("stream")) {
        return Err(Failure::usage(
            "nothing says what is to go; give any of --before, --older-than, --keep-events and --keep-bytes, or --dry-run \
             alone to see what retention would trim now",
        ));
    }
    body.insert("dry_run".to_owned(), Value::from(is_dry_run));
    let body = Value::Object(body).to_string().into_bytes();
    let answer = client
        .trim(body)
        .await
        .map_err(|error| Failure::from_error(&error, next_step(&error, is_dry_run)))?;
    if matches.get_flag("json") || !output::is_terminal() {
        output::line(&answer)?;
    } else if has_criteria {
        trim_in_words(&parsed(&answer)?).iter().try_for_each(|line| output::line(line))?;
    } else {
        retention_in_words(&parsed(&answer)?).iter().try_for_each(|line| output::line(line))?;
    }
    Ok(Exit::Ok)
}

fn next_step(error: &ClientError, is_dry_run: bool) -> &'static str {
    match error {
        ClientError::Unreachable { is_unsent: true, .. } => "start the server, or name another with --url",
        ClientError::Unreachable { .. } if is_dry_run => "try again",
        ClientError::Unreachable { .. } => "it may be trimming all the same; look with --dry-run",
        ClientError::Refused { is_retryable: true, .. } => "try again later",
        ClientError::Refused { .. } => "change the command as it says",
        ClientError::Untrusted { .. } => TRUST_STEP,
        ClientError::NotEvertail { .. } => "name an Evertail server with --url",
    }
}

/// An answer in the shape that this version knows.
pub(super) fn parsed<T: DeserializeOwned>(answer: &str) -> Result<T, Failure> {
    serde_json::from_str(answer).map_err(|error| {
        Failure::failed(format!("the answer is not what this version knows: {error}; look at it with --json"))
    })
}

fn trim_in_words(answer: &TrimAnswer) -> Vec<String> {
    let mut lines = of_one(&answer.trim, answer.dry_run);
    if !answer.dry_run {
        lines.push(format!("the log begins with seq {} now", answer.first_seq));
    }
    lines
}

fn retention_in_words(answer: &RetentionAnswer) -> Vec<String> {
    let mut lines: Vec<String> = answer
        .trims
        .iter()
        .filter(|trim| trim.events > 0 || trim.held_by.is_some())
        .flat_map(|trim| of_one(trim, true))
        .collect();
    if lines.is_empty() {
        lines.push("retention as it is set would trim nothing now".to_owned());
    }
    lines
}

/// One trim: what goes, of which streams, and what stops it.
fn of_one(trim: &TrimJson, is_dry_run: bool) -> Vec<String> {
    let of = trim.stream.as_deref().map_or_else(|| "the log".to_owned(), output::printable);
    let verb = if is_dry_run { "would lose" } else { "lost" };
    let through = trim.through_seq.map_or_else(String::new, |seq| format!(", the last is seq {seq}"));
    let what = match trim.events {
        0 => "nothing".to_owned(),
        1 => "1 event".to_owned(),
        count => format!("{count} events"),
    };
    let size = if trim.events > 0 { format!(", {}", output::bytes(trim.bytes)) } else { String::new() };
    let mut lines = vec![format!("{of} {verb} {what}{size}{through}")];
    if trim.stream.is_none() {
        let mut streams: Vec<_> = trim.streams.iter().collect();
        streams.sort_by_key(|share| std::cmp::Reverse(share.events));
        for share in streams.iter().take(STREAMS_SHOWN_MAX) {
            let (name, bytes) = (output::printable(&share.stream), output::bytes(share.bytes));
            lines.push(format!("  {:>12}  {bytes:>10}  {name}", share.events));
        }
        if streams.len() > STREAMS_SHOWN_MAX {
            let more = streams.len() - STREAMS_SHOWN_MAX;
            lines.push(format!("  and {more} more streams; --json names them"));
        }
    }
    lines.extend(trim.held_by.as_ref().map(stopped));
    lines
}

fn stopped(hold: &HoldJson) -> String {
    let HoldJson { stream, name, reason, first_seq, .. } = hold;
    let from = first_seq.map_or_else(String::new, |seq| format!(" from seq {seq} on"));
    output::printable(&format!("more was to go, but {stream} is held{from}: {name} ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trim_is_told_in_words() {
        let plan = r#"{"dry_run":true,"first_seq":1,"events":3,"bytes":1536,"through_seq":9,
            "streams":[{"stream":"a","events":1,"bytes":512},{"stream":"b","events":2,"bytes":1024}],
            "held_by":{"stream":"c","name":"case-1","reason":"why","created_at":"T","first_seq":10}}"#;
        let lines = trim_in_words(&parsed(plan).unwrap());
        let expected = [
            "the log would lose 3 events, 1.5 KiB, the last is seq 9",
            "             2     1.0 KiB  b",
            "             1   512 bytes  a",
            "more was to go, but c is held from seq 10 on: case-1 (why)",
        ];
        assert_eq!(lines, expected);
        let done = r#"{"dry_run":false,"first_seq":4,"stream":"a","events":1,"bytes":2,"through_seq":3}"#;
        let lines = trim_in_words(&parsed(done).unwrap());
        assert_eq!(lines, ["a lost 1 event, 2 bytes, the last is seq 3", "the log begins with seq 4 now"]);
    }

    #[test]
    fn retention_that_has_nothing_to_do_says_so() {
        let nothing =
            r#"{"dry_run":true,"first_seq":1,"events":0,"bytes":0,"trims":[{"events":0,"bytes":0}]}"#;
        let lines = retention_in_words(&parsed(nothing).unwrap());
        assert_eq!(lines, ["retention as it is set would trim nothing now"]);
    }
}
