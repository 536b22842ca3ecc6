//! Who may do what: every route and every credential, what is answered to whom, and when it ends.

use crate::jwt::{Signer, claims, claims_with, seconds};
use crate::server::{Reply, Server, Settings, within};
use crate::stream::Stream;
use evertail::auth::{AuthSettings, Grants, KeySource, TokenDraft};
use evertail::event::{Content, Pattern, StreamName, Timestamp};
use evertail::log::{Append, TrimRequest};
use evertail::sse::Event;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const JSON: &str = "application/json";

fn auth() -> AuthSettings {
    AuthSettings { keys: None, issuer: None, audience: "evertail".into(), anonymous_read: vec![] }
}

fn on(settings: &mut Settings) {
    settings.auth = Some(auth());
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    Grants::patterns(texts.iter().copied()).unwrap()
}

/// A token, made as the server makes the first one.
async fn token(server: &Server, append: &[&str], read: &[&str], admin: bool) -> String {
    token_until(server, append, read, admin, None).await.0
}

async fn token_until(
    server: &Server,
    append: &[&str],
    read: &[&str],
    admin: bool,
    expires_at: Option<Timestamp>,
) -> (String, String) {
    let (append, read) = (patterns(append).into(), patterns(read).into());
    let grants = Grants { append, read, admin, metrics: false };
    let (secret, token) = TokenDraft { name: Arc::from("t"), grants, expires_at }.make().unwrap();
    let id = token.id.to_string();
    let token = server.log.create_token(token).await.unwrap();
    (evertail::auth::shown(&token, Some(&secret)).token.unwrap(), id)
}

trait Shows {
    fn shows(self, token: &str) -> Self;
}

impl Shows for RequestBuilder {
    fn shows(self, token: &str) -> Self {
        self.bearer_auth(token)
    }
}

async fn get(server: &Server, token: &str, path: &str) -> Reply {
    Reply::of(server.get(path).shows(token).header("accept", JSON)).await
}

async fn post(server: &Server, token: &str, path: &str, body: &str) -> Reply {
    Reply::of(server.post(path, JSON, body.to_owned()).shows(token)).await
}

/// The one frame of a stream that an EventSource is refused with.
async fn refused(request: RequestBuilder) -> String {
    let mut stream = Stream::open(request.header("accept", "text/event-stream")).await;
    let (notice, cursor) = stream.control("evertail.notice").await;
    assert_eq!(cursor, "", "it resumes where it was");
    assert_eq!(stream.rest().await, []);
    let text = String::from_utf8(stream.bytes.clone()).unwrap();
    assert!(text.starts_with("retry: "), "it says when to come back: {text}");
    notice["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nobody_is_let_in_without_a_credential() {
    let server = Server::start_with(on).await;
    for (method, path) in [
        ("GET", "/api/v1/a"),
        ("GET", "/api/v1/events"),
        ("GET", "/api/v1/events/1"),
        ("GET", "/api/v1/streams"),
        ("GET", "/api/v1/streams/a"),
        ("GET", "/api/v1/A"),
        ("POST", "/api/v1/a"),
        ("POST", "/api/v1/events"),
        ("POST", "/api/v1/a/close"),
        ("DELETE", "/api/v1/a"),
        ("GET", "/admin/holds"),
        ("PUT", "/admin/holds/a/n"),
        ("DELETE", "/admin/holds/a/n"),
        ("POST", "/admin/trim"),
        ("GET", "/admin/tokens"),
        ("POST", "/admin/tokens"),
        ("DELETE", "/admin/tokens/x"),
        ("GET", "/admin/nothing"),
        ("POST", "/auth/session"),
        ("POST", "/auth/tickets"),
    ] {
        let reply = Reply::of(server.request(method, path)).await;
        reply.problem(401, "unauthorized");
        assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"evertail\"", "{method} {path}");
    }
    for open in ["/healthz", "/readyz", "/"] {
        assert_eq!(Reply::of(server.get(open)).await.status, 200, "{open}");
    }
    Reply::of(server.get("/nothing/here")).await.problem(404, "route_not_found");
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn what_is_no_credential_is_refused_alike() {
    let server = Server::start_with(on).await;
    let (right, _) = token_until(&server, &[], &["*"], false, None).await;
    let (other, _) = token_until(&server, &[], &["*"], false, None).await;
    assert_eq!(get(&server, &right, "/api/v1/a").await.status, 200);
    let mixed = format!("{}{}", &right[..21], &other[21..]);
    for bad in [
        "",
        "x",
        "evt_",
        "evt_0000000000000000_",
        &right[..right.len() - 1],
        &mixed,
        &right.to_uppercase(),
        "evs_e30.AAAA",
        "evk_e30.AAAA",
        "e30.e30.",
        "eyJhbGciOiJub25lIn0.e30.",
    ] {
        let reply = get(&server, bad, "/api/v1/a").await;
        let problem = reply.problem(401, "credential_invalid");
        assert!(bad.len() < 5 || !problem.to_string().contains(bad));
        assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"evertail\", error=\"invalid_token\"");
    }
    let value = format!("Bearer {right}");
    for headers in [&["Basic eDp5"][..], &["Bearer"], &[&right], &[&value, &value]] {
        let mut request = server.get("/api/v1/a").header("accept", JSON);
        for header in headers {
            request = request.header("authorization", *header);
        }
        Reply::of(request).await.problem(401, "credential_invalid");
    }
    let lower =
        server.get("/api/v1/a").header("accept", JSON).header("authorization", format!("bearer {right}"));
    assert_eq!(Reply::of(lower).await.status, 200);
}

#[tokio::test]
async fn a_token_does_what_it_grants_and_nothing_else() {
    let server = Server::start_with(on).await;
    let appends = token(&server, &["a", "b.*"], &[], false).await;
    let reads = token(&server, &[], &["a"], false).await;
    let admin = token(&server, &[], &[], true).await;

    assert_eq!(post(&server, &appends, "/api/v1/a", "{}").await.status, 201);
    assert_eq!(post(&server, &appends, "/api/v1/b.c", "{}").await.status, 201);
    assert_eq!(post(&server, &appends, "/api/v1/b.c/close", "").await.status, 201);
    for (token, path) in [(&appends, "/api/v1/b"), (&reads, "/api/v1/a"), (&admin, "/api/v1/a")] {
        let reply = post(&server, token, path, "{}").await;
        reply.problem(403, "forbidden");
        assert_eq!(
            reply.header("www-authenticate"),
            "Bearer realm=\"evertail\", error=\"insufficient_scope\""
        );
        post(&server, token, &format!("{path}/close"), "").await.problem(403, "forbidden");
    }
    let batch = r#"[{"stream":"a","data":1},{"stream":"c","data":2}]"#;
    let problem = post(&server, &appends, "/api/v1/events", batch).await.problem(403, "forbidden");
    assert_eq!(problem["errors"][0]["pointer"], "/1/stream");
    let one = post(&server, &appends, "/api/v1/events", r#"{"stream":"c"}"#).await;
    assert_eq!(one.problem(403, "forbidden")["errors"][0]["pointer"], "/stream");
    let batch = r#"[{"stream":"a","data":1},{"stream":"b.x","data":2}]"#;
    assert_eq!(post(&server, &appends, "/api/v1/events", batch).await.status, 201);

    assert_eq!(get(&server, &reads, "/api/v1/a").await.json()["events"].as_array().unwrap().len(), 2);
    for path in ["/api/v1/a", "/api/v1/events", "/api/v1/events/1", "/api/v1/streams", "/api/v1/streams/a"] {
        get(&server, &appends, path).await.problem(403, "forbidden");
        get(&server, &admin, path).await.problem(403, "forbidden");
    }
    assert_eq!(refused(server.get("/api/v1/a").shows(&appends)).await, "unauthorized");

    for token in [&appends, &reads] {
        get(&server, token, "/admin/holds").await.problem(403, "forbidden");
        get(&server, token, "/admin/tokens").await.problem(403, "forbidden");
        post(&server, token, "/admin/trim", r#"{"dry_run":true}"#).await.problem(403, "forbidden");
        post(&server, token, "/admin/tokens", r#"{"name":"x","admin":true}"#).await.problem(403, "forbidden");
    }
    assert_eq!(get(&server, &admin, "/admin/holds").await.status, 200);
    assert_eq!(post(&server, &admin, "/admin/trim", r#"{"dry_run":true}"#).await.status, 200);
    assert_eq!(server.table().await.iter().filter(|row| row.stream == "c").count(), 0);
}

#[tokio::test]
async fn a_token_is_made_listed_and_revoked_and_shown_once() {
    let server = Server::start_with(on).await;
    let admin = token(&server, &[], &["evertail"], true).await;
    let body = r#"{"name":"ci","append":["audits"],"read":["orders.*"],"expires_in":"90d"}"#;
    let made = post(&server, &admin, "/admin/tokens", body).await;
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"));
    let made = made.json();
    let (secret, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert!(secret.starts_with(&format!("evt_{id}_")));
    assert_eq!(
        (&made["append"], &made["read"], &made["admin"]),
        (&json!(["audits"]), &json!(["orders.*"]), &json!(false))
    );
    let listed = get(&server, &admin, "/admin/tokens").await;
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("token");
    assert_eq!(listed.json()["tokens"][1], expected);

    assert_eq!(post(&server, secret, "/api/v1/audits", "{}").await.status, 201);
    let revoked = Reply::of(server.request("DELETE", &format!("/admin/tokens/{id}")).shows(&admin)).await;
    let again = Reply::of(server.request("DELETE", &format!("/admin/tokens/{id}")).shows(&admin)).await;
    assert_eq!((revoked.status, again.status, &revoked.body), (200, 200, &again.body));
    assert!(revoked.json()["revoked_at"].is_string());
    post(&server, secret, "/api/v1/audits", "{}").await.problem(401, "credential_invalid");

    // The log tells of it, once each, and neither the log nor its file knows the secret.
    let own = get(&server, &admin, "/api/v1/evertail").await;
    let events = own.json()["events"].as_array().unwrap().clone();
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["evertail.token_created", "evertail.token_created", "evertail.token_revoked"]);
    assert_eq!(events[1]["data"]["name"], "ci");
    // Behind `evt_`, the id and `_`; the secret may hold a `_` itself.
    let hidden = &secret[21..];
    let known = [own.text(), listed.text(), format!("{:?}", server.table().await)];
    assert!(known.iter().all(|text| !text.contains(hidden)));
    let server = server.restart().await;
    post(&server, secret, "/api/v1/audits", "{}").await.problem(401, "credential_invalid");
    assert_eq!(get(&server, &admin, "/admin/tokens").await.status, 200);
    for file in std::fs::read_dir(server.file().parent().unwrap()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(hidden.len()).any(|window| window == hidden.as_bytes()));
    }
}

#[tokio::test]
async fn what_makes_no_token_is_told_by_member() {
    let server = Server::start_with(on).await;
    let admin = token(&server, &[], &[], true).await;
    for (body, pointer) in [
        (r#"{"append":["a"]}"#, "/name"),
        (r#"{"name":"a/b","append":["a"]}"#, "/name"),
        (r#"{"name":"x"}"#, ""),
        (r#"{"name":"x","append":"a"}"#, "/append"),
        (r#"{"name":"x","append":["A"]}"#, "/append"),
        (r#"{"name":"x","read":["a*"]}"#, "/read"),
        (r#"{"name":"x","read":[1]}"#, "/read"),
        (r#"{"name":"x","admin":"yes"}"#, "/admin"),
        (r#"{"name":"x","admin":true,"expires_in":"0"}"#, "/expires_in"),
        (r#"{"name":"x","admin":true,"expires_at":"2020-01-01T00:00:00Z"}"#, "/expires_at"),
        (r#"{"name":"x","admin":true,"scope":"all"}"#, "/scope"),
    ] {
        let problem = post(&server, &admin, "/admin/tokens", body).await.problem(400, "body_invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    assert_eq!(server.log.tokens().borrow().len(), 1);
}

/// An answer without what differs between any two: the request's id and the time.
fn shape(reply: &Reply, name: &str) -> String {
    let id = reply.header("x-request-id");
    let mut headers: Vec<String> = reply
        .headers
        .iter()
        .filter(|(header, _)| {
            !["date", "x-request-id", "etag", "content-length", "www-authenticate"].contains(&header.as_str())
        })
        .map(|(header, value)| format!("{header}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    // Where our own name does not mean the stream.
    let text = reply.text().replace(id, "ID").replace("urn:evertail", "urn");
    format!("{} {headers:?} {text}", reply.status).replace(name, "NAME")
}

#[tokio::test]
async fn a_stream_that_may_not_be_read_is_as_one_that_is_not_there() {
    let server = Server::start_with(|settings| {
        on(settings);
        settings.http.keep_alive = Duration::from_millis(100);
    })
    .await;
    let all = token(&server, &["*"], &["*"], false).await;
    let narrow = token(&server, &["seen"], &["seen"], false).await;
    for path in ["/api/v1/seen", "/api/v1/hidden", "/api/v1/seen", "/api/v1/hidden", "/api/v1/closed"] {
        assert_eq!(post(&server, &all, path, r#"{"id":"x","data":{"a":1}}"#).await.status / 100, 2);
    }
    assert_eq!(post(&server, &all, "/api/v1/closed/close", "").await.status, 201);
    server.log.hold(StreamName::parse("hidden").unwrap(), "n".into(), "r".into()).await.unwrap();

    for hidden in ["hidden", "closed", "evertail"] {
        let missing = "n".repeat(hidden.len());
        for accept in
            ["application/json", "application/x-ndjson", "text/csv", "application/cloudevents-batch+json"]
        {
            for path in [
                "/api/v1/NAME",
                "/api/v1/NAME?after=1",
                "/api/v1/NAME?last=3",
                "/api/v1/NAME?after=0&limit=1",
                "/api/v1/NAME?since=1h",
                "/api/v1/NAME?until=2099-01-01T00:00:00Z",
                "/api/v1/NAME?before=3",
                "/api/v1/NAME?after=99",
                "/api/v1/NAME?type=message&data.a=1",
                "/api/v1/events?stream=NAME",
                "/api/v1/events?stream=NAME&stream=seen&after=1",
                "/api/v1/NAME?order=desc",
                "/api/v1/NAME?producer=true",
            ] {
                let ask = async |name: &str| {
                    let request = server.get(&path.replace("NAME", name)).header("accept", accept);
                    shape(&Reply::of(request.shows(&narrow)).await, name)
                };
                assert_eq!(ask(hidden).await, ask(&missing).await, "{path} as {accept}");
            }
        }
        for path in
            ["/api/v1/streams/NAME", "/api/v1/streams?stream=NAME", "/api/v1/streams?stream=NAME&stream=seen"]
        {
            let ask =
                async |name: &str| shape(&get(&server, &narrow, &path.replace("NAME", name)).await, name);
            assert_eq!(ask(hidden).await, ask(&missing).await, "{path}");
        }
        // Appending and closing are refused by the name alone.
        for path in ["/api/v1/NAME", "/api/v1/NAME/close"].iter().filter(|_| hidden != "evertail") {
            let ask = async |name: &str| {
                let request = server.post(&path.replace("NAME", name), JSON, r#"{"id":"x"}"#).shows(&narrow);
                shape(&Reply::of(request.header("if-match", "\"1\"")).await, name)
            };
            assert_eq!(ask(hidden).await, ask(&missing).await, "{path}");
        }
        // The live stream of it: a cursor and nothing more, and no end.
        for query in ["?after=0", "?last=2", "?after=1&limit=1", "?last=2&data.a=1"] {
            let mut bytes = Vec::new();
            for name in [hidden, &missing] {
                let mut stream =
                    Stream::open(server.get(&format!("/api/v1/{name}{query}")).shows(&narrow)).await;
                let mut cursor = stream.cursor().await;
                let last_seq = server.log.bounds().last_seq;
                while query == "?after=0" && cursor < last_seq {
                    cursor = stream.cursor().await;
                }
                let text = String::from_utf8(stream.bytes.clone()).unwrap().replace("evertail.", "");
                // When it comes back is random, and so is when it says that it is there.
                let said = text.lines().filter(|line| !line.starts_with("retry") && *line != ":");
                bytes.push(said.collect::<Vec<_>>().join("\n"));
            }
            assert_eq!(bytes[0].replace(hidden, "NAME"), bytes[1].replace(&missing, "NAME"), "{query}");
        }
    }
    // One event: of a hidden stream, or one that its own stream has lost, all the same.
    let request = TrimRequest {
        stream: Some(StreamName::parse("seen").unwrap()),
        before: Some(4),
        ..TrimRequest::default()
    };
    within("the trim", server.log.trim(&request)).await.unwrap();
    let mut answers = BTreeSet::new();
    let mut seen = Vec::new();
    for seq in 1..=server.log.bounds().last_seq {
        let reply = get(&server, &narrow, &format!("/api/v1/events/{seq}")).await;
        if reply.status == 200 {
            seen.push(seq);
        } else {
            reply.problem(404, "event_not_found");
            answers.insert(shape(&reply, "~"));
        }
    }
    assert_eq!((answers.len(), seen.len()), (1, 0), "{answers:?} {seen:?}");
    let listed = get(&server, &narrow, "/api/v1/streams").await.json();
    assert_eq!(listed["streams"].as_array().unwrap().len(), 1, "{listed}");
}

#[tokio::test]
async fn a_reader_of_the_whole_log_gets_what_it_may_read_live_and_from_history() {
    let server = Server::start_with(on).await;
    let narrow = token(&server, &[], &["a", "b.*"], false).await;
    let mut stream = Stream::open(server.get("/api/v1/events").shows(&narrow)).await;
    stream.cursor().await;
    let mut wanted = Vec::new();
    for name in ["c", "a", "b", "b.x", "evertail2", "c", "a"] {
        let receipt = server.log.append(Append {
            contents: vec![Content::new(StreamName::parse(name).unwrap())],
            ..Default::default()
        });
        let seq = receipt.await.unwrap()[0].seq;
        if name == "a" || name == "b.x" {
            wanted.push(seq);
        }
    }
    assert_eq!(stream.seqs(wanted.len()).await, wanted);
    let mut replay = Stream::open(server.get("/api/v1/events?after=0").shows(&narrow)).await;
    replay.cursor().await;
    assert_eq!(replay.seqs(wanted.len()).await, wanted);
    let lines = server.get("/api/v1/events").header("accept", "application/x-ndjson").shows(&narrow);
    let lines = Reply::of(lines).await.text();
    let seqs: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, wanted);
}

/// For random grants: what each way to read gives is what is granted of what there is, all of it, in order.
#[tokio::test]
async fn every_way_to_read_gives_what_is_granted_and_all_of_it() {
    let server = Server::start_with(|settings| {
        on(settings);
        settings.log.window_bytes_max = 4 << 10;
        settings.http.page_bytes_max = 1 << 10;
        settings.http.keep_alive = Duration::from_millis(100);
    })
    .await;
    let streams = ["a", "a.b", "a.c", "b", "b.a", "c"];
    let mut random = StdRng::seed_from_u64(7);
    let mut stored: Vec<(u64, &str)> = Vec::new();
    let mut live = Vec::new();
    let choices = ["a", "a.*", "b", "b.*", "c", "none"];
    for _ in 0..8 {
        let granted: Vec<&str> = choices.into_iter().filter(|_| random.random_range(0..3) == 0).collect();
        let granted = if granted.is_empty() { vec!["none"] } else { granted };
        let (token, _) = token_until(&server, &[], &granted, false, None).await;
        let stream = Stream::open(server.get("/api/v1/events").shows(&token)).await;
        live.push((granted, token, stream, server.log.bounds().last_seq));
    }
    for _ in 0..300 {
        let name = streams[random.random_range(0..streams.len())];
        let mut content = Content::new(StreamName::parse(name).unwrap());
        content.data = Some("\"0123456789\"".into());
        let append = Append { contents: vec![content], ..Append::default() };
        stored.push((server.log.append(append).await.unwrap()[0].seq, name));
    }
    let last = stored.last().unwrap().0;
    for (granted, token, mut stream, since) in live {
        let patterns = patterns(&granted);
        let is_granted = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let expected: Vec<u64> =
            stored.iter().filter(|(_, name)| is_granted(name)).map(|(seq, _)| *seq).collect();
        assert!(since < stored[0].0);
        for (path, is_live) in
            [("", true), ("/api/v1/events?after=0", false), ("/api/v1/events?last=1000", false)]
        {
            let mut replay;
            let stream = if is_live {
                &mut stream
            } else {
                replay = Stream::open(server.get(path).shows(&token)).await;
                &mut replay
            };
            let mut seqs = Vec::new();
            // The last cursor says that everything was looked at.
            loop {
                let event = stream.event().await;
                let seq: u64 = event.last_event_id.parse().unwrap();
                if event.event != "evertail.cursor" {
                    seqs.push(seq);
                }
                if seq >= last {
                    break;
                }
            }
            assert_eq!(seqs, expected, "{granted:?} {path}");
        }
        let ask = async |path: &str, accept: &str| {
            let reply = Reply::of(server.get(path).shows(&token).header("accept", accept)).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            reply
        };
        let seqs_of = |value: &Value| -> Vec<u64> {
            let number =
                |event: &Value| event["seq"].as_u64().or_else(|| event["sequence"].as_str()?.parse().ok());
            value.as_array().unwrap().iter().map(|event| number(event).unwrap()).collect()
        };
        let lines = ask("/api/v1/events", "application/x-ndjson").await.text();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(seqs_of(&Value::from(lines)), expected);
        let csv = ask("/api/v1/events", "text/csv").await.text();
        let csv: Vec<u64> =
            csv.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
        assert_eq!(csv, expected);
        let cloud = ask("/api/v1/events", "application/cloudevents-batch+json").await.json();
        assert_eq!(seqs_of(&cloud), expected);
        for order in ["limit=50", "limit=50&order=desc"] {
            let (mut path, mut seqs) = (format!("/api/v1/events?{order}"), Vec::new());
            loop {
                let page = ask(&path, JSON).await.json();
                seqs.extend(seqs_of(&page["events"]));
                match page["next"].as_str() {
                    Some(next) => path = next.to_owned(),
                    None => break,
                }
            }
            if order.contains("desc") {
                seqs.reverse();
            }
            assert_eq!(seqs, expected, "{granted:?} {order}");
        }
        for (seq, name) in stored.iter().step_by(7) {
            let reply = get(&server, &token, &format!("/api/v1/events/{seq}")).await;
            assert_eq!(reply.status, if is_granted(name) { 200 } else { 404 }, "{granted:?} {seq}");
        }
        let listed = get(&server, &token, "/api/v1/streams").await.json();
        let names: Vec<&str> = listed["streams"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stream| stream["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, streams.into_iter().filter(|name| is_granted(name)).collect::<Vec<_>>());
    }
}

/// The reason in the notice with which a stream ends.
fn last_reason(events: &[Event]) -> String {
    let last = events.last().expect("it says why it ends");
    assert_eq!((last.event.as_str(), last.last_event_id.is_empty()), ("evertail.notice", false), "{last:?}");
    serde_json::from_str::<Value>(&last.data).unwrap()["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn streams_end_with_their_credential() {
    let server = Server::start_with(on).await;
    let admin = token(&server, &[], &[], true).await;
    let (by_api, id) = token_until(&server, &[], &["*"], false, None).await;
    let (by_file, file_id) = token_until(&server, &[], &["*"], false, None).await;
    let soon = Timestamp::from_microseconds(Timestamp::now().microseconds() + 1_500_000);
    let (by_time, _) = token_until(&server, &[], &["*"], false, Some(soon)).await;
    let (stays, _) = token_until(&server, &[], &["*"], false, None).await;
    let mut streams = Vec::new();
    for token in [&by_api, &by_file, &by_time, &stays] {
        let mut stream = Stream::open(server.get("/api/v1/a").shows(token)).await;
        stream.cursor().await;
        streams.push(stream);
    }
    let [by_api_stream, by_file_stream, by_time_stream, stays_stream] = &mut streams[..] else { panic!() };

    let revoke = server.request("DELETE", &format!("/admin/tokens/{id}")).shows(&admin);
    assert_eq!(Reply::of(revoke).await.status, 200);
    assert_eq!(last_reason(&by_api_stream.rest().await), "unauthorized");
    assert_eq!(refused(server.get("/api/v1/a").shows(&by_api)).await, "unauthorized");

    let mut other = SqliteConnectOptions::new().filename(server.file()).connect().await.unwrap();
    sqlx::query("UPDATE tokens SET revoked_at = created_at WHERE id = ?")
        .bind(file_id)
        .execute(&mut other)
        .await
        .unwrap();
    assert_eq!(last_reason(&by_file_stream.rest().await), "unauthorized");

    assert_eq!(last_reason(&by_time_stream.rest().await), "expired");
    assert_eq!(refused(server.get("/api/v1/a").shows(&by_time)).await, "expired");
    get(&server, &by_time, "/api/v1/a").await.problem(401, "credential_expired");

    server.append_as("a", "{}").await;
    assert_eq!(stays_stream.seqs(1).await.len(), 1, "the others' ends are not its own");
}

#[tokio::test]
async fn a_download_breaks_off_when_its_credential_is_revoked() {
    let server = Server::start_with(|settings| {
        on(settings);
        settings.http.page_bytes_max = 1 << 10;
        settings.log.window_bytes_max = 0;
    })
    .await;
    let (token, id) = token_until(&server, &[], &["*"], false, None).await;
    for _ in 0..40 {
        server.append_as("a", &json!({"data": "x".repeat(100_000)}).to_string()).await;
    }
    let request = server.get("/api/v1/a").header("accept", "application/x-ndjson").shows(&token);
    let mut response = within("the head", request.send()).await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    server.log.revoke_token(id.as_str().into()).await.unwrap();
    let end = loop {
        match within("the end", response.chunk()).await {
            Ok(Some(_)) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(end, "it must not end as if it were whole");
}

fn with_key(signer: &Signer) -> (tempfile::TempDir, KeySource) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, signer.key_file()).unwrap();
    (folder, KeySource::KeyFile(path))
}

async fn start_with_keys(keys: KeySource) -> Server {
    Server::start_with(|settings| {
        settings.auth = Some(AuthSettings { keys: Some(keys), issuer: Some("id".into()), ..auth() });
    })
    .await
}

#[tokio::test]
async fn a_json_web_token_of_each_algorithm_lets_in_what_its_claim_grants() {
    for signer in [Signer::hs256(), Signer::rs256(), Signer::es256(), Signer::eddsa()] {
        let (_folder, keys) = with_key(&signer);
        let server = start_with_keys(keys).await;
        let token = signer.token(&claims());
        assert_eq!(post(&server, &token, "/api/v1/a.b", "{}").await.status, 201, "{}", signer.algorithm());
        post(&server, &token, "/api/v1/b", "{}").await.problem(403, "forbidden");
        assert_eq!(get(&server, &token, "/api/v1/a.b").await.json()["events"].as_array().unwrap().len(), 1);
        get(&server, &token, "/admin/tokens").await.problem(403, "forbidden");
        let admin = signer.token(&claims_with("evertail", json!({"admin": true})));
        assert_eq!(get(&server, &admin, "/admin/tokens").await.status, 200);
        let nothing = signer.token(&claims_with("evertail", Value::Null));
        get(&server, &nothing, "/api/v1/a.b").await.problem(403, "forbidden");
        // Another signer of the same kind is another.
        let other = match &signer {
            Signer::Hs256(_) => Signer::Hs256(vec![b'x'; 40]),
            Signer::Rs256(..) => Signer::rs256(),
            Signer::Es256(..) => Signer::es256(),
            Signer::EdDsa(..) => Signer::eddsa(),
        };
        get(&server, &other.token(&claims()), "/api/v1/a.b").await.problem(401, "credential_invalid");
    }
}

#[tokio::test]
async fn the_key_decides_on_the_algorithm() {
    let rsa = Signer::rs256();
    let (_folder, keys) = with_key(&rsa);
    let server = start_with_keys(keys).await;
    assert_eq!(get(&server, &rsa.token(&claims()), "/api/v1/a.b").await.status, 200);
    let header = |alg: &str| json!({"alg": alg, "typ": "JWT"});
    let with_public_key = Signer::Hs256(rsa.key_file().to_vec());
    let trimmed = Signer::Hs256(rsa.key_file().trim_ascii().to_vec());
    let unsigned = |alg: &str| {
        let token = rsa.token_with(&header(alg), &claims());
        format!("{}.", token.rsplit_once('.').unwrap().0)
    };
    let (right, _) = (rsa.token(&claims()), ());
    let parts: Vec<&str> = right.split('.').collect();
    let other_claims = rsa.token(&claims_with("sub", json!("mallory")));
    let mut forged = vec![
        with_public_key.token(&claims()),
        with_public_key.token_with(&header("RS256"), &claims()),
        trimmed.token(&claims()),
        trimmed.token_with(&json!({"alg": "HS256", "kid": "../../dev/null"}), &claims()),
        Signer::Hs256(vec![]).token(&claims()),
        unsigned("none"),
        unsigned("None"),
        unsigned("RS256"),
        format!("{}.{}.{}", parts[0], other_claims.split('.').nth(1).unwrap(), parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{right}.{}", parts[2]),
        format!("{right}="),
    ];
    // What the header says of where to find a key, or asks to be understood, is nobody's to say.
    let own = Signer::es256();
    for header in [
        json!({"alg": "ES256", "jwk": own.jwk("x")}),
        json!({"alg": "ES256", "kid": "x", "jku": "http://127.0.0.1:1/jwks"}),
        json!({"alg": "ES256"}),
        json!({"alg": "RS256"}),
    ] {
        forged.push(own.token_with(&header, &claims()));
    }
    for alg in ["RS384", "RS512", "PS256", "HS256", "ES256", "EdDSA", "none"] {
        forged.push(rsa.token_with(&header(alg), &claims()));
    }
    forged.push(rsa.token_with(&json!({"alg": "RS256", "crit": ["b64"], "b64": false}), &claims()));
    for token in forged {
        get(&server, &token, "/api/v1/a.b").await.problem(401, "credential_invalid");
        assert_eq!(refused(server.get("/api/v1/a.b").shows(&token)).await, "unauthorized");
    }
}

#[tokio::test]
async fn every_claim_is_checked() {
    let signer = Signer::hs256();
    let (_folder, keys) = with_key(&signer);
    let server = start_with_keys(keys).await;
    let ask = async |claims: Value| get(&server, &signer.token(&claims), "/api/v1/a.b").await;
    for (name, value) in [
        ("exp", Value::Null),
        ("exp", json!("soon")),
        ("exp", json!(-1)),
        ("nbf", json!(seconds(600))),
        ("nbf", json!("x")),
        ("aud", Value::Null),
        ("aud", json!("other")),
        ("aud", json!(["other"])),
        ("aud", json!([])),
        ("iss", Value::Null),
        ("iss", json!("other")),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!("a\nb")),
        ("evertail", json!({"read": "a.*"})),
        ("evertail", json!({"read": ["A"]})),
        ("evertail", json!({"reads": ["*"]})),
        ("evertail", json!("admin")),
    ] {
        let reply = ask(claims_with(name, value.clone())).await;
        assert_eq!(
            (reply.status, reply.any_problem()["code"].as_str().unwrap()),
            (401, "credential_invalid"),
            "{name}: {value}"
        );
    }
    ask(claims_with("exp", json!(seconds(-60)))).await.problem(401, "credential_expired");
    assert_eq!(
        refused(server.get("/api/v1/a.b").shows(&signer.token(&claims_with("exp", json!(seconds(-60))))))
            .await,
        "expired"
    );
    assert_eq!(ask(claims_with("aud", json!(["other", "evertail"]))).await.status, 200);
    assert_eq!(ask(claims_with("nbf", Value::Null)).await.status, 200);
    // The clocks may differ by some seconds, and then it ends.
    let mut stream =
        Stream::open(server.get("/api/v1/a.b").shows(&signer.token(&claims_with("exp", json!(seconds(-3))))))
            .await;
    stream.cursor().await;
    assert_eq!(last_reason(&stream.rest().await), "expired");
}

/// An identity provider: serves the set that it is given, and counts.
struct Provider {
    url: String,
    asked: Arc<AtomicUsize>,
    set: Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Provider {
    async fn start(set: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let set = Arc::new(std::sync::Mutex::new(set.to_string().into_bytes()));
        let (counted, served) = (asked.clone(), set.clone());
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let _ = socket.read(&mut head).await;
                counted.fetch_add(1, Ordering::SeqCst);
                let body = served.lock().unwrap().clone();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = socket.write_all(&[head.as_bytes(), &body].concat()).await;
            }
        });
        Self { url, asked, set }
    }
}

#[tokio::test]
async fn keys_are_found_by_name_and_fetched_when_an_unknown_one_is_named() {
    let (rsa, ec, ed, secret) = (Signer::rs256(), Signer::es256(), Signer::eddsa(), Signer::hs256());
    let set = json!({"keys": [
        {"kty": "weird"}, rsa.jwk("r"), ec.jwk("e"), secret.jwk("s"), {"kty": "EC", "crv": "P-521", "x": "", "y": ""},
    ]});
    let provider = Provider::start(&set).await;
    let server = start_with_keys(KeySource::SetUrl(provider.url.clone())).await;
    let named = |signer: &Signer, kid: &str| {
        signer.token_with(&json!({"alg": signer.algorithm(), "kid": kid}), &claims())
    };
    for (signer, kid) in [(&rsa, "r"), (&ec, "e")] {
        assert_eq!(get(&server, &named(signer, kid), "/api/v1/a.b").await.status, 200, "{kid}");
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "at the start");
    // A secret is not taken from what anyone can fetch; the key of another name is none; a token must name one.
    for token in
        [named(&secret, "s"), named(&rsa, "e"), named(&ec, "r"), rsa.token(&claims()), named(&ed, "new")]
    {
        get(&server, &token, "/api/v1/a.b").await.problem(401, "credential_invalid");
    }
    *provider.set.lock().unwrap() = json!({"keys": [ed.jwk("new")]}).to_string().into_bytes();
    for n in 0..20 {
        get(&server, &named(&ed, &format!("made-up-{n}")), "/api/v1/a.b")
            .await
            .problem(401, "credential_invalid");
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "at most once a minute, whoever names what");
}

#[tokio::test]
async fn a_set_of_keys_is_read_from_a_file_secrets_included() {
    let (ec, secret) = (Signer::es256(), Signer::hs256());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, json!({"keys": [ec.jwk("e"), secret.jwk("s")]}).to_string()).unwrap();
    let server = start_with_keys(KeySource::SetFile(path)).await;
    for (signer, kid) in [(&ec, "e"), (&secret, "s")] {
        let token = signer.token_with(&json!({"alg": signer.algorithm(), "kid": kid}), &claims());
        assert_eq!(get(&server, &token, "/api/v1/a.b").await.status, 200, "{kid}");
    }
    // The secret of one key with the name of the other, and the algorithm of either.
    for alg in ["HS256", "ES256"] {
        let token = secret.token_with(&json!({"alg": alg, "kid": "e"}), &claims());
        get(&server, &token, "/api/v1/a.b").await.problem(401, "credential_invalid");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_told_as_such() {
    let server = start_with_keys(KeySource::SetUrl("http://127.0.0.1:1/jwks".into())).await;
    let token = Signer::hs256().token_with(&json!({"alg": "HS256", "kid": "s"}), &claims());
    get(&server, &token, "/api/v1/a.b").await.problem(503, "keys_unavailable");
    assert_eq!(refused(server.get("/api/v1/a.b").shows(&token)).await, "unavailable");
}

#[tokio::test]
async fn key_files_that_are_none_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let open = async |source: KeySource| {
        let settings = AuthSettings { keys: Some(source), ..auth() };
        evertail::auth::Auth::open(&server.log, settings).await.unwrap_err().to_string()
    };
    let file = |bytes: &[u8]| -> PathBuf {
        let path = folder.path().join("k");
        std::fs::write(&path, bytes).unwrap();
        path
    };
    assert!(open(KeySource::KeyFile(folder.path().join("none"))).await.contains("EVERTAIL_JWT_KEY_FILE"));
    assert!(open(KeySource::KeyFile(file(b"too short"))).await.contains("32 bytes"));
    let private = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(open(KeySource::KeyFile(file(private))).await.contains("private key"));
    let weird = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    assert!(open(KeySource::KeyFile(file(weird))).await.contains("no public key"));
    assert!(open(KeySource::SetFile(file(b"{}"))).await.contains("JWKS"));
    assert!(open(KeySource::SetFile(file(br#"{"keys":[]}"#))).await.contains("no key"));
}

/// The session of a `Set-Cookie`, as a browser would send it.
fn cookie_of(reply: &Reply) -> String {
    reply.header("set-cookie").split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_is_for_pages_of_this_server() {
    let server = Server::start_with(on).await;
    let (token, id) = token_until(&server, &["a"], &["a"], false, None).await;
    let own = server.url("");
    let begun = Reply::of(server.post("/auth/session", JSON, "").shows(&token)).await;
    assert_eq!((begun.status, begun.header("cache-control")), (204, "no-store"));
    let set = begun.header("set-cookie").to_owned();
    assert!(set.starts_with("evertail_session=evs_"), "{set}");
    assert!(set.ends_with("; Path=/; Max-Age=86400; HttpOnly; SameSite=Strict"), "{set}");
    assert!(!set.contains(&token[21..]), "it holds no token");
    let cookie = cookie_of(&begun);
    let behind_tls =
        server.post("/auth/session", JSON, "").shows(&token).header("origin", own.replace("http:", "https:"));
    assert!(Reply::of(behind_tls).await.header("set-cookie").ends_with("; Secure"));

    // A page reads without an Origin, which browsers leave out; and appends with its own.
    let read = |path: &str| server.get(path).header("accept", JSON).header("cookie", cookie.clone());
    assert_eq!(Reply::of(read("/api/v1/a")).await.status, 200);
    let append = || server.post("/api/v1/a", JSON, "{}").header("cookie", format!("x=y; {cookie}; z=1"));
    assert_eq!(Reply::of(append().header("origin", own.clone())).await.status, 201);
    Reply::of(append()).await.problem(403, "origin_refused");
    // Other ports of this machine are the same site to SameSite, and are let in without a cookie.
    for origin in ["http://localhost:3000", "http://127.0.0.1:1"] {
        Reply::of(append().header("origin", origin)).await.problem(403, "origin_refused");
        Reply::of(read("/api/v1/a").header("origin", origin)).await.problem(403, "origin_refused");
        let begin = server.post("/auth/session", JSON, "").shows(&token).header("origin", origin);
        Reply::of(begin).await.problem(403, "origin_refused");
    }
    Reply::of(read("/api/v1/a").header("sec-fetch-site", "same-site")).await.problem(403, "origin_refused");
    // A session is nothing but that: not a token, not twice, and it makes no other.
    get(&server, cookie.split_once('=').unwrap().1, "/api/v1/a").await.problem(401, "credential_invalid");
    Reply::of(read("/api/v1/a").header("cookie", cookie.clone())).await.problem(401, "credential_invalid");
    let again =
        server.post("/auth/session", JSON, "").header("cookie", cookie.clone()).header("origin", own.clone());
    Reply::of(again).await.problem(401, "unauthorized");

    let mut stream = Stream::open(server.get("/api/v1/a").header("cookie", cookie.clone())).await;
    stream.cursor().await;
    let server = server.restart().await;
    let read = |path: &str| server.get(path).header("accept", JSON).header("cookie", cookie.clone());
    assert_eq!(last_reason(&stream.rest().await), "drain");
    let mut stream = Stream::open(server.get("/api/v1/a").header("cookie", cookie.clone())).await;
    stream.cursor().await;
    server.log.revoke_token(id.as_str().into()).await.unwrap();
    assert_eq!(last_reason(&stream.rest().await), "unauthorized");
    Reply::of(read("/api/v1/a")).await.problem(401, "credential_invalid");
    // What is over can still be put away.
    let end = Reply::of(
        server.request("DELETE", "/auth/session").header("cookie", cookie.clone()).header("origin", own),
    )
    .await;
    assert_eq!(end.status, 204);
    assert!(end.header("set-cookie").starts_with("evertail_session=; Path=/; Max-Age=0;"));
}

#[tokio::test]
async fn a_ticket_opens_its_stream_and_nothing_else() {
    let server = Server::start_with(on).await;
    let (token, id) = token_until(&server, &["a"], &["a", "b"], true, None).await;
    post(&server, &token, "/api/v1/a", "{}").await;
    let ticket = async |body: &str| post(&server, &token, "/auth/tickets", body).await;
    let made = ticket(r#"{"stream":"a","seconds":60}"#).await;
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"));
    let url = made.json()["url"].as_str().unwrap().to_owned();
    let secret = made.json()["ticket"].as_str().unwrap().to_owned();
    assert!(url.starts_with("/api/v1/a?ticket=evk_"), "{url}");

    for _ in 0..2 {
        let mut stream = Stream::open(server.get(&format!("{url}&after=0"))).await;
        stream.cursor().await;
        let seq = stream.seqs(1).await[0];
        // It comes back by the same URL.
        let mut resumed = Stream::open(server.get(&url).header("last-event-id", seq)).await;
        assert_eq!(resumed.cursor().await, seq);
    }
    for path in ["/api/v1/b", "/api/v1/a.b"] {
        assert_eq!(refused(server.get(&format!("{path}?ticket={secret}"))).await, "unauthorized");
    }
    for path in ["/api/v1/events", "/api/v1/streams", "/api/v1/events/1", "/admin/tokens"] {
        Reply::of(server.get(&format!("{path}?ticket={secret}")).header("accept", JSON))
            .await
            .problem(401, "unauthorized");
    }
    Reply::of(server.post(&url, JSON, "{}")).await.problem(401, "unauthorized");
    get(&server, &secret, "/api/v1/a").await.problem(401, "credential_invalid");
    let session =
        server.get("/api/v1/a").header("accept", JSON).header("cookie", format!("evertail_session={secret}"));
    Reply::of(session).await.problem(401, "credential_invalid");
    assert_eq!(refused(server.get(&format!("{url}x"))).await, "unauthorized");

    // A ticket for what may not be read is one for a stream without events, whether it is there or not.
    for stream in ["evertail", "nothing"] {
        let url =
            ticket(&json!({"stream": stream}).to_string()).await.json()["url"].as_str().unwrap().to_owned();
        let mut stream = Stream::open(server.get(&format!("{url}&last=5"))).await;
        stream.cursor().await;
    }
    for (body, pointer) in [
        ("{}", "/stream"),
        (r#"{"stream":"A"}"#, "/stream"),
        (r#"{"stream":"a","seconds":0}"#, "/seconds"),
        (r#"{"stream":"a","seconds":86401}"#, "/seconds"),
    ] {
        assert_eq!(
            ticket(body).await.problem(400, "body_invalid")["errors"][0]["pointer"],
            pointer,
            "{body}"
        );
    }

    let short = ticket(r#"{"stream":"a","seconds":1}"#).await.json()["url"].as_str().unwrap().to_owned();
    let mut stream = Stream::open(server.get(&short)).await;
    stream.cursor().await;
    // The stream outlives the ticket, and ends with the token behind it.
    while refused_or_open(&server, &short).await != "expired" {}
    server.append_as("a", "{}").await;
    assert_eq!(stream.seqs(1).await.len(), 1);
    server.log.revoke_token(id.as_str().into()).await.unwrap();
    assert_eq!(last_reason(&stream.rest().await), "unauthorized");
    assert_eq!(refused(server.get(&url)).await, "unauthorized");
}

/// The reason with which a stream is refused, if it is.
async fn refused_or_open(server: &Server, url: &str) -> String {
    let mut stream = Stream::open(server.get(url).header("accept", "text/event-stream")).await;
    let event = stream.event().await;
    let data: Value = serde_json::from_str(&event.data).unwrap();
    data["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn sessions_and_tickets_of_a_json_web_token_end_with_it() {
    let signer = Signer::hs256();
    let (_folder, keys) = with_key(&signer);
    let server = start_with_keys(keys).await;
    let token = signer.token(&claims_with("exp", json!(seconds(-2))));
    let cookie = cookie_of(&Reply::of(server.post("/auth/session", JSON, "").shows(&token)).await);
    let made = post(&server, &token, "/auth/tickets", r#"{"stream":"a.b","seconds":3600}"#).await;
    let url = made.json()["url"].as_str().unwrap().to_owned();
    let mut by_cookie = Stream::open(server.get("/api/v1/a.b").header("cookie", cookie)).await;
    let mut by_ticket = Stream::open(server.get(&url)).await;
    for stream in [&mut by_cookie, &mut by_ticket] {
        stream.cursor().await;
        assert_eq!(last_reason(&stream.rest().await), "expired");
    }
    assert_eq!(refused(server.get(&url)).await, "expired");
}

#[tokio::test]
async fn everyone_may_read_what_is_for_everyone() {
    let server = Server::start_with(|settings| {
        settings.auth = Some(AuthSettings { anonymous_read: patterns(&["news", "status.*"]), ..auth() });
    })
    .await;
    server.append_as("news", "{}").await;
    server.append_as("secret", "{}").await;
    let page = server.page("/api/v1/events").await.json();
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    assert_eq!(server.page("/api/v1/secret").await.json()["events"], json!([]));
    let mut stream = Stream::open(server.get("/api/v1/status.x")).await;
    stream.cursor().await;
    Reply::of(server.post("/api/v1/news", JSON, "{}")).await.problem(401, "unauthorized");
    Reply::of(server.get("/admin/tokens")).await.problem(401, "unauthorized");
    Reply::of(server.post("/auth/tickets", JSON, r#"{"stream":"news"}"#)).await.problem(401, "unauthorized");
    // Who shows a credential that is none is told so.
    get(&server, "evt_x", "/api/v1/news").await.problem(401, "credential_invalid");
}

#[tokio::test]
async fn who_appended_is_stored_and_shown_to_who_administers() {
    let server = Server::start_with(on).await;
    let (admin, admin_id) = token_until(&server, &["a", "b"], &["*"], true, None).await;
    let (writes, id) = token_until(&server, &["a"], &["a"], false, None).await;
    post(&server, &writes, "/api/v1/a", r#"{"id":"x","data":1}"#).await;
    let repeat = post(&server, &admin, "/api/v1/a", r#"{"id":"x","data":1}"#).await;
    assert_eq!(
        (repeat.status, &repeat.json()["duplicate"]),
        (200, &json!(true)),
        "who it is is not compared"
    );
    post(&server, &admin, "/api/v1/b", "[{},{}]").await;
    let cloud = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    let sent = server.post("/api/v1/a", "application/cloudevents+json", cloud).shows(&writes);
    assert_eq!(Reply::of(sent).await.status, 201);
    post(&server, &writes, "/api/v1/a/close", "").await;
    post(&server, &admin, "/admin/tokens", r#"{"name":"y","admin":true}"#).await;
    let hold =
        server.request("PUT", "/admin/holds/b/n").header("content-type", JSON).body(r#"{"reason":"r"}"#);
    assert_eq!(Reply::of(hold.shows(&admin)).await.status, 201);
    server.append_as("c", "{}").await;

    let page = get(&server, &admin, "/api/v1/events?producer=true&after=2").await.json();
    let events = page["events"].as_array().unwrap();
    let (writer, operator) = (format!("token:{id}:t"), format!("token:{admin_id}:t"));
    let expected = [
        ("a", Some(&writer)),
        ("b", Some(&operator)),
        ("b", Some(&operator)),
        ("a", Some(&writer)),
        ("a", Some(&writer)),
        ("evertail", Some(&operator)),
        ("evertail", Some(&operator)),
        ("c", None),
    ];
    assert_eq!(events.len(), expected.len());
    for (event, (stream, producer)) in events.iter().zip(expected) {
        assert_eq!(event["stream"], stream);
        assert_eq!(event["producer"].as_str(), producer.map(String::as_str), "{event}");
        assert_eq!(event["address"].as_str(), producer.map(|_| "127.0.0.1"), "{event}");
    }
    let seq = events[0]["seq"].as_u64().unwrap();
    let one = get(&server, &admin, &format!("/api/v1/events/{seq}?producer=true")).await.json();
    assert_eq!(one, events[0]);
    assert!(get(&server, &admin, &format!("/api/v1/events/{seq}")).await.json().get("producer").is_none());
    assert!(!get(&server, &admin, "/api/v1/events").await.text().contains("token:"));
    for path in ["/api/v1/a?producer=true".to_owned(), format!("/api/v1/events/{seq}?producer=true")] {
        get(&server, &writes, &path).await.problem(403, "forbidden");
    }
    let stream = server.get("/api/v1/a?producer=true").header("accept", "text/event-stream").shows(&admin);
    Reply::of(stream).await.problem(400, "parameter_invalid");
}

#[tokio::test]
async fn without_authentication_everything_is_as_it_was() {
    let server = Server::start().await;
    server.append("a", "{}").await;
    let with_token = server.get("/api/v1/a").header("accept", JSON).shows("evt_anything");
    assert_eq!(Reply::of(with_token).await.status, 200);
    assert_eq!(server.page("/api/v1/a?ticket=x").await.status, 200);
    let page = server.page("/api/v1/a?producer=true").await.json();
    assert!(page["events"][0].get("producer").is_none(), "{page}");
    assert_eq!(Reply::of(server.get("/admin/tokens")).await.status, 200);
    for path in ["/auth/session", "/auth/tickets"] {
        Reply::of(server.post(path, JSON, "{}")).await.problem(404, "route_not_found");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_send_a_token_and_not_a_cookie() {
    let server = Server::start_with(on).await;
    let token = token(&server, &[], &["a"], false).await;
    let asked = server
        .request("OPTIONS", "/api/v1/a")
        .header("origin", "http://localhost:3000")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization");
    let reply = Reply::of(asked).await;
    assert!(reply.header("access-control-allow-headers").contains("authorization"));
    assert_eq!(reply.header("access-control-allow-credentials"), "");
    let read = server.get("/api/v1/a").header("accept", JSON).header("origin", "http://localhost:3000");
    let reply = Reply::of(read.shows(&token)).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, "http://localhost:3000"));
    let refused = server.get("/api/v1/a").header("accept", JSON).header("origin", "http://localhost:3000");
    let reply = Reply::of(refused).await;
    reply.problem(401, "unauthorized");
    assert_eq!(reply.header("access-control-allow-origin"), "http://localhost:3000", "the page sees why");
    assert!(reply.headers.get_all("vary").iter().any(|value| value == "authorization, cookie"));
}

#[tokio::test]
async fn streams_of_a_gap_are_named_to_who_may_read_them() {
    let server = Server::start_with(on).await;
    let narrow = token(&server, &[], &["a"], false).await;
    for stream in ["a", "b", "a", "b", "c"] {
        server.append_as(stream, "{}").await;
    }
    for stream in ["a", "b"] {
        let request = TrimRequest {
            stream: Some(StreamName::parse(stream).unwrap()),
            before: Some(4),
            ..TrimRequest::default()
        };
        within("the trim", server.log.trim(&request)).await.unwrap();
    }
    let mut stream = Stream::open(server.get("/api/v1/events?after=1").shows(&narrow)).await;
    stream.cursor().await;
    let (gap, _) = stream.control("evertail.gap").await;
    assert_eq!(gap["streams"], json!(["a"]));
    assert_eq!(stream.seqs(1).await, [4], "not yet told: {gap}");
}
