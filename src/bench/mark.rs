//! The mark: what an event of a run carries so that a reader can tell it apart, wherever it is in what was read.
//!
//! Layout, 39 bytes, lower-case hexadecimal after the first:
//! ```text
//! ~ RRRRRRRR PPPP NNNNNNNNNN TTTTTTTTTTTTTTTT      without the spaces
//!   run      producer        time of sending, ns of `now`
//!                 number, from 0 for each producer
//! ```
//! Fixed width, so that it is patched in place and needs no parser. `~` occurs in nothing else that is sent.

use std::sync::LazyLock;
use std::time::Instant;

/// Bytes of a mark.
pub const MARK_BYTES: usize = 39;

/// What stands in front of every mark.
pub const SIGN: u8 = b'~';

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since this process first asked. Steady, and the same for producers and readers of one process.
pub fn now() -> u64 {
    u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Which event it is, and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The run it belongs to: what other runs left in the log is not counted.
    pub run: u32,
    /// Who sent it.
    pub producer: u16,
    /// Its place among the events of its producer, from 0.
    pub number: u64,
    /// When it was sent, or should have been. *Units*: nanoseconds of [`now`].
    pub sent: u64,
}

impl Mark {
    /// Writes the mark over the first [`MARK_BYTES`] bytes.
    pub fn put(&self, out: &mut [u8]) {
        out[0] = SIGN;
        put_hex(&mut out[1..9], u64::from(self.run));
        put_hex(&mut out[9..13], u64::from(self.producer));
        put_hex(&mut out[13..23], self.number);
        put_hex(&mut out[23..39], self.sent);
    }

    /// Reads a mark from the first [`MARK_BYTES`] bytes; `None` when they are something else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.get(1..MARK_BYTES).filter(|_| bytes[0] == SIGN)?;
        let [run, producer, number, sent] =
            [(0, 8), (8, 12), (12, 22), (22, 38)].map(|(from, to)| hex(&digits[from..to]));
        Some(Self { run: run? as u32, producer: producer? as u16, number: number?, sent: sent? })
    }
}

fn put_hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// What each byte is worth as a digit; 0xff for what is none.
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

fn hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut wrong = 0;
    for digit in digits {
        let digit = DIGITS[usize::from(*digit)];
        wrong |= digit;
        value = value << 4 | u64::from(digit & 15);
    }
    (wrong < 16).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark { run: 0xdead_beef, producer: 255, number: 1 << 39, sent: u64::MAX };
        let mut bytes = [0; MARK_BYTES];
        mark.put(&mut bytes);
        assert_eq!(Mark::read(&bytes), Some(mark));
        assert_eq!(Mark::read(&bytes[..38]), None);
        bytes[20] = b'g';
        assert_eq!(Mark::read(&bytes), None);
    }
}
