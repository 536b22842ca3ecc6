//! An event as a CloudEvent 1.0 in JSON. `docs/cloudevents.md` has the mapping.
//!
//! Attributes that every CloudEvent has and an event may lack are made of what identifies it in its log. Reading one
//! back undoes the source; the id stays, so that a copy made twice is one event.

use super::{MEMORY, put_member};
use crate::event::{EventText, Seq};
use std::io::Write;

/// The version of CloudEvents that is spoken.
pub const SPECVERSION: &str = "1.0";

/// Digits of a `sequence`: as many as the greatest seq has, so that its order as text is its order.
const SEQUENCE_DIGITS: usize = 20;

/// How an event as CloudEvent begins; its sequence follows.
const BEGINNING: &str = "{\"specversion\":\"1.0\",\"sequence\":\"";

/// The source of an event that has none: where it is read.
pub fn source_of(stream: &str) -> String {
    format!("/api/v1/{stream}")
}

/// Whether a text is a `sequence` as a log writes it.
pub fn is_sequence(text: &str) -> bool {
    text.len() == SEQUENCE_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Writes an event as one line of JSON in the CloudEvents format, the payload last.
pub fn put_cloud_event(out: &mut Vec<u8>, event: &EventText<'_>) {
    let sequence = format!("{:0SEQUENCE_DIGITS$}", event.seq);
    write!(out, "{BEGINNING}{sequence}\"").expect(MEMORY);
    put_member(out, "id", event.id.unwrap_or(&sequence));
    match event.source {
        "" => put_member(out, "source", &source_of(event.stream)),
        source => put_member(out, "source", source),
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
    put_member(out, "stream", event.stream);
    put_member(out, "recordedtime", event.created_at);
    if let Some(data) = event.data {
        out.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"data\":");
        out.extend_from_slice(data.as_bytes());
    }
    out.push(b'}');
}

/// The seq of an event that [`put_cloud_event`] wrote.
pub fn seq_of(json: &[u8]) -> Option<Seq> {
    let digits = json.strip_prefix(BEGINNING.as_bytes())?.get(..SEQUENCE_DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_lacks_is_made_of_its_place() {
        let event = EventText {
            seq: 42,
            stream: "audits",
            source: "",
            id: None,
            r#type: "message",
            subject: None,
            time: None,
            traceparent: None,
            created_at: "T",
            data: None,
        };
        let shown = |event: &EventText<'_>| {
            let mut out = Vec::new();
            put_cloud_event(&mut out, event);
            assert_eq!(seq_of(&out), Some(event.seq));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            shown(&event),
            r#"{"specversion":"1.0","sequence":"00000000000000000042","id":"00000000000000000042","source":"/api/v1/audits","type":"message","stream":"audits","recordedtime":"T"}"#
        );
        let event = EventText {
            seq: Seq::MAX,
            source: "/a\"",
            id: Some("1"),
            subject: Some("s"),
            time: Some("t"),
            traceparent: Some("00-1"),
            data: Some("null"),
            ..event
        };
        assert_eq!(
            shown(&event),
            r#"{"specversion":"1.0","sequence":"18446744073709551615","id":"1","source":"/a\"","type":"message","subject":"s","time":"t","traceparent":"00-1","stream":"audits","recordedtime":"T","datacontenttype":"application/json","data":null}"#
        );
    }

    #[test]
    fn sequences_sort_as_text() {
        assert!(
            is_sequence("00000000000000000042") && !is_sequence("42") && !is_sequence("0000000000000000004x")
        );
    }
}
