//! Giving space back to the file system: what trimming frees is used again by later events, and what is more than they
//! need is cut off the end of the file.
//!
//! A step moves some pages from the end of the file into free ones and cuts them off, in a transaction of its own; the
//! file itself shrinks at the next checkpoint. Possible because every log is made with `auto_vacuum = INCREMENTAL`.

use super::append::Appender;
use super::{CommitError, StoreError};
use sqlx::AssertSqlSafe;

/// Pages given back in a step. *Source*: see `docs/ARCHITECTURE.md`, Trimming.
const STEP_PAGES: u32 = 64;
/// Free pages that are kept for the events to come, whatever the size of the file.
const FREE_PAGES_KEPT: i64 = 512;
/// And this share of the file, so that a log of constant size does not move its pages around for ever.
const FREE_SHARE_KEPT: i64 = 8;

impl Appender {
    /// Gives a step of pages back, if there are more free ones than are kept. False when nothing is left to give; the file
    /// itself has then shrunk, or does with the next checkpoint.
    ///
    /// *Errors*: as [`Appender::append`]. *Cancel safety*: none.
    pub async fn give_back_step(&mut self) -> Result<bool, CommitError> {
        if self.spare_pages().await.map_err(CommitError::Failed)? == 0 {
            return Ok(false);
        }
        self.run(sqlx::query(AssertSqlSafe(format!("PRAGMA incremental_vacuum({STEP_PAGES})")))).await?;
        let is_more = self.spare_pages().await.map_err(CommitError::Failed)? > 0;
        if !is_more {
            self.hasten_checkpoint();
        }
        Ok(is_more)
    }

    /// How many pages may be given back.
    async fn spare_pages(&mut self) -> Result<u64, StoreError> {
        let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(self.connection()).await?;
        let all: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(self.connection()).await?;
        let kept = FREE_PAGES_KEPT.max(all / FREE_SHARE_KEPT);
        Ok(u64::try_from(free - kept).unwrap_or(0))
    }
}
