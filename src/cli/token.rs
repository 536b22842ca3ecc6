//! `evertail token`: makes, lists and revokes the tokens of a running server, or, while none runs, of its file: how the
//! first one comes to be.

use super::trim::{json, parsed};
use super::{Exit, Failure, arguments, output, serve};
use crate::auth::{Grants, TokenDraft, all_shown, shown};
use crate::client::ClientError;
use crate::config;
use crate::event::{Timestamp, check_hold_name};
use crate::log::{Log, TokenError};
use crate::wire::admin::{TokenJson, TokensJson};
use arguments::text;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::sync::Arc;

pub(super) fn command() -> Command {
    let file = || {
        text("file", "FILE", "The log file itself, while no server runs on it; for the first token of all")
            .conflicts_with_all(["url", "ca-file", "token-file"])
    };
    let streams = |name: &'static str, help: &'static str| {
        text(name, "STREAM", help).action(ArgAction::Append).value_delimiter(',')
    };
    Command::new("token")
        .about("Make, list and revoke the tokens that let clients in")
        .after_help(
            "A token is shown once, when it is made, and cannot be shown again.\n\nExamples:\n  \
             evertail token create --admin --name operator --file data/evertail.db\n  \
             evertail token create --append audits --read 'orders.*' --expires 90d --name ci\n  \
             evertail token list\n  evertail token revoke 3f2a90c14d7be658",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("create")
                .about("Make a token")
                .arg(text("name", "NAME", "What the token is called").required(true))
                .arg(streams(
                    "append",
                    "Stream that it may append to, or streams such as orders.*; may be repeated",
                ))
                .arg(streams("read", "Stream that it may read, or streams such as orders.*; may be repeated"))
                .arg(
                    Arg::new("admin")
                        .long("admin")
                        .action(ArgAction::SetTrue)
                        .help("It may trim, hold, and make tokens"),
                )
                .arg(
                    Arg::new("metrics")
                        .long("metrics")
                        .action(ArgAction::SetTrue)
                        .help("It may read the metrics; for a scraper"),
                )
                .arg(text(
                    "expires",
                    "AGE",
                    "How long it is valid, such as 90d [default: until it is revoked]",
                ))
                .arg(json())
                .arg(file())
                .args(arguments::server()),
        )
        .subcommand(
            Command::new("list").about("List all tokens").arg(json()).arg(file()).args(arguments::server()),
        )
        .subcommand(
            Command::new("revoke")
                .about("Revoke a token; streams that it has open end within seconds")
                .arg(Arg::new("id").required(true).value_name("ID").help("Its id, as listed"))
                .arg(json())
                .arg(file())
                .args(arguments::server()),
        )
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let (what, matches) = matches.subcommand().expect("clap requires it");
    let is_raw = matches.get_flag("json") || !output::is_terminal();
    let answer = match matches.get_one::<String>("file") {
        Some(file) => of_file(what, matches, file).await?,
        None => of_server(what, matches).await?,
    };
    match what {
        _ if is_raw => output::line(&answer)?,
        "list" => in_words(&parsed(&answer)?).iter().try_for_each(|line| output::line(line))?,
        "create" => {
            let token: TokenJson = parsed(&answer)?;
            let text = token.token.as_deref().unwrap_or_default();
            output::line(&output::printable(text))?;
            output::complain(&output::printable(&format!(
                "this is the token {} ({}); it is not shown again",
                token.name, token.id
            )));
        }
        _ => {
            let token: TokenJson = parsed(&answer)?;
            output::line(&output::printable(&format!("{} ({}) is revoked", token.name, token.id)))?;
        }
    }
    Ok(Exit::Ok)
}

async fn of_server(what: &str, matches: &ArgMatches) -> Result<String, Failure> {
    let client = arguments::client(matches)?;
    let answer = match what {
        "list" => client.tokens().await,
        "create" => client.create_token(body(matches)?).await,
        _ => client.revoke_token(id(matches)).await,
    };
    answer.map_err(|error| Failure::from_error(&error, next_step(&error)))
}

/// The same on the file: its lock keeps it from being done while a server runs.
async fn of_file(what: &str, matches: &ArgMatches, file: &str) -> Result<String, Failure> {
    let draft = if what == "create" { Some(draft(matches)?) } else { None };
    // What else is set is of the server, but for who has a part in the file.
    let mut raw = config::Raw::from([("EVERTAIL_FILE", file.to_owned())]);
    raw.extend(arguments::server_variables()?.remove_entry("EVERTAIL_CHECKPOINTS"));
    let config = config::resolve(&raw, None).map_err(|errors| Failure::usage(errors.to_string()))?;
    if !config.file.is_file() && what != "create" {
        return Err(Failure::usage(format!("{file} is not there; name the log file of the server")));
    }
    let opened = Log::open(serve::log_settings(&config)).await;
    let (log, mut task) = opened.map_err(|error| {
        let next = "stop that server, or leave --file out to ask it";
        Failure::from_error(&error, if error.to_string().contains("in use") { next } else { "" })
    })?;
    let done = change(&log, what, draft, matches).await;
    log.close().await;
    task.wait().await.map_err(|error| Failure::from_error(&error, ""))?;
    done
}

async fn change(
    log: &Log,
    what: &str,
    draft: Option<TokenDraft>,
    matches: &ArgMatches,
) -> Result<String, Failure> {
    let failed = |error: TokenError| {
        let next = match error {
            TokenError::Unknown => "`evertail token list --file ...` lists the tokens",
            TokenError::TooMany => "revoke one first",
            TokenError::Append(_) => "look at the disk, then try again",
        };
        Failure::from_error(&error, next)
    };
    let answer = match draft {
        Some(draft) => {
            let (secret, token) = draft.make()?;
            let token = log.create_token(token).await.map_err(failed)?;
            serde_json::to_string(&shown(&token, Some(&secret)))
        }
        None if what == "list" => {
            let table = log.tokens().borrow().clone();
            serde_json::to_string(&all_shown(&table))
        }
        None => {
            let token = log.revoke_token(Arc::from(id(matches))).await.map_err(failed)?;
            serde_json::to_string(&shown(&token, None))
        }
    };
    Ok(answer.expect("a token always serialises"))
}

fn id(matches: &ArgMatches) -> &str {
    matches.get_one::<String>("id").expect("clap requires it")
}

fn list(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).into_iter().flatten().map(|text| text.trim().to_owned()).collect()
}

/// What is asked of the server, which checks it.
fn body(matches: &ArgMatches) -> Result<Vec<u8>, Failure> {
    let mut members = serde_json::Map::new();
    let name = matches.get_one::<String>("name").expect("clap requires it");
    members.insert("name".into(), name.as_str().into());
    members.insert("append".into(), list(matches, "append").into());
    members.insert("read".into(), list(matches, "read").into());
    members.insert("admin".into(), matches.get_flag("admin").into());
    members.insert("metrics".into(), matches.get_flag("metrics").into());
    if let Some(expires) = matches.get_one::<String>("expires") {
        members.insert("expires_in".into(), expires.as_str().into());
    }
    check_grants(matches)?;
    Ok(serde_json::Value::Object(members).to_string().into_bytes())
}

/// *Errors*: it would be of no use.
fn check_grants(matches: &ArgMatches) -> Result<(), Failure> {
    let is_something = ["admin", "metrics"].iter().any(|flag| matches.get_flag(flag))
        || matches.contains_id("append")
        || matches.contains_id("read");
    if is_something {
        return Ok(());
    }
    Err(Failure::usage(
        "the token would allow nothing; give it any of --append, --read, --admin and --metrics",
    ))
}

fn draft(matches: &ArgMatches) -> Result<TokenDraft, Failure> {
    check_grants(matches)?;
    let name = matches.get_one::<String>("name").expect("clap requires it");
    let name = check_hold_name(name).map_err(|error| Failure::usage(format!("--name {error}")))?;
    let patterns = |flag: &str| {
        let texts = list(matches, flag);
        let patterns = Grants::patterns(texts.iter().map(String::as_str));
        patterns.map_err(|error| Failure::usage(format!("--{flag} {error}")))
    };
    let expires_at = match matches.get_one::<String>("expires") {
        None => None,
        Some(text) => {
            let micros = config::age(text).and_then(|age| i64::try_from(age.as_micros()).ok());
            let end = micros.and_then(|micros| Timestamp::now().microseconds().checked_add(micros));
            let end = end.map(Timestamp::from_microseconds);
            Some(end.ok_or_else(|| {
                Failure::usage(format!(
                    "--expires {text:?} is no duration; give one such as 12h, 90d or 1year"
                ))
            })?)
        }
    };
    let grants = Grants {
        append: patterns("append")?.into(),
        read: patterns("read")?.into(),
        admin: matches.get_flag("admin"),
        metrics: matches.get_flag("metrics"),
    };
    Ok(TokenDraft { name, grants, expires_at })
}

fn next_step(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { is_unsent: true, .. } => {
            "start the server, name another with --url, or name its file with --file"
        }
        ClientError::Unreachable { .. } => "look with `evertail token list` whether it is done",
        ClientError::Refused { status: 401 | 403, .. } => {
            "show a token that may administer, with --token-file or EVERTAIL_TOKEN"
        }
        ClientError::Refused { code, .. } if code == "token_not_found" => {
            "`evertail token list` lists the tokens"
        }
        ClientError::Refused { is_retryable: true, .. } => "try again later",
        ClientError::Refused { .. } => "change the command as it says",
        ClientError::Untrusted { .. } => "name the authority of its certificate with --ca-file",
        ClientError::NotEvertail { .. } => "name an Evertail server with --url",
    }
}

fn in_words(TokensJson { tokens }: &TokensJson) -> Vec<String> {
    if tokens.is_empty() {
        return vec!["there are no tokens".to_owned()];
    }
    let line = |token: &TokenJson| {
        let mut grants = Vec::new();
        for (what, streams) in [("append", &token.append), ("read", &token.read)] {
            if !streams.is_empty() {
                grants.push(format!("{what} {}", streams.join(",")));
            }
        }
        grants.extend(token.admin.then(|| "admin".to_owned()));
        grants.extend(token.metrics.then(|| "metrics".to_owned()));
        let until = match (&token.revoked_at, &token.expires_at) {
            (Some(at), _) => format!("revoked {at}"),
            (None, Some(at)) => format!("until {at}"),
            (None, None) => "without an end".to_owned(),
        };
        let TokenJson { id, name, created_at, .. } = token;
        output::printable(&format!("{id}  {name}  {}  since {created_at}  {until}", grants.join("; ")))
    };
    tokens.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed_a_line_each() {
        let listed = |json: &str| in_words(&parsed(json).unwrap());
        assert_eq!(listed(r#"{"tokens":[]}"#), ["there are no tokens"]);
        let tokens = r#"{"tokens":[
            {"id":"1","name":"ci","append":["a","b.*"],"read":["c"],"admin":true,"created_at":"T"},
            {"id":"2","name":"x","append":[],"read":["*"],"admin":false,"created_at":"T","expires_at":"E","revoked_at":"R"}]}"#;
        assert_eq!(
            listed(tokens),
            [
                "1  ci  append a,b.*; read c; admin  since T  without an end",
                "2  x  read *  since T  revoked R"
            ]
        );
    }
}
