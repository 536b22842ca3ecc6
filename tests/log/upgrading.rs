//! Files of earlier versions, as they were left: each is brought up to date, and keeps what it promised.
//!
//! `tests/fixtures/README.md` says what they are and how the next one is made.

use crate::fixture::{Place, append, assert_sound, close, content, in_time, line, reader, shown, stored};
use evertail::event::Content;
use evertail::log::{Log, Step};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

fn names(folder: &str) -> BTreeSet<String> {
    let folder =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("a folder of the repository");
    folder
        .map(|entry| entry.expect("it is readable").file_name().into_string().expect("its name is text"))
        .collect()
}

/// The number that a migration, or a fixture, begins with.
fn numbers(folder: &str) -> BTreeSet<u32> {
    names(folder).iter().map(|name| name[..4].parse().expect("it begins with a number")).collect()
}

async fn make(place: &Place, fixture: &str) -> SqliteConnection {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs").join(fixture);
    let dump = fs::read_to_string(path).expect("it is text");
    // Its mode is no part of the dump.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(place.file()).expect("it is new");
    let mut connection = place.other_process().await;
    sqlx::raw_sql(AssertSqlSafe(dump)).execute(&mut connection).await.expect("it is a dump");
    connection
}

/// Everything after this cursor up to this seq, as lines.
async fn read(log: &Log, cursor: u64, through: u64) -> String {
    let mut reader = reader(log, cursor);
    let mut text = String::new();
    while reader.cursor() < through {
        match in_time(reader.next()).await.expect("the table is readable") {
            Step::Page(page) => text += std::str::from_utf8(&page.bytes).expect("JSON is text"),
            Step::Gap(_) => {}
            other => panic!("{other:?} at {} of {through}", reader.cursor()),
        }
    }
    text
}

#[test]
fn every_migration_has_a_log_that_was_left_before_the_next() {
    let migrations = numbers("migrations");
    let newest = migrations.last().unwrap();
    let fixtures = numbers("tests/fixtures/logs");
    let missing: Vec<_> = migrations.difference(&fixtures).filter(|number| number != &newest).collect();
    assert!(missing.is_empty(), "no log in tests/fixtures/logs ends with migration {missing:?}");
    assert!(fixtures.is_subset(&migrations));
}

#[tokio::test]
async fn log_of_every_earlier_version_is_brought_up_to_date_and_keeps_its_promises() {
    for fixture in names("tests/fixtures/logs") {
        let place = Place::new();
        let mut left = make(&place, &fixture).await;
        let before = stored(&mut left).await;
        let ids: Vec<(String, String, String, i64)> =
            sqlx::query_as("SELECT id, stream, source, seq FROM ids").fetch_all(&mut left).await.unwrap();
        let log_id: String =
            sqlx::query_scalar("SELECT log_id FROM meta").fetch_one(&mut left).await.unwrap();
        let trimmed_seq: i64 =
            sqlx::query_scalar("SELECT trimmed_seq FROM meta").fetch_one(&mut left).await.unwrap();
        left.close().await.unwrap();
        assert!(before.len() > 10 && ids.len() > 4 && trimmed_seq > 0, "{fixture} shows something");

        let (log, task) = place.open().await;
        assert_eq!(log.id(), log_id, "{fixture}");
        assert_eq!(log.bounds().first_seq, trimmed_seq as u64 + 1, "{fixture}");
        let last_seq = before.last().unwrap().seq;
        let lines: String = before.iter().map(line).collect();
        shown(&log, last_seq).await;
        // What was trimmed and not told yet may be told behind them.
        let read = read(&log, trimmed_seq as u64, last_seq).await;
        assert_eq!(
            read.lines().take(before.len()).collect::<Vec<_>>(),
            lines.lines().collect::<Vec<_>>(),
            "{fixture}"
        );

        for (id, stream, source, seq) in &ids {
            let known = before.iter().find(|event| event.seq == *seq as u64);
            let repeat = known.map(|event| event.content.clone()).unwrap_or_else(|| {
                let source = Arc::from(source.as_str());
                Content { source, ..content(stream, Some(id), "\"whatever it was\"") }
            });
            let receipt = append(&log, [repeat]).await.unwrap().remove(0);
            assert_eq!((receipt.seq, receipt.is_duplicate), (*seq as u64, true), "{fixture}: {id}");
        }
        let receipt = append(&log, [content("audits", Some("a-new-one"), "1")]).await.unwrap().remove(0);
        assert!(receipt.seq > last_seq && !receipt.is_duplicate, "{fixture}");
        close(log, task).await;
        let mut now = place.other_process().await;
        let after = stored(&mut now).await;
        assert_eq!(after[..before.len()], before, "{fixture}");
        let (events, all): (i64, i64) =
            sqlx::query_as("SELECT sum(events), (SELECT count(*) FROM log) FROM streams")
                .fetch_one(&mut now)
                .await
                .unwrap();
        assert_eq!((events, all), (after.len() as i64, after.len() as i64), "{fixture}");
        let applied: Vec<u32> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
            .fetch_all(&mut now)
            .await
            .unwrap();
        assert_eq!(applied.into_iter().collect::<BTreeSet<_>>(), numbers("migrations"), "{fixture}");
        now.close().await.unwrap();
        assert_sound(&place.file()).await;
    }
}

/// A migration was changed after a file had it: nobody knows what that file is.
#[tokio::test]
async fn log_of_another_history_is_refused_and_left_alone() {
    let place = Place::new();
    let mut left = make(&place, "0003.sql").await;
    sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 2")
        .execute(&mut left)
        .await
        .unwrap();
    left.close().await.unwrap();
    let refused = Log::open(place.settings()).await.unwrap_err();
    assert!(matches!(refused, evertail::store::OpenError::Migrate { .. }), "{refused:?}");
    let format: i64 = sqlx::query_scalar("SELECT format FROM meta")
        .fetch_one(&mut place.other_process().await)
        .await
        .unwrap();
    assert_eq!(format, 2);
}
