//! One selection language: the live stream, the stream of history, the walk over pages in both directions and NDJSON
//! give the same events, and they are those that a plain filter over the table leaves.

use crate::server::{Reply, Server, within};
use crate::table::{self, Row};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const JSON: &str = "application/json";

type Wanted = fn(&Row, &Value) -> bool;

/// A query, and what it means, said once more.
const QUERIES: [(&str, Wanted); 16] = [
    ("", |_, _| true),
    ("stream=a&stream=b.*", |row, _| row.stream == "a" || row.stream.starts_with("b.")),
    ("type=user.*", |row, _| row.r#type.starts_with("user.")),
    ("source=/s", |row, _| row.source == "/s"),
    ("source=/s&source=/t%20u", |row, _| row.source == "/s" || row.source == "/t u"),
    ("subject=1", |row, _| row.subject.as_deref() == Some("1")),
    ("data.actor=alice", |_, data| data["actor"] == "alice"),
    ("data.actor!=alice", |_, data| data["actor"] != "alice"),
    ("data.amount>=100", |_, data| data["amount"].as_f64().is_some_and(|n| n >= 100.0)),
    ("data.amount<100", |_, data| data["amount"].as_f64().is_some_and(|n| n < 100.0)),
    ("data.amount%3E98&data.amount<=101", |_, data| {
        data["amount"].as_f64().is_some_and(|n| n > 98.0 && n <= 101.0)
    }),
    ("data.user.name~=ali", |_, data| data["user"]["name"].as_str().is_some_and(|name| name.contains("ali"))),
    ("data.tags~=red", |_, data| {
        data["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == "red"))
    }),
    ("type=user.login&stream=a&data.actor=bob", |row, data| {
        row.r#type == "user.login" && row.stream == "a" && data["actor"] == "bob"
    }),
    ("data.nothing=1", |_, _| false),
    ("data~=plain", |_, data| data.as_str().is_some_and(|text| text.contains("plain"))),
];

fn event(n: usize) -> String {
    let stream = ["a", "b", "b.x", "c"][n % 4];
    let r#type = ["user.login", "order", "user.logout"][n % 3];
    let more = ["", r#","source":"/s","subject":"1""#, r#","source":"/t u","subject":"11""#][n % 5 % 3];
    let actor = ["alice", "bob"][n % 7 % 2];
    let data = match n % 9 {
        0 => "\"a plain text\"".to_owned(),
        1 => "null".to_owned(),
        2 => format!(r#"{{"actor":"{actor}","tags":["red","x"]}}"#),
        _ => format!(r#"{{"amount":{},"actor":"{actor}","user":{{"name":"the {actor}a li"}}}}"#, 90 + n % 20),
    };
    format!(r#"{{"stream":"{stream}","type":"{type}"{more},"data":{data}}}"#)
}

async fn append(server: &Server, events: std::ops::Range<usize>) {
    let batch: Vec<String> = events.map(event).collect();
    let reply = Reply::of(server.post("/api/v1/events", JSON, format!("[{}]", batch.join(",")))).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
}

/// The seqs of a page's events, and its link.
fn page(reply: &Reply, rel: &str) -> (Vec<u64>, Option<String>) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let page = reply.json();
    let seqs = page["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap());
    let link = page[rel].as_str().map(str::to_owned);
    let header = link.as_ref().map(|link| format!("<{link}>; rel=\"{rel}\""));
    assert!(header.is_none_or(|header| reply.header("link").contains(&header)), "{:?}", reply.headers);
    (seqs.collect(), link)
}

/// Follows a link to the end.
async fn walk(server: &Server, first: &str, rel: &str) -> Vec<u64> {
    let (mut all, mut path) = (Vec::new(), Some(first.to_owned()));
    while let Some(at) = path {
        let (seqs, link) = page(&server.page(&at).await, rel);
        all.extend(seqs);
        assert_ne!(link.as_deref(), Some(at.as_str()), "a walk without an end");
        path = link;
    }
    all
}

fn seqs_of(events: &[evertail::sse::Event]) -> Vec<u64> {
    let wanted = events.iter().filter(|event| !event.event.starts_with("evertail."));
    wanted.map(|event| event.last_event_id.parse().unwrap()).collect()
}

#[tokio::test]
async fn every_way_to_read_gives_the_same_events() {
    for window_bytes_max in [0, 1 << 20] {
        let server = Server::start_with(|settings| {
            settings.log.window_bytes_max = window_bytes_max;
            settings.http.page_bytes_max = 4 << 10;
        })
        .await;
        let mut live = Vec::new();
        for (query, _) in QUERIES {
            // It ends when it has been given, or has passed over, the last of them.
            let mut stream = server.stream(&format!("/api/v1/events?{query}&before=241")).await;
            assert_eq!(stream.cursor().await, 0);
            live.push(stream);
        }
        for first in (0..240).step_by(30) {
            append(&server, first..first + 30).await;
        }
        let rows = server.table().await;
        for ((query, wanted), mut live) in QUERIES.into_iter().zip(live) {
            let data = |row: &Row| serde_json::from_str(row.data.as_deref().unwrap()).unwrap();
            let expected: Vec<u64> =
                rows.iter().filter(|row| wanted(row, &data(row))).map(|row| row.seq).collect();
            let base = format!("/api/v1/events?{query}");
            assert_eq!(seqs_of(&live.rest().await), expected, "live: {query}");
            let mut history = server.stream(&format!("{base}&after=0&before=241")).await;
            assert_eq!(seqs_of(&history.rest().await), expected, "history: {query}");
            let lines = server.lines(&base).await.text();
            let lines: Vec<u64> = lines
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
                .collect();
            assert_eq!(lines, expected, "lines: {query}");
            let csv = Reply::of(server.get(&base).header("accept", "text/csv")).await;
            assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
            let csv = csv.text();
            let records = csv
                .strip_prefix("seq,stream,source,id,type,subject,time,created_at,data,traceparent\r\n")
                .unwrap();
            let seqs = records.split_terminator("\r\n").map(|record| record.split(',').next().unwrap());
            assert_eq!(seqs.map(|seq| seq.parse().unwrap()).collect::<Vec<u64>>(), expected, "CSV: {query}");
            assert_eq!(walk(&server, &format!("{base}&limit=7"), "next").await, expected, "next: {query}");
            let mut descending = walk(&server, &format!("{base}&limit=7&order=desc"), "next").await;
            descending.reverse();
            assert_eq!(descending, expected, "descending: {query}");
            // Backward from the end, a page at a time, each in order.
            let (mut backward, mut path) = (Vec::new(), Some(format!("{base}&last=7")));
            while let Some(at) = path {
                let (seqs, link) = page(&server.page(&at).await, "prev");
                backward.splice(0..0, seqs);
                path = link;
            }
            assert_eq!(backward, expected, "backward: {query}");
            for count in [1, 5] {
                let (seqs, _) = page(&server.page(&format!("{base}&last={count}&limit=1000")).await, "next");
                assert_eq!(seqs, expected[expected.len().saturating_sub(count)..], "last {count}: {query}");
            }
        }
    }
}

#[tokio::test]
async fn links_mean_the_same_while_events_arrive_and_are_trimmed() {
    let server = Server::start().await;
    append(&server, 0..100).await;
    let first = server.page("/api/v1/events?limit=10&order=desc").await;
    let (seqs, next) = page(&first, "next");
    assert_eq!(seqs, (91..=100).rev().collect::<Vec<_>>());
    assert_eq!(first.json()["cursor"], 100);
    append(&server, 0..50).await;
    server.trim(85).await;
    let second = server.page(&next.unwrap()).await;
    let (seqs, next) = page(&second, "next");
    assert_eq!((seqs, next), ((86..=90).rev().collect(), None));
    let (seqs, _) = page(&server.page(&page(&second, "prev").1.unwrap()).await, "next");
    assert_eq!(seqs, (91..=100).rev().collect::<Vec<_>>());
    for gone in ["before=86", "after=84", "order=desc&before=50", "order=desc&after=3"] {
        let reply = server.page(&format!("/api/v1/events?{gone}")).await;
        assert_eq!((reply.status, reply.json()["first_seq"].as_u64()), (410, Some(86)), "{gone}");
    }
    let (seqs, _) = page(&server.page("/api/v1/events?order=desc&after=145").await, "next");
    // The newest tells of the trim.
    assert_eq!(seqs, (146..=151).rev().collect::<Vec<_>>());
    let range = "/api/v1/events?after=100&before=121&limit=15";
    assert_eq!(walk(&server, range, "next").await, (101..=120).collect::<Vec<_>>());
}

#[tokio::test]
async fn page_that_the_client_has_is_not_sent_again() {
    let server = Server::start().await;
    append(&server, 0..3).await;
    let reply = server.page("/api/v1/events").await;
    let tag = reply.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let request = server.get("/api/v1/events").header("accept", JSON).header("if-none-match", &known);
        let reply = Reply::of(request).await;
        assert_eq!((reply.status, reply.body.len(), reply.header("etag")), (304, 0, tag.as_str()), "{known}");
    }
    append(&server, 3..4).await;
    let request = server.get("/api/v1/events").header("accept", JSON).header("if-none-match", &tag);
    let reply = Reply::of(request).await;
    assert_eq!(reply.status, 200);
    assert_ne!(reply.header("etag"), tag);
}

#[tokio::test]
async fn until_ends_a_reader_before_the_first_event_of_that_time() {
    let server = Server::start().await;
    append(&server, 0..4).await;
    let created_at = server.table().await[3].created_at.clone();
    append(&server, 4..6).await;
    let boundary = server.table().await[4].created_at.clone();
    let before = format!("/api/v1/events?until={boundary}");
    assert_eq!(page(&server.page(&before).await, "next").0, [1, 2, 3, 4]);
    assert_eq!(page(&server.page(&format!("{before}&order=desc&limit=2")).await, "next").0, [4, 3]);
    assert_eq!(page(&server.page(&format!("{before}&last=1")).await, "next").0, [4]);
    assert_eq!(page(&server.page(&format!("/api/v1/events?until={created_at}")).await, "next").0, [0u64; 0]);
    assert_eq!(server.lines(&before).await.text().lines().count(), 4);
    let mut stream = server.stream(&format!("{before}&after=0")).await;
    assert_eq!(seqs_of(&stream.rest().await), [1, 2, 3, 4]);
    // What it would come back for is over: 204 ends an EventSource.
    let again = Reply::of(server.get(&before).header("last-event-id", "4")).await;
    assert_eq!((again.status, again.body.len()), (204, 0));
    let again = Reply::of(server.get("/api/v1/events?before=5").header("last-event-id", "4")).await;
    assert_eq!(again.status, 204);
    // Also where the last events before the end were not wanted.
    let path = "/api/v1/events?before=5&data.nothing=1&after=0";
    let last_id = server.stream(path).await.rest().await.pop().unwrap().last_event_id;
    let again = Reply::of(server.get(path).header("last-event-id", &last_id)).await;
    assert_eq!((last_id.as_str(), again.status), ("4", 204));

    // A time to come is waited for.
    let mut stream = server.stream("/api/v1/events?until=2998-01-01T00:00:00Z&after=5").await;
    stream.cursor().await;
    assert_eq!(stream.seqs(1).await, [6]);
    append(&server, 6..7).await;
    assert_eq!(stream.seqs(1).await, [7]);
    let mut other = table::connect(server.file()).await;
    sqlx::query("INSERT INTO log (seq, stream, created_at) VALUES (8, 'a', '2999-01-01T00:00:00.000000Z')")
        .execute(&mut other)
        .await
        .unwrap();
    assert_eq!(stream.rest().await.len(), 0);
    assert_eq!(server.log.bounds().last_seq, 8);
}

#[tokio::test]
async fn parameters_that_cannot_be_used_are_named() {
    let server = Server::start().await;
    let many = "&data.a=1".repeat(17);
    for (query, name) in [
        ("data.=1", "data."),
        ("data.a!1", "data.a!1"),
        ("data.a~=", "data.a~"),
        ("datum=1", "datum"),
        ("order=up", "order"),
        ("before=0", "before"),
        ("before=x", "before"),
        ("until=soon", "until"),
        ("until=1h&until=2h", "until"),
        ("last=3&order=desc", "last"),
        (many.as_str(), "data.a"),
    ] {
        let reply = server.page(&format!("/api/v1/events?{query}")).await;
        let problem = reply.json();
        assert_eq!((reply.status, problem["parameter"].as_str()), (400, Some(name)), "{query}: {problem}");
    }
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let reply = Reply::of(server.get("/api/v1/events?order=desc").header("accept", accept)).await;
        assert_eq!((reply.status, reply.json()["parameter"].as_str()), (400, Some("order")));
    }
}

#[tokio::test]
async fn csv_has_columns_and_no_other_format() {
    let server = Server::start().await;
    append(&server, 0..2).await;
    let request =
        |query: &str, accept| server.get(&format!("/api/v1/events{query}")).header("accept", accept);
    let with = Reply::of(request("", "text/csv")).await.text();
    let without = Reply::of(request("", "text/csv; header=absent")).await.text();
    let header = "seq,stream,source,id,type,subject,time,created_at,data,traceparent\r\n";
    assert_eq!((with.strip_prefix(header), without.lines().count()), (Some(without.as_str()), 2));
    for query in ["?format=cloudevents", "?format=data"] {
        let reply = Reply::of(request(query, "text/csv")).await;
        assert_eq!((reply.status, reply.json()["parameter"].as_str()), (400, Some("format")), "{query}");
    }
}

/// A page load and an EventSource from its cursor: nothing missing, nothing twice, while events pour in.
#[tokio::test]
async fn page_and_then_a_stream_is_exact_under_load() {
    let server = Arc::new(Server::start().await);
    let is_over = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn({
        let (server, is_over) = (server.clone(), is_over.clone());
        async move {
            while !is_over.load(Ordering::Relaxed) {
                append(&server, 0..13).await;
            }
        }
    });
    for round in 0..40 {
        let path =
            ["/api/v1/events?last=20", "/api/v1/events?order=desc&limit=20", "/api/v1/b.x?last=5"][round % 3];
        let reply = server.page(path).await;
        let (mut seqs, _) = page(&reply, "next");
        seqs.sort_unstable();
        let cursor = reply.json()["cursor"].as_u64().unwrap();
        let stream_path = path.split('?').next().unwrap();
        let mut stream = server.stream_after(stream_path, cursor).await;
        stream.cursor().await;
        seqs.extend(stream.seqs(20).await);
        let (first, last) = (seqs.first().copied().unwrap_or(1), *seqs.last().unwrap());
        let name = stream_path.rsplit('/').next().unwrap();
        let rows = server.table().await;
        let expected: Vec<u64> = rows
            .iter()
            .filter(|row| (first..=last).contains(&row.seq) && (name == "events" || row.stream == name))
            .map(|row| row.seq)
            .collect();
        assert_eq!(seqs, expected, "{path}");
    }
    is_over.store(true, Ordering::Relaxed);
    within("the producer ends", producer).await.unwrap();
}
