//! `evertail bench`: drives a running server, and says how fast it was and whether what it gave was right.

use super::{Exit, Failure, arguments, output};
use crate::bench::append::AppendRun;
use crate::bench::mixed::MixedRun;
use crate::bench::process::Watched;
use crate::bench::replay::{Form, ReplayRun};
use crate::bench::report::Report;
use crate::bench::request::Shape;
use crate::bench::tail::TailRun;
use crate::bench::target::Target;
use crate::bench::{BenchError, append, herd, mixed, replay, tail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::PathBuf;
use tokio::runtime::Builder;

/// `bench` and what can be run.
pub(super) fn command() -> Command {
    Command::new("bench")
        .about("Measure a running server, and verify what it delivers")
        .long_about(
            "Measure a running server, and verify what it delivers.\n\nPrints a table on a terminal, one JSON object \
             otherwise. Ends with 1 when an event was lost, repeated or out of order. Appends what it needs, so give it \
             a server of its own.",
        )
        .after_help(
            "Examples:\n  evertail bench append --connections 256\n  evertail bench tail --readers 1000 --rate 10 \
             --server-pid \"$(pgrep -x evertail)\"",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_load(
            Command::new("append").about("Append for a time: acks a second, latency of an ack"),
            "16",
        )
        .arg(number("warmup", "SECONDS", "Append so long before it counts", "1")))
        .subcommand(
            with_load(Command::new("tail").about("Append while many readers follow: each event once and in order"), "1")
                .args(reading())
                .arg(whole("readers", "N", "Streams that are open", "100"))
                .arg(switch("reconnect", "Then drop all readers and let them come back at once, with cursors within the last 10,000 events")),
        )
        .subcommand(
            Command::new("replay")
                .about("Read history from the beginning, as fast as it comes")
                .args(target())
                .arg(arguments::text("tail-url", "URL", "Read here instead, from any server, what was appended there first"))
                .arg(whole("readers", "N", "Readers at a time", "1"))
                .arg(whole("events", "N", "Fill the log to so many events first", "100000"))
                .arg(arguments::text("accept", "FORM", "How history is read").value_parser(["sse", "ndjson"]).default_value("sse"))
                .arg(arguments::text("query", "QUERY", "Which part of the log, such as stream=rare"))
                .arg(arguments::text("rare", "N", "Fill so that one event of N goes to the stream `rare`").value_parser(value_parser!(u64).range(2..)))
                .arg(whole("connections", "N", "Connections that fill the log", "2"))
                .arg(whole("batch", "N", "Events in a request that fills the log", "1000"))
                .arg(switch("array", "Send a batch as a JSON array"))
                .arg(whole("bytes", "N", "Bytes of each event's data", "200")),
        )
        .subcommand(
            with_load(Command::new("mixed").about("Append at a rate, with live readers and readers of history"), "16")
                .arg(whole("readers", "N", "Readers that follow", "10").value_parser(value_parser!(u64)))
                .arg(whole("catch-up", "N", "Readers that read from the beginning again and again", "8")
                    .value_parser(value_parser!(u64)))
                .arg(number("grace", "SECONDS", "Give up what is missing after so long without a delivery", "5"))
                .arg(arguments::text("file", "FILE", "The log file, whose WAL is watched")),
        )
}

/// What every run that appends takes.
fn with_load(command: Command, connections: &'static str) -> Command {
    command
        .arg(whole("connections", "N", "Connections that append, each with one request under way", connections))
        .arg(
            arguments::text("rate", "N", "Append so many events a second, whether or not answers come; latency counts from when each was due")
                .value_parser(value_parser!(f64)),
        )
        .arg(whole("batch", "N", "Events in a request; more than one are NDJSON", "1"))
        .arg(whole("bytes", "N", "Bytes of each event's data", "200"))
        .arg(switch("ids", "Give each event a time-ordered id"))
        .arg(number("seconds", "SECONDS", "How long it counts", "5"))
        .args(target())
}

/// Where to, and how to report.
fn target() -> Vec<Arg> {
    vec![
        arguments::url(),
        arguments::text("stream", "STREAM", "The stream").default_value("bench"),
        arguments::text("append-url", "URL", "Append here instead, to any server that takes a POST"),
        arguments::text("content-type", "TYPE", "The content type of what is appended"),
        arguments::text("header", "LINE", "A further header of each request; may be repeated")
            .action(ArgAction::Append),
        switch("bare", "Send the payload alone, without Evertail's envelope"),
        arguments::text(
            "server-pid",
            "PID",
            "The server's process, for its CPU time and memory; may be repeated",
        )
        .value_parser(value_parser!(u32))
        .action(ArgAction::Append),
        whole("threads", "N", "Threads of the load generator", "1"),
        switch("json", "Print JSON on a terminal too"),
    ]
}

/// What every run that reads live takes.
fn reading() -> Vec<Arg> {
    vec![
        arguments::text("tail-url", "URL", "Read here instead, from any server of event streams"),
        switch("allow-loss", "Count what is lost, repeated or out of order, but do not fail"),
        whole("ahead", "N", "Without a rate: stay at most so many events ahead of the readers", "1000"),
        number("settle", "SECONDS", "Wait so long once all are connected", "1"),
        number("grace", "SECONDS", "Give up what is missing after so long without a delivery", "5"),
    ]
}

fn whole(name: &'static str, value: &'static str, help: &'static str, default: &'static str) -> Arg {
    let range = value_parser!(u64).range(1..=10_000_000_000);
    arguments::text(name, value, help).value_parser(range).default_value(default)
}

fn number(name: &'static str, value: &'static str, help: &'static str, default: &'static str) -> Arg {
    arguments::text(name, value, help).value_parser(value_parser!(f64)).default_value(default)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// The runtime of the load generator. One thread by default: it shares its cores with the server.
pub(super) fn runtime(matches: &ArgMatches) -> Builder {
    let threads = matches.subcommand().map_or(1, |(_, matches)| count(matches, "threads"));
    if threads == 1 {
        return Builder::new_current_thread();
    }
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads);
    builder
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let (name, matches) = matches.subcommand().expect("clap requires one");
    let run = async {
        match name {
            "append" => append::run(&append_run(matches)?).await.map_err(failure),
            "replay" => replay::run(&replay_run(matches)?).await.map_err(failure),
            "mixed" => mixed::run(&mixed_run(matches)?).await.map_err(failure),
            _ if matches.get_flag("reconnect") => herd::run(&tail_run(matches)?).await.map_err(failure),
            _ => tail::run(&tail_run(matches)?).await.map_err(failure),
        }
    };
    let report = tokio::select! {
        report = run => report?,
        _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
    };
    print(&report, matches.get_flag("json"))
}

fn print(report: &Report, is_json: bool) -> Result<Exit, Failure> {
    output::line(&if output::is_terminal() && !is_json { report.table() } else { report.json() })?;
    if report.failures.is_empty() {
        return Ok(Exit::Ok);
    }
    let what = report.failures.join(", ");
    Err(Failure::failed(format!("what was delivered is not right: {what}; look into the server's log")))
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::Url { .. } | BenchError::Options(_) => Failure::usage(error.to_string()),
        error => Failure::from_error(&error, ""),
    }
}

fn append_run(matches: &ArgMatches) -> Result<AppendRun, Failure> {
    Ok(AppendRun {
        target: append_target(matches)?,
        shape: shape(matches)?,
        connections: count(matches, "connections"),
        rate: rate(matches)?,
        seconds: seconds(matches, "seconds")?,
        warmup_seconds: seconds(matches, "warmup")?,
        server: server(matches),
    })
}

fn tail_run(matches: &ArgMatches) -> Result<TailRun, Failure> {
    Ok(TailRun {
        append: append_target(matches)?,
        tail: tail_target(matches)?,
        shape: shape(matches)?,
        readers: count(matches, "readers"),
        connections: count(matches, "connections"),
        rate: rate(matches)?,
        seconds: seconds(matches, "seconds")?,
        settle_seconds: seconds(matches, "settle")?,
        grace_seconds: seconds(matches, "grace")?,
        ahead: count(matches, "ahead") as u64,
        allows_loss: matches.get_flag("allow-loss"),
        server: server(matches),
    })
}

fn replay_run(matches: &ArgMatches) -> Result<ReplayRun, Failure> {
    let query = text(matches, "query");
    let is_lines = text(matches, "accept").as_deref() == Some("ndjson");
    let rare_every = matches.get_one::<u64>("rare").copied();
    let (read, form) = match text(matches, "tail-url") {
        Some(url) => (Target::parse(&url).map_err(failure)?, Form::Marks),
        None => {
            let part = query.as_ref().map(|query| format!("&{query}")).unwrap_or_default();
            let read = evertail(matches, &format!("/api/v1/events?after=0{part}"))?;
            (read, if is_lines { Form::Lines } else { Form::Sse })
        }
    };
    let append =
        if rare_every.is_some() { evertail(matches, "/api/v1/events")? } else { append_target(matches)? };
    Ok(ReplayRun {
        append,
        read,
        form,
        is_part: query.is_some(),
        shape: Shape { rare_every, ..shape(matches)? },
        connections: count(matches, "connections"),
        readers: count(matches, "readers"),
        events: count(matches, "events") as u64,
        server: server(matches),
    })
}

fn mixed_run(matches: &ArgMatches) -> Result<MixedRun, Failure> {
    let rate = rate(matches)?;
    Ok(MixedRun {
        target: append_target(matches)?,
        shape: shape(matches)?,
        connections: count(matches, "connections"),
        rate: rate
            .ok_or_else(|| Failure::usage("appends beside readers need a rate; give one with --rate"))?,
        seconds: seconds(matches, "seconds")?,
        readers: count(matches, "readers"),
        catch_up: count(matches, "catch-up"),
        grace_seconds: seconds(matches, "grace")?,
        file: text(matches, "file").map(PathBuf::from),
        server: server(matches),
    })
}

fn append_target(matches: &ArgMatches) -> Result<Target, Failure> {
    url_or(matches, "append-url")
}

fn tail_target(matches: &ArgMatches) -> Result<Target, Failure> {
    url_or(matches, "tail-url")
}

/// The URL of this flag, else the stream of an Evertail server.
fn url_or(matches: &ArgMatches, name: &str) -> Result<Target, Failure> {
    let url = match matches.get_one::<String>(name) {
        Some(url) => url.clone(),
        None => {
            let stream = text(matches, "stream").unwrap_or_default();
            return evertail(matches, &format!("/api/v1/{stream}"));
        }
    };
    Target::parse(&url).map_err(failure)
}

/// A path of an Evertail server.
fn evertail(matches: &ArgMatches, path: &str) -> Result<Target, Failure> {
    let url = format!("{}{path}", arguments::server_url(matches)?.trim_end_matches('/'));
    Target::parse(&url).map_err(failure)
}

fn shape(matches: &ArgMatches) -> Result<Shape, Failure> {
    let headers: Vec<String> = matches.get_many("header").into_iter().flatten().cloned().collect();
    if let Some(wrong) = headers.iter().find(|line| !line.contains(": ") || line.contains(['\r', '\n'])) {
        return Err(Failure::usage(format!("{wrong:?} is no header; write it as `Name: value`")));
    }
    Ok(Shape {
        bytes: count(matches, "bytes"),
        batch: count(matches, "batch"),
        is_array: is_set(matches, "array"),
        has_ids: is_set(matches, "ids"),
        is_bare: matches.get_flag("bare"),
        content_type: text(matches, "content-type"),
        headers,
        rare_every: None,
    })
}

fn server(matches: &ArgMatches) -> Watched {
    Watched(matches.get_many("server-pid").into_iter().flatten().copied().collect())
}

fn text(matches: &ArgMatches, name: &str) -> Option<String> {
    matches.get_one::<String>(name).cloned()
}

fn count(matches: &ArgMatches, name: &str) -> usize {
    matches.get_one::<u64>(name).map_or(1, |count| usize::try_from(*count).unwrap_or(usize::MAX))
}

/// A switch that only some of the runs have.
fn is_set(matches: &ArgMatches, name: &str) -> bool {
    matches.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false)
}

/// A length of time or a rate that can be run.
fn positive(name: &str, value: f64) -> Result<f64, Failure> {
    if (0.0..1e9).contains(&value) {
        return Ok(value);
    }
    Err(Failure::usage(format!("{value} cannot be run; give --{name} a number from 0 to a billion")))
}

fn seconds(matches: &ArgMatches, name: &str) -> Result<f64, Failure> {
    positive(name, matches.get_one::<f64>(name).copied().unwrap_or(0.0))
}

/// A rate of 0 is no rate: as fast as answered.
fn rate(matches: &ArgMatches) -> Result<Option<f64>, Failure> {
    let rate = matches.get_one::<f64>("rate").map(|rate| positive("rate", *rate)).transpose()?;
    Ok(rate.filter(|rate| *rate > 0.0))
}
