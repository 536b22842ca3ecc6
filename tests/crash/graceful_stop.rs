//! SIGTERM: what was acked is there, who reads is told, and the next start goes on.

use crate::ledger::Ledger;
use crate::load::{self, Answer, Load, Manner, Request};
use crate::reader::{self, Reader, Wanted};
use crate::server::{Launch, Place, Server, in_time, lasting_port, until};
use crate::table::{assert_sound, rows, wal_bytes};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Below the drain time, which is for requests that take long; these do not.
const STOP_MAX: Duration = Duration::from_secs(8);

const READERS: [Wanted; 4] = [
    Wanted { path: "/events?after=0", matches: |_| true, manner: reader::Manner::Native },
    Wanted {
        path: "/audits?after=0",
        matches: |event| event.stream == "audits",
        manner: reader::Manner::Slow,
    },
    Wanted {
        path: "/events?type=user.*",
        matches: |event| event.r#type.starts_with("user."),
        manner: reader::Manner::Native,
    },
    Wanted {
        path: "/notes?format=data",
        matches: |event| event.stream == "notes",
        manner: reader::Manner::Payload,
    },
];

const PRODUCERS: [Manner; 6] =
    [Manner::Single, Manner::Single, Manner::Batch, Manner::Anonymous, Manner::Text, Manner::Repeat];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_and_tells_the_readers() {
    let place = Place::new();
    let launch = Launch::new(&place.file()).listen(format!("127.0.0.1:{}", lasting_port()));
    let mut server = launch.start().await;
    let base = server.base.clone();
    let ledger = Ledger::default();
    let readers = Reader::start_each(&base, &READERS, &ledger).await;
    let load = Load::start(&base, &ledger, &PRODUCERS);
    until("the load is on", async || ledger.acks() > 200).await;

    let began = Instant::now();
    server.signal(Signal::TERM);
    let status = server.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(began.elapsed() < STOP_MAX, "stopping took {:?}", began.elapsed());
    assert_eq!(wal_bytes(&place.file()), 0, "a clean stop leaves one file");
    for reader in &readers {
        reader.was_told("drain").await;
    }
    let refusals = ledger.refusals();
    assert!(
        refusals.iter().all(|(status, code)| (*status, code.as_str()) == (503, "draining")),
        "{refusals:?}"
    );
    let stopped_at = rows(&place.file(), 0).await;
    ledger.assert_agrees(&stopped_at);

    let mut server = launch.start().await;
    load.finish().await;
    let all = rows(&place.file(), 0).await;
    assert_eq!(all[..stopped_at.len()], stopped_at, "the second start goes on from the first");
    ledger.assert_agrees(&all);
    for reader in &readers {
        reader.got_exactly(&all).await;
    }
    server.signal(Signal::INT);
    assert_eq!(server.ended().await.code(), Some(0), "a person's Ctrl-C is a stop like any other");
    assert_sound(&place.file()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_as_soon_as_it_says_that_it_serves_is_a_clean_stop() {
    let place = Place::new();
    for _ in 0..30 {
        let mut server = Launch::new(&place.file()).start().await;
        server.signal(Signal::TERM);
        let status = server.ended().await;
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

/// Connections that end only when the server ends them: every one of its own time-outs is ten minutes.
fn patient(launch: Launch) -> Launch {
    launch
        .with("EVERTAIL_HEADER_TIMEOUT_SECONDS", 600)
        .with("EVERTAIL_BODY_TIMEOUT_SECONDS", 600)
        .with("EVERTAIL_IDLE_TIMEOUT_SECONDS", 600)
        .with("EVERTAIL_SEND_TIMEOUT_SECONDS", 600)
}

async fn say(server: &Server, text: &str) -> TcpStream {
    let address = server.base.trim_start_matches("http://");
    let mut socket = in_time(TcpStream::connect(address)).await.unwrap();
    in_time(socket.write_all(text.replace("HOST", address).as_bytes())).await.unwrap();
    socket
}

/// Half a head, half a body, which the server has seen, and a stream that nobody reads.
async fn endless(server: &Server) -> [TcpStream; 3] {
    let head = say(server, "POST /api/v1/audits HTTP/1.1\r\nhost: HO").await;
    let expect = "expect: 100-continue\r\ncontent-length: 100\r\n\r\n";
    let mut body = say(server, &format!("POST /api/v1/audits HTTP/1.1\r\nhost: HOST\r\n{expect}")).await;
    let mut asked_for_body = [0; 12];
    in_time(body.read_exact(&mut asked_for_body)).await.unwrap();
    assert_eq!(&asked_for_body, b"HTTP/1.1 100");
    in_time(body.write_all(b"{\"data\":")).await.unwrap();
    let mut deaf =
        say(server, "GET /api/v1/audits?after=0 HTTP/1.1\r\nhost: HOST\r\naccept: text/event-stream\r\n\r\n")
            .await;
    in_time(deaf.read_exact(&mut [0; 12])).await.unwrap();
    [head, body, deaf]
}

/// So many events that no buffer of a socket holds them.
async fn fill(server: &Server) -> usize {
    let http = load::http_client();
    for _ in 0..40 {
        let request = Request::one(load::event("audits", "message", None, 200_000));
        assert!(matches!(request.send(&http, &server.base).await, Answer::Acked { .. }));
    }
    40
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_end_hold_the_stop_no_longer_than_its_bound() {
    let place = Place::new();
    let mut server = patient(Launch::new(&place.file())).with("EVERTAIL_DRAIN_SECONDS", 1).start().await;
    let acked = fill(&server).await;
    let open = endless(&server).await;
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0), "that a client has no end is no failure of the server");
    assert!(server.has_said("connections were cut at the end of the drain time"));
    assert_eq!(rows(&place.file(), 0).await.len(), acked, "nothing by halves");
    assert_eq!(wal_bytes(&place.file()), 0);
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_stop_at_once_and_loses_nothing() {
    let place = Place::new();
    let launch = patient(Launch::new(&place.file())).with("EVERTAIL_DRAIN_SECONDS", 600);
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)]
    {
        let before = rows_of(&place).await;
        let mut server = launch.start().await;
        let acked = fill(&server).await;
        let open = endless(&server).await;
        server.signal(first);
        until("it stops", async || server.has_said("\"stopping\"")).await;
        assert!(server.is_running());
        server.signal(second);
        assert_eq!(server.ended().await.code(), Some(130));
        assert_eq!(rows_of(&place).await, before + acked);
        drop(open);
    }
    launch.start().await;
    assert_sound(&place.file()).await;
}

async fn rows_of(place: &Place) -> usize {
    if place.file().exists() { rows(&place.file(), 0).await.len() } else { 0 }
}
