//! The closed loop and the replay that the drivers share, with the histogram of `evertail bench`.

use evertail::bench::figures::Latencies;
use evertail::bench::mark::now;
use evertail::bench::process::Watched;
use evertail::bench::report::Report;
use futures_util::future::join_all;
use std::cell::RefCell;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The event of the benchmark: 200 bytes of JSON.
pub(crate) fn payload() -> String {
    format!("{{\"pad\":\"{}\"}}", "x".repeat(190))
}

/// A connection with the bytes that came and were not looked at yet.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Wire {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 1 << 20], start: 0, end: 0 }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn more(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let read = self.stream.read(&mut self.buffer[self.end..]).await.unwrap();
        assert!(read > 0, "the server closed the connection");
        self.end += read;
    }

    /// The next line, without its end.
    pub(crate) async fn line(&mut self) -> &str {
        loop {
            match memchr::memchr(b'\n', &self.buffer[self.start..self.end]) {
                Some(length) => {
                    let line = &self.buffer[self.start..self.start + length - 1];
                    self.start += length + 1;
                    return std::str::from_utf8(line).unwrap();
                }
                None => self.more().await,
            }
        }
    }

    /// The next so many bytes, and the line end behind them.
    pub(crate) async fn bytes(&mut self, length: usize) -> &[u8] {
        while self.end - self.start < length + 2 {
            self.more().await;
        }
        let bytes = &self.buffer[self.start..self.start + length];
        self.start += length + 2;
        bytes
    }
}

/// A connection that appends one event and waits for its ack.
pub(crate) trait Exchange {
    async fn exchange(&mut self);
}

/// As fast as acked, over so many connections.
pub(crate) async fn append<P: Exchange>(
    connections: usize,
    seconds: f64,
    connect: impl AsyncFn() -> P,
) -> Report {
    let measured_from = now() + 500_000_000;
    let until = measured_from + (seconds * 1e9) as u64;
    let latencies = RefCell::new(Latencies::default());
    let before = RefCell::new(None);
    join_all((0..connections).map(|_| async {
        let mut producer = connect().await;
        loop {
            let sent = now();
            producer.exchange().await;
            let at = now();
            if at > until {
                return;
            }
            if at >= measured_from {
                before.borrow_mut().get_or_insert_with(|| Watched::this().cpu_us());
                latencies.borrow_mut().record(at - sent);
            }
        }
    }))
    .await;
    let latencies = latencies.into_inner();
    let spent = before.into_inner().flatten().zip(Watched::this().cpu_us()).map(|(from, to)| to - from);
    let mut report = Report::new("append");
    report.set("connections", connections);
    report.set_measured("acks_per_second", latencies.count() as f64 / seconds);
    report.set_latencies("ack", &latencies);
    report.set_measured("bench_cores", spent.map(|us| us / seconds / 1e6));
    report
}

/// Reads everything with so many readers at a time.
pub(crate) async fn replay(events: u64, readers: usize, read: impl AsyncFn() -> u64) -> Report {
    let start = now();
    let seconds: Vec<f64> = join_all((0..readers).map(|_| async {
        assert_eq!(read().await, events, "every event comes once");
        (now() - start) as f64 / 1e9
    }))
    .await;
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    let mut report = Report::new("replay");
    report.set("readers", readers);
    report.set("events", events * readers as u64);
    report.set_measured("events_per_second", (events * readers as u64) as f64 / slowest);
    report
}
