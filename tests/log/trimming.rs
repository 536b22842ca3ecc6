//! Trimming: what is deleted, what is kept, and who is told.

use crate::fixture::{
    Place, append, close, content, in_time, open, options, reader, start, stored, stored_of, trim,
};
use evertail::event::{Content, RetentionRules, Seq};
use evertail::log::{Bounds, Gap, Log, Step};
use evertail::store::{Cause, Excess};
use futures_util::FutureExt;
use sqlx::{Connection, SqliteConnection};

type StreamRow = (String, i64, i64, i64, i64);

async fn streams(connection: &mut SqliteConnection) -> Vec<StreamRow> {
    sqlx::query_as("SELECT name, first_seq, last_seq, events, bytes FROM streams ORDER BY name")
        .fetch_all(connection)
        .await
        .expect("the table is readable")
}

fn gap(from: Seq, to: Seq) -> Step {
    Step::Gap(Gap { from, to, streams: Vec::new() })
}

async fn append_each(log: &Log, contents: impl IntoIterator<Item = Content>) {
    for content in contents {
        append(log, [content]).await.expect("the event is stored");
    }
}

async fn append_count(log: &Log, count: u64) {
    append_each(log, (1..=count).map(|n| content("a", None, &n.to_string()))).await;
}

#[tokio::test]
async fn trimming_deletes_a_prefix_and_keeps_the_totals_true() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    append_each(&log, ["a", "b", "a", "b", "a"].map(|name| content(name, None, "12345"))).await;
    append_each(&log, [Content::new(crate::fixture::stream("c"))]).await;
    assert_eq!(trim(&log, 3).await, Bounds { first_seq: 4, last_seq: 7 });
    assert_eq!(stored(&mut other).await.iter().map(|row| row.seq).collect::<Vec<_>>(), [4, 5, 6, 7]);
    let row = |name: &str, first, last, events, bytes| (name.to_owned(), first, last, events, bytes);
    let others = async |other: &mut SqliteConnection| {
        let mut rows = streams(other).await;
        rows.retain(|row| row.0 != "evertail");
        rows
    };
    assert_eq!(others(&mut other).await, [row("a", 5, 5, 1, 5), row("b", 4, 4, 1, 5), row("c", 6, 6, 1, 0)]);
    assert_eq!(trim(&log, 5).await, Bounds { first_seq: 6, last_seq: 8 });
    assert_eq!(others(&mut other).await, [row("a", 6, 5, 0, 0), row("b", 5, 4, 0, 0), row("c", 6, 6, 1, 0)]);
    append_each(&log, [content("b", None, "1"), content("b", None, "1")]).await;
    assert_eq!(others(&mut other).await, [row("a", 6, 5, 0, 0), row("b", 9, 10, 2, 2), row("c", 6, 6, 1, 0)]);
    close(log, task).await;
}

#[tokio::test]
async fn trimming_what_is_trimmed_or_beyond_the_log_does_what_there_is_to_do() {
    let place = Place::new();
    let (log, task) = place.open().await;
    assert_eq!(trim(&log, Seq::MAX).await, Bounds { first_seq: 1, last_seq: 0 });
    append_count(&log, 3).await;
    assert_eq!(trim(&log, 0).await, Bounds { first_seq: 1, last_seq: 3 });
    assert_eq!(trim(&log, 2).await, Bounds { first_seq: 3, last_seq: 4 });
    assert_eq!(trim(&log, 1).await, Bounds { first_seq: 3, last_seq: 4 });
    assert_eq!(trim(&log, Seq::MAX).await, Bounds { first_seq: 5, last_seq: 5 });
    assert_eq!(trim(&log, 4).await, Bounds { first_seq: 5, last_seq: 5 });
    // Only what told of a trim: not told of in turn.
    assert_eq!(trim(&log, 5).await, Bounds { first_seq: 6, last_seq: 5 });
    close(log, task).await;
}

#[tokio::test]
async fn seq_is_never_reused_after_everything_was_trimmed() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append_count(&log, 3).await;
    trim(&log, 3).await;
    trim(&log, 4).await;
    assert_eq!(append(&log, [content("a", None, "5")]).await.unwrap()[0].seq, 5);
    trim(&log, 5).await;
    trim(&log, 6).await;
    close(log, task).await;
    let mut other = place.other_process().await;
    sqlx::query("INSERT INTO events (stream) VALUES ('a')").execute(&mut other).await.unwrap();
    let (log, task) = place.open().await;
    assert_eq!(log.bounds(), Bounds { first_seq: 7, last_seq: 7 });
    trim(&log, 7).await;
    trim(&log, 8).await;
    close(log, task).await;
    let (log, task) = place.open().await;
    assert_eq!(append(&log, [content("a", None, "9")]).await.unwrap()[0].seq, 9);
    close(log, task).await;
}

#[tokio::test]
async fn reader_is_told_exactly_the_gap_that_it_had_not_read() {
    for window_bytes_max in [0, 1 << 20] {
        let place = Place::new();
        let mut settings = place.settings();
        settings.window_bytes_max = window_bytes_max;
        let (log, task) = open(settings).await;
        append_count(&log, 10).await;
        let mut readers: Vec<_> = (0..=10).map(|cursor| reader(&log, cursor)).collect();
        trim(&log, 6).await;
        for (cursor, reader) in (0..).zip(&mut readers) {
            if cursor < 6 {
                assert_eq!(reader.next().await.unwrap(), gap(cursor + 1, 6));
                assert_eq!(reader.cursor(), 6);
            }
            // The eleventh tells of the trim.
            let Step::Page(page) = reader.next().await.unwrap() else { panic!("7 to 11 are retained") };
            assert!(page.bytes.starts_with(format!("{{\"seq\":{},", cursor.max(6) + 1).as_bytes()));
            assert_eq!(page.events as u64, 11 - cursor.max(6));
            assert_eq!(reader.next().await.unwrap(), Step::CaughtUp);
        }
        close(log, task).await;
    }
}

#[tokio::test]
async fn reader_that_waits_while_everything_is_trimmed_has_read_it_and_is_told_nothing() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append_count(&log, 3).await;
    let live = reader(&log, 3);
    let mut behind = reader(&log, 2);
    trim(&log, 3).await;
    in_time(behind.wait()).await;
    assert_eq!(behind.next().await.unwrap(), gap(3, 3));
    for mut reader in [live, behind] {
        let Step::Page(page) = reader.next().await.unwrap() else {
            panic!("4 is new, and tells of the trim")
        };
        assert_eq!((page.cursor, page.events), (4, 1));
        assert_eq!(reader.next().await.unwrap(), Step::CaughtUp);
    }
    close(log, task).await;
}

/// The reader has looked at the bounds and waits for its turn at the table when the trim comes.
#[tokio::test]
async fn events_trimmed_while_a_reader_catches_up_are_told_as_a_gap() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.window_bytes_max = 0;
    settings.catch_up_pages_max = 1;
    let (log, task) = open(settings).await;
    append_count(&log, 10).await;
    // With a selection, so that each reads a page of its own.
    let filtered = |cursor| {
        let selection = evertail::event::Selection::stream(&crate::fixture::stream("other"));
        log.reader(cursor, evertail::log::ReaderOptions { selection, ..options() })
    };
    let mut firsts: Vec<_> = (0..100).map(|_| filtered(0)).collect();
    let mut second = reader(&log, 2);
    let mut filtered = filtered(2);
    // SQLite's thread may be so quick that a page is there before it was waited for; then the next one tries.
    let under_way = firsts.iter_mut().map(|first| Box::pin(first.next()));
    let has_the_turn = under_way
        .map(|mut page| (&mut page).now_or_never().is_none().then_some(page))
        .find_map(|page| page)
        .expect("one of them has the turn");
    let mut waits = start(second.next());
    let mut waits_too = start(filtered.next());
    trim(&log, 6).await;
    drop(has_the_turn);
    assert_eq!(in_time(&mut waits).await.unwrap(), gap(3, 6));
    assert_eq!(in_time(&mut waits_too).await.unwrap(), gap(3, 6));
    drop((waits, waits_too));
    let Step::Page(page) = second.next().await.unwrap() else { panic!("7 to 10 are retained") };
    assert!(page.bytes.starts_with(b"{\"seq\":7,"));
    let mut first = firsts.pop().expect("there are many");
    assert_eq!(in_time(first.next()).await.unwrap(), gap(1, 6));
    close(log, task).await;
}

#[tokio::test]
async fn trimmed_event_is_gone_and_a_retained_one_is_not() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append_count(&log, 3).await;
    trim(&log, 2).await;
    for seq in [0, 1, 2, 5, Seq::MAX] {
        assert_eq!(log.event(seq).await.unwrap(), None, "{seq}");
    }
    assert_eq!(log.event(3).await.unwrap().unwrap().seq, 3);
    close(log, task).await;
}

#[tokio::test]
async fn trim_that_has_begun_goes_on_when_its_future_is_dropped() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append_count(&log, 3).await;
    append_each(&log, vec![content("a", None, "1"); 5]).await;
    let mut steps = reader(&log, 0);
    // So many that it goes in steps: it has begun, and is not done.
    append(&log, vec![content("a", None, "1"); 5_000]).await.unwrap();
    let mut trim = start(log.trim_through(5_000));
    in_time(async {
        while log.bounds().first_seq == 1 {
            assert!((&mut trim).now_or_never().is_none(), "it takes more than one step");
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(trim);
    assert!(matches!(steps.next().await, Ok(Step::Gap(_))));
    in_time(async {
        while log.bounds() != (Bounds { first_seq: 5_001, last_seq: 5_009 }) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    close(log, task).await;
}

/// Three blocks of the index and a bit, in streams that are common, rare, and only at the end.
#[tokio::test]
async fn long_trim_goes_in_steps_with_appends_in_between_and_totals_are_true_after_each() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    let name = |seq: Seq| match seq {
        5 | 9_000 => "rare",
        6_000 => "once",
        13_000.. => "late",
        _ if seq.is_multiple_of(3) => "third",
        _ => "common",
    };
    let contents =
        |seqs: std::ops::Range<Seq>| seqs.map(|seq| content(name(seq), None, "12")).collect::<Vec<_>>();
    for start in (1..13_001).step_by(1_000) {
        append(&log, contents(start..start + 1_000)).await.unwrap();
    }
    let mut watcher = reader(&log, 0);
    let mut trim = start(log.trim_through(12_500));
    let mut seen = vec![0];
    for seq in 13_001..13_006 {
        assert_eq!(append(&log, contents(seq..seq + 1)).await.unwrap()[0].seq, seq);
        if let Ok(Step::Gap(gap)) = watcher.next().await {
            seen.push(gap.to);
        }
        let mut snapshot = other.begin().await.unwrap();
        let trimmed: i64 =
            sqlx::query_scalar("SELECT trimmed_seq FROM meta").fetch_one(&mut *snapshot).await.unwrap();
        let rows = streams(&mut snapshot).await;
        let true_rows: Vec<StreamRow> = sqlx::query_as(
            "SELECT name, coalesce(min(seq), last_seq + 1), last_seq, count(seq), coalesce(sum(length(data)), 0)
             FROM streams LEFT JOIN log ON stream = name GROUP BY name",
        )
        .fetch_all(&mut *snapshot)
        .await
        .unwrap();
        assert_eq!(rows, true_rows, "after {trimmed}");
        snapshot.rollback().await.unwrap();
    }
    in_time(&mut trim).await.unwrap();
    assert_eq!(log.bounds().first_seq, 12_501);
    seen.push(12_500);
    assert!(seen.is_sorted(), "{seen:?}");
    let blocks: Vec<i64> =
        sqlx::query_scalar("SELECT DISTINCT block FROM blocks").fetch_all(&mut other).await.unwrap();
    assert!(blocks.iter().all(|block| *block >= 3), "{blocks:?}");
    drop(trim);
    close(log, task).await;
}

#[tokio::test]
async fn step_of_a_trim_is_bounded_in_bytes() {
    let place = Place::new();
    let mut opened = evertail::store::open(&place.settings().store).await.unwrap();
    let mut other = place.other_process().await;
    for bytes in [5 << 20, 5 << 20, 1, 9 << 20, 1] {
        sqlx::query("INSERT INTO events (stream, data) VALUES ('a', json_quote(printf('%.*c', ?, 'x')))")
            .bind(bytes)
            .execute(&mut other)
            .await
            .unwrap();
    }
    let excess = Excess { through: 5, ..Excess::default() };
    let mut trimmed = vec![0];
    while trimmed[trimmed.len() - 1] < 5 {
        let step = opened.appender.trim_step(None, excess, Cause::Request).await.unwrap();
        trimmed.push(step.trimmed_seq);
    }
    assert_eq!(trimmed, [0, 1, 3, 4, 5]);
}

#[tokio::test]
async fn retention_keeps_the_newest_events_and_little_more() {
    const KEPT: u64 = 100;
    let place = Place::new();
    let mut settings = place.settings();
    settings.retention.log.events = Some(KEPT);
    let (log, task) = open(settings.clone()).await;
    let mut other = place.other_process().await;
    for round in 1..=30 {
        append(&log, vec![content("a", None, "1"); 200]).await.unwrap();
        // What is due after one request is done before the next is taken.
        append(&log, [content("b", None, "1")]).await.unwrap();
        let Bounds { first_seq, last_seq } = log.bounds();
        let told = stored_of(&mut other, "evertail").await.len() as u64;
        assert!(last_seq >= round * 201 && last_seq <= round * 201 + 1 && told <= 1, "{last_seq}, {told}");
        let held = last_seq + 1 - first_seq;
        assert!(held >= KEPT.min(last_seq) && held <= KEPT + 1_024 + 201, "{held} of {last_seq}");
        assert!(stored(&mut other).await.len() as u64 >= KEPT.min(last_seq));
    }
    assert!(log.bounds().first_seq > 1_024);
    close(log, task).await;

    settings.retention = RetentionRules::default();
    let (log, task) = open(settings).await;
    append_count(&log, 2_000).await;
    assert!(log.bounds().last_seq + 1 - log.bounds().first_seq > 2_000, "nothing more is trimmed");
    close(log, task).await;
}

#[tokio::test]
async fn retention_by_bytes_keeps_the_newest_and_no_more_than_that() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.retention.log.bytes = Some(10_000);
    let mut other = None;
    // What was there before the start counts too.
    for round in 0..2 {
        let (log, task) = open(settings.clone()).await;
        let other = match &mut other {
            Some(other) => other,
            none => none.insert(place.other_process().await),
        };
        for n in 0..40 {
            let data = format!("\"{}\"", "x".repeat(500 + n * 7));
            append(&log, vec![content("a", None, &data); 3]).await.unwrap();
            // What is due after one request is done before the next is taken.
            append(&log, [content("b", None, "1")]).await.unwrap();
            // At one moment: trimming goes on.
            let (bytes, total): (i64, i64) = sqlx::query_as(
                "SELECT (SELECT sum(octet_length(data)) FROM log), (SELECT sum(bytes) FROM streams)",
            )
            .fetch_one(&mut *other)
            .await
            .unwrap();
            assert_eq!(bytes, total);
            // Not yet trimmed may be what the last two requests brought.
            assert!(bytes <= 10_000 + 3 * 800 + 1, "{bytes} in round {round}, {n}");
            assert!(round == 0 && n < 6 || bytes > 5_000, "{bytes} in round {round}, {n}");
        }
        assert!(log.bounds().first_seq > 100);
        close(log, task).await;
    }
}

#[tokio::test]
async fn retention_by_age_trims_what_is_old_and_keeps_what_is_not() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    close(log, task).await;
    let mut other = place.other_process().await;
    // One event an hour, up to an hour ago.
    sqlx::query("UPDATE meta SET trimmed_seq = 1").execute(&mut other).await.unwrap();
    sqlx::query("DELETE FROM log").execute(&mut other).await.unwrap();
    sqlx::query(
        "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 2999)
         INSERT INTO log (seq, stream, created_at, data)
         SELECT n + 2, 'a', strftime('%Y-%m-%dT%H:%M:%S.000000Z', 'now', '-' || (3000 - n) || ' hours'), n FROM n",
    )
    .execute(&mut other)
    .await
    .unwrap();
    sqlx::query(
        "UPDATE streams SET first_seq = 2, last_seq = 3001, events = 3000,
                bytes = (SELECT sum(octet_length(data)) FROM log)",
    )
    .execute(&mut other)
    .await
    .unwrap();
    let mut settings = place.settings();
    settings.retention.log.age = Some(std::time::Duration::from_secs(100 * 3_600 + 1_800));
    let (log, task) = open(settings).await;
    // Events 101 hours old and older are n = 0 to 2899, seq 2 to 2901.
    in_time(async {
        while log.bounds().first_seq < 2_902 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut rows = stored(&mut other).await;
    rows.retain(|row| row.seq <= 3_001);
    assert_eq!((log.bounds().first_seq, rows.len()), (2_902, 100));
    close(log, task).await;
}
