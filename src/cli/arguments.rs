//! What the command line accepts. The flags of the server are the table of `config`; nothing is stated twice.

use super::Failure;
use crate::client::Client;
use crate::config::{CLIENT_CA_FILE, CLIENT_SETTINGS, CLIENT_TOKEN, CLIENT_URL, Raw, SETTINGS, Setting};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::collections::HashMap;
use std::env;
use std::path::Path;

/// The command line of `evertail`.
pub fn command() -> Command {
    Command::new("evertail")
        .version(super::version::version())
        .about("A durable event log in one binary and one SQLite file, tailed by any EventSource.")
        .long_about(
            "A durable event log in one binary and one SQLite file, tailed by any EventSource.\n\n\
             Without a command it serves. Every flag of the server can also be set as a variable, in the environment \
             or in a file named .env in the working directory; a flag wins over a variable, a variable over the file.",
        )
        .args_conflicts_with_subcommands(true)
        .args(SETTINGS.iter().map(flag))
        .subcommand(Command::new("serve").about("Serve the log (the default)").args(SETTINGS.iter().map(flag)))
        .subcommand(
            Command::new("append")
                .about("Append events to a stream of a running server")
                .after_help(
                    "Examples:\n  evertail append audits '{\"actor\":\"alice\"}' --type user.login\n  \
                     tail -F app.log | evertail append logs -",
                )
                .arg(Arg::new("stream").required(true).value_name("STREAM").help("The stream to append to"))
                .arg(Arg::new("data").required(true).value_name("DATA").allow_hyphen_values(true).help(
                    "The payload: JSON, or else text; - reads stdin, one event a line",
                ))
                .arg(text("type", "TYPE", "The type of the event [default: message]"))
                .arg(text("id", "ID", "Your own id of the event; repeating it appends nothing"))
                .arg(text("source", "SOURCE", "The context the event happened in"))
                .arg(text("subject", "SUBJECT", "What the event is about"))
                .arg(text("time", "TIME", "When it happened, RFC 3339"))
                .args(server()),
        )
        .subcommand(
            Command::new("tail")
                .about("Follow a stream, or the whole log, of a running server")
                .after_help(
                    "Reconnects and resumes by itself. Prints lines for people on a terminal, one JSON event a line \
                     otherwise.\n\nExamples:\n  evertail tail audits --last 10\n  evertail tail --after 0 | jq .data",
                )
                .arg(Arg::new("stream").value_name("STREAM").help(
                    "The stream, or streams such as orders.*; without it, the whole log",
                ))
                .args(reading_flags())
                .arg(text("limit", "N", "End after so many events").value_parser(value_parser!(u64).range(1..)))
                .args(server()),
        )
        .subcommand(
            Command::new("export")
                .about("Write history of a running server to a file or to stdout")
                .after_help(
                    "What is exported ends with the newest event of the moment it began. A broken connection is taken up again \
                     where it broke.\n\nExamples:\n  evertail export --output log.ndjson.zst\n  \
                     evertail export 'orders.*' --since 7d --output orders.csv\n  evertail export --output log.ndjson --resume\n  \
                     evertail export --output log.cloudevents.json",
                )
                .arg(Arg::new("stream").value_name("STREAM").help(
                    "The stream, or streams such as orders.*; without it, the whole log",
                ))
                .arg(text("output", "FILE", "Where to; .csv is CSV, .cloudevents.json an array of CloudEvents, .cloudevents.ndjson one a line, anything else NDJSON; with .zst behind it compressed [default: stdout, NDJSON]"))
                .arg(text("format", "FORMAT", "ndjson, csv, cloudevents (an array) or cloudevents-lines, whatever the file is called")
                    .value_parser(["ndjson", "csv", "cloudevents", "cloudevents-lines"]))
                .arg(Arg::new("resume").long("resume").action(clap::ArgAction::SetTrue).requires("output").help("Go on behind the last event of the file"))
                .args(reading_flags())
                .args(server()),
        )
        .subcommand(
            Command::new("import")
                .about("Append the events of an export to a running server")
                .after_help(
                    "Reads what export writes, but for CSV, and recognises it: events or CloudEvents, a line each, or CloudEvents in \
                     one array; compressed if the file ends in .zst. Events with an id that are there already are not appended \
                     again. seq and created_at are given anew, streams that had ended are closed again, and what the other server \
                     told in its own stream, evertail, is left out.\n\nExamples:\n  evertail import log.ndjson.zst\n  \
                     evertail import events.ndjson --on-error skip\n  evertail import events.ndjson --from-line 1234\n  \
                     evertail import log.cloudevents.json --from-element 1234",
                )
                .arg(Arg::new("file").required(true).value_name("FILE").help("The file; - reads stdin"))
                .arg(text("format", "FORMAT", "What the file is, and nothing else: ndjson, cloudevents (an array) or cloudevents-lines [default: recognised]")
                    .value_parser(["ndjson", "cloudevents", "cloudevents-lines"]))
                .arg(text("stream", "STREAM", "The stream of CloudEvents that name none; any other is refused"))
                .arg(text("on-error", "WHAT", "What to do with an event that is refused").value_parser(["stop", "skip"]).default_value("stop"))
                .arg(text("from-line", "N", "Begin with this line, or element of an array").visible_alias("from-element").value_parser(value_parser!(u64).range(1..)))
                .args(server()),
        )
        .subcommand(super::backup::command())
        .subcommand(super::backup::restore_command())
        .subcommand(super::doctor::command())
        .subcommand(super::check::command())
        .subcommand(super::trim::command())
        .subcommand(super::hold::command())
        .subcommand(super::token::command())
        .subcommand(super::top::command())
        .subcommand(super::bench::command())
        .subcommand(super::manual::completions_command())
        .subcommand(super::manual::man_command())
}

fn flag(setting: &Setting) -> Arg {
    let default =
        if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
    Arg::new(setting.variable)
        .long(setting.flag())
        .value_name("VALUE")
        .help(format!("{} Accepts {}.{default} [env: {}]", setting.meaning, setting.range, setting.variable))
}

pub(super) fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// What to read: from where, to where, and which events of it.
fn reading_flags() -> [Arg; 9] {
    [
        text("after", "SEQ", "Begin after this seq; 0 is the beginning")
            .conflicts_with_all(["since", "last"]),
        text("since", "TIME", "Begin at this RFC 3339 time, or so long ago: 10m, 2h, 7d")
            .conflicts_with("last"),
        text("last", "N", "Begin with the newest N events"),
        text("before", "SEQ", "End before this seq").value_parser(value_parser!(u64).range(1..)),
        text("until", "TIME", "End before this RFC 3339 time, or so long ago: 10m, 2h, 7d"),
        many("type", "TYPE", "Only this type, or types such as user.*; may be repeated"),
        many("source", "SOURCE", "Only events of this source; may be repeated"),
        many("subject", "SUBJECT", "Only events about this subject; may be repeated"),
        many(
            "where",
            "CONDITION",
            "Only events whose payload is so: data.actor=alice, data.amount>=100, data.name~=ali; may be repeated",
        ),
    ]
}

/// The stream of the URL, and the parameters that select.
pub(super) fn selection(
    matches: &ArgMatches,
) -> (Option<&str>, form_urlencoded::Serializer<'static, String>) {
    let mut query = form_urlencoded::Serializer::new(String::new());
    // A prefix is no stream of its own but a selection of the whole log.
    let (stream, prefix) = match matches.get_one::<String>("stream") {
        Some(name) if name.contains('*') => (None, Some(name)),
        name => (name, None),
    };
    query.extend_pairs(prefix.map(|prefix| ("stream", prefix)));
    for name in ["type", "source", "subject"] {
        for value in matches.get_many::<String>(name).into_iter().flatten() {
            query.append_pair(name, value);
        }
    }
    for condition in matches.get_many::<String>("where").into_iter().flatten() {
        // As in a URL: what is before the first `=` is the name. `data.a>5` has none.
        let (name, value) = condition.split_once('=').unwrap_or((condition, ""));
        query.append_pair(name, value);
    }
    (stream.map(String::as_str), query)
}

/// Where the user wants to begin, as parameters.
pub(super) fn beginning(matches: &ArgMatches) -> impl Iterator<Item = (&'static str, &String)> {
    ["after", "since", "last"].into_iter().filter_map(|name| Some((name, matches.get_one(name)?)))
}

fn many(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    text(name, value, help).action(clap::ArgAction::Append)
}

pub(super) fn url() -> Arg {
    text("url", "URL", "Where the server is [default: http://127.0.0.1:8888] [env: EVERTAIL_URL]")
}

/// Where the server is, whom to trust if it speaks https, and what to show it.
pub(super) fn server() -> [Arg; 3] {
    let ca_file = "PEM file of the authorities to trust over https, instead of those of the system [env: EVERTAIL_CA_FILE]";
    let token_file = "File that holds the token to show the server [env: EVERTAIL_TOKEN, the token itself]";
    [url(), text("ca-file", "FILE", ca_file), text("token-file", "FILE", token_file)]
}

/// The settings of the server as they were given: flag, else variable, else `.env`.
pub(super) fn settings(matches: &ArgMatches) -> Result<Raw, Failure> {
    let given = variables()?;
    let mut raw = Raw::new();
    for setting in SETTINGS {
        let flag = matches.get_one::<String>(setting.variable);
        if let Some(value) = flag.or_else(|| given.get(setting.variable)) {
            raw.insert(setting.variable, value.clone());
        }
    }
    Ok(raw)
}

/// The settings of a server as its variables say, for commands that look at its file.
pub(super) fn server_variables() -> Result<Raw, Failure> {
    let given = variables()?;
    let of_server = |setting: &Setting| Some((setting.variable, given.get(setting.variable)?.clone()));
    Ok(SETTINGS.iter().filter_map(of_server).collect())
}

/// The server that the client commands talk to.
pub(super) fn server_url(matches: &ArgMatches) -> Result<String, Failure> {
    let url = match matches.get_one::<String>("url") {
        Some(url) => url.clone(),
        None => variables()?.remove(CLIENT_URL.variable).unwrap_or_else(|| CLIENT_URL.default.to_owned()),
    };
    if url.starts_with("http://") || url.starts_with("https://") {
        Ok(url)
    } else {
        Err(Failure::usage(format!("{url:?} is not an http or https URL; give one with --url")))
    }
}

/// A client of the server that the client commands talk to.
pub(super) fn client(matches: &ArgMatches) -> Result<Client, Failure> {
    let client = untold_client(matches)?;
    let token = match matches.get_one::<String>("token-file") {
        Some(file) => Some(std::fs::read_to_string(file).map_err(|source| {
            Failure::usage(format!("{file} cannot be read: {source}; name a file with --token-file"))
        })?),
        None => variables()?.remove(CLIENT_TOKEN.variable).filter(|token| !token.is_empty()),
    };
    match token.as_deref().map(str::trim) {
        None => Ok(client),
        // What was given is not printed: it may be a token but for one character.
        Some(token) => client.with_token(token).ok_or_else(|| {
            Failure::usage("the token holds what no token can; give it with --token-file or EVERTAIL_TOKEN")
        }),
    }
}

/// The client of a server that is shown nothing.
fn untold_client(matches: &ArgMatches) -> Result<Client, Failure> {
    let url = server_url(matches)?;
    if url.starts_with("http://") {
        return Ok(Client::new(&url));
    }
    let file = match matches.get_one::<String>("ca-file") {
        Some(file) => Some(file.clone()),
        None => variables()?.remove(CLIENT_CA_FILE.variable).filter(|file| !file.is_empty()),
    };
    let Some(file) = file else {
        let next_step = "install the authorities of the system, or name a file of them with --ca-file";
        return Client::over_tls(&url, None).map_err(|error| Failure::from_error(&error, next_step));
    };
    let pem = std::fs::read(&file).map_err(|source| {
        Failure::usage(format!("{file} cannot be read: {source}; name a PEM file with --ca-file"))
    })?;
    let client = Client::over_tls(&url, Some(&pem));
    client.map_err(|error| Failure::from_error(&error, "name a file of PEM certificates with --ca-file"))
}

/// Every `EVERTAIL_*` variable of the environment and of `.env`. A name that is no setting is a mistake someone will
/// look for, so it is told.
pub(super) fn variables() -> Result<HashMap<String, String>, Failure> {
    let mut variables = HashMap::new();
    if Path::new(".env").is_file() {
        let unreadable = |error: dotenvy::Error| {
            Failure::usage(format!(".env cannot be read: {error}; mend or remove it"))
        };
        for pair in dotenvy::from_path_iter(".env").map_err(unreadable)? {
            let (name, value) = pair.map_err(unreadable)?;
            variables.insert(name, value);
        }
    }
    variables.extend(
        env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    );
    variables.retain(|name, _| name.starts_with("EVERTAIL_"));
    let known =
        |name: &String| SETTINGS.iter().chain(CLIENT_SETTINGS).any(|setting| setting.variable == name);
    match variables.keys().find(|name| !known(name)) {
        Some(name) => Err(Failure::usage(format!("{name} is not a setting; `evertail --help` lists them"))),
        None => Ok(variables),
    }
}
