//! What the triggers keep other processes from doing to what is stored.

use crate::fixture::{Place, append, close, content, shown, stored};
use sqlx::AssertSqlSafe;

#[tokio::test]
async fn stored_event_and_its_id_cannot_be_changed_or_deleted() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("x"), "1"), content("a", None, "2"), content("b", Some("z"), "3")])
        .await
        .unwrap();
    crate::fixture::trim(&log, 1).await;
    let mut other = place.other_process().await;
    let before = stored(&mut other).await;
    for sql in [
        "UPDATE log SET data = '9'",
        "UPDATE log SET data = data WHERE seq = 3",
        "UPDATE log SET seq = 9 WHERE seq = 3",
        "UPDATE OR REPLACE log SET seq = 2 WHERE seq = 3",
        "UPDATE OR IGNORE log SET data = '9'",
        "UPDATE events SET data = '9'",
        "UPDATE ids SET seq = 3",
        "UPDATE OR REPLACE ids SET id = 'z' WHERE id = 'x'",
        "DELETE FROM log",
        "DELETE FROM log WHERE seq = 3",
        "DELETE FROM events",
        "DELETE FROM events WHERE seq = 2",
        "DELETE FROM ids",
        "DELETE FROM ids WHERE id = 'x'",
    ] {
        assert!(sqlx::query(sql).execute(&mut other).await.is_err(), "{sql}");
    }
    assert_eq!(stored(&mut other).await, before);
    let ids: i64 = sqlx::query_scalar("SELECT count(*) FROM ids").fetch_one(&mut other).await.unwrap();
    assert_eq!(ids, 2);
    close(log, task).await;
}

#[tokio::test]
async fn insert_into_the_view_replaces_nothing_whatever_it_says_of_conflicts() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("x"), "1"), content("a", None, "2")]).await.unwrap();
    let mut other = place.other_process().await;
    let before = stored(&mut other).await;
    for conflict in ["", "OR REPLACE", "OR IGNORE", "OR FAIL", "OR ABORT", "OR ROLLBACK"] {
        for row in [
            "(seq, stream, data) VALUES (1, 'a', '9')",
            "(seq, stream, data) VALUES (2, 'b', '9')",
            "(seq, stream, data) VALUES (0, 'b', '9')",
            "(seq, stream, data) VALUES (4, 'b', '9')",
            "(stream, id, data) VALUES ('a', 'x', '9')",
            "(seq, stream, id, data) VALUES (1, 'a', 'x', '9')",
            "(stream) VALUES (NULL)",
            "(stream) VALUES ('not a name')",
        ] {
            let sql = format!("INSERT {conflict} INTO events {row}");
            assert!(sqlx::query(AssertSqlSafe(&*sql)).execute(&mut other).await.is_err(), "{sql}");
            assert_eq!(stored(&mut other).await, before, "{sql}");
        }
        // A repeat is no error and stores nothing.
        let sql = format!("INSERT {conflict} INTO events (stream, id, data) VALUES ('a', 'x', 1)");
        sqlx::query(AssertSqlSafe(&*sql)).execute(&mut other).await.unwrap();
        assert_eq!(stored(&mut other).await, before, "{sql}");
    }
    close(log, task).await;
}

#[tokio::test]
async fn insert_into_the_view_may_name_the_next_seq() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    for seq in 1..=3 {
        sqlx::query("INSERT INTO events (seq, stream) VALUES (?, 'a')")
            .bind(seq)
            .execute(&mut other)
            .await
            .unwrap();
    }
    shown(&log, 3).await;
    crate::fixture::trim(&log, 3).await;
    // The fourth tells of the trim.
    sqlx::query("INSERT INTO events (seq, stream) VALUES (5, 'a')").execute(&mut other).await.unwrap();
    shown(&log, 5).await;
    close(log, task).await;
}

#[tokio::test]
async fn statement_with_one_refused_row_stores_none_of_its_rows() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    let refused =
        sqlx::query("INSERT INTO events (stream, id) VALUES ('a', 'x'), ('a', 'y'), ('NOT A NAME', 'z')")
            .execute(&mut other)
            .await;
    assert!(refused.is_err());
    for table in ["log", "ids", "streams"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut other).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    close(log, task).await;
}

#[tokio::test]
async fn created_at_cannot_be_given() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    sqlx::query("INSERT INTO events (stream, created_at) VALUES ('a', '2999-01-01T00:00:00.000000Z')")
        .execute(&mut other)
        .await
        .unwrap();
    assert!(stored(&mut other).await[0].created_at <= evertail::event::Timestamp::now());
    close(log, task).await;
}
