//! kill -9 at one exact system call after the other: every write, sync and cut of a first start, of a commit, of a
//! checkpoint, of an upgrade, and of a restore. Chance reaches these moments seldom, strace reaches each.

use crate::cli;
use crate::load::{self, Answer, Request};
use crate::server::{Launch, Place, Server, complain, evertail, until};
use crate::table::{self, assert_ordered, assert_sound, rows};
use crate::trace::{missing_strace, strace};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// The calls that change what is on the disk.
const CALLS: [&str; 4] = ["pwrite64", "fsync", "ftruncate", "unlink"];
/// Calls of one kind beyond which something repeats itself.
const POINTS_MAX: u32 = 300;
/// A batch whose pages are many enough to be cut.
const BATCH: usize = 3;
const BATCH_PADDING: usize = 9_000;

/// The server that is killed as it enters this call for the n-th time in one of its threads.
fn killed_at(place: &Place, call: &str, when: u32) -> Launch {
    let inject = format!("inject={call}:signal=SIGKILL:when={when}");
    let trace = format!("trace={call}");
    Launch::new(&place.file()).under(strace(Path::new("/dev/null"), &["-e", &trace, "-e", &inject]))
}

async fn is_killed_at_start(server: &mut Server) -> bool {
    until("it serves or ends", async || server.is_serving() || !server.is_running()).await;
    if !server.is_serving() {
        return true;
    }
    server.serving().await;
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_is_killed_anywhere_leaves_a_file_that_starts() {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED crash_points: {reason}"));
    }
    let mut points = 0;
    for call in CALLS {
        for when in 1..=POINTS_MAX {
            let place = Place::new();
            if !is_killed_at_start(&mut killed_at(&place, call, when).spawn()).await {
                break;
            }
            assert!(when < POINTS_MAX, "it is killed without end");
            points += 1;
            let server = Launch::new(&place.file()).start().await;
            let http = crate::load::http_client();
            let request = Request::one(load::event("audits", "message", None, 0));
            match request.send(&http, &server.base).await {
                Answer::Acked { receipts, .. } => assert_eq!(receipts[0].seq, 1, "killed at {call} {when}"),
                other => panic!("killed at {call} {when}: {other:?}"),
            }
        }
    }
    complain(&format!("{points} crash points of a first start"));
    assert!(points > 20, "{points}");
}

/// The oldest log there is, so that every migration is under way at some time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_is_killed_anywhere_leaves_a_log_that_the_next_start_brings_up_to_date() {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED crash_points: {reason}"));
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs");
    let dump = fs::read_to_string(fixtures.join("0001.sql")).unwrap();
    let model = Place::new();
    let options = SqliteConnectOptions::new().filename(model.file()).create_if_missing(true);
    let mut made = options.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(dump)).execute(&mut made).await.unwrap();
    sqlx::query("PRAGMA journal_mode = WAL").execute(&mut made).await.unwrap();
    made.close().await.unwrap();
    let before = events(&model.file()).await;
    assert!(before.len() > 10);
    let (mut points, mut versions) = (0, BTreeSet::new());
    for call in CALLS {
        for when in 1..=POINTS_MAX {
            let place = Place::new();
            fs::copy(model.file(), place.file()).unwrap();
            if !is_killed_at_start(&mut killed_at(&place, call, when).spawn()).await {
                break;
            }
            assert!(when < POINTS_MAX, "it is killed without end");
            points += 1;
            assert_eq!(events(&place.file()).await, before, "killed at {call} {when}");
            versions.insert(version(&place.file()).await);
            drop(Launch::new(&place.file()).start().await);
            assert_eq!(events(&place.file()).await, before, "killed at {call} {when}");
            let migrations = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap();
            assert_eq!(version(&place.file()).await, migrations.count() as i64, "killed at {call} {when}");
        }
    }
    complain(&format!("{points} crash points of an upgrade, which left migrations {versions:?}"));
    assert!(points > 20 && versions.len() > 2, "{points} {versions:?}");
}

/// Each event as one text.
async fn events(file: &Path) -> Vec<String> {
    let sql = "SELECT json_array(seq, stream, source, id, type, subject, time, created_at, data) FROM events";
    sqlx::query_scalar(sql).fetch_all(&mut table::open(file).await).await.unwrap()
}

/// The newest migration, none of them by halves.
async fn version(file: &Path) -> i64 {
    let sql = "SELECT max(version) FROM _sqlx_migrations HAVING count(*) = max(version) AND min(success)";
    sqlx::query_scalar(sql).fetch_one(&mut table::open(file).await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_killed_anywhere_is_there_whole_or_not_at_all() {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED crash_points: {reason}"));
    }
    let mut points = 0;
    for call in CALLS {
        // One file through all of it: each start has to make good what the kill before it has left.
        let place = Place::new();
        drop(Launch::new(&place.file()).start().await);
        let mut stored = 0;
        for when in 1..=POINTS_MAX {
            let mut server = killed_at(&place, call, when).spawn();
            let is_killed = is_killed_at_start(&mut server).await;
            points += 1;
            let mut acked = 0;
            let mut is_answered = !is_killed;
            while is_answered && acked < 2 {
                is_answered = post_batch(&server.base).await;
                acked += usize::from(is_answered);
            }
            drop(server);
            let server = Launch::new(&place.file()).start().await;
            let all = rows(&place.file(), 0).await;
            assert_ordered(0, &all);
            let new = all.len() - stored;
            let is_whole = new == acked * BATCH || (!is_answered && new == (acked + 1) * BATCH);
            assert!(is_whole, "killed at {call} {when}: {acked} batches acked, {new} events stored");
            stored = all.len();
            drop(server);
            if is_answered {
                break;
            }
            assert!(when < POINTS_MAX, "it is killed without end");
        }
        assert_sound(&place.file()).await;
    }
    complain(&format!(
        "{points} crash points of a start, two commits and what the next start does with them"
    ));
    assert!(points > 20, "{points}");
}

/// What was in the WAL when it began is in it, or in the file that is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_anywhere_leaves_the_log_as_it_was_or_the_backup() {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED crash_points: {reason}"));
    }
    // Two batches; the second came after the backup, and is still in the WAL.
    let model = Place::new();
    let mut server = Launch::new(&model.file()).start().await;
    assert!(post_batch(&server.base).await);
    let restore = ["restore", "copy.db", "--file", "log.db"];
    let made = cli::run(&model, &server.base, &["backup", "copy.db", "--file", "log.db"], "").await;
    assert!(made.status.success(), "{made:?}");
    assert!(post_batch(&server.base).await);
    server.kill();

    let mut points = 0;
    for call in ["pwrite64", "fsync", "ftruncate", "unlink", "linkat", "rename"] {
        for when in 1..=POINTS_MAX {
            let place = Place::new();
            for name in ["log.db", "log.db-wal", "copy.db"] {
                fs::copy(model.folder().join(name), place.folder().join(name)).unwrap();
            }
            let inject = format!("inject={call}:signal=SIGKILL:when={when}");
            let trace = format!("trace={call}");
            let mut command =
                evertail(&strace(Path::new("/dev/null"), &["-e", &trace, "-e", &inject]), place.folder());
            command.args(restore).stdout(Stdio::null()).stderr(Stdio::null());
            let mut running = cli::Running(command.spawn().unwrap());
            let is_done = running.ended().await.success();
            points += 1;
            // What is there starts, whichever it is.
            drop(Launch::new(&place.file()).start().await);
            let there = rows(&place.file(), 0).await.len();
            let mut kept = Vec::new();
            for entry in fs::read_dir(place.folder()).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if name.contains(".before-") && !name.ends_with("-wal") && !name.ends_with("-shm") {
                    kept.push(rows(&path, 0).await.len());
                }
            }
            let is_backup = there == BATCH && kept == [2 * BATCH];
            let is_as_it_was = there == 2 * BATCH;
            assert!(
                if is_done { is_backup } else { is_backup || is_as_it_was },
                "killed at {call} {when}: {there} events, kept {kept:?}"
            );
            if is_done {
                break;
            }
            assert!(when < POINTS_MAX, "it is killed without end");
        }
    }
    complain(&format!("{points} crash points of a restore"));
    assert!(points > 20, "{points}");
}

/// True if it was acked.
async fn post_batch(base: &str) -> bool {
    let event =
        |_| load::event("audits", "message", Some(format!("{:x}", rand::random::<u64>())), BATCH_PADDING);
    let request = Request::batch((0..BATCH).map(event).collect());
    match request.send(&crate::load::http_client(), base).await {
        Answer::Acked { receipts, .. } => receipts.len() == BATCH,
        Answer::None => false,
        other => panic!("{other:?}"),
    }
}
