//! Those who mean harm: thousands at once that say nothing, speak slowly or do not listen; texts that would forge a log line.

use crate::ledger::Ledger;
use crate::load::{Load, Manner, Request, event};
use crate::reader::{self, Reader, Wanted};
use crate::server::{Launch, Place, complain, in_time, lasting_port, until};
use crate::table::rows;
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

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
const WANTED: [Wanted; 2] = [
    Wanted { path: "/events?after=0", matches: |_| true, manner: reader::Manner::Native },
    Wanted { path: "/audits?after=0", matches: |row| row.stream == "audits", manner: reader::Manner::Fickle },
];

/// Raises the soft descriptor limit, and says how many of each kind fit beside everything else.
fn fitting() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let each =
        maximum.map_or(EACH, |maximum| (maximum as usize).saturating_sub(1_500) / KINDS.len()).min(EACH);
    assert!(each >= 200, "the hard descriptor limit is too low to tell anything");
    if each < EACH {
        complain(&format!("the descriptor limit allows {each} of each kind instead of {EACH}"));
    }
    each
}

async fn connect(address: SocketAddr, says: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = in_time(socket.connect(address)).await.unwrap();
    // It may have been ended meanwhile.
    let _ = stream.write_all(says.as_bytes()).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_that_are_silent_slow_or_deaf_take_no_place_for_long() {
    let each = fitting();
    let place = Place::new();
    let mut server = Launch::new(&place.file())
        .with("EVERTAIL_CONNECTIONS_MAX", each * KINDS.len() + 200)
        .with("EVERTAIL_HEADER_TIMEOUT_SECONDS", 10)
        .with("EVERTAIL_BODY_TIMEOUT_SECONDS", 10)
        .with("EVERTAIL_SEND_TIMEOUT_SECONDS", 10)
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
    let mut held = Vec::new();
    let mut most = 0;
    for _ in 0..each.div_ceil(50) {
        let group = KINDS.iter().flat_map(|says| (0..50).map(move |_| connect(address, says)));
        held.extend(join_all(group).await);
        most = most.max(server.descriptors());
    }
    let acks = ledger.acks();
    until("appends are acked meanwhile", async || ledger.acks() > acks + 100).await;
    let last = rows(&place.file(), 0).await.last().unwrap().seq;
    let page = crate::load::page(&base, "last=1").await;
    assert!(page[0].seq >= last, "a new connection gets its turn");
    until("every one of them is ended by the server", async || server.descriptors() < before + 50).await;
    drop(held);

    load.finish().await;
    let all = rows(&place.file(), 0).await;
    for reader in &readers {
        reader.got_exactly(&all).await;
        assert_eq!(reader.record().controls, []);
    }
    ledger.assert_agrees(&all);
    assert_eq!(ledger.refusals(), []);
    assert!(server.is_running());
    assert!(!server.has_said("a connection was not accepted"), "it has run out of descriptors");
    let (memory, hostile) = (server.memory_bytes_max(), each * KINDS.len());
    complain(&format!("{hostile} connections, {most} descriptors and {} MiB at the most", memory >> 20));
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
        for value in ["FORGED\t\u{e9}\u{2028}", "for=\"FORGED", "FORGED, FORGED"] {
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
