//! The model of a log: a plain vector of events, and what follows from it.

use crate::fixture::{line, stored, stream};
use evertail::event::{Content, Event, EventType, Receipt, Selection, Seq, StreamName, Timestamp};
use evertail::frames::{Format, Page};
use evertail::log::{
    AppendError, ExpectedLastSeq, From, Gap, ReaderOptions, Refusal, Reset, Resume, Step, TrimReport,
};
use sqlx::SqliteConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// An id with its stream and source.
type Key = (String, String, String);

/// Every event ever stored, trimmed or not: the event with seq n stands at n - 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    events: Vec<Event>,
    trimmed: Seq,
    /// Up to where single streams are trimmed.
    lost: BTreeMap<StreamName, Seq>,
    held: BTreeSet<StreamName>,
}

/// What becomes of one event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    New,
    Repeat(Seq),
    Reuse(Seq),
    /// Its stream ended with this event.
    Closed(Seq),
}

impl Model {
    pub(crate) fn first(&self) -> Seq {
        self.trimmed + 1
    }

    pub(crate) fn last(&self) -> Seq {
        self.events.len() as Seq
    }

    pub(crate) fn event(&self, seq: Seq) -> &Event {
        &self.events[seq as usize - 1]
    }

    fn is_retained(&self, event: &Event) -> bool {
        event.seq > self.trimmed && self.lost.get(&event.content.stream).is_none_or(|lost| event.seq > *lost)
    }

    pub(crate) fn retained(&self) -> Vec<Event> {
        self.events.iter().filter(|event| self.is_retained(event)).cloned().collect()
    }

    fn last_created_at(&self) -> Timestamp {
        self.events.last().map_or(Timestamp::EPOCH, |event| event.created_at)
    }

    fn last_seq_of(&self, name: &StreamName) -> Seq {
        self.events.iter().rfind(|event| event.content.stream == *name).map_or(0, |event| event.seq)
    }

    fn end_of(&self, name: &StreamName) -> Option<Seq> {
        let is_end = |event: &&Event| {
            event.content.stream == *name && event.content.r#type.as_str() == "evertail.closed"
        };
        self.events.iter().find(is_end).map(|event| event.seq)
    }

    /// Ends a stream as the log should, and compares its answer.
    pub(crate) fn close(&mut self, name: &StreamName, receipt: &Receipt) {
        let expected = match self.end_of(name) {
            Some(seq) if self.is_retained(self.event(seq)) => Receipt::of(self.event(seq), true),
            Some(seq) => Receipt { seq, created_at: None, ..Receipt::of(self.event(seq), true) },
            None => {
                let mut content = Content::new(name.clone());
                content.r#type = EventType::closed();
                self.push(content, receipt.created_at.expect("a new event has its time"));
                Receipt::of(self.event(self.last()), false)
            }
        };
        assert_eq!(*receipt, expected);
    }

    pub(crate) fn fate(&self, content: &Content) -> Fate {
        let has_its_id =
            |event: &&Event| key(&event.content).is_some_and(|found| Some(found) == key(content));
        match self.events.iter().find(has_its_id) {
            None => self.end_of(&content.stream).map_or(Fate::New, Fate::Closed),
            Some(event) if !self.is_retained(event) || is_same(&event.content, content) => {
                Fate::Repeat(event.seq)
            }
            Some(event) => Fate::Reuse(event.seq),
        }
    }

    /// A new event at the end, as whoever stored it says when.
    pub(crate) fn push(&mut self, content: Content, created_at: Timestamp) {
        assert!(created_at >= self.last_created_at(), "created_at steps back to {created_at}");
        self.events.push(Event { seq: self.last() + 1, created_at, content });
    }

    /// The last seq that a trim of the log, or of a stream, may delete while the log ends at `last`.
    fn trimmable(&self, name: Option<&StreamName>, last: Seq) -> Seq {
        let held = |event: &&Event| self.held.contains(&event.content.stream);
        match name {
            None => self.retained().iter().find(held).map_or(last, |event| event.seq - 1),
            Some(name) if self.held.contains(name) => 0,
            Some(_) => last.saturating_sub(1),
        }
    }

    /// Trims the log, or a stream, as it should up to this seq, while it ends somewhere in `last`, and compares the report.
    /// True if an event of `evertail` must tell of it.
    pub(crate) fn trim(
        &mut self,
        name: Option<&StreamName>,
        through: Seq,
        last: RangeInclusive<Seq>,
        report: &TrimReport,
    ) -> bool {
        let is_asked = |event: &&Event| name.is_none_or(|name| event.content.stream == *name);
        let retained = self.retained();
        let gone_at = |last: Seq| -> Vec<&Event> {
            // What is stored and not shown yet is not asked for, but it is the newest event all the same.
            let through = through.min(last).min(self.trimmable(name, self.last()));
            retained.iter().filter(is_asked).filter(|event| event.seq <= through).collect()
        };
        let is_told = |gone: &Vec<&Event>| gone.last().map(|event| event.seq) == report.through_seq;
        let mut possible = last.map(gone_at).filter(is_told);
        let gone = possible.next().unwrap_or_else(|| panic!("{report:?} of {name:?} up to {through}"));
        assert_eq!(report.events, gone.len() as u64);
        let bytes = gone.iter().filter_map(|event| event.content.data.as_deref()).map(str::len);
        assert_eq!(report.bytes, bytes.sum::<usize>() as u64);
        let must_tell = gone.iter().any(|event| event.content.stream.as_str() != "evertail");
        let Some(last_gone) = report.through_seq else { return false };
        match name {
            None => self.trimmed = last_gone,
            Some(name) => {
                self.lost.insert(name.clone(), last_gone);
            }
        }
        // The log begins where its first event is.
        if let Some(first) = self.retained().first() {
            self.trimmed = first.seq - 1;
        }
        must_tell
    }

    /// A stream is held, or no longer.
    pub(crate) fn hold(&mut self, name: &StreamName, is_held: bool) {
        if is_held {
            self.held.insert(name.clone())
        } else {
            self.held.remove(name)
        };
    }

    pub(crate) fn is_held(&self, name: &StreamName) -> bool {
        self.held.contains(name)
    }

    /// An event that the server appended of its own accord.
    pub(crate) fn push_own(&mut self, event: Option<Event>, r#type: &str) -> &Event {
        let event = event.expect("the server tells what it did");
        assert_eq!((event.seq, event.content.r#type.as_str()), (self.last() + 1, r#type));
        assert_eq!(event.content.stream.as_str(), "evertail");
        self.push(event.content, event.created_at);
        self.event(self.last())
    }

    /// A reader that comes with this: what single streams have lost is news to it only if it was here before.
    pub(crate) fn reader(&self, from: From, cursor: Seq, options: ReaderOptions) -> ModelReader {
        let untold = if matches!(from, From::After(1..)) { self.lost.clone() } else { BTreeMap::new() };
        ModelReader { cursor, remaining: options.limit.unwrap_or(u64::MAX), options, untold }
    }

    /// The condition with this distance from what holds.
    pub(crate) fn expected(&self, name: Option<&str>, distance: Seq) -> ExpectedLastSeq {
        let name = name.map(stream);
        let seq = name.as_ref().map_or(self.last(), |name| self.last_seq_of(name)) + distance;
        ExpectedLastSeq { stream: name, seq }
    }

    /// Stores a request as the log should, and compares its answer.
    pub(crate) fn append(
        &mut self,
        contents: &[Content],
        expected: Option<&ExpectedLastSeq>,
        answer: Result<Vec<Receipt>, AppendError>,
    ) {
        if let Some(expected) = expected {
            let last_seq = expected.stream.as_ref().map_or(self.last(), |name| self.last_seq_of(name));
            if last_seq != expected.seq {
                let is_told = matches!(&answer, Err(AppendError::Refused(refusal)) if *refusal == Refusal::LastSeqDiffers { last_seq });
                assert!(is_told, "{expected:?}, which is {last_seq}: {answer:?}");
                return;
            }
        }
        match (self.refusal(contents), answer) {
            (None, Ok(receipts)) => self.accept(contents, &receipts),
            (Some(expected), Err(AppendError::Refused(refusal))) => assert_eq!(refusal, expected),
            (expected, answer) => panic!("{expected:?} is expected, not {answer:?}: {contents:?}"),
        }
    }

    fn refusal(&self, contents: &[Content]) -> Option<Refusal> {
        for (index, content) in contents.iter().enumerate() {
            let is_other = |earlier: &Content| key(earlier) == key(content) && !is_same(earlier, content);
            match self.fate(content) {
                Fate::Repeat(_) => {}
                Fate::Reuse(seq) => return Some(Refusal::IdReused { index, seq }),
                Fate::Closed(seq) => return Some(Refusal::StreamClosed { index, seq: Some(seq) }),
                Fate::New if content.id.is_some() && contents[..index].iter().any(is_other) => {
                    return Some(Refusal::IdTwice { index });
                }
                Fate::New => {}
            }
        }
        None
    }

    fn accept(&mut self, contents: &[Content], receipts: &[Receipt]) {
        assert_eq!(contents.len(), receipts.len());
        for (content, receipt) in contents.iter().zip(receipts) {
            let expected = match self.fate(content) {
                Fate::New => {
                    self.push(content.clone(), receipt.created_at.expect("a new event has its time"));
                    Receipt::of(self.event(self.last()), false)
                }
                Fate::Repeat(seq) if self.is_retained(self.event(seq)) => Receipt::of(self.event(seq), true),
                Fate::Repeat(seq) => Receipt { seq, created_at: None, ..Receipt::of(self.event(seq), true) },
                Fate::Reuse(seq) => panic!("{content:?} was accepted, its id is {seq}'s"),
                Fate::Closed(seq) => panic!("{content:?} was accepted, its stream ended with {seq}"),
            };
            assert_eq!(*receipt, expected);
        }
    }

    /// Where a reader begins while the log ends at `last`.
    pub(crate) fn resume(&self, from: From, selection: &Selection, last: Seq) -> Resume {
        let begin = self.trimmed;
        let shown = &self.events[begin as usize..last as usize];
        let shown: Vec<&Event> = shown.iter().filter(|event| self.is_retained(event)).collect();
        let (cursor, reset) = match from {
            From::Now => (last, None),
            From::After(0) => (begin, None),
            From::After(cursor) if cursor > last => (last, Some(Reset::Ahead { cursor })),
            From::After(cursor) => (cursor, None),
            From::Since(time) => {
                let before = shown.iter().rfind(|event| event.created_at < time);
                (before.map_or(begin, |event| event.seq), None)
            }
            From::Last(0) => (last, None),
            From::Last(count) => {
                let wanted = shown.iter().rev().filter(|event| is_wanted(event, selection));
                (wanted.map(|event| event.seq - 1).nth(count as usize - 1).unwrap_or(begin), None)
            }
        };
        Resume { cursor, reset }
    }

    /// Compares one step of a reader while the log ends somewhere in `last`, and moves the reader's model.
    pub(crate) fn step(&self, reader: &mut ModelReader, step: &Step, last: RangeInclusive<Seq>) {
        let ModelReader { options, cursor, remaining, untold } = reader;
        let mut gap_of_streams = None;
        if *remaining > 0 && *cursor < options.through.unwrap_or(Seq::MAX) && *cursor >= self.trimmed {
            let asked = Selection { types: Vec::new(), ..options.selection.clone() };
            let mut lost = std::mem::take(untold);
            lost.retain(|name, lost| {
                let mut event = Content::new(name.clone());
                event.r#type = EventType::message();
                let event = Event { seq: 1, created_at: Timestamp::EPOCH, content: event };
                *lost > *cursor && is_wanted(&event, &asked)
            });
            let streams = lost.keys().map(StreamName::to_string).collect();
            gap_of_streams = lost.values().max().map(|to| Gap { from: *cursor + 1, to: *to, streams });
        }
        let through = options.through.unwrap_or(Seq::MAX);
        match step {
            _ if *remaining == 0 || *cursor >= through => assert_eq!(*step, Step::End),
            Step::End => panic!("{reader:?} ended"),
            _ if *cursor < self.trimmed => {
                let (from, streams) = (*cursor + 1, Vec::new());
                assert_eq!(*step, Step::Gap(Gap { from, to: self.trimmed, streams }));
                *cursor = self.trimmed;
            }
            _ if gap_of_streams.is_some() => assert_eq!(Some(step), gap_of_streams.map(Step::Gap).as_ref()),
            Step::Gap(gap) => panic!("{gap:?} told to {reader:?}, trimmed is only {}", self.trimmed),
            Step::CaughtUp => assert!(*cursor >= through.min(*last.start()), "{reader:?} gets nothing more"),
            Step::Page(page) => {
                assert!(page.cursor > *cursor, "{reader:?} got {page:?}");
                assert!(page.cursor <= through.min(*last.end()), "{reader:?} got {page:?}");
                let events = &self.events[*cursor as usize..page.cursor as usize];
                let events: Vec<_> = events.iter().filter(|event| self.is_retained(event)).cloned().collect();
                check_page(page, &events, options);
                assert!(page.events as u64 <= *remaining, "{reader:?} got {page:?}");
                *remaining -= page.events as u64;
                *cursor = page.cursor;
            }
        }
    }

    /// Compares every table with what it should hold.
    pub(crate) async fn check_table(&self, connection: &mut SqliteConnection) {
        assert_eq!(stored(connection).await, self.retained());
        let ids: Vec<(String, String, String, i64)> =
            sqlx::query_as("SELECT id, stream, source, seq FROM ids ORDER BY seq")
                .fetch_all(&mut *connection)
                .await
                .expect("the table is readable");
        let of = |event: &Event| key(&event.content).map(|key| (key.0, key.1, key.2, event.seq as i64));
        assert_eq!(ids, self.events.iter().filter_map(of).collect::<Vec<_>>());
        let streams: Vec<(String, i64, i64, i64, i64)> =
            sqlx::query_as("SELECT name, first_seq, last_seq, events, bytes FROM streams ORDER BY name")
                .fetch_all(&mut *connection)
                .await
                .expect("the table is readable");
        assert_eq!(streams, self.streams());
        let trimmed: i64 = sqlx::query_scalar("SELECT trimmed_seq FROM meta")
            .fetch_one(connection)
            .await
            .expect("the table is readable");
        assert_eq!(trimmed, self.trimmed as i64);
    }

    fn streams(&self) -> Vec<(String, i64, i64, i64, i64)> {
        let mut streams: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for event in &self.events {
            streams.entry(event.content.stream.as_str()).or_default().push(event);
        }
        let row = |(name, events): (&str, Vec<&Event>)| {
            let last_seq = events.last().map_or(0, |event| event.seq);
            let retained: Vec<_> = events.iter().filter(|event| self.is_retained(event)).collect();
            let first_seq = retained.first().map_or(last_seq + 1, |event| event.seq);
            let bytes: usize =
                retained.iter().filter_map(|event| event.content.data.as_deref()).map(str::len).sum();
            (name.to_owned(), first_seq as i64, last_seq as i64, retained.len() as i64, bytes as i64)
        };
        streams.into_iter().map(row).collect()
    }
}

/// What a reader should be at.
#[derive(Clone, Debug)]
pub(crate) struct ModelReader {
    pub(crate) options: ReaderOptions,
    pub(crate) cursor: Seq,
    pub(crate) remaining: u64,
    /// What single streams have lost since it was told of it.
    pub(crate) untold: BTreeMap<StreamName, Seq>,
}

/// Compares a page with the events that it stands for: those up to its cursor.
pub(crate) fn check_page(page: &Page, events: &[Event], options: &ReaderOptions) {
    let wanted: Vec<String> = events
        .iter()
        .filter(|event| is_wanted(event, &options.selection))
        .map(|event| frame(event, options.format))
        .collect();
    let text = std::str::from_utf8(&page.bytes).expect("frames are text");
    assert_eq!(text, wanted.concat());
    assert_eq!(page.events, wanted.len());
    let before_last = text.len() - wanted.last().map_or(0, String::len);
    assert!(wanted.is_empty() || before_last < options.page_bytes_max, "{} bytes: {options:?}", text.len());
}

fn key(content: &Content) -> Option<Key> {
    let id = content.id.as_deref()?;
    Some((id.to_owned(), content.stream.to_string(), content.source.to_string()))
}

/// The documented meaning of a selection, over the patterns as they are written.
fn is_wanted(event: &Event, selection: &Selection) -> bool {
    use evertail::event::Pattern;
    let any = |patterns: &[Pattern], name: &str| {
        let is_meant = |pattern: &Pattern| match pattern {
            Pattern::Exact(exact) => name == exact,
            Pattern::Prefix(prefix) => name.strip_prefix(prefix.as_str()).is_some(),
        };
        patterns.is_empty() || patterns.iter().any(is_meant)
    };
    any(&selection.streams, event.content.stream.as_str())
        && any(&selection.types, event.content.r#type.as_str())
}

/// An event in a format, from the documentation.
fn frame(event: &Event, format: Format) -> String {
    let line = line(event);
    let r#type = event.content.r#type.as_str();
    match format {
        Format::Lines => line,
        // The end of a stream keeps its name.
        Format::Sse { as_message }
            if r#type == "evertail.closed" || (!as_message && r#type != EventType::MESSAGE) =>
        {
            format!("event: {type}\ndata: {line}id: {}\n\n", event.seq)
        }
        Format::Sse { .. } => format!("data: {line}id: {}\n\n", event.seq),
        Format::SseData { .. }
        | Format::SseCloudEvents { .. }
        | Format::CloudEventLines
        | Format::CloudEventItems => unreachable!("what is written anew is tested with the frames"),
    }
}

/// Whether one repeats the other: everything but the span that it was made in.
fn is_same(one: &Content, other: &Content) -> bool {
    let bare = |content: &Content| Content { traceparent: None, ..content.clone() };
    bare(one) == bare(other)
}

/// An event in a few strokes: few streams, ids and shapes, so that they meet.
#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    pub(crate) stream: usize,
    pub(crate) source: usize,
    /// Id, and which of the contents it is given with.
    pub(crate) id: Option<(u8, u8)>,
    pub(crate) r#type: usize,
    pub(crate) data: usize,
    pub(crate) traceparent: usize,
}

pub(crate) const STREAMS: [&str; 4] = ["a", "a.b", "a.b.c", "orders.eu-1"];
pub(crate) const SPANS: [Option<&str>; 3] = [
    None,
    Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    Some("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00"),
];
const SOURCES: [&str; 2] = ["", "/else \"where\""];
pub(crate) const TYPES: [&str; 4] = ["message", "user", "user.login", "ü.\u{2028} x"];
const DATA: [Option<&str>; 6] = [
    None,
    Some("1"),
    Some("{\"b\":1.50,\"a\":[1e2,null],\"\\u0061\":\"\\\"\"}"),
    Some("\"one\\ntwo\\r\\u0000\""),
    Some("\"\""),
    Some("\"😀 ü \u{2028}\""),
];

impl Sketch {
    pub(crate) fn content(&self) -> Content {
        let mut content = Content::new(stream(STREAMS[self.stream]));
        content.source = Arc::from(SOURCES[self.source]);
        content.traceparent = SPANS[self.traceparent].map(Arc::from);
        if let Some((id, variant)) = self.id {
            content.id = Some(Arc::from(format!("id\u{fc}-{id}")));
            content.data = Some(Arc::from(format!("{}", id / 2)));
            match variant {
                0 => {}
                1 => content.data = Some(Arc::from("\"other\"")),
                2 => content.subject = Some(Arc::from("other")),
                3 => content.time = Some(Arc::from("2026-11-21T09:00:00.5+01:00")),
                _ => content.r#type = crate::fixture::event_type("other"),
            }
            return content;
        }
        content.r#type = crate::fixture::event_type(TYPES[self.r#type]);
        content.data = match DATA.get(self.data) {
            Some(data) => data.map(Arc::from),
            // Larger than the smaller pages and windows.
            None => Some(Arc::from(format!("\"{}\"", "x".repeat(self.data * 100)))),
        };
        content
    }
}
