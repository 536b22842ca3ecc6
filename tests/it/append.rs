//! POST: every form of append, its limits, and what is refused.

use crate::raw::Connection;
use crate::server::{Reply, Server, within};
use evertail::client::ClientError;
use evertail::wire::ReceiptJson;
use futures_util::future::join_all;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const FORM: &str = "application/x-www-form-urlencoded";
const TEXT: &str = "text/plain";

impl Server {
    async fn post_a(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Reply {
        Reply::of(self.post("/api/v1/a", content_type, body)).await
    }

    /// Checks that the body is refused with this code and that nothing of it is stored.
    #[track_caller]
    fn refuses<'a>(
        &'a self,
        path: &'a str,
        content_type: &'a str,
        body: impl Into<reqwest::Body> + 'a,
        status: u16,
        code: &'a str,
    ) -> impl Future<Output = Value> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let before = self.table().await;
            let reply = Reply::of(self.post(path, content_type, body)).await;
            assert_eq!(reply.status, status, "{at}: {}", reply.text());
            assert_eq!(self.table().await, before, "{at}: something was stored");
            reply.problem(status, code)
        }
    }

    /// The stored payloads, in order.
    async fn data(&self) -> Vec<Option<String>> {
        self.table().await.into_iter().map(|row| row.data).collect()
    }
}

/// The pointers of a problem's `errors`.
fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors in {problem}"));
    assert!(errors.iter().all(|error| !error["detail"].as_str().unwrap().is_empty()));
    errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

fn receipts(reply: &Reply) -> Vec<ReceiptJson> {
    serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {}", reply.text()))
}

#[tokio::test]
async fn one_event_is_answered_with_its_receipt_and_where_it_is() {
    let server = Server::start().await;
    let body = r#"{"id":"1","type":"user.login","source":"/auth","subject":"alice","time":"2026-11-21T10:00:00+01:00","data":{"ok":true}}"#;
    let reply = server.post_a(JSON, body).await;
    assert_eq!((reply.status, reply.header("content-type")), (201, JSON));
    assert_eq!(reply.header("location"), "/api/v1/events/1");
    let row = &server.table().await[0];
    let expected = format!(r#"{{"seq":1,"stream":"a","id":"1","created_at":"{}"}}"#, row.created_at);
    assert_eq!(reply.text(), expected);
    assert_eq!(
        (row.stream.as_str(), row.source.as_str(), row.id.as_deref(), row.r#type.as_str()),
        ("a", "/auth", Some("1"), "user.login")
    );
    assert_eq!(
        (row.subject.as_deref(), row.time.as_deref()),
        (Some("alice"), Some("2026-11-21T10:00:00+01:00"))
    );
    assert_eq!(row.data.as_deref(), Some(r#"{"ok":true}"#));
    let read = Reply::of(server.get(reply.header("location"))).await;
    assert_eq!(read.text(), row.json());
}

#[tokio::test]
async fn absent_members_have_their_defaults() {
    let server = Server::start().await;
    let reply = server.post_a(JSON, "{}").await;
    let row = &server.table().await[0];
    assert_eq!(reply.text(), format!(r#"{{"seq":1,"stream":"a","created_at":"{}"}}"#, row.created_at));
    assert_eq!((row.r#type.as_str(), row.source.as_str()), ("message", ""));
    assert_eq!((&row.id, &row.subject, &row.time, &row.data), (&None, &None, &None, &None));
    server.post_a(JSON, r#"{"data":null}"#).await;
    assert_eq!(server.data().await, [None, Some("null".to_owned())], "null is a payload");
}

#[tokio::test]
async fn body_that_begins_like_json_is_json_whatever_its_content_type() {
    let server = Server::start().await;
    for content_type in [
        JSON,
        FORM,
        TEXT,
        "",
        "application/json; charset=utf-8",
        "Application/JSON",
        "text/plain;charset=UTF-8",
        "application/octet-stream",
        "application/vnd.api+json",
    ] {
        for space in ["", " ", "\n\t\r "] {
            let reply = server.post_a(content_type, format!(r#"{space}{{"data":1}}"#)).await;
            assert_eq!(reply.status, 201, "{content_type}: {}", reply.text());
            let reply = server.post_a(content_type, format!(r#"{space}[{{"data":1}}]"#)).await;
            assert_eq!((reply.status, receipts(&reply).len()), (201, 1), "{content_type}");
        }
    }
    let request = server.request("POST", "/api/v1/a").body(r#"{"data":1}"#);
    assert_eq!(Reply::of(request).await.status, 201, "without a content type");
    assert!(server.data().await.iter().all(|data| data.as_deref() == Some("1")));
}

#[tokio::test]
async fn array_is_answered_with_an_array_of_receipts_in_order() {
    let server = Server::start().await;
    let reply = server.post_a(JSON, r#"[{"data":1,"id":"x"}, {"data":2} ,{"type":"t"}]"#).await;
    assert_eq!((reply.status, reply.header("location")), (201, ""));
    let receipts = receipts(&reply);
    assert_eq!(receipts.iter().map(|receipt| receipt.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let rows = server.table().await;
    for (receipt, row) in receipts.iter().zip(&rows) {
        assert_eq!((&receipt.id, receipt.created_at.as_ref()), (&row.id, Some(&row.created_at)));
        assert!(!receipt.duplicate && receipt.stream == "a");
    }
    assert_eq!(server.data().await, [Some("1".to_owned()), Some("2".to_owned()), None]);
}

#[tokio::test]
async fn lines_are_a_batch_even_when_there_is_one() {
    let server = Server::start().await;
    for (content_type, body, count) in [
        (LINES, "{\"data\":1}", 1),
        (LINES, "{\"data\":1}\n{\"data\":2}\n", 2),
        (LINES, "\n\n{\"data\":1}\r\n  \r\n {\"data\":2} \n\n{}\n", 3),
        ("application/ndjson", "{}\n{}", 2),
        ("application/jsonl", "{}\n{}", 2),
        ("application/x-ndjson; charset=utf-8", "{}\n{}", 2),
    ] {
        let before = server.log.bounds().last_seq;
        let reply = server.post_a(content_type, body).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        let seqs: Vec<_> = receipts(&reply).iter().map(|receipt| receipt.seq).collect();
        assert_eq!(seqs, (before + 1..=before + count).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn text_is_the_payload_as_it_is() {
    let server = Server::start().await;
    let texts = [
        "hello",
        "",
        " a\r\nb\nc\r ",
        "tab\t \"quoted\" \\ \u{1f600} é\u{0} \u{7f}",
        "data=1&type=x",
        "\u{FEFF}x",
        "12",
    ];
    for text in texts {
        let reply = server.post_a("text/plain; charset=utf-8", text).await;
        assert_eq!(reply.status, 201, "{text:?}: {}", reply.text());
        assert!(reply.header("location").starts_with("/api/v1/events/"));
    }
    let stored = server.data().await;
    let stored: Vec<String> =
        stored.iter().map(|data| serde_json::from_str(data.as_ref().unwrap()).unwrap()).collect();
    assert_eq!(stored, texts);
    assert!(server.data().await.iter().flatten().all(|data| !data.contains(['\n', '\r'])), "one line each");
}

#[tokio::test]
async fn form_is_an_event_whose_data_is_text_unless_it_looks_like_json() {
    let server = Server::start().await;
    for (body, data, r#type, id) in [
        ("data=hello", Some(r#""hello""#), "message", None),
        ("data=a+b%26c%0d%0a%C3%A9&type=user.login&id=7", Some(r#""a b&c\r\né""#), "user.login", Some("7")),
        ("type=x&data=%7B%22n%22+%3A+1.50%7D", Some(r#"{"n":1.50}"#), "x", None),
        ("data=%5B1%5D", Some("[1]"), "message", None),
        ("data=12", Some(r#""12""#), "message", None),
        ("data=", Some(r#""""#), "message", None),
        ("type=x", None, "x", None),
    ] {
        let reply = server.post_a(FORM, body).await;
        assert_eq!(reply.status, 201, "{body}: {}", reply.text());
        let row = server.table().await.pop().unwrap();
        assert_eq!(
            (row.data.as_deref(), row.r#type.as_str(), row.id.as_deref()),
            (data, r#type, id),
            "{body}"
        );
    }
    for (body, pointer) in [
        ("data=1&data=2", "/data"),
        ("hello", "/hello"),
        ("data=1&colour=red", "/colour"),
        ("data=%7B%22n%22%3A%7D", "/data/n"),
        ("type=error", "/type"),
        ("data=1&stream=b", "/stream"),
        ("a%2Fb~c=1", "/a~1b~0c"),
    ] {
        let problem = server.refuses("/api/v1/a", FORM, body, 422, "event_invalid").await;
        assert_eq!(pointers(&problem), [pointer], "{body}");
    }
}

#[tokio::test]
async fn idempotency_key_is_the_id_of_an_event_without_one() {
    let server = Server::start().await;
    let post = |key: &'static str, content_type: &'static str, body: &'static str| {
        Reply::of(server.post("/api/v1/a", content_type, body).header("idempotency-key", key))
    };
    let first = post("k1", JSON, r#"{"data":1}"#).await;
    assert_eq!((first.status, first.json()["id"].as_str()), (201, Some("k1")));
    // The quotes of a structured header are no part of the key.
    let again = post("\"k1\"", JSON, r#"{ "data" : 1 }"#).await;
    assert_eq!((again.status, again.json()["seq"].as_u64()), (200, Some(1)));
    assert_eq!(again.json()["duplicate"], true);
    assert_eq!(post("k1", JSON, r#"{"data":2}"#).await.problem(422, "id_reused")["seq"], 1);
    // Of every form.
    for (key, content_type, body) in [("k2", TEXT, "text"), ("k3", FORM, "data=form")] {
        assert_eq!(post(key, content_type, body).await.json()["id"], key);
        assert_eq!(post(key, content_type, body).await.status, 200);
    }
    // An id of its own comes first.
    assert_eq!(post("k4", JSON, r#"{"id":"mine"}"#).await.json()["id"], "mine");
    assert_eq!(post("k4", JSON, "{}").await.status, 201);
    // A batch has a key for each place.
    let batch = r#"[{"data":1},{"id":"own"},{"data":3}]"#;
    let first = receipts(&post("k5", JSON, batch).await);
    let ids: Vec<_> = first.iter().map(|receipt| receipt.id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["k5/0", "own", "k5/2"]);
    let reply = post("k5", JSON, batch).await;
    assert_eq!(reply.status, 200);
    let again = receipts(&reply);
    assert!(again.iter().zip(&first).all(|(again, first)| again.duplicate && again.seq == first.seq));
    let lines = receipts(&post("k6", LINES, "{}\n{}\n").await);
    assert_eq!(lines[1].id.as_deref(), Some("k6/1"));
}

#[tokio::test]
async fn idempotency_key_that_is_no_id_is_refused() {
    let server = Server::start().await;
    let long = "k".repeat(249);
    for key in ["", "\"\"", long.as_str(), "a\tb"] {
        let request = server.post("/api/v1/a", JSON, "{}").header("idempotency-key", key);
        let problem = Reply::of(request).await.problem(400, "idempotency_key_invalid");
        assert!(problem["detail"].as_str().unwrap().contains("Idempotency-Key"));
    }
    let request = server.post("/api/v1/a", JSON, "{}").header("idempotency-key", &b"\xff\xfe"[..]);
    Reply::of(request).await.problem(400, "idempotency_key_invalid");
    assert!(server.table().await.is_empty());
    let request = server.post("/api/v1/a", JSON, "{}").header("idempotency-key", "schlüssel");
    assert_eq!(Reply::of(request).await.json()["id"], "schlüssel");
}

#[tokio::test]
async fn repeat_is_answered_200_with_the_first_receipt() {
    let server = Server::start().await;
    let event = r#"{"id":"1","type":"t","subject":"s","time":"2026-11-21T10:00:00Z","data":{"a":[1, 2]}}"#;
    let first = server.post_a(JSON, event).await;
    // Other white space and another order of members are the same event.
    let same =
        r#" { "data" : {"a":[1,2]} , "time":"2026-11-21T10:00:00Z","subject":"s","type":"t","id":"1"} "#;
    for body in [event, same] {
        let again = server.post_a(JSON, body).await;
        assert_eq!((again.status, again.header("location")), (200, "/api/v1/events/1"));
        assert_eq!(again.text(), first.text().replace('}', r#","duplicate":true}"#));
    }
    assert_eq!(server.table().await.len(), 1);
    // It is the same for ever: after a restart, and after the event was trimmed.
    let server = server.restart().await;
    assert_eq!(server.post_a(JSON, event).await.status, 200);
    server.trim(1).await;
    let again = server.post_a(JSON, event).await;
    assert_eq!(
        (again.status, again.text().as_str()),
        (200, r#"{"seq":1,"stream":"a","id":"1","duplicate":true}"#)
    );
}

#[tokio::test]
async fn same_id_for_another_event_is_refused() {
    let server = Server::start().await;
    server.append("a", r#"{"id":"1","type":"t","data":{"n":1.0}}"#).await;
    for other in [
        r#"{"id":"1","type":"t","data":{"n":1}}"#,
        r#"{"id":"1","type":"u","data":{"n":1.0}}"#,
        r#"{"id":"1","type":"t"}"#,
        r#"{"id":"1","type":"t","data":{"n":1.0},"subject":"s"}"#,
        r#"{"id":"1","type":"t","data":{"n":1.0},"time":"2026-11-21T10:00:00Z"}"#,
    ] {
        let problem = server.refuses("/api/v1/a", JSON, other, 422, "id_reused").await;
        assert_eq!((pointers(&problem), problem["seq"].as_u64()), (vec!["/id"], Some(1)));
        let batch = format!(r#"[{{"data":"new"}},{other}]"#);
        let problem = server.refuses("/api/v1/a", JSON, batch, 422, "id_reused").await;
        assert_eq!(pointers(&problem), ["/1/id"]);
    }
    // In another stream, or from another source, it is another id.
    server.append("b", r#"{"id":"1","data":2}"#).await;
    server.append("a", r#"{"id":"1","source":"/s","data":2}"#).await;
}

#[tokio::test]
async fn repeats_within_a_batch_are_told_from_what_is_new() {
    let server = Server::start().await;
    server.append("a", r#"{"id":"1","data":1}"#).await;
    let body = r#"[{"id":"1","data":1},{"id":"2","data":2},{"id":"2","data":2},{"data":3}]"#;
    let reply = server.post_a(JSON, body).await;
    assert_eq!(reply.status, 201, "something is new");
    let told: Vec<_> = receipts(&reply).iter().map(|receipt| (receipt.seq, receipt.duplicate)).collect();
    assert_eq!(told, [(1, true), (2, false), (2, true), (3, false)]);
    let reply = server.post_a(JSON, r#"[{"id":"2","data":2},{"id":"1","data":1}]"#).await;
    assert_eq!(reply.status, 200, "nothing is new");
    let told: Vec<_> = receipts(&reply).iter().map(|receipt| (receipt.seq, receipt.duplicate)).collect();
    assert_eq!(told, [(2, true), (1, true)]);
    let problem =
        server.refuses("/api/v1/a", JSON, r#"[{"id":"9"},{"id":"9","data":1}]"#, 422, "id_reused").await;
    assert_eq!(pointers(&problem), ["/1/id"]);
    assert_eq!(server.table().await.len(), 3);
}

#[tokio::test]
async fn if_match_appends_only_at_the_end_that_the_producer_knows() {
    let server = Server::start().await;
    let post = |path: &'static str, value: &'static str, body: &'static str| {
        Reply::of(server.post(path, JSON, body).header("if-match", value))
    };
    assert_eq!(post("/api/v1/a", "\"0\"", "{}").await.status, 201);
    let problem = post("/api/v1/a", "\"0\"", "{}").await.problem(412, "precondition_failed");
    assert_eq!(problem["last_seq"], 1);
    server.append("b", "{}").await;
    assert_eq!(
        post("/api/v1/a", "\"1\"", "[{},{}]").await.status,
        201,
        "the stream's last seq, not the log's"
    );
    assert_eq!(post("/api/v1/a", "\"3\"", "{}").await.problem(412, "precondition_failed")["last_seq"], 4);
    // On the whole log it is the log's.
    let body = r#"{"stream":"c"}"#;
    assert_eq!(
        post("/api/v1/events", "\"3\"", body).await.problem(412, "precondition_failed")["last_seq"],
        4
    );
    assert_eq!(post("/api/v1/events", "\"4\"", body).await.status, 201);
    for bad in ["", "*", "x", "\"-1\"", "\"1\", \"2\"", "W/\"1\"", "\"1.5\"", "\"18446744073709551616\""] {
        let problem = post("/api/v1/a", bad, "{}").await.problem(400, "precondition_invalid");
        assert!(problem["detail"].as_str().unwrap().contains("If-Match"), "{bad}");
    }
    assert_eq!(server.table().await.len(), 5);
}

#[tokio::test]
async fn of_many_conditional_appends_one_wins() {
    let server = Server::start().await;
    let posts = (0..10).map(|n| {
        let request =
            server.post("/api/v1/a", JSON, format!(r#"{{"data":{n}}}"#)).header("if-match", "\"0\"");
        Reply::of(request)
    });
    let statuses: Vec<u16> = join_all(posts).await.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 9, "{statuses:?}");
    assert_eq!(server.table().await.len(), 1);
}

#[tokio::test]
async fn whole_log_takes_events_that_name_their_streams_as_one_batch() {
    let server = Server::start().await;
    let reply = Reply::of(server.post("/api/v1/events", JSON, r#"{"stream":"orders.eu","data":1}"#)).await;
    assert_eq!((reply.status, reply.json()["stream"].as_str()), (201, Some("orders.eu")));
    assert_eq!(reply.header("location"), "/api/v1/events/1");
    let body = "{\"stream\":\"a\",\"data\":2}\n{\"data\":3,\"stream\":\"b\"}\n{\"stream\":\"a\"}\n";
    let reply = Reply::of(server.post("/api/v1/events", LINES, body)).await;
    let streams: Vec<_> = receipts(&reply).into_iter().map(|receipt| (receipt.seq, receipt.stream)).collect();
    assert_eq!(streams, [(2, "a".to_owned()), (3, "b".to_owned()), (4, "a".to_owned())]);
    let reply = Reply::of(server.post("/api/v1/events", FORM, "stream=c&data=form")).await;
    assert_eq!((reply.status, reply.json()["stream"].as_str()), (201, Some("c")));
    // One bad stream, and none of the others has an event.
    for (bad, pointer) in [
        (r#"{"data":1}"#, "/1/stream"),
        (r#"{"stream":"Bad"}"#, "/1/stream"),
        (r#"{"stream":"events"}"#, "/1/stream"),
        (r#"{"stream":"streams"}"#, "/1/stream"),
        (r#"{"stream":"evertail"}"#, "/1/stream"),
        (r#"{"stream":""}"#, "/1/stream"),
        (r#"{"stream":null}"#, "/1/stream"),
        (r#"{"stream":"d","stream":"d"}"#, "/1/stream"),
    ] {
        let body = format!(r#"[{{"stream":"a"}},{bad},{{"stream":"b"}}]"#);
        let problem = server.refuses("/api/v1/events", JSON, body, 422, "event_invalid").await;
        assert_eq!(pointers(&problem), [pointer], "{bad}");
    }
    let problem = server.refuses("/api/v1/events", TEXT, "text has no stream", 422, "event_invalid").await;
    assert_eq!(pointers(&problem), ["/stream"]);
    let problem = server.refuses("/api/v1/events", FORM, "data=1", 422, "event_invalid").await;
    assert_eq!(pointers(&problem), ["/stream"]);
    let problem = server.refuses("/api/v1/a", JSON, r#"{"stream":"a"}"#, 422, "event_invalid").await;
    assert_eq!(pointers(&problem), ["/stream"]);
    assert!(problem["detail"].as_str().unwrap().contains("/api/v1/events"), "{problem}");
}

#[tokio::test]
async fn payload_is_stored_as_it_came_but_for_white_space() {
    let server = Server::start().await;
    let payloads = [
        ("1.50", "1.50"),
        ("1e2", "1e2"),
        ("-0.0", "-0.0"),
        ("1E+2", "1E+2"),
        ("12345678901234567890", "12345678901234567890"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("123456789012345678901234567890.123456789", "123456789012345678901234567890.123456789"),
        ("1e308", "1e308"),
        (r#""\u00e9\/\u0041""#, r#""\u00e9\/\u0041""#),
        (r#""é 😀 \ud83d\ude00""#, r#""é 😀 \ud83d\ude00""#),
        (r#""\b\f\n\r\t\"\\""#, r#""\b\f\n\r\t\"\\""#),
        (r#"{"b":1,"a":2,"":3,"A":4}"#, r#"{"b":1,"a":2,"":3,"A":4}"#),
        (r#"{"\u0061":1}"#, r#"{"\u0061":1}"#),
        (
            "{ \"a\" :\t[ 1 ,\r\n2 ] , \"b \\\" c\" : \" two  spaces \" }",
            r#"{"a":[1,2],"b \" c":" two  spaces "}"#,
        ),
        (" [ ] ", "[]"),
        ("\"\u{2028}\u{85}\u{7f}\"", "\"\u{2028}\u{85}\u{7f}\""),
        ("true", "true"),
    ];
    for (given, _) in payloads {
        server.append("a", &format!(r#"{{"data":{given}}}"#)).await;
    }
    let batch: Vec<_> = payloads.iter().map(|(given, _)| format!(r#"{{"data":{given}}}"#)).collect();
    server.append("a", &format!("[{}]", batch.join(",\n"))).await;
    let stored: Vec<String> = server.data().await.into_iter().flatten().collect();
    let expected: Vec<&str> = payloads.iter().chain(&payloads).map(|(_, stored)| *stored).collect();
    assert_eq!(stored, expected);
    // And read as it is stored, wherever it is read.
    let rows = server.table().await;
    let lines = server.lines("/api/v1/a").await.text();
    assert_eq!(lines.lines().collect::<Vec<_>>(), rows.iter().map(|row| row.json()).collect::<Vec<_>>());
}

#[tokio::test]
async fn error_in_the_middle_of_a_batch_names_its_place_and_stores_nothing() {
    let server = Server::start().await;
    for (bad, code, status, pointer) in [
        (r#"{"data":{"a":1,"a":2}}"#, "event_invalid", 422, "/2/data/a"),
        (r#"{"type":"error"}"#, "event_invalid", 422, "/2/type"),
        (r#"{"type":"evertail.gap"}"#, "event_invalid", 422, "/2/type"),
        (r#"{"type":""}"#, "event_invalid", 422, "/2/type"),
        (r#"{"type":"a\nb"}"#, "event_invalid", 422, "/2/type"),
        (r#"{"id":"a\u0000"}"#, "event_invalid", 422, "/2/id"),
        (r#"{"id":""}"#, "event_invalid", 422, "/2/id"),
        (r#"{"id":7}"#, "event_invalid", 422, "/2/id"),
        (r#"{"id":null}"#, "event_invalid", 422, "/2/id"),
        (r#"{"time":"yesterday"}"#, "event_invalid", 422, "/2/time"),
        (r#"{"subject":"a\rb"}"#, "event_invalid", 422, "/2/subject"),
        (r#"{"source":["x"]}"#, "event_invalid", 422, "/2/source"),
        (r#"{"colour":"red"}"#, "event_invalid", 422, "/2/colour"),
        (r#"{"a/b~c":1}"#, "event_invalid", 422, "/2/a~1b~0c"),
        (r#"{"id":"x","id":"x"}"#, "event_invalid", 422, "/2/id"),
        ("1", "event_invalid", 422, "/2"),
        ("[]", "event_invalid", 422, "/2"),
        ("null", "event_invalid", 422, "/2"),
    ] {
        let array = format!(r#"[{{"data":0}},{{"data":1}},{bad},{{"data":3}}]"#);
        let problem = server.refuses("/api/v1/a", JSON, array, status, code).await;
        assert_eq!(pointers(&problem), [pointer], "{bad}");
        let lines = format!("{{\"data\":0}}\n{{\"data\":1}}\n{bad}\n{{\"data\":3}}\n");
        let problem = server.refuses("/api/v1/a", LINES, lines, status, code).await;
        assert_eq!(pointers(&problem), [pointer], "{bad}");
        assert!(problem["detail"].as_str().unwrap().len() > 10);
    }
}

#[tokio::test]
async fn line_that_is_no_json_is_named_by_its_index() {
    let server = Server::start().await;
    for bad in [
        "{\"data\":}",
        "{\"data\":1",
        "{\"data\":1}}",
        "{'data':1}",
        "x",
        "{\"data\":01}",
        "{\"data\":NaN}",
        "\u{FEFF}{}",
    ] {
        let lines = format!("{{}}\n\n{bad}\n{{}}\n");
        let problem = server.refuses("/api/v1/a", LINES, lines, 400, "json_invalid").await;
        assert_eq!(pointers(&problem), ["/1"], "{bad}: lines without anything are not counted");
    }
}

#[tokio::test]
async fn body_that_is_no_json_is_refused_and_says_where() {
    let server = Server::start().await;
    for bad in [
        "{",
        "[",
        "[{}",
        "[{},]",
        "{\"data\":}",
        "{} {}",
        "{}x",
        "[{}]]",
        "{\"data\":1,}",
        "{data:1}",
        "{\"data\":\"\t\"}",
    ] {
        let problem = server.refuses("/api/v1/a", JSON, bad, 400, "json_invalid").await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("line 1 column"), "{bad}: {detail}");
        assert_eq!(pointers(&problem).len(), 1);
    }
}

#[tokio::test]
async fn several_errors_are_told_at_once() {
    let server = Server::start().await;
    let body = r#"[{"type":"error","id":"","colour":1},{},{"time":"x","data":[1,1e400]}]"#;
    let problem = server.refuses("/api/v1/a", JSON, body, 422, "event_invalid").await;
    assert_eq!(pointers(&problem), ["/0/type", "/0/id", "/0/colour", "/2/time", "/2/data/1"]);
    // But not without end.
    let many = format!("[{}]", vec![r#"{"colour":1}"#; 1000].join(","));
    let problem = server.refuses("/api/v1/a", JSON, many, 422, "event_invalid").await;
    assert!(pointers(&problem).len() < 100);
}

#[tokio::test]
async fn unknown_member_is_refused_by_name_with_advice() {
    let server = Server::start().await;
    for name in ["colour", "Data", "seq", "created_at", "specversion", ""] {
        for value in [r#""text""#, "1", "{}"] {
            let body = format!(r#"{{"{name}":{value}}}"#);
            let problem = server.refuses("/api/v1/a", JSON, body, 422, "event_invalid").await;
            assert_eq!(pointers(&problem), [format!("/{name}")]);
            let detail = problem["errors"][0]["detail"].as_str().unwrap();
            assert!(detail.contains("put it under data"), "{detail}");
        }
    }
}

#[tokio::test]
async fn json_that_a_strict_reader_would_refuse_is_refused_at_any_depth() {
    let server = Server::start().await;
    for (data, pointer) in [
        (r#"{"a":1,"a":1}"#, "/data/a"),
        (r#"{"x":[{"a":1,"b":{},"b":{}}]}"#, "/data/x/0/b"),
        (r#"{"a":1,"\u0061":2}"#, "/data/a"),
        (r#""\ud800""#, "/data"),
        (r#"{"x":["\udc00"]}"#, "/data/x/0"),
        (r#"["\ud800\u0041"]"#, "/data/0"),
        (r#"{"\ud800":1}"#, "/data"),
        ("1e400", "/data"),
        ("[0,-1e999]", "/data/1"),
    ] {
        let body = format!(r#"{{"data":{data}}}"#);
        let problem = server.refuses("/api/v1/a", JSON, body, 422, "event_invalid").await;
        assert_eq!(pointers(&problem), [pointer], "{data}");
    }
    // A lone surrogate is none the better outside the payload.
    for name in ["id", "type", "subject", "source"] {
        let body = format!(r#"{{"{name}":"\ud800"}}"#);
        let problem = server.refuses("/api/v1/a", JSON, body, 422, "event_invalid").await;
        assert_eq!(pointers(&problem), [format!("/{name}")]);
    }
}

#[tokio::test]
async fn payload_nests_64_deep_and_no_deeper() {
    let server = Server::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| format!(r#"{{"data":{}1{}}}"#, open.repeat(depth), close.repeat(depth));
        server.append("a", &nested(64)).await;
        let problem = server.refuses("/api/v1/a", JSON, nested(65), 422, "event_invalid").await;
        assert!(pointers(&problem)[0].starts_with("/data/"));
        server.refuses("/api/v1/a", JSON, nested(10_000), 422, "event_invalid").await;
    }
    // Deep enough to exhaust the stack of a parser that recurses.
    for body in
        ["[".repeat(1_000_000), "{\"data\":".repeat(100_000), format!(r#"{{"x":{}"#, "[".repeat(1_000_000))]
    {
        let reply = server.post_a(JSON, body).await;
        assert!(reply.status == 400 || reply.status == 422, "{}", reply.status);
    }
}

#[tokio::test]
async fn body_that_is_not_utf_8_is_refused_at_its_offset() {
    let server = Server::start().await;
    for content_type in [JSON, LINES, TEXT, FORM] {
        for (body, offset) in [
            (&b"{\"data\":\"\xff\"}"[..], 9),
            (b"\xc3\x28", 0),
            (b"ab\xed\xa0\x80", 2),
            (b"\xf8\x88\x80\x80\x80", 0),
            (b"torn \xe2\x82", 5),
            (b"\xc0\x80", 0),
        ] {
            let problem = server.refuses("/api/v1/a", content_type, body, 400, "utf8_invalid").await;
            assert_eq!(problem["offset"], offset);
        }
    }
}

#[tokio::test]
async fn byte_order_mark_before_json_is_refused() {
    let server = Server::start().await;
    for content_type in [JSON, LINES, "application/octet-stream", ""] {
        let reply = server.post_a(content_type, "\u{FEFF}{\"data\":1}").await;
        assert!((400..500).contains(&reply.status), "{content_type}: {}", reply.text());
    }
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn empty_array_is_no_event_and_empty_body_is_an_error() {
    let server = Server::start().await;
    for (path, content_type) in [("/api/v1/a", JSON), ("/api/v1/a", FORM), ("/api/v1/events", JSON)] {
        for body in ["[]", " [ ] "] {
            let reply = Reply::of(server.post(path, content_type, body)).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "[]"));
        }
    }
    for content_type in [JSON, LINES, FORM, "", "application/octet-stream"] {
        for body in ["", " ", "\r\n\t "] {
            server.refuses("/api/v1/a", content_type, body, 400, "body_empty").await;
        }
    }
    let reply = Reply::of(server.request("POST", "/api/v1/a")).await;
    reply.problem(400, "body_empty");
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn json_that_is_no_event_is_refused() {
    let server = Server::start().await;
    for body in ["1", "\"text\"", "null", "true", "x"] {
        let problem = server.refuses("/api/v1/a", JSON, body, 422, "event_invalid").await;
        assert_eq!(pointers(&problem), [""]);
    }
}

#[tokio::test]
async fn content_that_cannot_be_read_is_refused_by_its_type() {
    let server = Server::start().await;
    for content_type in [
        "",
        "application/octet-stream",
        "application/xml",
        "multipart/form-data; boundary=x",
        "text/html",
        "x",
        "image/png",
    ] {
        let problem =
            server.refuses("/api/v1/a", content_type, "<x/>", 415, "content_type_unsupported").await;
        assert!(problem["detail"].as_str().unwrap().contains("application/json"));
    }
    let reply = Reply::of(server.request("POST", "/api/v1/a").body("text")).await;
    reply.problem(415, "content_type_unsupported");
    for encoding in ["gzip", "br", "zstd", "deflate", "x", "gzip, identity"] {
        let request = server.post("/api/v1/a", JSON, "{}").header("content-encoding", encoding);
        let problem = Reply::of(request).await.problem(415, "content_encoding_unsupported");
        assert!(problem["detail"].as_str().unwrap().contains("Content-Encoding"));
    }
    assert!(server.table().await.is_empty());
    let request = server.post("/api/v1/a", JSON, "{}").header("content-encoding", "identity");
    assert_eq!(Reply::of(request).await.status, 201);
}

#[tokio::test]
async fn names_of_streams_are_checked_in_the_path() {
    let server = Server::start().await;
    let long = "a".repeat(129);
    for name in
        ["A", ".a", "-a", "_a", "a%20b", "%C3%A4", "a%00", "a%0A", "a%2Fb", "%", "%ff", &long, "a*", "a,b"]
    {
        let reply = Reply::of(server.post(&format!("/api/v1/{name}"), JSON, "{}")).await;
        let problem = reply.problem(400, "stream_invalid");
        assert!(problem["detail"].as_str().unwrap().contains("stream"));
        // It can no more be read than appended to.
        Reply::of(server.get(&format!("/api/v1/{name}"))).await.problem(400, "stream_invalid");
    }
    Reply::of(server.post("/api/v1/evertail", JSON, "{}")).await.problem(403, "stream_reserved");
    assert_eq!(server.page("/api/v1/evertail").await.status, 200, "the server's own stream can be read");
    for name in ["a", "0", "orders.eu-1_x", "evertails", "event", &"a".repeat(128)] {
        assert_eq!(
            Reply::of(server.post(&format!("/api/v1/{name}"), JSON, "{}")).await.status,
            201,
            "{name}"
        );
    }
}

#[tokio::test]
async fn texts_have_their_bounds_in_characters() {
    let server = Server::start().await;
    for (name, max) in [("type", 128), ("id", 256), ("source", 256), ("subject", 256)] {
        for character in ["a", "ä", "😀"] {
            let body = |length: usize| format!(r#"{{"{name}":"{}"}}"#, character.repeat(length));
            server.append("a", &body(max)).await;
            let problem = server.refuses("/api/v1/a", JSON, body(max + 1), 422, "event_invalid").await;
            assert_eq!(pointers(&problem), [format!("/{name}")]);
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(&max.to_string()), "it names the limit: {detail}");
        }
    }
}

#[tokio::test]
async fn event_has_at_most_event_bytes_max() {
    let server = Server::start_with(|settings| settings.http.event_bytes_max = 1024).await;
    // The stream, the type and the payload with its quotes.
    let text = |bytes: usize| "x".repeat(bytes - "a".len() - "message".len() - 2);
    server.append("a", &format!(r#"{{"data":"{}"}}"#, text(1024))).await;
    assert_eq!(server.post_a(TEXT, text(1024)).await.status, 201);
    let too_large = text(1025);
    let problem = server.refuses("/api/v1/a", TEXT, too_large.clone(), 413, "event_too_large").await;
    assert_eq!(problem["bytes_max"], 1024);
    let event = format!(r#"{{"data":"{too_large}"}}"#);
    let problem = server.refuses("/api/v1/a", JSON, event.clone(), 413, "event_too_large").await;
    assert_eq!((problem["bytes_max"].as_u64(), pointers(&problem)), (Some(1024), vec!["/data"]));
    let batch = format!("[{{}},{event}]");
    let problem = server.refuses("/api/v1/a", JSON, batch, 413, "event_too_large").await;
    assert_eq!(pointers(&problem), ["/1/data"]);
    let form = format!("data={too_large}");
    server.refuses("/api/v1/a", FORM, form, 413, "event_too_large").await;
    // White space counts for nothing, the other texts do.
    let spaces = " ".repeat(2000);
    server.append("a", &format!(r#"{{"data":[{spaces}1]}}"#)).await;
    let with_id = format!(r#"{{"id":"1","data":"{}"}}"#, text(1024));
    server.refuses("/api/v1/a", JSON, with_id, 413, "event_too_large").await;
}

#[tokio::test]
async fn batch_has_at_most_batch_events_max() {
    let server = Server::start_with(|settings| settings.http.batch_events_max = 3).await;
    server.append("a", "[{},{},{}]").await;
    let problem = server.refuses("/api/v1/a", JSON, "[{},{},{},{}]", 413, "batch_too_large").await;
    assert_eq!(problem["events_max"], 3);
    let problem = server.refuses("/api/v1/a", LINES, "{}\n{}\n{}\n{}", 413, "batch_too_large").await;
    assert_eq!(problem["events_max"], 3);
    assert_eq!(server.post_a(LINES, "{}\n\n{}\n\n{}\n\n").await.status, 201);
}

#[tokio::test]
async fn body_has_at_most_batch_bytes_max() {
    let server = Server::start_with(|settings| settings.http.batch_bytes_max = 1024).await;
    let body = |bytes: usize| format!("{{}}{}", " ".repeat(bytes - 2));
    server.append("a", &body(1024)).await;
    let problem = server.refuses("/api/v1/a", JSON, body(1025), 413, "body_too_large").await;
    assert_eq!(problem["bytes_max"], 1024);
    // Of a length that is not announced.
    let chunked = |bytes: usize| {
        let chunks: Vec<_> = body(bytes)
            .into_bytes()
            .chunks(100)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect();
        reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))
    };
    assert_eq!(server.post_a(JSON, chunked(1024)).await.status, 201);
    server.refuses("/api/v1/a", JSON, chunked(1025), 413, "body_too_large").await;
}

#[tokio::test]
async fn client_that_sends_far_too_much_reads_the_refusal() {
    let server = Server::start().await;
    for _ in 0..5 {
        let mut connection = Connection::open(server.address).await;
        let body = vec![b' '; 16 << 20];
        let head =
            format!("POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send(head).await;
        connection.send(&body).await;
        connection.reply().await.problem(413, "body_too_large");
    }
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn client_that_asks_first_is_refused_before_it_sends() {
    let server = Server::start_with(|settings| settings.http.batch_bytes_max = 1024).await;
    let head = |rest: &str| {
        format!("POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n{rest}\r\n\r\n")
    };
    for (rest, status, code) in [
        ("Content-Length: 1025", 413, "body_too_large"),
        ("Content-Length: 9223372036854775807", 413, "body_too_large"),
        ("Content-Length: 2\r\nContent-Encoding: gzip", 415, "content_encoding_unsupported"),
        ("Content-Length: 2\r\nIdempotency-Key: ", 400, "idempotency_key_invalid"),
        ("Content-Length: 2\r\nIf-Match: x", 400, "precondition_invalid"),
        ("Content-Length: 2\r\nOrigin: https://evil.test", 403, "origin_refused"),
    ] {
        let mut connection = Connection::open(server.address).await;
        connection.send(head(rest)).await;
        connection.reply().await.problem(status, code);
    }
    let mut connection = Connection::open(server.address).await;
    connection.send(head("Content-Length: 2")).await;
    assert_eq!(connection.reply().await.status, 100);
    connection.send("{}").await;
    assert_eq!(connection.reply().await.status, 201);
    assert_eq!(server.table().await.len(), 1);
}

#[tokio::test]
async fn body_that_breaks_off_stores_nothing() {
    let server = Server::start().await;
    let head = "POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n";
    for rest in ["Content-Length: 100\r\n\r\n{}\n{}\n", "Transfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"] {
        let mut connection = Connection::open(server.address).await;
        connection.send(format!("{head}{rest}")).await;
        connection.finish().await;
        if let Some(reply) = connection.reply_to("POST").await {
            assert_eq!(reply.status, 400, "{}", reply.text());
        }
    }
    server.append("b", "{}").await;
    assert_eq!(server.table().await.len(), 1);
}

#[tokio::test]
async fn many_producers_at_once_each_get_their_own_seqs() {
    let server = Server::start().await;
    let posts = (0..64).map(|producer| {
        let server = &server;
        async move {
            let mut receipts = Vec::new();
            for n in 0..4 {
                let body = format!(r#"[{{"id":"{producer}-{n}-x"}},{{"id":"{producer}-{n}-y"}}]"#);
                receipts.extend(server.append("a", &body).await);
            }
            receipts
        }
    });
    let receipts: Vec<_> = join_all(posts).await.into_iter().flatten().collect();
    let mut acked: Vec<_> = receipts.into_iter().map(|receipt| (receipt.seq, receipt.id)).collect();
    acked.sort();
    let stored: Vec<_> = server.table().await.into_iter().map(|row| (row.seq, row.id)).collect();
    assert_eq!(acked, stored);
    for pair in stored.chunks(2) {
        let [x, y] = [&pair[0].1, &pair[1].1].map(|id| id.as_deref().unwrap());
        assert_eq!(x.trim_end_matches("-x"), y.trim_end_matches("-y"), "a batch is not torn apart");
    }
}

#[tokio::test]
async fn our_client_tells_receipts_and_refusals() {
    let server = Server::start().await;
    let client = server.client();
    let append = |content_type: &'static str, body: &'static str| {
        let client = client.clone();
        async move { within("the append", client.append("a", content_type, body.into())).await }
    };
    assert_eq!(append(JSON, r#"{"id":"1"}"#).await.unwrap()[0].seq, 1);
    assert!(append(JSON, r#"{"id":"1"}"#).await.unwrap()[0].duplicate);
    let seqs: Vec<_> = append(LINES, "{}\n{}").await.unwrap().iter().map(|receipt| receipt.seq).collect();
    assert_eq!(seqs, [2, 3]);
    match append(JSON, r#"{"id":"1","data":1}"#).await {
        Err(ClientError::Refused {
            status: 422,
            code,
            detail,
            is_retryable: false,
            had_no_effect: true,
            ..
        }) => {
            assert_eq!(code, "id_reused");
            assert!(detail.contains("seq 1"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(serde_json::to_value(append(JSON, "[]").await.unwrap()).unwrap(), json!([]));
}
