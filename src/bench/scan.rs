//! Finds events in what was read, fast enough that the scan is not what is measured: one search for each event.
//!
//! All take bytes as they come, cut anywhere; what a cut tears apart is kept until the rest is there.

use super::mark::{MARK_BYTES, Mark, SIGN};
use memchr::memmem::Finder;

/// Finds the marks of events, wherever they are.
#[derive(Debug, Default)]
pub struct MarkScanner {
    /// The beginning of a mark at the end of what came before.
    torn: Vec<u8>,
}

impl MarkScanner {
    /// Gives each mark of the bytes to `found`.
    pub fn push(&mut self, mut bytes: &[u8], mut found: impl FnMut(Mark)) {
        if !self.torn.is_empty() {
            let missing = MARK_BYTES - self.torn.len();
            let taken = missing.min(bytes.len());
            self.torn.extend_from_slice(&bytes[..taken]);
            if self.torn.len() < MARK_BYTES {
                return;
            }
            match Mark::read(&self.torn) {
                Some(mark) => {
                    found(mark);
                    bytes = &bytes[taken..];
                    self.torn.clear();
                }
                // What looked like a mark was none; a real one may begin within it.
                None => {
                    let rest = self.torn.split_off(1);
                    self.torn.clear();
                    self.scan(&rest, &mut found);
                    return self.push(&bytes[taken..], found);
                }
            }
        }
        self.scan(bytes, &mut found);
    }

    fn scan(&mut self, bytes: &[u8], found: &mut impl FnMut(Mark)) {
        let mut at = 0;
        while let Some(next) = memchr::memchr(SIGN, &bytes[at..]) {
            at += next;
            let rest = &bytes[at..];
            if rest.len() < MARK_BYTES {
                self.torn.extend_from_slice(rest);
                return;
            }
            match Mark::read(rest) {
                Some(mark) => {
                    found(mark);
                    at += MARK_BYTES;
                }
                None => at += 1,
            }
        }
    }
}

/// Finds numbers that stand between a fixed text and a line end or comma: the ids of SSE frames, the seqs of lines.
#[derive(Debug)]
pub struct NumberScanner {
    finder: Finder<'static>,
    /// The end of what came before: a prefix, or a number, that is not whole.
    torn: Vec<u8>,
}

/// Most bytes of a number and its end.
const NUMBER_BYTES_MAX: usize = 21;

impl NumberScanner {
    /// For `id: 42` in SSE.
    pub fn ids() -> Self {
        Self { finder: Finder::new(b"\nid: "), torn: Vec::new() }
    }

    /// For `{"seq":42,` in NDJSON.
    pub fn seqs() -> Self {
        Self { finder: Finder::new(b"{\"seq\":"), torn: Vec::new() }
    }

    /// Gives each number of the bytes to `found`.
    pub fn push(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        if self.torn.is_empty() {
            let used = self.scan(bytes, &mut found);
            self.torn.extend_from_slice(&bytes[used..]);
            return;
        }
        // What is torn is completed with as little as can complete it.
        let before = self.torn.len();
        let taken = bytes.len().min(self.finder.needle().len() + NUMBER_BYTES_MAX);
        let mut joined = std::mem::take(&mut self.torn);
        joined.extend_from_slice(&bytes[..taken]);
        let used = self.scan(&joined, &mut found);
        if taken == bytes.len() {
            joined.drain(..used);
            self.torn = joined;
        } else {
            // The rest of the bytes begins where the joined part was used up.
            let used = used.max(before) - before;
            let rest = self.scan(&bytes[used..], &mut found) + used;
            self.torn.extend_from_slice(&bytes[rest..]);
        }
    }

    /// How many bytes need not be looked at again.
    fn scan(&self, bytes: &[u8], found: &mut impl FnMut(u64)) -> usize {
        let prefix = self.finder.needle().len();
        let mut at = 0;
        while let Some(next) = self.finder.find(&bytes[at..]) {
            let start = at + next + prefix;
            let mut value = 0_u64;
            let mut end = start;
            loop {
                match bytes.get(end) {
                    Some(digit @ b'0'..=b'9') if end - start < NUMBER_BYTES_MAX => {
                        value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                    }
                    Some(_) => break,
                    None => return at + next,
                }
                end += 1;
            }
            if end > start {
                found(value);
            }
            at = end;
        }
        // The beginning of a prefix may be at the end.
        bytes.len().saturating_sub(prefix - 1).max(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(count: u64) -> (Vec<u8>, Vec<Mark>) {
        let marks: Vec<Mark> =
            (0..count).map(|number| Mark { run: 7, producer: 1, number, sent: number * 3 }).collect();
        let mut bytes = Vec::new();
        for mark in &marks {
            bytes.extend_from_slice(b"data: {\"a\":\"~~\",\"mark\":\"");
            let at = bytes.len();
            bytes.resize(at + MARK_BYTES, 0);
            mark.put(&mut bytes[at..]);
            bytes.extend_from_slice(b"\",\"pad\":\"xxxxxxx\"}\n\n");
        }
        (bytes, marks)
    }

    #[test]
    fn every_mark_is_found_however_the_bytes_are_cut() {
        let (bytes, expected) = marks(50);
        for size in 1..200 {
            let mut scanner = MarkScanner::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                scanner.push(piece, |mark| seen.push(mark));
            }
            assert_eq!(seen, expected, "pieces of {size}");
        }
    }

    #[test]
    fn every_number_is_found_however_the_bytes_are_cut() {
        let expected: Vec<u64> = (0..60).map(|n| n * n * n).collect();
        let frames: String =
            expected.iter().map(|n| format!("data: {{\"seq\":{n},\"x\":\"id: 5\"}}\nid: {n}\n\n")).collect();
        for size in 1..200 {
            for mut scanner in [NumberScanner::ids(), NumberScanner::seqs()] {
                let mut seen = Vec::new();
                for piece in frames.as_bytes().chunks(size) {
                    scanner.push(piece, |number| seen.push(number));
                }
                assert_eq!(seen, expected, "pieces of {size}");
            }
        }
    }
}
