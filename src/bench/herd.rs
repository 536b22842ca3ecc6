//! `evertail bench tail --reconnect`: all readers are dropped and come back at once, while appends go on.

use super::BenchError;
use super::append::{nanoseconds, tell_outcome};
use super::crowd::{Crowd, LOOK, Memory};
use super::figures::Latencies;
use super::mark::now;
use super::pace::Schedule;
use super::producer::{Appending, fill};
use super::reader::{Reader, Reading};
use super::report::Report;
use super::request::Shape;
use super::tail::TailRun;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How far back the cursors lie that readers come back with.
const CURSORS: u64 = 10_000;
/// Events of a request that fills the log.
const FILL_BATCH: usize = 1_000;
/// *Units*: nanoseconds.
const LIVE_MAX: u64 = 60_000_000_000;

/// Runs the herd, and says how it went.
///
/// *Errors*: [`BenchError::Options`] without a rate or with several producers: a cursor is counted back from the seqs of
/// one.
pub async fn run(options: &TailRun) -> Result<Report, BenchError> {
    let (Some(rate), 1, 1) = (options.rate, options.connections, options.shape.batch) else {
        let what =
            "readers that reconnect need appends at a --rate over one of --connections, without --batch";
        return Err(BenchError::Options(what.into()));
    };
    let filled = filled(options).await?;
    let mut appending = Appending::new(options.append.clone(), options.shape.clone(), 1, 0);
    appending.run = filled.run;
    appending.seq_of_first.store(filled.seq_of_first.load(Ordering::Relaxed), Ordering::Relaxed);
    appending.acked[0].store(filled.total(), Ordering::Relaxed);

    let connecting = now();
    let reading = Reading::new(options.tail.clone(), filled.run, Arc::new(AtomicU64::new(0)));
    let mut crowd = Crowd::gather(reading, options.readers, &[filled.total()]).await?;
    let connected = (now() - connecting) as f64 / 1e9;
    tokio::time::sleep(Duration::from_secs_f64(options.settle_seconds)).await;
    let before = Memory::now(&options.server);

    let start = now();
    let until = start + nanoseconds(options.seconds);
    // The end is set when the herd is back.
    appending.until = u64::MAX;
    appending.schedule = Some(Schedule::new(start, rate));
    let appending = Arc::new(appending);
    let producing = tokio::spawn({
        let appending = Arc::clone(&appending);
        async move { appending.run_apart().await }
    });
    tokio::time::sleep(Duration::from_nanos(until.saturating_sub(now()))).await;

    appending.phase.store(1, Ordering::Relaxed);
    let dropped = now();
    let owed = come_back(&mut crowd, &appending);
    let (opened, live) = wait_until_live(&crowd, dropped).await;
    appending.phase.store(2, Ordering::Relaxed);
    let during = (now() - dropped) as f64 / 1e9;
    tokio::time::sleep(Duration::from_secs_f64(1.0)).await;
    producing.abort();
    let _ = producing.await;

    // The last append may be stored and not acked, as it was cut off; everything acked must be delivered.
    let due = appending.counts();
    let quiet = now();
    while crowd.readers.iter().any(|reader| reader.order().next(0) < due[0])
        && now() - quiet < nanoseconds(options.grace_seconds)
    {
        tokio::time::sleep(LOOK).await;
    }
    let mut report = Report::new("herd");
    report.set("readers", options.readers);
    report.set_measured("rate_per_second", rate);
    report.set_measured("connected_after_seconds", connected);
    report.set_measured("all_opened_after_seconds", opened);
    report.set_measured("all_live_after_seconds", live.max_us() / 1e6);
    report.set_measured("live_per_second", options.readers as f64 / (live.max_us() / 1e6));
    report.set("caught_up_events", owed);
    report.set_measured("caught_up_per_second", owed as f64 / (live.max_us() / 1e6));
    report.set_latencies("live", &live);
    report.set_measured("herd_seconds", during);
    let empty = Latencies::default();
    let outcome = appending.outcome().clone();
    for (phase, name) in ["ack_before", "ack_during", "ack_after"].into_iter().enumerate() {
        report.set_latencies(name, outcome.latencies.get(phase).unwrap_or(&empty));
    }
    Memory::now(&options.server).tell(&mut report, "after", &before, options.readers);
    tell_outcome(&mut report, &appending);
    if live.count() < options.readers as u64 {
        report.failures.push(format!("not live again: {}", options.readers as u64 - live.count()));
    }
    crowd.verify(&mut report, &due, options.allows_loss);
    Ok(report)
}

/// What the cursors reach back into.
async fn filled(options: &TailRun) -> Result<Arc<Appending>, BenchError> {
    let shape = Shape { batch: FILL_BATCH, ..options.shape.clone() };
    let mut filling = Appending::new(options.append.clone(), shape, 1, u64::MAX);
    filling.events_max = CURSORS;
    let filling = Arc::new(filling);
    fill(&filling).await?;
    if filling.seq_of_first.load(Ordering::Relaxed) == 0 {
        let what = "its answers name no seq, from which a cursor could be made".to_owned();
        return Err(BenchError::Answer(what));
    }
    Ok(filling)
}

/// Drops every stream and opens it again at once, with cursors spread over the last events. How many events that asks
/// for.
fn come_back(crowd: &mut Crowd, appending: &Appending) -> u64 {
    for task in crowd.tasks.drain(..) {
        task.abort();
    }
    let newest = appending.acked[0].load(Ordering::Relaxed);
    let count = crowd.readers.len() as u64;
    let mut owed = 0;
    for (index, reader) in (0..).zip(&crowd.readers) {
        let back = 1 + index * (CURSORS - 1) / count;
        let number = newest.saturating_sub(back);
        owed += back;
        reader.order().rewind(0, number);
        reader.live_from.store(newest, Ordering::Relaxed);
        reader.live_at.store(0, Ordering::Relaxed);
        let cursor = appending.seq_of_first.load(Ordering::Relaxed) + number - 1;
        let following = Arc::clone(&crowd.reading).follow(Arc::clone(reader), Some(cursor), None);
        crowd.tasks.push(tokio::spawn(following));
    }
    owed
}

/// Waits until every reader has all that was there when it was dropped. After how many seconds all were answered, and
/// how long each took.
async fn wait_until_live(crowd: &Crowd, dropped: u64) -> (Option<f64>, Latencies) {
    let is_live = |reader: &Arc<Reader>| reader.live_at.load(Ordering::Relaxed) > 0;
    // Each was opened once before.
    let all = 2 * crowd.readers.len() as u64;
    let mut opened = None;
    while !crowd.readers.iter().all(is_live) && now() - dropped < LIVE_MAX {
        if opened.is_none() && crowd.reading.opened.load(Ordering::Relaxed) >= all {
            opened = Some((now() - dropped) as f64 / 1e9);
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut live = Latencies::default();
    for reader in crowd.readers.iter().filter(|reader| is_live(reader)) {
        live.record(reader.live_at.load(Ordering::Relaxed).saturating_sub(dropped));
    }
    (opened.or(Some(live.max_us() / 1e6)), live)
}
