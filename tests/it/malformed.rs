//! Ten thousand broken requests: each is answered, none with a 5xx, whoever made the mistake is told where, and the log
//! then holds exactly what was acked.
//!
//! `EVERTAIL_REQUESTS` says how many, `EVERTAIL_SEED` which; the seed of a run is printed. `fuzz/README.md`
//! says how a million is run.

use crate::mutate::{Random, mutate};
use crate::raw::Connection;
use crate::server::{Reply, Server, server_panics};
use crate::stream::blocks;
use evertail::wire::ReceiptJson;
use futures_util::future::join_all;
use serde_json::Value;
use std::collections::BTreeMap;

/// Bodies that are in order, with their content types. Those of the second list name their streams.
const BODIES: [(&str, &str); 9] = [
    ("application/json", r#"{"data":{"actor":"alice","n":1.50,"list":[1,2,{"x":null}]}}"#),
    (
        "application/json",
        r#"{"id":"17","type":"user.login","source":"/auth","subject":"alice","data":"text\né"}"#,
    ),
    ("application/json", r#"{"type":"x","time":"2026-11-21T10:00:00Z"}"#),
    ("application/json", r#"[{"data":1},{"id":"2","data":[]},{"type":"y","data":{"a":"b"}}]"#),
    ("application/x-ndjson", "{\"data\":1}\n{\"id\":\"3\",\"data\":\"x\"}\n\n{\"type\":\"z\"}\n"),
    ("application/x-www-form-urlencoded", "data=hello+world&type=user.login&id=f%201"),
    ("application/x-www-form-urlencoded", "data=%7B%22n%22%3A1%7D"),
    ("text/plain", "some text\r\nof two lines"),
    ("text/plain; charset=utf-8", "{\"data\":\"json all the same\"}"),
];
const BODIES_OF_THE_LOG: [(&str, &str); 3] = [
    ("application/json", r#"{"stream":"a","data":1}"#),
    ("application/json", r#"[{"stream":"a","data":1},{"stream":"b.c","id":"9","data":{"n":[true]}}]"#),
    ("application/x-ndjson", "{\"stream\":\"a\"}\n{\"stream\":\"d\",\"type\":\"t\"}"),
];
const QUERIES: [&str; 10] = [
    "after=0&limit=5",
    "last=3&type=user.*",
    "since=10m&limit=2",
    "since=2026-11-21T10:00:00Z",
    "last_event_id=2",
    "lastEventId=1&type=x&type=y",
    "log=0123456789abcdef0123456789abcdef",
    "stream=a&stream=b.*&limit=3",
    "format=data&event=message",
    "",
];
const PATHS: [&str; 7] = [
    "/api/v1/a",
    "/api/v1/events",
    "/api/v1/events/1",
    "/api/v1/orders.eu",
    "/healthz",
    "/api/v1/streams",
    "/",
];
const ACCEPTS: [&str; 5] = [
    "application/json",
    "application/x-ndjson",
    "application/json;q=0.5, */*;q=0.1",
    "text/event-stream",
    "*/*",
];
const HEADERS: [(&str, &str); 9] = [
    ("Idempotency-Key", "key-1"),
    ("If-Match", "\"7\""),
    ("Content-Encoding", "identity"),
    ("Last-Event-ID", "3"),
    ("Origin", "http://localhost:3000"),
    ("Accept", "application/json"),
    ("Content-Type", "application/json"),
    ("Expect", "a surprise"),
    ("Cookie", "x=y"),
];

/// As it can stand in a request line, with what is no part of one escaped.
pub(crate) fn in_target(text: &[u8]) -> String {
    let escaped = |byte: &u8| match byte {
        0x21..=0x7e if !b"#\"<>\\^`{|}".contains(byte) => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.iter().map(escaped).collect()
}

/// As it can stand in a header.
fn in_header(mut text: Vec<u8>) -> Vec<u8> {
    text.retain(|byte| *byte >= 0x20 && *byte != 0x7f);
    text.truncate(2000);
    text
}

struct Request {
    method: &'static str,
    path: String,
    content_type: Vec<u8>,
    body: Vec<u8>,
    bytes: Vec<u8>,
}

fn request(random: &mut Random) -> Request {
    let is_append = !random.one_in(3);
    let mut path = random.pick(&PATHS).to_owned();
    let mut headers: Vec<(&str, Vec<u8>)> = Vec::new();
    let (mut content_type, mut body) = (Vec::new(), Vec::new());
    if is_append {
        let of_the_log = random.one_in(4);
        let (base_type, base) =
            if of_the_log { BODIES_OF_THE_LOG[random.below(3)] } else { BODIES[random.below(BODIES.len())] };
        if !random.one_in(20) {
            path = if of_the_log { "/api/v1/events" } else { random.pick(&["/api/v1/a", "/api/v1/b.c"]) }
                .to_owned();
        }
        body = if random.one_in(10) { base.into() } else { mutate(random, base.as_bytes()) };
        content_type = match random.below(20) {
            0 => in_header(mutate(random, base_type.as_bytes())),
            1 => BODIES[random.below(BODIES.len())].0.into(),
            _ => base_type.into(),
        };
        headers.push(("Content-Type", content_type.clone()));
    } else {
        let query = random.pick(&QUERIES);
        let query = if random.one_in(4) { query.into() } else { mutate(random, query.as_bytes()) };
        if random.one_in(5) {
            path = format!("/{}", in_target(&mutate(random, &path.as_bytes()[1..])));
        }
        if !query.is_empty() {
            path = format!("{path}?{}", in_target(&query));
        }
        // An event stream costs its connection.
        let accepts = if random.one_in(10) { &ACCEPTS[..] } else { &ACCEPTS[..3] };
        let accept = random.pick(accepts);
        let accept =
            if random.one_in(20) { in_header(mutate(random, accept.as_bytes())) } else { accept.into() };
        headers.push(("Accept", accept));
    }
    while random.one_in(4) {
        let (name, value) = HEADERS[random.below(HEADERS.len())];
        headers.push((name, in_header(mutate(random, value.as_bytes()))));
    }
    path.truncate(7000);
    let method = match (is_append, random.below(50)) {
        (_, 0) => random.pick(&["DELETE", "PUT", "PATCH", "TRACE", "BREW"]),
        (true, _) => "POST",
        (false, 1..4) => "HEAD",
        (false, _) => "GET",
    };
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: ").as_bytes());
        bytes.extend_from_slice(&value);
        bytes.extend_from_slice(b"\r\n");
    }
    if is_append {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    Request { method, path, content_type, body, bytes }
}

/// Holds a refusal against the promise that it names what is wrong.
fn check_refusal(reply: &Reply, request: &Request) {
    let problem = reply.any_problem();
    let detail = problem["detail"].as_str().unwrap();
    let has = |name: &str| detail.to_ascii_lowercase().contains(name);
    let is_told = match problem["code"].as_str().unwrap() {
        "event_invalid" | "json_invalid" | "id_reused" | "event_too_large" => {
            let errors = problem["errors"].as_array().unwrap();
            let is_pointer = |text: &str| text.is_empty() || text.starts_with('/');
            !errors.is_empty() && errors.iter().all(|error| is_pointer(error["pointer"].as_str().unwrap()))
        }
        "cursor_invalid" if request.path.starts_with("/api/v1/events/") => has("seq"),
        "parameter_invalid" | "cursor_invalid" => problem["parameter"].is_string(),
        "stream_invalid" | "stream_reserved" => has("stream"),
        "idempotency_key_invalid" => has("idempotency-key"),
        "precondition_invalid" | "precondition_failed" => has("if-match"),
        "content_encoding_unsupported" => has("content-encoding"),
        "content_type_unsupported" => has("content type"),
        "not_acceptable" => has("accept"),
        "origin_refused" => has("origin"),
        "method_not_allowed" => !reply.header("allow").is_empty(),
        "utf8_invalid" => problem["offset"].is_u64() || problem["errors"].is_array(),
        "batch_too_large" => problem["events_max"].is_u64(),
        "gone" => problem["first_seq"].is_u64(),
        "cursor_ahead" | "event_not_found" => problem["last_seq"].is_u64(),
        "stream_closed" => problem["closed_seq"].is_u64(),
        "stream_not_found" => problem["stream"].is_string(),
        "log_replaced" => problem["log"].is_string(),
        "body_empty" | "route_not_found" | "uri_too_long" => true,
        _ => false,
    };
    assert!(is_told, "{problem}");
}

/// The payloads that a body says, as far as this can be said with another parser; `None` where it cannot.
fn payloads(request: &Request) -> Option<Vec<Option<Value>>> {
    let text = std::str::from_utf8(&request.body).ok()?;
    let content_type = String::from_utf8_lossy(&request.content_type).to_ascii_lowercase();
    let data = |event: &Value| event.get("data").cloned();
    if content_type.starts_with("application/x-ndjson") {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        return lines.map(|line| Some(data(&serde_json::from_str(line).ok()?))).collect();
    }
    match serde_json::from_str(text) {
        Ok(Value::Array(events)) => Some(events.iter().map(data).collect()),
        Ok(event @ Value::Object(_)) => Some(vec![data(&event)]),
        _ if content_type.starts_with("text/plain") => Some(vec![Some(Value::from(text))]),
        _ => None,
    }
}

/// An acked event, and what its payload was if that is known.
type Acked = (ReceiptJson, Option<Option<Value>>);

/// How many requests were answered how.
pub(crate) type Answered = BTreeMap<u16, usize>;

#[expect(clippy::print_stderr, reason = "the outcome of a run whose requests are counted")]
pub(crate) fn tell(answered: &Answered) {
    eprintln!("answered {answered:?}");
}

/// Sends one request and checks its answer. False when the connection is of no further use.
async fn exchange(
    connection: &mut Connection,
    request: &Request,
    acked: &mut Vec<Acked>,
    answered: &mut Answered,
) -> bool {
    connection.send(&request.bytes).await;
    let is_stream = |head: &str| head.contains("content-type: text/event-stream");
    let head = connection.peek_head().await.expect("no answer");
    if request.method == "GET" && is_stream(&head) {
        connection.head().await;
        blocks(&connection.chunk().await.unwrap(), true);
        *answered.entry(200).or_default() += 1;
        return false;
    }
    let reply = connection.reply_to(request.method).await.expect("no answer");
    assert!(reply.status < 500, "{}: {}", reply.status, reply.text());
    *answered.entry(reply.status).or_default() += 1;
    match (request.method, reply.status) {
        ("HEAD", _) => {}
        (_, 400..) => check_refusal(&reply, request),
        ("POST", 200 | 201) => {
            let is_batch = reply.body.starts_with(b"[");
            let receipts: Vec<ReceiptJson> = match is_batch {
                true => serde_json::from_slice(&reply.body).unwrap(),
                false => vec![serde_json::from_slice(&reply.body).unwrap()],
            };
            let is_new = receipts.iter().any(|receipt| !receipt.duplicate);
            assert_eq!(reply.status == 201, is_new, "{}", reply.text());
            let payloads = payloads(request).filter(|payloads| payloads.len() == receipts.len());
            for (index, receipt) in receipts.into_iter().enumerate() {
                acked.push((receipt, payloads.as_ref().map(|payloads| payloads[index].clone())));
            }
        }
        ("GET", 200) => match reply.header("content-type") {
            "application/json" => drop(reply.json()),
            "application/x-ndjson" => {
                reply.text().lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
            }
            other => assert!(other.starts_with("text/"), "{other}"),
        },
        other => panic!("{other:?}: {}", reply.text()),
    }
    reply.header("connection") != "close"
}

/// Heads that are broken as such, each on a connection of its own: an answer below 500, or none.
async fn break_heads(server: &Server, random: &mut Random, count: usize) {
    let head = b"GET /api/v1/a?after=0 HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Length: 2\r\n\r\n{}";
    for _ in 0..count {
        let bytes = mutate(random, head);
        let mut connection = Connection::open(server.address).await;
        connection.send(&bytes).await;
        connection.finish().await;
        // A stream goes on for a client that only reads; its head says enough.
        let answer = connection.until_closed_or(b"text/event-stream").await;
        let status = String::from_utf8_lossy(answer.get(9..12).unwrap_or_default()).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.") && status.as_str() < "500",
            "{:?}: {}",
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&answer)
        );
    }
}

/// Shows the request that a test failed at.
struct Shown<'a>(&'a Request, u64, usize);

impl Drop for Shown<'_> {
    #[expect(clippy::print_stderr, reason = "what a failed run needs to be repeated")]
    fn drop(&mut self) {
        // The first to unwind is the one that failed; the others are dropped with it.
        static FAILED: std::sync::Once = std::sync::Once::new();
        if std::thread::panicking() && !FAILED.is_completed() {
            FAILED.call_once(|| ());
            let bytes = String::from_utf8_lossy(&self.0.bytes);
            eprintln!("seed {:#x}, request {}: {bytes:?}", self.1, self.2);
        }
    }
}

pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

#[tokio::test]
async fn broken_requests_are_refused_by_name_and_leave_the_log_as_it_was_acked() {
    let count = number("EVERTAIL_REQUESTS", 10_000) as usize;
    let seed = number("EVERTAIL_SEED", 0x0E7E_27A1);
    #[expect(clippy::print_stderr, reason = "what a failed run needs to be repeated")]
    {
        eprintln!("EVERTAIL_REQUESTS={count} EVERTAIL_SEED={seed}");
    }
    let panics_before = server_panics();
    let server = Server::start().await;
    server.append("a", r#"{"id":"first"}"#).await;
    const CONNECTIONS: usize = 4;
    let workers = (0..CONNECTIONS).map(|worker| {
        let server = &server;
        async move {
            let mut random = Random(seed ^ (worker as u64) << 32);
            let mut connection = Connection::open(server.address).await;
            let (mut acked, mut answered) = (Vec::new(), Answered::new());
            for index in 0..count / CONNECTIONS {
                let request = request(&mut random);
                let _shown = Shown(&request, seed, index * CONNECTIONS + worker);
                if !exchange(&mut connection, &request, &mut acked, &mut answered).await {
                    connection = Connection::open(server.address).await;
                }
            }
            break_heads(server, &mut random, count / CONNECTIONS / 20).await;
            (acked, answered)
        }
    });
    let (mut acked, mut answered) = (Vec::new(), Answered::new());
    for (of_worker, statuses) in join_all(workers).await {
        acked.extend(of_worker);
        statuses.into_iter().for_each(|(status, times)| *answered.entry(status).or_default() += times);
    }
    tell(&answered);
    assert_eq!(server_panics(), panics_before, "the server panicked");

    let table = server.table().await;
    let mut stored: BTreeMap<u64, _> = table.iter().map(|row| (row.seq, row)).collect();
    let first = stored.remove(&1).unwrap();
    assert_eq!(first.id.as_deref(), Some("first"));
    let (repeats, new): (Vec<_>, Vec<_>) = acked.iter().partition(|(receipt, _)| receipt.duplicate);
    assert!(new.len() > count / 50, "too few of the requests are in order to tell anything: {}", new.len());
    for (receipt, payload) in repeats.iter().chain(&new) {
        let row = stored.get(&receipt.seq).unwrap_or_else(|| panic!("acked and not stored: {receipt:?}"));
        assert_eq!((&row.stream, &row.id), (&receipt.stream, &receipt.id));
        assert_eq!(Some(&row.created_at), receipt.created_at.as_ref());
        if let Some(payload) = payload {
            let data: Option<Value> = row.data.as_ref().map(|data| serde_json::from_str(data).unwrap());
            assert_eq!(data, *payload, "{receipt:?}");
        }
    }
    let mut acked_seqs: Vec<u64> = new.iter().map(|(receipt, _)| receipt.seq).collect();
    acked_seqs.sort_unstable();
    assert_eq!(
        acked_seqs,
        stored.into_keys().collect::<Vec<_>>(),
        "each new event is acked once, and none besides"
    );

    // Whatever came in goes out again, in frames that every client reads.
    for format in ["event", "data"] {
        let path = format!("/api/v1/events?after=0&limit={}&format={format}", table.len());
        let mut stream = server.stream(&path).await;
        stream.rest().await;
        let ids: Vec<_> = stream.blocks()[1..].iter().map(|block| block.id.unwrap()).collect();
        assert_eq!(ids, (1..=table.len() as u64).collect::<Vec<_>>());
    }
    server.append("a", "{}").await;
}
