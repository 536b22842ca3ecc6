//! `evertail export`: history to a file or to stdout, whole or told.

mod format;
mod sink;

use super::{Exit, Failure, arguments, output, progress, tail};
use crate::client::{Client, ClientError, History};
use clap::ArgMatches;
use format::{Format, lines_of};
use serde::Deserialize;
use sink::Sink;
use std::path::Path;
use std::time::Duration;

/// Attempts to take up a broken connection without a single event gained.
const ATTEMPTS_MAX: u32 = 6;

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let client = arguments::client(matches)?;
    let (stream, mut query) = arguments::selection(matches);
    if let Some(until) = matches.get_one::<String>("until") {
        query.append_pair("until", until);
    }
    let path = matches.get_one::<String>("output").map(Path::new);
    let name = path.and_then(Path::to_str).unwrap_or_default();
    let format = Format::of(matches.get_one::<String>("format").map(String::as_str), name);
    if format.is_cloud_events() {
        query.append_pair("format", "cloudevents");
    }
    let selection = query.finish();
    let (mut sink, there) = Sink::open(path, format, matches.get_flag("resume"))?;
    let resumed = there.last;

    // The export ends where the log ends now, however often the connection breaks.
    let begin = match resumed {
        Some(after) => format!("after={after}"),
        None => form_urlencoded::Serializer::new(String::new())
            .extend_pairs(arguments::beginning(matches))
            .finish(),
    };
    let bounds = bounds(&client, stream, &join(&[&begin, &selection])).await?;
    let through =
        matches.get_one::<u64>("before").map_or(bounds.last_seq, |before| bounds.last_seq.min(before - 1));
    let first = resumed.unwrap_or(bounds.first_seq.saturating_sub(1));
    let bar = progress::bar(through.saturating_sub(first), "events");
    let mut export = Export { format, last: resumed, events: 0, is_begun: there.is_begun };
    let mut attempts = 0;
    while export.last.is_none_or(|last| last < through) && through > 0 {
        let begin = export.last.map_or_else(|| begin.clone(), |last| format!("after={last}"));
        let query = join(&[&begin, &format!("before={}", through + 1), &selection]);
        let before = export.events;
        let asked = client.history(stream, &query, format.accept(!export.is_begun)).await;
        let outcome = match asked {
            Ok(history) => {
                let gaps = history
                    .gaps()
                    .map_err(|error| Failure::from_error(&error, "name an Evertail server with --url"))?;
                gaps.iter().for_each(|gap| output::complain(&tail::gone(gap)));
                export.take(history, &mut sink, |last| bar.set_position(last.saturating_sub(first))).await?
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => break,
            Err(error @ ClientError::Refused { is_retryable: false, .. }) => {
                return Err(Failure::from_error(&error, "change the request as it says"));
            }
            Err(error) => {
                attempts = if export.events > before { 1 } else { attempts + 1 };
                if attempts >= ATTEMPTS_MAX {
                    return Err(Failure::from_error(
                        &error,
                        "what is written is whole events; go on with --resume",
                    ));
                }
                tokio::time::sleep(Duration::from_millis(100 << attempts)).await;
            }
        }
    }
    bar.finish_and_clear();
    sink.finish(format.ending(!export.is_begun))?;
    if path.is_some() {
        let last = export.last.map_or_else(String::new, |last| format!(", the last is seq {last}"));
        output::complain(&format!("exported {} events{last}", export.events));
    }
    Ok(Exit::Ok)
}

fn join(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("&")
}

#[derive(Deserialize)]
struct Bounds {
    first_seq: u64,
    last_seq: u64,
}

async fn bounds(client: &Client, stream: Option<&str>, query: &str) -> Result<Bounds, Failure> {
    let bounds = match client.history(stream, &join(&[query, "limit=1"]), "application/json").await {
        Ok(page) => page.json().await,
        Err(error) => Err(error),
    };
    bounds.map_err(|error| Failure::from_error(&error, "name an Evertail server with --url"))
}

/// What has been written.
struct Export {
    format: Format,
    last: Option<u64>,
    events: u64,
    /// An event, or the names of the columns, is there.
    is_begun: bool,
}

impl Export {
    /// Writes whole lines as they come. The outer error is the sink's, the inner one the connection's.
    async fn take(
        &mut self,
        mut history: History,
        sink: &mut Sink,
        show: impl Fn(u64),
    ) -> Result<Result<(), ClientError>, Failure> {
        let mut rest: Vec<u8> = Vec::new();
        loop {
            match history.chunk().await {
                Ok(Some(chunk)) => {
                    rest.extend_from_slice(&chunk);
                    let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
                    let lines = &rest[..=end];
                    for line in lines_of(lines) {
                        if let Some(seq) = self.format.seq(line) {
                            self.last = Some(seq);
                            self.events += 1;
                        }
                    }
                    sink.write(&self.format.encode(lines, !self.is_begun))?;
                    self.is_begun = true;
                    rest.drain(..=end);
                    self.last.iter().for_each(|last| show(*last));
                }
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}
