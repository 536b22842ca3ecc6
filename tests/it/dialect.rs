//! The portable dialect of section 6, byte for byte. `stream::blocks` holds every stream of every test against rules 1
//! to 5; here are the streams that would break them.

use crate::raw::Connection;
use crate::server::{Reply, Server};
use crate::stream::{Stream, blocks};
use crate::table::{self, Row};
use evertail::http::Closing;
use evertail::sse::Event;
use futures_util::{StreamExt, stream};
use serde_json::json;
use sqlx::Connection as _;
use std::convert::Infallible;
use std::time::Duration;

/// Payloads as they are posted (nothing when absent), and the data lines that `format=data` makes of them.
const PAYLOADS: [(&str, &[&str]); 19] = [
    ("", &["null"]),
    ("null", &["null"]),
    (r#""""#, &[r#""""#]),
    (r#""\n""#, &[r#""\n""#]),
    (r#""\r\n\r""#, &[r#""\r\n\r""#]),
    (r#""one""#, &["one"]),
    (r#""a\nb""#, &["a", "b"]),
    (r#""a\rb\r\nc\n\rd""#, &["a", "b", "c", "", "d"]),
    (r#""\na\n""#, &["", "a", ""]),
    (r#"" led by a space""#, &[" led by a space"]),
    (r#""data: x\nid: 99\n\nevent: y\n\n""#, &["data: x", "id: 99", "", "event: y", "", ""]),
    (r#""\u00e9\ud83d\ude00 \u2028 \u0085 \ufeff""#, &["é😀 \u{2028} \u{85} \u{FEFF}"]),
    (r#""\u0000""#, &["\0"]),
    (r#""{\"not\":\"an object\"}""#, &[r#"{"not":"an object"}"#]),
    ("{\"a\" : [1.50, 1e2,\r\n\"x\\ny\"]}", &[r#"{"a":[1.50,1e2,"x\ny"]}"#]),
    ("12345678901234567890", &["12345678901234567890"]),
    ("false", &["false"]),
    ("[]", &["[]"]),
    ("{}", &["{}"]),
];

async fn log_of_payloads(window_bytes_max: usize) -> Server {
    let server = Server::start_with(|settings| settings.log.window_bytes_max = window_bytes_max).await;
    for (index, (data, _)) in PAYLOADS.iter().enumerate() {
        let data = if data.is_empty() { String::new() } else { format!(",\"data\":{data}") };
        let r#type = if index % 2 == 0 { "message" } else { "user.login" };
        server.append("a", &format!(r#"{{"type":"{type}"{data}}}"#)).await;
    }
    server
}

/// Reads a stream that ends by itself.
async fn whole(server: &Server, path: &str) -> Stream {
    let mut stream = server.stream(path).await;
    stream.rest().await;
    stream
}

#[tokio::test]
async fn first_bytes_of_a_stream_are_these() {
    let fixed = Duration::from_millis(1234);
    let server = Server::start_with(|settings| settings.http.retry = (fixed, fixed)).await;
    server.append("a", r#"{"type":"user.login","data":{"n":1}}"#).await;
    let mut stream = server.stream("/api/v1/a?after=0&limit=1").await;
    for name in ["content-length", "set-cookie", "etag"] {
        assert!(!stream.has_header(name), "{name}");
    }
    stream.rest().await;
    let (log, row) = (server.log.id(), server.table().await[0].json());
    let expected = format!(
        "retry: 1234\nevent: evertail.cursor\ndata: {{\"first_seq\":1,\"last_seq\":1,\"log\":\"{log}\"}}\nid: 0\n\n\
         event: user.login\ndata: {row}\nid: 1\n\n"
    );
    assert_eq!(String::from_utf8(stream.bytes.clone()).unwrap(), expected);
}

#[tokio::test]
async fn reset_takes_the_retry_of_the_first_block() {
    let fixed = Duration::from_millis(1234);
    let server = Server::start_with(|settings| settings.http.retry = (fixed, fixed)).await;
    let mut stream = server.stream("/api/v1/a?after=5").await;
    stream.control("evertail.reset").await;
    stream.cursor().await;
    let log = server.log.id();
    let expected = format!(
        "retry: 1234\nevent: evertail.reset\ndata: {{\"cursor\":5,\"last_seq\":0,\"reason\":\"ahead\"}}\n\n\
         event: evertail.cursor\ndata: {{\"first_seq\":1,\"last_seq\":0,\"log\":\"{log}\"}}\nid: 0\n\n"
    );
    assert_eq!(String::from_utf8(stream.bytes.clone()).unwrap(), expected);
}

#[tokio::test]
async fn gap_is_these_bytes() {
    let server = Server::start().await;
    server.append_types("a", ["message"; 3]).await;
    server.trim(2).await;
    let stream = whole(&server, "/api/v1/a?after=1&limit=1").await;
    let row = server.table().await[0].json();
    let expected = format!(
        "\n\nevent: evertail.gap\ndata: {{\"from\":2,\"to\":2,\"reason\":\"trimmed\"}}\n\ndata: {row}\nid: 3\n\n"
    );
    let text = String::from_utf8(stream.bytes.clone()).unwrap();
    assert!(text.ends_with(&expected), "{text}");
}

#[tokio::test]
async fn each_event_is_its_json_on_one_data_line() {
    for window in [0, 1 << 20] {
        let server = log_of_payloads(window).await;
        let count = PAYLOADS.len();
        for (flag, is_named) in [("", true), ("&format=event", true), ("&event=message", false)] {
            let stream = whole(&server, &format!("/api/v1/a?after=0&limit={count}{flag}")).await;
            let blocks = stream.blocks();
            for (block, row) in blocks[1..].iter().zip(server.table().await) {
                assert_eq!(block.data, [row.json()]);
                assert_eq!(block.id, Some(row.seq));
                let named = Some(row.r#type).filter(|name| is_named && name != "message");
                assert_eq!(block.event, named);
            }
            assert_eq!(blocks.len(), count + 1);
        }
    }
}

#[tokio::test]
async fn format_data_is_the_payload_alone_one_data_line_for_each_of_its_lines() {
    for window in [0, 1 << 20] {
        let server = log_of_payloads(window).await;
        let count = PAYLOADS.len();
        for (flag, is_named) in [("", true), ("&event=message", false)] {
            let stream = whole(&server, &format!("/api/v1/a?after=0&limit={count}&format=data{flag}")).await;
            let blocks = stream.blocks();
            for (index, (block, (data, expected))) in blocks[1..].iter().zip(PAYLOADS).enumerate() {
                assert_eq!(block.data, expected, "{data}");
                assert_eq!(block.id, Some(index as u64 + 1));
                assert_eq!(block.event.is_some(), is_named && index % 2 == 1);
            }
            assert_eq!(blocks.len(), count + 1);
        }
    }
}

#[tokio::test]
async fn unknown_format_is_refused() {
    let server = Server::start().await;
    for (query, name) in
        [("format=xml", "format"), ("format=", "format"), ("event=x", "event"), ("event=", "event")]
    {
        let reply = Reply::of(server.get(&format!("/api/v1/a?{query}"))).await;
        assert_eq!(reply.problem(400, "parameter_invalid")["parameter"], name);
    }
}

#[tokio::test]
async fn row_that_came_around_every_check_forges_no_frame() {
    let server = Server::start().await;
    server.append("a", r#"{"type":"before"}"#).await;
    let mut live = server.stream("/api/v1/events").await;
    let mut live_data = server.stream("/api/v1/events?format=data").await;
    live.cursor().await;
    live_data.cursor().await;
    let mut other = table::connect(server.file()).await;
    let evil = "x\nid: 99\r\ndata: forged\n\nevent: y\0";
    for data in
        [Some("{\"a\":\n1}\r"), Some("no json\n\nid: 98\n\n"), Some(""), Some("\n"), Some("\"torn"), None]
    {
        sqlx::query(
            "INSERT INTO log (seq, stream, source, id, type, subject, time, created_at, data)
             SELECT max(seq) + 1, ?1, ?1, ?1, ?1, ?1, ?1, max(created_at), ?2 FROM log",
        )
        .bind(evil)
        .bind(data)
        .execute(&mut other)
        .await
        .unwrap();
    }
    other.close().await.unwrap();
    for stream in [&mut live, &mut live_data] {
        assert_eq!(stream.seqs(6).await, [2, 3, 4, 5, 6, 7]);
    }
    let mut history = server.stream("/api/v1/events?after=1").await;
    history.cursor().await;
    assert_eq!(history.seqs(6).await, [2, 3, 4, 5, 6, 7]);
    for stream in [live, live_data, history] {
        for block in &stream.blocks()[1..] {
            assert_eq!(
                block.event.as_deref(),
                Some("x\u{FFFD}id: 99\u{FFFD}\u{FFFD}data: forged\u{FFFD}\u{FFFD}event: y\u{FFFD}")
            );
        }
    }
}

#[tokio::test]
async fn row_of_another_process_is_delivered_like_any_other() {
    for window in [0, 1 << 20] {
        let server = Server::start_with(|settings| settings.log.window_bytes_max = window).await;
        server.append("a", "{}").await;
        let mut live = server.stream("/api/v1/events").await;
        live.cursor().await;
        let mut other = table::connect(server.file()).await;
        for n in 0..3 {
            sqlx::query(
                "INSERT INTO events (stream, id, type, data) VALUES ('b', ?, 'outbox', '{\"n\" : 1.50}')",
            )
            .bind(n.to_string())
            .execute(&mut other)
            .await
            .unwrap();
        }
        assert_eq!(live.seqs(3).await, [2, 3, 4]);
        server.append("a", "{}").await;
        assert_eq!(live.seqs(1).await, [5]);
        let table = server.table().await;
        for (block, row) in live.blocks()[1..].iter().zip(&table[1..]) {
            assert_eq!(block.data, [row.json()]);
        }
    }
}

/// What the standard makes of a row with `format=data`.
fn payload_text(row: &Row) -> String {
    let Some(data) = &row.data else { return "null".to_owned() };
    let Ok(text) = serde_json::from_str::<String>(data) else { return data.clone() };
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    if lines.chars().all(|character| character == '\n') { data.clone() } else { lines }
}

/// The stream through the parser of others.
fn read_by_others(bytes: &[u8]) -> Vec<Event> {
    let chunks = bytes.chunks(997).map(|chunk| Ok::<_, Infallible>(bytes::Bytes::copy_from_slice(chunk)));
    let blocks = sse_stream::SseByteStream::new(stream::iter(chunks)).collect::<Vec<_>>();
    let blocks = futures_util::FutureExt::now_or_never(blocks).expect("all chunks are there");
    let mut last_event_id = String::new();
    let mut events = Vec::new();
    for block in blocks.into_iter().map(Result::unwrap) {
        last_event_id = block.id.unwrap_or(last_event_id);
        let event = block.event.unwrap_or_else(|| "message".to_owned());
        events.extend(block.data.map(|data| Event { event, data, last_event_id: last_event_id.clone() }));
    }
    events
}

#[tokio::test]
async fn long_stream_is_the_table_to_our_parser_and_to_the_one_of_others() {
    for window in [0, 40 << 10, 8 << 20] {
        let server = Server::start_with(|settings| {
            settings.log.window_bytes_max = window;
            settings.http.page_bytes_max = 5_000;
        })
        .await;
        const EVENTS: usize = 2_000;
        for first in (0..EVENTS).step_by(100) {
            let event = |n: usize| {
                let (data, _) = PAYLOADS[n % PAYLOADS.len()];
                let data = if data.is_empty() { "null" } else { data };
                let r#type = ["message", "x", "ä.ö", "x y"][n % 4];
                let filler = "z".repeat(n * 7 % 250);
                format!(r#"{{"type":"{type}","id":"{n}","subject":"{n}{filler}","data":{data}}}"#)
            };
            let batch: Vec<_> = (first..first + 100).map(event).collect();
            server.append("a", &format!("[{}]", batch.join(","))).await;
        }
        let table = server.table().await;
        assert_eq!(table.len(), EVENTS);
        for format in ["event", "data"] {
            for start in [0, 1, 1700] {
                let limit = EVENTS - start;
                let path = format!("/api/v1/events?after={start}&limit={limit}&format={format}");
                let mut stream = server.stream(&path).await;
                let ours = stream.rest().await;
                assert_eq!(read_by_others(&stream.bytes), ours);
                assert_eq!(ours.len(), limit + 1);
                for (event, row) in ours[1..].iter().zip(&table[start..]) {
                    let data = if format == "event" { row.json() } else { payload_text(row) };
                    let last_event_id = row.seq.to_string();
                    assert_eq!(*event, Event { event: row.r#type.clone(), data, last_event_id });
                }
            }
        }
    }
}

#[tokio::test]
async fn stream_with_a_limit_ends_behind_so_many_events_and_a_frame() {
    for window in [0, 1 << 20] {
        let server = Server::start_with(|settings| settings.log.window_bytes_max = window).await;
        server.append_types("a", ["x", "y"].into_iter().cycle().take(10)).await;
        for (query, expected) in
            [("limit=3", vec![1, 2, 3]), ("limit=2&type=y", vec![2, 4]), ("limit=10", (1..=10).collect())]
        {
            let mut stream = server.stream(&format!("/api/v1/a?after=0&{query}")).await;
            assert_eq!(stream.cursor().await, 0);
            let ids: Vec<u64> =
                stream.rest().await.iter().map(|e| e.last_event_id.parse().unwrap()).collect();
            assert_eq!(ids, expected);
        }
        // One that has to wait for its last event.
        let mut stream = server.stream("/api/v1/a?after=8&limit=3").await;
        stream.cursor().await;
        assert_eq!(stream.seqs(2).await, [9, 10]);
        server.append_types("a", ["x", "y"]).await;
        assert_eq!(stream.seqs(1).await, [11]);
        assert_eq!(stream.event_or_end().await, None);
    }
}

#[tokio::test]
async fn streams_that_the_server_ends_are_told_why_without_an_id() {
    for (why, reason) in [(Closing::Drain, "drain"), (Closing::Unavailable, "unavailable")] {
        let server = Server::start().await;
        server.append("a", "{}").await;
        let mut idle = server.stream("/api/v1/a").await;
        let mut filtered = server.stream("/api/v1/events?type=none").await;
        idle.cursor().await;
        filtered.cursor().await;
        server.close(why);
        // To open a stream now is still a 200: anything else would end a native EventSource for good.
        let mut late = server.stream_after("/api/v1/a", 0).await;
        assert_eq!(late.cursor().await, 0);
        for stream in [&mut idle, &mut filtered, &mut late] {
            let (notice, cursor) = stream.control("evertail.notice").await;
            assert_eq!(notice, json!({"reason": reason}));
            assert!(cursor == "0" || cursor == "1");
            assert_eq!(stream.event_or_end().await, None);
            let expected = format!("event: evertail.notice\ndata: {{\"reason\":\"{reason}\"}}\n\n");
            assert!(stream.bytes.ends_with(expected.as_bytes()));
        }
    }
}

#[tokio::test]
async fn stream_that_ends_in_the_middle_of_history_ends_at_a_frame_and_is_resumed_there() {
    for window in [0, 64 << 20] {
        let server = Server::start_with(|settings| {
            settings.log.window_bytes_max = window;
            settings.connections.send_buffer_bytes = 4 << 10;
            settings.http.page_bytes_max = 10_000;
        })
        .await;
        let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(2000));
        for _ in 0..10 {
            server.append("a", &format!("[{}]", vec![event.as_str(); 200].join(","))).await;
        }
        let mut connection = Connection::open_narrow(server.address).await;
        connection.send("GET /api/v1/a?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        connection.head().await.unwrap();
        let mut bytes = connection.chunk().await.unwrap();
        server.close(Closing::Drain);
        loop {
            match &connection.chunk().await.expect("the body has an end")[..] {
                [] => break,
                chunk => bytes.extend_from_slice(chunk),
            }
        }
        let blocks = blocks(&bytes, true);
        let (notice, given) = blocks[1..].split_last().unwrap();
        assert_eq!(notice.event.as_deref(), Some("evertail.notice"));
        let ids: Vec<u64> = given.iter().map(|block| block.id.unwrap()).collect();
        assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
        assert!(ids.len() < 2000, "the end came too late to tell");
        let server = server.restart().await;
        let cursor = ids.last().copied().unwrap_or(0);
        let mut stream = server.stream_after("/api/v1/a", cursor).await;
        assert_eq!(stream.cursor().await, cursor);
        assert_eq!(stream.seqs(2000 - ids.len()).await, (cursor + 1..=2000).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn stream_over_http_1_0_is_the_same_bytes_and_ends_with_the_connection() {
    let server = Server::start().await;
    server.append_types("a", ["x", "y"]).await;
    let mut connection = Connection::open(server.address).await;
    connection.send("GET /api/v1/a?after=0&limit=2 HTTP/1.0\r\n\r\n").await;
    let reply = connection.reply().await;
    assert_eq!((reply.status, reply.header("transfer-encoding")), (200, ""));
    let ids: Vec<_> = blocks(&reply.body, true).iter().map(|block| block.id).collect();
    assert_eq!(ids, [Some(0), Some(1), Some(2)]);
}

#[tokio::test]
async fn head_of_a_stream_has_its_headers_and_opens_nothing() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    for _ in 0..3 {
        connection.send("HEAD /api/v1/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let reply = connection.reply_to("HEAD").await.unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8");
    }
    assert_eq!(connection.get("/healthz", "").await.text(), "ok\n");
}
