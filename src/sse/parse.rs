//! The parser: bytes of an event stream in, in chunks of any size; events, comments and retry hints out.
//!
//! May import std, `thiserror` and its parent module; must never know where the bytes come from. It follows
//! WHATWG HTML, section 9.2.6, for any input, not only for what our encoder writes, because a proxy may stand
//! between the two.
//!
//! Three steps, each with its own state: [`Lines`] cuts the bytes into lines, [`OpenBlock`] collects the
//! fields of the block being read, [`Parser`] turns lines into items and holds the bound.

use std::mem;

use super::lines::{Lines, is_comment};

/// The type of an event whose block names none.
const DEFAULT_EVENT: &str = "message";

/// One event, as an `EventSource` would dispatch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event type, `message` unless the block named one.
    pub event: String,
    /// The data lines, joined with LF.
    pub data: String,
    /// The last id the stream has given so far, by this block or an earlier one; empty if none.
    ///
    /// A client that resumes keeps its cursor when this is empty: a fresh parser does not know earlier
    /// connections.
    pub last_event_id: String,
}

/// What a stream says, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A block with data has ended.
    Event(Event),
    /// A comment line has ended: the connection is alive. Its text is not kept.
    Comment,
    /// How long to wait before reconnecting, from now on. It takes effect at once, not with its block.
    ///
    /// *Units:* milliseconds.
    Retry(u64),
}

/// Why a stream cannot be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A block was larger than the parser may hold. Close the connection; asking again will meet the same
    /// block.
    #[error("event in the stream is larger than {bytes_max} bytes")]
    TooLarge {
        /// The bound that was given to [`Parser::new`].
        bytes_max: usize,
    },
}

/// An incremental parser: [`push`](Self::push) bytes, then iterate until `None`, which asks for more bytes.
///
/// The items depend on the bytes alone, never on how they were cut into chunks. A block that is unfinished
/// when the stream ends has no effect: drop the parser. One parser reads one connection.
///
/// *Errors:* the iterator yields a [`ParseError`] once, then only `None`; later bytes are ignored.
///
/// *Bounds:* the lines of one block, comments and line ends not counted, hold at most `event_bytes_max`
/// bytes. Comments of any length take no memory. Bytes pushed and not yet iterated over are held as well, so
/// iterate after each push. Invalid UTF-8 can make the text of an event three times its bytes.
///
/// *Source:* WHATWG HTML, section 9.2.6; where it leaves a number open, a `retry` beyond 64 bits is ignored.
#[derive(Debug)]
pub struct Parser {
    lines: Lines,
    block: OpenBlock,
    /// Bounds what an endless line or block from a broken or hostile server can make a client hold.
    event_bytes_max: usize,
    has_failed: bool,
}

impl Parser {
    /// A parser for the first byte of a stream, which will hold at most `event_bytes_max` bytes of one event.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self { lines: Lines::new(), block: OpenBlock::default(), event_bytes_max, has_failed: false }
    }

    /// Adds the next bytes of the stream. Takes time in proportion to the chunk, amortised, however small the
    /// chunks.
    pub fn push(&mut self, chunk: &[u8]) {
        if !self.has_failed {
            self.lines.push(chunk);
        }
    }

    /// The id of the last complete block that gave one, also of a block without data, which makes no item;
    /// empty if none. What a client sends as `Last-Event-ID`.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.block.last_event_id
    }

    fn fail(&mut self) -> Option<Result<Item, ParseError>> {
        self.has_failed = true;
        self.lines = Lines::new();
        self.block.abandon();
        Some(Err(ParseError::TooLarge { bytes_max: self.event_bytes_max }))
    }
}

impl Iterator for Parser {
    type Item = Result<Item, ParseError>;

    /// The next item, or `None` until more bytes are pushed.
    fn next(&mut self) -> Option<Self::Item> {
        while let Some(line) = self.lines.next() {
            if line.is_empty() {
                if let Some(event) = self.block.close() {
                    return Some(Ok(Item::Event(event)));
                }
                continue;
            }
            if is_comment(line) {
                return Some(Ok(Item::Comment));
            }
            if !self.block.fits(line.len(), self.event_bytes_max) {
                return self.fail();
            }
            if let Some(milliseconds) = self.block.take_field(line) {
                return Some(Ok(Item::Retry(milliseconds)));
            }
        }
        let open_bytes = self.lines.open_line_bytes();
        if self.block.fits(open_bytes, self.event_bytes_max) { None } else { self.fail() }
    }
}

/// The fields of the block being read, and the id that outlives it.
#[derive(Debug, Default)]
struct OpenBlock {
    /// The bytes of the block's lines so far: an upper bound of what the fields below hold.
    line_bytes: usize,
    event: String,
    /// Each data line with an LF after it, not yet decoded.
    data: Vec<u8>,
    /// Given by this block, in force from its blank line on.
    id: Option<String>,
    last_event_id: String,
}

impl OpenBlock {
    fn fits(&self, more_bytes: usize, bytes_max: usize) -> bool {
        self.line_bytes.saturating_add(more_bytes) <= bytes_max
    }

    /// Takes a line that is neither empty nor a comment. Returns the milliseconds if it is a valid `retry`.
    fn take_field(&mut self, line: &[u8]) -> Option<u64> {
        self.line_bytes = self.line_bytes.saturating_add(line.len());
        let (name, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => self.event = decode(value.to_vec()),
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"id" if !value.contains(&0) => self.id = Some(decode(value.to_vec())),
            b"retry" => return retry_milliseconds(value),
            _ => {}
        }
        None
    }

    /// Ends the block: its id comes into force, and its data, if it had any, is the event.
    fn close(&mut self) -> Option<Event> {
        if let Some(id) = self.id.take() {
            self.last_event_id = id;
        }
        self.line_bytes = 0;
        let event = mem::take(&mut self.event);
        let mut data = mem::take(&mut self.data);
        data.pop()?;
        Some(Event {
            event: if event.is_empty() { DEFAULT_EVENT.to_owned() } else { event },
            data: decode(data),
            last_event_id: self.last_event_id.clone(),
        })
    }

    /// Drops the unfinished block and keeps the id of the last complete one.
    fn abandon(&mut self) {
        *self = Self { last_event_id: mem::take(&mut self.last_event_id), ..Self::default() };
    }
}

/// An empty value and one beyond 64 bits are ignored, like one with anything but ASCII digits.
fn retry_milliseconds(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

/// UTF-8 decode without the byte order mark: one U+FFFD for each maximal piece of an invalid sequence.
fn decode(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY_BYTES: usize = 1 << 20;

    fn items_of(parser: &mut Parser, bytes: &[u8]) -> Vec<Result<Item, ParseError>> {
        parser.push(bytes);
        parser.collect()
    }

    /// Parses in one chunk and byte by byte, and insists that both agree.
    fn parsed_within(event_bytes_max: usize, stream: &[u8]) -> Vec<Result<Item, ParseError>> {
        let whole = items_of(&mut Parser::new(event_bytes_max), stream);
        let mut parser = Parser::new(event_bytes_max);
        let bytewise: Vec<_> = stream.chunks(1).flat_map(|byte| items_of(&mut parser, byte)).collect();
        assert_eq!(whole, bytewise);
        whole
    }

    fn parsed(stream: impl AsRef<[u8]>) -> Vec<Item> {
        parsed_within(ROOMY_BYTES, stream.as_ref())
            .into_iter()
            .map(|item| item.expect("the stream is small"))
            .collect()
    }

    fn event(event: &str, data: &str, last_event_id: &str) -> Item {
        Item::Event(Event {
            event: event.to_owned(),
            data: data.to_owned(),
            last_event_id: last_event_id.to_owned(),
        })
    }

    fn message(data: &str) -> Item {
        event("message", data, "")
    }

    #[test]
    fn block_becomes_an_event() {
        assert_eq!(parsed("event: add\ndata: 1\nid: 7\n\n"), [event("add", "1", "7")]);
    }

    #[test]
    fn data_lines_are_joined_with_lf() {
        assert_eq!(parsed("data: YHOO\ndata: +2\ndata: 10\n\n"), [message("YHOO\n+2\n10")]);
    }

    #[test]
    fn cr_lf_and_crlf_all_end_lines() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = "data: a|data: b|id: 1||:|data: c||".replace('|', end);
            assert_eq!(
                parsed(stream),
                [event("message", "a\nb", "1"), Item::Comment, event("message", "c", "1")]
            );
        }
    }

    #[test]
    fn lf_then_cr_is_two_line_ends() {
        assert_eq!(parsed("data: a\n\rdata: b\n\n"), [message("a"), message("b")]);
    }

    #[test]
    fn event_ended_by_cr_does_not_wait_for_lf() {
        let mut parser = Parser::new(ROOMY_BYTES);
        assert_eq!(items_of(&mut parser, b"data: a\r\n\r"), [Ok(message("a"))]);
        assert_eq!(items_of(&mut parser, b"\ndata: b\r\n\r\n"), [Ok(message("b"))]);
    }

    #[test]
    fn only_the_first_byte_order_mark_is_dropped() {
        assert_eq!(parsed("\u{FEFF}data: a\n\n"), [message("a")]);
        assert_eq!(parsed("\u{FEFF}\u{FEFF}data: a\n\ndata: b\n\n"), [message("b")]);
        assert_eq!(parsed("data: a\n\n\u{FEFF}data: b\n\n"), [message("a")]);
        assert_eq!(parsed("data: \u{FEFF}a\n\n"), [message("\u{FEFF}a")]);
    }

    #[test]
    fn piece_of_a_byte_order_mark_is_text() {
        assert_eq!(parsed(b"\xEF\xBBdata: a\n\ndata: b\n\n"), [message("b")]);
        assert_eq!(parsed(b"\xEF\n\ndata: b\n\n"), [message("b")]);
    }

    #[test]
    fn one_leading_space_is_not_part_of_the_value() {
        assert_eq!(
            parsed("data:a\n\ndata: a\n\ndata:  a\n\ndata:\ta\n\n"),
            [message("a"), message("a"), message(" a"), message("\ta")]
        );
    }

    #[test]
    fn field_without_colon_has_an_empty_value() {
        assert_eq!(parsed("data\n\ndata\ndata\n\ndata:test"), [message(""), message("\n")]);
        assert_eq!(
            parsed("id: 1\ndata: a\n\nid\ndata: b\n\n"),
            [event("message", "a", "1"), event("message", "b", "")]
        );
    }

    #[test]
    fn unknown_fields_and_names_of_other_case_are_ignored() {
        assert_eq!(parsed("Data: x\n data: x\ndata : x\nfoo\nfoo: x\ndata: a\n\n"), [message("a")]);
    }

    #[test]
    fn comments_are_reported_and_do_not_end_a_block() {
        assert_eq!(
            parsed(":\n: hi: there\ndata: a\n:\ndata: b\n\n"),
            [Item::Comment, Item::Comment, Item::Comment, message("a\nb")]
        );
    }

    #[test]
    fn id_persists_until_the_stream_gives_another() {
        assert_eq!(
            parsed("id: 1\ndata: a\n\ndata: b\n\nid: 2\nid: 3\ndata: c\n\n"),
            [event("message", "a", "1"), event("message", "b", "1"), event("message", "c", "3")]
        );
    }

    #[test]
    fn id_with_nul_is_ignored() {
        assert_eq!(parsed("id: 1\nid: 2\0\ndata: a\n\n"), [event("message", "a", "1")]);
    }

    #[test]
    fn block_without_data_makes_no_event_but_moves_the_id() {
        let mut parser = Parser::new(ROOMY_BYTES);
        assert_eq!(items_of(&mut parser, b"event: x\nid: 5\n"), []);
        assert_eq!(parser.last_event_id(), "");
        assert_eq!(items_of(&mut parser, b"\n"), []);
        assert_eq!(parser.last_event_id(), "5");
        assert_eq!(items_of(&mut parser, b"data: a\n\n"), [Ok(event("message", "a", "5"))]);
    }

    #[test]
    fn event_type_lasts_for_one_block() {
        assert_eq!(
            parsed("event: a\nevent: b\ndata: 1\n\ndata: 2\n\nevent: c\n\ndata: 3\n\nevent:\ndata: 4\n\n"),
            [event("b", "1", ""), message("2"), message("3"), message("4")]
        );
    }

    #[test]
    fn retry_takes_digits_that_fit_64_bits() {
        let largest = u64::MAX;
        assert_eq!(
            parsed(format!("retry: 0300\nretry:{largest}\n")),
            [Item::Retry(300), Item::Retry(largest)]
        );
        for ignored in
            ["retry", "retry:", "retry: +1", "retry: 1 ", "retry:  1", "retry: 1x", "retry: -1", "retry: ٣"]
        {
            assert_eq!(parsed(format!("{ignored}\n\n")), [], "{ignored}");
        }
        assert_eq!(parsed("retry: 18446744073709551616\n"), []);
    }

    #[test]
    fn invalid_utf8_becomes_replacement_characters() {
        assert_eq!(
            parsed(b"data: \xF0\x9F\x98\x80 \xE2\x82\ndata: \xFFa\xC0\x80\xED\xA0\x80\n\n"),
            [message("\u{1F600} \u{FFFD}\n\u{FFFD}a\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}")]
        );
        assert_eq!(parsed(b"event: \xFF\nid: \xC3\ndata: a\n\n"), [event("\u{FFFD}", "a", "\u{FFFD}")]);
    }

    #[test]
    fn nul_in_data_and_event_passes() {
        assert_eq!(parsed("event: \0\ndata: a\0b\n\n"), [event("\0", "a\0b", "")]);
    }

    #[test]
    fn unfinished_block_is_discarded() {
        let mut parser = Parser::new(ROOMY_BYTES);
        assert_eq!(items_of(&mut parser, b"data: a\nid: 1\n\ndata: b\nid: 2\n").len(), 1);
        assert_eq!(parser.last_event_id(), "1");
    }

    #[test]
    fn event_of_exactly_the_bound_is_read() {
        let stream = b"data: 45\ndata:\n\ndata: 45\ndata:\n\n";
        assert_eq!(parsed_within(13, stream), [Ok(message("45\n")), Ok(message("45\n"))]);
    }

    #[test]
    fn event_beyond_the_bound_is_an_error_and_the_end() {
        let too_large = [Ok(message("a")), Err(ParseError::TooLarge { bytes_max: 12 })];
        assert_eq!(parsed_within(12, b"data: a\n\ndata: 45\ndata:\n\ndata: b\n\n"), too_large);
        assert_eq!(parsed_within(12, b"data: a\n\nan unfinished line"), too_large);
    }

    #[test]
    fn failed_parser_keeps_the_last_id_and_ignores_more_bytes() {
        let mut parser = Parser::new(6);
        assert_eq!(items_of(&mut parser, b"id: 1\n\nid: 234\n\n").len(), 1);
        assert_eq!(items_of(&mut parser, b"\n\nid: 2\n\n"), []);
        assert_eq!(parser.last_event_id(), "1");
    }

    #[test]
    fn comments_count_towards_no_bound() {
        let comment = ": a comment that is longer than the bound\n".repeat(3);
        assert_eq!(parsed_within(3, comment.as_bytes()), [const { Ok(Item::Comment) }; 3]);
        assert_eq!(parsed_within(7, b"data: a\n:\n\n"), [Ok(Item::Comment), Ok(message("a"))]);
    }

    #[test]
    fn long_line_in_one_byte_chunks_is_searched_once() {
        let data = "x".repeat(ROOMY_BYTES / 2);
        assert_eq!(parsed(format!("data: {data}\n\n")), [message(&data)]);
    }
}
