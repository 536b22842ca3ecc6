//! What SQLite can tell by itself, and whether the schema is the one of the migrations.

use super::{Check, FROM_BACKUP, Finding, Tally};
use crate::store::StoreError;
use crate::store::open::MIGRATOR;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row, SqliteConnection};
use std::collections::BTreeMap;

/// SQLite's look at every page, index and constraint. One finding, however much is wrong.
pub(super) async fn integrity(connection: &mut SqliteConnection) -> Result<Finding, StoreError> {
    let lines: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(100)").fetch_all(connection).await?;
    let mut wrong = Tally::default();
    for line in lines.into_iter().filter(|line| line != "ok") {
        wrong.add(|| format!("SQLite finds the file damaged: {line}"));
    }
    let well = || "SQLite finds every page, index and constraint as it should be".to_owned();
    Ok(wrong.finding(Check::Integrity, well, FROM_BACKUP))
}

/// What an object of the schema is, by its kind and name.
type Objects = BTreeMap<(String, String), (String, String)>;

/// The triggers are what keeps a stored event from changing, so each must be there, word for word. Tables of others are none
/// of our business, but what they put on ours is.
pub(super) async fn schema(connection: &mut SqliteConnection) -> Result<Finding, StoreError> {
    let mut model = SqliteConnectOptions::new().in_memory(true).disable_statement_logging().connect().await?;
    MIGRATOR.run_direct(None, &mut model, false).await.map_err(sqlx::Error::from)?;
    let (expected, found) = (objects(&mut model).await?, objects(connection).await?);
    let mut wrong = Tally::default();
    for ((kind, name), (_, sql)) in &expected {
        match found.get(&(kind.clone(), name.clone())) {
            None => wrong.add(|| format!("the {kind} {name} is missing")),
            Some((_, other)) if other != sql => wrong.add(|| format!("the {kind} {name} is not ours")),
            Some(_) => {}
        }
    }
    if wrong.count > 0 {
        let next =
            "without it the file does not keep what it promises; restore a backup from before it was changed";
        return Ok(wrong.finding(Check::Schema, String::new, next));
    }
    let is_ours = |table: &str| expected.contains_key(&("table".to_owned(), table.to_owned()));
    let added = found.iter().find(|(key, (table, _))| {
        matches!(key.0.as_str(), "trigger" | "index") && !expected.contains_key(key) && is_ours(table)
    });
    Ok(match added {
        None => Finding::ok(Check::Schema, "tables, views and triggers are those of this version"),
        Some(((kind, name), (table, _))) => Finding::warning(
            Check::Schema,
            format!("the {kind} {name} on the table {table} is not Evertail's"),
            format!("it runs with every append; if nobody needs it, `drop {kind} \"{name}\"`"),
        ),
    })
}

async fn objects(connection: &mut SqliteConnection) -> Result<Objects, StoreError> {
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema
               WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> '_sqlx_migrations'";
    let rows = sqlx::query(sql).fetch_all(connection).await?;
    let object = |row: &sqlx::sqlite::SqliteRow| {
        // ALTER TABLE joins texts; where it leaves spaces is SQLite's own affair.
        let sql: String = row.try_get::<&str, _>(3)?.split_whitespace().collect();
        Ok(((row.try_get(0)?, row.try_get(1)?), (row.try_get(2)?, sql)))
    };
    rows.iter().map(object).collect()
}
