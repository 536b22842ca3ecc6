//! Frames: the events of one commit, or of one page of the table, encoded once and shared by every reader.
//!
//! Layer L0. Knows `event`, `wire` and `sse`; knows no I/O, no SQL and no HTTP.
//!
//! Layout of the bytes, one frame after the other, in order of seq:
//! ```text
//! event: user.login\n                      left out for the type `message`
//! data: {"seq":42,...,"data":{...}}\n      the event's JSON, one line
//! id: 42\n
//! \n
//! ```
//! Most formats are a cut of the same bytes: SSE the whole frame, `event=message` the frame without its first line, NDJSON
//! the JSON with its LF. The others are written anew.

use crate::event::{Event, EventText, EventType, Filter, Seq, StreamName, Timestamp};
use crate::sse::put_line;
use crate::wire::{self, EventJson};
use bytes::Bytes;

mod format;
mod page;
mod texts;

pub use format::Format;
pub use page::{Page, PageBuilder};
pub use texts::page_of_texts;

/// Encoded events in order of seq, immutable.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Bytes,
    marks: Vec<Mark>,
}

/// Where one event lies in the bytes, and what a selection asks of it. Offsets are bytes from the start.
#[derive(Debug, Clone)]
struct Mark {
    seq: Seq,
    stream: StreamName,
    r#type: EventType,
    start: usize,
    json_start: usize,
    data_start: usize,
    json_end: usize,
    end: usize,
}

impl Mark {
    /// The same event, further on.
    fn shifted(&self, by: usize) -> Self {
        Self {
            start: self.start + by,
            json_start: self.json_start + by,
            data_start: self.data_start + by,
            json_end: self.json_end + by,
            end: self.end + by,
            ..self.clone()
        }
    }

    /// What is known of the event without reading its JSON.
    fn text<'a>(&'a self, data: Option<&'a str>) -> EventText<'a> {
        EventText {
            seq: self.seq,
            stream: self.stream.as_str(),
            source: "",
            id: None,
            r#type: self.r#type.as_str(),
            subject: None,
            time: None,
            traceparent: None,
            created_at: "",
            data,
        }
    }
}

const DATA_PREFIX: &[u8] = b"data: ";

impl Frames {
    /// Encodes events, which must rise in seq.
    pub fn encode(events: &[Event]) -> Self {
        let mut out = Vec::with_capacity(events.iter().map(|e| e.content.size_bytes() + 160).sum());
        let mut marks = Vec::with_capacity(events.len());
        let mut created_at = (Timestamp::default(), String::new());
        for event in events {
            if created_at.0 != event.created_at || created_at.1.is_empty() {
                created_at = (event.created_at, event.created_at.to_string());
            }
            marks.push(put_frame(&mut out, event, &created_at.1));
        }
        Self { bytes: Bytes::from(out), marks }
    }

    /// The events of both, of which the second continues the first.
    pub fn join(&self, next: &Self) -> Self {
        let shift = self.bytes.len();
        let shifted = next.marks.iter().map(|mark| mark.shifted(shift));
        Self {
            bytes: Bytes::from([&*self.bytes, &*next.bytes].concat()),
            marks: self.marks.iter().cloned().chain(shifted).collect(),
        }
    }

    /// Seq of the first event, if there is one.
    pub fn first_seq(&self) -> Option<Seq> {
        self.marks.first().map(|mark| mark.seq)
    }

    /// Seq of the last event, if there is one.
    pub fn last_seq(&self) -> Option<Seq> {
        self.marks.last().map(|mark| mark.seq)
    }

    /// What this holds in memory, about. *Units*: bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.marks.len() * size_of::<Mark>() + size_of::<Self>()
    }

    /// The JSON of the first event, empty if there is none.
    pub fn first_json(&self) -> Bytes {
        self.marks.first().map_or_else(Bytes::new, |mark| self.bytes.slice(mark.json_start..mark.json_end))
    }

    /// Where a format finds an event in the shared bytes; `None` for those that are written anew.
    fn cut(mark: &Mark, format: Format) -> Option<(usize, usize)> {
        match format {
            Format::Sse { as_message: false } => Some((mark.start, mark.end)),
            Format::Sse { as_message: true } if mark.r#type.is_closed() => Some((mark.start, mark.end)),
            Format::Sse { as_message: true } => Some((mark.json_start - DATA_PREFIX.len(), mark.end)),
            Format::Lines => Some((mark.json_start, mark.json_end + 1)),
            Format::SseData { .. }
            | Format::SseCloudEvents { .. }
            | Format::CloudEventLines
            | Format::CloudEventItems => None,
        }
    }

    /// Whether an event of a wanted stream and type passes the filter.
    fn passes(&self, mark: &Mark, filter: &Filter) -> bool {
        if filter.is_all() {
            return true;
        }
        let (head, data) = self.parts(mark);
        if filter.is_about_payload() {
            return filter.matches(&mark.text(data));
        }
        filter.matches(&EventText { data, ..shown(&head).text() })
    }

    /// An event in a format that is no cut of the shared bytes.
    fn anew(&self, mark: &Mark, format: Format) -> Bytes {
        let (head, data) = self.parts(mark);
        let mut out = Vec::with_capacity(head.len() + data.map_or(0, str::len) + 400);
        match format {
            Format::SseData { .. } => format::put(&mut out, &mark.text(data), format),
            _ => format::put(&mut out, &EventText { data, ..shown(&head).text() }, format),
        }
        Bytes::from(out)
    }

    /// The JSON of an event without its payload, and the payload. That need not be JSON where another process wrote it.
    fn parts(&self, mark: &Mark) -> (String, Option<&str>) {
        let text = |range| std::str::from_utf8(&self.bytes[range]).expect("frames are made of texts");
        // The payload is the last member.
        let head = text(mark.json_start..mark.data_start);
        match head.strip_suffix(",\"data\":") {
            Some(head) => (format!("{head}}}"), Some(text(mark.data_start..mark.json_end - 1))),
            None => (format!("{head}}}"), None),
        }
    }
}

fn shown(head: &str) -> EventJson<'_> {
    serde_json::from_str(head).expect("the shape that put_event writes")
}

fn put_frame(out: &mut Vec<u8>, event: &Event, created_at: &str) -> Mark {
    let r#type = &event.content.r#type;
    let start = out.len();
    let (mut json_start, mut data_start, mut json_end) = (start, start, start);
    put_line(out, format::name(r#type.as_str(), false), event.seq, |out| {
        json_start = out.len();
        data_start = wire::put_event(out, &EventText::of(event, created_at));
        json_end = out.len();
    });
    Mark {
        seq: event.seq,
        stream: event.content.stream.clone(),
        r#type: r#type.clone(),
        start,
        json_start,
        data_start,
        json_end,
        end: out.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Content, Pattern, Selection};
    use std::sync::Arc;

    fn event(seq: Seq, stream: &str, r#type: &str, data: Option<&str>) -> Event {
        let mut content = Content::new(StreamName::parse(stream).unwrap());
        content.r#type = EventType::parse(r#type).unwrap();
        content.data = data.map(Arc::from);
        Event { seq, created_at: Timestamp::default(), content }
    }

    fn page(frames: &Frames, after: Seq, selection: &Selection, format: Format) -> (String, Seq) {
        let mut builder = PageBuilder::new(after, selection, format, 1 << 20, 1000);
        builder.add(frames, Seq::MAX);
        let page = builder.finish(None);
        (String::from_utf8(page.bytes.to_vec()).unwrap(), page.cursor)
    }

    #[test]
    fn every_format_is_a_cut_of_the_same_event() {
        let frames =
            Frames::encode(&[event(9, "a", "message", Some("1")), event(10, "a", "add", Some("\"x\\ny\""))]);
        let all = Selection::all();
        let json = |seq, r#type, data| {
            format!(
                "{{\"seq\":{seq},\"stream\":\"a\",\"type\":\"{type}\",\"created_at\":\"1970-01-01T00:00:00.000000Z\",\"data\":{data}}}"
            )
        };
        let (nine, ten) = (json(9, "message", "1"), json(10, "add", "\"x\\ny\""));
        let of = |format| page(&frames, 0, &all, format).0;
        assert_eq!(
            of(Format::Sse { as_message: false }),
            format!("data: {nine}\nid: 9\n\nevent: add\ndata: {ten}\nid: 10\n\n")
        );
        assert_eq!(
            of(Format::Sse { as_message: true }),
            format!("data: {nine}\nid: 9\n\ndata: {ten}\nid: 10\n\n")
        );
        assert_eq!(of(Format::Lines), format!("{nine}\n{ten}\n"));
        assert_eq!(
            of(Format::SseData { as_message: false }),
            "data: 1\nid: 9\n\nevent: add\ndata: x\ndata: y\nid: 10\n\n"
        );
        assert_eq!(
            of(Format::SseData { as_message: true }),
            "data: 1\nid: 9\n\ndata: x\ndata: y\nid: 10\n\n"
        );
    }

    #[test]
    fn an_absent_or_empty_payload_still_has_a_data_line() {
        let frames =
            Frames::encode(&[event(1, "a", "message", None), event(2, "a", "message", Some("\"\""))]);
        let (text, _) = page(&frames, 0, &Selection::all(), Format::SseData { as_message: false });
        assert_eq!(text, "data: null\nid: 1\n\ndata: \"\"\nid: 2\n\n");
    }

    #[test]
    fn unwanted_events_move_the_cursor_and_leave_no_bytes() {
        let frames =
            Frames::encode(&[event(1, "a", "x", None), event(2, "b", "x", None), event(3, "a", "y", None)]);
        let selection = Selection { streams: vec![Pattern::parse("b").unwrap()], ..Selection::default() };
        let (text, cursor) = page(&frames, 0, &selection, Format::Lines);
        assert!(text.starts_with("{\"seq\":2,") && text.lines().count() == 1);
        assert_eq!(cursor, 3);
    }

    #[test]
    fn a_full_page_stops_at_the_event_that_did_not_fit() {
        let frames = Frames::encode(&(1..=5).map(|seq| event(seq, "a", "x", None)).collect::<Vec<_>>());
        let all = Selection::all();
        let mut builder = PageBuilder::new(1, &all, Format::Lines, 1 << 20, 2);
        assert!(!builder.add(&frames, Seq::MAX));
        let page = builder.finish(None);
        assert_eq!((page.events, page.cursor), (2, 3));
        let mut builder = PageBuilder::new(1, &all, Format::Lines, 1, 9);
        assert!(!builder.add(&frames, Seq::MAX));
        assert_eq!(builder.finish(None).cursor, 2);
        let mut builder = PageBuilder::new(1, &all, Format::Lines, 1 << 20, 9);
        assert!(builder.add(&frames, 4));
        assert_eq!(builder.finish(None).cursor, 4);
    }
}
