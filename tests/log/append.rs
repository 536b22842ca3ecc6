//! Appending: what an ack means, and what a refusal leaves.

use crate::fixture::{
    Place, append, close, content, in_time, open, options, other_process, reader, request, shown, start,
    stored, stream,
};
use evertail::event::{Content, Seq};
use evertail::log::{AppendError, Bounds, ExpectedLastSeq, Refusal, Step};
use futures_util::FutureExt;
use sqlx::Connection;
use std::time::Duration;

fn conditional(contents: Vec<Content>, name: Option<&str>, seq: Seq) -> evertail::log::Append {
    let expected = ExpectedLastSeq { stream: name.map(stream), seq };
    evertail::log::Append { expected: Some(expected), ..request(contents) }
}

#[tokio::test]
async fn ack_comes_only_after_another_connection_can_read_the_event() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    for seq in 1..=20 {
        let receipts = append(&log, [content("a", None, "1"), content("b", None, "2")]).await.unwrap();
        let rows = stored(&mut other).await;
        assert_eq!(rows.len(), 2 * seq);
        for (receipt, row) in receipts.iter().zip(&rows[rows.len() - 2..]) {
            assert_eq!((receipt.seq, receipt.created_at), (row.seq, Some(row.created_at)));
            assert_eq!(receipt.stream, row.content.stream);
        }
    }
    close(log, task).await;
}

#[tokio::test]
async fn ack_comes_only_after_readers_are_shown_the_event() {
    let place = Place::new();
    let (log, task) = place.open().await;
    for seq in 1..=20 {
        append(&log, [content("a", None, "1")]).await.unwrap();
        assert_eq!(log.bounds(), Bounds { first_seq: 1, last_seq: seq });
    }
    close(log, task).await;
}

#[tokio::test]
async fn nothing_is_shown_before_it_is_committed() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.store.busy_timeout = Duration::from_millis(20);
    let (log, task) = open(settings).await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    let mut live = reader(&log, 1);
    let mut other = place.other_process().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let refused = append(&log, [content("a", None, "2")]).await;
    assert!(matches!(refused, Err(AppendError::Busy)), "{refused:?}");
    assert_eq!(log.bounds().last_seq, 1);
    assert_eq!(live.next().await.unwrap(), Step::CaughtUp);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    close(log, task).await;
}

#[tokio::test]
async fn append_whose_future_is_dropped_is_committed_all_the_same() {
    let place = Place::new();
    let (log, task) = place.open().await;
    drop(start(log.append(request([content("a", Some("x"), "1")]))));
    shown(&log, 1).await;
    let repeat = append(&log, [content("a", Some("x"), "1")]).await.unwrap();
    assert_eq!((repeat[0].seq, repeat[0].is_duplicate), (1, true));
    close(log, task).await;
}

#[tokio::test]
async fn queue_full_of_requests_refuses_the_next_and_loses_none() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.queue_requests_max = 4;
    let (log, task) = open(settings).await;
    // The writer runs on this thread too, so nothing is taken from the queue before the first await.
    let waiting: Vec<_> =
        (1..=4).map(|n| start(log.append(request([content("a", None, &n.to_string())])))).collect();
    let beyond = log.append(request([content("a", None, "5")])).now_or_never();
    assert!(matches!(beyond, Some(Err(AppendError::QueueFull))), "{beyond:?}");
    let mut seqs = Vec::new();
    for append in waiting {
        seqs.push(in_time(append).await.unwrap()[0].seq);
    }
    assert_eq!(seqs, [1, 2, 3, 4]);
    assert_eq!(append(&log, [content("a", None, "6")]).await.unwrap()[0].seq, 5);
    let rows = stored(&mut place.other_process().await).await;
    let data: Vec<_> = rows.iter().map(|row| row.content.data.as_deref().unwrap()).collect();
    assert_eq!(data, ["1", "2", "3", "4", "6"]);
    close(log, task).await;
}

#[tokio::test]
async fn queue_full_of_bytes_refuses_the_next_and_gives_them_back_with_the_ack() {
    let place = Place::new();
    let of_100_bytes = || content("a", None, &"1".repeat(100 - "a".len() - "message".len()));
    assert_eq!(of_100_bytes().size_bytes(), 100);
    let mut settings = place.settings();
    settings.queue_bytes_max = 300;
    let (log, task) = open(settings).await;
    for _ in 0..3 {
        let first = start(log.append(request([of_100_bytes(), of_100_bytes()])));
        let second = start(log.append(request([of_100_bytes()])));
        let beyond = append(&log, [content("a", None, "1")]).await;
        assert!(matches!(beyond, Err(AppendError::QueueFull)), "{beyond:?}");
        in_time(first).await.unwrap();
        in_time(second).await.unwrap();
    }
    assert_eq!(log.bounds().last_seq, 9);
    close(log, task).await;
}

#[tokio::test]
async fn batch_with_one_refused_event_leaves_nothing_of_itself() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("x"), "1")]).await.unwrap();
    let refused = append(
        &log,
        [content("a", Some("new"), "2"), content("b", None, "3"), content("a", Some("x"), "other")],
    )
    .await;
    let Err(AppendError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal, Refusal::IdReused { index: 2, seq: 1 });
    assert_eq!(log.bounds().last_seq, 1);
    let receipt = append(&log, [content("a", Some("new"), "different")]).await.unwrap().remove(0);
    assert_eq!((receipt.seq, receipt.is_duplicate), (2, false));
    assert_eq!(stored(&mut place.other_process().await).await.len(), 2);
    close(log, task).await;
}

#[tokio::test]
async fn requests_of_one_commit_are_refused_alone() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("x"), "1")]).await.unwrap();
    let good = start(log.append(request([content("a", Some("y"), "2")])));
    let bad = start(log.append(request([content("a", Some("z"), "3"), content("a", Some("x"), "other")])));
    let repeat = start(log.append(request([content("a", Some("x"), "1"), content("a", Some("z"), "4")])));
    assert_eq!(in_time(good).await.unwrap()[0].seq, 2);
    assert!(matches!(in_time(bad).await, Err(AppendError::Refused(Refusal::IdReused { index: 1, seq: 1 }))));
    let repeat = in_time(repeat).await.unwrap();
    assert_eq!((repeat[0].seq, repeat[0].is_duplicate), (1, true));
    assert_eq!((repeat[1].seq, repeat[1].is_duplicate), (3, false));
    close(log, task).await;
}

#[tokio::test]
async fn batch_of_any_size_is_one_transaction_in_order() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut expected = Vec::new();
    for size in [1, 2, 3, 1_023, 1_024, 1_025, 2_100] {
        let contents: Vec<_> = (0..size)
            .map(|n| content("a", (n % 3 == 0).then_some(&*format!("{size}/{n}")), &n.to_string()))
            .collect();
        let first = expected.len() as Seq + 1;
        expected.extend_from_slice(&contents);
        let receipts = append(&log, contents).await.unwrap();
        assert!(receipts.iter().map(|receipt| receipt.seq).eq(first..first + size));
    }
    let rows = stored(&mut place.other_process().await).await;
    assert!(rows.iter().map(|row| &row.content).eq(&expected));
    close(log, task).await;
}

#[tokio::test]
async fn request_without_events_is_acked_and_stores_nothing() {
    let place = Place::new();
    let (log, task) = place.open().await;
    assert!(append(&log, []).await.unwrap().is_empty());
    assert!(in_time(log.append(conditional(Vec::new(), None, 0))).await.unwrap().is_empty());
    assert_eq!(log.bounds(), Bounds { first_seq: 1, last_seq: 0 });
    close(log, task).await;
}

#[tokio::test]
async fn condition_on_a_stream_holds_only_at_its_last_seq() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "1"), content("b", None, "2"), content("a", None, "3")]).await.unwrap();
    for (name, wrong, right) in [("a", [0, 1, 2, 4], 3), ("b", [0, 1, 4, 5], 2), ("new", [1, 2, 3, 6], 0)] {
        for seq in wrong {
            let refused =
                in_time(log.append(conditional(vec![content(name, None, "4")], Some(name), seq))).await;
            let Err(AppendError::Refused(refusal)) = refused else { panic!("{name} {seq}: {refused:?}") };
            assert_eq!(refusal, Refusal::LastSeqDiffers { last_seq: right });
        }
        in_time(log.append(conditional(vec![content(name, None, "5")], Some(name), right))).await.unwrap();
    }
    assert_eq!(log.bounds().last_seq, 6);
    close(log, task).await;
}

#[tokio::test]
async fn condition_on_the_whole_log_holds_only_at_its_last_seq() {
    let place = Place::new();
    let (log, task) = place.open().await;
    in_time(log.append(conditional(vec![content("a", None, "1")], None, 0))).await.unwrap();
    append(&log, [content("b", None, "2")]).await.unwrap();
    let refused = in_time(log.append(conditional(vec![content("a", None, "3")], None, 1))).await;
    assert!(
        matches!(refused, Err(AppendError::Refused(Refusal::LastSeqDiffers { last_seq: 2 }))),
        "{refused:?}"
    );
    in_time(log.append(conditional(vec![content("a", None, "3")], None, 2))).await.unwrap();
    close(log, task).await;
}

#[tokio::test]
async fn of_two_appends_with_the_same_condition_one_wins() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let first = start(log.append(conditional(vec![content("a", None, "1")], Some("a"), 0)));
    let second = start(log.append(conditional(vec![content("a", None, "2")], Some("a"), 0)));
    assert_eq!(in_time(first).await.unwrap()[0].seq, 1);
    assert!(matches!(
        in_time(second).await,
        Err(AppendError::Refused(Refusal::LastSeqDiffers { last_seq: 1 }))
    ));
    close(log, task).await;
}

#[tokio::test]
async fn condition_holds_after_everything_was_trimmed_and_after_a_restart() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "1"), content("b", None, "2")]).await.unwrap();
    crate::fixture::trim(&log, 2).await;
    close(log, task).await;
    let (log, task) = place.open().await;
    in_time(log.append(conditional(vec![content("a", None, "3")], Some("a"), 1))).await.unwrap();
    // The third tells of the trim.
    in_time(log.append(conditional(vec![content("a", None, "5")], None, 4))).await.unwrap();
    close(log, task).await;
}

#[tokio::test]
async fn condition_counts_events_of_another_process_that_nobody_was_shown_yet() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.notice_interval = Duration::from_secs(3_600);
    let (log, task) = open(settings).await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    let mut other = place.other_process().await;
    sqlx::query("INSERT INTO events (stream, data) VALUES ('a', '2')").execute(&mut other).await.unwrap();
    let refused = in_time(log.append(conditional(vec![content("a", None, "3")], Some("a"), 1))).await;
    assert!(
        matches!(refused, Err(AppendError::Refused(Refusal::LastSeqDiffers { last_seq: 2 }))),
        "{refused:?}"
    );
    assert_eq!(log.bounds().last_seq, 2);
    close(log, task).await;
}

#[tokio::test]
async fn append_below_the_free_space_floor_is_refused_until_there_is_space_again() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.disk_free_bytes_min = u64::MAX;
    let (log, task) = open(settings).await;
    for _ in 0..2 {
        let refused = append(&log, [content("a", Some("x"), "1")]).await;
        assert!(matches!(refused, Err(AppendError::DiskFull)), "{refused:?}");
    }
    assert!(log.is_open());
    assert_eq!(log.bounds().last_seq, 0);
    close(log, task).await;
    let (log, task) = place.open().await;
    let receipt = append(&log, [content("a", Some("x"), "1")]).await.unwrap().remove(0);
    assert_eq!((receipt.seq, receipt.is_duplicate), (1, false));
    close(log, task).await;
}

#[tokio::test]
async fn closing_log_answers_what_it_took_and_takes_no_more() {
    let place = Place::new();
    let (log, mut task) = place.open().await;
    let before = start(log.append(request([content("a", None, "1")])));
    log.close().now_or_never().expect("there is room in the queue");
    // The writer runs on this thread too, so it has not seen yet that it is to close: this one is taken behind that.
    let behind = start(log.append(request([content("a", None, "2")])));
    in_time(task.wait()).await.unwrap();
    assert_eq!(in_time(before).await.unwrap()[0].seq, 1);
    assert_eq!(in_time(behind).await.unwrap()[0].seq, 2);
    assert!(!log.is_open());
    assert!(matches!(append(&log, [content("a", None, "3")]).await, Err(AppendError::Closed)));
    assert!(matches!(in_time(log.trim_through(1)).await, Err(AppendError::Closed)));
    assert_eq!(stored(&mut other_process(&place.file()).await).await.len(), 2);
}

#[tokio::test]
async fn log_of_which_every_handle_is_dropped_commits_what_it_took() {
    let place = Place::new();
    let (log, mut task) = place.open().await;
    drop(start(log.append(request([content("a", None, "1")]))));
    drop(log);
    in_time(task.wait()).await.unwrap();
    let mut other = place.other_process().await;
    assert_eq!(stored(&mut other).await.len(), 1);
    other.close().await.unwrap();
}

#[tokio::test]
async fn created_at_never_decreases_when_the_clock_was_ahead_before_a_restart() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    close(log, task).await;
    let future = "2999-01-02T03:04:05.678901Z";
    let mut other = place.other_process().await;
    sqlx::query("INSERT INTO log (seq, stream, created_at) VALUES (2, 'a', ?)")
        .bind(future)
        .execute(&mut other)
        .await
        .unwrap();
    let (log, task) = place.open().await;
    let receipt = append(&log, [content("a", None, "3")]).await.unwrap().remove(0);
    assert_eq!(receipt.created_at.unwrap().to_string(), future);
    sqlx::query("INSERT INTO events (stream) VALUES ('a')").execute(&mut other).await.unwrap();
    shown(&log, 4).await;
    assert_eq!(log.event(4).await.unwrap().unwrap().created_at.to_string(), future);
    // Nor when the event with that time is trimmed.
    crate::fixture::trim(&log, 4).await;
    close(log, task).await;
    let (log, task) = place.open().await;
    let receipt = append(&log, [content("a", None, "5")]).await.unwrap().remove(0);
    assert_eq!(receipt.created_at.unwrap().to_string(), future);
    close(log, task).await;
}

#[tokio::test]
async fn events_of_one_commit_share_their_time_and_keep_their_order_for_a_live_reader() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut live = log.reader(0, options());
    let appends: Vec<_> =
        (1..=50).map(|n| start(log.append(request([content("a", None, &n.to_string())])))).collect();
    for append in appends {
        in_time(append).await.unwrap();
    }
    let Step::Page(page) = live.next().await.unwrap() else { panic!("there is something to read") };
    let data: Vec<_> = std::str::from_utf8(&page.bytes)
        .unwrap()
        .lines()
        .map(|line| line.rsplit_once(":").unwrap().1.trim_end_matches('}').parse::<u64>().unwrap())
        .collect();
    assert!(data.into_iter().eq(1..=50));
    close(log, task).await;
}
