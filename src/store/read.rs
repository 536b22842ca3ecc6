//! Reading the log: pages for readers, single events, and the searches that turn a time or a count into a cursor.
//!
//! Every statement is bounded in rows, bytes and scanned seqs, and is over when the function returns.

use super::blocks::{BLOCK_SEQS, Indexed, blocks_max};
use super::source::{SCAN_SEQS_MAX, Source};
use super::{LogState, StoreError, row};
use crate::event::{Event, Pattern, Selection, Seq, Timestamp};
use futures_util::TryStreamExt;
use sqlx::sqlite::{Sqlite, SqlitePool};
use sqlx::{AssertSqlSafe, QueryBuilder, Row, SqliteConnection};

/// The read side of the store. Cheap to clone; all clones share the pool.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    indexed: Indexed,
}

/// Bounds of one page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// At most so many events.
    pub events_max: usize,
    /// No further event once so many bytes of content were read. *Units*: bytes.
    pub bytes_max: usize,
}

/// Events that follow a cursor.
#[derive(Debug)]
pub struct StoredPage {
    /// Those wanted, in order.
    pub events: Vec<Event>,
    /// Everything up to here was looked at.
    pub scanned_to: Seq,
    /// Read after the events: if it is beyond the cursor, some may be missing from the page.
    pub trimmed_seq: Seq,
    /// Read after the events: how many times events of single streams were trimmed. What they lost is missing.
    pub stream_trims: u64,
}

impl Store {
    pub(super) fn new(pool: SqlitePool, indexed: Indexed) -> Self {
        Self { pool, indexed }
    }

    pub(super) fn indexed_seq(&self) -> Seq {
        self.indexed.seq()
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// What is wanted of `after < seq <= through`, from the beginning of that range.
    ///
    /// *Errors*: SQLite failed; the reader keeps its cursor and may try again.
    /// *Cancel safety*: safe; nothing is changed.
    pub async fn page(
        &self,
        after: Seq,
        through: Seq,
        selection: &Selection,
        limits: PageLimits,
    ) -> Result<StoredPage, StoreError> {
        let source = self.source(after, through, selection, limits.events_max).await?;
        let page = self.page_of(&source, selection, limits).await?;
        let is_cut = page.scanned_to < source.scanned_to();
        if is_cut || source.is_true_to(page.events.len()) || page.trimmed_seq > after {
            return Ok(page);
        }
        self.page_of(&Source::scan(after, through, limits.events_max), selection, limits).await
    }

    async fn page_of(
        &self,
        source: &Source,
        selection: &Selection,
        limits: PageLimits,
    ) -> Result<StoredPage, StoreError> {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(row::COLUMNS);
        source.push(&mut query, selection);
        query.push(" ORDER BY seq LIMIT ").push_bind(limits.events_max as i64);
        let mut connection = self.pool.acquire().await?;
        let mut events: Vec<Event> = Vec::new();
        let mut bytes = 0;
        let mut is_cut = false;
        {
            let mut rows = query.build().fetch(&mut *connection);
            while let Some(row) = rows.try_next().await? {
                let event = row::event(&row)?;
                bytes += event.content.size_bytes();
                events.push(event);
                is_cut = events.len() >= limits.events_max || bytes >= limits.bytes_max;
                if is_cut {
                    break;
                }
            }
        }
        let scanned_to = match events.last() {
            Some(last) if is_cut => last.seq,
            _ => source.scanned_to(),
        };
        let marks =
            sqlx::query("SELECT trimmed_seq, stream_trims FROM meta").fetch_one(&mut *connection).await?;
        let (trimmed_seq, stream_trims) = (from_sql(marks.try_get(0)?), from_sql(marks.try_get(1)?));
        Ok(StoredPage { events, scanned_to, trimmed_seq, stream_trims })
    }

    /// One event, if it is retained.
    ///
    /// *Cancel safety*: safe.
    pub async fn event(&self, seq: Seq) -> Result<Option<Event>, StoreError> {
        let sql = format!("SELECT {} FROM log WHERE seq = ?", row::COLUMNS);
        let row = sqlx::query(AssertSqlSafe(sql)).bind(to_sql(seq)).fetch_optional(&self.pool).await?;
        row.as_ref().map(row::event).transpose()
    }

    /// The newest seq with `created_at` before this time: the cursor from which everything since then follows.
    ///
    /// A binary search on the primary key, since `created_at` never decreases.
    /// *Cancel safety*: safe.
    pub async fn cursor_before(&self, time: Timestamp, first: Seq, last: Seq) -> Result<Seq, StoreError> {
        let mut connection = self.pool.acquire().await?;
        cursor_before(&mut connection, time, first, last).await
    }

    /// The cursor from which the newest `count` wanted events follow; `first - 1` if there are fewer.
    ///
    /// Looks backward in bounded steps; where no seq is missing, beyond `whole_after`, not at all for all events.
    /// *Cancel safety*: safe.
    pub async fn cursor_before_last(
        &self,
        count: u64,
        selection: &Selection,
        first: Seq,
        last: Seq,
        whole_after: Seq,
    ) -> Result<Seq, StoreError> {
        let floor = first.saturating_sub(1);
        let cursor = last.saturating_sub(count).max(floor);
        if count == 0 || (selection.is_all() && cursor >= whole_after.min(last)) {
            return Ok(cursor);
        }
        let (mut through, mut missing, mut blocks) = (last, count, 1);
        while through > floor {
            let indexed_seq = self.indexed_seq();
            let (found, after) = if through > indexed_seq {
                // Not in the index yet.
                let after = through.saturating_sub(SCAN_SEQS_MAX).max(indexed_seq).max(floor);
                (self.wanted_last(after, through, selection, missing).await?, after)
            } else {
                let last_block = (through - 1) / BLOCK_SEQS;
                let first_block = last_block.saturating_sub(blocks - 1).max(floor / BLOCK_SEQS);
                blocks = (blocks * 4).min(blocks_max(selection));
                let seqs = self.wanted_in(first_block, last_block, selection, Seq::MAX).await?;
                let mut seqs = seqs.unwrap_or_default();
                seqs.retain(|seq| *seq > floor && *seq <= through);
                (seqs, (first_block * BLOCK_SEQS).max(floor))
            };
            match found.len().checked_sub(usize::try_from(missing).unwrap_or(usize::MAX)) {
                Some(first) => return Ok(found[first] - 1),
                None => missing -= found.len() as u64,
            }
            through = after;
        }
        Ok(floor)
    }

    /// The newest wanted seqs of `after < seq <= through`, at most so many, in order.
    async fn wanted_last(
        &self,
        after: Seq,
        through: Seq,
        selection: &Selection,
        count: u64,
    ) -> Result<Vec<Seq>, StoreError> {
        let mut query = QueryBuilder::new("SELECT seq");
        Source::Range { after, through }.push(&mut query, selection);
        query.push(" ORDER BY seq DESC LIMIT ").push_bind(to_sql(count));
        let mut seqs: Vec<i64> = query.build_query_scalar().fetch_all(&self.pool).await?;
        seqs.reverse();
        Ok(seqs.into_iter().map(from_sql).collect())
    }

    /// Closes every connection and waits for them.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// ` AND (column = ? OR column >= ? AND column < ? ...)`. The column is one of ours, the patterns are bound.
pub(super) fn push_any(query: &mut QueryBuilder<Sqlite>, column: &'static str, patterns: &[Pattern]) {
    for (index, pattern) in patterns.iter().enumerate() {
        query.push(if index == 0 { " AND (" } else { " OR " });
        match pattern {
            Pattern::Exact(name) => query.push(column).push(" = ").push_bind(name.clone()),
            Pattern::Prefix(prefix) if prefix.is_empty() => query.push("true"),
            // A prefix ends with `.`, and `/` is the next character after it.
            Pattern::Prefix(prefix) => query
                .push(column)
                .push(" >= ")
                .push_bind(prefix.clone())
                .push(" AND ")
                .push(column)
                .push(" < ")
                .push_bind(format!("{}/", &prefix[..prefix.len() - 1])),
        };
    }
    if !patterns.is_empty() {
        query.push(")");
    }
}

/// The names of a selection: any of its streams, any of its types, and of those only what is granted. The columns are
/// `stream` and `type`.
pub(super) fn push_names(query: &mut QueryBuilder<Sqlite>, selection: &Selection) {
    push_any(query, "stream", &selection.streams);
    push_any(query, "type", &selection.types);
    push_granted(query, "stream", selection.granted.as_deref());
}

/// ` AND (...)` for the streams that may be read. An empty list is none of them.
pub(super) fn push_granted(
    query: &mut QueryBuilder<Sqlite>,
    column: &'static str,
    granted: Option<&[Pattern]>,
) {
    match granted {
        None => {}
        Some([]) => {
            query.push(" AND false");
        }
        Some(granted) => push_any(query, column, granted),
    }
}

pub(super) async fn cursor_before(
    connection: &mut SqliteConnection,
    time: Timestamp,
    first: Seq,
    last: Seq,
) -> Result<Seq, StoreError> {
    let (mut low, mut high) = (first, last.saturating_add(1));
    let time = time.to_string();
    while low < high {
        let middle = low + (high - low) / 2;
        let row = sqlx::query("SELECT seq, created_at < ? FROM log WHERE seq >= ? ORDER BY seq LIMIT 1")
            .bind(time.as_str())
            .bind(to_sql(middle))
            .fetch_optional(&mut *connection)
            .await?;
        match row {
            Some(row) if row.try_get::<bool, _>(1)? => low = from_sql(row.try_get(0)?) + 1,
            _ => high = middle,
        }
    }
    Ok(low.saturating_sub(1))
}

/// The state of the log as this connection sees it now.
pub(super) async fn log_state(connection: &mut SqliteConnection) -> Result<LogState, StoreError> {
    let row = sqlx::query(
        "SELECT log_id, trimmed_seq, max(trimmed_seq, coalesce((SELECT max(seq) FROM log), 0)),
                max(trimmed_created_at, coalesce((SELECT created_at FROM log ORDER BY seq DESC LIMIT 1), ''))
         FROM meta",
    )
    .fetch_one(connection)
    .await?;
    let last_seq: i64 = row.try_get(2)?;
    let last_created_at: String = row.try_get(3)?;
    Ok(LogState {
        log_id: row.try_get(0)?,
        trimmed_seq: from_sql(row.try_get(1)?),
        last_seq: from_sql(last_seq),
        last_created_at: Timestamp::parse(&last_created_at)
            .ok_or(StoreError::Damaged { seq: last_seq, what: "created_at is not an RFC 3339 time" })?,
    })
}

/// SQLite's integers are signed; a seq beyond them can only be a cursor that nothing follows.
pub(super) fn to_sql(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// The schema admits no negative seq.
pub(super) fn from_sql(seq: i64) -> Seq {
    u64::try_from(seq).unwrap_or(0)
}
