//! Events: what is stored, what is about to be stored, and the receipt for it.
//!
//! Layer L0: values only. May import nothing of this crate but its own parts; knows no I/O, SQL or HTTP.

mod filter;
mod json;
mod name;
mod retention;
mod selection;
mod text;
mod time;
mod trace;

pub use filter::{Condition, Filter};
pub use json::{DEPTH_MAX, JsonError, compact, quote};
pub use name::{
    EventType, HOLD_CHARS_MAX, ID_CHARS_MAX, IdempotencyKey, NameError, STREAM_BYTES_MAX, StreamName,
    TYPE_CHARS_MAX,
};
pub use name::{check_hold_name, check_id, check_reason, check_subject, check_time};
pub use retention::{Retention, RetentionRules, StreamRetention};
pub use selection::{Pattern, Selection};
pub use text::EventText;
pub use time::Timestamp;
pub use trace::check_traceparent;

use std::sync::Arc;

/// The position of an event in the log: 1 for the first, rising by exactly 1, never reused. 0 means "before the first".
pub type Seq = u64;

/// What a producer says of an event.
///
/// Texts are shared, so that the table, the recent window and a receipt hold one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The stream it belongs to.
    pub stream: StreamName,
    /// The context it happened in (CloudEvents `source`), empty when not said.
    pub source: Arc<str>,
    /// The producer's own identifier, unique per (stream, source) for ever.
    pub id: Option<Arc<str>>,
    /// The kind of event; `message` when not said, as EventSource has it.
    pub r#type: EventType,
    /// What it is about (CloudEvents `subject`).
    pub subject: Option<Arc<str>>,
    /// When it happened, RFC 3339 as the producer wrote it; never used for order.
    pub time: Option<Arc<str>>,
    /// The span it was made in (W3C Trace Context), as [`check_traceparent`] writes it.
    pub traceparent: Option<Arc<str>>,
    /// The payload: one JSON value on one line, without insignificant white space.
    pub data: Option<Arc<str>>,
}

impl Content {
    /// An event of this stream with nothing but its defaults.
    pub fn new(stream: StreamName) -> Self {
        Self {
            stream,
            source: Arc::from(""),
            id: None,
            r#type: EventType::message(),
            subject: None,
            time: None,
            traceparent: None,
            data: None,
        }
    }

    /// Whether it is the same event again, and no other one with its id. Each attempt at it is a span of its own, so that
    /// is not compared.
    pub fn repeats(&self, earlier: &Self) -> bool {
        let Self { stream, source, id, r#type, subject, time, traceparent: _, data } = self;
        *stream == earlier.stream
            && *source == earlier.source
            && *id == earlier.id
            && *r#type == earlier.r#type
            && *subject == earlier.subject
            && *time == earlier.time
            && *data == earlier.data
    }

    /// Size of all its texts. *Units*: bytes. What the limits on an event, a batch and the queue count.
    ///
    /// Without the traceparent, which is short, and which a proxy may add: an event is not too large by that.
    pub fn size_bytes(&self) -> usize {
        let optional = |text: &Option<Arc<str>>| text.as_deref().map_or(0, str::len);
        self.stream.as_str().len()
            + self.source.len()
            + self.r#type.as_str().len()
            + optional(&self.id)
            + optional(&self.subject)
            + optional(&self.time)
            + optional(&self.data)
    }
}

/// Who appended an event, and from where. Stored beside it and not part of it: a repeat may come from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who: `token:<id>:<name>`, `jwt:<subject>`.
    pub producer: Arc<str>,
    /// The address of the client, if it is known.
    pub address: Option<Arc<str>>,
}

/// One stored, immutable event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its position in the log.
    pub seq: Seq,
    /// The server's receipt time; never decreasing with `seq`.
    pub created_at: Timestamp,
    /// What the producer said.
    pub content: Content,
}

/// The promise that one event is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where the event is in the log.
    pub seq: Seq,
    /// The stream it was appended to.
    pub stream: StreamName,
    /// Its producer id, if it has one.
    pub id: Option<Arc<str>>,
    /// When the event was first received; not known any more for a repeat of an event that was trimmed.
    pub created_at: Option<Timestamp>,
    /// The event was stored before, by an earlier append with this id; `seq` and `created_at` are that one's.
    pub is_duplicate: bool,
}

impl Receipt {
    /// The receipt of an event that is, or is about to be, stored.
    pub fn of(event: &Event, is_duplicate: bool) -> Self {
        Self {
            seq: event.seq,
            stream: event.content.stream.clone(),
            id: event.content.id.clone(),
            created_at: Some(event.created_at),
            is_duplicate,
        }
    }
}
