//! Ids: an event with an id is stored once, for ever.

use crate::fixture::{Place, append, close, content, in_time, request, shown, start, stored};
use evertail::event::{EventType, Receipt, Seq};
use evertail::log::{AppendError, Refusal};
use std::sync::Arc;

fn seen(receipts: &[Receipt]) -> Vec<(Seq, bool)> {
    receipts.iter().map(|receipt| (receipt.seq, receipt.is_duplicate)).collect()
}

#[tokio::test]
async fn repeat_returns_the_original_receipt() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "0")]).await.unwrap();
    let original = append(&log, [content("a", Some("x"), "1")]).await.unwrap().remove(0);
    append(&log, [content("a", None, "2")]).await.unwrap();
    for _ in 0..3 {
        let repeat = append(&log, [content("a", Some("x"), "1")]).await.unwrap().remove(0);
        assert_eq!(repeat, Receipt { is_duplicate: true, ..original.clone() });
    }
    assert_eq!(log.bounds().last_seq, 3);
    close(log, task).await;
}

#[tokio::test]
async fn repeat_after_a_restart_and_after_trimming_still_returns_the_original_seq() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("x"), "1"), content("a", Some("y"), "2")]).await.unwrap();
    close(log, task).await;
    let (log, task) = place.open().await;
    let repeat = append(&log, [content("a", Some("y"), "2"), content("a", Some("x"), "1")]).await.unwrap();
    assert_eq!(seen(&repeat), [(2, true), (1, true)]);
    crate::fixture::trim(&log, 1).await;
    for _ in 0..2 {
        let repeat =
            append(&log, [content("a", Some("x"), "1"), content("a", Some("y"), "2")]).await.unwrap();
        assert_eq!(seen(&repeat), [(1, true), (2, true)]);
        assert_eq!(repeat[0].created_at, None);
        assert!(repeat[1].created_at.is_some());
    }
    crate::fixture::trim(&log, 2).await;
    close(log, task).await;
    let (log, task) = place.open().await;
    let repeat = append(&log, [content("a", Some("y"), "no longer comparable")]).await.unwrap();
    assert_eq!(seen(&repeat), [(2, true)]);
    // Two tell of the trims.
    assert_eq!(append(&log, [content("a", None, "5")]).await.unwrap()[0].seq, 5);
    close(log, task).await;
}

#[tokio::test]
async fn repeat_within_one_request_and_within_one_commit_is_stored_once() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let first = start(log.append(request([content("a", Some("x"), "1"), content("a", Some("x"), "1")])));
    let second = start(log.append(request([content("a", Some("x"), "1"), content("a", None, "2")])));
    assert_eq!(seen(&in_time(first).await.unwrap()), [(1, false), (1, true)]);
    assert_eq!(seen(&in_time(second).await.unwrap()), [(1, true), (2, false)]);
    assert_eq!(stored(&mut place.other_process().await).await.len(), 2);
    close(log, task).await;
}

#[tokio::test]
async fn same_id_in_another_stream_or_from_another_source_is_another_event() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let in_a = content("a", Some("x"), "1");
    let in_b = content("b", Some("x"), "2");
    let mut from_elsewhere = content("a", Some("x"), "3");
    from_elsewhere.source = Arc::from("elsewhere");
    let all = [in_a, in_b, from_elsewhere];
    assert_eq!(seen(&append(&log, all.clone()).await.unwrap()), [(1, false), (2, false), (3, false)]);
    assert_eq!(seen(&append(&log, all).await.unwrap()), [(1, true), (2, true), (3, true)]);
    close(log, task).await;
}

#[tokio::test]
async fn id_with_any_other_content_is_refused_and_names_the_event_that_has_it() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("b", None, "0"), content("a", Some("x"), "1")]).await.unwrap();
    let same = content("a", Some("x"), "1");
    let mut different = vec![same.clone(); 5];
    different[0].data = None;
    different[1].data = Some(Arc::from("1.0"));
    different[2].r#type = EventType::parse("other").unwrap();
    different[3].subject = Some(Arc::from("other"));
    different[4].time = Some(Arc::from("2026-11-21T09:00:00Z"));
    for content in different {
        let refused = append(&log, [same.clone(), content]).await;
        let Err(AppendError::Refused(refusal)) = refused else { panic!("{refused:?}") };
        assert_eq!(refusal, Refusal::IdReused { index: 1, seq: 2 });
    }
    assert_eq!(log.bounds().last_seq, 2);
    // Another attempt is another span.
    let mut again = same;
    again.traceparent = Some(Arc::from("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    assert_eq!(seen(&append(&log, [again]).await.unwrap()), [(2, true)]);
    close(log, task).await;
}

#[tokio::test]
async fn id_of_another_process_is_repeated_and_reused_like_any_other() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    sqlx::query("INSERT INTO events (stream, id, data) VALUES ('a', 'x', ' { \"b\" : 1.50 } ')")
        .execute(&mut other)
        .await
        .unwrap();
    let repeat = append(&log, [content("a", Some("x"), "{\"b\":1.50}")]).await.unwrap();
    assert_eq!(seen(&repeat), [(1, true)]);
    let refused = append(&log, [content("a", Some("x"), "{\"b\":1.5}")]).await;
    assert!(
        matches!(refused, Err(AppendError::Refused(Refusal::IdReused { index: 0, seq: 1 }))),
        "{refused:?}"
    );
    append(&log, [content("a", Some("y"), "{\"b\":2}")]).await.unwrap();
    sqlx::query("INSERT INTO events (stream, id, data) VALUES ('a', 'y', '{ \"b\": 2 }'), ('a', 'z', '3')")
        .execute(&mut other)
        .await
        .unwrap();
    shown(&log, 3).await;
    assert_eq!(log.bounds().last_seq, 3);
    let reused = sqlx::query("INSERT INTO events (stream, id) VALUES ('a', 'y')").execute(&mut other).await;
    assert!(reused.unwrap_err().to_string().contains("this id is already used"));
    close(log, task).await;
}

#[tokio::test]
async fn ids_are_kept_for_ever() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("x"), "1"), content("b", Some("y"), "2"), content("a", None, "3")])
        .await
        .unwrap();
    crate::fixture::trim(&log, 3).await;
    let ids: Vec<(String, String, String, i64)> =
        sqlx::query_as("SELECT id, stream, source, seq FROM ids ORDER BY seq")
            .fetch_all(&mut place.other_process().await)
            .await
            .unwrap();
    let own = |text: &str| text.to_owned();
    assert_eq!(ids, [(own("x"), own("a"), own(""), 1), (own("y"), own("b"), own(""), 2)]);
    close(log, task).await;
}

/// No answer shows a seq that is not durable: the first of the two is refused with the second, and has none.
#[tokio::test]
async fn id_given_twice_in_one_request_names_no_seq_that_was_never_stored() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "0")]).await.unwrap();
    for _ in 0..2 {
        let refused = append(&log, [content("a", Some("x"), "1"), content("a", Some("x"), "2")]).await;
        let Err(AppendError::Refused(refusal)) = refused else { panic!("{refused:?}") };
        assert_eq!(refusal, Refusal::IdTwice { index: 1 });
    }
    assert_eq!(log.bounds().last_seq, 1);
    close(log, task).await;
}

/// The answer must not depend on whether the batch was looked up: the table has the id, so the table's seq it is.
#[tokio::test]
async fn id_given_twice_in_one_request_and_already_stored_names_the_stored_event() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("x"), "2"), content("a", None, "0")]).await.unwrap();
    let refused = append(&log, [content("a", Some("x"), "1"), content("a", Some("x"), "2")]).await;
    let Err(AppendError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal, Refusal::IdReused { index: 0, seq: 1 });
    close(log, task).await;
}
