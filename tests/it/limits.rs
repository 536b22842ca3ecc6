//! How much each client may have, and how those beyond it are told: an EventSource by a stream that ends, everyone else by
//! a problem.

use crate::raw::Connection;
use crate::server::{Reply, Server, within};
use reqwest::RequestBuilder;
use serde_json::Value;
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

const EVENT_SOURCE: &str = "accept: text/event-stream\r\n";
/// Sockets that say nothing may be that long in telling that they were closed.
const SOON: Duration = Duration::from_secs(5);

/// Checks that an EventSource was told to come back: a stream that says when, why, and ends.
fn assert_soft(reply: &Reply, reason: &str) {
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/event-stream; charset=utf-8"));
    let text = reply.text();
    let (retry, rest) = text.split_once('\n').expect("lines");
    let retry: u64 = retry.strip_prefix("retry: ").expect(&text).parse().unwrap();
    assert!((1_000..=5_000).contains(&retry));
    assert_eq!(rest, format!("event: evertail.notice\ndata: {{\"reason\":\"{reason}\"}}\n\n"));
}

/// As if a proxy on this machine said that the request comes from there.
fn from(request: RequestBuilder, address: &str) -> RequestBuilder {
    request.header("x-forwarded-for", address)
}

async fn behind_a_proxy(change: impl FnOnce(&mut evertail::http::LimitSettings)) -> Server {
    Server::start_with(|settings| {
        settings.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        change(&mut settings.http.limits);
    })
    .await
}

#[tokio::test]
async fn an_address_with_as_many_connections_as_it_may_is_told_so_on_the_next() {
    let server = Server::start_with(|settings| {
        settings.http.limits.counts_this_machine = true;
        settings.http.limits.address_connections_max = Some(2);
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(server.address).await;
        connection.send(format!("GET /api/v1/a HTTP/1.1\r\nhost: localhost\r\n{EVENT_SOURCE}\r\n")).await;
        assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 200"));
        open.push(connection);
    }
    let mut third = Connection::open(server.address).await;
    let reply = third.get("/api/v1/a", EVENT_SOURCE).await;
    assert_soft(&reply, "overloaded");
    assert_eq!(reply.header("connection"), "close");
    let mut fourth = Connection::open(server.address).await;
    let reply = fourth.get("/api/v1/a", "accept: application/json\r\n").await;
    let problem = reply.problem(503, "connections_full");
    assert_eq!((problem["retryable"].as_bool(), reply.header("retry-after")), (Some(true), "5"));
    assert!(fourth.is_closed_within(SOON).await);
    // A place that is left is free.
    drop(open.pop());
    within("a place is free", async {
        loop {
            let reply = Connection::open(server.address).await.get("/readyz", "").await;
            if reply.status == 200 {
                return;
            }
            reply.problem(503, "connections_full");
        }
    })
    .await;
}

#[tokio::test]
async fn beyond_all_connections_some_are_told_so_and_the_rest_closed_while_those_within_go_on() {
    let server = Server::start_with(|settings| settings.connections.connections_max = 3).await;
    let mut producer = Connection::open(server.address).await;
    producer.get("/readyz", "").await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut reader = Connection::open(server.address).await;
        reader.send(format!("GET /api/v1/a HTTP/1.1\r\nhost: localhost\r\n{EVENT_SOURCE}\r\n")).await;
        assert!(reader.head().await.unwrap().starts_with("HTTP/1.1 200"));
        reader.chunk().await.unwrap();
        readers.push(reader);
    }
    let reply = Connection::open(server.address).await.get("/api/v1/a", EVENT_SOURCE).await;
    assert_soft(&reply, "overloaded");
    let mut silent = Vec::new();
    for _ in 0..evertail::http::turned_away_max(3) {
        silent.push(Connection::open(server.address).await);
    }
    let mut one_too_many = Connection::open(server.address).await;
    assert!(one_too_many.is_closed_within(SOON).await, "no place is left even to be told so");
    producer
        .send("POST /api/v1/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{\"data\":1}")
        .await;
    assert_eq!(producer.reply().await.status, 201);
    for reader in &mut readers {
        assert!(String::from_utf8(reader.chunk().await.unwrap()).unwrap().contains("\"data\":1"));
    }
}

#[tokio::test]
async fn requests_beyond_those_of_a_second_are_refused_to_this_client_alone() {
    let server = behind_a_proxy(|limits| limits.client_requests_per_second = NonZeroU32::new(20)).await;
    let ask = async |address: &str, accept: &str| {
        let request = server.get("/api/v1/a?until=1h").header("accept", accept);
        Reply::of(from(request, address)).await
    };
    let mut refused = None;
    for _ in 0..200 {
        let reply = ask("192.0.2.1", "application/json").await;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
    }
    let reply = refused.expect("not so many in a second");
    let problem = reply.problem(429, "rate_limited");
    assert_eq!((problem["requests_per_second_max"].as_u64(), reply.header("retry-after")), (Some(20), "1"));
    assert_eq!(problem["no_effect"], Value::Bool(true));
    // Whoever asks for a stream finds the same limit, as an EventSource can bear it.
    let mut soft = ask("192.0.2.1", "text/event-stream").await;
    while !soft.text().contains("rate_limited") {
        soft = ask("192.0.2.1", "text/event-stream").await;
    }
    assert_soft(&soft, "rate_limited");
    assert_eq!(ask("192.0.2.2", "application/json").await.status, 200);
    // What a client says of itself moves nobody else's limit.
    assert_eq!(ask("192.0.2.1, 192.0.2.3", "application/json").await.status, 200);
}

#[tokio::test]
async fn a_client_with_as_many_streams_as_it_may_opens_no_other() {
    let server = behind_a_proxy(|limits| limits.client_streams_max = Some(2)).await;
    let open = async |address: &str| {
        let mut stream = crate::stream::Stream::open(from(server.get("/api/v1/a"), address)).await;
        stream.control("evertail.cursor").await;
        stream
    };
    let (first, _second, _other) =
        (open("2001:db8::1").await, open("2001:db8::2").await, open("192.0.2.2").await);
    let request = || from(server.get("/api/v1/a"), "2001:db8::3");
    let reply = Reply::of(request().header("accept", "text/event-stream")).await;
    assert_soft(&reply, "overloaded");
    let problem = Reply::of(request().header("accept", "*/*")).await.problem(429, "streams_full");
    assert_eq!(problem["streams_max"], 2);
    // Pages are no streams.
    assert_eq!(Reply::of(request().header("accept", "application/json")).await.status, 200);
    drop(first);
    within("a place is free", async {
        loop {
            let answer = request().header("accept", "*/*").send().await.unwrap();
            if answer.status() == 200 {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_has_lasted_long_enough_ends_softly_and_is_resumed() {
    let server =
        Server::start_with(|settings| settings.http.limits.stream_age_max = Some(Duration::from_millis(300)))
            .await;
    server.append("a", r#"{"data":1}"#).await;
    let mut stream = server.stream_after("/api/v1/a", 0).await;
    assert_eq!(stream.cursor().await, 0);
    assert_eq!(stream.seqs(1).await, [1]);
    assert_eq!(stream.control("evertail.notice").await.0["reason"], "age");
    assert!(stream.rest().await.is_empty());
    server.append("a", r#"{"data":2}"#).await;
    let mut again = server.stream_after("/api/v1/a", 1).await;
    assert_eq!((again.cursor().await, again.seqs(1).await), (1, vec![2]));
}

/// As after a restart: whoever lost the server comes back at a time of its own.
#[tokio::test]
async fn readers_are_told_to_come_back_spread_over_the_time_there_is() {
    let server = Server::start().await;
    let mut tenths = BTreeSet::new();
    for _ in 0..200 {
        let mut stream = Connection::open(server.address).await;
        stream.send(format!("GET /api/v1/a HTTP/1.1\r\nhost: localhost\r\n{EVENT_SOURCE}\r\n")).await;
        stream.head().await.unwrap();
        let opening = String::from_utf8(stream.chunk().await.unwrap()).unwrap();
        let retry: u64 = opening.lines().next().unwrap().strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!((1_000..=5_000).contains(&retry));
        tenths.insert((retry - 1_000) / 400);
    }
    // That a tenth stays empty has a chance of one in 10^8.
    assert!(tenths.len() >= 10, "{tenths:?}");
}
