//! Clients that send or read slowly, or not at all. The server's times are set short; no test measures one, each waits
//! for what must happen.

use crate::raw::Connection;
use crate::server::{Server, Settings, within};
use std::time::Duration;

/// Never reached within a test.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(200);

/// A server of which only the times that are changed ever end anything.
async fn patient(change: impl FnOnce(&mut Settings)) -> Server {
    Server::start_with(|settings| {
        settings.http.body_timeout = NEVER;
        settings.connections.header_timeout = NEVER;
        settings.connections.idle_timeout = NEVER;
        settings.connections.send_timeout = NEVER;
        change(settings);
    })
    .await
}

const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn silent_socket_is_closed_after_the_time_for_a_head() {
    let server = patient(|settings| settings.connections.header_timeout = SOON).await;
    let mut connection = Connection::open(server.address).await;
    assert_eq!(connection.until_closed().await, b"");
}

#[tokio::test]
async fn half_a_head_is_closed_after_its_time_however_steadily_it_drips() {
    let server = patient(|settings| settings.connections.header_timeout = SOON).await;
    let mut stuck = Connection::open(server.address).await;
    stuck.send("GET /healthz HTTP/1.1\r\nHost: local").await;
    assert_eq!(stuck.until_closed().await, b"");
    let mut dripping = Connection::open(server.address).await;
    dripping.send("GET /healthz HTTP/1.1\r\n").await;
    within("the server closes", async {
        // A byte every moment: no silence is ever longer than that.
        while !dripping.is_closed_within(Duration::from_millis(10)).await {
            dripping.send("X").await;
        }
    })
    .await;
}

#[tokio::test]
async fn second_head_has_its_time_too() {
    let server = patient(|settings| settings.connections.header_timeout = SOON).await;
    let mut connection = Connection::open(server.address).await;
    assert_eq!(connection.get("/healthz", "").await.status, 200);
    connection.send("GET /healthz HTTP/1.1\r\nHost: local").await;
    assert_eq!(connection.until_closed().await, b"");
}

#[tokio::test]
async fn idle_connection_outlives_the_time_for_a_head() {
    let server = patient(|settings| settings.connections.header_timeout = SOON).await;
    let mut idle = Connection::open(server.address).await;
    assert_eq!(idle.get("/healthz", "").await.status, 200);
    for _ in 0..2 {
        // Connections that say nothing are closed while this one waits; it began to wait before each of them.
        let mut silent = Connection::open(server.address).await;
        assert_eq!(silent.until_closed().await, b"");
        assert_eq!(idle.get("/healthz", "").await.status, 200);
    }
}

#[tokio::test]
async fn slow_body_is_answered_408_and_stores_nothing() {
    let server = patient(|settings| settings.http.body_timeout = SOON).await;
    let head = "POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\n";
    for rest in [
        "Content-Length: 9\r\n\r\n",
        "Content-Length: 9\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ] {
        let mut connection = Connection::open(server.address).await;
        connection.send(format!("{head}{rest}")).await;
        let problem = connection.reply().await.problem(408, "request_timeout");
        assert_eq!(problem["retryable"], true);
        // What comes late must not be taken for the next request.
        connection.send(HEALTHZ).await;
        assert_eq!(connection.until_closed().await, b"");
    }
    assert!(server.table().await.is_empty());
}

#[tokio::test]
async fn body_that_drips_has_no_longer_than_one_that_stops() {
    let server = patient(|settings| settings.http.body_timeout = SOON).await;
    let mut connection = Connection::open(server.address).await;
    connection.send("POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n").await;
    let answered = async {
        while !connection.has_bytes_within(Duration::from_millis(10)).await {
            connection.send(" ").await;
        }
    };
    within("the answer", answered).await;
    connection.reply().await.problem(408, "request_timeout");
}

#[tokio::test]
async fn stream_outlives_every_time_of_a_request() {
    let server = patient(|settings| {
        settings.http.body_timeout = SOON;
        settings.connections.header_timeout = SOON;
        settings.connections.idle_timeout = SOON;
        settings.http.keep_alive = Duration::from_millis(100);
    })
    .await;
    let mut stream = server.stream("/api/v1/a").await;
    stream.cursor().await;
    let mut silent = Connection::open(server.address).await;
    silent.until_closed().await;
    for _ in 0..8 {
        stream.keep_alive().await;
    }
    server.append("a", "{}").await;
    assert_eq!(stream.seqs(1).await, [1]);
}

#[tokio::test]
async fn reader_that_does_not_read_holds_up_nobody_and_is_disconnected() {
    let server = patient(|settings| {
        settings.connections.send_timeout = Duration::from_secs(3);
        settings.connections.send_buffer_bytes = 8 << 10;
        // The stuck reader, the other reader, and one connection of the producer.
        settings.connections.connections_max = 3;
        settings.log.window_bytes_max = 64 << 10;
    })
    .await;
    let mut stuck = Connection::open_narrow(server.address).await;
    stuck.send("GET /api/v1/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stuck.head().await.unwrap();
    let mut reader = server.stream("/api/v1/a").await;
    reader.cursor().await;
    let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(1000));
    let batch = format!("[{}]", vec![event; 100].join(","));
    for round in 0..20 {
        server.append("a", &batch).await;
        let expected: Vec<u64> = (round * 100 + 1..=round * 100 + 100).collect();
        assert_eq!(reader.seqs(100).await, expected);
    }
    // A fourth connection finds a place in the end. Nobody gives one up but the server, and only that of the stuck reader.
    within("a place is free", async {
        while Connection::open(server.address).await.get("/healthz", "").await.status != 200 {}
    })
    .await;
    server.append("a", "{}").await;
    assert_eq!(reader.seqs(1).await, [2001]);
    // What it had taken is whole frames, and it has not had everything.
    let mut bytes = Vec::new();
    while let Some(chunk) = stuck.chunk().await {
        bytes.extend(chunk);
    }
    let ids: Vec<u64> =
        crate::stream::blocks(&bytes, false)[1..].iter().map(|block| block.id.unwrap()).collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
    assert!(ids.len() < 2000);
}

#[tokio::test]
async fn connection_beyond_the_most_waits_a_little_and_is_told_so_or_served() {
    let server = patient(|settings| settings.connections.connections_max = 2).await;
    let mut first = Connection::open(server.address).await;
    let mut second = Connection::open(server.address).await;
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.get("/healthz", "").await.status, 200);
    }
    Connection::open(server.address).await.get("/healthz", "").await.problem(503, "connections_full");
    assert_eq!(first.get("/healthz", "").await.status, 200);
    let mut third = Connection::open(server.address).await;
    third.send(HEALTHZ).await;
    drop(first);
    assert_eq!(third.reply().await.status, 200);
    assert_eq!(second.get("/healthz", "").await.status, 200);
}

#[tokio::test]
async fn reader_that_leaves_gives_its_place_up() {
    let server = patient(|settings| settings.connections.connections_max = 1).await;
    for _ in 0..5 {
        let mut connection = Connection::open(server.address).await;
        connection.send("GET /api/v1/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        connection.head().await.unwrap();
    }
    let mut connection = Connection::open(server.address).await;
    assert_eq!(connection.get("/healthz", "").await.status, 200);
}

#[tokio::test]
async fn stop_answers_what_is_under_way_and_ends_what_is_idle() {
    let server = patient(|_| ()).await;
    let mut idle = Connection::open(server.address).await;
    assert_eq!(idle.get("/healthz", "").await.status, 200);
    let mut posting = Connection::open(server.address).await;
    posting
        .send(
            "POST /api/v1/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
    assert_eq!(posting.reply().await.status, 100, "its request is under way");
    let mut stream = server.stream("/api/v1/a").await;
    stream.cursor().await;
    let finishing = async {
        assert_eq!(stream.control("evertail.notice").await.0["reason"], "drain");
        assert_eq!(stream.event_or_end().await, None);
        assert_eq!(idle.until_closed().await, b"");
        posting.send("{}").await;
        assert_eq!(posting.reply().await.status, 201, "it was let in before the end began");
        drop(stream);
    };
    let (server, ()) = tokio::join!(server.restart(), finishing);
    assert_eq!(server.table().await.len(), 1);
}

#[tokio::test]
async fn client_that_goes_on_talking_on_a_stream_is_cut() {
    let server = patient(|_| ()).await;
    let mut connection = Connection::open(server.address).await;
    connection.send("GET /api/v1/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    connection.peek_head().await.unwrap();
    // A word or two is let pass, as a second request that nobody will answer.
    connection.send(HEALTHZ).await;
    server.append("a", "{}").await;
    connection.until_closed_or(b"id: 1\n\n\r\n").await;
    within("the server closes", async {
        while !connection.is_closed_within(Duration::from_millis(1)).await {
            connection.send([b'x'; 4096]).await;
        }
    })
    .await;
    assert_eq!(server.append("a", "{}").await[0].seq, 2);
}
