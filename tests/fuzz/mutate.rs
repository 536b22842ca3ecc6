//! A seeded mutator of texts: what is in order, and a few steps beyond it.

use std::ops::Range;

/// SplitMix64: the same requests on every machine, whatever becomes of other generators.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// A short piece of so many bytes.
    fn piece(&mut self, length: usize) -> Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(20) + 1)
    }
}

/// What hurts parsers.
#[rustfmt::skip]
const TOKENS: [&[u8]; 62] = [
    b"{", b"}", b"[", b"]", b",", b":", b"\"", b"\\", b"\\u0000", b"\\ud800", b"\\udc00\\ud800", b"\\u00e9", b"\\x",
    b"null", b"true", b"1e400", b"-", b"-0", b"01", b"1.", b"12345678901234567890", b"1e2", b"NaN", b"Infinity",
    b"\xEF\xBB\xBF", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\0", b"\r", b"\n", b"\r\n", b"\t",
    b"\x7f", b"\xc2\x85", b"\xe2\x80\xa8", b"data", b"id", b"type", b"stream", b"evertail.", b"error", b"events",
    b"\"data\":", b"\"id\":\"1\",", b"{\"data\":1}", b"[[[[[[[[", b"[{},{}]", b"//", b"%", b"%00", b"%ff", b"&", b"=",
    b"+", b"*", b"~0/~1", b"9223372036854775808", b"-1", b"", b"\"\"",
];

/// The text with one to four mistakes in it.
pub(crate) fn mutate(random: &mut Random, text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..1 + random.below(4) {
        let piece = random.piece(text.len());
        match random.below(8) {
            0 if !text.is_empty() => {
                let at = random.below(text.len());
                text[at] = random.next() as u8;
            }
            1..=3 => drop(text.splice(piece.start..piece.start, random.pick(&TOKENS).iter().copied())),
            4 => drop(text.drain(piece)),
            5 => {
                let copy = text[piece.clone()].repeat(1 + random.below(3));
                text.splice(piece.start..piece.start, copy);
            }
            6 => text.truncate(piece.start),
            _ => {
                let token = random.pick(&TOKENS);
                text.splice(piece, token.repeat(1 + random.below(80)));
            }
        }
    }
    text
}
