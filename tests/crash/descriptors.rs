//! Few descriptors bound the connections, not the service. Nor does the service end with whoever reads its log.

use crate::ledger::Ledger;
use crate::load::{self, Load, Manner};
use crate::reader::{self, Reader, Wanted};
use crate::server::{Launch, Place, in_time, until};
use crate::table::rows;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const READER: Wanted = Wanted { path: "/events?after=0", matches: |_| true, manner: reader::Manner::Native };
/// Below what 160 descriptors leave for connections, with room for the producers and a page.
const READERS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_160_descriptors_reads_and_appends_are_served() {
    let place = Place::new();
    let limit = ["prlimit", "--nofile=160:160"].map(str::to_owned).to_vec();
    let launch = Launch::new(&place.file()).under(limit).with("EVERTAIL_HEADER_TIMEOUT_SECONDS", "1");
    let mut server = launch.start().await;
    let base = server.base.clone();
    let ledger = Ledger::default();
    let readers: Vec<Reader> = (0..READERS).map(|_| Reader::start(&base, READER, &ledger)).collect();
    for reader in &readers {
        reader.is_reading().await;
    }
    let load = Load::start(&base, &ledger, &[Manner::Single, Manner::Batch]);
    until("appends are acked", async || ledger.acks() > 100).await;

    // Far more connections than there are descriptors; each says half a request, and is ended for it.
    let address = base.trim_start_matches("http://");
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut socket = in_time(TcpStream::connect(address)).await.unwrap();
        socket.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        silent.push(socket);
    }
    let acks = ledger.acks();
    until("appends are acked meanwhile", async || ledger.acks() > acks + 100).await;
    // The silent ones are ended after a second; until then one too many is closed, or told that there is no place.
    until("a new connection gets its turn", async || {
        let page = load::http_client().get(format!("{base}/api/v1/events?last=1"));
        page.header("accept", "application/json").send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    drop(silent);
    load.finish().await;
    let all = rows(&place.file(), 0).await;
    for reader in &readers {
        reader.got_exactly(&all).await;
        assert_eq!(reader.record().controls, []);
    }
    ledger.assert_agrees(&all);
    assert_eq!(ledger.refusals(), []);
    assert!(server.is_running());
    assert!(server.has_said("the descriptor limit allows fewer connections"), "its bound is told");
    assert!(!server.has_said("a connection was not accepted"), "it has run out of descriptors");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_whoever_reads_its_log_does_not_end_the_service() {
    for level in ["info", "debug"] {
        let place = Place::new();
        let mut server = Launch::new(&place.file()).with("EVERTAIL_LOG", level).start().await;
        server.stop_listening();
        let ledger = Ledger::default();
        let readers: Vec<Reader> = (0..4).map(|_| Reader::start(&server.base, READER, &ledger)).collect();
        let load = Load::start(&server.base, &ledger, &[Manner::Single, Manner::Batch]);
        until(&format!("appends are acked at {level}"), async || ledger.acks() > 100).await;
        load.finish().await;
        let all = rows(&place.file(), 0).await;
        for reader in &readers {
            reader.got_exactly(&all).await;
        }
        ledger.assert_agrees(&all);
        server.signal(Signal::TERM);
        assert_eq!(server.ended().await.code(), Some(0), "it stops as it should at {level}");
    }
}
