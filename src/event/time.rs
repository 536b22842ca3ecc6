//! The receipt time of an event, as it stands in the table: RFC 3339, UTC, microseconds, fixed width.
//!
//! Layer L0. Fixed width makes text order the order of time, in SQL as here.

use chrono::{DateTime, Datelike, Timelike, Utc};
use std::fmt;

/// A point in time. *Units*: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

/// 9999-12-31T23:59:59.999999Z: the last time with a year of four digits, which the fixed width needs.
const MICROSECONDS_MAX: i64 = 253_402_300_799_999_999;

/// A time as it is shown, all zero.
const FORM: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The wall clock, which may step back; the writer clamps it.
    pub fn now() -> Self {
        Self::from_microseconds(Utc::now().timestamp_micros())
    }

    /// *Bounds*: clamped to the years 1970 to 9999.
    pub fn from_microseconds(microseconds: i64) -> Self {
        Self(microseconds.clamp(0, MICROSECONDS_MAX))
    }

    /// Microseconds since 1970.
    pub fn microseconds(self) -> i64 {
        self.0
    }

    /// Any RFC 3339 time, of any zone and precision.
    pub fn parse(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok().map(|t| Self::from_microseconds(t.timestamp_micros()))
    }

    /// Whether a text is a time exactly as [`Timestamp`] shows it, found without making one of it.
    pub fn is_canonical(text: &str) -> bool {
        let Ok(bytes) = <&[u8; 27]>::try_from(text.as_bytes()) else { return false };
        let has_form = bytes.iter().zip(FORM).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == form,
        });
        let two = |at: usize| (bytes[at] - b'0') * 10 + bytes[at + 1] - b'0';
        // The last days of a month and the years before 1970 are rare enough to be parsed.
        let is_common = |year: &str| {
            year >= "1970"
                && (1..=12).contains(&two(5))
                && (1..=28).contains(&two(8))
                && two(11) < 24
                && two(14) < 60
                && two(17) < 60
        };
        has_form && (is_common(&text[..4]) || Self::parse(text).is_some_and(|time| time.to_string() == text))
    }

    /// This much earlier, not before 1970.
    pub fn minus(self, duration: std::time::Duration) -> Self {
        let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_microseconds(self.0.saturating_sub(microseconds))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Digit by digit: it stands in every receipt, and a formatter costs as much as parsing the request.
        let time = DateTime::from_timestamp_micros(self.0).expect("clamped to four-digit years");
        let mut text = *FORM;
        let numbers = [
            (0..4, time.year() as u32),
            (5..7, time.month()),
            (8..10, time.day()),
            (11..13, time.hour()),
            (14..16, time.minute()),
            (17..19, time.second()),
            (20..26, time.timestamp_subsec_micros()),
        ];
        for (digits, mut number) in numbers {
            for digit in text[digits].iter_mut().rev() {
                *digit += (number % 10) as u8;
                number /= 10;
            }
        }
        f.write_str(std::str::from_utf8(&text).expect("digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_fixed_width_and_parses_back() {
        for microseconds in [0, 1, 1_700_000_000_000_000, MICROSECONDS_MAX, -5, i64::MAX] {
            let time = Timestamp::from_microseconds(microseconds);
            assert_eq!(time.to_string().len(), 27);
            assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }
        for (text, is_canonical) in [
            ("2026-11-21T09:00:00.500000Z", true),
            ("2028-02-29T23:59:59.999999Z", true),
            ("2026-02-29T23:59:59.999999Z", false),
            ("1969-12-31T23:59:59.999999Z", false),
            ("2026-11-21T09:00:60.000000Z", false),
            ("2026-13-21T09:00:00.000000Z", false),
            ("2026-11-00T09:00:00.000000Z", false),
            ("2026-11-21t09:00:00.000000Z", false),
            ("2026-11-21T09:00:00.00+00:0", false),
            ("2026-11-21T09:00:00.00\u{e4}000Z", false),
            ("2026-11-21T09:00:00.50000Z", false),
            ("", false),
        ] {
            assert_eq!(Timestamp::is_canonical(text), is_canonical, "{text}");
        }
        assert_eq!(
            Timestamp::parse("2026-11-21T10:00:00.5+01:00").unwrap().to_string(),
            "2026-11-21T09:00:00.500000Z"
        );
    }
}
