//! One I/O error of the disk ends acking for good: whatever was in flight is not acked, nothing after it is, readers are
//! told, the process ends by itself and says what to do, and the next start holds every event that was acked.

use crate::ledger::Ledger;
use crate::load::{self, Load, Manner, Request};
use crate::reader::{self, Reader, Wanted};
use crate::server::{Launch, Place, complain, in_time, lasting_port, until};
use crate::table::{assert_sound, rows};
use crate::trace::{missing_strace, strace};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// From the first refusal to the end of the process.
const END_MAX: Duration = Duration::from_secs(8);
/// Of a payload that fills the write-ahead log up to a checkpoint soon.
const LARGE_BYTES: usize = 100_000;

const READERS: [Wanted; 2] = [
    Wanted { path: "/events?after=0", matches: |_| true, manner: reader::Manner::Native },
    Wanted { path: "/audits", matches: |event| event.stream == "audits", manner: reader::Manner::Native },
];

#[derive(Debug, Clone, Copy)]
struct Injection {
    call: &'static str,
    /// Of the log file's name.
    suffix: &'static str,
    /// Which call on that file, by the thread that makes it.
    when: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_of_a_commit_ends_acking() {
    acking_ends(Injection { call: "fsync", suffix: "-wal", when: 25 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_of_a_commit_ends_acking() {
    acking_ends(Injection { call: "pwrite64", suffix: "-wal", when: 150 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_of_a_checkpoint_ends_acking() {
    // The first one is that of the start.
    acking_ends(Injection { call: "fsync", suffix: "", when: 2 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_at_the_start_lets_nobody_in() {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED io_error: {reason}"));
    }
    let place = Place::new();
    let launch = Launch::new(&place.file());
    drop(launch.start().await);
    for suffix in ["", "-wal"] {
        let injection = Injection { call: "fsync", suffix, when: 1 };
        let mut server = launch.clone().under(injection.strace(&place)).spawn();
        assert_eq!(server.ended().await.code(), Some(1), "{injection:?}");
        let complaint = server.complaint().await;
        assert!(
            complaint.contains(place.file().to_str().unwrap()) && complaint.contains("; "),
            "{complaint}"
        );
    }
    drop(launch.start().await);
    assert_sound(&place.file()).await;
}

async fn acking_ends(injection: Injection) {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED io_error: {reason}"));
    }
    let place = Place::new();
    let launch = Launch::new(&place.file()).listen(format!("127.0.0.1:{}", lasting_port()));
    // The injection counts from what the start of an existing log needs.
    drop(launch.start().await);
    let mut server = launch.clone().under(injection.strace(&place)).start().await;
    let base = server.base.clone();
    let ledger = Ledger::default();
    let readers = Reader::start_each(&base, &READERS, &ledger).await;
    let http = crate::load::http_client();
    let load = Load::start(&base, &ledger, &[Manner::Single, Manner::Batch, Manner::Anonymous, Manner::Text]);
    let mut large = 0;
    until("the error is met", async || {
        large += 1;
        let request =
            Request::one(load::event("notes", "message", Some(format!("large-{large}")), LARGE_BYTES));
        request.post(&http, &base, &ledger).await;
        !ledger.refusals().is_empty()
    })
    .await;
    let met = Instant::now();

    let status = server.ended().await;
    assert_eq!(status.code(), Some(1), "{injection:?}: it ends by itself, and not well");
    assert!(met.elapsed() < END_MAX, "{injection:?}: it took {:?} to end", met.elapsed());
    load.quit().await;
    ledger.assert_faultless();
    assert_refusals(&injection, &ledger);
    let complaint = server.complaint().await;
    assert!(complaint.starts_with("evertail: the log file failed while "), "{complaint}");
    assert!(complaint.ends_with("; start again, which makes durable what is there"), "{complaint}");
    for reader in &readers {
        reader.was_told("unavailable").await;
    }
    assert_next_start_has_all(&launch, &place, &ledger, &readers).await;
}

/// In flight or later, what was not acked was refused as 503: unknown, or for certain not stored.
fn assert_refusals(injection: &Injection, ledger: &Ledger) {
    let refusals = ledger.refusals();
    let is_expected = |(status, code): &(u16, String)| {
        *status == 503 && ["log_unavailable", "draining"].contains(&code.as_str())
    };
    assert!(refusals.iter().all(is_expected), "{injection:?}: {refusals:?}");
    assert!(refusals.iter().any(|(_, code)| code == "log_unavailable"), "{injection:?}: {refusals:?}");
}

async fn assert_next_start_has_all(launch: &Launch, place: &Place, ledger: &Ledger, readers: &[Reader]) {
    ledger.restarted();
    let server = launch.start().await;
    let load = Load::start(&server.base, ledger, &[Manner::Single, Manner::Batch, Manner::Repeat]);
    let acks = ledger.acks();
    until("appends go on", async || ledger.acks() > acks + 20).await;
    load.finish().await;
    let all = rows(&place.file(), 0).await;
    ledger.assert_agrees(&all);
    for reader in readers {
        reader.got_exactly(&all).await;
    }
    in_time(assert_sound(&place.file())).await;
}

impl Injection {
    fn strace(self, place: &Place) -> Vec<String> {
        let Self { call, suffix, when } = self;
        let mut file = place.file().into_os_string();
        file.push(suffix);
        let inject = format!("inject={call}:error=EIO:when={when}");
        let out = PathBuf::from("/dev/null");
        strace(&out, &["-e", &format!("trace={call}"), "-P", file.to_str().unwrap(), "-e", &inject])
    }
}
