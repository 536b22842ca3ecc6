//! Texts that would break a frame, a line, a header or a cell; JSON that would break its reader; and broken requests to the
//! routes that `malformed` leaves out.
//!
//! `EVERTAIL_REQUESTS` says how many requests, `EVERTAIL_SEED` which; a million: `fuzz/README.md`.

use crate::malformed::{Answered, in_target, number, tell};
use crate::mutate::{Random, mutate};
use crate::raw::Connection;
use crate::server::{Reply, Server, server_panics};
use crate::table::Row;
use serde_json::{Value, json};

const TEXTS: [&str; 24] = [
    "\r",
    "\n",
    "\r\n\r\n",
    "\0",
    "\u{1b}[31m",
    "\u{7f}",
    "\u{85}",
    "\u{9b}", // control characters
    "\u{202e}",
    "\u{2066}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "\u{200b}",
    "\u{fffd}",
    "\u{10ffff}",
    "e\u{301}",
    "\"",
    "\\",
    "\\r\\n\\u0000",
    "=HYPERLINK(\"x\",1)",
    ",;\"\t",
    "%0d%0aid: 7",
    "</script><!--",
];
const MEMBERS: [&str; 5] = ["id", "type", "source", "subject", "data"];

/// What the server took of them: member and text.
async fn append_all(server: &Server) -> Vec<(&'static str, String)> {
    let mut taken = Vec::new();
    for text in TEXTS {
        for member in MEMBERS {
            let text = format!("data: {text}x");
            let body = json!({ member: text }).to_string();
            let reply = Reply::of(server.post("/api/v1/a", "application/json", body)).await;
            if member != "data" && text.contains(char::is_control) {
                let problem = reply.problem(422, "event_invalid");
                assert_eq!(problem["errors"][0]["pointer"], format!("/{member}"), "{text:?}");
                continue;
            }
            assert_eq!(reply.status, 201, "{member} {text:?}: {}", reply.text());
            taken.push((member, text));
        }
        let names = json!({"data": { format!("{text}x"): text }}).to_string();
        assert_eq!(Reply::of(server.post("/api/v1/b", "application/json", names)).await.status, 201);
        let plain =
            Reply::of(server.post("/api/v1/b", "text/plain; charset=utf-8", format!("x{text}"))).await;
        assert_eq!(plain.status, 201);
        for name in ["stream", "time", text] {
            let body = json!({ name: format!("x{text}") }).to_string();
            let refused = Reply::of(server.post("/api/v1/events", "application/json", body)).await;
            assert!((400..500).contains(&refused.status), "{name} {text:?}");
            refused.any_problem();
        }
        // In a header as it is, where HTTP lets it through.
        let key = format!("k{text}");
        if !text.contains(|c: char| c.is_ascii_control()) {
            let request = server.post("/api/v1/b", "application/json", "{}");
            let reply = Reply::of(request.header("idempotency-key", key.as_bytes())).await;
            match text.contains(char::is_control) {
                true => drop(reply.problem(400, "idempotency_key_invalid")),
                false => assert_eq!((reply.status, reply.json()["id"].as_str()), (201, Some(&*key))),
            }
        }
    }
    taken
}

fn member_of<'r>(row: &'r Row, member: &str) -> Option<&'r str> {
    match member {
        "id" => row.id.as_deref(),
        "type" => Some(&row.r#type),
        "source" => Some(&row.source),
        "subject" => row.subject.as_deref(),
        _ => row.data.as_deref(),
    }
}

#[tokio::test]
async fn any_text_is_refused_by_name_or_given_back_in_every_format() {
    let server = Server::start().await;
    let taken = append_all(&server).await;
    let rows = server.table().await;
    let of_a: Vec<&Row> = rows.iter().filter(|row| row.stream == "a").collect();
    assert_eq!(of_a.len(), taken.len());
    for (row, (member, text)) in of_a.iter().zip(&taken) {
        let stored = member_of(row, member).unwrap();
        match *member {
            "data" => assert_eq!(serde_json::from_str::<String>(stored).unwrap(), *text),
            _ => assert_eq!(stored, text),
        }
    }

    let count = rows.len();
    let lines = server.lines("/api/v1/events").await.text();
    let expected: Vec<String> = rows.iter().map(Row::json).collect();
    assert_eq!(lines.split_terminator('\n').collect::<Vec<_>>(), expected);
    let page = server.page(&format!("/api/v1/events?limit={count}")).await.json();
    let values: Vec<Value> = expected.iter().map(|json| serde_json::from_str(json).unwrap()).collect();
    assert_eq!(page["events"], json!(values));

    // Each dialect is read literally: a character that ends a line there would be seen.
    for format in ["event", "data", "cloudevents"] {
        for event in ["", "&event=message"] {
            let path = format!("/api/v1/events?after=0&limit={count}&format={format}{event}");
            let mut stream = server.stream(&path).await;
            stream.rest().await;
            let blocks = stream.blocks();
            assert_eq!(blocks.len(), count + 1, "{path}");
            for (block, row) in blocks[1..].iter().zip(&rows) {
                assert_eq!(block.id, Some(row.seq));
                let name = Some(&row.r#type).filter(|name| event.is_empty() && *name != "message");
                assert_eq!(block.event.as_ref(), name);
                let data = block.data.join("\n");
                match format {
                    "event" => assert_eq!(data, row.json()),
                    "cloudevents" => {
                        let told: Value = serde_json::from_str(&data).unwrap();
                        assert_eq!(told["type"], row.r#type);
                        assert_eq!(told["subject"].as_str(), row.subject.as_deref());
                        assert_eq!(told.get("data").map(Value::to_string).is_some(), row.data.is_some());
                    }
                    _ => match row.data.as_deref().map(serde_json::from_str::<Value>) {
                        Some(Ok(Value::String(text))) if !text.trim_matches(['\r', '\n']).is_empty() => {
                            assert_eq!(data, text.replace("\r\n", "\n").replace('\r', "\n"));
                        }
                        _ => assert_eq!(data, row.data.as_deref().unwrap_or("null")),
                    },
                }
            }
        }
    }

    let csv = Reply::of(server.get("/api/v1/events").header("accept", "text/csv")).await;
    let mut reader = csv::Reader::from_reader(&csv.body[..]);
    let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), count);
    for (record, row) in records.iter().zip(&rows) {
        for member in MEMBERS {
            let place = names.iter().position(|name| name == member).unwrap();
            let shown = member_of(row, member).unwrap_or_default();
            // What a spreadsheet would take for a formula is told apart by an apostrophe.
            assert!(record[place] == *shown || record[place] == format!("'{shown}"), "{member}: {record:?}");
        }
    }
    for row in &rows {
        let one = server.page(&format!("/api/v1/events/{}", row.seq)).await;
        assert_eq!(one.text(), row.json());
    }
}

#[tokio::test]
async fn json_that_is_deep_huge_or_none_is_refused_and_the_next_request_is_served() {
    let server = Server::start().await;
    let deep = |open: &str, close: &str, times: usize| {
        format!("{{\"data\":{}1{}}}", open.repeat(times), close.repeat(times))
    };
    let data = |json: &[u8]| [b"{\"data\":", json, b"}"].concat();
    let bodies: Vec<(Vec<u8>, u16)> = vec![
        (deep("[", "]", 100_000).into(), 400),
        (deep("{\"a\":", "}", 50_000).into(), 400),
        (deep("[", "", 100_000).into(), 400),
        ("[".repeat(1 << 20).into(), 400),
        ("{\"a\":".repeat(1 << 19).into(), 400),
        (data("9".repeat(250_000).as_bytes()), 422),
        (data(format!("0.{}1", "0".repeat(250_000)).as_bytes()), 201),
        (data(format!("0.{}1", "0".repeat(270_000)).as_bytes()), 413),
        (data(format!("{{{}}}", vec!["\"a\":1"; 40_000].join(",")).as_bytes()), 400),
        (data(b"\"\xff\""), 400),
        (data(b"\"\xed\xa0\x80\""), 400),
        (data(br#""\ud800""#), 400),
        (data(b"\"\n\""), 400),
        (data(b"1e400000000000000000000"), 400),
        (data(b"nul"), 400),
        (data(b"01"), 400),
        (data(b""), 400),
        (b"\xef\xbb\xbf{}".to_vec(), 400),
        (b"{}{}".to_vec(), 400),
        (b"{\"data\":1,\"data\":2}".to_vec(), 422),
        (vec![b' '; 4 << 20], 400),
        (b"{}\0".to_vec(), 400),
    ];
    for (body, status) in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let reply = Reply::of(server.post("/api/v1/a", "application/json", body)).await;
        if status == 201 {
            assert_eq!(reply.status, 201, "{shown}: {}", reply.text());
        } else {
            reply.any_problem();
            let is_refused = reply.status == status || reply.status == 422 && status == 400;
            assert!(is_refused, "{shown}: {} {}", reply.status, reply.text());
        }
    }
    server.append("a", "{}").await;
}

/// Method, path, content type and body, all in order.
const REQUESTS: [(&str, &str, &str, &str); 22] = [
    ("POST", "/api/v1/answer-1/close", "application/json", r#"{"reason":"done"}"#),
    ("POST", "/api/v1/answer-2/close", "", ""),
    ("POST", "/api/v1/answer-1", "application/json", r#"{"data":1}"#),
    ("POST", "/api/v1/a", "application/json", r#"[{"data":1},{"data":[2]}]"#),
    (
        "POST",
        "/api/v1/b",
        "application/cloudevents+json",
        r#"{"specversion":"1.0","id":"7","source":"/s","type":"t","data":1}"#,
    ),
    (
        "POST",
        "/api/v1/b",
        "application/cloudevents-batch+json",
        r#"[{"specversion":"1.0","id":"8","source":"/s","type":"t"}]"#,
    ),
    ("POST", "/admin/trim", "application/json", r#"{"older_than":"90d","dry_run":true}"#),
    ("POST", "/admin/trim", "application/json", r#"{"stream":"a","keep_events":5,"reason":"disk"}"#),
    ("POST", "/admin/trim", "application/json", r#"{"keep_bytes":"1KiB","keep_events":18}"#),
    ("PUT", "/admin/holds/b/case-17", "application/json", r#"{"reason":"letter"}"#),
    ("DELETE", "/admin/holds/b/case-17?reason=settled", "", ""),
    ("GET", "/admin/holds", "", ""),
    ("GET", "/api/v1/streams/a", "", ""),
    ("GET", "/api/v1/streams?limit=3", "", ""),
    ("GET", "/api/v1/events?stream=answer-*&after=0&data.n%3E=1&limit=5", "application/json", ""),
    ("GET", "/api/v1/a?source=%2Fs&subject=x&order=desc&limit=5", "application/json", ""),
    ("GET", "/api/v1/events?limit=5", "text/csv", ""),
    ("GET", "/api/v1/events?limit=5", "application/cloudevents-batch+json", ""),
    ("GET", "/api/v1/events?after=0&limit=5", "application/x-ndjson", ""),
    ("GET", "/api/v1/events/3", "application/cloudevents+json", ""),
    ("GET", "/readyz", "", ""),
    ("OPTIONS", "/api/v1/a", "", ""),
];

#[tokio::test]
async fn broken_requests_to_every_route_are_refused_and_leave_the_log_whole() {
    let count = number("EVERTAIL_REQUESTS", 10_000);
    let seed = number("EVERTAIL_SEED", 0xBAD_5EED);
    let panics_before = server_panics();
    let server = Server::start().await;
    server.append("a", "{}").await;
    let mut random = Random(seed);
    let mut connection = Connection::open(server.address).await;
    let mut answered = Answered::new();
    for _ in 0..count {
        let (method, path, content_type, body) = REQUESTS[random.below(REQUESTS.len())];
        let mut path = path.to_owned();
        let mut body = body.as_bytes().to_vec();
        match random.below(4) {
            0 => {}
            1 if !path.contains("answer") => {
                path = format!("/{}", in_target(&mutate(&mut random, &path.as_bytes()[1..])))
            }
            _ if body.is_empty() => {
                path = format!("{path}?{}", in_target(&mutate(&mut random, b"after=0&stream=a")))
            }
            _ => body = mutate(&mut random, &body),
        }
        path.truncate(7000);
        let header = if method == "GET" { "Accept" } else { "Content-Type" };
        let header =
            if content_type.is_empty() { "X: y".to_owned() } else { format!("{header}: {content_type}") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let shown = format!("{head}{}", String::from_utf8_lossy(&body));
        connection.send([head.as_bytes(), &body].concat()).await;
        let begun = connection.peek_head().await.unwrap_or_else(|| panic!("no answer: {shown}"));
        if begun.contains("text/event-stream") {
            *answered.entry(200).or_default() += 1;
            connection = Connection::open(server.address).await;
            continue;
        }
        let reply = connection.reply_to(method).await.unwrap();
        assert!(reply.status < 500, "{}: {}\n{shown}", reply.status, reply.text());
        if reply.status >= 400 {
            reply.any_problem();
        }
        *answered.entry(reply.status).or_default() += 1;
        if reply.header("connection") == "close" {
            connection = Connection::open(server.address).await;
        }
    }
    tell(&answered);
    assert_eq!(server_panics(), panics_before, "the server panicked");
    for status in [200, 201, 400, 404, 409, 422] {
        assert!(answered.contains_key(&status) || count < 5_000, "none was answered {status}: {answered:?}");
    }
    // Whole: seqs rise, what is gone is told, and the next is one more than the last.
    let bounds = server.log.bounds();
    let lines = server.lines(&format!("/api/v1/events?after={}", bounds.first_seq - 1)).await.text();
    let seq = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
    let seqs: Vec<u64> = lines.lines().map(seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b));
    assert_eq!((seqs.first(), seqs.last()), (Some(&bounds.first_seq), Some(&bounds.last_seq)));
    let streams = server.page("/api/v1/streams?limit=1000").await.json();
    let counts =
        streams["streams"].as_array().unwrap().iter().map(|stream| stream["events"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), seqs.len() as u64);
    assert_eq!(server.append("z", "{}").await[0].seq, bounds.last_seq + 1);
    let server = server.restart().await;
    assert_eq!(server.append("z", "{}").await[0].seq, bounds.last_seq + 2);
}
