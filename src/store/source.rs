//! Where the events of a page come from: a range of seqs, a look at each event of a range, or seqs that the index told.

use super::StoreError;
use super::read::{Store, push_names, to_sql};
use crate::event::{Selection, Seq};
use sqlx::QueryBuilder;
use sqlx::sqlite::Sqlite;

/// How many seqs one statement may look at for a selection that matches few of them.
///
/// *Source*: SQLite visits about 12 M rows/s, so a step is some 5 ms, during which the WAL cannot be reset.
pub(super) const SCAN_SEQS_MAX: Seq = 65_536;

/// The wanted events of one page.
#[derive(Debug)]
pub(super) enum Source {
    /// All of `after < seq <= through`.
    Range { after: Seq, through: Seq },
    /// Those of `after < seq <= through` that are found wanted, so many at most.
    Scan { after: Seq, through: Seq, events_max: usize },
    /// These, which are all that is wanted up to `scanned_to`.
    Seqs { seqs: Vec<Seq>, scanned_to: Seq },
}

impl Store {
    /// The source of a page of what is wanted of `after < seq <= through`.
    pub(super) async fn source(
        &self,
        after: Seq,
        through: Seq,
        selection: &Selection,
        events_max: usize,
    ) -> Result<Source, StoreError> {
        if selection.has_all_names() {
            // Seqs are contiguous: a range of so many needs no LIMIT.
            return Ok(Source::Range {
                after,
                through: through.min(after.saturating_add(events_max as Seq)),
            });
        }
        let through_indexed = through.min(self.indexed_seq());
        if after < through_indexed {
            let wanted = self.wanted_after(after, through_indexed, selection, events_max).await?;
            if let Some((seqs, scanned_to)) = wanted {
                return Ok(Source::Seqs { seqs, scanned_to });
            }
        }
        Ok(Source::scan(after, through, events_max))
    }
}

impl Source {
    /// A look at each event, as far as one statement may look.
    pub(super) fn scan(after: Seq, through: Seq, events_max: usize) -> Self {
        Self::Scan { after, through: through.min(after.saturating_add(SCAN_SEQS_MAX)), events_max }
    }

    /// Everything wanted up to here is given, unless the page is cut before.
    pub(super) fn scanned_to(&self) -> Seq {
        match self {
            Self::Range { through, .. } | Self::Scan { through, .. } => *through,
            Self::Seqs { scanned_to, .. } => *scanned_to,
        }
    }

    /// Whether a page of so many events, not cut, is what the index told. If the log was not trimmed meanwhile, the
    /// index is damaged, and only looking at each event helps.
    pub(super) fn is_true_to(&self, events: usize) -> bool {
        match self {
            Self::Range { .. } | Self::Scan { .. } => true,
            Self::Seqs { seqs, .. } => seqs.len() == events,
        }
    }

    /// ` FROM log WHERE ...`.
    pub(super) fn push(&self, query: &mut QueryBuilder<Sqlite>, selection: &Selection) {
        query.push(" FROM log WHERE ");
        match self {
            Self::Range { after, through } | Self::Scan { after, through, .. } => {
                query.push("seq > ").push_bind(to_sql(*after));
                query.push(" AND seq <= ").push_bind(to_sql(*through));
                push_names(query, selection);
            }
            Self::Seqs { seqs, .. } => {
                let list: Vec<String> = seqs.iter().map(Seq::to_string).collect();
                query.push("seq IN (SELECT value FROM json_each(");
                query.push_bind(format!("[{}]", list.join(","))).push("))");
            }
        }
    }
}
