//! kill -9 at any moment, over and over, under load.

use crate::ledger::Ledger;
use crate::load::{self, Load, Request, STREAMS};
use crate::reader::{Manner, Reader, Wanted};
use crate::server::{Launch, Place, complain, lasting_port};
use crate::table::{assert_ordered, assert_sound, rows, wal_bytes};
use std::path::Path;
use std::time::{Duration, Instant};

/// A killed server may take so long to serve again. It takes milliseconds; the rest is for a busy machine.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// Largest write-ahead log that a cycle may leave: checkpoints are due at 8 MiB.
const WAL_BYTES_MAX: u64 = 48 << 20;

const READERS: [Wanted; 7] = [
    Wanted { path: "/events?after=0", matches: |_| true, manner: Manner::Native },
    Wanted { path: "/events?after=0", matches: |_| true, manner: Manner::Tail },
    Wanted { path: "/events?after=0", matches: |_| true, manner: Manner::Fickle },
    Wanted { path: "/audits", matches: |event| event.stream == "audits", manner: Manner::Native },
    Wanted {
        path: "/events?stream=orders.*&type=user.*",
        matches: |event| event.stream.starts_with("orders.") && event.r#type.starts_with("user."),
        manner: Manner::Fickle,
    },
    Wanted {
        path: "/notes?format=data&after=0",
        matches: |event| event.stream == "notes",
        manner: Manner::Payload,
    },
    Wanted {
        path: "/events?type=order.made&after=0",
        matches: |event| event.r#type == "order.made",
        manner: Manner::Slow,
    },
];

const PRODUCERS: [load::Manner; 6] = [
    load::Manner::Single,
    load::Manner::Single,
    load::Manner::Batch,
    load::Manner::Anonymous,
    load::Manner::Text,
    load::Manner::Repeat,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_at_any_moment_loses_no_ack_and_costs_no_reader_an_event() {
    let cycles = std::env::var("EVERTAIL_CRASH_CYCLES").map_or(100, |cycles| cycles.parse().unwrap());
    let place = Place::new();
    let launch = Launch::new(&place.file()).listen(format!("127.0.0.1:{}", lasting_port()));
    let mut server = launch.start().await;
    let base = server.base.clone();
    let ledger = Ledger::default();
    let readers = Reader::start_each(&base, &READERS, &ledger).await;
    let load = Load::start(&base, &ledger, &PRODUCERS);

    let mut checked = 0;
    let mut slowest = Duration::ZERO;
    for cycle in 0..cycles {
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..200))).await;
        server.kill();
        let wal = wal_bytes(&place.file());
        assert!(wal < WAL_BYTES_MAX, "the WAL has grown to {wal} bytes");
        let launch = shrunk(&launch);
        if cycle % 8 == 7 {
            // Not even a start is a safe moment.
            let mut starting = launch.spawn();
            tokio::time::sleep(Duration::from_micros(rand::random_range(0..25_000))).await;
            starting.kill();
        }
        let began = Instant::now();
        server = launch.start().await;
        slowest = slowest.max(began.elapsed());
        checked = check_what_is_new(&place.file(), checked, &ledger).await;
    }
    assert!(slowest < RESTART_MAX, "a restart took {slowest:?}");
    load.finish().await;
    post_to_every_reader(&base, &ledger).await;

    let all = rows(&place.file(), 0).await;
    for reader in &readers {
        reader.got_exactly(&all).await;
        assert_eq!(reader.record().controls, [], "nothing was trimmed, reset or drained");
        complain(&reader.summary());
    }
    complain(&format!(
        "{cycles} kills, {} events, {} of them acked, slowest restart {slowest:?}",
        all.len(),
        ledger.acks()
    ));
    assert_eq!(ledger.refusals(), [], "a killed server refuses nothing");
    ledger.assert_agrees(&all);
    server.kill();
    drop(launch.start().await);
    assert_sound(&place.file()).await;
    assert_eq!(rows(&place.file(), 0).await, all, "one more kill -9 changes nothing");
}

/// With a recent window and pages of another size each time, so that readers cross between memory and the table.
fn shrunk(launch: &Launch) -> Launch {
    let windows = ["0", "8KiB", "64KiB", "1MiB", "64MiB"];
    let pages = ["1KiB", "8KiB", "64KiB"];
    let window = windows[rand::random_range(0..windows.len())];
    let page = pages[rand::random_range(0..pages.len())];
    launch.clone().with("EVERTAIL_WINDOW_BYTES_MAX", window).with("EVERTAIL_PAGE_BYTES_MAX", page)
}

/// What the table shows beyond what was looked at before goes on from there, and is what everyone was told.
async fn check_what_is_new(file: &Path, checked: u64, ledger: &Ledger) -> u64 {
    let new = rows(file, checked).await;
    assert_ordered(checked, &new);
    new.iter().for_each(|row| ledger.see("the table after a restart", row.clone()));
    ledger.assert_faultless();
    checked + new.len() as u64
}

/// One last event for every selection.
async fn post_to_every_reader(base: &str, ledger: &Ledger) {
    let http = crate::load::http_client();
    for (index, stream) in STREAMS.iter().enumerate() {
        for r#type in ["user.login", "order.made"] {
            let id = format!("last-{index}-{}", r#type);
            let request = Request::one(load::event(stream, r#type, Some(id), 0));
            assert!(request.post(&http, base, ledger).await);
        }
    }
}
