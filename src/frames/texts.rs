//! A page of events that come as texts from the table: encoded straight into the one format its reader wants.
//!
//! The bytes are those that [`super::Frames`] and a [`super::PageBuilder`] would make of the same events.

use super::{Format, Page, put_cloud_event, put_payload};
use crate::event::{EventText, EventType, Seq};
use crate::sse::put_line;
use crate::wire;
use bytes::Bytes;

/// A page of the events after this cursor, which the caller has selected.
///
/// *Bounds*: at most `events_max` events, which is not 0, and no further event once `bytes_max` bytes are reached; one
/// event larger than that is a page of its own. The cursor of the page is its last event.
pub fn page_of_texts<'a>(
    cursor: Seq,
    events: impl Iterator<Item = EventText<'a>>,
    format: Format,
    bytes_max: usize,
    events_max: usize,
) -> Page {
    // What a page has beyond its bound is mostly less than one small event.
    let mut out = Vec::with_capacity(bytes_max.min(1 << 20) + 1_024);
    let mut page = Page { bytes: Bytes::new(), events: 0, last_seq: None, cursor, is_end: false };
    for event in events {
        put(&mut out, &event, format);
        page.events += 1;
        page.last_seq = Some(event.seq);
        page.cursor = event.seq;
        page.is_end = event.r#type == EventType::CLOSED;
        if out.len() >= bytes_max || page.events >= events_max {
            break;
        }
    }
    page.bytes = Bytes::from(out);
    page
}

fn put(out: &mut Vec<u8>, event: &EventText<'_>, format: Format) {
    match format {
        Format::SseData { .. } => {
            put_payload(out, event.seq, event.r#type, event.data.unwrap_or_default(), format);
        }
        Format::SseCloudEvents { .. } | Format::CloudEventLines | Format::CloudEventItems => {
            put_cloud_event(out, event, format);
        }
        Format::Lines => {
            wire::put_event(out, event);
            out.push(b'\n');
        }
        Format::Sse { as_message } => {
            let name = Some(event.r#type)
                .filter(|name| *name != EventType::MESSAGE && (!as_message || *name == EventType::CLOSED));
            put_line(out, name, event.seq, |out| {
                wire::put_event(out, event);
            });
        }
    }
}
