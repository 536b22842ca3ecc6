//! `evertail append`: one event from the command line, or one for each line of stdin.

use super::{Exit, Failure, TRUST_STEP, arguments, output};
use crate::client::{Client, ClientError};
use crate::wire::ReceiptJson;
use clap::ArgMatches;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

/// Lines that are sent as one batch, if so many wait. Below the server's default of 1,000.
const BATCH_LINES_MAX: usize = 500;
/// Bytes of lines that are sent as one batch. Below the server's default of 4 MiB.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// Attempts at one request, if trying again cannot append twice.
const ATTEMPTS_MAX: u32 = 6;

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let client = arguments::client(matches)?;
    let stream: &String = matches.get_one("stream").expect("clap requires it");
    let data: &String = matches.get_one("data").expect("clap requires it");
    let mut members = Map::new();
    for name in ["type", "id", "source", "subject", "time"] {
        if let Some(value) = matches.get_one::<String>(name) {
            members.insert(name.to_owned(), Value::from(value.as_str()));
        }
    }
    if data != "-" {
        let is_repeatable = members.contains_key("id");
        let body = event(&members, data);
        return send(&client, stream, "application/json", body, is_repeatable).await.map(|()| Exit::Ok);
    }
    if members.contains_key("id") {
        return Err(Failure::usage(
            "one --id cannot be that of every line; leave it out, or append one event",
        ));
    }
    append_lines(&client, stream, &members).await
}

/// Appends each line of stdin. What waits goes together; a lone line goes at once.
async fn append_lines(client: &Client, stream: &str, members: &Map<String, Value>) -> Result<Exit, Failure> {
    const LINES: &str = "application/x-ndjson";
    let (lines, mut waiting) = mpsc::channel(BATCH_LINES_MAX);
    let reader = tokio::spawn(read_lines(lines));
    let mut batch: Vec<String> = Vec::new();
    while waiting.recv_many(&mut batch, BATCH_LINES_MAX).await > 0 {
        let mut body = Vec::new();
        for line in batch.drain(..) {
            let event = event(members, &line);
            if !body.is_empty() && body.len() + event.len() > BATCH_BYTES_MAX {
                send(client, stream, LINES, std::mem::take(&mut body), false).await?;
            }
            body.extend(event);
            body.push(b'\n');
        }
        send(client, stream, LINES, body, false).await?;
    }
    match reader.await {
        Ok(Err(error)) => Err(Failure::failed(format!("stdin cannot be read: {error}; send UTF-8 text"))),
        _ => Ok(Exit::Ok),
    }
}

async fn read_lines(lines: mpsc::Sender<String>) -> std::io::Result<()> {
    let mut stdin = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = stdin.next_line().await? {
        if !line.trim().is_empty() && lines.send(line).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// One event as JSON. The payload is JSON if it is valid JSON, and is then passed on as it is; else text.
fn event(members: &Map<String, Value>, data: &str) -> Vec<u8> {
    let mut body = serde_json::to_vec(members).expect("a map always serialises");
    body.pop();
    if body.len() > 1 {
        body.push(b',');
    }
    body.extend_from_slice(b"\"data\":");
    match serde_json::from_str::<&RawValue>(data) {
        Ok(json) => body.extend_from_slice(json.get().replace(['\n', '\r'], " ").as_bytes()),
        Err(_) => serde_json::to_writer(&mut body, data).expect("a string always serialises"),
    }
    body.push(b'}');
    body
}

async fn send(
    client: &Client,
    stream: &str,
    content_type: &str,
    body: Vec<u8>,
    is_repeatable: bool,
) -> Result<(), Failure> {
    let receipts = attempt(client, stream, content_type, body, is_repeatable).await;
    let receipts = receipts.map_err(|error| Failure::from_error(&error, next_step(&error)))?;
    receipts.iter().try_for_each(print).map_err(Failure::from)
}

/// Appends a body, again if that is of use and cannot append twice.
pub(super) async fn attempt(
    client: &Client,
    stream: &str,
    content_type: &str,
    body: Vec<u8>,
    is_repeatable: bool,
) -> Result<Vec<ReceiptJson>, ClientError> {
    again(is_repeatable, async || client.append(stream, content_type, body.clone()).await).await
}

/// Asks for something, again if that is of use and cannot do it twice.
pub(super) async fn again<T>(
    is_repeatable: bool,
    ask: impl AsyncFn() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let mut attempt = 1;
    loop {
        match ask().await {
            Err(error)
                if attempt < ATTEMPTS_MAX
                    && (error.is_safe_to_retry() || is_repeatable && is_passing(&error)) =>
            {
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

fn is_passing(error: &ClientError) -> bool {
    matches!(error, ClientError::Unreachable { .. } | ClientError::Refused { is_retryable: true, .. })
}

fn next_step(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { is_unsent: true, .. } => "start the server, or name another with --url",
        ClientError::Untrusted { .. } => TRUST_STEP,
        ClientError::Unreachable { .. } => "it may or may not be stored; repeat with --id to be sure of one",
        ClientError::Refused { is_retryable: true, .. } => "try again later",
        ClientError::Refused { .. } => "change the event as it says",
        ClientError::NotEvertail { .. } => "name an Evertail server with --url",
    }
}

fn print(receipt: &ReceiptJson) -> std::io::Result<()> {
    if output::is_terminal() {
        let note = if receipt.duplicate { "  (stored before)" } else { "" };
        output::line(&format!("{}  {}{note}", receipt.seq, receipt.stream))
    } else {
        output::line(&serde_json::to_string(receipt).expect("a receipt always serialises"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_json_where_it_is_json_and_text_where_not() {
        let body = |data| String::from_utf8(event(&Map::new(), data)).unwrap();
        assert_eq!(body(r#"{"n":1.50}"#), r#"{"data":{"n":1.50}}"#);
        assert_eq!(body("hello"), r#"{"data":"hello"}"#);
        assert_eq!(body("{oops"), r#"{"data":"{oops"}"#);
        let members = Map::from_iter([("type".to_owned(), Value::from("a\"b"))]);
        assert_eq!(String::from_utf8(event(&members, "1")).unwrap(), r#"{"type":"a\"b","data":1}"#);
    }
}
