//! A walk over the log, block by block of the index: seqs, times, data, and the index itself.

use super::index::{self, Places};
use super::{Check, FROM_BACKUP, Finding, Marks, Progress, Tally};
use crate::event::{Seq, Timestamp, check_traceparent};
use crate::store::StoreError;
use crate::store::blocks::BLOCK_SEQS;
use crate::store::read::{from_sql, to_sql};
use futures_util::TryStreamExt;
use sqlx::{Row, SqliteConnection};

/// How many of the newest events a quick look takes. *Source*: some 10 ms.
const NEWEST: Seq = 10_000;

/// What a walk has seen so far.
#[derive(Debug, Default)]
struct Seen {
    /// The seq that comes next.
    next_seq: Seq,
    created_at: String,
    events: u64,
    holes: u64,
    missing: Tally,
    time: Tally,
    data: Tally,
}

/// All of the log.
pub(super) async fn walk(
    connection: &mut SqliteConnection,
    marks: Marks,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Finding>, StoreError> {
    let below: Option<i64> = sqlx::query_scalar("SELECT min(seq) FROM log WHERE seq <= ?")
        .bind(to_sql(marks.trimmed_seq))
        .fetch_one(&mut *connection)
        .await?;
    let trimmed_created_at: String =
        sqlx::query_scalar("SELECT trimmed_created_at FROM meta").fetch_one(&mut *connection).await?;
    let mut seen =
        Seen { next_seq: marks.trimmed_seq + 1, created_at: trimmed_created_at, ..Seen::default() };
    if let Some(seq) = below {
        seen.missing.add(|| format!("event {seq} is there, and the log says that it is trimmed"));
    }
    let mut in_index = index::beyond_its_end(connection, marks).await?;
    let total = marks.last_seq - marks.trimmed_seq;
    while seen.next_seq <= marks.last_seq {
        let block = (seen.next_seq - 1) / BLOCK_SEQS;
        let end = ((block + 1) * BLOCK_SEQS).min(marks.last_seq);
        let is_indexed = (block + 1) * BLOCK_SEQS <= marks.indexed_seq;
        let mut places = is_indexed.then(Places::default);
        look(connection, marks, end, &mut seen, places.as_mut()).await?;
        if let Some(places) = places {
            index::compare(connection, block, marks.trimmed_seq, places, &mut in_index).await?;
        }
        seen.next_seq = end + 1;
        progress(Progress { done: end - marks.trimmed_seq, total });
    }
    let mut findings = findings(seen, marks);
    let well =
        || format!("the index of sparse selections agrees with the log up to seq {}", marks.indexed_seq);
    findings.push(in_index.finding(Check::Index, well, index::REBUILD));
    Ok(findings)
}

/// The newest events.
pub(super) async fn newest(
    connection: &mut SqliteConnection,
    marks: Marks,
) -> Result<Vec<Finding>, StoreError> {
    let first = marks.last_seq.saturating_sub(NEWEST).max(marks.trimmed_seq) + 1;
    let mut seen = Seen { next_seq: first, ..Seen::default() };
    look(connection, marks, marks.last_seq, &mut seen, None).await?;
    Ok(findings(seen, marks))
}

fn findings(seen: Seen, marks: Marks) -> Vec<Finding> {
    let Seen { events, holes, missing, time, data, .. } = seen;
    let well = || {
        let trimmed =
            if holes == 0 { "" } else { "; what is missing in between, single streams have trimmed" };
        format!("{events} events up to seq {}{trimmed}", marks.last_seq)
    };
    let clock = "restore the newest backup that `evertail check` finds sound; until then `since` and `until` may miss events";
    vec![
        missing.finding(Check::Contiguity, well, FROM_BACKUP),
        time.finding(Check::Time, || "no event was received before the one before it".to_owned(), clock),
        data.finding(Check::Data, || "the data of every event is JSON on one line".to_owned(), FROM_BACKUP),
    ]
}

/// The events up to this seq, from where the walk is.
async fn look(
    connection: &mut SqliteConnection,
    marks: Marks,
    end: Seq,
    seen: &mut Seen,
    mut places: Option<&mut Places>,
) -> Result<(), StoreError> {
    // What is looked at here stays in SQLite: a payload may have 16 MiB.
    let sql = "SELECT seq, stream, type, created_at, data IS NULL OR json_valid(data),
                      instr(data, char(10)) > 0 OR instr(data, char(13)) > 0, traceparent
               FROM log WHERE seq >= ? AND seq <= ? ORDER BY seq";
    let mut rows = sqlx::query(sql).bind(to_sql(seen.next_seq)).bind(to_sql(end)).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let seq = from_sql(row.try_get(0)?);
        seen.pass(seq, marks);
        seen.events += 1;
        let created_at: &str = row.try_get(3)?;
        if !Timestamp::is_canonical(created_at) {
            seen.time.add(|| format!("created_at of event {seq} is no time of the log: {created_at:?}"));
        } else if created_at < seen.created_at.as_str() {
            seen.time.add(|| format!("event {seq} was received before the one before it"));
        }
        seen.created_at.clear();
        seen.created_at.push_str(created_at);
        if !row.try_get::<bool, _>(4)? {
            seen.data.add(|| format!("the data of event {seq} is not JSON"));
        } else if row.try_get::<Option<bool>, _>(5)? == Some(true) {
            seen.data.add(|| format!("the data of event {seq} is on more than one line"));
        }
        let traceparent: Option<&[u8]> = row.try_get_unchecked(6)?;
        let is_span = |text| check_traceparent(text).is_ok_and(|kept| *kept == *text);
        if traceparent.is_some_and(|bytes| !std::str::from_utf8(bytes).is_ok_and(is_span)) {
            seen.data.add(|| format!("the traceparent of event {seq} is none"));
        }
        if let Some(places) = places.as_deref_mut() {
            let key = (row.try_get::<String, _>(1)?, row.try_get::<String, _>(2)?);
            places.entry(key).or_default().push((seq - 1) % BLOCK_SEQS + 1);
        }
    }
    seen.pass(end + 1, marks);
    Ok(())
}

impl Seen {
    /// Goes on to this seq; what lies before it is missing.
    fn pass(&mut self, seq: Seq, marks: Marks) {
        if seq > self.next_seq {
            self.holes += 1;
            if seq - 1 > marks.stream_trimmed_seq {
                let from = self.next_seq.max(marks.stream_trimmed_seq + 1);
                self.missing.add(|| match seq - 1 {
                    through if through == from => format!("event {from} is missing, and no trim explains it"),
                    through => format!("events {from} to {through} are missing, and no trim explains it"),
                });
            }
        }
        self.next_seq = seq + 1;
    }
}
