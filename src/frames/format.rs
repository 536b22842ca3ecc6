//! The formats that a reader may want its events in.
//!
//! The final event of a stream keeps its name in all of them, so that it never reaches an `onmessage`.

use crate::event::{EventText, EventType, Seq};
use crate::sse::{Block, put_block, put_line};
use crate::wire::{self, cloud};

/// How a reader wants its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// SSE, the event's JSON as data.
    Sse {
        /// Every type as a plain message (`event=message`).
        as_message: bool,
    },
    /// SSE, only the payload as data (`format=data`).
    SseData {
        /// Every type as a plain message (`event=message`).
        as_message: bool,
    },
    /// SSE, the event as a CloudEvent (`format=cloudevents`).
    SseCloudEvents {
        /// Every type as a plain message (`event=message`).
        as_message: bool,
    },
    /// One line of JSON for each event.
    Lines,
    /// One line of JSON for each event, a CloudEvent.
    CloudEventLines,
    /// CloudEvents, each with a comma behind it: the items of an array.
    CloudEventItems,
}

/// Writes an event in a format.
pub(super) fn put(out: &mut Vec<u8>, event: &EventText<'_>, format: Format) {
    match format {
        Format::Sse { as_message } => {
            put_line(out, name(event.r#type, as_message), event.seq, |out| {
                wire::put_event(out, event);
            });
        }
        Format::SseData { as_message } => {
            let name = name(event.r#type, as_message);
            put_payload(out, event.seq, name, event.data.unwrap_or_default());
        }
        Format::SseCloudEvents { as_message } => {
            put_line(out, name(event.r#type, as_message), event.seq, |out| {
                cloud::put_cloud_event(out, event)
            });
        }
        Format::Lines => {
            wire::put_event(out, event);
            out.push(b'\n');
        }
        Format::CloudEventLines => {
            cloud::put_cloud_event(out, event);
            out.push(b'\n');
        }
        Format::CloudEventItems => {
            cloud::put_cloud_event(out, event);
            out.push(b',');
        }
    }
}

/// The name of an event on a stream; none for a plain message.
pub(super) fn name(r#type: &str, as_message: bool) -> Option<&str> {
    let is_message = r#type == EventType::MESSAGE || (as_message && r#type != EventType::CLOSED);
    (!is_message).then_some(r#type)
}

/// The payload alone: a JSON string unquoted, so that its lines become data lines; anything else as JSON; `null` when
/// absent, which is the empty text. The encoder quotes a text that has nothing but empty lines.
fn put_payload(out: &mut Vec<u8>, seq: Seq, event: Option<&str>, json: &str) {
    let text: Option<String> = if json.starts_with('"') { serde_json::from_str(json).ok() } else { None };
    let data = match &text {
        Some(text) => text,
        None if json.is_empty() => "null",
        None => json,
    };
    put_block(out, &Block { retry_milliseconds: None, event, data, id: Some(seq) });
}
