//! Bytes of an event stream in, in chunks of any size; lines out. The parser's first step.
//!
//! May import its parent module only. Lines are cut before they are decoded: no byte below 0x80 is ever part of a
//! longer UTF-8 sequence, valid or not, so the result is that of decoding first.

use super::line_end;

/// What the UTF-8 decode algorithm takes off the start of a stream, once.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Cuts bytes into lines. What a line means is not its concern, but for one thing: it does not keep comments.
#[derive(Debug)]
pub(super) struct Lines {
    /// Pushed bytes; those before `line_start` are done with and wait to be cut off.
    input: Vec<u8>,
    line_start: usize,
    /// No line ends between `line_start` and here, so that a line that comes in many chunks is searched once.
    searched: usize,
    /// Nothing was read yet, so a byte order mark may follow.
    is_at_start: bool,
    /// The last line ended with CR, so an LF that follows belongs to it.
    is_after_cr: bool,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { input: Vec::new(), line_start: 0, searched: 0, is_at_start: true, is_after_cr: false }
    }

    /// Moves what is left to the front only when at least as much is done with, which keeps pushing linear.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        if self.line_start >= self.input.len() - self.line_start {
            self.input.drain(..self.line_start);
            self.searched -= self.line_start;
            self.line_start = 0;
        }
        self.input.extend_from_slice(chunk);
    }

    /// The next complete line, without its line end.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        if self.is_at_start {
            self.skip_byte_order_mark();
        }
        if self.is_after_cr {
            self.skip_line_feed();
        }
        let Some(length) = line_end(&self.input[self.searched..]) else {
            self.searched = self.input.len();
            self.forget_comment();
            return None;
        };
        let start = self.line_start;
        let end = self.searched + length;
        self.is_after_cr = self.input[end] == b'\r';
        self.start_line_at(end + 1);
        Some(&self.input[start..end])
    }

    /// The length of the line whose end has not come yet, as far as it must be kept.
    pub(super) fn open_line_bytes(&self) -> usize {
        let line = &self.input[self.line_start..];
        if self.is_at_start || is_comment(line) { 0 } else { line.len() }
    }

    fn start_line_at(&mut self, position: usize) {
        self.line_start = position;
        self.searched = position;
    }

    fn skip_byte_order_mark(&mut self) {
        if self.input.starts_with(BYTE_ORDER_MARK) {
            self.start_line_at(BYTE_ORDER_MARK.len());
        }
        self.is_at_start =
            self.input.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&self.input);
    }

    fn skip_line_feed(&mut self) {
        if let Some(&byte) = self.input.get(self.line_start) {
            self.is_after_cr = false;
            if byte == b'\n' {
                self.start_line_at(self.line_start + 1);
            }
        }
    }

    /// Drops the text of an open comment and keeps its colon, by which the rest of it is known as a comment.
    fn forget_comment(&mut self) {
        if is_comment(&self.input[self.line_start..]) {
            self.input.truncate(self.line_start + 1);
            self.searched = self.input.len();
        }
    }
}

pub(super) fn is_comment(line: &[u8]) -> bool {
    line.starts_with(b":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_comment_takes_no_memory() {
        let mut lines = Lines::new();
        for _ in 0..10_000 {
            lines.push(b":123456789");
            assert_eq!(lines.next(), None);
        }
        assert!(lines.input.len() < 100);
        lines.push(b"\n");
        assert_eq!(lines.next(), Some(b":".as_slice()));
    }

    #[test]
    fn bytes_already_read_are_cut_off_only_when_they_outweigh_the_rest() {
        let mut lines = Lines::new();
        lines.push("data: a\n\n".repeat(4).as_bytes());
        for (line_start, input_bytes) in [(9, 36), (0, 18)] {
            assert_eq!(lines.next(), Some(b"data: a".as_slice()));
            assert_eq!(lines.next(), Some(b"".as_slice()));
            lines.push(b"");
            assert_eq!((lines.line_start, lines.input.len()), (line_start, input_bytes));
        }
        assert_eq!(std::iter::from_fn(|| lines.next().map(<[u8]>::len)).collect::<Vec<_>>(), [7, 0, 7, 0]);
    }
}
