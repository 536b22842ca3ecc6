//! HTTP/2: many streams on one connection, and clients that abuse it. Requests are made with the h2 crate; floods are
//! made of bytes.

use crate::raw::Connection;
use crate::server::{Server, within};
use crate::stream::blocks;
use crate::tls::{Identity, secure};
use axum::http;
use bytes::Bytes;
use evertail::config::AllowedOrigin;
use evertail::http::Closing;
use futures_util::future::select_all;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use reqwest::Version;
use serde_json::Value;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::client::TlsStream;

const SOON: Duration = Duration::from_millis(300);
/// Never reached within a test.
const NEVER: Duration = Duration::from_secs(3600);

/// One connection of a client.
struct Client {
    requests: SendRequest<Bytes>,
    /// Ends as the connection does.
    ended: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    async fn connect(identity: &Identity, server: &Server) -> Self {
        Self::with(identity, server, |_| ()).await
    }

    async fn with(
        identity: &Identity,
        server: &Server,
        change: impl FnOnce(&mut h2::client::Builder),
    ) -> Self {
        let socket = identity.connect(server.address, &["h2"]).await.unwrap();
        assert_eq!(socket.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(16 << 20).initial_connection_window_size(16 << 20);
        change(&mut builder);
        let (requests, connection) = builder.handshake(socket).await.unwrap();
        Self { requests, ended: tokio::spawn(connection) }
    }

    /// Sends a request; what is to follow as its body goes on from there.
    async fn ask(
        &mut self,
        request: http::request::Builder,
        is_whole: bool,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        self.requests = within("room for a request", self.requests.clone().ready()).await?;
        self.requests.send_request(request.body(()).unwrap(), is_whole)
    }

    async fn get(&mut self, path: &str) -> http::Response<RecvStream> {
        let (answer, _) = self.ask(request("GET", path), true).await.unwrap();
        within("the answer", answer).await.unwrap()
    }
}

fn request(method: &str, path: &str) -> http::request::Builder {
    let uri = format!("https://localhost{path}");
    http::Request::builder().version(Version::HTTP_2).method(method).uri(uri)
}

/// The whole body of an answer.
async fn body(answer: http::Response<RecvStream>) -> Vec<u8> {
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = within("the rest of the answer", body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    bytes
}

async fn problem(answer: http::Response<RecvStream>, status: u16, code: &str) {
    assert_eq!(answer.status().as_u16(), status);
    let body: Value = serde_json::from_slice(&body(answer).await).unwrap();
    assert_eq!(body["code"], code, "{body}");
}

#[tokio::test]
async fn many_streams_share_a_connection_and_each_gets_every_event() {
    let identity = Identity::new();
    // The client's connection and its streams, and the one connection of the producer.
    let server = secure(&identity, |settings| settings.connections.connections_max = 102).await;
    let mut client = Client::connect(&identity, &server).await;
    let mut readers = Vec::new();
    for _ in 0..100 {
        let answer = client.get("/api/v1/a?after=0&limit=50").await;
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().get("connection").is_none());
        assert!(answer.headers().get("transfer-encoding").is_none());
        readers.push(tokio::spawn(body(answer)));
    }
    for _ in 0..50 {
        server.append("a", "{}").await;
    }
    for reader in readers {
        let blocks = blocks(&within("the end of the stream", reader).await.unwrap(), true);
        let ids: Vec<u64> = blocks[1..].iter().map(|block| block.id.unwrap()).collect();
        assert_eq!(ids, (1..=50).collect::<Vec<_>>());
    }
    // The places are free again.
    assert_eq!(client.get("/api/v1/a").await.status(), 200);
}

#[tokio::test]
async fn stream_beyond_the_most_is_told_to_come_back() {
    let identity = Identity::new();
    // The connection, and two streams.
    let server = secure(&identity, |settings| settings.connections.connections_max = 3).await;
    let mut client = Client::connect(&identity, &server).await;
    let mut open = [client.get("/api/v1/a").await, client.get("/api/v1/a").await];
    for stream in &mut open {
        let first = within("the cursor", stream.body_mut().data()).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&first).contains("evertail.cursor"));
    }
    let away = client.get("/api/v1/a").await;
    assert_eq!(
        (away.status().as_u16(), &away.headers()["content-type"]),
        (200, &"text/event-stream; charset=utf-8".parse().unwrap())
    );
    let blocks = blocks(&within("the end", body(away)).await, true);
    assert_eq!(blocks[0].event.as_deref(), Some("evertail.notice"));
    assert_eq!(blocks[0].data, [r#"{"reason":"overloaded"}"#]);
    assert!(blocks.len() == 1 && blocks[0].retry.is_some());
    // Requests are not streams.
    assert_eq!(client.get("/healthz").await.status(), 200);
    drop(open);
    within("a place is free", async {
        loop {
            let mut stream = client.get("/api/v1/a").await.into_body();
            let first = within("the first block", stream.data()).await.unwrap().unwrap();
            if !String::from_utf8_lossy(&first).contains("overloaded") {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn host_and_origin_are_those_of_http2() {
    let identity = Identity::new();
    let server = secure(&identity, |settings| {
        settings.http.origins.allowed_hosts = vec!["log.test".into()];
    })
    .await;
    let mut client = Client::connect(&identity, &server).await;
    let at = |authority: &str| http::Request::builder().uri(format!("https://{authority}/healthz"));
    let mut answer = async |request| {
        let (answer, _) = client.ask(request, true).await.unwrap();
        within("the answer", answer).await.unwrap()
    };
    assert_eq!(answer(at("localhost:8888")).await.status(), 200);
    problem(answer(at("evil.test")).await, 421, "host_refused").await;
    assert_eq!(answer(at("log.test").header("host", "log.test")).await.status(), 200);
    let refused = answer(at("log.test").header("host", "localhost")).await;
    assert!(refused.headers().get("connection").is_none());
    problem(refused, 400, "request_invalid").await;
    assert_eq!(answer(at("log.test").header("origin", "https://log.test")).await.status(), 200);
    problem(answer(at("log.test").header("origin", "http://log.test")).await, 403, "origin_refused").await;
}

#[tokio::test]
async fn admin_is_for_pages_of_this_server_over_http2_too() {
    let identity = Identity::new();
    let server = secure(&identity, |settings| {
        settings.http.origins.allowed_hosts = vec!["log.test".into()];
        settings.http.origins.allowed_origins = vec![AllowedOrigin::Any];
    })
    .await;
    let mut client = Client::connect(&identity, &server).await;
    let holds = || http::Request::builder().uri("https://log.test:8888/admin/holds");
    let mut answer = async |request| {
        let (answer, _) = client.ask(request, true).await.unwrap();
        within("the answer", answer).await.unwrap()
    };
    assert_eq!(answer(holds()).await.status(), 200);
    let own = answer(holds().header("origin", "https://log.test:8888")).await;
    assert_eq!(body(own).await, br#"{"holds":[]}"#);
    // Another page, one that came without TLS, and the address under which the server is not asked.
    for foreign in ["https://app.test", "http://log.test:8888", "https://localhost:8888"] {
        problem(answer(holds().header("origin", foreign)).await, 403, "origin_refused").await;
    }
    let cross_site = holds().header("sec-fetch-site", "cross-site");
    problem(answer(cross_site).await, 403, "origin_refused").await;
}

#[tokio::test]
async fn bodies_have_their_bounds_too() {
    let identity = Identity::new();
    let server = secure(&identity, |settings| {
        settings.http.body_timeout = Duration::from_secs(2);
        settings.http.event_bytes_max = 1 << 10;
        settings.http.batch_bytes_max = 600 << 10;
    })
    .await;
    let mut client = Client::connect(&identity, &server).await;
    let (slow, mut sending) = client.ask(request("POST", "/api/v1/a"), false).await.unwrap();
    sending.send_data("{".into(), false).unwrap();
    problem(within("the answer", slow).await.unwrap(), 408, "request_timeout").await;
    let announced = request("POST", "/api/v1/a").header("content-length", 600 << 20);
    let (announced, _sending) = client.ask(announced, false).await.unwrap();
    problem(within("the answer", announced).await.unwrap(), 413, "body_too_large").await;
    // More than the window of one request holds, and more than is taken.
    let (large, mut sending) = client.ask(request("POST", "/api/v1/a"), false).await.unwrap();
    sending.send_data(vec![b' '; 601 << 10].into(), true).unwrap();
    problem(within("the answer", large).await.unwrap(), 413, "body_too_large").await;
    let (whole, mut sending) = client.ask(request("POST", "/api/v1/a"), false).await.unwrap();
    let events = format!("[{}]", vec![format!(r#"{{"data":"{}"}}"#, "x".repeat(900)); 500].join(","));
    sending.send_data(events.into(), true).unwrap();
    assert_eq!(within("the answer", whole).await.unwrap().status(), 201);
    assert_eq!(server.table().await.len(), 500);
}

/// Sends this much of a body as the window allows, never the end; counts what went.
async fn send_counted(mut sending: h2::SendStream<Bytes>, bytes: usize, sent: Arc<AtomicUsize>) {
    let mut left = bytes;
    while left > 0 {
        sending.reserve_capacity(left);
        let Some(Ok(capacity)) = poll_fn(|cx| sending.poll_capacity(cx)).await else { return };
        let part = capacity.min(left);
        if sending.send_data(vec![b' '; part].into(), false).is_err() {
            return;
        }
        left -= part;
        sent.fetch_add(part, Ordering::Relaxed);
    }
    pending().await
}

#[tokio::test]
async fn bodies_of_one_connection_have_a_joint_bound() {
    let identity = Identity::new();
    let server = secure(&identity, |settings| settings.http.body_timeout = Duration::from_secs(3)).await;
    let mut client = Client::connect(&identity, &server).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let (mut answers, mut senders) = (Vec::new(), JoinSet::new());
    for _ in 0..60 {
        let (answer, sending) = client.ask(request("POST", "/api/v1/a"), false).await.unwrap();
        answers.push(answer);
        senders.spawn(send_counted(sending, 1 << 20, sent.clone()));
    }
    // Time is over for all of them nearly at once, so little of what they held has made room for more.
    let (answer, _, answers) = within("the answer", select_all(answers)).await;
    let sent = sent.load(Ordering::Relaxed);
    problem(answer.unwrap(), 408, "request_timeout").await;
    // 8 MiB in their room, 1 MiB for the one whose turn it is, less than 8 MiB in their windows; and not 60.
    assert!((8 << 20..30 << 20).contains(&sent), "{sent} bytes were taken");
    // There is room again.
    drop(answers);
    senders.shutdown().await;
    let (whole, mut sending) = client.ask(request("POST", "/api/v1/a"), false).await.unwrap();
    sending.send_data("{}".into(), true).unwrap();
    assert_eq!(within("the answer", whole).await.unwrap().status(), 201);
}

#[tokio::test]
async fn bodies_that_need_more_than_their_room_are_all_read() {
    let identity = Identity::new();
    let server = secure(&identity, |settings| settings.http.event_bytes_max = 1 << 20).await;
    let mut client = Client::connect(&identity, &server).await;
    let mut answers = Vec::new();
    for _ in 0..40 {
        let (answer, mut sending) = client.ask(request("POST", "/api/v1/a"), false).await.unwrap();
        // All of them begin before one of them is whole.
        sending.send_data(format!(r#"{{"data":"{}"#, "x".repeat(600 << 10)).into(), false).unwrap();
        answers.push((answer, sending));
    }
    for (_, sending) in &mut answers {
        sending.send_data(r#""}"#.into(), true).unwrap();
    }
    for (answer, _) in answers {
        assert_eq!(within("the answer", answer).await.unwrap().status(), 201);
    }
    assert_eq!(server.table().await.len(), 40);
}

#[tokio::test]
async fn reader_that_takes_nothing_holds_up_nobody_and_is_reset() {
    let identity = Identity::new();
    let server = secure(&identity, |settings| {
        settings.log.window_bytes_max = 64 << 10;
        settings.connections.send_timeout = Duration::from_secs(3);
    })
    .await;
    let mut client = Client::with(&identity, &server, |builder| {
        builder.initial_window_size(0);
    })
    .await;
    let stuck_page = client.get("/api/v1/streams").await;
    let mut stuck = client.get("/api/v1/a?after=0").await.into_body();
    let mut reader = server.stream("/api/v1/a").await;
    reader.cursor().await;
    let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(1000));
    let batch = format!("[{}]", vec![event; 100].join(","));
    for round in 0..20 {
        server.append("a", &batch).await;
        let expected: Vec<u64> = (round * 100 + 1..=round * 100 + 100).collect();
        assert_eq!(reader.seqs(100).await, expected);
    }
    // The stuck ones end, by a reset each, and the connection goes on.
    for body in [&mut stuck, &mut stuck_page.into_body()] {
        let error = within("the reset", body.data()).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CANCEL), "{error}");
    }
    assert_eq!(client.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn reader_that_takes_little_is_not_taken_for_stuck() {
    let identity = Identity::new();
    let server = secure(&identity, |settings| {
        settings.connections.send_timeout = Duration::from_secs(1);
        settings.connections.idle_timeout = NEVER;
    })
    .await;
    let mut client = Client::with(&identity, &server, |builder| {
        builder.initial_window_size(4 << 10);
    })
    .await;
    let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(1000));
    server.append("a", &format!("[{}]", vec![event; 50].join(","))).await;
    let mut stream = client.get("/api/v1/a?after=0&limit=51").await.into_body();
    let mut bytes = Vec::new();
    // The last event comes after a silence that is longer than the time to take something.
    while !bytes.ends_with(b"id: 50\n\n") {
        let data = within("more", stream.data()).await.unwrap().unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    // Another that takes nothing is reset meanwhile, and began to wait later.
    let mut other = Client::with(&identity, &server, |builder| {
        builder.initial_window_size(0);
    })
    .await;
    let mut stuck = other.get("/api/v1/a?after=0").await.into_body();
    within("the reset", stuck.data()).await.unwrap().unwrap_err();
    server.append("a", "{}").await;
    while let Some(data) = within("the last event", stream.data()).await {
        bytes.extend_from_slice(&data.unwrap());
    }
    assert_eq!(blocks(&bytes, true).len(), 52);
}

#[tokio::test]
async fn connection_without_requests_is_sent_away() {
    let identity = Identity::new();
    let server = secure(&identity, |settings| settings.connections.idle_timeout = SOON).await;
    let mut client = Client::connect(&identity, &server).await;
    // A stream is no idleness, however little happens on it.
    let stream = client.get("/api/v1/a").await;
    let mut other = Client::connect(&identity, &server).await;
    assert_eq!(other.get("/healthz").await.status(), 200);
    within("the connection ends", other.ended).await.unwrap().unwrap();
    assert_eq!(client.get("/healthz").await.status(), 200);
    drop(stream);
    within("the connection ends", client.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn stop_ends_streams_and_answers_what_is_under_way() {
    let identity = Identity::new();
    let server = secure(&identity, |_| ()).await;
    let mut client = Client::connect(&identity, &server).await;
    let stream = client.get("/api/v1/a").await;
    let (posting, mut sending) = client.ask(request("POST", "/api/v1/a"), false).await.unwrap();
    sending.send_data("{".into(), false).unwrap();
    assert_eq!(client.get("/healthz").await.status(), 200, "all before it has arrived");
    let finishing = async {
        let blocks = blocks(&body(stream).await, true);
        assert_eq!(blocks.last().unwrap().data, [r#"{"reason":"drain"}"#]);
        sending.send_data("}".into(), true).unwrap();
        assert_eq!(within("the ack", posting).await.unwrap().status(), 201);
        within("the connection ends", client.ended).await.unwrap().unwrap();
    };
    let (server, ()) = tokio::join!(server.restart(), finishing);
    assert_eq!(server.table().await.len(), 1);
}

#[tokio::test]
async fn log_that_fails_is_told_on_every_stream() {
    let identity = Identity::new();
    let server = secure(&identity, |_| ()).await;
    let mut client = Client::connect(&identity, &server).await;
    let streams = [client.get("/api/v1/a").await, client.get("/api/v1/events").await];
    server.close(Closing::Unavailable);
    for stream in streams {
        let blocks = blocks(&body(stream).await, true);
        assert_eq!(blocks.last().unwrap().data, [r#"{"reason":"unavailable"}"#]);
    }
}

/// A server on which only abuse ends a connection, and one reader of it.
async fn abused(identity: &Identity) -> (Server, crate::stream::Stream) {
    let server = secure(identity, |settings| {
        settings.http.body_timeout = NEVER;
        settings.connections.header_timeout = NEVER;
        settings.connections.idle_timeout = NEVER;
    })
    .await;
    let mut reader = server.stream("/api/v1/a").await;
    reader.cursor().await;
    (server, reader)
}

/// What everyone else must have been given all the while.
async fn goes_on(server: &Server, mut reader: crate::stream::Stream) {
    server.append("a", "{}").await;
    assert_eq!(reader.seqs(1).await, [1]);
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn requests_that_are_reset_at_once_end_their_connection() {
    let identity = Identity::new();
    let (server, reader) = abused(&identity).await;
    let mut client = Client::connect(&identity, &server).await;
    // Bodies that never end, so that each is reset before it is answered.
    let resetting = async {
        loop {
            match client.ask(request("POST", "/api/v1/a"), false).await {
                Ok((_, mut sending)) => {
                    // So that the server sees the request before its reset.
                    tokio::task::yield_now().await;
                    sending.send_reset(Reason::CANCEL);
                }
                Err(error) => return error,
            }
        }
    };
    within("the connection ends", resetting).await;
    goes_on(&server, reader).await;
}

#[tokio::test]
async fn requests_that_are_reset_while_they_are_answered_end_their_connection() {
    let identity = Identity::new();
    let (server, reader) = abused(&identity).await;
    let mut client = Client::connect(&identity, &server).await;
    let mut count = 0;
    let resetting = async {
        loop {
            // Their bodies are waited for when they are reset, as the answer to a later request shows.
            let mut waiting = Vec::new();
            for _ in 0..10 {
                match client.ask(request("POST", "/api/v1/a"), false).await {
                    Ok((_, sending)) => waiting.push(sending),
                    Err(_) => return,
                }
            }
            let Ok((later, _)) = client.ask(request("GET", "/healthz"), true).await else { return };
            if within("the answer", later).await.is_err() {
                return;
            }
            count += waiting.len();
            waiting.iter_mut().for_each(|sending| sending.send_reset(Reason::CANCEL));
        }
    };
    within("the connection ends", resetting).await;
    assert!(count >= 100, "{count} are not too many");
    goes_on(&server, reader).await;
}

#[tokio::test]
async fn page_that_leaves_fifty_streams_may_go_on() {
    let identity = Identity::new();
    let (server, reader) = abused(&identity).await;
    let mut client = Client::connect(&identity, &server).await;
    for _ in 0..10 {
        for _ in 0..50 {
            drop(client.ask(request("GET", "/api/v1/a"), true).await.unwrap());
        }
        // Those of the next page.
        let mut streams = Vec::new();
        for _ in 0..50 {
            streams.push(client.get("/api/v1/a").await);
        }
    }
    assert_eq!(client.get("/healthz").await.status(), 200);
    goes_on(&server, reader).await;
}

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

/// `POST https://localhost/api/v1/a` by RFC 7541, nothing indexed by the client.
fn post() -> Vec<u8> {
    let mut head = vec![0x83, 0x87, 0x04, 9];
    head.extend(b"/api/v1/a");
    head.extend([0x01, 9]);
    head.extend(b"localhost");
    head
}

/// Sends the preface, a beginning, and then more and more of what `next` gives for 0, 1, 2 and so on, until the server
/// ends the connection; returns the reason of its GOAWAY, if there is one.
async fn flood(
    identity: &Identity,
    server: &Server,
    beginning: Vec<u8>,
    mut next: impl FnMut(u32) -> Vec<u8>,
) -> Option<u32> {
    let socket = identity.connect(server.address, &["h2"]).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split::<TlsStream<TcpStream>>(socket);
    let sending = async {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        bytes.extend(beginning);
        for count in 0.. {
            bytes.extend(next(count));
            if bytes.len() > 8 << 10 {
                if writing.write_all(&bytes).await.is_err() {
                    return;
                }
                bytes.clear();
            }
        }
    };
    let mut said = Vec::new();
    let hearing = async { while reading.read_buf(&mut said).await.is_ok_and(|length| length > 0) {} };
    within("the server ends it", async { tokio::join!(sending, hearing) }).await;
    let mut rest = said.as_slice();
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let Some(payload) = rest.get(9..9 + length) else { break };
        if rest[3] == GOAWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        rest = &rest[9 + length..];
    }
    None
}

/// RFC 9113, section 7.
const ENHANCE_YOUR_CALM: Option<u32> = Some(0xb);

#[tokio::test]
async fn client_that_answers_no_ping_is_gone() {
    let identity = Identity::new();
    let server =
        secure(&identity, |settings| settings.connections.send_timeout = Duration::from_secs(2)).await;
    // One that answers, and has a stream as quiet as the other's.
    let mut living = Client::connect(&identity, &server).await;
    let stream = living.get("/api/v1/a").await;
    let mut dead = identity.connect(server.address, &["h2"]).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    let mut get = post();
    get[0] = 0x82;
    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &get));
    dead.write_all(&bytes).await.unwrap();
    let mut said = Vec::new();
    within("the server closes", async {
        while dead.read_buf(&mut said).await.is_ok_and(|length| length > 0) {}
    })
    .await;
    assert!(String::from_utf8_lossy(&said).contains("evertail.cursor"), "its stream was open");
    assert_eq!(living.get("/healthz").await.status(), 200);
    drop(stream);
}

#[tokio::test]
async fn flood_of_empty_data_is_ended() {
    let identity = Identity::new();
    let (server, reader) = abused(&identity).await;
    let head = frame(HEADERS, END_HEADERS, 1, &post());
    let ended = flood(&identity, &server, head, |_| frame(DATA, 0, 1, &[])).await;
    assert_eq!(ended, ENHANCE_YOUR_CALM);
    goes_on(&server, reader).await;
}

#[tokio::test]
async fn head_without_end_is_ended() {
    let identity = Identity::new();
    let (server, reader) = abused(&identity).await;
    let head = || frame(HEADERS, END_STREAM, 1, &post());
    // A field a frame, and none at all.
    let field = frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b");
    for piece in [field, frame(CONTINUATION, 0, 1, &[])] {
        let ended = flood(&identity, &server, head(), |_| piece.clone()).await;
        assert!(ended.is_some(), "told by a GOAWAY");
    }
    goes_on(&server, reader).await;
}

#[tokio::test]
async fn rapid_resets_end_their_connection() {
    let identity = Identity::new();
    let (server, reader) = abused(&identity).await;
    let ended = flood(&identity, &server, Vec::new(), |count| {
        let stream = 2 * count + 1;
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &post());
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        bytes
    })
    .await;
    assert!(matches!(ended, None | ENHANCE_YOUR_CALM), "{ended:?}");
    goes_on(&server, reader).await;
}

#[tokio::test]
async fn resets_that_the_client_provokes_end_its_connection() {
    let identity = Identity::new();
    let (server, reader) = abused(&identity).await;
    let ended = flood(&identity, &server, Vec::new(), |count| {
        let stream = 2 * count + 1;
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &post());
        // More than a window may be (RFC 9113, section 6.9.1): the server must answer with its reset.
        bytes.extend(frame(WINDOW_UPDATE, 0, stream, &(u32::MAX >> 1).to_be_bytes()));
        bytes
    })
    .await;
    assert!(matches!(ended, None | ENHANCE_YOUR_CALM), "{ended:?}");
    goes_on(&server, reader).await;
}

#[tokio::test]
async fn server_is_no_proxy() {
    let identity = Identity::new();
    let server = secure(&identity, |_| ()).await;
    let mut client = Client::connect(&identity, &server).await;
    let connect = http::Request::builder().method("CONNECT").uri("localhost:8888");
    let (answer, _sending) = client.ask(connect, false).await.unwrap();
    problem(within("the answer", answer).await.unwrap(), 404, "route_not_found").await;
    let (answer, _) = client.ask(request("OPTIONS", "/api/v1/a"), true).await.unwrap();
    assert!(within("the answer", answer).await.unwrap().status().is_success());
}

#[tokio::test]
async fn head_beyond_the_limit_is_refused() {
    let identity = Identity::new();
    let server = secure(&identity, |_| ()).await;
    let mut client = Client::connect(&identity, &server).await;
    let large = request("GET", "/healthz").header("x-large", "x".repeat(17 << 10));
    let (answer, _) = client.ask(large, true).await.unwrap();
    assert_eq!(within("the answer", answer).await.unwrap().status(), 431);
    assert_eq!(client.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn http2_is_not_spoken_without_tls() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let answer = connection.until_closed().await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
}
