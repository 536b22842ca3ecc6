//! Trims, holds and dry runs over HTTP, and what readers are told of what is gone.

use crate::raw::Connection;
use crate::server::{Reply, Server, within};
use crate::stream::Stream;
use crate::table;
use evertail::config::AllowedOrigin;
use evertail::event::{Pattern, Retention, StreamRetention};
use evertail::http::Closing;
use serde_json::{Value, json};
use std::time::Duration;

const JSON: &str = "application/json";

async fn trim(server: &Server, body: Value) -> Reply {
    Reply::of(server.post("/admin/trim", JSON, body.to_string())).await
}

/// A trim that must succeed.
async fn trimmed(server: &Server, body: Value) -> Value {
    let reply = trim(server, body).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, JSON), "{}", reply.text());
    reply.json()
}

async fn hold(server: &Server, path: &str, body: Value) -> Reply {
    let path = format!("/admin/holds/{path}");
    Reply::of(server.request("PUT", &path).header("content-type", JSON).body(body.to_string())).await
}

async fn release(server: &Server, path: &str) -> Reply {
    Reply::of(server.request("DELETE", &format!("/admin/holds/{path}"))).await
}

async fn holds(server: &Server) -> Value {
    Reply::of(server.get("/admin/holds")).await.json()["holds"].take()
}

/// Events of `a` and `b` in turn: odd seqs are of `a`. Each has 10 bytes of data.
async fn log_of_two(events: u64) -> Server {
    let server = Server::start().await;
    fill(&server, events).await;
    server
}

async fn fill(server: &Server, events: u64) {
    let events: Vec<Value> = (0..events)
        .map(|n| json!({"stream": if n % 2 == 0 { "a" } else { "b" }, "data": "12345678"}))
        .collect();
    let reply = Reply::of(server.post("/api/v1/events", JSON, Value::from(events).to_string())).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
}

/// The retained seqs and streams, as the table has them.
async fn retained(server: &Server) -> Vec<(i64, String)> {
    let mut connection = table::connect(server.file()).await;
    sqlx::query_as("SELECT seq, stream FROM log WHERE stream <> 'evertail' ORDER BY seq")
        .fetch_all(&mut connection)
        .await
        .unwrap()
}

fn seqs(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn dry_run_is_what_the_trim_then_does() {
    let criteria = [
        json!({"before": 8}),
        json!({"before": 8, "stream": "a"}),
        json!({"keep_events": 3}),
        json!({"keep_events": 3, "stream": "b"}),
        json!({"keep_bytes": 55}),
        json!({"keep_bytes": "1KiB", "keep_events": 18}),
        json!({"keep_bytes": 35, "stream": "a"}),
        json!({"older_than": "1us"}),
        json!({"older_than": "1us", "stream": "b"}),
        json!({"older_than": "30d", "before": 3}),
        json!({"before": 1}),
        json!({"before": 1000}),
    ];
    for criterion in criteria {
        let server = log_of_two(20).await;
        let before = retained(&server).await;
        let mut dry_run = criterion.clone();
        dry_run["dry_run"] = json!(true);
        let mut planned = trimmed(&server, dry_run).await;
        assert_eq!(retained(&server).await, before, "{criterion}: a dry run deletes nothing");
        let done = trimmed(&server, criterion.clone()).await;
        let streams = planned.as_object_mut().unwrap().remove("streams").unwrap_or(json!([]));
        for (answer, is_dry_run) in [(&planned, true), (&done, false)] {
            assert_eq!(answer["dry_run"], is_dry_run, "{criterion}");
        }
        for member in ["events", "bytes", "through_seq", "stream", "held_by"] {
            assert_eq!(planned[member], done[member], "{criterion}: {member}");
        }
        let after = retained(&server).await;
        let gone: Vec<_> = before.iter().filter(|row| !after.contains(row)).collect();
        assert_eq!(done["events"], gone.len(), "{criterion}");
        assert_eq!(done["bytes"], gone.len() * 10, "{criterion}");
        assert_eq!(done["through_seq"].as_i64(), gone.last().map(|row| row.0), "{criterion}");
        for stream in ["a", "b"] {
            let lost = gone.iter().filter(|row| row.1 == stream).count();
            let share = streams.as_array().unwrap().iter().find(|share| share["stream"] == stream);
            let expected = (lost > 0).then(|| json!({"stream": stream, "events": lost, "bytes": lost * 10}));
            assert_eq!(share, expected.as_ref(), "{criterion}: {streams}");
        }
        assert_eq!(done["first_seq"], server.log.bounds().first_seq, "{criterion}");
    }
}

#[tokio::test]
async fn dry_run_without_criteria_is_what_retention_would_trim() {
    let server = Server::start_with(|settings| {
        let keep = |events| Retention { events: Some(events), ..Retention::default() };
        settings.log.retention.log = keep(19);
        let streams = Pattern::parse("a").unwrap();
        settings.log.retention.streams = vec![StreamRetention { streams, keep: keep(10) }];
    })
    .await;
    fill(&server, 20).await;
    // Within the slack of both rules, so that nothing goes by itself.
    let expected = json!({
        "dry_run": true,
        "first_seq": 1,
        "events": 1,
        "bytes": 10,
        "trims": [{"events": 1, "bytes": 10, "through_seq": 1, "streams": [{"stream": "a", "events": 1, "bytes": 10}]}],
    });
    assert_eq!(trimmed(&server, json!({"dry_run": true})).await, expected);
    server.append("a", "{}").await;
    let planned = trimmed(&server, json!({"dry_run": true})).await;
    assert_eq!(planned["events"], 2, "{planned}");
    assert_eq!(retained(&server).await.len(), 21);
}

#[tokio::test]
async fn every_wrong_member_of_a_trim_is_told_and_nothing_is_trimmed() {
    let server = log_of_two(4).await;
    let wrong = json!({
        "stream": "No", "before": 0, "older_than": "soon", "keep_events": "3", "keep_bytes": "1 GB", "reason": "",
        "dry_run": "yes", "befor~e": 1,
    });
    let problem = trim(&server, wrong).await.problem(400, "body_invalid");
    let pointers: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    let expected = [
        "/stream",
        "/before",
        "/older_than",
        "/keep_events",
        "/keep_bytes",
        "/reason",
        "/dry_run",
        "/befor~0e",
    ];
    assert_eq!(pointers, expected);
    for body in [
        "{}",
        r#"{"reason":"none"}"#,
        r#"{"dry_run":false}"#,
        r#"{"stream":"a"}"#,
        r#"{"stream":"a","dry_run":true}"#,
        r#"{"before":null}"#,
        r#"{"before":-1}"#,
        r#"{"before":1.5}"#,
        r#"{"before":9223372036854775808}"#,
        r#"{"before":1,"before":2}"#,
        r#"{"keep_events":0}"#,
        r#"{"keep_bytes":0}"#,
        r#"{"keep_bytes":"0"}"#,
        r#"{"older_than":"0s"}"#,
        r#"{"older_than":30}"#,
        r#"{"before":1,"reason":"a\nb"}"#,
        "[]",
        "7",
    ] {
        let problem = Reply::of(server.post("/admin/trim", JSON, body)).await.problem(400, "body_invalid");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{body}: {problem}");
    }
    for (content_type, body, status, code) in [
        (JSON, "", 400, "body_empty"),
        (JSON, "{\"before\":", 400, "json_invalid"),
        ("text/plain", "before=3", 415, "content_type_unsupported"),
    ] {
        Reply::of(server.post("/admin/trim", content_type, body)).await.problem(status, code);
    }
    let dry = Reply::of(server.post("/admin/trim?dry_run=true", JSON, r#"{"before":3}"#)).await;
    assert_eq!(dry.problem(400, "parameter_invalid")["parameter"], "dry_run");
    trim(&server, json!({"stream": "aa", "before": 3})).await.problem(404, "stream_not_found");
    assert_eq!(Reply::of(server.get("/admin/trim")).await.problem(405, "method_not_allowed")["status"], 405);
    assert_eq!(retained(&server).await.len(), 4);
    // As everywhere, `curl -d` needs no content type.
    let form = server.post("/admin/trim", "application/x-www-form-urlencoded", r#"{"before":3}"#);
    assert_eq!(Reply::of(form).await.json()["events"], 2);
}

#[tokio::test]
async fn a_trim_is_told_live_on_the_servers_own_stream() {
    let server = log_of_two(6).await;
    let mut live = server.stream("/api/v1/evertail").await;
    assert_eq!(live.cursor().await, 6);
    trimmed(&server, json!({"stream": "a", "before": 5, "reason": "room"})).await;
    let (event, id) = live.control("evertail.trimmed").await;
    assert_eq!(id, "7");
    assert_eq!((&event["stream"], &event["subject"]), (&json!("evertail"), &json!("a")));
    let told = json!({"stream": "a", "cause": "request", "reason": "room", "from_seq": 1, "through_seq": 3, "events": 2, "bytes": 20});
    assert_eq!(event["data"], told);
    hold(&server, "b/case", json!({"reason": "why"})).await;
    let (event, _) = live.control("evertail.held").await;
    assert_eq!(event["data"], json!({"stream": "b", "name": "case", "reason": "why"}));
    release(&server, "b/case?reason=done").await;
    let (event, id) = live.control("evertail.released").await;
    assert_eq!(event["data"], json!({"stream": "b", "name": "case", "reason": "done"}));
    assert_eq!(id, "9");
    // Stored like all others.
    assert_eq!(seqs(&server.page("/api/v1/evertail").await.json()), [7, 8, 9]);
}

#[tokio::test]
async fn a_hold_is_set_once_listed_and_released() {
    let server = log_of_two(4).await;
    assert_eq!(holds(&server).await, json!([]));
    let set = hold(&server, "a/case-1", json!({"reason": "letter"})).await;
    assert_eq!(set.status, 201);
    let set = set.json();
    let created_at = set["created_at"].clone();
    let expected = json!({"stream": "a", "name": "case-1", "reason": "letter", "created_at": created_at});
    assert_eq!(set, expected);
    let again = hold(&server, "a/case-1", json!({"reason": "letter"})).await;
    assert_eq!((again.status, again.json()), (200, expected.clone()));
    let differs = hold(&server, "a/case-1", json!({"reason": "another"})).await.problem(409, "hold_differs");
    assert_eq!(differs["reason"], "letter");
    // A stream may be held before its first event, and names are decoded.
    assert_eq!(hold(&server, "later/Fall%2017%20%C3%A4", json!({"reason": "r"})).await.status, 201);
    let listed = holds(&server).await;
    assert_eq!(listed[0]["first_seq"], 1);
    assert_eq!((&listed[1]["stream"], &listed[1]["name"]), (&json!("later"), &json!("Fall 17 ä")));
    assert_eq!(listed[1].get("first_seq"), None);
    let released = release(&server, "a/case-1").await;
    assert_eq!((released.status, released.json()), (200, expected));
    release(&server, "a/case-1").await.problem(404, "hold_not_found");
    let body = json!({"reason": "over"}).to_string();
    let request = server.request("DELETE", "/admin/holds/later/Fall%2017%20%C3%A4").body(body);
    assert_eq!(Reply::of(request).await.status, 200);
    assert_eq!(holds(&server).await, json!([]));
    let told = server.page("/api/v1/evertail?type=evertail.released&last=1").await.json();
    assert_eq!(told["events"][0]["data"]["reason"], "over");
}

#[tokio::test]
async fn wrong_holds_are_refused_by_what_is_wrong() {
    let server = Server::start().await;
    let why = || json!({"reason": "why"});
    for (path, status, code) in [
        ("a/b%2Fc", 400, "hold_invalid"),
        ("a/%0A", 400, "hold_invalid"),
        ("a/%FF", 400, "hold_invalid"),
        (&format!("a/{}", "x".repeat(129)), 400, "hold_invalid"),
        ("No/b", 400, "stream_invalid"),
        ("a/b?reason=why", 400, "parameter_invalid"),
        ("a", 404, "route_not_found"),
        ("a/b/c", 404, "route_not_found"),
    ] {
        hold(&server, path, why()).await.problem(status, code);
    }
    let long = "x".repeat(257);
    for body in
        [json!({}), json!({"reason": ""}), json!({"reason": 1}), json!({"reason": long}), json!({"why": "x"})]
    {
        let problem = hold(&server, "a/b", body.clone()).await.problem(400, "body_invalid");
        assert!(!problem["errors"].as_array().unwrap().is_empty(), "{body}");
    }
    Reply::of(server.request("PUT", "/admin/holds/a/b")).await.problem(400, "body_empty");
    for path in ["a/b?why=x", "a/b?reason=x&reason=y", "a/b?reason="] {
        release(&server, path).await.problem(400, "parameter_invalid");
    }
    let both = server.request("DELETE", "/admin/holds/a/b?reason=x").body(r#"{"reason":"y"}"#);
    Reply::of(both).await.problem(400, "body_invalid");
    let post = Reply::of(server.post("/admin/holds/a/b", JSON, "{}")).await;
    post.problem(405, "method_not_allowed");
    assert!(post.header("allow").contains("PUT") && post.header("allow").contains("DELETE"));
    assert_eq!(server.log.bounds().last_seq, 0, "nothing was held, so nothing is told");
}

#[tokio::test]
async fn a_trim_stops_at_a_hold_and_says_so() {
    let server = log_of_two(10).await;
    hold(&server, "b/case", json!({"reason": "why"})).await;
    let held = |answer: &Value| (answer["held_by"]["name"].clone(), answer["held_by"]["first_seq"].clone());
    for dry_run in [true, false] {
        let of_log = trimmed(&server, json!({"before": 9, "dry_run": dry_run})).await;
        assert_eq!(
            (held(&of_log), &of_log["through_seq"]),
            ((json!("case"), json!(2)), &json!(1)),
            "{dry_run}"
        );
        let of_held = trimmed(&server, json!({"before": 9, "stream": "b", "dry_run": dry_run})).await;
        assert_eq!((held(&of_held), &of_held["events"]), ((json!("case"), json!(2)), &json!(0)), "{dry_run}");
    }
    let of_other = trimmed(&server, json!({"before": 9, "stream": "a"})).await;
    assert_eq!((&of_other["events"], of_other.get("held_by")), (&json!(3), None));
    release(&server, "b/case").await;
    let free = trimmed(&server, json!({"before": 9})).await;
    assert_eq!((&free["events"], free.get("held_by")), (&json!(4), None));
}

#[tokio::test]
async fn admin_is_for_no_page_of_another_origin() {
    let server =
        Server::start_with(|settings| settings.http.origins.allowed_origins = vec![AllowedOrigin::Any]).await;
    fill(&server, 4).await;
    let own = format!("http://{}", server.address);
    let trim = || server.post("/admin/trim", JSON, r#"{"before":3,"dry_run":true}"#);
    for origin in ["https://evil.test", "null", "http://localhost:1", "http://127.0.0.1"] {
        for request in [
            trim(),
            server.get("/admin/holds"),
            server.request("PUT", "/admin/holds/a/b").body("{}"),
            server.request("DELETE", "/admin/holds/a/b"),
            server.get("/admin/nothing"),
        ] {
            let reply = Reply::of(request.header("origin", origin)).await;
            reply.problem(403, "origin_refused");
            assert_eq!(reply.header("access-control-allow-origin"), "", "{origin}");
        }
        for method in ["POST", "PUT", "DELETE"] {
            let preflight = server.request("OPTIONS", "/admin/trim").header("origin", origin);
            let reply = Reply::of(preflight.header("access-control-request-method", method)).await;
            reply.problem(403, "origin_refused");
            assert!(
                !reply.headers.keys().any(|name| name.as_str().starts_with("access-control-")),
                "{origin}"
            );
        }
        // Elsewhere all of them are let in.
        assert_eq!(Reply::of(server.get("/api/v1/streams").header("origin", origin)).await.status, 200);
    }
    // What a page sends without an Origin: an image, a link, a form of an old browser.
    for site in ["cross-site", "same-site"] {
        let reply = Reply::of(server.get("/admin/holds").header("sec-fetch-site", site)).await;
        reply.problem(403, "origin_refused");
    }
    for request in [trim(), trim().header("origin", &own).header("sec-fetch-site", "same-origin")] {
        assert_eq!(Reply::of(request).await.status, 200);
    }
    assert_eq!(retained(&server).await.len(), 4);
}

#[tokio::test]
async fn a_reader_that_comes_back_is_told_which_streams_have_lost_events() {
    let server = log_of_two(20).await;
    trimmed(&server, json!({"stream": "a", "before": 11})).await;
    // seq 1 went first, and then the log begins with seq 2.
    let gap = json!({"from": 5, "to": 9, "reason": "trimmed", "streams": ["a"]});
    for path in ["/api/v1/events", "/api/v1/events?stream=a&stream=b", "/api/v1/a"] {
        let mut stream = server.stream_after(path, 4).await;
        assert_eq!(stream.cursor().await, 4);
        let (told, id) = stream.control("evertail.gap").await;
        assert_eq!((told, id.as_str()), (gap.clone(), "4"), "{path}: the cursor does not move");
        let expected = if path == "/api/v1/a" { [11, 13, 15] } else { [6, 8, 10] };
        assert_eq!(stream.seqs(3).await, expected, "{path}");
    }
    let untold = async |mut stream: Stream, expected: [u64; 3]| {
        stream.cursor().await;
        assert_eq!(stream.seqs(3).await, expected);
    };
    untold(server.stream_after("/api/v1/b", 4).await, [6, 8, 10]).await;
    untold(server.stream("/api/v1/events?after=0").await, [2, 4, 6]).await;
    untold(server.stream("/api/v1/events?since=1h").await, [2, 4, 6]).await;
    untold(server.stream("/api/v1/a?last=5").await, [11, 13, 15]).await;
    untold(server.stream_after("/api/v1/events", 9).await, [10, 11, 12]).await;
}

/// The answer of each history format to this query.
async fn histories(server: &Server, path: &str) -> Vec<(&'static str, Reply)> {
    let accepted = [JSON, "application/x-ndjson", "text/csv", "application/cloudevents-batch+json"];
    let mut replies = Vec::new();
    for accept in accepted {
        replies.push((accept, Reply::of(server.get(path).header("accept", accept)).await));
    }
    replies
}

#[tokio::test]
async fn history_tells_in_its_head_which_streams_have_lost_events() {
    let server = log_of_two(20).await;
    trimmed(&server, json!({"stream": "a", "before": 11})).await;
    let gaps = json!([{"from": 5, "to": 9, "reason": "trimmed", "streams": ["a"]}]);
    for path in [
        "/api/v1/events?after=4",
        "/api/v1/events?after=4&stream=a&stream=b",
        "/api/v1/events?after=4&stream=*",
    ] {
        for (accept, reply) in histories(&server, path).await {
            assert_eq!(reply.status, 200, "{accept}");
            let header: Value = serde_json::from_str(reply.header("evertail-gaps")).unwrap();
            assert_eq!(header, gaps, "{path} {accept}");
            if accept == JSON {
                assert_eq!(reply.json()["gaps"], gaps, "{path}");
                assert_eq!(seqs(&reply.json())[..4], [6, 8, 10, 11], "{path}");
            }
        }
    }
    for path in [
        "/api/v1/events",
        "/api/v1/events?after=0",
        "/api/v1/events?after=9",
        "/api/v1/events?since=1h",
        "/api/v1/events?last=17",
        "/api/v1/events?stream=b&stream=c&after=4",
        "/api/v1/b?after=4",
        "/api/v1/a",
    ] {
        for (accept, reply) in histories(&server, path).await {
            assert_eq!((reply.status, reply.header("evertail-gaps")), (200, ""), "{path} {accept}");
            assert!(accept != JSON || reply.json().get("gaps").is_none(), "{path}");
        }
    }
    let descending = server.page("/api/v1/events?order=desc&after=4").await;
    assert_eq!((descending.status, descending.header("evertail-gaps")), (200, ""));
    assert_eq!(seqs(&descending.json()).last(), Some(&6));
    // Pages of another origin may see it.
    let shown = Reply::of(
        server.get("/api/v1/events?after=4").header("accept", JSON).header("origin", "http://localhost:1"),
    );
    let exposed = shown.await.header("access-control-expose-headers").to_owned();
    assert!(exposed.contains("evertail-gaps"), "{exposed}");
}

#[tokio::test]
async fn head_of_an_answer_stays_small_however_many_streams_have_lost_events() {
    let server = Server::start().await;
    let name = |n: usize| format!("{}{n:03}", "s".repeat(100));
    let of = |names: std::ops::Range<usize>| names.map(|n| json!({"stream": name(n)})).collect::<Vec<_>>();
    let events = json!([&[json!({"stream": "first"})], &of(0..50)[..], &of(0..50)[..]].concat());
    let reply = Reply::of(server.post("/api/v1/events", JSON, events.to_string())).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    for n in 0..50 {
        trimmed(&server, json!({"stream": name(n), "keep_events": 1})).await;
    }
    let reply = server.page("/api/v1/events?after=1").await;
    assert_eq!(reply.json()["gaps"][0]["streams"].as_array().unwrap().len(), 50);
    let header: Value = serde_json::from_str(reply.header("evertail-gaps")).unwrap();
    assert_eq!(header, json!([{"from": 2, "to": 51, "reason": "trimmed", "streams": ["*"]}]));
}

#[tokio::test]
async fn history_that_is_overtaken_by_a_trim_breaks_off_rather_than_leave_a_hole() {
    let server = Server::start_with(|settings| {
        settings.log.window_bytes_max = 0;
        settings.http.page_bytes_max = 4 << 10;
        settings.connections.send_buffer_bytes = 4 << 10;
    })
    .await;
    let data = "x".repeat(2_000);
    let event = |n: u32| json!({"stream": if n.is_multiple_of(2) { "a" } else { "b" }, "data": data});
    for _ in 0..10 {
        let events = Value::from((0..200).map(event).collect::<Vec<_>>()).to_string();
        assert_eq!(Reply::of(server.post("/api/v1/events", JSON, events)).await.status, 201);
    }
    for (request, trim) in [
        (json!({"stream": "a", "before": 1_990}), "a page of what is left of b"),
        (json!({"before": 1_991}), "nothing but the end"),
    ] {
        // It reads the beginning and then nothing, so that the server waits for it.
        let mut connection = Connection::open_narrow(server.address).await;
        let head = "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n";
        connection.send(head).await;
        connection.head().await.unwrap();
        let mut lines = connection.chunk().await.unwrap();
        trimmed(&server, request).await;
        while let Some(chunk) = connection.chunk().await {
            assert!(!chunk.is_empty(), "it ended as if it were whole: {trim}");
            lines.extend(chunk);
        }
        let lines = String::from_utf8(lines).unwrap();
        let whole = &lines[..=lines.rfind('\n').unwrap()];
        let seqs: Vec<u64> = whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
            .collect();
        let step = if trim.starts_with('a') { 1 } else { 2 };
        assert!(seqs.len() > 1 && seqs.windows(2).all(|pair| pair[0] + step == pair[1]), "{seqs:?}");
    }
}

#[tokio::test]
async fn cursor_behind_which_the_one_stream_is_trimmed_is_gone() {
    let server = log_of_two(20).await;
    trimmed(&server, json!({"stream": "a", "before": 11})).await;
    for path in ["/api/v1/a?after=4", "/api/v1/events?stream=a&after=4", "/api/v1/a?after=8&type=message"] {
        for (accept, reply) in histories(&server, path).await {
            let problem = reply.problem(410, "gone");
            assert_eq!(
                (&problem["first_seq"], &problem["stream"]),
                (&json!(11), &json!("a")),
                "{path} {accept}"
            );
        }
    }
    // Where it says to read from, it can be read.
    assert_eq!(seqs(&server.page("/api/v1/a?after=10").await.json()), [11, 13, 15, 17, 19]);
    trimmed(&server, json!({"stream": "a", "before": 1000})).await;
    let problem = server.page("/api/v1/a?after=10").await.problem(410, "gone");
    assert_eq!(problem["first_seq"], 20, "a stream without events begins behind its last");
    assert_eq!(seqs(&server.page("/api/v1/a?after=19").await.json()), [] as [u64; 0]);
}

#[tokio::test]
async fn event_that_went_with_its_stream_is_gone_and_not_unknown() {
    let server = log_of_two(10).await;
    trimmed(&server, json!({"stream": "a", "before": 6})).await;
    for seq in [3, 5] {
        let problem = server.page(&format!("/api/v1/events/{seq}")).await.problem(410, "gone");
        assert_eq!(problem["first_seq"], 2);
        assert!(problem["detail"].as_str().unwrap().contains("of its stream"), "{problem}");
    }
    assert_eq!(server.page("/api/v1/events/4").await.json()["stream"], "b");
    server.page("/api/v1/events/12").await.problem(404, "event_not_found");
}

#[tokio::test]
async fn a_trim_that_cannot_be_written_is_told_as_not_finished() {
    let server =
        Server::start_with(|settings| settings.log.store.busy_timeout = Duration::from_millis(20)).await;
    fill(&server, 4).await;
    let mut other = table::connect(server.file()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    trim(&server, json!({"before": 3})).await.problem(503, "trim_incomplete");
    hold(&server, "a/case", json!({"reason": "why"})).await.problem(503, "log_busy");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(trimmed(&server, json!({"before": 3})).await["events"], 2);
}

#[tokio::test]
async fn a_trim_goes_on_when_the_client_goes_away() {
    let server = Server::start().await;
    for _ in 0..20 {
        fill(&server, 1_000).await;
    }
    let body = r#"{"before":20001}"#;
    let mut connection = Connection::open(server.address).await;
    let length = body.len();
    connection
        .send(&format!(
            "POST /admin/trim HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    let until = async |first_seq: u64| {
        while server.log.bounds().first_seq < first_seq {
            tokio::task::yield_now().await;
        }
    };
    within("the first step", until(2)).await;
    drop(connection);
    within("the last step", until(20_001)).await;
    let told = server.stream("/api/v1/evertail?after=0&limit=1").await.rest().await;
    let told: Value = serde_json::from_str(&told[1].data).unwrap();
    assert_eq!(told["data"]["events"], 20_000, "{told}");
}

#[tokio::test]
async fn a_server_that_stops_trims_and_holds_nothing() {
    for (why, code) in [(Closing::Drain, "draining"), (Closing::Unavailable, "log_unavailable")] {
        let server = log_of_two(4).await;
        server.close(why);
        trim(&server, json!({"before": 3})).await.problem(503, code);
        hold(&server, "a/case", json!({"reason": "why"})).await.problem(503, code);
        release(&server, "a/case").await.problem(503, code);
        assert_eq!(holds(&server).await, json!([]), "they are still listed");
        assert_eq!(retained(&server).await.len(), 4);
    }
}
