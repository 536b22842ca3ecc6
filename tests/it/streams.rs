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
    let mut ever = server.table().await;
    for trimmed in [0, 1, 19, ever.len() as u64 - 3, ever.len() as u64] {
        server.trim(trimmed).await;
        let rows = server.table().await;
        // A trim is told by an event.
        ever.extend(rows.iter().skip_while(|row| row.seq <= ever.len() as u64).cloned().collect::<Vec<_>>());
        let expected = expected(&ever, &rows);
        assert_eq!(expected.len(), NAMES.len() + usize::from(trimmed > 0));
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
        let listing = async { (server.log.streams(&[], None, "", 10).await.unwrap(), server.log.bounds()) };
        // The append makes the writer notice; without it the listing would wait.
        let ((streams, bounds), _) =
            within("the listing", async { tokio::join!(biased; listing, server.append("b", "{}")) }).await;
        let newest = streams.iter().map(|stream| stream.last_seq).max();
        assert!(newest <= Some(bounds.last_seq), "{streams:?} beyond {bounds:?}");
    }
}

async fn close(server: &Server, stream: &str, body: &str) -> Reply {
    Reply::of(server.post(&format!("/api/v1/{stream}/close"), "application/json", body.to_owned())).await
}

/// Opens a stream, which must be answered by 204: the client that gets it does not come back.
async fn assert_over(server: &Server, path: &str, cursor: Option<u64>) {
    let request = server.get(path).header("accept", "text/event-stream");
    let request = match cursor {
        Some(cursor) => request.header("last-event-id", cursor),
        None => request,
    };
    let reply = Reply::of(request).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0), "{path} after {cursor:?}: {}", reply.text());
}

#[tokio::test]
async fn close_appends_the_final_event_once() {
    let server = Server::start().await;
    server.append("a", r#"{"id":"1","data":1}"#).await;
    let first = close(&server, "a", r#"{"reason":"\"done\""}"#).await;
    assert_eq!((first.status, first.header("location")), (201, "/api/v1/events/2"));
    assert_eq!((first.json()["seq"].as_u64(), first.json()["stream"].as_str()), (Some(2), Some("a")));
    let again = close(&server, "a", r#"{"reason":"other"}"#).await;
    assert_eq!(again.status, 200);
    let mut expected = first.json();
    expected["duplicate"] = json!(true);
    assert_eq!(again.json(), expected);
    let server = server.restart().await;
    assert_eq!(close(&server, "a", "").await.json(), expected);
    // A stream without events is created by its end.
    assert_eq!(close(&server, "b", "").await.json()["seq"], 3);

    let rows = server.table().await;
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (rows[1].r#type.as_str(), rows[1].data.as_deref()),
        ("evertail.closed", Some(r#"{"reason":"\"done\""}"#))
    );
    assert_eq!(rows[2].data, None);
    let page = server.page("/api/v1/a?type=evertail.*").await.json();
    assert_eq!(page["events"][0]["type"], "evertail.closed");
    assert_eq!(server.page("/api/v1/streams/a").await.json()["closed_seq"], 2);
    assert_eq!(server.page("/api/v1/streams/b").await.json()["closed_seq"], 3);
    server.append("c", "{}").await;
    assert_eq!(server.page("/api/v1/streams/c").await.json().get("closed_seq"), None);
}

#[tokio::test]
async fn closed_stream_takes_repeats_and_nothing_else() {
    let server = Server::start().await;
    server.append("a", r#"{"id":"1","data":1}"#).await;
    close(&server, "a", "").await;
    let post = async |path: &str, body: &str| {
        Reply::of(server.post(path, "application/json", body.to_owned())).await
    };
    let repeat = post("/api/v1/a", r#"{"id":"1","data":1}"#).await;
    assert_eq!((repeat.status, repeat.json()["duplicate"].as_bool()), (200, Some(true)));
    post("/api/v1/a", r#"{"id":"1","data":2}"#).await.problem(422, "id_reused");
    for body in ["{}", r#"{"id":"2"}"#, r#"[{"id":"1","data":1},{}]"#] {
        assert_eq!(post("/api/v1/a", body).await.problem(409, "stream_closed")["closed_seq"], 2, "{body}");
    }
    let batch = post("/api/v1/events", r#"[{"stream":"b"},{"stream":"a"}]"#).await;
    assert_eq!(batch.problem(409, "stream_closed")["errors"][0]["pointer"], "/1");
    assert_eq!(server.table().await.len(), 2, "nothing of a refused request is stored");
    // Those who are appending elsewhere at the same moment are not held up by it.
    let (refused, stored) = tokio::join!(post("/api/v1/a", "{}"), post("/api/v1/b", "{}"));
    refused.problem(409, "stream_closed");
    assert_eq!(stored.status, 201);
}

#[tokio::test]
async fn close_is_refused_with_the_reason_it_is() {
    let server = Server::start().await;
    server.append("a", "{}").await;
    let long = format!(r#"{{"reason":"{}"}}"#, "ä".repeat(257));
    for (body, status, code) in [
        ("{", 400, "json_invalid"),
        ("reason=stop", 400, "json_invalid"),
        (r#"{"reason":"a","reason":"b"}"#, 400, "body_invalid"),
        ("[]", 400, "body_invalid"),
        (r#"{"why":1}"#, 400, "body_invalid"),
        (r#"{"reason":1}"#, 400, "body_invalid"),
        (r#"{"reason":""}"#, 400, "body_invalid"),
        (r#"{"reason":"a\nb"}"#, 400, "body_invalid"),
        (&long, 400, "body_invalid"),
    ] {
        assert!(close(&server, "a", body).await.problem(status, code)["errors"].is_array(), "{body}");
    }
    close(&server, "evertail", "").await.problem(403, "stream_reserved");
    close(&server, "Streams", "").await.problem(400, "stream_invalid");
    let with = |seq: &str| server.post("/api/v1/a/close", "", "").header("if-match", seq.to_owned());
    assert_eq!(Reply::of(with("\"0\"")).await.problem(412, "precondition_failed")["last_seq"], 1);
    assert_eq!(server.table().await.len(), 1);
    assert_eq!(Reply::of(with("\"1\"")).await.status, 201);
}

#[tokio::test]
async fn readers_of_a_closed_stream_get_everything_then_204() {
    for window_bytes_max in [0, 1 << 20] {
        let server = Server::start_with(|settings| settings.log.window_bytes_max = window_bytes_max).await;
        server.append("a", r#"[{"data":"x"},{"type":"t"}]"#).await;
        server.append("b", "{}").await;
        close(&server, "a", r#"{"reason":"done"}"#).await;
        server.append("b", "{}").await;
        for path in [
            "/api/v1/a",
            "/api/v1/events?stream=a",
            "/api/v1/a?event=message",
            "/api/v1/a?format=data&event=message",
            "/api/v1/a?type=t",
            "/api/v1/a?data.n=1",
            "/api/v1/a?subject=s&source=q",
        ] {
            let mut stream = server.stream_after(path, 0).await;
            let events = stream.rest().await;
            let last = events.last().unwrap();
            assert_eq!(
                (last.event.as_str(), last.last_event_id.as_str()),
                ("evertail.closed", "4"),
                "{path}"
            );
            let data: Value = serde_json::from_str(&last.data).unwrap();
            let payload = if path.contains("format=data") { &data } else { &data["data"] };
            assert_eq!(payload["reason"], "done", "{path}");
            let wanted = match path {
                _ if path.contains("type=t") => 1,
                _ if path.contains("data.n") || path.contains("subject") => 0,
                _ => 2,
            };
            // The cursor first, the end last.
            assert_eq!(events.len(), wanted + 2, "{path}: {events:?}");
            assert_over(&server, path, Some(4)).await;
            assert_over(&server, path, Some(5)).await;
            assert_over(&server, path, None).await;
            // Whoever lost the last frame gets it.
            let after = server.stream_after(path, 3).await.rest().await;
            assert_eq!(after.len(), 2, "{path}");
        }
        let mut lines = server.stream_after("/api/v1/a?format=data&event=message", 0).await;
        lines.rest().await;
        let text = String::from_utf8(lines.bytes.clone()).unwrap();
        assert!(text.ends_with("event: evertail.closed\ndata: {\"reason\":\"done\"}\nid: 4\n\n"), "{text}");
        // Ahead of the log: told, and over at the next request.
        let mut ahead = server.stream_after("/api/v1/a", 99).await;
        ahead.control("evertail.reset").await;
        let cursor = ahead.cursor().await;
        assert_eq!(ahead.rest().await, []);
        assert_over(&server, "/api/v1/a", Some(cursor)).await;
    }
}

#[tokio::test]
async fn live_readers_see_the_end_and_are_ended() {
    let server = Server::start().await;
    let mut readers = Vec::new();
    for path in
        ["/api/v1/a", "/api/v1/a?type=t", "/api/v1/a?data.n=1", "/api/v1/events?stream=a&event=message"]
    {
        let mut reader = server.stream(path).await;
        assert_eq!(reader.cursor().await, 0);
        readers.push((path, reader));
    }
    let mut all = server.stream("/api/v1/events").await;
    let mut several = server.stream("/api/v1/events?stream=a&stream=b").await;
    assert_eq!((all.cursor().await, several.cursor().await), (0, 0));
    close(&server, "a", "").await;
    for (path, mut reader) in readers {
        let events = reader.rest().await;
        assert_eq!(events.len(), 1, "{path}");
        assert_eq!(
            (events[0].event.as_str(), events[0].last_event_id.as_str()),
            ("evertail.closed", "1"),
            "{path}"
        );
        assert_over(&server, path, Some(1)).await;
    }
    // More than one stream: an event like others, and what comes after it too.
    server.append("b", "{}").await;
    for reader in [&mut all, &mut several] {
        let end = reader.event().await;
        assert_eq!((end.event.as_str(), end.last_event_id.as_str()), ("evertail.closed", "1"));
        assert_eq!(reader.seqs(1).await, [2]);
    }
}

#[tokio::test]
async fn reader_whose_stream_is_closed_and_trimmed_is_told_the_gap_once() {
    let server = Server::start().await;
    server.append("a", "[{},{}]").await;
    close(&server, "a", "").await;
    server.append("b", "[{},{}]").await;
    server.trim(4).await;
    let mut reader = server.stream_after("/api/v1/a", 1).await;
    assert_eq!(reader.cursor().await, 1);
    reader.control("evertail.gap").await;
    let cursor = reader.cursor().await;
    assert_eq!((cursor, reader.rest().await), (4, vec![]));
    assert_over(&server, "/api/v1/a", Some(cursor)).await;
    assert_over(&server, "/api/v1/a?after=0", None).await;
    // The end outlives the event.
    assert_eq!(close(&server, "a", "").await.json(), json!({"seq": 3, "stream": "a", "duplicate": true}));
    let refused = Reply::of(server.post("/api/v1/a", "application/json", "{}")).await;
    assert_eq!(refused.problem(409, "stream_closed")["closed_seq"], 3);
}

#[tokio::test]
async fn the_end_of_a_stream_is_an_event_like_others_to_all_but_the_reader_it_ends() {
    for window_bytes_max in [0, 1 << 20] {
        let server = Server::start_with(|settings| settings.log.window_bytes_max = window_bytes_max).await;
        server.append("a", r#"{"data":{"n":1}}"#).await;
        assert_eq!(close(&server, "a", "").await.status, 201);
        server.append("b", r#"{"data":{"n":1}}"#).await;
        for (query, expected) in [("", vec![1, 2, 3]), ("data.n=1", vec![1, 3]), ("source=/s", vec![])] {
            let path = format!("/api/v1/events?{query}");
            let page = server.page(&path).await.json();
            let seqs = page["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap());
            assert_eq!(seqs.collect::<Vec<_>>(), expected, "page: {query}");
            assert_eq!(server.lines(&path).await.text().lines().count(), expected.len(), "lines: {query}");
            let mut stream = server.stream(&format!("{path}&after=0&before=4")).await;
            let seqs = stream.rest().await.into_iter().filter(|event| event.event != "evertail.cursor");
            let seqs: Vec<u64> = seqs.map(|event| event.last_event_id.parse().unwrap()).collect();
            assert_eq!(seqs, expected, "stream: {query}");
        }
        for query in ["data.n=7", "source=/s", "subject=x", "type=x&data.n=7"] {
            let path = format!("/api/v1/a?after=0&{query}&event=message&format=cloudevents");
            let end = server.stream(&path).await.rest().await.pop().unwrap();
            assert_eq!((end.event.as_str(), end.last_event_id.as_str()), ("evertail.closed", "2"), "{query}");
        }
    }
}
