//! The encoder: one block of the portable dialect, appended to a byte buffer.
//!
//! May import std and its parent module; must never know who sends the bytes or what the data means.
//! It is total: there is no input for which it fails, panics, or writes anything but one event.

use super::line_end;

/// A comment line: a sign of life that is no event.
///
/// It has no blank line after it. A blank line ends a block, and clients that do not follow the standard then
/// fire an event without data. It goes between blocks, never into one.
pub const KEEP_ALIVE: &[u8] = b":\n";

/// What a block's field names, spaces, line ends and numbers take, for data of one line.
const FRAMING_BYTES_MAX: usize = "retry: \nevent: \ndata: \nid: \n\n".len() + 2 * DIGITS_MAX;

/// The decimal digits of [`u64::MAX`].
const DIGITS_MAX: usize = 20;

/// One event as it goes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block<'a> {
    /// How long a client is to wait before it reconnects.
    ///
    /// *Units:* milliseconds. *Source:* the dialect has it in a stream's first block only; the caller sees to
    /// that.
    pub retry_milliseconds: Option<u64>,
    /// The event type; none, like an empty one, makes a plain `message`.
    ///
    /// CR, LF and NUL become U+FFFD, as the format has no way to write a line end here.
    pub event: Option<&'a str>,
    /// The payload. CR, LF and CRLF each end a line, and a reader gets LF for all three.
    ///
    /// Data of nothing but line ends, or of nothing at all, is sent as a JSON string (`""`, `"\n"`).
    pub data: &'a str,
    /// The cursor a client holds once it has this event; none leaves the cursor where it is.
    pub id: Option<u64>,
}

/// Appends `block` to `out`, so that any conforming reader reads exactly one event.
///
/// It allocates nothing but the growth of `out`, and leaves what `out` already holds alone.
pub fn put_block(out: &mut Vec<u8>, block: &Block<'_>) {
    let event = block.event.unwrap_or_default();
    out.reserve(FRAMING_BYTES_MAX + event.len() + block.data.len());
    if let Some(milliseconds) = block.retry_milliseconds {
        put_number(out, b"retry: ", milliseconds);
    }
    if !event.is_empty() {
        put_event(out, event);
    }
    if block.data.bytes().all(super::is_line_end) {
        put_line_ends_as_json(out, block.data);
    } else {
        put_data(out, block.data.as_bytes());
    }
    if let Some(id) = block.id {
        put_number(out, b"id: ", id);
    }
    out.push(b'\n');
}

/// Appends a block whose data is one line that `put` writes, for callers who know that it is one and not empty.
///
/// The bytes are those of [`put_block`], without a second look at the data.
pub fn put_line(out: &mut Vec<u8>, event: Option<&str>, id: u64, put: impl FnOnce(&mut Vec<u8>)) {
    if let Some(event) = event.filter(|event| !event.is_empty()) {
        put_event(out, event);
    }
    out.extend_from_slice(b"data: ");
    let start = out.len();
    put(out);
    debug_assert!(out.len() > start && line_end(&out[start..]).is_none(), "the data is one line");
    out.push(b'\n');
    put_number(out, b"id: ", id);
    out.push(b'\n');
}

fn put_event(out: &mut Vec<u8>, event: &str) {
    out.extend_from_slice(b"event: ");
    for (index, part) in event.split(['\r', '\n', '\0']).enumerate() {
        if index > 0 {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'\n');
}

/// One `data` line for each line of `data`. NUL passes: the standard gives it no meaning here.
fn put_data(out: &mut Vec<u8>, mut data: &[u8]) {
    while let Some(end) = line_end(data) {
        put_data_line(out, &data[..end]);
        let line_end_bytes = if data[end..].starts_with(b"\r\n") { 2 } else { 1 };
        data = &data[end + line_end_bytes..];
    }
    put_data_line(out, data);
}

fn put_data_line(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(line);
    out.push(b'\n');
}

fn put_line_ends_as_json(out: &mut Vec<u8>, line_ends: &str) {
    out.extend_from_slice(b"data: \"");
    for byte in line_ends.bytes() {
        out.extend_from_slice(if byte == b'\r' { br"\r" } else { br"\n" });
    }
    out.extend_from_slice(b"\"\n");
}

fn put_number(out: &mut Vec<u8>, field: &[u8], mut number: u64) {
    let mut digits = [b'0'; DIGITS_MAX];
    let mut first = DIGITS_MAX - 1;
    while number >= 10 {
        digits[first] += (number % 10) as u8;
        number /= 10;
        first -= 1;
    }
    digits[first] += number as u8;
    out.extend_from_slice(field);
    out.extend_from_slice(&digits[first..]);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(block: Block<'_>) -> String {
        let mut out = Vec::new();
        put_block(&mut out, &block);
        String::from_utf8(out).expect("blocks are UTF-8")
    }

    fn encoded_data(data: &str) -> String {
        encoded(Block { data, ..Block::default() })
    }

    fn encoded_event(event: &str) -> String {
        encoded(Block { event: Some(event), data: "x", ..Block::default() })
    }

    #[test]
    fn id_is_the_last_field() {
        let block =
            Block { retry_milliseconds: Some(3000), event: Some("user.login"), data: "{}", id: Some(42) };
        assert_eq!(encoded(block), "retry: 3000\nevent: user.login\ndata: {}\nid: 42\n\n");
    }

    #[test]
    fn absent_fields_write_nothing() {
        assert_eq!(encoded_data("x"), "data: x\n\n");
    }

    #[test]
    fn block_is_appended_to_what_is_there() {
        let mut out = KEEP_ALIVE.to_vec();
        put_block(&mut out, &Block { data: "x", ..Block::default() });
        assert_eq!(out, b":\ndata: x\n\n");
    }

    #[test]
    fn every_kind_of_line_end_makes_a_data_line() {
        assert_eq!(
            encoded_data("a\r\nb\rc\nd\n\re"),
            "data: a\ndata: b\ndata: c\ndata: d\ndata: \ndata: e\n\n"
        );
    }

    #[test]
    fn line_end_at_either_end_of_the_data_is_kept() {
        assert_eq!(encoded_data("\na\r\n"), "data: \ndata: a\ndata: \n\n");
    }

    #[test]
    fn leading_space_of_the_data_is_kept() {
        assert_eq!(encoded_data(" x"), "data:  x\n\n");
    }

    #[test]
    fn data_of_nothing_but_line_ends_becomes_a_json_string() {
        assert_eq!(encoded_data(""), "data: \"\"\n\n");
        assert_eq!(encoded_data("\n"), "data: \"\\n\"\n\n");
        assert_eq!(encoded_data("\r\n\r"), "data: \"\\r\\n\\r\"\n\n");
    }

    #[test]
    fn event_cannot_forge_a_field() {
        assert_eq!(
            encoded_event("a\nid: 9\r\n\0b"),
            "event: a\u{FFFD}id: 9\u{FFFD}\u{FFFD}\u{FFFD}b\ndata: x\n\n"
        );
    }

    #[test]
    fn empty_event_is_left_out() {
        assert_eq!(encoded_event(""), "data: x\n\n");
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 1, 9, 10, 99, 100, u64::MAX - 1, u64::MAX] {
            let block = Block { data: "x", id: Some(number), ..Block::default() };
            assert_eq!(encoded(block), format!("data: x\nid: {number}\n\n"));
        }
    }

    #[test]
    fn framing_bound_covers_the_largest_framing() {
        let block =
            Block { retry_milliseconds: Some(u64::MAX), event: Some("e"), data: "d", id: Some(u64::MAX) };
        assert_eq!(encoded(block).len(), FRAMING_BYTES_MAX + 2);
    }
}
