//! One test for each bug there was, named after what went wrong.

use crate::raw::Connection;
use crate::server::{Reply, Server, within};
use std::time::Duration;

#[tokio::test]
async fn trimming_ended_the_log() {
    // `UPDATE streams SET events = events - gone.events FROM ...` was ambiguous, and the failure latched the log.
    let server = Server::start().await;
    server.append("a", "[{},{},{}]").await;
    server.append("b", "{}").await;
    server.trim(2).await;
    server.append("a", "{}").await;
    let rows = server.table().await;
    let shown: Vec<(u64, &str)> = rows.iter().map(|row| (row.seq, row.stream.as_str())).collect();
    assert_eq!(shown, [(3, "a"), (4, "b"), (5, "evertail"), (6, "a")]);
}

#[tokio::test]
async fn connection_was_never_closed_once_it_had_had_a_request() {
    // The timer was armed by a read alone, and hyper does not read again while an earlier read still waits.
    let server =
        Server::start_with(|settings| settings.connections.idle_timeout = Duration::from_millis(200)).await;
    server.append("a", "{}").await;
    let healthz = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let json = "GET /api/v1/a HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";
    let post = "POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    let chunked = "POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let missing = "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let head = "HEAD /api/v1/a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let preflight = "OPTIONS /api/v1/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n";
    for request in [healthz, json, post, chunked, missing, head, preflight] {
        let method = request.split(' ').next().unwrap();
        // Twice, so that the time begins anew; again, should it have been over in between.
        let mut connection = loop {
            let mut connection = Connection::open(server.address).await;
            connection.send(request).await;
            connection.reply_to(method).await.unwrap();
            connection.send(request).await;
            if connection.reply_to(method).await.is_some() {
                break connection;
            }
        };
        assert_eq!(connection.until_closed().await, b"", "{request}");
    }
}

#[tokio::test]
async fn form_or_query_that_was_not_utf_8_was_taken_with_replacement_characters() {
    // The form decoder replaces what it cannot decode, and says nothing.
    let server = Server::start().await;
    for body in ["data=%ff", "data=caf%E9", "data=1&id=%C3%28"] {
        let reply = Reply::of(server.post("/api/v1/a", "application/x-www-form-urlencoded", body)).await;
        reply.problem(400, "utf8_invalid");
    }
    for query in ["type=%ff", "stream=a%C3", "%ff=1", "log=%E9"] {
        server.page(&format!("/api/v1/events?{query}")).await.problem(400, "parameter_invalid");
    }
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn refusal_of_a_stream_s_parameters_on_history_did_not_name_the_parameter() {
    let server = Server::start().await;
    for (query, name) in [("format=data", "format"), ("event=message", "event")] {
        for reply in [
            server.page(&format!("/api/v1/a?{query}")).await,
            server.lines(&format!("/api/v1/a?{query}")).await,
        ] {
            assert_eq!(reply.problem(400, "parameter_invalid")["parameter"], name);
        }
    }
    assert_eq!(server.page("/api/v1/a?format=event").await.status, 200);
}

#[tokio::test]
async fn refusal_cut_off_whoever_was_still_sending() {
    // The connection was closed with most of the body unread, which resets it: a proxy then answers 502, and a client
    // that sends before it reads sees a broken pipe instead of what is wrong.
    let server = Server::start().await;
    for (headers, status, code) in [
        ("", 413, "body_too_large"),
        ("Transfer-Encoding: chunked\r\n", 413, "body_too_large"),
        ("If-Match: x\r\n", 400, "precondition_invalid"),
        ("Origin: https://evil.test\r\n", 403, "origin_refused"),
    ] {
        let mut body = vec![b' '; 16 << 20];
        let length = match headers.starts_with("Transfer-Encoding") {
            true => {
                body.splice(0..0, *b"1000000\r\n");
                body.extend_from_slice(b"\r\n0\r\n\r\n");
                String::new()
            }
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        let mut connection = Connection::open(server.address).await;
        let head = format!("POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n");
        connection.send(head).await;
        let sent = within("the body is taken", connection.try_send(&body)).await;
        assert!(sent.is_ok(), "{headers:?} {code}: {sent:?}");
        connection.reply().await.problem(status, code);
        assert_eq!(connection.get("/healthz", "").await.status, 200, "and the connection goes on");
    }
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn idempotency_keys_that_end_in_unicode_white_space_were_one_key() {
    // Every white space was cut off, a control character among it: two keys became one, and the second event was taken for
    // a repeat of the first.
    let server = Server::start().await;
    let post = async |key: &str| {
        let request = server.post("/api/v1/a", "application/json", "{}");
        Reply::of(request.header("idempotency-key", key.as_bytes())).await
    };
    for key in ["k", "k\u{a0}", "k\u{2028}", "\u{3000}k"] {
        let reply = post(key).await;
        assert_eq!((reply.status, reply.json()["id"].as_str()), (201, Some(key)), "{key:?}");
    }
    post("k\u{85}").await.problem(400, "idempotency_key_invalid");
    for same in ["\"k\"", " k\t"] {
        assert_eq!(post(same).await.status, 200, "{same:?}");
    }
}

#[tokio::test]
async fn since_0_was_now() {
    // humantime takes a bare 0 for no time at all: who meant the beginning got nothing, and was not told.
    let server = Server::start().await;
    server.append("a", "{}").await;
    for parameter in ["since", "until"] {
        let problem =
            server.page(&format!("/api/v1/a?{parameter}=0")).await.problem(400, "parameter_invalid");
        assert_eq!(problem["parameter"], parameter);
        assert_eq!(server.page(&format!("/api/v1/a?{parameter}=0s")).await.status, 200);
    }
}

#[tokio::test]
async fn if_match_was_taken_with_any_number_of_quotes_and_a_sign() {
    let server = Server::start().await;
    server.append("a", "{}").await;
    let append = |seq: &'static str| {
        Reply::of(server.post("/api/v1/a", "application/json", "{}").header("if-match", seq))
    };
    for bad in ["\"1", "1\"", "\"\"1\"\"", "+1", "\"+1\"", "\"\"", ""] {
        append(bad).await.problem(400, "precondition_invalid");
    }
    assert_eq!(append("\"1\"").await.status, 201);
    assert_eq!(append("2").await.status, 201);
}

#[tokio::test]
async fn whole_number_with_a_fraction_of_zero_was_no_whole_number() {
    // JSON has one kind of numbers, and OpenAPI's integer takes 2.0.
    let server = Server::start().await;
    server.append("a", "[{},{},{}]").await;
    let trim = |body: &'static str| Reply::of(server.post("/admin/trim", "application/json", body));
    for bad in ["1.5", "-1.0", "0.0", "1e300", "9007199254740992.0"] {
        let body = format!(r#"{{"before":{bad},"dry_run":true}}"#);
        Reply::of(server.post("/admin/trim", "application/json", body)).await.problem(400, "body_invalid");
    }
    assert_eq!(trim(r#"{"before":3.0}"#).await.json()["events"], 2);
}

#[tokio::test]
async fn notices_that_open_a_stream_took_the_cursor_from_some_clients() {
    // A Rust client forgets its cursor at a first block without an id: after a full server it began anew, or skipped what
    // it had missed.
    let server = Server::start_with(|settings| {
        settings.http.limits.counts_this_machine = true;
        settings.http.limits.client_streams_max = Some(1);
    })
    .await;
    server.append("a", "[{},{},{}]").await;
    let mut first = Connection::open(server.address).await;
    first.send("GET /api/v1/a HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(first.head().await.unwrap().starts_with("HTTP/1.1 200"));
    for (header, id) in [("last-event-id: 2\r\n", "id: 2\n"), ("", "")] {
        let mut second = Connection::open(server.address).await;
        let reply = second.get("/api/v1/a", &format!("accept: text/event-stream\r\n{header}")).await;
        let notice = "event: evertail.notice\ndata: {\"reason\":\"overloaded\"}\n";
        assert!(reply.text().ends_with(&format!("\n{notice}{id}\n")), "{:?}", reply.text());
    }
}
