//! The Server-Sent Events codec: [`put_block`] writes the portable dialect, [`Parser`] reads any stream.
//!
//! Layer L0, pure values: may import std, memchr and `thiserror`; must never know about sockets, tokio, axum, serde,
//! or what an event of the log is. The server encodes, the client parses, and tests hold the two against each
//! other.
//!
//! # The dialect
//!
//! A stream is UTF-8 without a BOM: blocks, with comment lines allowed between them. A block is one event:
//!
//! ```text
//! retry: 3000            at most once, and by agreement only in a stream's first block
//! event: user.login      left out for a plain message
//! data: first line       one for each line of the data, and at least one of them not empty
//! data: second line
//! id: 42                 always the last field
//!                        the blank line ends the block
//! ```
//!
//! | rule | reason |
//! |---|---|
//! | LF only | CR and CRLF are allowed too, but a client that splits at LF alone keeps each CR as data |
//! | `id` last | some clients dispatch a torn block; this way the data is whole before the cursor moves |
//! | no CR, LF or NUL in `event` | a line end there would forge fields, a NUL ends a string in C |
//! | no data that is all empty | three clients fire an event for it that user code then fails to parse |
//! | keep-alive without a blank line | a blank line ends a block, and the same clients fire an empty event |
//!
//! An `id` that is itself torn is a smaller number, or empty: even a client that believes it holds no cursor
//! beyond the events it has.
//!
//! # What a crash or a cut leaves
//!
//! Up to the blank line a block has no effect on a client that follows the standard: event, data and id take
//! effect together, and a block without its blank line is discarded. Only `retry` acts as soon as its line is
//! complete.
//!
//! *Source:* WHATWG HTML, sections 9.2.5 and 9.2.6, and the byte streams tried against browsers and packages
//! in the design document, section 6.

mod encode;
mod lines;
mod parse;

pub use encode::{Block, KEEP_ALIVE, put_block, put_line};
pub use parse::{Event, Item, ParseError, Parser};

/// Where the first line of `bytes` ends: the position of its CR or LF.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr2(b'\n', b'\r', bytes)
}

/// Whether this byte ends a line. In UTF-8 neither byte occurs inside another character.
fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

#[cfg(test)]
mod tests {
    use super::line_end;

    #[test]
    fn line_end_is_found_at_every_position_around_a_step() {
        for length in 0..100 {
            let mut line = vec![b'x'; length];
            assert_eq!(line_end(&line), None);
            for end in [b'\n', b'\r'] {
                line.truncate(length);
                line.extend([end, b'y', b'\n']);
                assert_eq!(line_end(&line), Some(length));
            }
        }
    }
}
