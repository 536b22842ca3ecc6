//! What a body means: one event or a batch, from JSON, NDJSON, a form or plain text.
//!
//! A body that begins with `{` or `[` is JSON whatever its content type says, because `curl -d` sends a form type and
//! `fetch` a text type. Every error names the member by JSON pointer; a body with several errors lists them.

use super::problem::{ERRORS_MAX, MemberError};
use super::{HttpSettings, Problem, ProblemCode, cloudevents, form};
use crate::event::{
    self, Content, EventType, IdempotencyKey, NameError, StreamName, check_id, check_subject, check_time,
    check_traceparent,
};
use axum::http::{HeaderMap, header};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The members of an event.
const MEMBERS: &str = "id, type, source, subject, time, traceparent and data";

/// What a body asks to append.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) contents: Vec<Content>,
    /// An array or NDJSON, answered with an array, even for one event.
    pub(super) is_batch: bool,
}

/// How to read a body.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// The stream of the URL; `None` where each event names its own.
    pub(super) stream: Option<&'a StreamName>,
    pub(super) key: Option<&'a IdempotencyKey>,
    /// Of the events that name no span of their own: that of the request.
    pub(super) traceparent: Option<Arc<str>>,
    pub(super) settings: &'a HttpSettings,
}

/// The span that a request is made in. One that cannot be read is none, as W3C Trace Context has it: who passes a header on
/// may not know what is in it.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut values = headers.get_all("traceparent").iter();
    match (values.next(), values.next()) {
        (Some(value), None) => check_traceparent(value.to_str().ok()?).ok(),
        _ => None,
    }
}

/// Reads a body as its headers say.
///
/// *Errors*: what is wrong with it, by member; nothing of it is to be stored.
pub(super) fn read_request(
    headers: &HeaderMap,
    body: &[u8],
    context: &Context<'_>,
) -> Result<Envelope, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    match cloudevents::is_binary(headers, content_type) {
        false => read(content_type.unwrap_or_default(), body, context),
        true => cloudevents::binary(headers, content_type, body, context),
    }
}

/// Reads a body by its content type.
///
/// *Errors*: what is wrong with it, by member; nothing of it is to be stored.
pub(super) fn read(content_type: &str, body: &[u8], context: &Context<'_>) -> Result<Envelope, Problem> {
    let text = utf8(body)?;
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = match essence.contains(|c: char| c.is_ascii_uppercase()) {
        true => Cow::from(essence.to_ascii_lowercase()),
        false => Cow::from(essence),
    };
    let trimmed = text.trim_start_matches([' ', '\t', '\r', '\n']);
    let mut reader = Reader::new(context);
    let contents = match &*essence {
        _ if trimmed.is_empty() && essence != "text/plain" => {
            return Err(Problem::new(
                ProblemCode::BodyEmpty,
                "send an event, such as {\"data\":{\"actor\":\"alice\"}}",
            ));
        }
        _ if essence.starts_with(cloudevents::PREFIX) => {
            return cloudevents::structured(&essence, text, reader);
        }
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            return reader.lines(text).map(|contents| Envelope { contents, is_batch: true });
        }
        _ if trimmed.starts_with('[') => {
            return reader.array(text).map(|contents| Envelope { contents, is_batch: true });
        }
        _ if trimmed.starts_with('{') => {
            let members = parse(text, None, MEMBERS)?;
            reader.object(members, None)
        }
        "application/x-www-form-urlencoded" => reader.form(text)?,
        "text/plain" => reader.text(text),
        "application/json" => {
            let detail =
                format!("an event is a JSON object with the members {MEMBERS}, a batch an array of them");
            return Err(Problem::new(ProblemCode::EventInvalid, detail).with_errors(&[MemberError {
                pointer: String::new(),
                detail: "must be an object or an array".into(),
            }]));
        }
        other => return Err(unsupported(other)),
    };
    reader.finish(contents)
}

/// A body as text.
pub(super) fn utf8(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Problem::new(ProblemCode::Utf8Invalid, format!("the byte at offset {at} is not UTF-8"))
            .with("offset", at)
    })
}

/// The events of a body that is posted to a stream with these headers: all that happens to it between the socket and the
/// log.
///
/// *Errors*: what is wrong with it, by member.
pub fn parse_request(
    headers: &HeaderMap,
    body: &[u8],
    stream: &StreamName,
    settings: &HttpSettings,
) -> Result<Vec<Content>, Problem> {
    let context = Context { stream: Some(stream), key: None, traceparent: traceparent(headers), settings };
    read_request(headers, body, &context).map(|envelope| envelope.contents)
}

/// The events of a body of this content type, where no other header matters.
///
/// *Errors*: what is wrong with it, by member.
pub fn parse_body(
    content_type: &str,
    body: &[u8],
    stream: &StreamName,
    settings: &HttpSettings,
) -> Result<Vec<Content>, Problem> {
    let context = Context { stream: Some(stream), key: None, traceparent: None, settings };
    read(content_type, body, &context).map(|envelope| envelope.contents)
}

pub(super) fn unsupported(content_type: &str) -> Problem {
    let shown = if content_type.is_empty() { "no content type" } else { "this content type" };
    let detail = format!(
        "{shown} is not read; send application/json, application/x-ndjson, text/plain, a form or a CloudEvent as JSON"
    );
    Problem::new(ProblemCode::ContentTypeUnsupported, detail)
}

/// The members of one JSON object, in order, unread.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event, which is a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(6));
                while let Some(Text(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Parses a piece of the body. Line and column in the message count from the beginning of the piece; `members` are what
/// an event has, for the message.
pub(super) fn parse<'a, T: Deserialize<'a>>(
    piece: &'a str,
    index: Option<usize>,
    members: &str,
) -> Result<T, Problem> {
    serde_json::from_str(piece).map_err(|error| {
        let is_shape = error.is_data();
        let code = if is_shape { ProblemCode::EventInvalid } else { ProblemCode::JsonInvalid };
        let detail = error.to_string();
        Problem::new(code, format!("{detail}; an event has the members {members}")).with_errors(&[
            MemberError { pointer: index.map_or_else(String::new, |i| format!("/{i}")), detail },
        ])
    })
}

/// Reads events and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) errors: Vec<MemberError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(context: &'a Context<'a>) -> Self {
        Self { context, errors: Vec::new() }
    }

    fn array(&mut self, text: &str) -> Result<Vec<Content>, Problem> {
        let items: Vec<&RawValue> = parse(text, None, MEMBERS)?;
        self.batch(items.into_iter().map(RawValue::get), MEMBERS, Self::object)
    }

    fn lines(&mut self, text: &str) -> Result<Vec<Content>, Problem> {
        let lines = text.split('\n').map(str::trim).filter(|line| !line.is_empty());
        self.batch(lines, MEMBERS, Self::object)
    }

    /// Several events, each read by `object`.
    pub(super) fn batch<'t>(
        &mut self,
        items: impl Iterator<Item = &'t str> + Clone,
        members: &str,
        object: impl Fn(&mut Self, Members<'t>, Option<usize>) -> Option<Content>,
    ) -> Result<Vec<Content>, Problem> {
        let events_max = self.context.settings.batch_events_max;
        if items.clone().nth(events_max).is_some() {
            let detail = format!("send at most {events_max} events in one request");
            return Err(Problem::new(ProblemCode::BatchTooLarge, detail).with("events_max", events_max));
        }
        let mut contents = Vec::new();
        for (index, item) in items.enumerate() {
            let index = Some(index);
            let content = object(self, parse(item, index, members)?, index);
            self.check_size(index, content.as_ref())?;
            contents.extend(content);
        }
        self.check_errors()?;
        Ok(contents)
    }

    /// One event. `None` once something is wrong with it; what, is in `errors`.
    fn object(&mut self, Members(members): Members<'_>, index: Option<usize>) -> Option<Content> {
        let errors_before = self.errors.len();
        let mut content = self.blank();
        let mut seen: Vec<&str> = Vec::with_capacity(members.len());
        let mut is_placed = self.context.stream.is_some();
        for (name, value) in &members {
            if seen.contains(&name.as_ref()) {
                self.error(pointer(index, name), "is there twice");
                continue;
            }
            seen.push(name);
            if name == "data" {
                match event::compact(value.get(), self.context.settings.depth_max) {
                    Ok(data) => content.data = Some(data),
                    Err(error) => {
                        self.error(pointer(index, name) + &error.pointer, error.message);
                    }
                }
                continue;
            }
            is_placed |= name == "stream";
            match serde_json::from_str(value.get()) {
                Ok(Text(text)) => self.set(&mut content, index, name, &text),
                Err(_) if is_member(name) => {
                    let detail = "must be a string; leave it out when there is none";
                    self.error(pointer(index, name), detail);
                }
                Err(_) => self.unknown(index, name),
            }
            if self.errors.len() >= ERRORS_MAX {
                break;
            }
        }
        if !is_placed {
            self.error(pointer(index, "stream"), "must name the stream of the event");
        }
        self.give_id(&mut content, index);
        (self.errors.len() == errors_before).then_some(content)
    }

    fn form(&mut self, body: &str) -> Result<Option<Content>, Problem> {
        let mut content = self.blank();
        let mut seen: Vec<String> = Vec::new();
        let mut is_placed = self.context.stream.is_some();
        for pair in form::pairs(body) {
            let (name, value) = pair.map_err(|name| {
                let detail = format!("the field {name} is not UTF-8");
                let errors = [MemberError { pointer: pointer(None, &name), detail: "is not UTF-8".into() }];
                Problem::new(ProblemCode::Utf8Invalid, detail).with_errors(&errors)
            })?;
            is_placed |= name == "stream";
            if seen.contains(&name) {
                self.error(pointer(None, &name), "is there twice");
            } else if name == "data" {
                // As with a whole body: what looks like JSON is JSON, anything else is text.
                let is_json = value.trim_start().starts_with(['{', '[']);
                match if is_json {
                    event::compact(&value, self.context.settings.depth_max)
                } else {
                    Ok(event::quote(&value))
                } {
                    Ok(data) => content.data = Some(data),
                    Err(error) => self.error(pointer(None, &name) + &error.pointer, error.message),
                }
            } else {
                self.set(&mut content, None, &name, &value);
            }
            if self.errors.len() >= ERRORS_MAX {
                break;
            }
            seen.push(name);
        }
        if !is_placed {
            self.error("/stream".into(), "must name the stream of the event");
        }
        self.give_id(&mut content, None);
        Ok(Some(content))
    }

    fn text(&mut self, text: &str) -> Option<Content> {
        let mut content = self.blank();
        if self.context.stream.is_none() {
            self.error("/stream".into(), "must name the stream of the event; post text to /api/v1/{stream}");
        }
        content.data = Some(event::quote(text));
        self.give_id(&mut content, None);
        Some(content)
    }

    /// An event with nothing but its stream and the span of the request. Where events name their own, the placeholder never gets past `errors`.
    pub(super) fn blank(&self) -> Content {
        let stream = self.context.stream.cloned().unwrap_or_else(|| StreamName::stored(Arc::from("")));
        Content { traceparent: self.context.traceparent.clone(), ..Content::new(stream) }
    }

    pub(super) fn set(&mut self, content: &mut Content, index: Option<usize>, name: &str, text: &str) {
        let checked = match name {
            "id" => check_id(text).map(|id| content.id = Some(id)),
            "type" => EventType::parse(text).map(|r#type| content.r#type = r#type),
            "source" if text.is_empty() => Ok(()),
            "source" => check_id(text).map(|source| content.source = source),
            "subject" => check_subject(text).map(|subject| content.subject = Some(subject)),
            "time" => check_time(text).map(|time| content.time = Some(time)),
            "traceparent" => check_traceparent(text).map(|span| content.traceparent = Some(span)),
            "stream" if self.context.stream.is_none() => {
                appendable(text).map(|stream| content.stream = stream)
            }
            "stream" => {
                let detail = "is named by the URL; leave it out, or post to /api/v1/events";
                return self.error(pointer(index, name), detail);
            }
            _ => return self.unknown(index, name),
        };
        if let Err(error) = checked {
            self.error(pointer(index, name), error.to_string());
        }
    }

    fn unknown(&mut self, index: Option<usize>, name: &str) {
        self.error(
            pointer(index, name),
            format!("is not a member of an event ({MEMBERS}); put it under data"),
        );
    }

    fn give_id(&self, content: &mut Content, index: Option<usize>) {
        if let (None, Some(key)) = (&content.id, self.context.key) {
            content.id = Some(index.map_or_else(|| key.id(), |index| key.id_at(index)));
        }
    }

    pub(super) fn error(&mut self, pointer: String, detail: impl Into<String>) {
        self.errors.push(MemberError { pointer, detail: detail.into() });
    }

    fn check_errors(&self) -> Result<(), Problem> {
        let Some(first) = self.errors.first() else { return Ok(()) };
        let detail = format!("{} {}", first.pointer, first.detail);
        Err(Problem::new(ProblemCode::EventInvalid, detail).with_errors(&self.errors))
    }

    fn check_size(&self, index: Option<usize>, content: Option<&Content>) -> Result<(), Problem> {
        let bytes_max = self.context.settings.event_bytes_max;
        match content.map(Content::size_bytes) {
            Some(bytes) if bytes > bytes_max => {
                let detail = format!(
                    "the event has {bytes} bytes, {bytes_max} are allowed; keep large content elsewhere and refer to it"
                );
                let errors = [MemberError { pointer: pointer(index, "data"), detail: "is too large".into() }];
                Err(Problem::new(ProblemCode::EventTooLarge, detail)
                    .with("bytes_max", bytes_max)
                    .with_errors(&errors))
            }
            _ => Ok(()),
        }
    }

    /// The one event, `None` if something is wrong with it.
    pub(super) fn finish(self, content: Option<Content>) -> Result<Envelope, Problem> {
        self.check_errors()?;
        self.check_size(None, content.as_ref())?;
        Ok(Envelope { contents: vec![content.expect("an event without errors is there")], is_batch: false })
    }
}

/// The JSON pointer of a member: of the one event, or of the event at this index of a batch.
pub(super) fn pointer(index: Option<usize>, name: &str) -> String {
    let name = name.replace('~', "~0").replace('/', "~1");
    index.map_or_else(|| format!("/{name}"), |index| format!("/{index}/{name}"))
}

pub(super) fn is_member(name: &str) -> bool {
    matches!(name, "id" | "type" | "source" | "subject" | "time" | "traceparent" | "stream")
}

/// The name of a stream that a producer may append to.
pub(super) fn appendable(name: &str) -> Result<StreamName, NameError> {
    let stream = StreamName::parse(name)?;
    stream.check_appendable()?;
    Ok(stream)
}
