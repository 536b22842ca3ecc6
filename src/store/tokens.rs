//! API tokens as they stand in the file: never the secret, only its hash.

use super::{Appender, CommitError, StoreError};
use crate::event::{Pattern, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::sync::Arc;

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// By which it is found: a part of the token itself.
    pub id: Arc<str>,
    /// What people call it.
    pub name: Arc<str>,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Streams that it may append to.
    pub append: Vec<Pattern>,
    /// Streams that it may read.
    pub read: Vec<Pattern>,
    /// It may trim, hold, and make tokens.
    pub admin: bool,
    /// It may read the metrics.
    pub metrics: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// Since when it is not a token any more.
    pub revoked_at: Option<Timestamp>,
}

const SELECT: &str =
    "SELECT id, name, hash, append, read, admin, metrics, created_at, expires_at, revoked_at FROM tokens";

impl Appender {
    /// All tokens, by id, revoked and expired ones too.
    ///
    /// *Errors*: a row is not what the schema promises. Half a list would let in whom a damaged row had revoked.
    pub async fn tokens(&mut self) -> Result<Vec<StoredToken>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
        let rows = sqlx::query(sql).fetch_all(self.connection()).await?;
        rows.iter().map(token).collect()
    }

    /// The key that seals sessions and tickets, as hexadecimal digits.
    pub async fn seal_key(&mut self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT seal_key FROM meta").fetch_one(self.connection()).await?)
    }

    /// Adds a token. Call it under the lock.
    pub async fn add_token(&mut self, token: &StoredToken) -> Result<(), CommitError> {
        let sql = "INSERT INTO tokens (id, name, hash, append, read, admin, metrics, created_at, expires_at)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(sql)
            .bind(token.id.clone())
            .bind(token.name.clone())
            .bind(token.hash.to_vec())
            .bind(list(&token.append))
            .bind(list(&token.read))
            .bind(token.admin)
            .bind(token.metrics)
            .bind(token.created_at.to_string())
            .bind(token.expires_at.map(|time| time.to_string()))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Marks a token as revoked. Call it under the lock.
    pub async fn revoke_token(&mut self, id: &str, at: Timestamp) -> Result<(), CommitError> {
        sqlx::query("UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
            .bind(at.to_string())
            .bind(id.to_owned())
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn list(patterns: &[Pattern]) -> String {
    patterns.iter().map(Pattern::to_string).collect::<Vec<_>>().join(",")
}

fn token(row: &SqliteRow) -> Result<StoredToken, StoreError> {
    let damaged = |what| StoreError::Damaged { seq: 0, what };
    let time = |column: usize| -> Result<Option<Timestamp>, StoreError> {
        let text: Option<&str> = row.try_get(column)?;
        text.map(|text| Timestamp::parse(text).ok_or(damaged("a time of a token is none"))).transpose()
    };
    let patterns = |column: usize| -> Result<Vec<Pattern>, StoreError> {
        let text: &str = row.try_get(column)?;
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let parsed: Option<Vec<Pattern>> = parts.map(Pattern::parse).collect();
        parsed.ok_or(damaged("a grant of a token is no stream"))
    };
    Ok(StoredToken {
        id: Arc::from(row.try_get::<&str, _>(0)?),
        name: Arc::from(row.try_get::<&str, _>(1)?),
        hash: row.try_get::<&[u8], _>(2)?.try_into().map_err(|_| damaged("the hash of a token is none"))?,
        append: patterns(3)?,
        read: patterns(4)?,
        admin: row.try_get(5)?,
        metrics: row.try_get(6)?,
        created_at: time(7)?.ok_or(damaged("a token has no time"))?,
        expires_at: time(8)?,
        revoked_at: time(9)?,
    })
}
