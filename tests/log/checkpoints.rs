//! A log whose checkpoints are another program's, such as Litestream's, which keeps a transaction open so that nobody else
//! does them.

use crate::fixture::{Place, append, assert_sound, close, content, open, shown, stored};
use evertail::log::LogSettings;
use sqlx::{Connection, SqliteConnection};
use std::fs;
use std::time::Duration;

fn external(place: &Place) -> LogSettings {
    let mut settings = place.settings();
    settings.store.is_checkpointing = false;
    settings.store.busy_timeout = Duration::from_millis(50);
    settings
}

fn bytes(place: &Place, suffix: &str) -> u64 {
    let name =
        place.file().file_name().and_then(|name| name.to_str()).expect("it has a name").to_owned() + suffix;
    fs::metadata(place.file().with_file_name(name)).map_or(0, |file| file.len())
}

/// A transaction that reads, and keeps the WAL from being moved any further.
async fn pin(other: &mut SqliteConnection) {
    sqlx::query("BEGIN; SELECT count(*) FROM log").execute(other).await.expect("it can be done");
}

#[tokio::test]
async fn log_leaves_the_wal_alone_and_opens_whoever_reads() {
    let place = Place::new();
    let (log, task) = open(external(&place)).await;
    let mut other = place.other_process().await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    pin(&mut other).await;
    let before = bytes(&place, "");
    let large = format!("\"{}\"", "x".repeat(100_000));
    for _ in 0..100 {
        append(&log, [content("a", None, &large)]).await.unwrap();
    }
    // More than three times what makes a checkpoint due.
    assert_eq!(bytes(&place, ""), before);
    assert!(bytes(&place, "-wal") > 9 << 20);
    close(log, task).await;

    let (log, task) = open(external(&place)).await;
    assert_eq!(log.bounds().last_seq, 101);
    assert_eq!(append(&log, [content("a", None, "2")]).await.unwrap()[0].seq, 102);
    assert_eq!(bytes(&place, ""), before);
    // The other does it in its own time, and the log goes on.
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    let busy: i64 =
        sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut other).await.unwrap();
    assert_eq!((busy, bytes(&place, "-wal")), (0, 0));
    assert_eq!(append(&log, [content("a", None, "3")]).await.unwrap()[0].seq, 103);
    close(log, task).await;
    assert_eq!(stored(&mut other).await.len(), 103);
    other.close().await.unwrap();
    assert_sound(&place.file()).await;
}

#[tokio::test]
async fn events_that_another_process_left_in_the_wal_are_shown_after_a_start() {
    let place = Place::new();
    let (log, task) = open(external(&place)).await;
    let mut other = place.other_process().await;
    close(log, task).await;
    sqlx::query("PRAGMA synchronous = OFF").execute(&mut other).await.unwrap();
    sqlx::query("INSERT INTO events (stream) VALUES ('a')").execute(&mut other).await.unwrap();
    let before = fs::read(place.file().with_extension("db-wal")).unwrap();
    assert!(!before.is_empty());
    let (log, task) = open(external(&place)).await;
    assert_eq!(log.bounds().last_seq, 1);
    let after = fs::read(place.file().with_extension("db-wal")).unwrap();
    assert!(after.starts_with(&before), "the WAL was written anew, and is the same");
    shown(&log, 1).await;
    close(log, task).await;
}
