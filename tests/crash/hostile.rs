//! Those who mean harm: thousands at once that say nothing, speak slowly or do not listen; texts that would forge a log line.

use crate::crowd::{Crowd, descriptors_max};
use crate::ledger::Ledger;
use crate::load::{Load, Manner, Request, event};
use crate::reader::{self, Reader, Wanted};
use crate::server::{Launch, Place, complain, in_time, lasting_port, until};
use crate::table::rows;
use futures_util::future::join_all;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Of each kind, where the descriptor limit allows it.
const EACH: usize = 5_000;
/// What each does before it is silent for ever.
const KINDS: [&str; 4] = [
    "",
    "GET /api/v1/audits HTTP/1.1\r\nHost: local",
    "POST /api/v1/audits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{\"data\":",
    // More than the buffers on the way hold, and it never reads.
    "GET /api/v1/large?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
];
/// How long each may go on: longer than it takes all of them to connect, so that they are there at once.
const TIMEOUT_SECONDS: u64 = 35;
/// Connections of the readers and producers, and room for one that a reader has given up and the server has not yet.
const ORDINARY: usize = 40;
/// What the server keeps of the descriptor limit for itself, and for those it turns away.
const RESERVED: usize = 128 + 64;
const WANTED: [Wanted; 2] = [
    Wanted { path: "/events?after=0", matches: |_| true, manner: reader::Manner::Native },
    Wanted { path: "/audits?after=0", matches: |row| row.stream == "audits", manner: reader::Manner::Fickle },
];

/// How many of each kind fit beside everything else.
fn fitting() -> usize {
    let room = descriptors_max().map(|maximum| maximum.saturating_sub(RESERVED + ORDINARY));
    let each = room.map_or(EACH, |room| room / KINDS.len()).min(EACH);
    assert!(each >= 200, "the hard descriptor limit is too low to tell anything");
    if each < EACH {
        complain(&format!("the descriptor limit allows {each} of each kind instead of {EACH}"));
    }
    each
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_that_are_silent_slow_or_deaf_take_no_place_for_long() {
    let each = fitting();
    let hostile = each * KINDS.len();
    let place = Place::new();
    let mut server = Launch::new(&place.file())
        .with("EVERTAIL_CONNECTIONS_MAX", hostile + ORDINARY)
        .with("EVERTAIL_HEADER_TIMEOUT_SECONDS", TIMEOUT_SECONDS)
        .with("EVERTAIL_BODY_TIMEOUT_SECONDS", TIMEOUT_SECONDS)
        .with("EVERTAIL_SEND_TIMEOUT_SECONDS", TIMEOUT_SECONDS)
        .start()
        .await;
    let base = server.base.clone();
    let ledger = Ledger::default();
    for index in 0..4 {
        let large = event("large", "message", Some(format!("large-{index}")), 200_000);
        assert!(Request::one(large).post(&crate::load::http_client(), &base, &ledger).await);
    }
    let readers = Reader::start_each(&base, &WANTED, &ledger).await;
    let load = Load::start(&base, &ledger, &[Manner::Single, Manner::Batch, Manner::Text]);
    until("appends are acked", async || ledger.acks() > 100).await;

    let address: SocketAddr = base.trim_start_matches("http://").parse().unwrap();
    let before = server.descriptors();
    let mut crowd = join_all(KINDS.map(|says| Crowd::start(address, each, says))).await;
    // But for a connection that an ordinary one has given up meanwhile.
    let all_at_once = before + hostile - 3;
    until("all of them are there at one time", async || server.descriptors() >= all_at_once).await;
    let acks = ledger.acks();
    until("appends are acked meanwhile", async || ledger.acks() > acks + 100).await;
    let last = rows(&place.file(), 0).await.last().unwrap().seq;
    let page = crate::load::page(&base, "last=1").await;
    assert!(page[0].seq >= last, "a new connection gets its turn");
    assert!(server.descriptors() >= all_at_once, "all of this was while they were there");
    until("every one of them is ended by the server", async || server.descriptors() < before + 50).await;
    assert!(crowd.iter_mut().all(Crowd::is_there), "no end is their own");
    drop(crowd);

    load.finish().await;
    let all = rows(&place.file(), 0).await;
    for reader in &readers {
        reader.got_exactly(&all).await;
        assert_eq!(reader.record().controls, []);
    }
    ledger.assert_agrees(&all);
    assert_eq!(ledger.refusals(), []);
    assert!(server.is_running());
    assert!(!server.has_said("the descriptor limit allows fewer"), "there was a place for each");
    assert!(!server.has_said("a connection was not accepted"), "it has run out of descriptors");
    let memory = server.memory_bytes_max();
    complain(&format!("{hostile} connections at once, and {} MiB at the most", memory >> 20));
    // The window, and for each of them less than what one request may bring.
    assert!(memory < (64 << 20) + hostile as u64 * (32 << 10) + (64 << 20), "{memory} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_writes_a_line_into_the_servers_log() {
    const FORGED: [&str; 6] =
        ["\r\n", "\n{\"level\":\"ERROR\"}\n", "\u{1b}[31m", "\u{202e}", "\u{2028}", "\0"];
    for format in ["json", "text"] {
        let place = Place::new();
        let address = format!("127.0.0.1:{}", lasting_port());
        let mut server = Launch::new(&place.file())
            .listen(&address)
            .with("EVERTAIL_LOG", "debug")
            .with("EVERTAIL_LOG_FORMAT", format)
            .with("EVERTAIL_TRUSTED_PROXIES", "127.0.0.1")
            .spawn();
        until("it listens", async || TcpStream::connect(&address).await.is_ok()).await;
        let base = format!("http://{address}");
        let http = crate::load::http_client();
        for text in FORGED {
            let quoted = serde_json::to_string(&format!("FORGED{text}FORGED")).unwrap();
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            for member in ["data", "id", "type", "source", "subject", "time", "stream", "FORGED"] {
                let body = format!("{{\"{member}\":{quoted}}}");
                in_time(http.post(format!("{base}/api/v1/a")).body(body).send()).await.unwrap();
            }
            for path in [
                "/FORGED",
                "/api/v1/FORGED",
                "/api/v1/events?type=FORGED",
                "/api/v1/a?FORGED=",
                "/api/v1/events/FORGED",
            ] {
                let request = http.get(format!("{base}{path}{escaped}")).header("accept", "application/json");
                in_time(request.send()).await.unwrap();
            }
        }
        for value in ["FORGED\t\u{e9}\u{2028}", "for=\"FORGED", "FORGED, FORGED", "FORGED}: FORGED"] {
            let mut request = http.get(format!("{base}/api/v1/a?limit=1&last=1"));
            for name in [
                "forwarded",
                "x-forwarded-for",
                "last-event-id",
                "user-agent",
                "accept",
                "origin",
                "x-request-id",
            ] {
                request = request.header(name, value.as_bytes());
            }
            in_time(request.send()).await.unwrap();
        }
        server.signal(rustix::process::Signal::TERM);
        assert_eq!(server.ended().await.code(), Some(0));
        for line in server.stderr().await {
            let time = match format {
                "json" => {
                    serde_json::from_str::<Value>(&line).unwrap()["timestamp"].as_str().unwrap().to_owned()
                }
                _ => line.split(' ').next().unwrap().to_owned(),
            };
            assert!(time.parse::<chrono::DateTime<chrono::Utc>>().is_ok(), "{line:?}");
            assert!(!line.contains("FORGED") && !line.contains(char::is_control), "{line:?}");
        }
    }
}
