//! Where a reader begins, for each thing that it may come with.

use crate::fixture::{Place, append, close, content, open, shown, stored, stream};
use evertail::event::{Pattern, Selection, Seq, Timestamp};
use evertail::log::{From, Log, LogTask, Reset, Resume};

async fn cursor(log: &Log, from: From, selection: &Selection) -> Seq {
    let resume = log.resume(from, None, selection).await.expect("the table is readable");
    assert_eq!(resume.reset, None);
    resume.cursor
}

fn later(time: Timestamp, microseconds: i64) -> Timestamp {
    Timestamp::from_microseconds(time.microseconds() + microseconds)
}

/// A log of seq 3 to 6, of which the last tells of the trim.
async fn trimmed_log() -> (Place, Log, LogTask) {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, vec![content("a", None, "1"); 5]).await.expect("the log takes it");
    crate::fixture::trim(&log, 2).await;
    (place, log, task)
}

#[tokio::test]
async fn every_way_to_resume_an_empty_log_begins_at_its_beginning() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let selection = Selection::stream(&stream("a"));
    for from in [
        From::Now,
        From::After(0),
        From::Since(Timestamp::EPOCH),
        From::Since(Timestamp::now()),
        From::Last(0),
        From::Last(5),
    ] {
        assert_eq!(cursor(&log, from, &Selection::all()).await, 0, "{from:?}");
        assert_eq!(cursor(&log, from, &selection).await, 0, "{from:?}");
    }
    let ahead = log.resume(From::After(1), None, &selection).await.unwrap();
    assert_eq!(ahead, Resume { cursor: 0, reset: Some(Reset::Ahead { cursor: 1 }) });
    close(log, task).await;
}

#[tokio::test]
async fn every_way_to_resume_a_log_that_is_trimmed_away_begins_at_its_end() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "1"), content("b", None, "2"), content("a", None, "3")]).await.unwrap();
    crate::fixture::trim(&log, 3).await;
    // What told of it too.
    crate::fixture::trim(&log, 4).await;
    let selection = Selection::stream(&stream("a"));
    for from in [
        From::Now,
        From::After(0),
        From::Since(Timestamp::EPOCH),
        From::Since(Timestamp::now()),
        From::Last(0),
        From::Last(5),
        From::After(4),
    ] {
        assert_eq!(cursor(&log, from, &Selection::all()).await, 4, "{from:?}");
        assert_eq!(cursor(&log, from, &selection).await, 4, "{from:?}");
    }
    // A cursor that saw some of it is told of the rest.
    assert_eq!(cursor(&log, From::After(1), &selection).await, 1);
    close(log, task).await;
}

#[tokio::test]
async fn cursor_within_the_log_stands_and_one_beyond_it_is_reset_to_live() {
    let (_place, log, task) = trimmed_log().await;
    let all = Selection::all();
    for (from, expected) in [
        (From::After(0), 2),
        (From::After(1), 1),
        (From::After(2), 2),
        (From::After(4), 4),
        (From::After(6), 6),
        (From::Now, 6),
    ] {
        assert_eq!(cursor(&log, from, &all).await, expected, "{from:?}");
        let resume = log.resume(from, Some(log.id()), &all).await.unwrap();
        assert_eq!(resume, Resume { cursor: expected, reset: None });
    }
    for beyond in [7, 8, Seq::MAX] {
        let resume = log.resume(From::After(beyond), None, &all).await.unwrap();
        assert_eq!(resume, Resume { cursor: 6, reset: Some(Reset::Ahead { cursor: beyond }) });
    }
    close(log, task).await;
}

#[tokio::test]
async fn reader_of_another_log_begins_at_the_beginning() {
    let (_place, log, task) = trimmed_log().await;
    for (from, told) in
        [(From::After(4), Some(4)), (From::After(9), Some(9)), (From::Now, None), (From::Last(1), None)]
    {
        let resume = log.resume(from, Some("another"), &Selection::all()).await.unwrap();
        assert_eq!(resume, Resume { cursor: 2, reset: Some(Reset::Replaced { cursor: told }) }, "{from:?}");
    }
    close(log, task).await;
}

#[tokio::test]
async fn since_begins_with_the_first_event_of_that_time() {
    let place = Place::new();
    let (log, task) = place.open().await;
    // Twice two events of one time.
    let time = |n: i64| Timestamp::from_microseconds(4_000_000_000_000_000 + n);
    close(log, task).await;
    let mut other = place.other_process().await;
    for (seq, n) in [(1, 0), (2, 0), (3, 1), (4, 5), (5, 5)] {
        sqlx::query("INSERT INTO log (seq, stream, created_at) VALUES (?, 'a', ?)")
            .bind(seq)
            .bind(time(n).to_string())
            .execute(&mut other)
            .await
            .unwrap();
    }
    let (log, task) = place.open().await;
    let all = Selection::all();
    for (n, expected) in [(-1, 0), (0, 0), (1, 2), (2, 3), (4, 3), (5, 3), (6, 5), (1_000, 5)] {
        assert_eq!(cursor(&log, From::Since(time(n)), &all).await, expected, "{n}");
    }
    crate::fixture::trim(&log, 4).await;
    // The sixth tells of the trim, at the time of the fifth.
    for (n, expected) in [(-1, 4), (0, 4), (5, 4), (6, 6)] {
        assert_eq!(cursor(&log, From::Since(time(n)), &all).await, expected, "{n}");
    }
    close(log, task).await;
}

#[tokio::test]
async fn since_holds_over_events_appended_one_by_one() {
    let place = Place::new();
    let (log, task) = place.open().await;
    for _ in 0..30 {
        append(&log, [content("a", None, "1")]).await.unwrap();
    }
    let rows = stored(&mut place.other_process().await).await;
    for row in &rows {
        for time in [later(row.created_at, -1), row.created_at, later(row.created_at, 1)] {
            let before = rows.iter().filter(|row| row.created_at < time).count();
            assert_eq!(cursor(&log, From::Since(time), &Selection::all()).await, before as Seq);
        }
    }
    close(log, task).await;
}

#[tokio::test]
async fn last_counts_only_what_the_selection_wants_and_what_is_retained() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let names = ["a.x", "b", "a.y", "b", "b", "a.x", "b"];
    append(&log, names.map(|name| content(name, None, "1"))).await.unwrap();
    let a = Selection { streams: vec![Pattern::parse("a.*").unwrap()], ..Selection::default() };
    let all = Selection::all();
    for (count, of_a, of_all) in
        [(0, 7, 7), (1, 5, 6), (2, 2, 5), (3, 0, 4), (4, 0, 3), (7, 0, 0), (Seq::MAX, 0, 0)]
    {
        assert_eq!(cursor(&log, From::Last(count), &a).await, of_a, "{count}");
        assert_eq!(cursor(&log, From::Last(count), &all).await, of_all, "{count}");
    }
    crate::fixture::trim(&log, 3).await;
    // The eighth tells of the trim.
    for (count, of_a, of_all) in [(0, 8, 8), (1, 5, 7), (2, 3, 6), (9, 3, 3)] {
        assert_eq!(cursor(&log, From::Last(count), &a).await, of_a, "{count}");
        assert_eq!(cursor(&log, From::Last(count), &all).await, of_all, "{count}");
    }
    close(log, task).await;
}

#[tokio::test]
async fn nothing_that_is_not_yet_shown_moves_a_cursor() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.notice_interval = std::time::Duration::from_secs(3_600);
    let (log, task) = open(settings).await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    sqlx::query("INSERT INTO events (stream) VALUES ('a'), ('a')")
        .execute(&mut place.other_process().await)
        .await
        .unwrap();
    let all = Selection::all();
    assert_eq!(cursor(&log, From::Now, &all).await, 1);
    assert_eq!(cursor(&log, From::Last(1), &Selection::stream(&stream("a"))).await, 0);
    assert_eq!(cursor(&log, From::Since(Timestamp::EPOCH), &all).await, 0);
    let ahead = log.resume(From::After(2), None, &all).await.unwrap();
    assert_eq!(ahead, Resume { cursor: 1, reset: Some(Reset::Ahead { cursor: 2 }) });
    assert_eq!(append(&log, [content("a", None, "4")]).await.unwrap()[0].seq, 4);
    shown(&log, 4).await;
    close(log, task).await;
}
