//! Tokens in the file: made, revoked and told in one transaction each, and seen when another process changes them. Who has
//! appended what.

use crate::fixture::{Place, append, close, content, in_time, open, request, stored_of};
use evertail::event::{Origin, Pattern, Timestamp};
use evertail::log::{Log, StoredToken, TokenError};
use std::sync::Arc;

fn token(id: &str) -> StoredToken {
    StoredToken {
        id: id.into(),
        name: "n".into(),
        hash: [7; 32],
        append: ["a", "b.*"].map(|text| Pattern::parse(text).expect("a pattern")).to_vec(),
        read: vec![],
        admin: true,
        metrics: false,
        created_at: Timestamp::EPOCH,
        expires_at: Some(Timestamp::from_microseconds(4_000_000_000_000_000)),
        revoked_at: None,
    }
}

/// Waits until this is so of a token.
async fn until(log: &Log, id: &str, is_so: impl Fn(Option<&StoredToken>) -> bool) {
    in_time(log.tokens().wait_for(|tokens| is_so(tokens.get(id)))).await.expect("the log is open");
}

#[tokio::test]
async fn a_token_is_in_force_when_it_is_made_and_after_a_start() {
    let place = Place::new();
    let (log, task) = open(place.settings()).await;
    let made = in_time(log.create_token(token("1"))).await.unwrap();
    assert!(made.created_at > Timestamp::EPOCH, "the log says since when");
    assert_eq!(made, StoredToken { created_at: made.created_at, ..token("1") });
    assert_eq!(log.tokens().borrow().get("1"), Some(&made));
    close(log, task).await;
    let (log, task) = open(place.settings()).await;
    assert_eq!(log.tokens().borrow().get("1"), Some(&made));
    let revoked = in_time(log.revoke_token("1".into())).await.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(in_time(log.revoke_token("1".into())).await.unwrap(), revoked, "again is no error");
    assert!(matches!(in_time(log.revoke_token("2".into())).await, Err(TokenError::Unknown)));
    let own = stored_of(&mut place.other_process().await, "evertail").await;
    let told: Vec<_> = own
        .iter()
        .map(|event| (event.content.r#type.as_str(), event.content.data.as_deref().unwrap()))
        .collect();
    let data = r#"{"id":"1","name":"n","append":["a","b.*"],"read":[],"admin":true,"metrics":false,"expires_at":"2096-10-02T07:06:40.000000Z"}"#;
    assert_eq!(told, [("evertail.token_created", data), ("evertail.token_revoked", data)]);
    close(log, task).await;
}

#[tokio::test]
async fn what_another_process_changes_is_seen_and_what_it_damages_lets_nobody_in() {
    let place = Place::new();
    let (log, task) = open(place.settings()).await;
    in_time(log.create_token(token("1"))).await.unwrap();
    let mut other = place.other_process().await;
    sqlx::query("UPDATE tokens SET revoked_at = created_at").execute(&mut other).await.unwrap();
    until(&log, "1", |token| token.is_some_and(|token| token.revoked_at.is_some())).await;
    sqlx::query("INSERT INTO tokens (id, name, hash, read, created_at) SELECT '2', 'x', hash, 'a,b', created_at FROM tokens")
        .execute(&mut other)
        .await
        .unwrap();
    until(&log, "2", |token| token.is_some_and(|token| token.read.len() == 2)).await;
    sqlx::query("UPDATE tokens SET read = 'a*b' WHERE id = '2'").execute(&mut other).await.unwrap();
    until(&log, "2", |token| token.is_none()).await;
    assert!(log.tokens().borrow().is_empty());
    append(&log, [content("a", None, "1")]).await.expect("the log itself goes on");
    sqlx::query("UPDATE tokens SET read = '*' WHERE id = '2'").execute(&mut other).await.unwrap();
    until(&log, "2", |token| token.is_some()).await;
    close(log, task).await;
}

#[tokio::test]
async fn a_revocation_is_seen_while_the_writer_is_never_idle() {
    let place = Place::new();
    let (log, task) = open(place.settings()).await;
    in_time(log.create_token(token("1"))).await.unwrap();
    let mut other = place.other_process().await;
    let appending = async {
        loop {
            let appends = (0..50).map(|_| log.append(request([content("a", None, "1")])));
            futures_util::future::join_all(appends).await;
        }
    };
    let revoking = async {
        sqlx::query("UPDATE tokens SET revoked_at = created_at").execute(&mut other).await.unwrap();
        until(&log, "1", |token| token.is_some_and(|token| token.revoked_at.is_some())).await;
    };
    tokio::select! {
        () = appending => {}
        () = revoking => {}
    }
    close(log, task).await;
}

#[tokio::test]
async fn who_appended_is_stored_beside_the_event() {
    let place = Place::new();
    let (log, task) = open(place.settings()).await;
    let by = |name: &str| Origin { producer: name.into(), address: Some("::1".into()) };
    let alice = log.by(Some(Arc::new(by("alice"))));
    append(&log, [content("a", None, "1")]).await.unwrap();
    append(&alice, [content("a", Some("x"), "2"), content("a", None, "3")]).await.unwrap();
    append(&log, [content("a", Some("x"), "2")]).await.expect("a repeat may come from someone else");
    let bob = log.by(Some(Arc::new(Origin { producer: "bob".into(), address: None })));
    // In one commit, those who are known among those who are not.
    let (one, other, last) = (
        request([content("a", None, "4")]),
        request([content("a", None, "5")]),
        request([content("a", None, "6")]),
    );
    let (one, other, last) =
        in_time(async { tokio::join!(log.append(one), bob.append(other), log.append(last)) }).await;
    let seqs = [one, other, last].map(|receipts| receipts.unwrap()[0].seq);
    let origins = in_time(log.origins(&[1, 2, 3, 4, 5, 6, 7])).await.unwrap();
    let mut known: Vec<_> = origins.into_iter().collect();
    known.sort_by_key(|(seq, _)| *seq);
    let of_bob = (seqs[1], Origin { producer: "bob".into(), address: None });
    assert_eq!(known, [(2, by("alice")), (3, by("alice")), of_bob]);
    close(log, task).await;
}
