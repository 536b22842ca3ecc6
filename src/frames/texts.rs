//! A page of events that come as texts from the table: encoded straight into the one format its reader wants.
//!
//! The bytes are those that [`super::Frames`] and a [`super::PageBuilder`] would make of the same events.

use super::format::put;
use super::{Format, Page};
use crate::event::{EventText, EventType, Seq};
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
