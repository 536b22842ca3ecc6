//! An event as the texts that are written of it, borrowed from wherever they lie.
//!
//! Layer L0. The codecs take this, so that a row of the table is encoded without becoming an [`Event`] of its own.

use super::{Event, Seq};

/// What is written of one event. As in [`super::Content`], but borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventText<'a> {
    /// Its position in the log.
    pub seq: Seq,
    /// Its stream.
    pub stream: &'a str,
    /// Its source, empty when not said.
    pub source: &'a str,
    /// The producer's id.
    pub id: Option<&'a str>,
    /// Its type.
    pub r#type: &'a str,
    /// What it is about.
    pub subject: Option<&'a str>,
    /// When it happened, as the producer wrote it.
    pub time: Option<&'a str>,
    /// The span it was made in.
    pub traceparent: Option<&'a str>,
    /// The server's receipt time, as [`super::Timestamp`] shows it.
    pub created_at: &'a str,
    /// The payload: one JSON value on one line.
    pub data: Option<&'a str>,
}

impl<'a> EventText<'a> {
    /// The texts of an event. `created_at` is given as text because a commit formats it once for all its events.
    pub fn of(event: &'a Event, created_at: &'a str) -> Self {
        let content = &event.content;
        Self {
            seq: event.seq,
            stream: content.stream.as_str(),
            source: &content.source,
            id: content.id.as_deref(),
            r#type: content.r#type.as_str(),
            subject: content.subject.as_deref(),
            time: content.time.as_deref(),
            traceparent: content.traceparent.as_deref(),
            created_at,
            data: content.data.as_deref(),
        }
    }
}
