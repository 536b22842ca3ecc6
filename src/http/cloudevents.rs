//! CloudEvents 1.0 as bodies: structured, batch and binary mode. `docs/cloudevents.md` has the mapping and its reasons.
//!
//! An event has no place for attributes that it does not know, and a log must lose nothing in silence: what could not be
//! read back is refused by name.
//!
//! *Source*: CloudEvents 1.0.2, its JSON event format and its HTTP protocol binding.

use super::envelope::{self, Context, Envelope, Members, Reader, Text, is_member, pointer};
use super::problem::ERRORS_MAX;
use super::{Problem, ProblemCode};
use crate::event::{self, Content, Timestamp};
use crate::wire::cloud;
use axum::http::HeaderMap;
use percent_encoding::percent_decode;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::sync::Arc;

/// How the content types of structured and batch mode begin.
pub(super) const PREFIX: &str = "application/cloudevents";
/// One event, structured.
pub(super) const ONE: &str = "application/cloudevents+json";
/// An array of events.
pub(super) const BATCH: &str = "application/cloudevents-batch+json";

/// What is read of a CloudEvent.
const MEMBERS: &str = "specversion, id, source, type, subject, time, datacontenttype, data and the extensions stream and traceparent";
/// The attributes without which it is none.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];
/// The headers of binary mode.
const HEADER_PREFIX: &str = "ce-";

/// Structured or batch mode. `essence` is the content type without parameters, in lower case.
pub(super) fn structured(essence: &str, text: &str, mut reader: Reader<'_>) -> Result<Envelope, Problem> {
    match essence {
        BATCH => {
            let items: Vec<&RawValue> = envelope::parse(text, None, MEMBERS)?;
            let contents = reader.batch(items.into_iter().map(RawValue::get), MEMBERS, object)?;
            Ok(Envelope { contents, is_batch: true })
        }
        ONE => {
            let members = envelope::parse(text, None, MEMBERS)?;
            let content = object(&mut reader, members, None);
            reader.finish(content)
        }
        other => Err(envelope::unsupported(other)),
    }
}

/// Whether the attributes are in the headers. With one of them only, it is a broken CloudEvent and no other event.
pub(super) fn is_binary(headers: &HeaderMap, content_type: Option<&str>) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(HEADER_PREFIX))
        // A structured event may repeat its attributes in headers.
        && !content_type
            .and_then(|content_type| content_type.get(..PREFIX.len()))
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
}

/// Binary mode: the attributes in headers, the body is the data.
pub(super) fn binary(
    headers: &HeaderMap,
    content_type: Option<&str>,
    body: &[u8],
    context: &Context<'_>,
) -> Result<Envelope, Problem> {
    let Some(kind) = content_type.map_or(Some(DataKind::Json), DataKind::parse) else {
        let detail = format!("the data of a CloudEvent {}", DataKind::KNOWN);
        return Err(Problem::new(ProblemCode::ContentTypeUnsupported, detail));
    };
    let body = envelope::utf8(body)?;
    let mut reader = Reader::new(context);
    let mut draft = Draft::new(&mut reader, None);
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix(HEADER_PREFIX) else { continue };
        if attribute == "datacontenttype" {
            draft.error(attribute, "is the header Content-Type in binary mode; leave this one out");
            continue;
        }
        let mut values = headers.get_all(name).iter();
        match (values.next().and_then(|value| header_text(value.as_bytes())), values.next()) {
            (_, Some(_)) => draft.error(attribute, "is there twice"),
            (None, None) => draft.error(attribute, "is not UTF-8"),
            (Some(text), None) => draft.attribute(attribute, &text),
        }
    }
    draft.content.data = match kind {
        DataKind::Text => Some(event::quote(body)),
        // No JSON value is empty: there is no data.
        DataKind::Json if body.is_empty() => None,
        DataKind::Json => draft.json(body),
    };
    let content = draft.finish();
    reader.finish(content)
}

/// The value of a header: unquoted, then percent-decoded once. `None` if that is not UTF-8.
fn header_text(value: &[u8]) -> Option<String> {
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let bytes = match quoted {
        None => value.to_vec(),
        Some(quoted) => {
            let mut plain = Vec::with_capacity(quoted.len());
            let mut rest = quoted.iter();
            while let Some(byte) = rest.next() {
                plain.push(if *byte == b'\\' { *rest.next()? } else { *byte });
            }
            plain
        }
    };
    percent_decode(&bytes).decode_utf8().ok().map(|text| text.into_owned())
}

/// One event as JSON. `None` once something is wrong with it; what, is in the reader's errors.
fn object(reader: &mut Reader<'_>, Members(members): Members<'_>, index: Option<usize>) -> Option<Content> {
    let mut draft = Draft::new(reader, index);
    let mut data = None;
    let mut seen = HashSet::with_capacity(members.len().min(16));
    for (name, value) in &members {
        let name = name.as_ref();
        match name {
            _ if !seen.insert(name) => draft.error(name, "is there twice"),
            // `null` is a payload like any other.
            "data" => data = Some(value.get()),
            // An attribute that is null is not set.
            _ if value.get() == "null" => {}
            "data_base64" => {
                let detail = "is not stored: data is JSON or text; keep bytes elsewhere and refer to them";
                draft.error(name, detail);
            }
            _ => match serde_json::from_str(value.get()) {
                Ok(Text(text)) => draft.attribute(name, &text),
                Err(_) if is_known(name) => draft.error(name, "must be a string"),
                Err(_) => draft.unknown(name),
            },
        }
        if draft.reader.errors.len() >= ERRORS_MAX {
            break;
        }
    }
    match (data, draft.kind) {
        (None, _) => {}
        (Some(json), DataKind::Text) if !json.starts_with('"') => {
            draft.error("data", "must be a string: its datacontenttype is text");
        }
        (Some(json), _) => draft.content.data = draft.json(json),
    }
    draft.finish()
}

fn is_known(name: &str) -> bool {
    is_member(name) || matches!(name, "specversion" | "datacontenttype" | "sequence" | "recordedtime")
}

/// What the data of an event can be.
#[derive(Clone, Copy)]
enum DataKind {
    /// Any JSON value.
    Json,
    /// Kept as a JSON string.
    Text,
}

impl DataKind {
    const KNOWN: &str =
        "must be application/json or text/plain, in UTF-8: an event keeps no other content type";

    /// `None` for a content type that would be lost.
    fn parse(content_type: &str) -> Option<Self> {
        let lower = content_type.to_ascii_lowercase();
        let mut parts = lower.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let is_utf8 = |part: &str| matches!(part, "" | "charset=utf-8" | "charset=\"utf-8\"");
        match essence {
            _ if !parts.all(is_utf8) => None,
            "application/json" => Some(Self::Json),
            "text/plain" => Some(Self::Text),
            _ => None,
        }
    }
}

/// An event while its attributes are read.
struct Draft<'r, 'c> {
    reader: &'r mut Reader<'c>,
    index: Option<usize>,
    content: Content,
    kind: DataKind,
    /// The attributes that were there, right or wrong.
    seen: [bool; REQUIRED.len()],
    is_placed: bool,
    errors_before: usize,
}

impl<'r, 'c> Draft<'r, 'c> {
    fn new(reader: &'r mut Reader<'c>, index: Option<usize>) -> Self {
        Self {
            index,
            content: reader.blank(),
            kind: DataKind::Json,
            seen: [false; REQUIRED.len()],
            is_placed: reader.context.stream.is_some(),
            errors_before: reader.errors.len(),
            reader,
        }
    }

    fn see(&mut self, name: &str) {
        if let Some(at) = REQUIRED.iter().position(|required| *required == name) {
            self.seen[at] = true;
        }
    }

    fn error(&mut self, name: &str, detail: &str) {
        self.see(name);
        self.reader.error(pointer(self.index, name), detail);
    }

    fn unknown(&mut self, name: &str) {
        self.error(name, "is an attribute that an event cannot keep; leave it out, or put it under data");
    }

    fn attribute(&mut self, name: &str, text: &str) {
        self.see(name);
        match name {
            "specversion" if text == cloud::SPECVERSION => {}
            "specversion" => self.error(name, "must be 1.0"),
            "source" if text.is_empty() => self.error(name, "must not be empty"),
            // What was read from a stream may be appended to one of the same name.
            "stream" if self.reader.context.stream.is_some_and(|stream| stream.as_str() == text) => {}
            "stream" if self.reader.context.stream.is_some() => {
                self.error(name, "is another than that of the URL; leave it out, or post to /api/v1/events");
            }
            "datacontenttype" => match DataKind::parse(text) {
                Some(kind) => self.kind = kind,
                None => self.error(name, DataKind::KNOWN),
            },
            // A log's own: those of another log are replaced, those that mean something else would be lost.
            "sequence" if cloud::is_sequence(text) => {}
            "recordedtime" if Timestamp::is_canonical(text) => {}
            "sequence" | "recordedtime" => {
                self.error(
                    name,
                    "is given by this log, and another cannot be kept; leave it out, or put it under data",
                );
            }
            _ if is_member(name) => {
                self.is_placed |= name == "stream";
                self.reader.set(&mut self.content, self.index, name, text);
            }
            _ => self.unknown(name),
        }
    }

    fn json(&mut self, text: &str) -> Option<Arc<str>> {
        match event::compact(text, self.reader.context.settings.depth_max) {
            Ok(data) => Some(data),
            Err(error) => {
                self.reader.error(pointer(self.index, "data") + &error.pointer, error.message);
                None
            }
        }
    }

    fn finish(mut self) -> Option<Content> {
        for (at, name) in REQUIRED.iter().enumerate() {
            if !self.seen[at] {
                self.error(name, "is missing; a CloudEvent needs specversion, id, source and type");
            }
        }
        if !self.is_placed {
            self.error("stream", "must name the stream of the event");
        }
        // The source that an event without one is shown with.
        if *self.content.source == *cloud::source_of(self.content.stream.as_str()) {
            self.content.source = Arc::from("");
        }
        (self.reader.errors.len() == self.errors_before).then_some(self.content)
    }
}
