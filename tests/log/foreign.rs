//! Events that other processes insert into the view `events`: the transactional outbox.

use crate::fixture::{Place, append, close, content, in_time, line, open, reader, shown, stored};
use evertail::event::Seq;
use evertail::log::{AppendError, Reader, Step};
use sqlx::SqliteConnection;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

async fn insert(connection: &mut SqliteConnection, data: impl ToString) {
    sqlx::query("INSERT INTO events (stream, data) VALUES ('outbox', ?)")
        .bind(data.to_string())
        .execute(connection)
        .await
        .expect("the row keeps the rules");
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::query(sql).execute(connection).await.expect(sql);
}

/// Everything up to this seq, as the lines a reader gives.
async fn read_through(reader: &mut Reader, last: Seq) -> String {
    let mut lines = String::new();
    while reader.cursor() < last {
        let cursor = reader.cursor();
        match reader.next().await.expect("the table is readable") {
            Step::Page(page) if page.cursor > cursor => {
                lines += std::str::from_utf8(&page.bytes).expect("JSON is text")
            }
            Step::CaughtUp => in_time(reader.wait()).await,
            step => panic!("{step:?}"),
        }
    }
    lines
}

#[tokio::test]
async fn rows_of_another_process_are_delivered_in_order_with_our_own() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    let mut live = reader(&log, 0);
    for n in 0..10 {
        append(&log, [content("a", None, &n.to_string())]).await.unwrap();
        insert(&mut other, n).await;
        if n % 3 == 0 {
            shown(&log, 2 * (n + 1)).await;
        }
    }
    let lines = read_through(&mut live, 20).await;
    let rows = stored(&mut other).await;
    assert_eq!(lines, rows.iter().map(line).collect::<String>());
    assert_eq!(rows.len(), 20);
    assert!(rows.is_sorted_by_key(|row| row.created_at));
    assert!(
        rows.iter()
            .zip(["a", "outbox"].iter().cycle())
            .all(|(row, name)| row.content.stream.as_str() == *name)
    );
    close(log, task).await;
}

#[tokio::test]
async fn row_of_another_process_wakes_a_live_reader_without_any_append() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut live = reader(&log, 0);
    assert_eq!(live.next().await.unwrap(), Step::CaughtUp);
    let mut other = place.other_process().await;
    for seq in 1..=5 {
        insert(&mut other, seq).await;
        in_time(live.wait()).await;
        assert_eq!(read_through(&mut live, seq).await.lines().count(), 1);
    }
    close(log, task).await;
}

#[tokio::test]
async fn append_finds_rows_of_another_process_that_nobody_noticed_yet() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.notice_interval = Duration::from_secs(3_600);
    let (log, task) = open(settings).await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    let mut live = reader(&log, 1);
    let mut other = place.other_process().await;
    insert(&mut other, 2).await;
    insert(&mut other, 3).await;
    assert_eq!(append(&log, [content("a", None, "4")]).await.unwrap()[0].seq, 4);
    assert_eq!(read_through(&mut live, 4).await.lines().count(), 3);
    close(log, task).await;
}

#[tokio::test]
async fn rows_that_are_rolled_back_are_never_seen() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut live = reader(&log, 0);
    let mut other = place.other_process().await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    run(&mut other, "BEGIN").await;
    insert(&mut other, "\"taken back\"").await;
    assert_eq!(log.bounds().last_seq, 1);
    assert_eq!(log.event(2).await.unwrap(), None);
    run(&mut other, "ROLLBACK").await;
    insert(&mut other, 2).await;
    let lines = read_through(&mut live, 2).await;
    assert!(!lines.contains("taken back") && lines.ends_with("\"data\":2}\n"), "{lines}");
    close(log, task).await;
}

#[tokio::test]
async fn transaction_of_several_thousand_rows_is_delivered_whole() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.window_bytes_max = 100_000;
    let (log, task) = open(settings).await;
    let mut live = reader(&log, 0);
    let mut other = place.other_process().await;
    run(&mut other, "CREATE TABLE business (n INTEGER)").await;
    run(&mut other, "BEGIN").await;
    run(
        &mut other,
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000)
         INSERT INTO business SELECT n FROM n",
    )
    .await;
    run(
        &mut other,
        "INSERT INTO events (stream, id, data) SELECT 'outbox', 'row-' || n, n FROM business ORDER BY n",
    )
    .await;
    run(&mut other, "COMMIT").await;
    let lines = read_through(&mut live, 5_000).await;
    assert!(lines.lines().zip(1..).all(|(line, n)| line.ends_with(&format!("\"data\":{n}}}"))));
    assert_eq!(lines.lines().count(), 5_000);
    assert_eq!(append(&log, [content("a", None, "1")]).await.unwrap()[0].seq, 5_001);
    close(log, task).await;
}

#[tokio::test]
async fn row_of_another_process_is_noticed_durably_before_it_is_shown() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    for seq in 1..=3 {
        insert(&mut other, seq).await;
        shown(&log, seq).await;
        let noticed: i64 =
            sqlx::query_scalar("SELECT noticed_seq FROM meta").fetch_one(&mut other).await.unwrap();
        assert_eq!(noticed, seq as i64);
    }
    close(log, task).await;
}

#[tokio::test]
async fn append_is_busy_after_the_busy_time_while_another_process_writes_and_heals_when_it_ends() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.store.busy_timeout = Duration::from_millis(100);
    let (log, task) = open(settings).await;
    append(&log, [content("a", Some("w"), "1")]).await.unwrap();
    let mut other = place.other_process().await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    for ids in [Some("w"), Some("x"), None] {
        let before = Instant::now();
        let refused = append(&log, [content("a", ids, "1")]).await;
        assert!(matches!(refused, Err(AppendError::Busy)), "{refused:?}");
        assert!(before.elapsed() >= Duration::from_millis(90), "{:?}", before.elapsed());
    }
    assert!(matches!(in_time(log.trim_through(1)).await, Err(AppendError::Busy)));
    assert!(log.is_open());
    insert(&mut other, 2).await;
    run(&mut other, "COMMIT").await;
    let receipts = append(&log, [content("a", Some("x"), "1"), content("a", Some("w"), "1")]).await.unwrap();
    assert_eq!((receipts[0].seq, receipts[0].is_duplicate), (3, false));
    assert_eq!((receipts[1].seq, receipts[1].is_duplicate), (1, true));
    close(log, task).await;
}

#[tokio::test]
async fn append_waits_for_another_process_that_ends_within_the_busy_time() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { append(&log, [content("a", None, "2")]).await }
    });
    insert(&mut other, 1).await;
    run(&mut other, "COMMIT").await;
    assert_eq!(in_time(waiting).await.unwrap().unwrap()[0].seq, 2);
    close(log, task).await;
}

#[tokio::test]
async fn rows_inserted_while_no_server_runs_are_there_at_the_next_start() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    close(log, task).await;
    let mut other = place.other_process().await;
    insert(&mut other, 2).await;
    let (log, task) = place.open().await;
    assert_eq!(log.bounds().last_seq, 2);
    assert_eq!(read_through(&mut reader(&log, 1), 2).await.lines().count(), 1);
    assert_eq!(append(&log, [content("a", None, "3")]).await.unwrap()[0].seq, 3);
    close(log, task).await;
}

/// Runs beside the log's own tasks: one that waits for the writer must not stop it.
async fn shell(place: &Place, sql: &'static str) -> std::io::Result<Output> {
    let mut command = Command::new("sqlite3");
    command.args(["-cmd", ".timeout 60000"]).arg(place.file()).arg(sql);
    tokio::task::spawn_blocking(move || command.output()).await.expect("nothing panics there")
}

/// Debian's `sqlite3` is older than the linked SQLite: the schema has to work there too. Where there is no such
/// command there is nothing to show.
#[tokio::test]
async fn sqlite3_command_adds_events_and_reads_them() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("x"), "1")]).await.unwrap();
    let add = "BEGIN; INSERT INTO events (stream, id, type, data) VALUES ('a', 'x', NULL, 1), ('b', 'y', 'user.login', '{ \"c\": [1, 2.0] }'); COMMIT;";
    if let Ok(output) = shell(&place, add).await {
        assert!(output.status.success(), "{output:?}");
        shown(&log, 2).await;
        let event = log.event(2).await.unwrap().unwrap();
        assert_eq!(event.content.data.as_deref(), Some("{\"c\":[1,2.0]}"));
        let output = shell(&place, "SELECT seq, stream, type, data FROM events").await.unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "1|a|message|1\n2|b|user.login|{\"c\":[1,2.0]}\n"
        );
        for refused in [
            "UPDATE log SET data = '2'",
            "DELETE FROM log",
            "INSERT OR REPLACE INTO events (seq, stream) VALUES (1, 'a')",
        ] {
            let output = shell(&place, refused).await.unwrap();
            assert!(String::from_utf8_lossy(&output.stderr).contains("evertail: "), "{refused}: {output:?}");
        }
    }
    close(log, task).await;
}
