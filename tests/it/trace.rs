//! W3C Trace Context: the span that an event was made in is kept with it and given back, wherever the event is.

use crate::server::{Reply, Server};
use crate::table;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const FORM: &str = "application/x-www-form-urlencoded";
const CLOUD_EVENT: &str = "application/cloudevents+json";
const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";

/// The span of the request, and that of an event in it.
const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

impl Server {
    /// Appends a body whose request names a span.
    async fn traced(&self, path: &str, content_type: &str, body: impl ToString) -> Reply {
        Reply::of(self.post(path, content_type, body.to_string()).header("traceparent", HEADER)).await
    }

    async fn spans(&self) -> Vec<Option<String>> {
        self.table().await.into_iter().map(|row| row.traceparent).collect()
    }
}

fn cloud_event(id: &str, traceparent: Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "stream": "a", "traceparent": traceparent})
}

#[tokio::test]
async fn every_event_of_a_request_has_its_span_unless_it_names_its_own() {
    let server = Server::start().await;
    let mut expected = Vec::new();
    for (path, content_type, body, spans) in [
        ("a", JSON, "{}".to_owned(), &[HEADER][..]),
        ("a", JSON, json!({ "traceparent": OWN }).to_string(), &[OWN]),
        ("a", JSON, json!([{}, { "traceparent": OWN }, {}]).to_string(), &[HEADER, OWN, HEADER]),
        ("a", LINES, format!("{{}}\n{{\"traceparent\":\"{OWN}\"}}"), &[HEADER, OWN]),
        ("events", LINES, "{\"stream\":\"b\"}".to_owned(), &[HEADER]),
        ("a", "text/plain", "text".to_owned(), &[HEADER]),
        ("a", FORM, "data=1".to_owned(), &[HEADER]),
        ("a", FORM, format!("traceparent={OWN}"), &[OWN]),
        ("a", CLOUD_EVENT, cloud_event("1", Value::Null).to_string(), &[HEADER]),
        ("a", CLOUD_EVENT, cloud_event("2", json!(OWN)).to_string(), &[OWN]),
        (
            "events",
            CLOUD_EVENTS,
            json!([cloud_event("3", json!(OWN)), cloud_event("4", Value::Null)]).to_string(),
            &[OWN, HEADER],
        ),
    ] {
        let reply = server.traced(&format!("/api/v1/{path}"), content_type, &body).await;
        assert_eq!(reply.status, 201, "{body}: {}", reply.text());
        expected.extend(spans.iter().map(|span| Some((*span).to_owned())));
    }
    for (id, own) in [("5", None), ("6", Some(OWN))] {
        let mut request = server
            .post("/api/v1/a", JSON, "1")
            .header("traceparent", HEADER)
            .header("ce-specversion", "1.0")
            .header("ce-id", id)
            .header("ce-source", "/s")
            .header("ce-type", "t");
        if let Some(own) = own {
            request = request.header("ce-traceparent", own);
        }
        assert_eq!(Reply::of(request).await.status, 201);
        expected.push(Some(own.unwrap_or(HEADER).to_owned()));
    }
    assert_eq!(server.spans().await, expected);
}

#[tokio::test]
async fn header_that_is_no_span_is_none_and_never_an_error() {
    let server = Server::start().await;
    let span = HEADER.trim_start_matches("00-").trim_end_matches("-01");
    let later = format!("cc-{span}-ff-what-may-come");
    for (headers, kept) in [
        (vec![HEADER.to_uppercase()], None),
        (vec![HEADER.replacen("00", "ff", 1)], None),
        (vec![format!("{HEADER}-")], None),
        (vec![String::new()], None),
        // Whose span would it be?
        (vec![HEADER.to_owned(), OWN.to_owned()], None),
        (vec![HEADER.to_owned(), HEADER.to_owned()], None),
        (vec![later], Some(format!("00-{span}-01"))),
    ] {
        let mut request = server.post("/api/v1/a", JSON, "{}").header("tracestate", "a=b");
        for header in &headers {
            request = request.header("traceparent", header);
        }
        let reply = Reply::of(request).await;
        assert_eq!(reply.status, 201, "{headers:?}: {}", reply.text());
        assert_eq!(server.spans().await.pop().unwrap(), kept, "{headers:?}");
    }
    let request = server.post("/api/v1/a", JSON, "{}").header("traceparent", &b"\xff"[..]);
    assert_eq!(Reply::of(request).await.status, 201);
    assert_eq!(server.spans().await.pop().unwrap(), None);
}

#[tokio::test]
async fn member_that_is_no_span_is_refused_by_name() {
    let server = Server::start().await;
    let reply = server.traced("/api/v1/a", JSON, json!([{}, {"traceparent": HEADER.to_uppercase()}])).await;
    let problem = reply.problem(422, "event_invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/1/traceparent");
    assert!(problem["detail"].as_str().unwrap().contains("must be a W3C traceparent such as 00-"));
    let request = server.post("/api/v1/a", JSON, "{}").header("ce-traceparent", "x");
    Reply::of(request).await.problem(422, "event_invalid");
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn another_attempt_at_an_event_is_the_same_event_in_another_span() {
    let server = Server::start().await;
    let event = r#"{"id":"1","data":1}"#;
    assert_eq!(server.traced("/api/v1/a", JSON, event).await.status, 201);
    let other = json!({"id": "1", "data": 1, "traceparent": OWN});
    for body in [event.to_owned(), other.to_string()] {
        let again = Reply::of(server.post("/api/v1/a", JSON, body)).await;
        assert_eq!((again.status, &again.json()["seq"]), (200, &json!(1)));
    }
    let mut other_process = table::connect(server.file()).await;
    let again = "INSERT INTO events (stream, id, data, traceparent) VALUES ('a', '1', '1', ?)";
    sqlx::query(again).bind(OWN).execute(&mut other_process).await.unwrap();
    assert_eq!(server.spans().await, [Some(HEADER.to_owned())], "the first is kept");
}

#[tokio::test]
async fn span_is_given_back_in_every_representation() {
    for window_bytes_max in [0, 1 << 20] {
        let server = Server::start_with(|settings| settings.log.window_bytes_max = window_bytes_max).await;
        server.traced("/api/v1/a", JSON, "[{},{\"data\":\"x\"}]").await;
        let mut other = table::connect(server.file()).await;
        let insert = "INSERT INTO events (stream, traceparent) VALUES ('a', ?)";
        sqlx::query(insert).bind(OWN).execute(&mut other).await.unwrap();
        server.append("a", "{}").await;
        let spans = [Some(HEADER), Some(HEADER), Some(OWN), None];
        let shown = |events: &[Value]| {
            let told: Vec<Option<&str>> = events.iter().map(|event| event["traceparent"].as_str()).collect();
            assert_eq!(told, spans);
        };
        for format in ["", "&format=cloudevents"] {
            let mut stream = server.stream(&format!("/api/v1/a?after=0&before=5{format}")).await;
            stream.cursor().await;
            let events: Vec<Value> =
                stream.rest().await.iter().map(|event| serde_json::from_str(&event.data).unwrap()).collect();
            shown(&events);
            let lines = server.lines(&format!("/api/v1/a?{format}")).await.text();
            shown(&lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>());
            let page = server.page(&format!("/api/v1/a?{format}")).await.json();
            shown(page["events"].as_array().unwrap());
        }
        assert_eq!(server.page("/api/v1/events/3").await.json()["traceparent"], OWN);
        let csv = Reply::of(server.get("/api/v1/a").header("accept", "text/csv; header=absent")).await.text();
        let cells: Vec<&str> = csv.lines().map(|line| line.rsplit(',').next().unwrap()).collect();
        assert_eq!(cells, spans.map(Option::unwrap_or_default));
        let mut stream = server.stream("/api/v1/a?after=0&before=3&format=data").await;
        stream.cursor().await;
        let data = stream.rest().await;
        assert_eq!(data.iter().map(|event| &*event.data).collect::<Vec<_>>(), ["null", "x"]);
    }
}
