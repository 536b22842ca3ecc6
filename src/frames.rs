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
//! Each format is a cut of the same bytes: SSE the whole frame, `event=message` the frame without its first line,
//! NDJSON the JSON with its LF. `format=data` and `format=cloudevents` are written anew. The final event of a
//! stream keeps its name, so that it never reaches an `onmessage`, and passes every filter of sources, subjects and
//! payloads: it is the stream's own.

use crate::event::{Event, EventText, EventType, Filter, Selection, Seq, StreamName, Timestamp};
use crate::sse::{Block, put_block, put_line};
use crate::wire::{self, cloud};
use bytes::Bytes;
use serde::Deserialize;
use std::borrow::Cow;

mod texts;

pub use texts::page_of_texts;

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
}

/// A piece of shared bytes that is sent by itself rather than copied together with the next. *Units*: bytes.
const PIECE_BYTES_ENOUGH: usize = 16 << 10;
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

    fn passes(&self, mark: &Mark, filter: &Filter) -> bool {
        if filter.is_all() || mark.r#type.is_closed() {
            return true;
        }
        let json = |range| std::str::from_utf8(&self.bytes[range]).unwrap_or_default();
        // The payload is the last member. It need not be JSON where another process wrote it, and is read by itself.
        let data = json(mark.data_start..mark.json_end - 1);
        let head = json(mark.json_start..mark.data_start);
        match head.strip_suffix(",\"data\":") {
            Some(head) => filter.matches_shown(&format!("{head}}}"), Some(data)),
            None => filter.matches_shown(&format!("{head}}}"), None),
        }
    }

    /// An event in a format that is no cut of the shared bytes.
    fn anew(&self, mark: &Mark, format: Format) -> Bytes {
        let data = String::from_utf8_lossy(&self.bytes[mark.data_start..mark.json_end - 1]);
        let mut out = Vec::with_capacity(data.len() + 400);
        if let Format::SseData { .. } = format {
            put_payload(&mut out, mark.seq, mark.r#type.as_str(), &data, format);
            return Bytes::from(out);
        }
        // The payload is the last member, and is taken as it is.
        let head = String::from_utf8_lossy(&self.bytes[mark.json_start..mark.data_start]);
        let (head, data) = match head.strip_suffix(",\"data\":") {
            Some(head) => (head, Some(&*data)),
            None => (&*head, None),
        };
        let head = format!("{head}}}");
        let head: Head<'_> = serde_json::from_str(&head).expect("the shape that put_event writes");
        put_cloud_event(&mut out, &head.event(mark, data), format);
        Bytes::from(out)
    }
}

/// What the JSON of an event says before its payload, and its mark does not.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    created_at: Cow<'a, str>,
}

impl Head<'_> {
    fn event<'e>(&'e self, mark: &'e Mark, data: Option<&'e str>) -> EventText<'e> {
        EventText {
            seq: mark.seq,
            stream: mark.stream.as_str(),
            source: &self.source,
            id: self.id.as_deref(),
            r#type: mark.r#type.as_str(),
            subject: self.subject.as_deref(),
            time: self.time.as_deref(),
            created_at: &self.created_at,
            data,
        }
    }
}

/// An event in one of the formats that show CloudEvents.
fn put_cloud_event(out: &mut Vec<u8>, event: &EventText<'_>, format: Format) {
    match format {
        Format::SseCloudEvents { as_message } => {
            let name = Some(event.r#type).filter(|name| !as_message && *name != EventType::MESSAGE);
            put_line(out, name, event.seq, |out| cloud::put_cloud_event(out, event));
        }
        Format::CloudEventItems => {
            cloud::put_cloud_event(out, event);
            out.push(b',');
        }
        _ => {
            cloud::put_cloud_event(out, event);
            out.push(b'\n');
        }
    }
}

/// The payload alone: a JSON string unquoted, so that its lines become data lines; anything else as JSON; `null` when
/// absent, which is the empty text. The encoder quotes a text that has nothing but empty lines.
fn put_payload(out: &mut Vec<u8>, seq: Seq, r#type: &str, json: &str, format: Format) {
    let text: Option<String> = if json.starts_with('"') { serde_json::from_str(json).ok() } else { None };
    let data = match &text {
        Some(text) => text,
        None if json.is_empty() => "null",
        None => json,
    };
    let is_named = r#type == EventType::CLOSED
        || (format == Format::SseData { as_message: false } && r#type != EventType::MESSAGE);
    let event = is_named.then_some(r#type);
    put_block(out, &Block { retry_milliseconds: None, event, data, id: Some(seq) });
}

fn put_frame(out: &mut Vec<u8>, event: &Event, created_at: &str) -> Mark {
    let r#type = &event.content.r#type;
    let named = Some(r#type.as_str()).filter(|name| *name != EventType::MESSAGE);
    let start = out.len();
    let (mut json_start, mut data_start, mut json_end) = (start, start, start);
    put_line(out, named, event.seq, |out| {
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

/// What a reader is given in one step: formatted bytes, and the cursor that stands behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Whole frames or lines; empty when nothing in the range was wanted.
    pub bytes: Bytes,
    /// How many events the bytes hold.
    pub events: usize,
    /// The last event in the bytes.
    pub last_seq: Option<Seq>,
    /// Everything up to here was given or not wanted; at least `last_seq`.
    pub cursor: Seq,
    /// The last event in the bytes is the final one of its stream.
    pub is_end: bool,
}

/// Gathers a page from frames, in order, up to a bound.
///
/// Neighbouring frames are one slice of shared memory. A large slice is a page by itself, and costs its reader no memory;
/// many small pieces are copied together, so that a page is one write.
#[derive(Debug)]
pub struct PageBuilder<'a> {
    selection: &'a Selection,
    format: Format,
    bytes_max: usize,
    events_max: usize,
    pieces: Vec<Bytes>,
    bytes: usize,
    page_events: usize,
    last_seq: Option<Seq>,
    cursor: Seq,
    is_end: bool,
}

impl<'a> PageBuilder<'a> {
    /// A page of what comes after the cursor.
    ///
    /// *Bounds*: at most `events_max` events, and no further event once `bytes_max` bytes are reached; one event
    /// larger than that is a page of its own.
    pub fn new(
        cursor: Seq,
        selection: &'a Selection,
        format: Format,
        bytes_max: usize,
        events_max: usize,
    ) -> Self {
        Self {
            selection,
            format,
            bytes_max,
            events_max,
            pieces: Vec::new(),
            bytes: 0,
            page_events: 0,
            last_seq: None,
            cursor,
            is_end: false,
        }
    }

    /// Adds what is wanted of these frames after the cursor and up to `through`. Returns false once the page is full.
    pub fn add(&mut self, frames: &Frames, through: Seq) -> bool {
        // The slice of shared bytes that is being extended, so that a run of wanted frames is one piece.
        let mut run = 0..0;
        let from = frames.marks.partition_point(|mark| mark.seq <= self.cursor);
        for mark in frames.marks[from..].iter().take_while(|mark| mark.seq <= through) {
            if self.is_full() {
                break;
            }
            self.cursor = mark.seq;
            if !self.selection.matches_names(&mark.stream, &mark.r#type)
                || !frames.passes(mark, &self.selection.filter)
            {
                continue;
            }
            self.page_events += 1;
            self.last_seq = Some(mark.seq);
            self.is_end = mark.r#type.is_closed();
            let Some((start, end)) = Frames::cut(mark, self.format) else {
                self.push(frames.anew(mark, self.format));
                continue;
            };
            self.bytes += end - start;
            if run.end == start {
                run.end = end;
            } else {
                if !run.is_empty() {
                    self.pieces.push(frames.bytes.slice(run));
                }
                run = start..end;
            }
        }
        if !run.is_empty() {
            self.pieces.push(frames.bytes.slice(run));
        }
        let is_one_large_piece = self.pieces.len() == 1 && self.bytes >= PIECE_BYTES_ENOUGH;
        !self.is_full() && !is_one_large_piece
    }

    fn is_full(&self) -> bool {
        self.page_events >= self.events_max || self.bytes >= self.bytes_max
    }

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    /// The page. `scanned_to` is how far the source was read: where nothing more was wanted, the cursor moves there.
    pub fn finish(mut self, scanned_to: Option<Seq>) -> Page {
        let bytes = match self.pieces.len() {
            1 => self.pieces.swap_remove(0),
            _ => Bytes::from(self.pieces.concat()),
        };
        let cursor = scanned_to.unwrap_or(0).max(self.cursor);
        Page { bytes, events: self.page_events, last_seq: self.last_seq, cursor, is_end: self.is_end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Content, Pattern};
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
        assert_eq!((builder.page_events, builder.finish(None).cursor), (2, 3));
        let mut builder = PageBuilder::new(1, &all, Format::Lines, 1, 9);
        assert!(!builder.add(&frames, Seq::MAX));
        assert_eq!(builder.finish(None).cursor, 2);
        let mut builder = PageBuilder::new(1, &all, Format::Lines, 1 << 20, 9);
        assert!(builder.add(&frames, 4));
        assert_eq!(builder.finish(None).cursor, 4);
    }
}
