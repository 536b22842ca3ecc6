//! An open event stream. Every byte of every stream in these tests is held against the portable dialect.

use crate::server::within;
use evertail::sse::{Event, Item, Parser};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

pub(crate) struct Stream {
    response: Response,
    parser: Parser,
    /// Everything so far.
    pub(crate) bytes: Vec<u8>,
    has_ended: bool,
}

impl Stream {
    pub(crate) async fn open(request: RequestBuilder) -> Self {
        let response = within("the stream opens", request.send()).await.unwrap();
        if response.status() != 200 {
            panic!("no stream: {} {}", response.status(), response.text().await.unwrap());
        }
        for (name, expected) in [
            ("content-type", "text/event-stream; charset=utf-8"),
            ("cache-control", "no-cache, no-transform"),
            ("x-accel-buffering", "no"),
        ] {
            let values: Vec<_> = response.headers().get_all(name).iter().collect();
            assert_eq!(values, [expected], "{name}");
        }
        assert!(response.headers().get("content-encoding").is_none());
        Self { response, parser: Parser::new(64 << 20), bytes: Vec::new(), has_ended: false }
    }

    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.response.headers().contains_key(name)
    }

    /// The next item; `None` once the server has ended the stream in an orderly way.
    pub(crate) async fn item(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.parser.next() {
                return Some(item.unwrap());
            }
            match within("the next frame", self.response.chunk()).await.unwrap() {
                Some(chunk) => {
                    self.bytes.extend_from_slice(&chunk);
                    self.parser.push(&chunk);
                }
                None => {
                    self.has_ended = true;
                    return None;
                }
            }
        }
    }

    /// The next event or control frame.
    pub(crate) async fn event(&mut self) -> Event {
        self.event_or_end().await.expect("the stream has ended")
    }

    pub(crate) async fn event_or_end(&mut self) -> Option<Event> {
        loop {
            if let Item::Event(event) = self.item().await? {
                return Some(event);
            }
        }
    }

    /// The next frame, which must be this control frame: its data, and the cursor after it.
    pub(crate) async fn control(&mut self, name: &str) -> (Value, String) {
        let event = self.event().await;
        assert_eq!(event.event, name, "{event:?}");
        (serde_json::from_str(&event.data).unwrap(), event.last_event_id)
    }

    /// The next frame, which must hand out a cursor.
    pub(crate) async fn cursor(&mut self) -> u64 {
        self.control("evertail.cursor").await.1.parse().unwrap()
    }

    /// The seqs of the next events, with nothing else between them.
    pub(crate) async fn seqs(&mut self, count: usize) -> Vec<u64> {
        let mut seqs = Vec::with_capacity(count);
        for _ in 0..count {
            let event = self.event().await;
            assert!(!event.event.starts_with("evertail."), "{event:?}");
            seqs.push(event.last_event_id.parse().unwrap());
        }
        seqs
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.event_or_end().await {
            events.push(event);
        }
        events
    }

    /// The next keep-alive, with nothing before it.
    pub(crate) async fn keep_alive(&mut self) {
        assert_eq!(self.item().await, Some(Item::Comment));
    }

    /// The blocks so far.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        blocks(&self.bytes, self.has_ended)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.blocks();
        }
    }
}

/// One block, literally.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Block {
    pub(crate) retry: Option<u64>,
    pub(crate) event: Option<String>,
    pub(crate) data: Vec<String>,
    pub(crate) id: Option<u64>,
    /// Keep-alives between the block before and this one.
    pub(crate) keep_alives: usize,
}

/// Reads a stream by the portable dialect of section 6 alone, which is far narrower than the standard, and panics where
/// a byte does not belong to it.
#[track_caller]
pub(crate) fn blocks(bytes: &[u8], is_whole: bool) -> Vec<Block> {
    assert!(!bytes.contains(&b'\r'), "a CR");
    // What came so far may end within a block; a stream that the server ended may not.
    let mut end = bytes.windows(2).rposition(|two| two == b"\n\n").map_or(0, |at| at + 2);
    while bytes[end..].starts_with(b":\n") {
        end += 2;
    }
    assert!(
        !is_whole || end == bytes.len(),
        "the end is within a block: {:?}",
        String::from_utf8_lossy(bytes)
    );
    let text = std::str::from_utf8(&bytes[..end]).expect("streams are UTF-8");
    assert!(!text.starts_with('\u{FEFF}'), "a byte order mark");
    let mut blocks: Vec<Block> = Vec::new();
    let mut block = Block::default();
    let mut previous = "";
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        if text.is_empty() {
            break;
        }
        let context = format!("line {line:?} in {block:?} after {} blocks", blocks.len());
        match line.split_once(": ") {
            None if line == ":" => {
                assert!(previous.is_empty(), "a comment within a block: {context}");
                block.keep_alives += 1;
                continue;
            }
            None if line.is_empty() => {
                assert!(!block.data.iter().all(String::is_empty), "a block without data: {context}");
                assert!(block.retry.is_none() || blocks.is_empty(), "retry in a later block: {context}");
                check_control(&block);
                blocks.push(std::mem::take(&mut block));
            }
            Some(("retry", digits)) => {
                assert!(previous.is_empty() && blocks.is_empty(), "{context}");
                block.retry = Some(digits.parse().expect(&context));
            }
            Some(("event", name)) => {
                assert!(
                    matches!(previous, "" | "retry") && !name.is_empty() && name != "message",
                    "{context}"
                );
                block.event = Some(name.to_owned());
            }
            Some(("data", data)) => {
                assert!(previous != "id", "{context}");
                block.data.push(data.to_owned());
            }
            Some(("id", digits)) => {
                assert!(previous == "data", "{context}");
                block.id = Some(digits.parse().expect(&context));
            }
            _ => panic!("not of the dialect: {context}"),
        }
        previous = line.split_once(": ").map_or("", |(name, _)| name);
    }
    if let Some(first) = blocks.first() {
        assert!(first.retry.is_some(), "the first block has no retry");
    }
    blocks
}

fn check_control(block: &Block) {
    match block.event.as_deref() {
        // The end of a stream and what the server tells of itself are events of the log, with an id.
        Some(
            "evertail.cursor" | "evertail.closed" | "evertail.trimmed" | "evertail.held"
            | "evertail.released",
        ) => assert!(block.id.is_some(), "{block:?}"),
        Some("evertail.gap" | "evertail.reset") => assert_eq!(block.id, None, "{block:?}"),
        // As a first block it repeats the cursor of whoever came with one.
        Some("evertail.notice") => assert!(block.id.is_none() || block.retry.is_some(), "{block:?}"),
        Some(name) if name.starts_with("evertail.") => panic!("unknown: {block:?}"),
        _ => assert!(block.id.is_some(), "an event without id: {block:?}"),
    }
}
