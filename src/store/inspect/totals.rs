//! The row of each stream against what the log holds of it.

use super::{Check, Finding, Marks, Tally};
use crate::event::Seq;
use crate::store::StoreError;
use crate::store::read::from_sql;
use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::HashMap;

/// Streams whose events are counted in one pass over the log, so that memory does not grow with their number.
const STREAMS_AT_ONCE: i64 = 100_000;

const MENDED_BY: &str = "lists of streams and retention go by it; restore the newest backup that `evertail check` finds sound, or `evertail export` \
     the log and `evertail import` it into a new one";

/// What is said of a stream.
#[derive(Debug)]
struct Total {
    first_seq: Seq,
    last_seq: Seq,
    events: u64,
    bytes: u64,
    closed_seq: Option<Seq>,
    trimmed_seq: Seq,
}

/// What is there of a stream.
#[derive(Debug, Default)]
struct Held {
    first_seq: Seq,
    last_seq: Seq,
    events: u64,
    bytes: u64,
}

/// All streams, all events.
pub(super) async fn totals(connection: &mut SqliteConnection, marks: Marks) -> Result<Finding, StoreError> {
    let (mut after, mut streams, mut wrong) = (String::new(), 0, Tally::default());
    loop {
        let sql = "SELECT name, first_seq, last_seq, events, bytes, closed_seq, trimmed_seq FROM streams
                   WHERE name > ? ORDER BY name LIMIT ?";
        let mut said = HashMap::new();
        let mut last = None;
        {
            let mut rows = sqlx::query(sql).bind(&after).bind(STREAMS_AT_ONCE).fetch(&mut *connection);
            while let Some(row) = rows.try_next().await? {
                let name: String = row.try_get(0)?;
                last = Some(name.clone());
                said.insert(name, (total(&row)?, Held::default()));
            }
        }
        streams += said.len();
        // The last pass has the names behind the last stream too.
        let through = last.filter(|_| said.len() as i64 == STREAMS_AT_ONCE);
        count(connection, &after, through.as_deref(), &mut said, &mut wrong).await?;
        let mut names: Vec<_> = said.iter().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        for (name, (total, held)) in names {
            if let Some(what) = total.differs(held, marks) {
                wrong.add(|| format!("the totals of the stream {name} are wrong: {what}"));
            }
        }
        match through {
            Some(name) => after = name,
            None => break,
        }
    }
    let well = || format!("the totals of {streams} streams are those of their events");
    Ok(wrong.finding(Check::Totals, well, MENDED_BY))
}

async fn count(
    connection: &mut SqliteConnection,
    after: &str,
    through: Option<&str>,
    said: &mut HashMap<String, (Total, Held)>,
    wrong: &mut Tally,
) -> Result<(), StoreError> {
    let sql = "SELECT seq, stream, coalesce(octet_length(data), 0) FROM log
               WHERE stream > ?1 AND (?2 IS NULL OR stream <= ?2) ORDER BY seq";
    let mut rows = sqlx::query(sql).bind(after).bind(through).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let (seq, stream) = (from_sql(row.try_get(0)?), row.try_get::<&str, _>(1)?);
        let Some((_, held)) = said.get_mut(stream) else {
            wrong.add(|| format!("event {seq} is of {stream}, which is not among the streams"));
            continue;
        };
        if held.events == 0 {
            held.first_seq = seq;
        }
        held.last_seq = seq;
        held.events += 1;
        held.bytes += from_sql(row.try_get(2)?);
    }
    Ok(())
}

fn total(row: &SqliteRow) -> Result<Total, StoreError> {
    let number = |column: usize| row.try_get(column).map(from_sql);
    Ok(Total {
        first_seq: number(1)?,
        last_seq: number(2)?,
        events: number(3)?,
        bytes: number(4)?,
        closed_seq: row.try_get::<Option<i64>, _>(5)?.map(from_sql),
        trimmed_seq: number(6)?,
    })
}

impl Total {
    /// What is wrong with it.
    fn differs(&self, held: &Held, marks: Marks) -> Option<String> {
        if (self.events, self.bytes) != (held.events, held.bytes) {
            return Some(format!(
                "{} events of {} bytes, and there are {} of {}",
                self.events, self.bytes, held.events, held.bytes
            ));
        }
        let is_bounded = match held.events {
            0 => {
                self.first_seq == self.last_seq + 1
                    && self.last_seq <= marks.trimmed_seq.max(self.trimmed_seq)
            }
            _ => (self.first_seq, self.last_seq) == (held.first_seq, held.last_seq),
        };
        if !is_bounded {
            return Some(format!(
                "seq {} to {}, and there is {} to {}",
                self.first_seq, self.last_seq, held.first_seq, held.last_seq
            ));
        }
        if held.events > 0 && self.trimmed_seq >= held.first_seq {
            return Some(format!(
                "trimmed up to seq {}, and there is event {}",
                self.trimmed_seq, held.first_seq
            ));
        }
        let is_closed_behind = self.closed_seq.is_some_and(|closed| closed != self.last_seq);
        is_closed_behind.then(|| "it has an event behind its end".to_owned())
    }
}

/// Where each stream begins and ends, and the sum of all: no event is counted.
pub(super) async fn ends(connection: &mut SqliteConnection, marks: Marks) -> Result<Finding, StoreError> {
    let mut wrong = Tally::default();
    let (mut streams, mut events) = (0_u64, 0);
    {
        let sql = "SELECT name, events, oldest.stream IS name AND newest.stream IS name
                   FROM streams LEFT JOIN log AS oldest ON oldest.seq = first_seq
                   LEFT JOIN log AS newest ON newest.seq = last_seq";
        let mut rows = sqlx::query(sql).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            let (name, held): (&str, u64) = (row.try_get(0)?, from_sql(row.try_get(1)?));
            if held > 0 && !row.try_get::<bool, _>(2)? {
                wrong.add(|| format!("the stream {name} does not begin and end where its totals say"));
            }
            streams += 1;
            events += held;
        }
    }
    let seqs = marks.last_seq - marks.trimmed_seq;
    // Single streams that were trimmed leave fewer events than seqs, and no trim leaves more.
    if events > seqs || (events < seqs && marks.stream_trimmed_seq == 0) {
        wrong.add(|| format!("the totals count {events} events where there are {seqs} seqs"));
    }
    let well = || format!("{streams} streams begin and end where their totals say, {events} events in all");
    Ok(wrong.finding(Check::Totals, well, MENDED_BY))
}
