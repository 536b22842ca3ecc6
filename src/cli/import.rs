//! `evertail import`: the events of an export, or CloudEvents of anyone, into a running server, in order.

use super::items::{Container, Items};
use super::{Exit, Failure, append, arguments, output, progress};
use crate::client::{Client, ClientError};
use crate::event::StreamName;
use crate::wire::{self, control};
use clap::ArgMatches;
use indicatif::ProgressBar;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Events and bytes of one request. Below the server's defaults of 1,000 and 4 MiB.
const BATCH_EVENTS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 2 << 20;

/// What the status says of a request that is too large as a whole.
const TOO_LARGE: u16 = 413;

/// What an item is. The events of one request are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    CloudEvent,
}

impl Kind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Event => "application/x-ndjson",
            Self::CloudEvent => "application/cloudevents-batch+json",
        }
    }

    fn body(self, items: &[Item]) -> Vec<u8> {
        let events: Vec<&[u8]> = items.iter().map(|item| item.event.as_slice()).collect();
        match self {
            Self::Event => events.join(&b'\n'),
            Self::CloudEvent => [b"[", &*events.join(&b','), b"]"].concat(),
        }
    }
}

/// What tells a CloudEvent from an event, which has no `specversion`, and an event of ours from those of others.
#[derive(Deserialize)]
struct Sign<'a> {
    specversion: Option<IgnoredAny>,
    seq: Option<IgnoredAny>,
    sequence: Option<IgnoredAny>,
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The payload of the end of a stream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

/// What an item asks for.
enum Asked {
    /// An event to append.
    Append(Item),
    /// The end of a stream: an event that only the server writes, so the stream is closed as it was.
    Close {
        stream: String,
        /// The body of the route that closes it.
        body: Vec<u8>,
    },
    /// An event of the server's own stream: what it did to the log that was exported says nothing of this one.
    LeaveOut,
}

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
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing, default, rename = "created_at")]
    _created_at: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::payload")]
    data: Option<&'a RawValue>,
}

/// An event that is to be appended.
struct Item {
    number: u64,
    event: Vec<u8>,
    kind: Kind,
    has_id: bool,
}

impl Asked {
    /// Reads one, of the kind and for the stream that were told, if they were.
    fn parse(text: String, number: u64, kind: Option<Kind>, stream: Option<&String>) -> Result<Self, String> {
        if !text.trim_start().starts_with('{') {
            return Err("it is no event, which is a JSON object".into());
        }
        let sign: Sign<'_> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let is_ours = sign.seq.is_some() || sign.sequence.is_some();
        if is_ours && sign.stream.as_deref() == Some(StreamName::own().as_str()) {
            return Ok(Self::LeaveOut);
        }
        if let (Some(control::CLOSED), Some(of)) = (sign.r#type.as_deref(), &sign.stream) {
            if let Some(data) = sign.data {
                let end = serde_json::from_str::<End<'_>>(data.get());
                end.map(|end| end.reason.len())
                    .map_err(|error| format!("the end of a stream has no such data: {error}"))?;
            }
            let body = sign.data.map_or_else(Vec::new, |data| data.get().as_bytes().to_vec());
            return Ok(Self::Close { stream: of.clone().into_owned(), body });
        }
        let found = if sign.specversion.is_some() { Kind::CloudEvent } else { Kind::Event };
        let kind = kind.unwrap_or(found);
        if kind == Kind::CloudEvent {
            // The server knows what a CloudEvent is, and gets it as it came. Each has an id, or is refused.
            return Ok(Self::Append(Item { number, event: text.into_bytes(), kind, has_id: true }));
        }
        let event: Imported<'_> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if stream.is_some_and(|stream| *stream != event.stream) {
            return Err(format!("its stream is {}; leave --stream out", event.stream));
        }
        let has_id = event.id.is_some();
        let event = serde_json::to_vec(&event).map_err(|error| error.to_string())?;
        Ok(Self::Append(Item { number, event, kind, has_id }))
    }
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let file: &String = matches.get_one("file").expect("clap requires it");
    let (container, kind) = match matches.get_one::<String>("format").map(String::as_str) {
        Some("ndjson") => (Some(Container::Lines), Some(Kind::Event)),
        Some("cloudevents-lines") => (Some(Container::Lines), Some(Kind::CloudEvent)),
        Some(_) => (Some(Container::Array), Some(Kind::CloudEvent)),
        None => (None, None),
    };
    let (input, bar) = open(file)?;
    let mut items = Items::open(input, container)
        .map_err(|error| Failure::failed(format!("{file} cannot be read: {error}; name an export")))?;
    let mut import = Import {
        client: arguments::client(matches)?,
        stream: matches.get_one("stream").cloned(),
        item: items.container().item(),
        is_stopped_by_errors: matches.get_one::<String>("on-error").is_none_or(|what| what == "stop"),
        appended: 0,
        repeated: 0,
        refused: 0,
    };
    let from = matches.get_one::<u64>("from-line").copied().unwrap_or(1);
    let mut batch: Vec<Item> = Vec::new();
    let (mut bytes, mut left_out) = (0, 0);
    loop {
        let next = items.next();
        let number = items.number();
        let item = match next {
            Ok(Some(_)) if number < from => continue,
            Ok(Some(text)) => Ok(Asked::parse(text, number, kind, import.stream.as_ref())),
            Ok(None) => Err(None),
            Err(error) => Err(Some(error)),
        };
        let fits = match &item {
            Ok(Ok(Asked::LeaveOut)) => true,
            Ok(Ok(Asked::Append(item))) => {
                batch.len() < BATCH_EVENTS_MAX
                    && bytes + item.event.len() <= BATCH_BYTES_MAX
                    && batch.last().is_none_or(|last| last.kind == item.kind)
            }
            _ => false,
        };
        if !fits {
            import.append(std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        match item {
            Ok(Ok(Asked::Append(item))) => {
                bytes += item.event.len();
                batch.push(item);
            }
            Ok(Ok(Asked::Close { stream, body })) => import.close(number, &stream, &body).await?,
            Ok(Ok(Asked::LeaveOut)) => left_out += 1,
            Ok(Err(why)) => import.refuse(number, &why)?,
            Err(Some(error)) => {
                let item = import.item;
                return Err(Failure::failed(format!(
                    "{item} {number} cannot be read: {error}; all before it is stored: mend the file, and go on with --from-{item} {number}"
                )));
            }
            Err(None) => break,
        }
    }
    bar.finish_and_clear();
    let Import { appended, repeated, refused, .. } = import;
    let own = match left_out {
        0 => String::new(),
        count => format!(", {count} of the server's own stream were left out"),
    };
    output::complain(&format!(
        "imported {appended} events; {repeated} were there already, {refused} were refused{own}"
    ));
    Ok(if refused == 0 { Exit::Ok } else { Exit::Failed })
}

/// What is in the file, and a bar of its bytes.
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

struct Import {
    client: Client,
    /// Of the CloudEvents that name none.
    stream: Option<String>,
    /// What an item of the file is called.
    item: &'static str,
    is_stopped_by_errors: bool,
    appended: u64,
    repeated: u64,
    refused: u64,
}

impl Import {
    /// Appends events of one kind, in order. Of those the server refuses, each is told by its number.
    async fn append(&mut self, mut items: Vec<Item>) -> Result<(), Failure> {
        let mut together = items.len();
        while !items.is_empty() {
            let Err(error) = self.send(&items[..together]).await else {
                items.drain(..together);
                together = items.len();
                continue;
            };
            let ClientError::Refused { is_retryable: false, status, detail, pointer, .. } = &error else {
                return Err(self.unsure(&error, items[0].number, items[together - 1].number));
            };
            // What is before the refused one goes first; then it is the first of what is left. What is not about one of
            // them is about all, and so about the first one too, unless they are only too many.
            let index = pointer.as_deref().and_then(|pointer| pointer.split('/').nth(1)?.parse().ok());
            match index.filter(|index: &usize| *index < together) {
                None if *status == TOO_LARGE && together > 1 => together /= 2,
                None | Some(0) => {
                    // Its place in the request means nothing to whoever reads this.
                    let why = detail.strip_prefix("/0").unwrap_or(detail);
                    self.refuse(items.remove(0).number, why.trim_start())?;
                    together = items.len();
                }
                Some(index) => together = index,
            }
        }
        Ok(())
    }

    /// How to go on where no answer came, or none that says what is stored.
    fn unsure(&self, error: &ClientError, first: u64, last: u64) -> Failure {
        let item = self.item;
        let next = match error.is_safe_to_retry() {
            true => format!("go on with --from-{item} {first}"),
            false => {
                format!("look whether {item}s {first} to {last} are stored, and go on with --from-{item}")
            }
        };
        Failure::from_error(error, &next)
    }

    /// Closes a stream. Closing it again is no error, so whatever broke, the item may be repeated.
    async fn close(&mut self, number: u64, stream: &str, body: &[u8]) -> Result<(), Failure> {
        let closed = append::again(true, async || self.client.close(stream, body.to_vec()).await).await;
        match closed {
            Ok(receipt) if receipt.duplicate => self.repeated += 1,
            Ok(_) => self.appended += 1,
            Err(ClientError::Refused { is_retryable: false, detail, .. }) => self.refuse(number, &detail)?,
            Err(error) => return Err(self.unsure(&error, number, number)),
        }
        Ok(())
    }

    async fn send(&mut self, items: &[Item]) -> Result<(), ClientError> {
        let Some(Item { kind, .. }) = items.first() else { return Ok(()) };
        let is_repeatable = items.iter().all(|item| item.has_id);
        let body = kind.body(items);
        let stream = match kind {
            Kind::Event => "events",
            Kind::CloudEvent => self.stream.as_deref().unwrap_or("events"),
        };
        let receipts =
            append::attempt(&self.client, stream, kind.content_type(), body, is_repeatable).await?;
        let repeated = receipts.iter().filter(|receipt| receipt.duplicate).count() as u64;
        self.repeated += repeated;
        self.appended += receipts.len() as u64 - repeated;
        Ok(())
    }

    fn refuse(&mut self, number: u64, why: &str) -> Result<(), Failure> {
        let (item, why) = (self.item, output::printable(why));
        if self.is_stopped_by_errors {
            return Err(Failure::failed(format!(
                "{item} {number} is refused: {why}; all before it is stored: mend it and go on with --from-{item} {number}, or use --on-error skip"
            )));
        }
        self.refused += 1;
        output::complain(&format!("{item} {number} is refused: {why}"));
        Ok(())
    }
}
