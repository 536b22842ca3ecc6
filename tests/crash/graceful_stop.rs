//! SIGTERM: what was acked is there, who reads is told, and the next start goes on.

use crate::ledger::Ledger;
use crate::load::{Load, Manner};
use crate::reader::{self, Reader, Wanted};
use crate::server::{Launch, Place, lasting_port, until};
use crate::table::{assert_sound, rows, wal_bytes};
use rustix::process::Signal;
use std::time::{Duration, Instant};

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
