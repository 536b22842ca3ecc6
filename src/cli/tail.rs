//! `evertail tail`: follows a stream, across disconnects and restarts.

use super::{Exit, Failure, arguments, output};
use crate::client::{ClientError, TailItem};
use crate::wire::{EventJson, GapData, NoticeData, ResetData, control};
use clap::ArgMatches;
use serde_json::Value;

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let client = arguments::client(matches)?;
    let (stream, mut query) = arguments::selection(matches);
    query.extend_pairs(arguments::beginning(matches));
    query.extend_pairs(matches.get_one::<u64>("before").map(|before| ("before", before.to_string())));
    query.extend_pairs(matches.get_one::<String>("until").map(|until| ("until", until)));
    let mut remaining = matches.get_one::<u64>("limit").copied().unwrap_or(u64::MAX);
    let mut tail = client.tail(stream, &query.finish());
    while remaining > 0 {
        let item = tokio::select! {
            item = tail.next() => item,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        };
        match item {
            Ok(TailItem::Event(event)) if control::is_control(&event.event) => {
                if let Some(failure) = not_let_in(&event.event, &event.data) {
                    return Err(failure);
                }
                tell(&event.event, &event.data)
            }
            Ok(TailItem::Event(event)) => {
                output::line(&if output::is_terminal() { readable(&event.data) } else { event.data })?;
                remaining -= 1;
            }
            Ok(TailItem::Disconnected(delay)) => {
                output::complain(&format!("disconnected; trying again in {} s", delay.as_secs_f32().ceil()));
            }
            Ok(TailItem::End) => return Ok(Exit::Ok),
            Err(error @ ClientError::Refused { .. }) => {
                return Err(Failure::from_error(&error, "change the request as it says"));
            }
            Err(error) => return Err(Failure::from_error(&error, "name an Evertail server with --url")),
        }
    }
    Ok(Exit::Ok)
}

/// The server tells an EventSource softly that it may not read, so that a page can get a new credential. Here nobody
/// would: coming back with the same one is of no use.
fn not_let_in(event: &str, data: &str) -> Option<Failure> {
    let notice: NoticeData =
        Some(data).filter(|_| event == control::NOTICE).and_then(|data| serde_json::from_str(data).ok())?;
    let why = match notice.reason.as_str() {
        "unauthorized" => "the server lets nobody read this without a credential that grants it",
        "expired" => "the credential has expired",
        _ => return None,
    };
    Some(Failure::failed(format!("{why}; give one with --token-file or EVERTAIL_TOKEN")))
}

/// What the server says about the stream itself goes to stderr: it is not data, and must not be missed.
fn tell(event: &str, data: &str) {
    match event {
        control::GAP => match serde_json::from_str::<GapData>(data) {
            Ok(gap) => output::complain(&gone(&gap)),
            Err(_) => output::complain("events are gone; going on behind them"),
        },
        control::RESET => match serde_json::from_str::<ResetData>(data) {
            Ok(reset) => output::complain(&format!(
                "the log was reset ({}); its last seq is {}",
                output::printable(&reset.reason),
                reset.last_seq
            )),
            Err(_) => output::complain("the log was reset"),
        },
        control::NOTICE => {
            output::complain(&format!("the server ends the stream: {}", output::printable(data)))
        }
        _ => {}
    }
}

/// A gap in words.
pub(super) fn gone(gap: &GapData) -> String {
    let GapData { from, to, reason, streams } = gap;
    let reason = output::printable(reason);
    let of_streams = match streams.as_slice() {
        [] => return format!("seq {from} to {to} are gone ({reason}); going on behind them"),
        [star] if star == "*" => "of many streams".to_owned(),
        [stream] => format!("of the stream {}", output::printable(stream)),
        streams => format!("of the streams {}", output::printable(&streams.join(", "))),
    };
    format!("events {of_streams} from seq {from} to {to} are gone ({reason}); going on with what is left")
}

/// One line for people. The payload is shown as it was stored.
fn readable(json: &str) -> String {
    let Ok(event) = serde_json::from_str::<EventJson<'_>>(json) else {
        return output::printable(&Value::from(json).to_string());
    };
    let event = event.text();
    let id = event.id.map(|id| format!("  id={id}")).unwrap_or_default();
    let data = event.data.unwrap_or_default();
    let time = event.created_at.replace('T', " ");
    let time = time.get(..23).unwrap_or(&time);
    output::printable(&format!("{time}  {:>6}  {}  {}{id}  {data}", event.seq, event.stream, event.r#type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_names_the_streams_that_have_lost_events() {
        let told = |streams: &[&str]| {
            let streams = streams.iter().map(|&stream| stream.to_owned()).collect();
            gone(&GapData { from: 3, to: 9, reason: "trimmed".into(), streams })
        };
        assert_eq!(told(&[]), "seq 3 to 9 are gone (trimmed); going on behind them");
        let rest = "from seq 3 to 9 are gone (trimmed); going on with what is left";
        assert_eq!(told(&["a"]), format!("events of the stream a {rest}"));
        assert_eq!(told(&["a", "b\u{1b}"]), format!("events of the streams a, b\u{FFFD} {rest}"));
        assert_eq!(told(&["*"]), format!("events of many streams {rest}"));
    }

    #[test]
    fn a_readable_line_has_what_a_person_looks_for() {
        let json = r#"{"seq":42,"stream":"audits","id":"1","type":"user.login","created_at":"2026-11-21T09:00:00.123456Z","data":{"n":1.0}}"#;
        assert_eq!(readable(json), "2026-11-21 09:00:00.123      42  audits  user.login  id=1  {\"n\":1.0}");
        assert_eq!(readable("\u{1b}"), "\"\\u001b\"");
    }
}
