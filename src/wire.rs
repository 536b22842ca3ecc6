//! The JSON shapes of the API that both ends of the wire share: an event and the data of the control frames.
//!
//! Layer L0. Knows `event`; knows no HTTP, no SQL and no SSE.

pub mod admin;
pub mod cloud;

use crate::event::{EventText, Receipt, Seq};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::Write;

/// Names of the control frames: SSE event types that no event of the log can have.
pub mod control {
    /// Hands out the reader's own cursor; data: [`super::CursorData`], with an id.
    pub const CURSOR: &str = "evertail.cursor";
    /// Events that were trimmed before the reader got them; data: [`super::GapData`].
    pub const GAP: &str = "evertail.gap";
    /// The reader's cursor does not belong to this log as it is now; data: [`super::ResetData`].
    pub const RESET: &str = "evertail.reset";
    /// The final event of a stream: an event of the log, with an id.
    pub const CLOSED: &str = crate::event::EventType::CLOSED;
    /// The stream is about to end and may be opened again; data: [`super::NoticeData`].
    pub const NOTICE: &str = "evertail.notice";

    /// Whether a frame of this name is said of the stream rather than stored in the log. Events of the server's own have
    /// names that begin alike.
    pub fn is_control(name: &str) -> bool {
        matches!(name, CURSOR | GAP | RESET | NOTICE)
    }
}

/// Data of `evertail.cursor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CursorData {
    /// Oldest retained seq; `last_seq + 1` when nothing is retained.
    pub first_seq: Seq,
    /// Newest committed seq, 0 for a new log.
    pub last_seq: Seq,
    /// The log's identity.
    pub log: String,
}

/// Data of `evertail.gap`: seqs that were asked for and are gone, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GapData {
    /// First missing seq.
    pub from: Seq,
    /// Last missing seq.
    pub to: Seq,
    /// Why: `trimmed`.
    pub reason: String,
    /// Only events of these streams may be missing, `*` meaning any; empty, and then not there: everything is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
}

/// Data of `evertail.reset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
// The cursor is always there, if only as null.
#[schemars(extend("required" = ["cursor", "last_seq", "reason"]))]
pub struct ResetData {
    /// The cursor that the reader came with; null if it had none.
    pub cursor: Option<Seq>,
    /// Newest committed seq of this log.
    pub last_seq: Seq,
    /// `ahead`: the cursor is beyond the log. `replaced`: the reader named another log.
    pub reason: String,
}

/// Data of `evertail.notice`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoticeData {
    /// Why the stream ends: `drain` or `unavailable`.
    pub reason: String,
}

/// Writes an event as one line of JSON: the shape of `docs/api.md`, absent members left out, `data` last.
///
/// Returns where the payload begins in `out`; as the last member it ends one byte before the end, and is empty there when
/// absent.
pub fn put_event(out: &mut Vec<u8>, event: &EventText<'_>) -> usize {
    put_seq(out, event.seq);
    put_member(out, "stream", event.stream);
    if !event.source.is_empty() {
        put_member(out, "source", event.source);
    }
    if let Some(id) = event.id {
        put_member(out, "id", id);
    }
    put_member(out, "type", event.r#type);
    if let Some(subject) = event.subject {
        put_member(out, "subject", subject);
    }
    if let Some(time) = event.time {
        put_member(out, "time", time);
    }
    if let Some(traceparent) = event.traceparent {
        put_member(out, "traceparent", traceparent);
    }
    put_member(out, "created_at", event.created_at);
    let mut data_start = out.len();
    if let Some(data) = event.data {
        out.extend_from_slice(b",\"data\":");
        data_start = out.len();
        out.extend_from_slice(data.as_bytes());
    }
    out.push(b'}');
    data_start
}

const MEMORY: &str = "writing to memory cannot fail";

/// The beginning of an event or a receipt.
fn put_seq(out: &mut Vec<u8>, seq: Seq) {
    out.extend_from_slice(b"{\"seq\":");
    serde_json::to_writer(out, &seq).expect(MEMORY);
}

fn put_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    serde_json::to_writer(out, value).expect(MEMORY);
}

/// An event as it is read, absent members left out.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Event")]
pub struct EventJson<'a> {
    /// Its position in the log, from 1.
    #[schemars(range(min = 1))]
    seq: Seq,
    /// The stream it was appended to.
    #[serde(borrow)]
    stream: Cow<'a, str>,
    /// Where it comes from, as its producer said.
    #[serde(borrow, default)]
    source: Cow<'a, str>,
    /// Its producer's own identifier, unique for ever within stream and source.
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    /// What happened.
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    /// What it is about.
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    /// When it happened, as its producer wrote it. Never used for order.
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    /// The span it was made in, as W3C Trace Context writes it.
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    /// When it was received. Never decreases with seq.
    #[serde(borrow)]
    #[schemars(extend("format" = "date-time"))]
    created_at: Cow<'a, str>,
    /// The payload: any JSON value.
    #[serde(borrow, default, deserialize_with = "payload")]
    data: Option<&'a RawValue>,
}

impl EventJson<'_> {
    /// Its texts.
    pub fn text(&self) -> EventText<'_> {
        EventText {
            seq: self.seq,
            stream: &self.stream,
            source: &self.source,
            id: self.id.as_deref(),
            r#type: &self.r#type,
            subject: self.subject.as_deref(),
            time: self.time.as_deref(),
            traceparent: self.traceparent.as_deref(),
            created_at: &self.created_at,
            data: self.data.map(RawValue::get),
        }
    }
}

/// Reads a payload that is there: `null` is one, and not the absence of one.
pub(crate) fn payload<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(reader).map(Some)
}

/// What promises that an event is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Receipt")]
pub struct ReceiptJson {
    /// Where the event is in the log.
    pub seq: Seq,
    /// The stream it was appended to.
    pub stream: String,
    /// Its producer id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// When it was first received; left out for a repeat of an event that was trimmed since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(extend("format" = "date-time"))]
    pub created_at: Option<String>,
    /// It was stored by an earlier append; left out when false.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub duplicate: bool,
}

/// Writes a receipt as JSON: a [`ReceiptJson`].
pub fn put_receipt(out: &mut Vec<u8>, receipt: &Receipt) {
    put_seq(out, receipt.seq);
    put_member(out, "stream", receipt.stream.as_str());
    if let Some(id) = &receipt.id {
        put_member(out, "id", id);
    }
    if let Some(created_at) = receipt.created_at {
        write!(out, ",\"created_at\":\"{created_at}\"").expect(MEMORY);
    }
    out.extend_from_slice(if receipt.is_duplicate { b",\"duplicate\":true}" } else { b"}" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Content, Event, StreamName, Timestamp};
    use std::sync::Arc;

    #[test]
    fn event_json_leaves_absent_members_out_and_ends_with_the_payload() {
        let mut content = Content::new(StreamName::parse("audits").unwrap());
        let mut event = Event { seq: 42, created_at: Timestamp::default(), content: content.clone() };
        let mut out = Vec::new();
        let data_start = put_event(&mut out, &EventText::of(&event, "T"));
        assert_eq!(
            String::from_utf8(out.clone()).unwrap(),
            r#"{"seq":42,"stream":"audits","type":"message","created_at":"T"}"#
        );
        assert_eq!(data_start, out.len() - 1);

        content.id = Some(Arc::from("a\"b"));
        content.data = Some(Arc::from("[1]"));
        event.content = content;
        out.clear();
        let data_start = put_event(&mut out, &EventText::of(&event, "T"));
        assert_eq!(&out[data_start..], b"[1]}");
        assert!(out.windows(11).any(|w| w == br#""id":"a\"b""#));
    }

    #[test]
    fn receipt_is_written_as_it_is_read() {
        let mut receipt = Receipt {
            seq: 42,
            stream: StreamName::parse("audits").unwrap(),
            id: None,
            created_at: None,
            is_duplicate: true,
        };
        let written = |receipt: &Receipt| {
            let mut out = Vec::new();
            put_receipt(&mut out, receipt);
            let read: ReceiptJson = serde_json::from_slice(&out).unwrap();
            assert_eq!(serde_json::to_vec(&read).unwrap(), out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(&receipt), r#"{"seq":42,"stream":"audits","duplicate":true}"#);
        receipt.id = Some(Arc::from("a\"b"));
        receipt.created_at = Some(Timestamp::EPOCH);
        receipt.is_duplicate = false;
        assert_eq!(
            written(&receipt),
            r#"{"seq":42,"stream":"audits","id":"a\"b","created_at":"1970-01-01T00:00:00.000000Z"}"#
        );
    }
}
