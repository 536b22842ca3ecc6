//! Thousands of readers that lose their server at one time: they do not come back at one time, and miss nothing.

use crate::crowd::descriptors_max;
use crate::event_source::{EventSource, Frame, Heard, http_client};
use crate::ledger::Ledger;
use crate::load::{Request, event};
use crate::server::{Launch, Place, complain, lasting_port, until};
use crate::table::{Stored, rows};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many, where the descriptor limit allows it.
const READERS: usize = 5_000;
/// Of them, how many begin at one time.
const BEGIN_AT_ONCE: usize = 200;
/// Between which a reader is told to come back: the defaults.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Events of an append.
const EVENTS: usize = 5;
/// The parts of that time whose readers are counted.
const PARTS: usize = 10;

/// One connection that was answered, and how it went.
#[derive(Debug, Default)]
struct Stay {
    /// What it was told of when to come back.
    retry: Duration,
    /// How long after the end of the one before.
    away: Duration,
    notices: Vec<String>,
    /// The server ended it, behind a whole frame.
    is_ended: bool,
}

#[derive(Default)]
struct Reader {
    /// The last it was given.
    seq: AtomicU64,
    stays: Mutex<Vec<Stay>>,
}

/// All of them, and what they were given.
#[derive(Default)]
struct Herd {
    readers: Vec<Reader>,
    connected: AtomicUsize,
    /// The JSON of each event, as whoever was the first to be given it was given it.
    seen: Mutex<BTreeMap<u64, String>>,
    faults: Mutex<Vec<String>>,
}

impl Herd {
    /// So many readers from now on, each of which has its first cursor.
    async fn start(base: &str, count: usize) -> (Arc<Self>, JoinSet<()>) {
        let herd = Self { readers: (0..count).map(|_| Reader::default()).collect(), ..Self::default() };
        let (herd, http, mut tasks) = (Arc::new(herd), http_client(), JoinSet::new());
        for index in 0..count {
            let source = EventSource::with_client(http.clone(), format!("{base}/api/v1/events"));
            tasks.spawn(herd.clone().follow(index, source));
            if (index + 1) % BEGIN_AT_ONCE == 0 || index + 1 == count {
                herd.are_connected(index + 1).await;
            }
        }
        (herd, tasks)
    }

    /// Reads as a browser does, which comes back as late as it was told to.
    async fn follow(self: Arc<Self>, index: usize, mut source: EventSource) {
        let reader = &self.readers[index];
        let mut gone_at = Instant::now();
        let mut retry = Duration::ZERO;
        let mut is_connected = false;
        loop {
            match source.next().await {
                Ok(Heard::Frame(frame)) => {
                    if let Some(milliseconds) = frame.retry_milliseconds {
                        retry = Duration::from_millis(milliseconds);
                        let stay = Stay { retry, away: gone_at.elapsed(), ..Stay::default() };
                        reader.stays.lock().unwrap().push(stay);
                    }
                    self.take(reader, frame);
                    if !std::mem::replace(&mut is_connected, true) {
                        self.connected.fetch_add(1, SeqCst);
                    }
                }
                Ok(Heard::Gone { is_ended }) => {
                    if std::mem::take(&mut is_connected) {
                        gone_at = Instant::now();
                        reader.stays.lock().unwrap().last_mut().unwrap().is_ended = is_ended;
                        self.connected.fetch_sub(1, SeqCst);
                    }
                    tokio::time::sleep(retry).await;
                }
                Err(fault) => return self.fault(fault),
            }
        }
    }

    fn take(&self, reader: &Reader, frame: Frame) {
        let last = reader.seq.load(SeqCst);
        match (frame.event.as_str(), frame.id) {
            ("evertail.notice", None) => {
                reader.stays.lock().unwrap().last_mut().unwrap().notices.push(frame.data);
            }
            ("evertail.cursor", Some(seq)) if last == 0 => reader.seq.store(seq, SeqCst),
            ("evertail.cursor", Some(seq)) if last == seq => {}
            ("message", Some(seq)) if last + 1 == seq => {
                let mut seen = self.seen.lock().unwrap();
                let known = seen.entry(seq).or_insert_with(|| frame.data.clone());
                if *known != frame.data {
                    self.fault(format!("seq {seq} is {known} to one and {} to another", frame.data));
                }
                reader.seq.store(seq, SeqCst);
            }
            _ => self.fault(format!("after seq {last}: {frame:?}")),
        }
    }

    fn fault(&self, fault: String) {
        self.faults.lock().unwrap().push(fault);
    }

    async fn are_connected(&self, count: usize) {
        until("readers are connected", async || self.connected.load(SeqCst) >= count).await;
    }

    async fn are_gone(&self) {
        until("every reader has lost the server", async || self.connected.load(SeqCst) == 0).await;
    }

    /// Each is given everything up to the end of the table, once and in order.
    async fn got_exactly(&self, rows: &[Stored]) {
        let last = rows.last().unwrap().seq;
        until("each reads to the end", async || {
            assert_eq!(*self.faults.lock().unwrap(), <[String; 0]>::default());
            self.readers.iter().all(|reader| reader.seq.load(SeqCst) == last)
        })
        .await;
        for (seq, json) in &*self.seen.lock().unwrap() {
            assert_eq!(Stored::parse(json).as_ref(), Ok(&rows[*seq as usize - 1]));
        }
    }

    /// The stay of this number ended like this, and each came back once, at a time of its own.
    fn came_back_spread(&self, stay: usize, notices: &[&str]) {
        let mut parts = [0; PARTS];
        for reader in &self.readers {
            let stays = reader.stays.lock().unwrap();
            let [before, now] = &stays[stay..] else { panic!("it came back once: {stays:?}") };
            assert_eq!(before.notices, notices, "{stays:?}");
            assert_eq!(before.is_ended, !notices.is_empty(), "{stays:?}");
            assert!(before.retry <= now.away, "{stays:?}");
            assert!((RETRY.0..=RETRY.1).contains(&before.retry), "{stays:?}");
            let since = (before.retry - RETRY.0).as_millis() as usize;
            parts[since * PARTS / ((RETRY.1 - RETRY.0).as_millis() as usize + 1)] += 1;
        }
        let expected = self.readers.len() / PARTS;
        // Half of that, or half as much again, comes by chance once in 10^6 runs of 1,000 readers, and never of 5,000.
        let is_even = |count: &usize| (expected / 2..=expected + expected / 2).contains(count);
        assert!(parts.iter().all(is_even), "{parts:?}");
    }
}

/// Appends a few events, each acked.
async fn append(base: &str, ledger: &Ledger) {
    let events = (0..EVENTS).map(|_| event("audits", "message", None, 0)).collect();
    assert!(Request::batch(events).post(&http_client(), base, ledger).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_readers_come_back_from_a_restart_spread_and_miss_nothing() {
    let room = descriptors_max().map(|maximum| maximum.saturating_sub(1_000));
    let count = room.unwrap_or(READERS).min(READERS);
    assert!(count >= 1_000, "the hard descriptor limit is too low to tell anything");
    if count < READERS {
        complain(&format!("the descriptor limit allows {count} readers instead of {READERS}"));
    }
    let place = Place::new();
    let launch = Launch::new(&place.file())
        .listen(format!("127.0.0.1:{}", lasting_port()))
        .with("EVERTAIL_RETRY_SECONDS_MIN", RETRY.0.as_secs())
        .with("EVERTAIL_RETRY_SECONDS_MAX", RETRY.1.as_secs());
    let mut server = launch.start().await;
    let base = server.base.clone();
    let ledger = Ledger::default();
    append(&base, &ledger).await;
    let (herd, _tasks) = Herd::start(&base, count).await;

    for (stay, signal) in [Signal::TERM, Signal::KILL].into_iter().enumerate() {
        // Some have been given these when the server ends, some have not.
        append(&base, &ledger).await;
        server.signal(signal);
        let status = server.ended().await;
        herd.are_gone().await;
        server = launch.start().await;
        append(&base, &ledger).await;
        herd.are_connected(count / 2).await;
        append(&base, &ledger).await;
        herd.are_connected(count).await;
        append(&base, &ledger).await;
        let all = rows(&place.file(), 0).await;
        herd.got_exactly(&all).await;
        ledger.assert_agrees(&all);
        match signal {
            Signal::TERM => {
                assert_eq!(status.code(), Some(0), "{status}");
                herd.came_back_spread(stay, &[r#"{"reason":"drain"}"#]);
            }
            _ => herd.came_back_spread(stay, &[]),
        }
        until("the server says so", async || server.times_said("stream opened") >= count).await;
        assert_eq!(server.times_said("stream opened"), count, "none came twice");
    }
    assert_eq!(ledger.refusals(), []);
}
