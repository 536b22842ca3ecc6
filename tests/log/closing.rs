//! The end of a stream: one event and one mark, whoever else appends.

use crate::fixture::{Place, append, close, content, in_time, shown, stored, stream};
use evertail::event::{EventType, Receipt};
use evertail::log::{AppendError, Log, Refusal};

async fn end(log: &Log, name: &str) -> Receipt {
    in_time(log.close_stream(stream(name), None, None)).await.expect("the stream closes")
}

#[tokio::test]
async fn other_process_cannot_insert_behind_the_end_whatever_its_conflict_clause() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", Some("1"), "1")]).await.expect("it is stored");
    assert_eq!(end(&log, "a").await.seq, 2);
    let mut other = place.other_process().await;
    for clause in ["", "OR IGNORE", "OR REPLACE", "OR FAIL", "OR ABORT", "OR ROLLBACK"] {
        for id in ["NULL", "'2'"] {
            let sql = format!("INSERT {clause} INTO events (stream, id, data) VALUES ('a', {id}, '1')");
            let refused = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
                .execute(&mut other)
                .await
                .expect_err("the stream is closed");
            assert!(refused.to_string().contains("evertail: this stream is closed"), "{sql}: {refused}");
        }
        // A repeat is none.
        let sql = format!("INSERT {clause} INTO events (stream, id, data) VALUES ('a', '1', '1')");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut other).await.expect("it is taken");
    }
    for sql in ["UPDATE streams SET closed_seq = NULL", "UPDATE streams SET closed_seq = 1, last_seq = 1"] {
        let refused = sqlx::query(sql).execute(&mut other).await.expect_err("the stream is closed");
        assert!(refused.to_string().contains("a closed stream stays closed"), "{refused}");
    }
    assert_eq!(stored(&mut other).await.len(), 2);
    sqlx::query("INSERT INTO events (stream) VALUES ('b')").execute(&mut other).await.expect("it is taken");
    shown(&log, 3).await;
    close(log, task).await;
}

/// Appends and closes of many tasks at once: each stream has exactly one end, it is the last of its events, and who was
/// told 409 has nothing stored.
#[tokio::test]
async fn every_stream_has_one_end_and_nothing_behind_it() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for producer in 0..8 {
        let log = log.clone();
        tasks.spawn(async move {
            let mut acked = Vec::new();
            for round in 0..40 {
                let name = format!("s{}", round / 4);
                if (round + producer) % 5 == 4 {
                    acked.push(end(&log, &name).await.seq);
                    continue;
                }
                let id = format!("{producer}-{round}");
                let contents = [content("open", Some(&id), "1"), content(&name, Some(&id), "2")];
                match append(&log, contents).await {
                    Ok(receipts) => acked.extend(receipts.iter().map(|receipt| receipt.seq)),
                    Err(AppendError::Refused(Refusal::StreamClosed { index: 1, seq: Some(_) })) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            acked
        });
    }
    let acked: std::collections::BTreeSet<_> = tasks.join_all().await.into_iter().flatten().collect();
    let events = stored(&mut place.other_process().await).await;
    assert_eq!(
        events.iter().map(|event| event.seq).collect::<Vec<_>>(),
        acked.into_iter().collect::<Vec<_>>()
    );
    for round in 0..10 {
        let name = stream(&format!("s{round}"));
        let of: Vec<_> = events.iter().filter(|event| event.content.stream == name).collect();
        let ends = of.iter().filter(|event| event.content.r#type == EventType::closed()).count();
        assert_eq!(ends, 1, "{name}");
        assert_eq!(of.last().expect("it has its end").content.r#type, EventType::closed(), "{name}");
        assert_eq!(
            log.closed_seq(name.as_str()).await.expect("the table is readable"),
            Some(of.last().expect("it has its end").seq)
        );
    }
    close(log, task).await;
}
