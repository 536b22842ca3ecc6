//! `evertail import`: the events of an export into a running server, in order.

use super::{Exit, Failure, append, arguments, output, progress};
use crate::client::{Client, ClientError};
use crate::wire;
use clap::ArgMatches;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Lines and bytes of one request. Below the server's defaults of 1,000 and 4 MiB.
const BATCH_LINES_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 2 << 20;

/// An event as it is exported. Its seq and time of receipt are given anew.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Imported<'a> {
    #[serde(skip_serializing, default, rename = "seq")]
    _seq: Option<u64>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    time: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing, default, rename = "created_at")]
    _created_at: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::payload")]
    data: Option<&'a RawValue>,
}

/// A line that is to be appended.
struct Line {
    number: u64,
    event: Vec<u8>,
    has_id: bool,
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let file: &String = matches.get_one("file").expect("clap requires it");
    let (mut lines, bar) = open(file)?;
    let mut import = Import {
        client: arguments::client(matches)?,
        is_stopped_by_errors: matches.get_one::<String>("on-error").is_none_or(|what| what == "stop"),
        appended: 0,
        repeated: 0,
        refused: 0,
    };
    let from_line = matches.get_one::<u64>("from-line").copied().unwrap_or(1);
    let (mut number, mut text) = (0, String::new());
    let mut batch: Vec<Line> = Vec::new();
    let mut bytes = 0;
    loop {
        text.clear();
        let read = lines.read_line(&mut text);
        let read = read.map_err(|error| {
            Failure::failed(format!(
                "line {} cannot be read: {error}; mend it, and go on with --from-line {0}",
                number + 1
            ))
        })?;
        number += 1;
        if read > 0 && (number < from_line || text.trim().is_empty()) {
            continue;
        }
        let line = if read > 0 { Some(parse(&text, number)) } else { None };
        let is_over = read == 0 || matches!(line, Some(Err(_)));
        if is_over || batch.len() >= BATCH_LINES_MAX || bytes + text.len() > BATCH_BYTES_MAX {
            import.append(std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        match line {
            None => break,
            Some(Ok(line)) => {
                bytes += line.event.len();
                batch.push(line);
            }
            Some(Err(error)) => import.refuse(number, &error)?,
        }
    }
    bar.finish_and_clear();
    let Import { appended, repeated, refused, .. } = import;
    output::complain(&format!(
        "imported {appended} events; {repeated} were there already, {refused} were refused"
    ));
    Ok(if refused == 0 { Exit::Ok } else { Exit::Failed })
}

/// The lines of the file, and a bar of its bytes.
fn open(name: &str) -> Result<(Box<dyn BufRead>, ProgressBar), Failure> {
    if name == "-" {
        return Ok((Box::new(BufReader::new(io::stdin())), ProgressBar::hidden()));
    }
    let failed =
        |error: io::Error| Failure::failed(format!("{name} cannot be read: {error}; name an export"));
    let file = File::open(name).map_err(failed)?;
    let bar = progress::bar(file.metadata().map_err(failed)?.len(), "bytes");
    let file = bar.wrap_read(file);
    let is_compressed = Path::new(name).extension().is_some_and(|extension| extension == "zst");
    let bytes: Box<dyn Read> =
        if is_compressed { Box::new(zstd::Decoder::new(file).map_err(failed)?) } else { Box::new(file) };
    Ok((Box::new(BufReader::with_capacity(1 << 16, bytes)), bar))
}

fn parse(text: &str, number: u64) -> Result<Line, String> {
    let event: Imported<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let has_id = event.id.is_some();
    let event = serde_json::to_vec(&event).map_err(|error| error.to_string())?;
    Ok(Line { number, event, has_id })
}

struct Import {
    client: Client,
    is_stopped_by_errors: bool,
    appended: u64,
    repeated: u64,
    refused: u64,
}

impl Import {
    /// Appends lines. Of those the server refuses, each is told by its number.
    async fn append(&mut self, mut lines: Vec<Line>) -> Result<(), Failure> {
        while !lines.is_empty() {
            let Err(error) = self.send(&lines).await else { return Ok(()) };
            let ClientError::Refused { is_retryable: false, detail, pointer, .. } = &error else {
                let (first, last) = (lines[0].number, lines[lines.len() - 1].number);
                let next = match error.is_safe_to_retry() {
                    true => format!("go on with --from-line {first}"),
                    false => {
                        format!("look whether lines {first} to {last} are stored, and go on with --from-line")
                    }
                };
                return Err(Failure::from_error(&error, &next));
            };
            // What is not about one line is about all of them, and then about the first one too.
            let index = pointer.as_deref().and_then(|pointer| pointer.split('/').nth(1)?.parse().ok());
            let index = index.filter(|index: &usize| *index < lines.len()).unwrap_or(0);
            let rest = lines.split_off(index);
            if !lines.is_empty() {
                self.send(&lines).await.map_err(|error| {
                    Failure::from_error(&error, &format!("go on with --from-line {}", lines[0].number))
                })?;
            }
            let mut rest = rest.into_iter();
            if let Some(line) = rest.next() {
                self.refuse(line.number, detail)?;
            }
            lines = rest.collect();
        }
        Ok(())
    }

    async fn send(&mut self, lines: &[Line]) -> Result<(), ClientError> {
        let is_repeatable = lines.iter().all(|line| line.has_id);
        let mut body = Vec::new();
        for line in lines {
            body.extend_from_slice(&line.event);
            body.push(b'\n');
        }
        let receipts =
            append::attempt(&self.client, "events", "application/x-ndjson", body, is_repeatable).await?;
        let repeated = receipts.iter().filter(|receipt| receipt.duplicate).count() as u64;
        self.repeated += repeated;
        self.appended += receipts.len() as u64 - repeated;
        Ok(())
    }

    fn refuse(&mut self, number: u64, why: &str) -> Result<(), Failure> {
        let why = output::printable(why);
        if self.is_stopped_by_errors {
            return Err(Failure::failed(format!(
                "line {number} is refused: {why}; all before it is stored: mend it and go on with --from-line {number}, or use --on-error skip"
            )));
        }
        self.refused += 1;
        output::complain(&format!("line {number} is refused: {why}"));
        Ok(())
    }
}
