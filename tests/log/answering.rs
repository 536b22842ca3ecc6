//! Whether the writer answers, as a watchdog asks.

use crate::fixture::{Place, append, close, content, in_time, start};
use futures_util::FutureExt;
use std::time::Duration;

#[tokio::test]
async fn writer_answers_while_it_is_idle_and_not_while_a_commit_is_stuck() {
    let place = Place::new();
    let (log, task) = place.open().await;
    assert!(in_time(log.is_answering()).await);
    let mut other = place.other_process().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let stuck = start(append(&log, [content("a", None, "1")]));
    let mut answer = start(log.is_answering());
    // As long as it is stuck; a moment of that is enough to see a writer that answers beside its work.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
    assert!(early.is_err(), "it answered behind a commit that it has not done");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert!(in_time(answer).await);
    assert!(stuck.now_or_never().expect("it was asked first, and is done first").is_ok());
    close(log.clone(), task).await;
    assert!(!in_time(log.is_answering()).await, "nobody answers any more");
}
