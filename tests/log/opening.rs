//! Opening a file: which are refused, how, and what opening one leaves.

use crate::fixture::{Place, append, close, content, open, stored};
use evertail::log::Log;
use evertail::store::OpenError;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

#[tokio::test]
async fn second_log_on_the_same_file_is_refused_and_told_which_process_has_it() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let refused = Log::open(place.settings()).await.unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    let message = refused.to_string();
    assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
    assert!(message.contains(place.file().to_str().unwrap()), "{message}");
    assert_eq!(append(&log, [content("a", None, "1")]).await.unwrap()[0].seq, 1);
    close(log, task).await;
    let (log, task) = place.open().await;
    assert_eq!(log.bounds().last_seq, 1);
    close(log, task).await;
}

#[tokio::test]
async fn file_of_another_sqlite_application_is_refused_and_left_alone() {
    for journal_mode in ["DELETE", "WAL"] {
        let place = Place::new();
        let mut owner = SqliteConnectOptions::new()
            .filename(place.file())
            .create_if_missing(true)
            .connect()
            .await
            .unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA journal_mode = {journal_mode}")))
            .execute(&mut owner)
            .await
            .unwrap();
        sqlx::query("CREATE TABLE theirs (n INTEGER); INSERT INTO theirs VALUES (1)")
            .execute(&mut owner)
            .await
            .unwrap();
        owner.close().await.unwrap();
        let before = fs::read(place.file()).unwrap();
        let refused = Log::open(place.settings()).await.unwrap_err();
        assert!(matches!(refused, OpenError::NotALog { .. }), "{refused:?}");
        assert!(
            fs::read(place.file()).unwrap() == before,
            "a file in journal mode {journal_mode} was changed"
        );
    }
}

#[tokio::test]
async fn file_that_is_not_sqlite_is_refused_and_left_alone() {
    let place = Place::new();
    let text = "these are somebody's notes\n".repeat(500);
    fs::write(place.file(), &text).unwrap();
    let refused = Log::open(place.settings()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Sqlite { .. } | OpenError::NotALog { .. }), "{refused:?}");
    assert_eq!(fs::read_to_string(place.file()).unwrap(), text);
}

#[tokio::test]
async fn log_of_a_newer_format_is_refused_and_left_alone() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    close(log, task).await;
    let mut newer = place.other_process().await;
    sqlx::query("UPDATE meta SET format = 7").execute(&mut newer).await.unwrap();
    newer.close().await.unwrap();
    let refused = Log::open(place.settings()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Newer { format: 7, format_max: 6, .. }), "{refused:?}");
    let mut newer = place.other_process().await;
    let format: i64 = sqlx::query_scalar("SELECT format FROM meta").fetch_one(&mut newer).await.unwrap();
    assert_eq!((format, stored(&mut newer).await.len()), (7, 1));
}

#[tokio::test]
async fn log_whose_wal_another_program_pins_is_refused_as_busy() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut pinning = place.other_process().await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    sqlx::query("BEGIN; SELECT count(*) FROM log").execute(&mut pinning).await.unwrap();
    append(&log, [content("a", None, "2")]).await.unwrap();
    close(log, task).await;
    let mut settings = place.settings();
    settings.store.busy_timeout = Duration::from_millis(50);
    let refused = Log::open(settings.clone()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Busy { .. }), "{refused:?}");
    sqlx::query("ROLLBACK").execute(&mut pinning).await.unwrap();
    let (log, task) = open(settings).await;
    assert_eq!(log.bounds().last_seq, 2);
    close(log, task).await;
}

#[tokio::test]
async fn every_file_of_the_log_is_its_owners_alone() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.store.file = place.file().with_file_name("made/for/it").join("log.db");
    let folder = settings.store.file.parent().unwrap().to_owned();
    let (log, task) = open(settings).await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["log.db", "log.db-shm", "log.db-wal", "log.db.lock"]);
    assert_eq!(mode(&folder), 0o700);
    close(log, task).await;
}

#[tokio::test]
async fn new_file_is_a_log_by_its_header_too() {
    let place = Place::new();
    // An empty file is a new one.
    fs::write(place.file(), "").unwrap();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    for (pragma, expected) in [
        ("application_id", i64::from(u32::from_be_bytes(*b"EvTl"))),
        ("page_size", 8_192),
        // Incremental.
        ("auto_vacuum", 2),
    ] {
        let got: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}")))
            .fetch_one(&mut other)
            .await
            .unwrap();
        assert_eq!(got, expected, "{pragma}");
    }
    let journal_mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut other).await.unwrap();
    assert_eq!(journal_mode, "wal");
    close(log, task).await;
}

#[tokio::test]
async fn first_start_that_was_killed_is_finished_by_the_next() {
    let journal_mode = "PRAGMA journal_mode = WAL";
    let mark = "PRAGMA application_id = 0x4576546C";
    let migrations = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
        installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL,
        execution_time BIGINT NOT NULL)";
    for steps in [&[][..], &[journal_mode], &[journal_mode, mark], &[journal_mode, mark, migrations]] {
        let place = Place::new();
        fs::write(place.file(), "").unwrap();
        let mut killed = place.other_process().await;
        for step in steps {
            sqlx::query(*step).execute(&mut killed).await.unwrap();
        }
        killed.close().await.unwrap();
        let (log, task) = place.open().await;
        assert_eq!(append(&log, [content("a", None, "1")]).await.unwrap()[0].seq, 1, "after {steps:?}");
        close(log, task).await;
    }
}

#[tokio::test]
async fn log_keeps_its_identity_over_a_restart_and_no_two_share_one() {
    let (place, other_place) = (Place::new(), Place::new());
    let (log, task) = place.open().await;
    let id = log.id().to_owned();
    close(log, task).await;
    let (log, task) = place.open().await;
    assert_eq!(log.id(), id);
    let (other, other_task) = other_place.open().await;
    assert_ne!(other.id(), id);
    close(log, task).await;
    close(other, other_task).await;
}

#[tokio::test]
async fn everything_is_moved_into_the_file_before_anyone_is_let_in() {
    let place = Place::new();
    let (log, task) = place.open().await;
    // Another connection keeps SQLite from removing the WAL at close.
    let mut other = place.other_process().await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    close(log, task).await;
    sqlx::query("INSERT INTO events (stream) VALUES ('a')").execute(&mut other).await.unwrap();
    let wal = place.file().with_file_name("log.db-wal");
    assert!(fs::metadata(&wal).unwrap().len() > 0);
    let (log, task) = place.open().await;
    assert_eq!(fs::metadata(&wal).unwrap().len(), 0);
    assert_eq!(log.bounds().last_seq, 2);
    close(log, task).await;
}

/// `sqlx::migrate!` embeds the folder when the crate is compiled, and misses a file added later without a rebuild.
#[tokio::test]
async fn every_migration_of_the_folder_is_embedded() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
        .fetch_one(&mut place.other_process().await)
        .await
        .unwrap();
    let folder = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap();
    assert_eq!(applied, folder.count() as i64);
    close(log, task).await;
}

#[tokio::test]
async fn linked_sqlite_has_no_wal_reset_bug() {
    let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
    let version: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await.unwrap();
    let numbers: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(numbers >= vec![3, 51, 3], "{version}");
}
