//! A page of the table as one text: one row of one column, which SQLite itself puts together, instead of nine values
//! for each event that cross from its thread one by one.
//!
//! # Layout
//! ```text
//! seq US stream US source US [=id] US type US [=subject] US [=time] US [=traceparent] US
//!     created_at US [data]  LF  ...
//! ```
//! US (0x1f) stands between the fields of an event, LF between events. Neither is part of a valid field: names hold no
//! control characters, and `data` is compact JSON. A field that may be NULL has a `=` before its value.
//!
//! # Exact or not at all
//! The file may hold anything, so the text is taken only where it has one reading: as many LFs as events, nine USs in
//! each, no CR, UTF-8, a time written as we write it. Everything else, and `data` that is empty or large, is left to
//! the rows (`store/row.rs`), which define how such an event is shown.
//!
//! *Source*: instructions of the SQLite thread for a row of 200 bytes: 2,800 to step over its values in C, 4,400 for
//! this text, 8,000 where SQL writes the JSON with `json_quote`.

use super::StoreError;
use super::read::{Store, from_sql, to_sql};
use super::source::Source;
use crate::event::{EventText, Selection, Seq, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row};

/// Where the log is trimmed, how many events, the
/// last of them, and all of them as a text, in one statement and so of one moment.
///
/// RS (0x1e) stands for data that only rows can give. Data beyond 16 KiB is such, so that the text of a page stays
/// small when few small events are followed by many large ones.
const SELECT_TEXT: &str = "SELECT (SELECT trimmed_seq FROM meta), (SELECT stream_trims FROM meta), count(*), max(seq),
    group_concat(concat_ws('\u{1f}', seq, stream, source, coalesce('=' || id, ''), type, coalesce('=' || subject, ''),
        coalesce('=' || time, ''), coalesce('=' || traceparent, ''), created_at,
        iif(octet_length(data) NOT BETWEEN 1 AND 16384, '\u{1e}', coalesce(data, ''))), '\n')";

/// Stands between fields.
const FIELD: u8 = 0x1f;
const FIELDS: usize = 10;
const ONLY_ROWS: &str = "\u{1e}";

/// Events that follow a cursor, as one text.
#[derive(Debug)]
pub struct TextPage {
    text: String,
    /// The cursor that the events follow.
    pub after: Seq,
    /// How many events.
    pub events: u64,
    /// Everything up to here was looked at.
    pub scanned_to: Seq,
    /// Where the log was trimmed then: if it is beyond the cursor, some events may be missing from the text.
    pub trimmed_seq: Seq,
    /// How many times events of single streams were trimmed by then: what they lost is missing from the text.
    pub stream_trims: u64,
}

impl Store {
    /// What is wanted of `after < seq <= through`, from the beginning of that range, as one text; `None` when the text
    /// has not one reading and [`Store::page`] must tell.
    ///
    /// *Bounds*: at most `events_max` events of 16 KiB of data.
    /// *Errors*: SQLite failed; the reader keeps its cursor and may try again.
    /// *Cancel safety*: safe; nothing is changed.
    pub async fn text_page(
        &self,
        after: Seq,
        through: Seq,
        selection: &Selection,
        events_max: usize,
    ) -> Result<Option<TextPage>, StoreError> {
        let source = self.source(after, through, selection, events_max).await?;
        let mut query = QueryBuilder::new(SELECT_TEXT);
        if let Source::Scan { events_max, .. } = source {
            // The aggregate is one row: what it is made of must be limited below it.
            query.push(" FROM (SELECT *");
            source.push(&mut query, selection);
            query.push(" ORDER BY seq LIMIT ").push_bind(to_sql(events_max as Seq)).push(")");
        } else {
            source.push(&mut query, selection);
        }
        let row = query.build().fetch_one(self.pool()).await?;
        TextPage::new(&row, after, &source)
    }
}

impl TextPage {
    /// Takes the text, or `None` if it can be read in more than one way.
    fn new(row: &SqliteRow, after: Seq, source: &Source) -> Result<Option<Self>, StoreError> {
        let trimmed_seq = from_sql(row.try_get(0)?);
        let stream_trims = from_sql(row.try_get(1)?);
        let events: i64 = row.try_get(2)?;
        if trimmed_seq <= after && !source.is_true_to(usize::try_from(events).unwrap_or(0)) {
            return Ok(None);
        }
        let text: Option<&[u8]> = row.try_get_unchecked(4)?;
        let text = text.unwrap_or_default();
        let line_feeds = memchr::memchr_iter(b'\n', text).count();
        if line_feeds as i64 + 1 != events.max(1) || memchr::memchr(b'\r', text).is_some() {
            return Ok(None);
        }
        let Ok(text) = std::str::from_utf8(text) else { return Ok(None) };
        let scanned_to = match source {
            Source::Scan { events_max, .. } if events >= *events_max as i64 => from_sql(row.try_get(3)?),
            _ => source.scanned_to(),
        };
        let (text, events) = (text.to_owned(), from_sql(events));
        Ok(Some(Self { text, after, events, scanned_to, trimmed_seq, stream_trims }))
    }

    /// The events, from the first; ends early before one that only a row can give.
    pub fn read(&self) -> TextEvents<'_> {
        TextEvents {
            text: &self.text,
            marks: memchr::memchr2_iter(FIELD, b'\n', self.text.as_bytes()),
            start: 0,
            last_seq: self.after,
            created_at: "",
            is_cut: false,
        }
    }
}

/// Reads the events of a [`TextPage`].
#[derive(Debug)]
pub struct TextEvents<'a> {
    text: &'a str,
    /// Every US and LF of the text, in order.
    marks: memchr::Memchr2<'a>,
    /// Where the next event begins; beyond the text after the last.
    start: usize,
    last_seq: Seq,
    /// The last time that was found to be written as we write it; a commit gives all its events the same.
    created_at: &'a str,
    is_cut: bool,
}

impl<'a> TextEvents<'a> {
    /// All events of the page were taken, and none was left to the rows.
    pub fn is_whole(&self) -> bool {
        self.start >= self.text.len() && !self.is_cut
    }

    /// The next line, if it is an event in the one way there is.
    fn read(&mut self) -> Option<EventText<'a>> {
        let mut fields = [""; FIELDS];
        for (index, field) in fields.iter_mut().enumerate() {
            let end = self.marks.next().unwrap_or(self.text.len());
            let is_last = index == FIELDS - 1;
            if is_last == (self.text.as_bytes().get(end) == Some(&FIELD)) {
                return None;
            }
            *field = &self.text[self.start..end];
            self.start = end + 1;
        }
        let [seq, stream, source, id, r#type, subject, time, traceparent, created_at, data] = fields;
        let optional = |field: &'a str| field.strip_prefix('=');
        let event = EventText {
            seq: seq.parse().ok().filter(|seq| *seq > self.last_seq)?,
            stream,
            source,
            id: optional(id),
            r#type,
            subject: optional(subject),
            time: optional(time),
            traceparent: optional(traceparent),
            created_at,
            data: Some(data).filter(|data| !data.is_empty()),
        };
        let is_time = created_at == self.created_at || Timestamp::is_canonical(created_at);
        (is_time && data != ONLY_ROWS).then_some(event)
    }
}

impl<'a> Iterator for TextEvents<'a> {
    type Item = EventText<'a>;

    fn next(&mut self) -> Option<EventText<'a>> {
        if self.is_cut || self.start >= self.text.len() {
            return None;
        }
        let event = self.read();
        match &event {
            Some(event) => (self.last_seq, self.created_at) = (event.seq, event.created_at),
            None => self.is_cut = true,
        }
        event
    }
}
