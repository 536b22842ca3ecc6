//! The listing of streams, held against the events of the table; and the end of a stream.

use crate::server::{Reply, Server, within};
use crate::table::{self, Row};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the listing must say, from the events alone. `ever` is every event there was, `rows` what is retained.
fn expected(ever: &[Row], rows: &[Row]) -> Vec<Value> {
    let mut streams: BTreeMap<&str, Value> = BTreeMap::new();
    for row in ever {
        let of = |row: &&Row, name: &str| row.stream == name;
        let retained: Vec<&Row> = rows.iter().filter(|other| of(other, &row.stream)).collect();
        let bytes: usize = retained.iter().filter_map(|row| row.data.as_ref()).map(String::len).sum();
        let mut stream = json!({
            "name": row.stream,
            "events": retained.len(),
            "bytes": bytes,
            "first_seq": retained.first().map_or(row.seq + 1, |first| first.seq),
            "last_seq": row.seq,
        });
        if let (Some(first), Some(last)) = (retained.first(), retained.last()) {
            stream["first_created_at"] = json!(first.created_at);
            stream["last_created_at"] = json!(last.created_at);
        }
        streams.insert(&row.stream, stream);
    }
    streams.into_values().collect()
}

/// Follows `next` to the end.
async fn walk(server: &Server, first: &str) -> Vec<Value> {
    let (mut path, mut streams) = (first.to_owned(), Vec::new());
    loop {
        let reply = server.page(&path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{path}");
        let page = reply.json();
        streams.extend(page["streams"].as_array().unwrap().iter().cloned());
        let Some(next) = page.get("next").and_then(Value::as_str) else {
            assert_eq!(reply.header("link"), "", "{path}");
            return streams;
        };
        assert_eq!(reply.header("link"), format!("<{next}>; rel=\"next\""));
        path = next.to_owned();
    }
}

const NAMES: [&str; 9] =
    ["orders", "orders.eu", "orders.eu.x", "orders-eu", "orders_eu", "ordersx", "a", "orders..", "0"];

async fn log_of_names() -> Server {
    let server = Server::start().await;
    for round in 0..3 {
        for name in &NAMES[..NAMES.len() - round] {
            server.append(name, &format!(r#"[{{"data":"é{round}"}},{{}}]"#)).await;
        }
    }
    server
}

#[tokio::test]
async fn listing_agrees_with_the_events_before_and_after_a_trim() {
    let server = log_of_names().await;
    let ever = server.table().await;
    for trimmed in [0, 1, 19, ever.len() as u64 - 3, ever.len() as u64] {
        server.trim(trimmed).await;
        let expected = expected(&ever, &server.table().await);
        assert_eq!(expected.len(), NAMES.len());
        for limit in [1, 2, NAMES.len() - 1, NAMES.len(), 1000] {
            let listed = walk(&server, &format!("/api/v1/streams?limit={limit}")).await;
            assert_eq!(listed, expected, "limit {limit}, trimmed {trimmed}");
        }
        for stream in expected {
            let path = format!("/api/v1/streams/{}", stream["name"].as_str().unwrap());
            assert_eq!(server.page(&path).await.json(), stream);
        }
    }
}

#[tokio::test]
async fn listing_takes_patterns_each_stream_once_and_in_order() {
    let server = log_of_names().await;
    for (query, expected) in [
        ("stream=orders", vec!["orders"]),
        ("stream=orders.*", vec!["orders..", "orders.eu", "orders.eu.x"]),
        ("stream=orders.*&stream=orders.eu.*&stream=a", vec!["a", "orders..", "orders.eu", "orders.eu.x"]),
        ("stream=none&stream=b.*", vec![]),
        ("stream=*&stream=a", {
            let mut names = NAMES.to_vec();
            names.sort_unstable();
            names
        }),
        ("after_name=orders.eu", vec!["orders.eu.x", "orders_eu", "ordersx"]),
        ("after_name=zz", vec![]),
    ] {
        for limit in [1, 2, 3, 100] {
            let listed = walk(&server, &format!("/api/v1/streams?{query}&limit={limit}")).await;
            let names: Vec<_> = listed.iter().map(|stream| stream["name"].as_str().unwrap()).collect();
            assert_eq!(names, expected, "{query}, {limit}");
        }
    }
    assert_eq!(Server::start().await.page("/api/v1/streams").await.text(), r#"{"streams":[]}"#);
}

#[tokio::test]
async fn listing_refuses_by_name_what_it_does_not_know() {
    let server = log_of_names().await;
    for (path, named) in [
        ("/api/v1/streams?colour=red", "colour"),
        ("/api/v1/streams?after=1", "after"),
        ("/api/v1/streams?limit=0", "limit"),
        ("/api/v1/streams?limit=1001", "limit"),
        ("/api/v1/streams?limit=1&limit=1", "limit"),
        ("/api/v1/streams?after_name=a&after_name=b", "after_name"),
        ("/api/v1/streams?stream=or*", "stream"),
        ("/api/v1/streams/a?limit=1", "limit"),
    ] {
        assert_eq!(server.page(path).await.problem(400, "parameter_invalid")["parameter"], named, "{path}");
    }
    server.page("/api/v1/streams/A").await.problem(400, "stream_invalid");
    server.page("/api/v1/streams/streams").await.problem(400, "stream_invalid");
    let missing = server.page("/api/v1/streams/b").await;
    assert_eq!(missing.problem(404, "stream_not_found")["stream"], "b");
}

#[tokio::test]
async fn listing_is_json_for_whoever_accepts_it() {
    let server = log_of_names().await;
    for path in ["/api/v1/streams", "/api/v1/streams/a"] {
        for accept in
            ["*/*", "application/*", "application/json", "text/html, */*;q=0.1", "*/*;q=0, application/json"]
        {
            let reply = Reply::of(server.get(path).header("accept", accept)).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{accept}");
        }
        for accept in ["text/event-stream", "application/json;q=0, */*", "application/x-ndjson", ""] {
            Reply::of(server.get(path).header("accept", accept)).await.problem(406, "not_acceptable");
        }
        let whole = server.page(path).await;
        let head = Reply::of(server.head(path)).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("etag"), whole.header("etag"));
        let known = Reply::of(server.get(path).header("if-none-match", whole.header("etag"))).await;
        assert_eq!((known.status, known.body.len()), (304, 0));
    }
}

/// What another process has committed may not be on disk yet: it is shown when the log shows it, and not before.
#[tokio::test]
async fn listing_never_runs_ahead_of_the_log() {
    // The writer notices it only when it is made to.
    let server = Server::start_with(|settings| {
        settings.log.notice_interval = std::time::Duration::from_secs(3600);
    })
    .await;
    server.append("a", "{}").await;
    let mut other = table::connect(server.file()).await;
    for _ in 0..10 {
        sqlx::query("INSERT INTO events (stream) VALUES ('a')").execute(&mut other).await.unwrap();
        let listing = async { (server.log.streams(&[], "", 10).await.unwrap(), server.log.bounds()) };
        // The append makes the writer notice; without it the listing would wait.
        let ((streams, bounds), _) =
            within("the listing", async { tokio::join!(biased; listing, server.append("b", "{}")) }).await;
        let newest = streams.iter().map(|stream| stream.last_seq).max();
        assert!(newest <= Some(bounds.last_seq), "{streams:?} beyond {bounds:?}");
    }
}
