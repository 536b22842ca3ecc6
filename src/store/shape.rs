//! The SQL of an append, and what it binds: few statements, the same for every batch of one shape.

use super::append::Origins;
use super::read::to_sql;
use crate::event::{Event, Seq, StreamName};
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;
use std::collections::BTreeMap;

/// Rows of the largest INSERT. A batch is full statements of this many rows and one of a power of two that stops after
/// the last row, so that a dozen prepared statements serve every batch size.
const STATEMENT_ROWS_MAX: usize = 1024;

/// What an append adds to the totals of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Total {
    first_seq: Seq,
    last_seq: Seq,
    events: u64,
    bytes: u64,
}

/// The shape of an append: what decides its SQL, so that the same shape is prepared once.
pub(super) struct Shape<'e> {
    rows: usize,
    has_ids: bool,
    /// Of the events from the first on; empty where nobody is known, and then the columns are left out.
    origins: Origins<'e>,
    /// Some event was made in a span; where none was, the column is left out.
    has_traces: bool,
    is_begin: bool,
    totals: BTreeMap<&'e StreamName, Total>,
    /// Streams that end, and the seqs with which they do.
    ends: Vec<(&'e StreamName, Seq)>,
}

impl<'e> Shape<'e> {
    pub(super) fn of(events: &'e [Event], origins: Origins<'e>, is_begin: bool) -> Self {
        let mut totals = BTreeMap::new();
        for event in events {
            let total = totals.entry(&event.content.stream).or_insert(Total {
                first_seq: event.seq,
                last_seq: event.seq,
                events: 0,
                bytes: 0,
            });
            total.last_seq = event.seq;
            total.events += 1;
            total.bytes += event.content.data.as_deref().map_or(0, str::len) as u64;
        }
        debug_assert!(
            events.windows(2).all(|pair| pair[0].created_at == pair[1].created_at),
            "one commit has one time"
        );
        let has_ids = events.iter().any(|event| event.content.id.is_some());
        let has_traces = events.iter().any(|event| event.content.traceparent.is_some());
        let ends = events.iter().filter(|event| event.content.r#type.is_closed());
        let ends = ends.map(|event| (&event.content.stream, event.seq)).collect();
        Self { rows: events.len(), has_ids, origins, has_traces, is_begin, totals, ends }
    }

    /// Its SQL. A failure rolls the whole transaction back, so that no statement needs a journal of its own.
    pub(super) fn sql(&self) -> String {
        let mut sql =
            String::with_capacity(1024 + statements(self.rows).map(|(_, room)| room * 18).sum::<usize>());
        if self.is_begin {
            sql.push_str("BEGIN IMMEDIATE;");
        }
        sql.push_str(
            "INSERT OR ROLLBACK INTO streams (name, first_seq, last_seq, events, bytes) SELECT * FROM (",
        );
        push_rows(&mut sql, self.totals.len().next_power_of_two(), "(?,?,?,?,?)");
        sql.push_str(
            ") WHERE column1 IS NOT NULL ON CONFLICT (name) DO UPDATE SET
                 first_seq = CASE WHEN events = 0 THEN excluded.first_seq ELSE first_seq END,
                 last_seq = excluded.last_seq, events = events + excluded.events, bytes = bytes + excluded.bytes;",
        );
        if !self.ends.is_empty() {
            sql.push_str("UPDATE OR ROLLBACK streams SET closed_seq = ends.column2 FROM (");
            push_rows(&mut sql, self.ends.len().next_power_of_two(), "(?,?)");
            sql.push_str(") AS ends WHERE name = ends.column1;");
        }
        for (_, room) in statements(self.rows) {
            let (columns, row) = match (self.origins, self.has_traces) {
                ([], false) => ("", "(?,?,?,?,?,?,?,?)"),
                ([], true) => (", traceparent", "(?,?,?,?,?,?,?,?,?)"),
                (_, false) => (", producer, address", "(?,?,?,?,?,?,?,?,?,?)"),
                (_, true) => (", traceparent, producer, address", "(?,?,?,?,?,?,?,?,?,?,?)"),
            };
            sql.push_str(
                "WITH batch (rows, created_at) AS (VALUES (?, ?))
                 INSERT OR ROLLBACK INTO log (seq, stream, source, id, type, subject, time, data",
            );
            sql.push_str(columns);
            sql.push_str(", created_at) SELECT *, (SELECT created_at FROM batch) FROM (");
            push_rows(&mut sql, room, row);
            sql.push_str(") LIMIT (SELECT rows FROM batch);");
            if self.has_ids {
                sql.push_str(
                    "INSERT OR ROLLBACK INTO ids (id, stream, source, seq) SELECT id, stream, source, seq FROM log
                     WHERE seq > (SELECT max(seq) FROM log) - changes() AND id IS NOT NULL;",
                );
            }
        }
        sql.push_str("COMMIT");
        sql
    }

    /// What its SQL binds. Room that is left over at the end stays NULL.
    pub(super) fn arguments(&self, events: &[Event]) -> Result<SqliteArguments, sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        let columns = if self.origins.is_empty() { 9 } else { 11 };
        arguments.reserve(self.totals.len() * 10 + (events.len() + 2) * columns, 0);
        for (name, total) in &self.totals {
            add(&mut arguments, name.shared())?;
            for number in [total.first_seq, total.last_seq, total.events, total.bytes] {
                add(&mut arguments, to_sql(number))?;
            }
        }
        for _ in self.totals.len()..self.totals.len().next_power_of_two() {
            for _ in 0..5 {
                add(&mut arguments, None::<i64>)?;
            }
        }
        if !self.ends.is_empty() {
            for (name, seq) in &self.ends {
                add(&mut arguments, name.shared())?;
                add(&mut arguments, to_sql(*seq))?;
            }
            for _ in self.ends.len()..self.ends.len().next_power_of_two() {
                add(&mut arguments, None::<i64>)?;
                add(&mut arguments, None::<i64>)?;
            }
        }
        let (mut rest, mut origins) = (events, self.origins.iter());
        for (rows, _) in statements(self.rows) {
            let (events, behind) = rest.split_at(rows);
            rest = behind;
            add(&mut arguments, to_sql(rows as u64))?;
            add(&mut arguments, events[0].created_at.to_string())?;
            for event in events {
                let content = &event.content;
                add(&mut arguments, to_sql(event.seq))?;
                add(&mut arguments, content.stream.shared())?;
                add(&mut arguments, content.source.clone())?;
                add(&mut arguments, content.id.clone())?;
                add(&mut arguments, content.r#type.shared())?;
                add(&mut arguments, content.subject.clone())?;
                add(&mut arguments, content.time.clone())?;
                add(&mut arguments, content.data.clone())?;
                if self.has_traces {
                    add(&mut arguments, content.traceparent.clone())?;
                }
                if !self.origins.is_empty() {
                    let origin = origins.next().and_then(Option::as_ref);
                    add(&mut arguments, origin.map(|origin| origin.producer.clone()))?;
                    add(&mut arguments, origin.and_then(|origin| origin.address.clone()))?;
                }
            }
        }
        Ok(arguments)
    }
}

fn push_rows(sql: &mut String, rows: usize, row: &str) {
    sql.push_str("VALUES ");
    for index in 0..rows {
        if index > 0 {
            sql.push(',');
        }
        sql.push_str(row);
    }
}

/// How many rows each INSERT of a batch has, and for how many it has room.
fn statements(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let rest = rows % STATEMENT_ROWS_MAX;
    std::iter::repeat_n((STATEMENT_ROWS_MAX, STATEMENT_ROWS_MAX), rows / STATEMENT_ROWS_MAX)
        .chain((rest > 0).then(|| (rest, rest.next_power_of_two())))
}

fn add<'a, T>(arguments: &mut SqliteArguments, value: T) -> Result<(), sqlx::Error>
where
    T: sqlx::Encode<'a, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    arguments.add(value).map_err(sqlx::Error::Encode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_full_statements_and_one_with_room_for_a_power_of_two() {
        for (rows, expected) in [
            (1, vec![(1, 1)]),
            (3, vec![(3, 4)]),
            (1000, vec![(1000, 1024)]),
            (1024, vec![(1024, 1024)]),
            (1025, vec![(1024, 1024), (1, 1)]),
            (2500, vec![(1024, 1024), (1024, 1024), (452, 512)]),
        ] {
            assert_eq!(statements(rows).collect::<Vec<_>>(), expected, "{rows}");
        }
    }
}
