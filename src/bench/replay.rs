//! `evertail bench replay`: history, read as fast as it comes.

use super::BenchError;
use super::connection::{Connection, fetch};
use super::mark::now;
use super::order::Order;
use super::process::Watched;
use super::producer::{Appending, fill, number_after};
use super::report::Report;
use super::request::Shape;
use super::scan::{MarkScanner, NumberScanner};
use super::target::Target;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// How history is read, and so what is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// SSE of an Evertail server: every `id:`.
    Sse,
    /// NDJSON of an Evertail server: every `seq`.
    Lines,
    /// Any server: the marks of what was appended before.
    Marks,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct ReplayRun {
    /// Where the log is filled.
    pub append: Target,
    /// What is read, from the beginning.
    pub read: Target,
    /// How.
    pub form: Form,
    /// Whether what is read is only a part of the log, so that its seqs rise but have gaps.
    pub is_part: bool,
    /// What the log is filled with.
    pub shape: Shape,
    /// Connections that fill the log.
    pub connections: usize,
    /// Readers at a time.
    pub readers: usize,
    /// The log is filled to so many events first.
    pub events: u64,
    /// The server, if it runs here.
    pub server: Watched,
}

/// What one reader has read.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Read {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) wrong: u64,
    pub(crate) last: u64,
}

/// Fills the log if it has fewer events, reads it, and says how it went.
pub async fn run(options: &ReplayRun) -> Result<Report, BenchError> {
    let expected = prepare(options).await?;
    let cpu = (Watched::this().cpu_us(), options.server.cpu_us());
    let start = now();
    let mut readers = JoinSet::new();
    for _ in 0..options.readers {
        let options = options.clone();
        readers.spawn(async move {
            let read = match options.form {
                Form::Marks => read_marks(&options.read, options.events).await?,
                form => {
                    read_numbers(&options.read, form, expected.last, options.is_part, &AtomicU64::new(0))
                        .await?
                }
            };
            Ok::<_, BenchError>((read, now()))
        });
    }
    let (mut total, mut seconds) = (Read::default(), Vec::new());
    let mut incomplete = 0;
    while let Some(ended) = readers.join_next().await {
        let (read, end) = ended.expect("a reader does not panic")?;
        total.events += read.events;
        total.bytes += read.bytes;
        total.wrong += read.wrong;
        incomplete += expected.events.abs_diff(read.events);
        seconds.push((end - start) as f64 / 1e9);
    }
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    let spent = |before: Option<f64>, now: Option<f64>| Some((now? - before?) / total.events as f64);

    let mut report = Report::new("replay");
    report.set("readers", options.readers);
    report.set("form", format!("{:?}", options.form).to_lowercase());
    report.set("path", options.read.path.clone());
    report.set("events", total.events);
    report.set_measured("seconds", slowest);
    report.set_measured("events_per_second", total.events as f64 / slowest);
    let each: f64 = seconds.iter().map(|seconds| expected.events as f64 / seconds).sum();
    report.set_measured("events_per_second_per_reader", each / options.readers as f64);
    report.set_measured("megabytes_per_second", total.bytes as f64 / slowest / 1e6);
    report.set_measured("bench_cpu_us_per_event", spent(cpu.0, Watched::this().cpu_us()));
    report.set_measured("server_cpu_us_per_event", spent(cpu.1, options.server.cpu_us()));
    report.set_measured("server_rss_peak_kib", options.server.rss_peak_kib());
    for (name, count) in [("out_of_order", total.wrong), ("missing", incomplete)] {
        report.set(name, count);
        if count > 0 {
            report.failures.push(format!("{name}: {count}"));
        }
    }
    Ok(report)
}

/// Fills the log; what each reader must be given.
async fn prepare(options: &ReplayRun) -> Result<Read, BenchError> {
    let stored = match options.form {
        Form::Marks => 0,
        _ => last_seq(&options.read).await?,
    };
    if stored < options.events {
        let mut filling =
            Appending::new(options.append.clone(), options.shape.clone(), options.connections, u64::MAX);
        filling.events_max = options.events - stored;
        fill(&Arc::new(filling)).await?;
    }
    match options.form {
        Form::Marks => Ok(Read { events: options.events, ..Read::default() }),
        // Read once, untimed: which events match is not known otherwise, and the file is in memory for every run alike.
        _ => read_numbers(&options.read, Form::Lines, u64::MAX, options.is_part, &AtomicU64::new(0)).await,
    }
}

/// Newest seq of an Evertail server.
pub(crate) async fn last_seq(server: &Target) -> Result<u64, BenchError> {
    let (head, body) = fetch(&server.at("/api/v1/events?last=1"), "Accept: application/json\r\n").await?;
    if head.status != 200 {
        let body = String::from_utf8_lossy(&body).into_owned();
        return Err(BenchError::Refused { status: head.status, body });
    }
    number_after(&body, b"\"last_seq\":")
        .ok_or_else(|| BenchError::Answer("it is not that of an Evertail server".into()))
}

/// Reads an Evertail server up to this seq, or to the end of the answer. Events are counted as they come.
pub(crate) async fn read_numbers(
    target: &Target,
    form: Form,
    last: u64,
    is_part: bool,
    progress: &AtomicU64,
) -> Result<Read, BenchError> {
    let (accept, mut scanner) = match form {
        Form::Lines => ("application/x-ndjson", NumberScanner::seqs()),
        _ => ("text/event-stream", NumberScanner::ids()),
    };
    let mut connection = Connection::open(target, false).await?;
    connection.get(target, &format!("Accept: {accept}\r\n")).await?;
    let mut read = Read::default();
    // A stream begins with a frame that hands out the cursor, whose id is not that of an event.
    let mut is_cursor = form == Form::Sse;
    loop {
        let is_over = connection
            .more(|bytes| {
                read.bytes += bytes.len() as u64;
                let before = read.events;
                scanner.push(bytes, |seq| {
                    if std::mem::take(&mut is_cursor) {
                        read.last = seq;
                        return;
                    }
                    let is_next = seq == read.last + 1 || (is_part && seq > read.last);
                    read.wrong += u64::from(!is_next);
                    read.events += 1;
                    read.last = seq;
                });
                progress.fetch_add(read.events - before, Ordering::Relaxed);
            })
            .await?;
        refuse_all_but_200(&connection)?;
        if is_over || read.last >= last {
            return Ok(read);
        }
    }
}

/// Reads any server until so many events have come, or the answer ends.
async fn read_marks(target: &Target, events: u64) -> Result<Read, BenchError> {
    let mut connection = Connection::open(target, false).await?;
    connection.get(target, "Accept: text/event-stream\r\n").await?;
    let (mut scanner, mut order, mut read) = (MarkScanner::default(), Order::default(), Read::default());
    loop {
        let is_over = connection
            .more(|bytes| {
                read.bytes += bytes.len() as u64;
                scanner.push(bytes, |mark| order.see(&mark));
            })
            .await?;
        refuse_all_but_200(&connection)?;
        if is_over || order.delivered >= events {
            read.events = order.delivered;
            read.wrong = order.repeated + order.out_of_order;
            return Ok(read);
        }
    }
}

fn refuse_all_but_200(connection: &Connection) -> Result<(), BenchError> {
    match connection.head() {
        Some(head) if head.status != 200 => {
            Err(BenchError::Refused { status: head.status, body: "history cannot be read".into() })
        }
        _ => Ok(()),
    }
}
