//! Events as CSV (RFC 4180), for spreadsheets: one record for each event, no line end inside a record.
//!
//! A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, and runs it. Such a cell gets a `'`
//! before it, unless it is a number.

use crate::wire::EventJson;
use bytes::Bytes;
use std::borrow::Cow;
use std::io;

/// The columns, in the order of the view `events`: what is new comes last.
const COLUMNS: [&str; 10] =
    ["seq", "stream", "source", "id", "type", "subject", "time", "created_at", "data", "traceparent"];

/// The first record: the names of the columns.
pub(super) fn header() -> Bytes {
    Bytes::from(COLUMNS.join(",") + "\r\n")
}

/// The records of lines of JSON.
///
/// *Errors*: a line that is no event, which only a damaged file has.
pub(super) fn records(lines: &[u8]) -> io::Result<Bytes> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(false)
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::with_capacity(lines.len()));
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: EventJson<'_> = serde_json::from_slice(line)?;
        let event = event.text();
        let seq = event.seq.to_string();
        let cells = [
            &*seq,
            event.stream,
            event.source,
            event.id.unwrap_or_default(),
            event.r#type,
            event.subject.unwrap_or_default(),
            event.time.unwrap_or_default(),
            event.created_at,
            event.data.unwrap_or_default(),
            event.traceparent.unwrap_or_default(),
        ];
        writer.write_record(cells.map(inert).iter().map(|cell| cell.as_bytes()))?;
    }
    writer.into_inner().map(Bytes::from).map_err(|error| error.into_error())
}

/// A cell that no spreadsheet takes for a formula.
fn inert(text: &str) -> Cow<'_, str> {
    let is_number = || serde_json::from_str::<f64>(text).is_ok();
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && !is_number();
    if is_formula { Cow::from(format!("'{text}")) } else { Cow::from(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_quoted_where_they_must_be_and_never_formulas() {
        let lines = concat!(
            r#"{"seq":1,"stream":"a","type":"message","created_at":"T","data":{"a":"x,\"y"}}"#,
            "\n",
            r#"{"seq":2,"stream":"a","source":"=HYPERLINK(1)","id":"@x","type":"+1+1","subject":"-2+3","created_at":"T","data":-5.5}"#,
            "\n",
            r#"{"seq":3,"stream":"a","type":"m","subject":"-inf","traceparent":"00-1","created_at":"T","data":null}"#,
            "\n",
        );
        let text = String::from_utf8(records(lines.as_bytes()).unwrap().to_vec()).unwrap();
        assert_eq!(
            text,
            "1,a,,,message,,,T,\"{\"\"a\"\":\"\"x,\\\"\"y\"\"}\",\r\n2,a,'=HYPERLINK(1),'@x,'+1+1,'-2+3,,T,-5.5,\r\n3,a,,,m,'-inf,,T,null,00-1\r\n"
        );
        assert!(records(b"{\"seq\":1\n").is_err());
    }
}
