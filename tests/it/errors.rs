//! Problems as clients see them, who is let in, and requests that try to be two.

use crate::raw::Connection;
use crate::server::{Reply, Server, Settings, within};
use crate::table;
use evertail::auth::{AuthSettings, Grants, KeySource, TokenDraft};
use evertail::config::AllowedOrigin;
use evertail::event::Timestamp;
use evertail::http::{Closing, ProblemCode};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use sqlx::Connection as _;
use std::time::Duration;

const JSON: &str = "application/json";

/// Holds a problem against its snapshot, which has the name of its code: the status, the headers that belong to it,
/// and the body with a line for each member.
#[track_caller]
fn check(reply: &Reply) {
    check_as("", reply);
}

#[track_caller]
fn check_as(suffix: &str, reply: &Reply) {
    let problem = reply.any_problem();
    let mut shown = format!("{}\n", reply.status);
    for name in ["content-type", "cache-control", "allow", "retry-after", "connection", "www-authenticate"] {
        if !reply.header(name).is_empty() {
            shown.push_str(&format!("{name}: {}\n", reply.header(name)));
        }
    }
    let instance = problem["instance"].as_str().unwrap();
    shown.push_str(&reply.text().replace(instance, "req-...").replace(",\"", ",\n\""));
    if let Some(log) = problem["log"].as_str() {
        shown = shown.replace(log, "...");
    }
    let code = problem["code"].as_str().unwrap();
    insta::assert_snapshot!(format!("{code}{suffix}"), shown);
}

/// Sends one request as it stands.
async fn raw(server: &Server, request: &str) -> Reply {
    let mut connection = Connection::open(server.address).await;
    connection.send(request).await;
    connection.reply().await
}

async fn post(server: &Server, content_type: &str, body: &str) -> Reply {
    Reply::of(server.post("/api/v1/a", content_type, body.to_owned())).await
}

#[tokio::test]
async fn problems_of_the_request_itself() {
    let server = Server::start().await;
    check(&raw(&server, "GET /api/v1/a HTTP/1.1\r\n\r\n").await);
    check(&raw(&server, "GET /api/v1/a HTTP/1.1\r\nHost: evil.test\r\n\r\n").await);
    check(&Reply::of(server.get("/api/v1/a").header("origin", "https://evil.test")).await);
    check(&Reply::of(server.get("/nothing/here")).await);
    check(&Reply::of(server.request("DELETE", "/api/v1/a")).await);
    check(&Reply::of(server.get("/api/v1/a").header("accept", "text/html")).await);
    check(&Reply::of(server.get(&format!("/api/v1/a?type={}", "x".repeat(9000)))).await);
}

#[tokio::test]
async fn problems_of_a_client_that_wants_too_much() {
    let server = Server::start_with(|settings| {
        settings.connections.connections_max = 2;
        let limits = &mut settings.http.limits;
        limits.counts_this_machine = true;
        limits.client_streams_max = Some(1);
        limits.client_requests_per_second = std::num::NonZeroU32::new(3);
    })
    .await;
    let head = "GET /api/v1/a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut stream = Connection::open(server.address).await;
    stream.send(head).await;
    stream.head().await.unwrap();
    let mut client = Connection::open(server.address).await;
    client.send(head).await;
    check(&client.reply().await);
    check(&raw(&server, head).await);
    let mut reply = client.get("/readyz", "").await;
    while reply.status == 200 {
        reply = client.get("/readyz", "").await;
    }
    check(&reply);
}

#[tokio::test]
async fn problems_of_a_cloud_event() {
    let server = Server::start().await;
    let structured = r#"{"specversion":"1.0","id":"1","type":"error","dataschema":"/s","comexample":1,"data_base64":"eA=="}"#;
    check_as("_cloud_event", &post(&server, "application/cloudevents+json", structured).await);
    let binary = server.post("/api/v1/a", "application/avro", "x").header("ce-id", "1");
    check_as("_cloud_event", &Reply::of(binary).await);
}

#[tokio::test]
async fn problems_of_a_body() {
    let server = Server::start_with(|settings| {
        settings.http.event_bytes_max = 1 << 10;
        settings.http.batch_bytes_max = 8 << 10;
        settings.http.batch_events_max = 2;
    })
    .await;
    check(&post(&server, JSON, "").await);
    check(&post(&server, JSON, &" ".repeat(9000)).await);
    check(&post(&server, "application/xml", "<x/>").await);
    check(&Reply::of(server.post("/api/v1/a", JSON, "{}").header("content-encoding", "gzip")).await);
    check(&Reply::of(server.post("/api/v1/a", JSON, &b"{\"data\":\"\xff\"}"[..])).await);
    check(&post(&server, JSON, "{\"data\":}").await);
    check(&post(&server, JSON, r#"[{"data":1},{"type":"error","colour":"red"}]"#).await);
    check(&post(&server, JSON, &format!(r#"[{{}},{{"data":"{}"}}]"#, "x".repeat(2000))).await);
    check(&post(&server, JSON, "[{},{},{}]").await);
    check(&Reply::of(server.post("/api/v1/Audits", JSON, "{}")).await);
    check(&Reply::of(server.post("/api/v1/evertail", JSON, "{}")).await);
    check(&Reply::of(server.post("/api/v1/a", JSON, "{}").header("idempotency-key", "")).await);
    check(&Reply::of(server.post("/api/v1/a", JSON, "{}").header("if-match", "*")).await);
    assert_eq!(server.log.bounds().last_seq, 0);
}

#[tokio::test]
async fn problems_with_what_is_stored() {
    let server = Server::start().await;
    server.append("a", r#"[{"id":"1"},{},{}]"#).await;
    check(&post(&server, JSON, r#"{"id":"1","data":2}"#).await);
    check(&Reply::of(server.post("/api/v1/a", JSON, "{}").header("if-match", "\"1\"")).await);
    check(&server.page("/api/v1/a?colour=red").await);
    check(&server.page("/api/v1/a?after=-1").await);
    check_as("_of_an_event", &server.page("/api/v1/events/x").await);
    check(&server.page("/api/v1/a?after=9").await);
    check(&server.page("/api/v1/a?log=another").await);
    check(&server.page("/api/v1/events/4").await);
    check(&server.page("/api/v1/streams/b").await);
    assert_eq!(Reply::of(server.post("/api/v1/ended/close", JSON, "")).await.status, 201);
    check(&Reply::of(server.post("/api/v1/ended", JSON, "{}")).await);
    server.trim(2).await;
    check(&server.page("/api/v1/a?after=1").await);
    check_as("_of_an_event", &server.page("/api/v1/events/2").await);
}

#[tokio::test]
async fn problems_of_trims_and_holds() {
    let server =
        Server::start_with(|settings| settings.log.store.busy_timeout = Duration::from_millis(20)).await;
    server.append("a", "[{},{},{}]").await;
    let trim = |body: &'static str| Reply::of(server.post("/admin/trim", JSON, body));
    let hold = |path: &str, body: &'static str| {
        Reply::of(server.request("PUT", &format!("/admin/holds/{path}")).body(body))
    };
    check(&trim(r#"{"before":0,"older":"30d","dry_run":true}"#).await);
    check_as("_of_a_trim_of_nothing", &trim("{}").await);
    check_as("_of_a_trim", &trim("").await);
    check_as("_of_a_trim", &trim(r#"{"before":}"#).await);
    check_as("_of_a_trim", &Reply::of(server.post("/admin/trim", "text/plain", "all")).await);
    check_as("_of_a_trim", &trim(r#"{"stream":"b","before":2}"#).await);
    check_as(
        "_of_admin",
        &Reply::of(server.get("/admin/holds").header("origin", "http://localhost:1")).await,
    );
    check_as("_of_admin", &Reply::of(server.get("/admin/trim")).await);
    check(&hold("a/x%2Fy", r#"{"reason":"why"}"#).await);
    check_as("_of_a_hold", &hold("a/b", r#"{"reason":1}"#).await);
    assert_eq!(hold("a/case", r#"{"reason":"letter"}"#).await.status, 201);
    let differs = hold("a/case", r#"{"reason":"another"}"#).await;
    let created_at = server.table().await[3].created_at.clone();
    let text = differs.text();
    let since = text.split("since ").nth(1).and_then(|rest| rest.get(..27)).unwrap();
    assert!(since <= created_at.as_str(), "the hold is older than the event that tells of it");
    check(&Reply { body: text.replace(since, "...").into_bytes(), ..differs.clone() });
    check(&Reply::of(server.request("DELETE", "/admin/holds/a/other")).await);
    server.append("a", "[{},{}]").await;
    assert_eq!(Reply::of(server.request("DELETE", "/admin/holds/a/case")).await.status, 200);
    let mut other = table::connect(server.file()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    check(&trim(r#"{"before":2}"#).await);
    check_as("_of_a_hold", &hold("a/b", r#"{"reason":"why"}"#).await);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    let holds = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000)
        INSERT INTO holds SELECT 'a', 'hold-' || n, 'why', '2026-11-21T09:00:00.000000Z' FROM n";
    sqlx::query(holds).execute(&mut other).await.unwrap();
    check(&hold("a/one-more", r#"{"reason":"why"}"#).await);
    assert_eq!(Reply::of(server.request("DELETE", "/admin/holds/a/hold-7")).await.status, 200);
    assert_eq!(hold("a/one-more", r#"{"reason":"why"}"#).await.status, 201);
    assert_eq!(trim(r#"{"stream":"a","before":2}"#).await.json()["held_by"]["name"], "hold-1");
}

#[tokio::test]
async fn problems_of_streams_that_are_trimmed() {
    let server = Server::start().await;
    let events = r#"[{"stream":"b"},{"stream":"a"},{"stream":"a"},{"stream":"a"}]"#;
    assert_eq!(Reply::of(server.post("/api/v1/events", JSON, events)).await.status, 201);
    let trim = server.post("/admin/trim", JSON, r#"{"stream":"a","before":4}"#);
    assert_eq!(Reply::of(trim).await.status, 200);
    check_as("_of_a_stream", &server.page("/api/v1/a?after=1").await);
    check_as("_of_an_event_of_a_stream", &server.page("/api/v1/events/2").await);
}

#[tokio::test]
async fn slow_body_is_told_so() {
    let server = Server::start_with(|settings| settings.http.body_timeout = Duration::from_secs(1)).await;
    check(&raw(&server, "POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{").await);
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn full_queue_is_told_and_what_is_in_it_is_stored() {
    let server = Server::start_with(|settings| {
        settings.log.queue_requests_max = 1;
        settings.log.store.busy_timeout = Duration::from_secs(60);
    })
    .await;
    // Another process holds the write lock, so the writer waits with one request and one more waits for it.
    let mut other = table::connect(server.file()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let mut posts: FuturesUnordered<_> =
        (0..4).map(|_| Reply::of(server.post("/api/v1/a", JSON, "{}"))).collect();
    check(&posts.next().await.unwrap());
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    let statuses: Vec<u16> = posts.map(|reply| reply.status).collect().await;
    let stored = statuses.iter().filter(|status| **status == 201).count();
    assert!(stored >= 1 && statuses.iter().all(|status| matches!(status, 201 | 429)), "{statuses:?}");
    assert_eq!(server.table().await.len(), stored);
}

#[tokio::test]
async fn full_disk_is_told_and_heals() {
    let server = Server::start_with(|settings| settings.log.disk_free_bytes_min = u64::MAX).await;
    check(&post(&server, JSON, "{}").await);
    assert_eq!(
        Reply::of(server.get("/readyz")).await.status,
        200,
        "it can be read, and heals without a restart"
    );
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn foreign_write_lock_is_told() {
    let server =
        Server::start_with(|settings| settings.log.store.busy_timeout = Duration::from_millis(20)).await;
    let mut other = table::connect(server.file()).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    check(&post(&server, JSON, "{}").await);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    server.append("a", "{}").await;
    assert_eq!(server.table().await.len(), 1);
}

#[tokio::test]
async fn end_of_the_server_is_told_to_producers() {
    for why in [Closing::Drain, Closing::Unavailable] {
        let server = Server::start().await;
        server.append("a", "{}").await;
        assert_eq!(Reply::of(server.get("/readyz")).await.text(), "ready\n");
        server.close(why);
        check(&post(&server, JSON, "{}").await);
        check_as("_of_readyz", &Reply::of(server.get("/readyz")).await);
        assert_eq!(Reply::of(server.get("/healthz")).await.text(), "ok\n");
        assert_eq!(server.page("/api/v1/a").await.status, 200, "history is still read");
        assert_eq!(server.table().await.len(), 1);
    }
}

#[tokio::test]
async fn log_that_fails_is_told_to_producers_readers_and_streams() {
    let server = Server::start().await;
    server.append("a", "{}").await;
    let mut other = table::connect(server.file()).await;
    sqlx::query("DROP TABLE log").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    check(&server.page("/api/v1/a?since=1h").await);
    server.page("/api/v1/events/1").await.problem(503, "read_failed");
    // An append may meet the writer before or after it has noticed.
    let problem = post(&server, JSON, "{}").await.any_problem();
    let code = problem["code"].as_str().unwrap();
    assert!(matches!(code, "log_unavailable" | "draining"), "{problem}");
    within("the log closes its queue", async {
        while server.log.is_open() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let reply = Reply::of(server.get("/readyz")).await;
    reply.problem(503, "log_unavailable");
    // Only a 200 brings a native EventSource back.
    let mut stream = server.stream("/api/v1/a?since=1h").await;
    assert_eq!(stream.control("evertail.notice").await.0["reason"], "unavailable");
    assert_eq!(stream.event_or_end().await, None);
}

#[tokio::test]
async fn problems_of_credentials() {
    let server = Server::start_with(|settings| {
        let keys = Some(KeySource::SetUrl("http://127.0.0.1:1/jwks".into()));
        let audience = "evertail".to_owned();
        settings.auth = Some(AuthSettings { keys, issuer: None, audience, anonymous_read: vec![] });
    })
    .await;
    let token = async |grants: Grants, expires_at: Option<Timestamp>| {
        let draft = TokenDraft { name: "n".into(), grants, expires_at };
        let (secret, token) = draft.make().unwrap();
        let token = server.log.create_token(token).await.unwrap();
        evertail::auth::shown(&token, Some(&secret)).token.unwrap()
    };
    let nothing = || Grants { append: [].into(), read: [].into(), admin: false, metrics: false };
    let ask = async |token: &str, path: &str| Reply::of(server.get(path).bearer_auth(token)).await;
    check(&Reply::of(server.get("/api/v1/a")).await);
    check(&ask("nonsense", "/api/v1/a").await);
    check(&ask(&token(nothing(), Some(Timestamp::EPOCH)).await, "/api/v1/a").await);
    check(&ask(&token(nothing(), None).await, "/api/v1/a").await);
    check(&ask("eyJhbGciOiJFUzI1NiJ9.e30.AAAA", "/api/v1/a").await);
    let admin = token(Grants { admin: true, ..nothing() }, None).await;
    check(&Reply::of(server.request("DELETE", "/admin/tokens/none").bearer_auth(&admin)).await);
    let make = async |body: &'static str| {
        Reply::of(server.post("/admin/tokens", JSON, body).bearer_auth(&admin)).await
    };
    check_as("_of_a_token", &make("").await);
    check_as("_of_a_token", &make(r#"{"append":["A"],"expires_in":"soon"}"#).await);
    let mut other = table::connect(server.file()).await;
    let many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000)
        INSERT INTO tokens (id, name, hash, created_at)
        SELECT 'id-' || n, 'n', zeroblob(32), '2026-11-21T09:00:00.000000Z' FROM n";
    sqlx::query(many).execute(&mut other).await.unwrap();
    check(&make(r#"{"name":"x","admin":true}"#).await);
}

/// Beside the test binary: what the tests above have written down.
#[test]
fn every_code_that_can_be_reached_has_a_snapshot() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/snapshots");
    for code in ProblemCode::ALL.iter().filter(|code| **code != ProblemCode::Internal) {
        let file = format!("{folder}/it__errors__{}.snap", code.as_str());
        assert!(std::fs::exists(&file).unwrap(), "{file}");
    }
}

#[tokio::test]
async fn methods_that_a_path_does_not_take_are_answered_with_those_it_takes() {
    let server = Server::start().await;
    for (path, allowed, refused) in [
        ("/api/v1/a", "GET,HEAD,POST", &["PUT", "DELETE", "PATCH", "BREW"][..]),
        ("/api/v1/events", "GET,HEAD,POST", &["PUT", "DELETE"]),
        ("/api/v1/events/1", "GET,HEAD", &["POST", "PUT", "DELETE"]),
        ("/api/v1/streams", "GET,HEAD", &["POST", "PUT", "DELETE"]),
        ("/api/v1/streams/a", "GET,HEAD", &["POST", "PUT", "DELETE"]),
        ("/admin/trim", "POST", &["GET", "PUT", "DELETE"]),
        ("/admin/holds", "GET,HEAD", &["POST", "PUT", "DELETE"]),
        ("/admin/holds/a/b", "DELETE,PUT", &["GET", "POST"]),
        ("/api/v1/a/close", "POST", &["GET", "PUT", "DELETE"]),
        ("/", "GET,HEAD", &["POST"]),
        ("/healthz", "GET,HEAD", &["POST", "DELETE"]),
    ] {
        for method in refused {
            let reply = Reply::of(server.request(method, path)).await;
            reply.problem(405, "method_not_allowed");
            let mut methods: Vec<_> = reply.header("allow").split(',').map(str::trim).collect();
            methods.sort_unstable();
            assert_eq!(methods.join(","), allowed, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn paths_without_a_route_are_not_found_whatever_the_method() {
    let server = Server::start().await;
    for path in [
        "/x",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/a",
        "/api/v1/a/b",
        "/api/v1/events/1/2",
        "/api/v1/streams/",
        "/api/v1/streams/a/b",
        "/API/v1/a",
        "//",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            Reply::of(server.request(method, path)).await.problem(404, "route_not_found");
        }
        let reply = Reply::of(server.head(path)).await;
        assert_eq!((reply.status, reply.body.len()), (404, 0));
    }
}

#[tokio::test]
async fn every_answer_has_an_id_of_its_own_and_is_no_page_to_sniff() {
    let server = Server::start().await;
    let mut ids = std::collections::BTreeSet::new();
    for path in
        ["/", "/healthz", "/readyz", "/x", "/api/v1/events?limit=1&last=1", "/api/v1/events/1", "/api/v1/A"]
    {
        let reply = Reply::of(server.get(path).header("accept", "application/json, */*")).await;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert!(ids.insert(reply.header("x-request-id").to_owned()), "{path}");
    }
}

#[tokio::test]
async fn accept_chooses_the_representation() {
    let server = Server::start().await;
    server.append("a", "{}").await;
    for (accept, expected) in [
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("*/*", "text/event-stream; charset=utf-8"),
        ("text/*", "text/event-stream; charset=utf-8"),
        ("application/json", JSON),
        ("application/*", JSON),
        ("application/json;q=0.1, application/x-ndjson", "application/x-ndjson"),
        ("application/ndjson", "application/x-ndjson"),
        ("text/html, application/json", JSON),
    ] {
        let reply = Reply::of(server.get("/api/v1/a?after=0&limit=1").header("accept", accept)).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, expected), "{accept}");
    }
    for accept in ["text/html", "image/*", "", "application/json;q=0", "nonsense"] {
        let reply = Reply::of(server.get("/api/v1/a").header("accept", accept)).await;
        reply.problem(406, "not_acceptable");
    }
    // Whoever asks for nothing in particular gets a stream.
    let reply = raw(&server, "GET /api/v1/a?after=0&limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8");
}

#[tokio::test]
async fn id_of_a_request_is_taken_from_a_proxy_if_it_is_one() {
    let server = Server::start().await;
    let longest = "x".repeat(64);
    for id in ["7f2c-4e", "Root=1-67891233-abcdef", longest.as_str()] {
        let reply = Reply::of(server.get("/nowhere").header("x-request-id", id)).await;
        assert_eq!((reply.header("x-request-id"), reply.json()["instance"].as_str()), (id, Some(id)));
    }
    let too_long = "x".repeat(65);
    for ids in [&[""][..], &["a b"], &["a\"b"], &["a}"], &[too_long.as_str()], &["a", "a"]] {
        let request =
            ids.iter().fold(server.get("/nowhere"), |request, id| request.header("x-request-id", *id));
        let reply = Reply::of(request).await;
        assert!(reply.header("x-request-id").starts_with("req-"), "{ids:?}");
    }
}

/// Origins of this machine, and origins that are not.
const LOCAL: [&str; 4] =
    ["http://localhost:3000", "https://localhost", "http://127.0.0.1:5173", "http://[::1]:80"];
const FOREIGN: [&str; 7] = [
    "null",
    "https://evil.test",
    "http://localhost.evil.test",
    "http://evil.test:8888",
    "http://127.0.0.1.evil.test",
    "file://",
    "https://app.test:444",
];

async fn preflight(server: &Server, origin: &str) -> Reply {
    let request = server.request("OPTIONS", "/api/v1/a").header("origin", origin);
    let wanted = "content-type,last-event-id,idempotency-key,if-match,cache-control";
    let request = request.header("access-control-request-method", "POST");
    Reply::of(request.header("access-control-request-headers", wanted)).await
}

async fn assert_let_in(server: &Server, origin: &str) {
    let reply = preflight(server, origin).await;
    assert!((200..300).contains(&reply.status));
    let allowed = reply.header("access-control-allow-origin");
    assert!(allowed == origin || allowed == "*", "{origin}: {allowed:?}");
    for method in ["GET", "POST"] {
        assert!(reply.header("access-control-allow-methods").contains(method), "{origin}");
    }
    let headers = reply.header("access-control-allow-headers").to_ascii_lowercase();
    for header in ["content-type", "last-event-id", "idempotency-key", "if-match", "cache-control"] {
        assert!(headers.contains(header), "{header} of {headers}");
    }
    for (request, status) in [
        (server.post("/api/v1/a", JSON, "{}"), 201),
        (server.get("/api/v1/a?after=0&limit=1"), 200),
        (server.page_request(), 200),
        (server.get("/nothing"), 404),
        (server.post("/api/v1/a", JSON, "["), 400),
        (server.request("DELETE", "/api/v1/a"), 405),
    ] {
        let reply = Reply::of(request.header("origin", origin)).await;
        assert_eq!(reply.status, status, "{origin}: {}", reply.text());
        let allowed = reply.header("access-control-allow-origin");
        assert!(allowed == origin || allowed == "*", "{origin}: the page cannot read the {status}");
        let exposed = reply.header("access-control-expose-headers").to_ascii_lowercase();
        for header in ["location", "link", "retry-after", "x-request-id"] {
            assert!(exposed.contains(header), "{header} of {exposed}");
        }
        assert!(
            allowed == "*"
                || reply.headers.get_all("vary").iter().any(|v| v.to_str().unwrap().contains("origin"))
        );
        assert_eq!(reply.header("access-control-allow-credentials"), "");
    }
}

async fn assert_kept_out(server: &Server, origin: &str) {
    let before = server.log.bounds().last_seq;
    let reply = preflight(server, origin).await;
    assert_eq!(reply.header("access-control-allow-origin"), "", "{origin}");
    for request in [
        server.post("/api/v1/a", JSON, "{}"),
        server.post("/api/v1/a", "text/plain", "a cross-site form needs no preflight"),
        server.get("/api/v1/a"),
        server.page_request(),
        server.get("/"),
    ] {
        let reply = Reply::of(request.header("origin", origin)).await;
        reply.problem(403, "origin_refused");
        assert_eq!(reply.header("access-control-allow-origin"), "", "{origin}");
    }
    assert_eq!(server.log.bounds().last_seq, before);
}

impl Server {
    fn page_request(&self) -> reqwest::RequestBuilder {
        self.get("/api/v1/events").header("accept", JSON)
    }
}

#[tokio::test]
async fn pages_of_this_machine_are_let_in_and_no_others() {
    let server = Server::start().await;
    for origin in LOCAL {
        assert_let_in(&server, origin).await;
    }
    assert_let_in(&server, &format!("http://{}", server.address)).await;
    for origin in FOREIGN {
        assert_kept_out(&server, origin).await;
    }
}

#[tokio::test]
async fn listed_origins_are_let_in_too() {
    let server = Server::start_with(|Settings { http, .. }| {
        http.origins.allowed_origins =
            vec![AllowedOrigin::Exact("https://app.test".into()), AllowedOrigin::Null];
    })
    .await;
    for origin in ["https://app.test", "null", "http://localhost:1"] {
        assert_let_in(&server, origin).await;
    }
    for origin in
        ["https://evil.test", "http://app.test", "https://app.test:444", "https://app.test.evil.test"]
    {
        assert_kept_out(&server, origin).await;
    }
}

#[tokio::test]
async fn any_origin_is_let_in_where_any_is_listed() {
    let server =
        Server::start_with(|settings| settings.http.origins.allowed_origins = vec![AllowedOrigin::Any]).await;
    for origin in ["https://evil.test", "null", "http://localhost:1"] {
        assert_let_in(&server, origin).await;
    }
}

#[tokio::test]
async fn off_loopback_a_page_is_of_the_same_origin_or_listed() {
    let server = Server::start_with(|settings| settings.http.origins.is_loopback = false).await;
    assert_let_in(&server, &format!("http://{}", server.address)).await;
    for origin in ["http://localhost:3000", "http://127.0.0.1:1", "null", "https://evil.test"] {
        assert_kept_out(&server, origin).await;
    }
}

#[tokio::test]
async fn foreign_host_is_refused_on_every_route() {
    let server = Server::start().await;
    for host in [
        "evil.test",
        "evil.test:8888",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "[::2]:1",
        "10.0.0.1",
        "localhost.",
    ] {
        for path in ["/", "/healthz", "/readyz", "/api/v1/a", "/api/v1/events/1", "/nothing"] {
            let reply = raw(&server, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            reply.problem(421, "host_refused");
        }
        // A name that was bound to this machine after the page was loaded makes the page same-origin.
        let request = format!(
            "POST /api/v1/a HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        raw(&server, &request).await.problem(421, "host_refused");
    }
    assert!(server.table().await.is_empty());
    for host in ["localhost", "LocalHost:1", "127.0.0.1", "127.1.2.3:4", "[::1]", "[::1]:8888"] {
        let reply = raw(&server, &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{host}");
    }
}

#[tokio::test]
async fn listed_host_is_answered_and_off_loopback_every_host_unless_one_is_listed() {
    let hosts = |is_loopback, allowed: &'static str| {
        Server::start_with(move |settings| {
            settings.http.origins.is_loopback = is_loopback;
            settings.http.origins.allowed_hosts = allowed.split_whitespace().map(str::to_owned).collect();
        })
    };
    for (server, host, status) in [
        (hosts(true, "log.test").await, "log.test:1", 200),
        (hosts(true, "log.test").await, "localhost", 200),
        (hosts(true, "log.test").await, "other.test", 421),
        (hosts(false, "").await, "any.test", 200),
        (hosts(false, "log.test").await, "LOG.test", 200),
        (hosts(false, "log.test").await, "any.test", 421),
    ] {
        let reply = raw(&server, &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status, status, "{host}");
    }
}

/// A request that a proxy could take for another one than we do. What follows it on the connection must never be
/// answered.
const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Smuggled: yes\r\n\r\n";

#[tokio::test]
async fn request_of_two_meanings_is_never_two_requests() {
    let server = Server::start_with(impatient).await;
    let mut shapes: Vec<String> = Vec::new();
    let framings = [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 2\r\nContent-Length: 4",
        "Content-Length: 2, 4",
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: -2",
        "Content-Length: 0x2",
        "Content-Length: 2 2",
        "Content-Length: ",
        "Content-Length: two",
        "Content-Length: 18446744073709551617",
        "Content-Length : 2",
        " Content-Length: 2",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: ",
        "Transfer-Encoding : chunked",
        "X: a\r\n Transfer-Encoding: chunked",
        "X: a\r\n\tfolded",
        "X: a\0b",
        "X: a\rContent-Length: 2",
        "X\r\nContent-Length: 2",
        ": x",
        "X Y: z",
        "(: z",
    ];
    for framing in framings {
        for body in ["0\r\n\r\n", "{}", ""] {
            shapes.push(format!("POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{body}"));
        }
    }
    let chunked = "POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "2\n{}\n0\n\n",
        "2\r\n{}0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "\r\n{}\r\n0\r\n\r\n",
        "2;x\n\r\n{}\r\n0\r\n\r\n",
        "2;\nx\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "8000000000000000\r\n{}\r\n0\r\n\r\n",
        "2 2\r\n{}\r\n0\r\n\r\n",
        "g\r\n{}\r\n0\r\n\r\n",
    ] {
        shapes.push(format!("{chunked}{body}"));
    }
    for head in [
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n",
        "POST /api/v1/a HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "GET /healthz HTTP/0.9\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n",
        "GET /healthz http/1.1\r\nHost: localhost\r\n\r\n",
        "GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "GET /healthz HTTP/1.1 \r\nHost: localhost\r\n\r\n",
        "GET /health z HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET\t/healthz\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}",
    ] {
        shapes.push(head.to_owned());
    }
    let shown = join_all(shapes.iter().map(|shape| {
        let address = server.address;
        async move {
            let mut connection = Connection::open(address).await;
            connection.send(format!("{shape}{SMUGGLED}")).await;
            let bytes = connection.until_closed().await;
            let text = String::from_utf8_lossy(&bytes);
            let answers: Vec<&str> =
                text.match_indices("HTTP/1.").map(|(at, _)| text.get(at + 9..at + 12).unwrap()).collect();
            // A body that ends where both meanings say so may be taken; then the connection ends.
            assert!(answers.len() <= 1, "{shape:?} was answered {answers:?}");
            assert!(answers.iter().all(|status| *status < "500"), "{shape:?} was answered {answers:?}");
            assert!(
                text.is_empty() || answers.len() == 1 && text.starts_with("HTTP/1."),
                "{shape:?}: {text}"
            );
            (shape, answers.concat())
        }
    }));
    let taken = shown.await.into_iter().filter(|(_, status)| status == "201").count();
    assert_eq!(server.table().await.len(), taken);
}

/// Ends what a client leaves open, so that a test can wait for the end of a connection.
fn impatient(settings: &mut Settings) {
    let soon = Duration::from_millis(300);
    settings.http.body_timeout = soon;
    settings.connections.header_timeout = soon;
    settings.connections.idle_timeout = soon;
}

#[tokio::test]
async fn head_that_is_odd_but_clear_is_answered_once() {
    let server = Server::start().await;
    let long = "x".repeat(20_000);
    let many: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    for (request, statuses) in [
        // A lone LF ends a line, as RFC 9112 allows.
        ("GET /healthz HTTP/1.1\nHost: localhost\n\n".to_owned(), &[200, 400][..]),
        ("\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &[200, 400]),
        ("GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &[200, 400]),
        ("GET http://evil.test/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &[200, 400, 421]),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &[200, 204, 400, 404, 405]),
        ("CONNECT evil.test:443 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &[400, 404, 405]),
        ("TRACE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &[405]),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n".to_owned(), &[200]),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: the-impossible\r\n\r\n".to_owned(), &[200, 417]),
        (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), &[414, 431, 400]),
        (format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"), &[431, 400]),
        (format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), &[431, 400]),
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), &[200]),
        ("GET /healthz HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), &[200, 400, 421]),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}".to_owned(), &[200]),
        ("POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}".to_owned(), &[201, 400]),
        ("POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nX: y\r\n\r\n".to_owned(), &[201]),
        ("POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n02\r\n{}\r\n00\r\n\r\n".to_owned(), &[201]),
    ] {
        let mut connection = Connection::open(server.address).await;
        connection.send(&request).await;
        let shown = request.get(..100).unwrap_or(&request);
        let reply = connection.reply_to("GET").await.unwrap_or_else(|| panic!("{shown:?} was not answered"));
        assert!(statuses.contains(&reply.status), "{shown:?} was answered {}", reply.status);
        // Either the connection ends, or the next answer is that to the next request.
        connection.send("GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        if let Some(next) = connection.reply_to("GET").await {
            assert_eq!(next.status, 404, "{shown:?} was answered twice");
        }
    }
}

#[tokio::test]
async fn requests_one_behind_the_other_are_answered_in_order() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let post = |n: usize| {
        let body = format!(r#"{{"data":{n}}}"#);
        format!("POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    connection.send((0..20).map(post).collect::<String>()).await;
    for n in 1..=20 {
        let reply = connection.reply().await;
        assert_eq!((reply.status, reply.json()["seq"].as_u64()), (201, Some(n)));
    }
}
