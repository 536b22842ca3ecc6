//! History: JSON pages and their links, NDJSON, filters, one event. All of it is held against the table.

use crate::server::{Reply, Server};
use crate::table::Row;
use serde_json::Value;

const JSON: &str = "application/json";
const WINDOWS: [usize; 2] = [0, 1 << 20];

/// Streams and types whose names are close to each other.
const NAMES: [(&str, &str); 12] = [
    ("orders", "order"),
    ("orders.eu", "order.paid"),
    ("orders.eu.x", "order.paid.late"),
    ("orders-eu", "order-paid"),
    ("orders_eu", "order/paid"),
    ("ordersx", "orderx"),
    ("a", "message"),
    ("b", "user.login"),
    ("orders.", "order."),
    ("orders..", "ORDER.paid"),
    ("0", "é.ü"),
    ("evertails", "x y"),
];

async fn log_of_names(window_bytes_max: usize, page_bytes_max: usize) -> Server {
    let server = Server::start_with(|settings| {
        settings.log.window_bytes_max = window_bytes_max;
        settings.http.page_bytes_max = page_bytes_max;
    })
    .await;
    let event = |n: usize| {
        let (stream, r#type) = NAMES[n * 5 % NAMES.len()];
        let id = if n.is_multiple_of(3) {
            format!(r#","id":"{n}","source":"/s","subject":"é\"""#)
        } else {
            String::new()
        };
        format!(r#"{{"stream":"{stream}","type":"{type}"{id},"data":{{"n":{n}.50}}}}"#)
    };
    for first in (0..240).step_by(40) {
        let batch: Vec<String> = (first..first + 40).map(event).collect();
        let reply = Reply::of(server.post("/api/v1/events", JSON, format!("[{}]", batch.join(",")))).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    server
}

/// What a selection means, said once more.
fn is_selected(row: &Row, streams: &[&str], types: &[&str]) -> bool {
    let any = |patterns: &[&str], name: &str| {
        patterns.is_empty()
            || patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == *pattern,
            })
    };
    any(streams, &row.stream) && any(types, &row.r#type)
}

fn json(rows: &[Row]) -> Vec<String> {
    rows.iter().map(Row::json).collect()
}

/// Follows `next` to the end. Checks each page's shape, and returns the events, byte for byte.
async fn walk(server: &Server, first: &str, limit: usize) -> Vec<String> {
    let mut events = Vec::new();
    let mut path = first.to_owned();
    let mut cursor = 0;
    let last_seq = server.log.bounds().last_seq;
    loop {
        let reply = server.page(&path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, JSON), "{}", reply.text());
        let text = reply.text();
        let page = reply.json();
        // The events as they stand in the text, which a parser would not show.
        let (list, rest) =
            text.strip_prefix("{\"events\":[").unwrap().rsplit_once("],\"first_seq\":").unwrap();
        let count = page["events"].as_array().unwrap().len();
        assert!(count <= limit);
        let mut deserialized = Vec::new();
        for event in serde_json::Deserializer::from_str(&list.replace("},{\"seq\"", "}\n{\"seq\""))
            .into_iter::<&serde_json::value::RawValue>()
        {
            deserialized.push(event.unwrap().get().to_owned());
        }
        assert_eq!(deserialized.len(), count);
        assert_eq!(list, deserialized.join(","), "nothing between the events");
        events.extend(deserialized);
        assert_eq!(
            (page["first_seq"].as_u64(), page["last_seq"].as_u64()),
            (Some(1), Some(last_seq)),
            "{rest}"
        );
        let page_cursor = page["cursor"].as_u64().unwrap();
        assert!(page_cursor >= cursor && page_cursor <= last_seq);
        cursor = page_cursor;
        let Some(next) = page["next"].as_str() else {
            assert_eq!(cursor, last_seq);
            assert!(!reply.header("link").contains("next"));
            return events;
        };
        assert!(reply.header("link").starts_with(&format!("<{next}>; rel=\"next\"")));
        assert_ne!(next, path, "a page without an end");
        path = next.to_owned();
    }
}

#[tokio::test]
async fn page_is_these_bytes() {
    let server = Server::start().await;
    assert_eq!(
        server.page("/api/v1/a").await.text(),
        r#"{"events":[],"first_seq":1,"last_seq":0,"cursor":0}"#
    );
    server.append_types("a", ["x", "y", "message"]).await;
    let rows = json(&server.table().await);
    let reply = server.page("/api/v1/a").await;
    let expected = format!(r#"{{"events":[{}],"first_seq":1,"last_seq":3,"cursor":3}}"#, rows.join(","));
    assert_eq!((reply.text(), reply.header("cache-control")), (expected, "no-cache"));
    let reply = server.page("/api/v1/a?limit=2&type=*&after=0").await;
    let next = "/api/v1/a?after=2&limit=2&type=*";
    let expected = format!(
        r#"{{"events":[{},{}],"first_seq":1,"last_seq":3,"cursor":2,"next":"{next}"}}"#,
        rows[0], rows[1]
    );
    assert_eq!(reply.text(), expected);
    assert_eq!(reply.header("link"), format!("<{next}>; rel=\"next\""));
    server.trim(2).await;
    let expected = format!(r#"{{"events":[{}],"first_seq":3,"last_seq":4,"cursor":4}}"#, rows[2]);
    assert_eq!(server.page("/api/v1/a").await.text(), expected);
}

#[tokio::test]
async fn page_has_a_hundred_events_unless_it_says_its_limit_and_a_thousand_at_most() {
    let server = Server::start().await;
    for _ in 0..2 {
        server.append("a", &format!("[{}]", vec!["{}"; 600].join(","))).await;
    }
    let count = |page: Value| page["events"].as_array().unwrap().len();
    for (query, expected) in
        [("", 100), ("?limit=1", 1), ("?limit=99", 99), ("?after=1150", 50), ("?last=7", 7)]
    {
        assert_eq!(count(server.page(&format!("/api/v1/a{query}")).await.json()), expected, "{query}");
    }
    assert!(count(server.page("/api/v1/a?limit=1000").await.json()) > 100);
    for bad in ["0", "1001", "-1", "x", "", "1.5", "99999999999999999999"] {
        let problem = server.page(&format!("/api/v1/a?limit={bad}")).await.problem(400, "parameter_invalid");
        assert_eq!(problem["parameter"], "limit", "{bad}");
    }
    assert_eq!(
        server.lines("/api/v1/a").await.text().lines().count(),
        1200,
        "lines have no limit of their own"
    );
    assert_eq!(server.lines("/api/v1/a?limit=1001").await.text().lines().count(), 1001);
    assert_eq!(server.lines("/api/v1/a?limit=3&after=5").await.text().lines().count(), 3);
}

#[tokio::test]
async fn pages_and_lines_and_streams_are_the_table() {
    for window in WINDOWS {
        // The second closes pages by their bytes, in the middle of a limit.
        for page_bytes in [64 << 10, 1 << 10] {
            let server = log_of_names(window, page_bytes).await;
            let table = json(&server.table().await);
            for limit in [1, 7, 100, 240, 1000] {
                if limit > 1 || page_bytes > 1 << 10 {
                    assert_eq!(walk(&server, &format!("/api/v1/events?limit={limit}"), limit).await, table);
                }
            }
            assert_eq!(walk(&server, "/api/v1/events", 100).await, table);
            assert_eq!(walk(&server, "/api/v1/events?after=200", 100).await, table[200..]);
            assert_eq!(walk(&server, "/api/v1/events?last=30&limit=4", 4).await, table[210..]);
            let reply = server.lines("/api/v1/events").await;
            assert_eq!(reply.header("content-type"), "application/x-ndjson");
            assert_eq!(reply.text(), table.join("\n") + "\n");
            let mut stream = server.stream("/api/v1/events?after=0&limit=240").await;
            let events: Vec<_> = stream.rest().await.into_iter().skip(1).map(|event| event.data).collect();
            assert_eq!(events, table);
        }
    }
}

#[tokio::test]
async fn selection_is_the_same_on_pages_lines_and_streams() {
    for window in WINDOWS {
        let server = log_of_names(window, 2 << 10).await;
        let table = server.table().await;
        let selections: [(&[&str], &[&str]); 14] = [
            (&["orders"], &[]),
            (&["orders.*"], &[]),
            (&["orders.eu.*"], &[]),
            (&["orders..*"], &[]),
            (&["a", "b"], &[]),
            (&["orders.*", "b", "0"], &[]),
            (&["*"], &[]),
            (&[], &["order.*"]),
            (&[], &["order", "user.login"]),
            (&[], &["message"]),
            (&[], &["é.*", "x y"]),
            (&["orders.*", "a"], &["order.*", "message"]),
            (&["a"], &["user.login"]),
            (&["nothing"], &["nothing.*"]),
        ];
        for (streams, types) in selections {
            let wanted: Vec<Row> =
                table.iter().filter(|row| is_selected(row, streams, types)).cloned().collect();
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(streams.iter().map(|stream| ("stream", stream)));
            query.extend_pairs(types.iter().map(|r#type| ("type", r#type)));
            let query = query.finish();
            for limit in [3, 1000] {
                let path = format!("/api/v1/events?{query}&limit={limit}");
                assert_eq!(walk(&server, &path, limit).await, json(&wanted), "{query}");
            }
            let lines = server.lines(&format!("/api/v1/events?{query}")).await.text();
            assert_eq!(lines.lines().collect::<Vec<_>>(), json(&wanted), "{query}");
            if !wanted.is_empty() {
                let path = format!("/api/v1/events?{query}&after=0&limit={}", wanted.len());
                let mut stream = server.stream(&path).await;
                let events: Vec<_> =
                    stream.rest().await.into_iter().skip(1).map(|event| event.data).collect();
                assert_eq!(events, json(&wanted), "{query}");
            }
            // The URL of a stream is the same selection.
            if let ([stream], []) = (streams, types)
                && !stream.contains('*')
            {
                assert_eq!(walk(&server, &format!("/api/v1/{stream}?limit=5"), 5).await, json(&wanted));
            }
        }
    }
}

#[tokio::test]
async fn parameters_that_mean_nothing_are_refused_by_name() {
    let server = Server::start().await;
    for accept in [JSON, "application/x-ndjson", "text/event-stream"] {
        for (path, name) in [
            ("/api/v1/a?stream=b", "stream"),
            ("/api/v1/events?stream=", "stream"),
            ("/api/v1/events?stream=or*", "stream"),
            ("/api/v1/events?stream=*.eu", "stream"),
            ("/api/v1/events?type=a*b", "type"),
            ("/api/v1/events?type=", "type"),
            ("/api/v1/events?colour=red", "colour"),
            ("/api/v1/events?After=1", "After"),
            ("/api/v1/events?limit=1&limit=2", "limit"),
            ("/api/v1/events?limit", "limit"),
            ("/api/v1/events?=x", ""),
        ] {
            let problem =
                Reply::of(server.get(path).header("accept", accept)).await.problem(400, "parameter_invalid");
            assert_eq!(problem["parameter"], name, "{path}");
        }
        let many = "type=x&".repeat(65);
        let reply = Reply::of(server.get(&format!("/api/v1/a?{many}")).header("accept", accept)).await;
        assert_eq!(reply.problem(400, "parameter_invalid")["parameter"], "type");
    }
    let many = "type=x&".repeat(64);
    assert_eq!(server.page(&format!("/api/v1/a?{many}")).await.status, 200);
}

#[tokio::test]
async fn parameter_names_are_shown_shortened() {
    let server = Server::start().await;
    let reply = server.page(&format!("/api/v1/a?{}=1", "n".repeat(5000))).await;
    reply.problem(400, "parameter_invalid");
    assert!(reply.body.len() < 1000);
}

#[tokio::test]
async fn stream_goes_on_where_a_page_ended() {
    for window in WINDOWS {
        let server = log_of_names(window, 64 << 10).await;
        for query in ["limit=50", "limit=1000", "limit=3&type=order.*"] {
            let page = server.page(&format!("/api/v1/events?{query}")).await.json();
            let cursor = page["cursor"].as_u64().unwrap();
            let selection = query.split_once('&').map_or("", |(_, rest)| rest);
            let mut stream = server.stream_after(&format!("/api/v1/events?{selection}"), cursor).await;
            assert_eq!(stream.cursor().await, cursor);
            let page_last = page["events"].as_array().unwrap().last().unwrap()["seq"].as_u64().unwrap();
            let following: Vec<u64> = server
                .table()
                .await
                .into_iter()
                .filter(|row| {
                    row.seq > page_last && (selection.is_empty() || is_selected(row, &[], &["order.*"]))
                })
                .map(|row| row.seq)
                .collect();
            assert_eq!(stream.seqs(following.len()).await, following);
        }
    }
}

#[tokio::test]
async fn walk_that_is_overtaken_by_trimming_is_told_so() {
    let server = log_of_names(0, 64 << 10).await;
    let next = server.page("/api/v1/events?limit=10").await.json()["next"].as_str().unwrap().to_owned();
    server.trim(20).await;
    assert_eq!(server.page(&next).await.problem(410, "gone")["first_seq"], 21);
}

#[tokio::test]
async fn one_event_is_read_by_its_seq() {
    for window in WINDOWS {
        let server = log_of_names(window, 64 << 10).await;
        let table = server.table().await;
        for row in table.iter().step_by(23) {
            let reply = Reply::of(server.get(&format!("/api/v1/events/{}", row.seq))).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, JSON));
            assert_eq!(reply.text(), row.json());
        }
        for missing in ["241", "0", "9223372036854775807", "18446744073709551615"] {
            let reply = Reply::of(server.get(&format!("/api/v1/events/{missing}"))).await;
            assert_eq!(reply.problem(404, "event_not_found")["last_seq"], 240, "{missing}");
        }
        for bad in ["x", "-1", "1.5", "+1", "%201", "1x", "18446744073709551616", "%ff", "%D9%A1"] {
            let reply = Reply::of(server.get(&format!("/api/v1/events/{bad}"))).await;
            assert!(matches!(reply.status, 400 | 404), "{bad}: {}", reply.status);
            reply.any_problem();
        }
        server.trim(100).await;
        for gone in [1, 50, 100] {
            let reply = Reply::of(server.get(&format!("/api/v1/events/{gone}"))).await;
            assert_eq!(reply.problem(410, "gone")["first_seq"], 101);
        }
        let reply = Reply::of(server.get("/api/v1/events/101")).await;
        assert_eq!(reply.text(), table[100].json());
        // The event of the first trim goes with the second, whose own is the next.
        server.trim(241).await;
        let reply = Reply::of(server.get("/api/v1/events/241")).await;
        assert_eq!(reply.problem(410, "gone")["first_seq"], 242);
        let reply = Reply::of(server.get("/api/v1/events/242")).await;
        assert_eq!(reply.json()["type"], "evertail.trimmed");
        let reply = Reply::of(server.get("/api/v1/events/243")).await;
        assert_eq!(reply.problem(404, "event_not_found")["last_seq"], 242);
    }
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let server = log_of_names(1 << 20, 64 << 10).await;
    for (path, accept) in [
        ("/api/v1/events?limit=5", JSON),
        ("/api/v1/events/7", "*/*"),
        ("/api/v1/events/999", "*/*"),
        ("/api/v1/a?after=x", JSON),
        ("/", "text/html"),
        ("/healthz", "*/*"),
        ("/readyz", "*/*"),
        ("/nothing", "*/*"),
    ] {
        let get = Reply::of(server.get(path).header("accept", accept)).await;
        let head = Reply::of(server.head(path).header("accept", accept)).await;
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        for name in ["content-type", "link", "cache-control", "content-length"] {
            // The id in a problem need not be as long.
            if name != "content-length" || get.status < 400 {
                assert_eq!(head.header(name), get.header(name), "{name} of {path}");
            }
        }
    }
}

#[tokio::test]
async fn console_and_probes_answer() {
    let server = Server::start().await;
    let console = Reply::of(server.get("/")).await;
    assert_eq!((console.status, console.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(console.header("content-security-policy").contains("default-src 'none'"));
    assert!(console.text().contains("EventSource"));
    assert_eq!(Reply::of(server.get("/healthz")).await.text(), "ok\n");
    assert_eq!(Reply::of(server.get("/readyz")).await.text(), "ready\n");
}
