//! Where text goes: data to stdout, words for people to stderr.

use std::io::{self, IsTerminal, Write};

/// One sentence for people, on stderr.
pub(super) fn complain(message: &str) {
    // Nowhere is left to say that stderr is gone.
    let _ = writeln!(io::stderr().lock(), "evertail: {message}");
}

/// One line of data, on stdout, sent off at once.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Whether a person reads stdout.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Text that came over the wire, harmless on a terminal: nothing in it can move the cursor or reorder the line.
pub(super) fn printable(text: &str) -> String {
    let is_harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_harmful(c) { '\u{FFFD}' } else { c }).collect()
}

/// A number of bytes in the largest binary unit of which there is one.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_told_in_binary_units() {
        let told = [0, 1, 1023, 1024, 1536, 1 << 20, 5 << 30, 3 << 40].map(super::bytes);
        let expected =
            ["0 bytes", "1 byte", "1023 bytes", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB", "3.0 TiB"];
        assert_eq!(told, expected);
    }

    #[test]
    fn text_from_the_wire_cannot_steer_a_terminal() {
        assert_eq!(
            super::printable("a\u{1b}[31m\u{9b}b\u{202e}c\n"),
            "a\u{FFFD}[31m\u{FFFD}b\u{FFFD}c\u{FFFD}"
        );
        assert_eq!(super::printable("ä {\"x\":1}"), "ä {\"x\":1}");
    }
}
