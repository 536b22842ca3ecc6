//! CloudEvents over HTTP: every mode in, every refusal, every representation out, and the way there and back.

use crate::server::{Reply, Server, within};
use crate::table::Row;
use serde_json::{Value, json};

const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// A CloudEvent with all that can be stored, but for these members, which replace its own; `null` is kept as `null`.
fn cloud_event(changes: Value) -> Value {
    let mut event = json!({
        "specversion": "1.0", "id": "1", "source": "/auth", "type": "user.login", "subject": "alice",
        "time": "2026-11-21T10:00:00+01:00", "datacontenttype": "application/json", "data": {"ok": true},
    });
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn without(mut event: Value, name: &str) -> Value {
    event.as_object_mut().unwrap().remove(name).unwrap();
    event
}

impl Server {
    async fn send(&self, path: &str, content_type: &str, body: impl ToString) -> Reply {
        Reply::of(self.post(path, content_type, body.to_string())).await
    }

    async fn send_binary(&self, path: &str, headers: &[(&str, &[u8])], body: &str) -> Reply {
        let mut request = self.request("POST", path).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::of(request).await
    }

    /// What is stored: stream, source, id, type, subject, time, data.
    async fn stored(&self) -> Vec<Value> {
        let rows = self.table().await.into_iter();
        rows.map(|row| json!([row.stream, row.source, row.id, row.r#type, row.subject, row.time, row.data]))
            .collect()
    }
}

/// The pointers of a refusal, which must be `event_invalid`.
#[track_caller]
fn pointers(reply: &Reply) -> Vec<String> {
    let problem = reply.problem(422, "event_invalid");
    let errors = problem["errors"].as_array().unwrap();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

const REQUIRED: [(&str, &[u8]); 4] =
    [("ce-specversion", b"1.0"), ("ce-id", b"1"), ("ce-source", b"/auth"), ("ce-type", b"user.login")];

#[tokio::test]
async fn a_structured_event_is_stored_with_all_it_says() {
    let server = Server::start().await;
    let reply = server
        .send("/api/v1/audits", "Application/CloudEvents+JSON; charset=utf-8", cloud_event(json!({})))
        .await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!((reply.header("location"), &reply.json()["id"]), ("/api/v1/events/1", &json!("1")));
    let expected =
        json!(["audits", "/auth", "1", "user.login", "alice", "2026-11-21T10:00:00+01:00", "{\"ok\":true}"]);
    assert_eq!(server.stored().await, [expected]);
    let again = server.send("/api/v1/audits", ONE, cloud_event(json!({}))).await;
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)));
    let other = server.send("/api/v1/audits", ONE, cloud_event(json!({"data": 1}))).await;
    other.problem(422, "id_reused");
}

#[tokio::test]
async fn absent_null_and_text_data_are_three_things() {
    let server = Server::start().await;
    let cases = [
        (without(cloud_event(json!({"id": "absent"})), "data"), Value::Null),
        (cloud_event(json!({"id": "null", "data": null})), json!("null")),
        (without(cloud_event(json!({"id": "json", "data": "x"})), "datacontenttype"), json!("\"x\"")),
        (
            cloud_event(json!({"id": "text", "datacontenttype": "text/plain", "data": "a\nb"})),
            json!("\"a\\nb\""),
        ),
        (
            cloud_event(
                json!({"id": "unset", "subject": null, "dataschema": null, "data_base64": null, "data": 1}),
            ),
            json!("1"),
        ),
    ];
    for (event, _) in &cases {
        let reply = server.send("/api/v1/a", ONE, event).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    let stored = server.stored().await;
    assert_eq!(stored.iter().map(|row| &row[6]).collect::<Vec<_>>(), cases.each_ref().map(|(_, data)| data));
    assert_eq!(stored[4][4], Value::Null);
}

#[tokio::test]
async fn a_batch_is_all_or_nothing_and_may_be_empty() {
    let server = Server::start().await;
    let empty = server.send("/api/v1/a", BATCH, "[]").await;
    assert_eq!((empty.status, empty.text().as_str()), (200, "[]"));
    let batch = json!([cloud_event(json!({"stream": "a"})), cloud_event(json!({"id": "2", "stream": "b"}))]);
    let reply = server.send("/api/v1/events", "application/CLOUDEVENTS-BATCH+json", &batch).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(reply.json()[1]["stream"], "b");
    let one = server.send("/api/v1/a", BATCH, json!([cloud_event(json!({"id": "3"}))])).await;
    assert!(one.json().is_array());
    let broken =
        json!([cloud_event(json!({"id": "4"})), without(cloud_event(json!({"comexample": 1})), "type")]);
    assert_eq!(pointers(&server.send("/api/v1/a", BATCH, broken).await), ["/1/comexample", "/1/type"]);
    assert_eq!(server.table().await.len(), 3);
    server.send("/api/v1/a", BATCH, cloud_event(json!({}))).await.problem(422, "event_invalid");
    server.send("/api/v1/a", ONE, json!([])).await.problem(422, "event_invalid");
    server.send("/api/v1/a", BATCH, "").await.problem(400, "body_empty");
    server
        .send("/api/v1/a", "application/cloudevents+xml", "<x/>")
        .await
        .problem(415, "content_type_unsupported");
    let many: Vec<_> = (0..1001).map(|n| cloud_event(json!({"id": n.to_string()}))).collect();
    server.send("/api/v1/a", BATCH, json!(many)).await.problem(413, "batch_too_large");
}

#[tokio::test]
async fn a_binary_event_is_the_same_event() {
    let server = Server::start().await;
    let mut headers = REQUIRED.to_vec();
    headers.extend([
        ("content-type", &b"Application/JSON; Charset=UTF-8"[..]),
        ("ce-subject", b"alice"),
        ("ce-time", b"2026-11-21T10:00:00+01:00"),
    ]);
    let reply = server.send_binary("/api/v1/audits", &headers, " {\"ok\": true}").await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let structured = server.send("/api/v1/audits", ONE, cloud_event(json!({}))).await;
    assert_eq!((structured.status, &structured.json()["seq"]), (200, &json!(1)));
    // A structured event may repeat its attributes in headers; what it says itself counts.
    headers[1].1 = b"other";
    headers[4].1 = ONE.as_bytes();
    let both = server.send_binary("/api/v1/audits", &headers, &cloud_event(json!({})).to_string()).await;
    assert_eq!((both.status, &both.json()["seq"]), (200, &json!(1)));
}

#[tokio::test]
async fn header_values_are_percent_encoded_utf8() {
    let server = Server::start().await;
    for (index, (header, subject)) in [
        (&b"%E2%82%AC%20100%25"[..], "€ 100%"),
        ("ü".as_bytes(), "ü"),
        (b"\"a \\\"b\\\" %22\"", "a \"b\" \""),
        (b"%252C", "%2C"),
        (b"100% x", "100% x"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = index.to_string();
        let mut headers = REQUIRED.to_vec();
        headers[1].1 = id.as_bytes();
        headers.push(("ce-subject", header));
        let reply = server.send_binary("/api/v1/a", &headers, "").await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        let stored = &server.stored().await[index];
        assert_eq!((&stored[4], &stored[6]), (&json!(subject), &Value::Null));
    }
    for bad in [&b"%FF"[..], b"\xff", b"%ED%A0%80"] {
        let headers = [&REQUIRED[..], &[("ce-subject", bad)]].concat();
        assert_eq!(pointers(&server.send_binary("/api/v1/a", &headers, "1").await), ["/subject"]);
    }
    // The form of a name holds after decoding.
    let headers = [&REQUIRED[..], &[("ce-subject", b"a%0Ab")]].concat();
    assert_eq!(pointers(&server.send_binary("/api/v1/a", &headers, "1").await), ["/subject"]);
}

#[tokio::test]
async fn text_in_binary_mode_is_a_json_string() {
    let server = Server::start().await;
    let headers = [&REQUIRED[..], &[("content-type", b"text/plain"), ("ce-stream", b"b")]].concat();
    let reply = server.send_binary("/api/v1/events", &headers, "{not JSON").await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(
        server.stored().await[0],
        json!(["b", "/auth", "1", "user.login", null, null, "\"{not JSON\""])
    );
}

#[tokio::test]
async fn what_could_not_be_read_back_is_refused_by_name() {
    let server = Server::start().await;
    for (changes, pointer) in [
        (json!({"specversion": "0.3"}), "/specversion"),
        (json!({"specversion": 1.0}), "/specversion"),
        (json!({"id": ""}), "/id"),
        (json!({"id": null}), "/id"),
        (json!({"source": ""}), "/source"),
        (json!({"type": "error"}), "/type"),
        (json!({"type": "evertail.cursor"}), "/type"),
        (json!({"subject": ""}), "/subject"),
        (json!({"subject": 1}), "/subject"),
        (json!({"time": "yesterday"}), "/time"),
        (json!({"dataschema": "https://example.com/s"}), "/dataschema"),
        (json!({"data_base64": "eA=="}), "/data_base64"),
        (json!({"datacontenttype": "application/xml", "data": "<x/>"}), "/datacontenttype"),
        (json!({"datacontenttype": "text/csv", "data": "a,b"}), "/datacontenttype"),
        (json!({"datacontenttype": "text/plain; charset=latin1", "data": "a"}), "/datacontenttype"),
        (json!({"datacontenttype": "text/plain"}), "/data"),
        (json!({"traceparent": "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"}), "/traceparent"),
        (json!({"traceparent": ""}), "/traceparent"),
        (json!({"tracestate": "a=b"}), "/tracestate"),
        (json!({"comexampleextension": true}), "/comexampleextension"),
        (json!({"stream": "b"}), "/stream"),
        (json!({"sequence": "7"}), "/sequence"),
        (json!({"sequencetype": "Integer"}), "/sequencetype"),
        (json!({"recordedtime": "2026-11-21T10:00:00Z"}), "/recordedtime"),
    ] {
        let reply = server.send("/api/v1/a", ONE, cloud_event(changes.clone())).await;
        assert_eq!(pointers(&reply), [pointer], "{changes}");
    }
    let twice = cloud_event(json!({})).to_string().replacen('{', "{\"id\":\"2\",", 1);
    assert_eq!(pointers(&server.send("/api/v1/a", ONE, twice).await), ["/id"]);
    let mut many: Vec<String> = (0..200_000).map(|n| format!("\"x{n}\":null")).collect();
    many.push("\"x0\":null".into());
    let refused = server.send("/api/v1/a", ONE, format!("{{{}}}", many.join(","))).await;
    assert_eq!(pointers(&refused)[0], "/x0", "many attributes that are not set are no work");
    let inside = cloud_event(json!({})).to_string().replace("{\"ok\":true}", "{\"a\":1,\"a\":2}");
    assert_eq!(pointers(&server.send("/api/v1/a", ONE, inside).await), ["/data/a"]);
    assert_eq!(pointers(&server.send("/api/v1/events", ONE, cloud_event(json!({}))).await), ["/stream"]);
    let all = ["/specversion", "/id", "/source", "/type"];
    assert_eq!(pointers(&server.send("/api/v1/a", ONE, "{}").await), all);
    server.send("/api/v1/a", ONE, "{").await.problem(400, "json_invalid");
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn one_ce_header_without_the_others_is_no_ordinary_event() {
    let server = Server::start().await;
    for (index, (name, _)) in REQUIRED.iter().enumerate() {
        let mut headers = REQUIRED.to_vec();
        headers.remove(index);
        let reply = server.send_binary("/api/v1/a", &headers, "{\"data\":1}").await;
        assert_eq!(pointers(&reply), [name.replace("ce-", "/")]);
    }
    for (name, value, pointer) in [
        ("ce-comexample", &b"1"[..], "/comexample"),
        ("ce-dataschema", b"/s", "/dataschema"),
        ("ce-datacontenttype", b"text/plain", "/datacontenttype"),
        ("ce-data", b"1", "/data"),
        ("ce-id", b"2", "/id"),
        ("ce-specversion", b"1.1", "/specversion"),
    ] {
        let headers = [&REQUIRED[..], &[(name, value)]].concat();
        assert_eq!(pointers(&server.send_binary("/api/v1/a", &headers, "1").await), [pointer], "{name}");
    }
    for content_type in ["application/octet-stream", "application/x-www-form-urlencoded", "application/avro"]
    {
        let headers = [&REQUIRED[..], &[("content-type", content_type.as_bytes())]].concat();
        let reply = server.send_binary("/api/v1/a", &headers, "1").await;
        reply.problem(415, "content_type_unsupported");
    }
    assert_eq!(pointers(&server.send_binary("/api/v1/a", &REQUIRED, "not JSON").await), ["/data"]);
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn an_event_of_64_kib_is_accepted_in_every_mode() {
    let server = Server::start().await;
    let text = "x".repeat(64 << 10);
    for (id, mode) in [("1", ONE), ("2", BATCH)] {
        let event = cloud_event(json!({"id": id, "data": text}));
        let body = if mode == BATCH { json!([event]) } else { event };
        assert_eq!(server.send("/api/v1/a", mode, body).await.status, 201);
    }
    let mut headers = REQUIRED.to_vec();
    headers[1].1 = b"3";
    assert_eq!(server.send_binary("/api/v1/a", &headers, &json!(text).to_string()).await.status, 201);
    let large = cloud_event(json!({"id": "4", "data": "x".repeat(256 << 10)}));
    server.send("/api/v1/a", ONE, large).await.problem(413, "event_too_large");
}

/// The event as docs/cloudevents.md says, built without any code of the server.
fn shown(row: &Row) -> Value {
    let sequence = format!("{:020}", row.seq);
    let mut event = json!({
        "specversion": "1.0", "type": row.r#type, "stream": row.stream, "recordedtime": row.created_at,
        "id": row.id.as_ref().unwrap_or(&sequence), "sequence": sequence,
        "source": if row.source.is_empty() { format!("/api/v1/{}", row.stream) } else { row.source.clone() },
    });
    for (name, value) in [("subject", &row.subject), ("time", &row.time), ("traceparent", &row.traceparent)] {
        if let Some(value) = value {
            event[name] = json!(value);
        }
    }
    if let Some(data) = &row.data {
        event["datacontenttype"] = json!("application/json");
        event["data"] = serde_json::from_str(data).unwrap();
    }
    event
}

const STREAMS: [&str; 3] = ["audits", "orders.eu", "evertails"];

/// Events with and without everything, as they come natively; those of `audits` have a type of their own.
async fn log_of_all_kinds(window_bytes_max: usize) -> Server {
    let server = Server::start_with(|settings| {
        settings.log.window_bytes_max = window_bytes_max;
        settings.http.page_bytes_max = 1_000;
    })
    .await;
    let payloads =
        ["null", "\"\"", "\"a\\nb\"", "1.50", "{\"b\":[1,null],\"a\":\"\\u00e9\"}", "\",\\\"data\\\":\""];
    let events: Vec<String> = (0..60)
        .map(|n| {
            let mut members = vec![format!("\"stream\":\"{}\"", STREAMS[n % 3])];
            if n % 3 == 0 {
                members.push("\"type\":\"user.\\\"login\"".into());
            }
            if n % 4 > 0 {
                members.push(format!("\"id\":\"{n}\\\\é\""));
            }
            if n % 5 > 0 {
                members.push("\"source\":\"/s\",\"subject\":\"\\\"x\\\"\"".into());
            }
            if n % 2 > 0 {
                members.push("\"time\":\"2026-11-21T10:00:00.5+01:00\"".into());
            }
            if n % 6 > 3 {
                members.push(
                    "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"".into(),
                );
            }
            if let Some(data) = payloads.get(n % 7) {
                members.push(format!("\"data\":{data}"));
            }
            format!("{{{}}}", members.join(","))
        })
        .collect();
    for batch in events.chunks(7) {
        let reply = server.send("/api/v1/events", "application/json", format!("[{}]", batch.join(","))).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    server
}

impl Server {
    async fn array(&self, path: &str) -> Vec<Value> {
        let reply = Reply::of(self.get(path).header("accept", BATCH)).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, BATCH), "{}", reply.text());
        serde_json::from_slice(&reply.body).unwrap()
    }

    async fn shown(&self, select: impl Fn(&Row) -> bool) -> Vec<Value> {
        self.table().await.iter().filter(|row| select(row)).map(shown).collect()
    }
}

#[tokio::test]
async fn every_representation_shows_the_same_cloud_events() {
    for window_bytes_max in [0, 1 << 20] {
        let server = log_of_all_kinds(window_bytes_max).await;
        let all = server.shown(|_| true).await;
        let audits = server.shown(|row| row.stream == "audits" && row.seq > 4).await;
        assert_eq!((all.len(), audits.len()), (60, 18));

        assert_eq!(server.array("/api/v1/events").await, all);
        assert_eq!(server.array("/api/v1/audits?after=4").await, audits);
        assert!(server.array("/api/v1/nothing").await.is_empty());

        let lines = server.lines("/api/v1/events?format=cloudevents").await;
        assert_eq!(lines.header("content-type"), "application/x-ndjson");
        let read: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, all);

        for as_message in ["", "&event=message"] {
            let path = format!("/api/v1/audits?after=4&limit=18&format=cloudevents{as_message}");
            let mut stream = server.stream(&path).await;
            assert_eq!(stream.event().await.event, "evertail.cursor");
            for expected in &audits {
                let event = stream.event().await;
                let r#type =
                    if as_message.is_empty() { expected["type"].as_str().unwrap() } else { "message" };
                assert_eq!(event.event, r#type);
                assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap(), *expected);
                let seq: u64 = expected["sequence"].as_str().unwrap().parse().unwrap();
                assert_eq!(event.last_event_id, seq.to_string());
            }
        }
        // A selection looks at the event, not at how it is shown.
        let selected = server.array("/api/v1/events?source=/s&type=user.*&data.b.0=1").await;
        let expected = server.shown(|row| {
            row.source == "/s"
                && row.r#type != "message"
                && row.data.as_ref().is_some_and(|data| data.starts_with('{'))
        });
        let expected = expected.await;
        assert!(!expected.is_empty());
        assert_eq!(selected, expected);
    }
}

#[tokio::test]
async fn pages_of_cloud_events_are_followed_both_ways() {
    let server = log_of_all_kinds(0).await;
    let all = server.shown(|_| true).await;
    for (begin, link) in [("limit=9", "next"), ("limit=9&order=desc", "next"), ("last=9", "prev")] {
        let mut path = format!("/api/v1/events?{begin}&format=cloudevents");
        let mut pages: Vec<Vec<Value>> = Vec::new();
        loop {
            let page = server.page(&path).await;
            assert_eq!(page.header("content-type"), "application/json");
            let page = page.json();
            pages.push(page["events"].as_array().unwrap().clone());
            let Some(next) = page[link].as_str() else { break };
            path = next.to_owned();
        }
        assert!(pages.len() > 7, "bounded in bytes too");
        if link == "prev" {
            pages.reverse();
        }
        let mut read = pages.concat();
        if begin.contains("desc") {
            read.reverse();
        }
        assert_eq!(read, all, "{begin}");
    }
    server.page("/api/v1/events?format=cloudevent").await.problem(400, "parameter_invalid");
    server.page("/api/v1/events?format=data").await.problem(400, "parameter_invalid");
}

#[tokio::test]
async fn one_event_is_shown_as_what_is_accepted() {
    let server = log_of_all_kinds(0).await;
    let all = server.shown(|_| true).await;
    for (accept, is_cloud_event) in [
        (ONE, true),
        ("application/json;q=0.5, Application/CloudEvents+JSON", true),
        ("application/json, application/cloudevents+json;q=0.5", false),
        ("*/*", false),
        ("application/json", false),
    ] {
        let reply = Reply::of(server.get("/api/v1/events/7").header("accept", accept)).await;
        let content_type = if is_cloud_event { ONE } else { "application/json" };
        assert_eq!(reply.header("content-type"), content_type, "{accept}");
        assert_eq!(reply.json() == all[6], is_cloud_event);
    }
    Reply::of(server.get("/api/v1/events").header("accept", ONE)).await.problem(406, "not_acceptable");
}

#[tokio::test]
async fn a_copy_of_a_log_is_the_same_cloud_events() {
    let (original, copy) = (log_of_all_kinds(0).await, Server::start().await);
    copy.append("before", "{}").await;
    let array = Reply::of(original.get("/api/v1/events").header("accept", BATCH)).await.text();
    let reply = copy.send("/api/v1/events", BATCH, &array).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    for (from, to) in original.table().await.into_iter().zip(copy.table().await.into_iter().skip(1)) {
        let id = from.id.clone().or_else(|| Some(format!("{:020}", from.seq)));
        assert_eq!(Row { id, seq: to.seq, created_at: to.created_at.clone(), ..from }, to);
    }
    let own = |mut event: Value| {
        event.as_object_mut().unwrap().retain(|name, _| name != "sequence" && name != "recordedtime");
        event
    };
    let shown = |events: Vec<Value>| events.into_iter().map(own).collect::<Vec<_>>();
    assert_eq!(
        shown(copy.array("/api/v1/events?after=1").await),
        shown(original.array("/api/v1/events").await)
    );
    // Once more, by the stream and by itself: nothing is stored twice.
    assert_eq!(copy.send("/api/v1/events", BATCH, &array).await.status, 200);
    let one = Reply::of(original.get("/api/v1/events/1").header("accept", ONE)).await.text();
    assert_eq!(copy.send("/api/v1/audits", ONE, one).await.status, 200);
}

#[tokio::test]
async fn an_array_that_cannot_be_completed_does_not_end_as_if_it_were() {
    let server = Server::start_with(|settings| settings.log.window_bytes_max = 0).await;
    // Far more than the buffers between the server and a client that does not read.
    let data = "x".repeat(200 << 10);
    let batch = format!("[{}]", vec![format!("{{\"data\":\"{data}\"}}"); 16].join(","));
    for _ in 0..10 {
        server.append("a", &batch).await;
    }
    let request = server.get("/api/v1/a").header("accept", BATCH);
    let mut response = within("the answer", request.send()).await.unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < data.len() {
        bytes.extend_from_slice(&within("its beginning", response.chunk()).await.unwrap().unwrap());
    }
    server.trim(160).await;
    let end = loop {
        match within("more", response.chunk()).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            end => break end,
        }
    };
    assert!(end.is_err(), "it ended in order after {} bytes", bytes.len());
    assert!(bytes.starts_with(b"[{"));
    assert_ne!(bytes.last(), Some(&b']'));
}
