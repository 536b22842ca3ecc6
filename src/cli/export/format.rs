//! The formats of an export: what is asked for, where its events are, and what stands between them in a file.

use crate::wire::cloud;
use std::borrow::Cow;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Lines,
    Csv,
    CloudEventLines,
    /// One array, an event a line: the next event brings the comma behind the one before it, and the end the bracket.
    CloudEventArray,
}

impl Format {
    /// As it is told, else as the file is called.
    pub(super) fn of(told: Option<&str>, name: &str) -> Self {
        let name = name.strip_suffix(".zst").unwrap_or(name);
        match told {
            Some("csv") => Self::Csv,
            Some("cloudevents") => Self::CloudEventArray,
            Some("cloudevents-lines") => Self::CloudEventLines,
            Some(_) => Self::Lines,
            None if name.ends_with(".csv") => Self::Csv,
            None if name.ends_with(".cloudevents.json") => Self::CloudEventArray,
            None if name.ends_with(".cloudevents.ndjson") => Self::CloudEventLines,
            None => Self::Lines,
        }
    }

    pub(super) fn is_cloud_events(self) -> bool {
        matches!(self, Self::CloudEventLines | Self::CloudEventArray)
    }

    /// Without names of columns where the file has them already.
    pub(super) fn accept(self, is_first: bool) -> &'static str {
        match self {
            Self::Lines | Self::CloudEventLines | Self::CloudEventArray => "application/x-ndjson",
            Self::Csv if is_first => "text/csv",
            Self::Csv => "text/csv; header=absent",
        }
    }

    /// The seq of the event on a line, `None` for the names of the columns.
    pub(super) fn seq(self, line: &[u8]) -> Option<u64> {
        let digits = match self {
            Self::Lines => line.strip_prefix(b"{\"seq\":")?,
            Self::Csv => line,
            Self::CloudEventLines | Self::CloudEventArray => return cloud::seq_of(line),
        };
        let end = digits.iter().position(|byte| *byte == b',' || *byte == b'}')?;
        std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
    }

    /// Whole lines as the server sends them, behind what was written before or at the beginning.
    pub(super) fn encode(self, lines: &[u8], is_first: bool) -> Cow<'_, [u8]> {
        if self != Self::CloudEventArray {
            return Cow::from(lines);
        }
        let mut out = Vec::with_capacity(lines.len() + lines.len() / 64);
        for (index, event) in lines_of(lines).enumerate() {
            out.extend_from_slice(if is_first && index == 0 { b"[\n" } else { b",\n" });
            out.extend_from_slice(event);
        }
        Cow::from(out)
    }

    /// What stands behind the last event.
    pub(super) fn ending(self, is_empty: bool) -> &'static [u8] {
        match (self, is_empty) {
            (Self::CloudEventArray, true) => b"[]\n",
            (Self::CloudEventArray, false) => b"\n]\n",
            _ => b"",
        }
    }
}

pub(super) fn lines_of(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_told_or_is_that_of_the_name() {
        for (told, name, format) in [
            (None, "", Format::Lines),
            (None, "a.json", Format::Lines),
            (None, "a.csv.zst", Format::Csv),
            (None, "a.cloudevents.json", Format::CloudEventArray),
            (None, "a.cloudevents.json.zst", Format::CloudEventArray),
            (None, "a.cloudevents.ndjson", Format::CloudEventLines),
            (Some("ndjson"), "a.csv", Format::Lines),
            (Some("cloudevents"), "a.csv", Format::CloudEventArray),
            (Some("cloudevents-lines"), "a.cloudevents.json", Format::CloudEventLines),
        ] {
            assert!(Format::of(told, name) == format, "{told:?} {name}");
        }
    }
}
