//! Appending: connections that send, each numbering its own events.

use super::BenchError;
use super::connection::Connection;
use super::figures::Latencies;
use super::mark::{Mark, now};
use super::pace::{Alarm, Schedule};
use super::request::{Request, Shape};
use super::target::Target;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// How long requests that are late may still be sent when the run is over. *Units*: nanoseconds.
const LATE_MAX: u64 = 2_000_000_000;
/// Between a refusal and the next attempt: a server that is full must not be asked in a loop.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);
/// How often a producer that is ahead of its readers looks again. *Units*: nanoseconds.
const AHEAD_PAUSE: u64 = 200_000;
/// After so long without a delivery, what is not delivered is given up for the distance that is kept. *Units*: ns.
const STALL: u64 = 500_000_000;
/// Bytes of an answer that are kept, for its seq or the reason of a refusal.
const BODY_KEPT_BYTES: usize = 400;

/// What is appended, how, and what has become of it. Shared by the producers of a run and whoever watches them.
#[derive(Debug)]
pub struct Appending {
    /// Where to.
    pub target: Target,
    /// What the events look like.
    pub shape: Shape,
    /// The number in every mark.
    pub run: u32,
    /// At a rate, or as fast as answered.
    pub schedule: Option<Schedule>,
    /// From when on what is answered counts. *Units*: nanoseconds of [`now`].
    pub measured_from: u64,
    /// When to stop.
    pub until: u64,
    /// Most events to send.
    pub events_max: u64,
    claimed: AtomicU64,
    /// How far to be ahead of the readers.
    pub distance: Option<Distance>,
    /// How many each producer has had acked.
    pub acked: Vec<AtomicU64>,
    /// Events acked while it counted.
    pub measured: AtomicU64,
    /// At a rate: events that were due and not sent because too many were before them.
    pub unsent: AtomicU64,
    /// Which of the latencies count now.
    pub phase: AtomicUsize,
    /// Seq of the first producer's number 0; 0 while unknown. Only Evertail's answers name it.
    pub seq_of_first: AtomicU64,
    outcome: Mutex<Outcome>,
}

/// What answers were like.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// For each phase.
    pub latencies: Vec<Latencies>,
    /// Requests refused, by status.
    pub refused: BTreeMap<u16, u64>,
}

/// Keeps producers of a saturating run from being ahead of the readers by more than so many events, on average: what
/// is appended must be delivered before the run is over.
#[derive(Debug)]
pub struct Distance {
    /// Most events between what is acked and what a reader has, on average.
    pub events_max: u64,
    /// How many readers.
    pub readers: u64,
    /// Events given to all readers together.
    pub delivered: Arc<AtomicU64>,
    /// Deliveries that are not expected any more.
    pub given_up: AtomicU64,
}

/// A runtime that ends when it is dropped, which one within another must not do in the usual way.
struct Apart(Option<Runtime>);

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Appending {
    /// Nothing sent yet; to be changed before it is shared.
    pub fn new(target: Target, shape: Shape, connections: usize, until: u64) -> Self {
        Self {
            target,
            shape,
            run: rand::random(),
            schedule: None,
            measured_from: 0,
            until,
            events_max: u64::MAX,
            claimed: AtomicU64::new(0),
            distance: None,
            acked: (0..connections).map(|_| AtomicU64::new(0)).collect(),
            measured: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            phase: AtomicUsize::new(0),
            seq_of_first: AtomicU64::new(0),
            outcome: Mutex::default(),
        }
    }

    /// What answers were like so far.
    pub fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many each producer has had acked.
    pub fn counts(&self) -> Vec<u64> {
        self.acked.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// How many all have had acked.
    pub fn total(&self) -> u64 {
        self.acked.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Runs all producers to their end.
    ///
    /// *Errors*: the first of any producer.
    pub async fn run(self: &Arc<Self>) -> Result<(), BenchError> {
        let mut producers = JoinSet::new();
        for producer in 0..self.acked.len() {
            producers.spawn(produce(Arc::clone(self), u16::try_from(producer).unwrap_or(u16::MAX)));
        }
        while let Some(ended) = producers.join_next().await {
            ended.expect("a producer does not panic")?;
        }
        Ok(())
    }

    /// As [`Appending::run`], on a thread of its own: the time that this process needs to read for thousands must not
    /// count as the server's.
    ///
    /// *Cancel safety*: dropped, it ends the producers.
    pub async fn run_apart(self: &Arc<Self>) -> Result<(), BenchError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Apart(Some(
            runtime.map_err(|source| BenchError::Connection { what: "starting a thread", source })?,
        ));
        let appending = Arc::clone(self);
        let running = runtime.0.as_ref().map(|runtime| runtime.spawn(async move { appending.run().await }));
        running.expect("it is there until it is dropped").await.expect("a producer does not panic")
    }

    fn count(&self, mark: &Mark, events: u64) {
        let at = now();
        self.acked[usize::from(mark.producer)].fetch_add(events, Ordering::Relaxed);
        // At a rate, what was due while it counted counts, however late it comes; else what is answered then.
        let counts = match self.schedule {
            Some(_) => mark.sent >= self.measured_from,
            None => at >= self.measured_from && at <= self.until,
        };
        if counts {
            self.measured.fetch_add(events, Ordering::Relaxed);
            let phase = self.phase.load(Ordering::Relaxed);
            let mut outcome = self.outcome();
            while outcome.latencies.len() <= phase {
                outcome.latencies.push(Latencies::default());
            }
            outcome.latencies[phase].record(at.saturating_sub(mark.sent));
        }
    }

    fn is_too_far_ahead(&self, stalled: &mut (u64, u64)) -> bool {
        let Some(distance) = &self.distance else { return false };
        let delivered = distance.delivered.load(Ordering::Relaxed);
        let due = self.total() * distance.readers;
        let given_up = distance.given_up.load(Ordering::Relaxed);
        let open = due.saturating_sub(delivered + given_up);
        if open <= distance.events_max * distance.readers {
            return false;
        }
        if stalled.0 != delivered {
            *stalled = (delivered, now());
        } else if now() - stalled.1 > STALL {
            // Lost for good; a server that loses events must not stop its own run.
            distance.given_up.store(due.saturating_sub(delivered), Ordering::Relaxed);
        }
        true
    }
}

/// One connection that appends until the end.
async fn produce(appending: Arc<Appending>, producer: u16) -> Result<(), BenchError> {
    let alarm = Alarm::new().map_err(BenchError::connection("making a timer"))?;
    let mut connection = Connection::open(&appending.target, false).await?;
    let mut request = Request::new(&appending.target, &appending.shape);
    let events = request.events() as u64;
    let mut number = appending.acked[usize::from(producer)].load(Ordering::Relaxed);
    let mut body = Vec::with_capacity(BODY_KEPT_BYTES);
    let mut stalled = (0, now());
    loop {
        let sent = match &appending.schedule {
            Some(schedule) => schedule.take(),
            None => now(),
        };
        if sent >= appending.until {
            return Ok(());
        }
        if now() > appending.until.saturating_add(LATE_MAX) {
            appending.unsent.fetch_add(events, Ordering::Relaxed);
            continue;
        }
        alarm.until(sent).await.map_err(BenchError::connection("waiting"))?;
        if appending.schedule.is_none() && appending.is_too_far_ahead(&mut stalled) {
            alarm.until(now() + AHEAD_PAUSE).await.map_err(BenchError::connection("waiting"))?;
            continue;
        }
        if appending.claimed.fetch_add(events, Ordering::Relaxed) >= appending.events_max {
            return Ok(());
        }
        let mark = Mark { run: appending.run, producer, number, sent };
        loop {
            connection.send(request.patched(mark)).await?;
            body.clear();
            let keep = |bytes: &[u8]| {
                let room = BODY_KEPT_BYTES - body.len();
                body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            };
            let status = connection.receive(keep).await?;
            if (200..300).contains(&status) {
                break;
            }
            if (400..500).contains(&status) && !matches!(status, 408 | 429) {
                let body = String::from_utf8_lossy(&body).into_owned();
                return Err(BenchError::Refused { status, body });
            }
            *appending.outcome().refused.entry(status).or_default() += 1;
            tokio::time::sleep(REFUSED_PAUSE).await;
            if now() > appending.until.saturating_add(LATE_MAX) {
                return Ok(());
            }
        }
        if producer == 0
            && appending.seq_of_first.load(Ordering::Relaxed) == 0
            && let Some(seq) = number_after(&body, b"\"seq\":")
        {
            appending.seq_of_first.store(seq.saturating_sub(number), Ordering::Relaxed);
        }
        appending.count(&mark, events);
        number += events;
    }
}

/// The first number behind this text.
pub(crate) fn number_after(body: &[u8], text: &[u8]) -> Option<u64> {
    let start = memchr::memmem::find(body, text)? + text.len();
    let digits = body[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[start..start + digits]).ok()?.parse().ok()
}

/// Appends so many events as fast as they are acked.
pub(crate) async fn fill(appending: &Arc<Appending>) -> Result<(), BenchError> {
    appending.run().await?;
    let refused = appending.outcome().refused.clone();
    match refused.iter().next() {
        None => Ok(()),
        Some((status, count)) => Err(BenchError::Answer(format!("{count} appends ended with {status}"))),
    }
}
