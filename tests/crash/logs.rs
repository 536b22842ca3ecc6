//! The server's own log: the life of a process line by line, as JSON and as text, and what of a request is in it.

use crate::server::{Launch, Place, in_time, until};
use rustix::process::Signal;
use serde_json::Value;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Starts a server, appends to it, reads from it, stops it, and returns what it has said.
async fn life(format: &str, filter: &str) -> Vec<String> {
    let place = Place::new();
    let mut launch = Launch::new(&place.file()).with("EVERTAIL_LOG", filter);
    if format == "text" {
        // It is not told where it serves, which only JSON says in a way that the harness reads.
        launch = launch.listen(format!("127.0.0.1:{}", crate::server::lasting_port()));
    }
    let launch = launch.with("EVERTAIL_LOG_FORMAT", format);
    let mut server = launch.spawn();
    let base = match format {
        "text" => {
            until("it serves", async || server.has_said(" serving page=")).await;
            let said = server.said();
            let line = said.iter().find(|line| line.contains(" serving page=")).unwrap();
            line.split('"').nth(1).unwrap().trim_end_matches('/').to_owned()
        }
        _ => {
            server.serving().await;
            server.base.clone()
        }
    };
    let http = crate::load::http_client();
    let send = async |request: reqwest::RequestBuilder, id: &str| {
        let request = request.header("x-request-id", id).header("traceparent", TRACEPARENT);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["x-request-id"], id);
        answer
    };
    let body = r#"{"type":"secret","data":"secret"}"#;
    assert_eq!(send(http.post(format!("{base}/api/v1/audits")).body(body), "append-1").await.status(), 201);
    let ended = send(http.get(format!("{base}/api/v1/audits?after=0&before=2")), "stream-1").await;
    assert!(ended.text().await.unwrap().contains("secret"));
    until("it is closed", async || server.has_said("stream closed")).await;
    assert_eq!(send(http.get(format!("{base}/api/v1/audits/none")), "lost-1").await.status(), 404);
    let mut drained = send(http.get(format!("{base}/api/v1/events?last=5")), "stream-2").await;
    let mut read = Vec::new();
    while !read.windows(6).any(|bytes| bytes == b"secret") {
        read.extend_from_slice(&in_time(drained.chunk()).await.unwrap().expect("the event comes"));
    }
    server.signal(Signal::TERM);
    while drained.chunk().await.unwrap().is_some() {}
    assert_eq!(server.ended().await.code(), Some(0));
    server.stderr().await
}

/// A line without what differs from run to run.
fn steady(line: &str) -> String {
    let mut line: Value = serde_json::from_str(line).unwrap();
    for (name, value) in line.as_object_mut().unwrap() {
        match name.as_str() {
            "timestamp" | "version" | "page" | "api" | "metrics" | "file" | "log" => {
                assert!(value.is_string(), "{name}");
                *value = "...".into();
            }
            "bytes" | "connections_max" | "seconds" => {
                assert!(value.is_number(), "{name}");
                *value = 0.into();
            }
            _ => {}
        }
    }
    line.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_process_is_told_in_lines_that_read_alone() {
    let said = life("json", "info").await;
    let told: Vec<String> =
        said.iter().filter(|line| !line.contains("descriptor limit")).map(|line| steady(line)).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_a_request_names_it() {
    let said = life("json", "evertail::http=debug,info").await;
    let told: Vec<Value> = said
        .iter()
        .filter(|line| line.contains("\"span\""))
        .map(|line| serde_json::from_str(&steady(line)).unwrap())
        .collect();
    let of = |id: &str| -> Vec<String> {
        let lines = told.iter().filter(|line| line["span"]["request_id"] == id);
        lines.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("append-1"), ["answered"]);
    // The stream outlives the answer that begins it.
    for id in ["stream-1", "stream-2"] {
        let mut lines = of(id);
        lines.sort_unstable();
        assert_eq!(lines, ["answered", "stream closed", "stream opened"], "{id}");
    }
    let spans: Vec<&Value> =
        told.iter().filter(|line| line["message"] == "answered").map(|line| &line["span"]).collect();
    let routes: Vec<Option<&str>> = spans.iter().map(|span| span["route"].as_str()).collect();
    let [log, stream] = ["/api/v1/events", "/api/v1/{stream}"].map(Some);
    assert_eq!(routes, [stream, stream, None, log]);
    for span in spans {
        assert_eq!(span["trace_id"], TRACEPARENT[3..35]);
        assert!(span["method"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_says_the_same_on_one_line_each() {
    let said = life("text", "info").await;
    let opened = said.iter().find(|line| line.contains("stream opened")).unwrap();
    let (time, rest) = opened.split_once(' ').unwrap();
    assert!(time.parse::<chrono::DateTime<chrono::Utc>>().is_ok());
    assert_eq!(
        rest.trim_start(),
        "INFO request{request_id=\"stream-1\" method=\"GET\" route=\"/api/v1/{stream}\" \
         trace_id=\"0af7651916cd43dd8448eb211c80319c\"}: stream opened client=127.0.0.1 stream=\"audits\" cursor=0"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_event_is_in_the_log_below_trace() {
    for line in life("json", "debug").await {
        assert!(!line.contains("secret"), "{line}");
    }
}
