//! Readers: many event streams held by one process, each event verified as it comes.

use super::BenchError;
use super::connection::Connection;
use super::figures::Latencies;
use super::mark::now;
use super::order::Order;
use super::scan::MarkScanner;
use super::target::Target;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

/// What all readers of a run have in common.
#[derive(Debug)]
pub struct Reading {
    /// What is read.
    pub target: Target,
    /// Headers of the request, each with its line end.
    pub headers: String,
    /// The run whose events count.
    pub run: u32,
    /// Events given to all readers together.
    pub delivered: Arc<AtomicU64>,
    /// When the last one was given. *Units*: nanoseconds of [`now`].
    pub last: AtomicU64,
    /// Streams that are open.
    pub opened: AtomicU64,
    /// Streams that the server has ended, or that broke.
    pub ended: AtomicU64,
    latencies: Mutex<Latencies>,
    failure: Mutex<Option<BenchError>>,
}

/// One reader, and how far it is.
#[derive(Debug, Default)]
pub struct Reader {
    /// What it was given.
    pub order: Mutex<Order>,
    /// When it first had what the herd waits for; 0 before.
    pub live_at: AtomicU64,
    /// The number that makes it live again.
    pub live_from: AtomicU64,
}

impl Reader {
    /// A reader to whom these numbers are due first.
    pub fn due(numbers: &[u64]) -> Self {
        Self { order: Mutex::new(Order::from(numbers.to_vec())), ..Self::default() }
    }

    /// What it was given.
    pub fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// Nobody reads yet.
    pub fn new(target: Target, run: u32, delivered: Arc<AtomicU64>) -> Self {
        Self {
            target,
            headers: String::from("Accept: text/event-stream\r\n"),
            run,
            delivered,
            last: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            latencies: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// From sending to reading, of every event that was given.
    pub fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a stream could not be opened, or broke.
    pub fn failure(&self) -> Option<BenchError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Opens a stream and reads it until it ends or the task is aborted. Never fails: what goes wrong is counted. The
    /// permit is given back once the stream is open.
    pub async fn follow(
        self: Arc<Self>,
        reader: Arc<Reader>,
        cursor: Option<u64>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        if let Err(error) = self.read(&reader, cursor, permit).await {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    async fn read(
        &self,
        reader: &Reader,
        cursor: Option<u64>,
        mut permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(), BenchError> {
        let mut connection = Connection::open(&self.target, false).await?;
        let mut headers = self.headers.clone();
        if let Some(cursor) = cursor {
            headers.push_str(&format!("Last-Event-ID: {cursor}\r\n"));
        }
        connection.get(&self.target, &headers).await?;
        let mut scanner = MarkScanner::default();
        let mut is_open = false;
        loop {
            let mut refusal = String::new();
            let is_over = connection
                .more(|bytes| {
                    self.see(reader, &mut scanner, bytes);
                    if !is_open && refusal.len() < 400 {
                        refusal.push_str(&String::from_utf8_lossy(&bytes[..bytes.len().min(400)]));
                    }
                })
                .await?;
            if !is_open && let Some(head) = connection.head() {
                if head.status != 200 {
                    return Err(BenchError::Refused { status: head.status, body: refusal });
                }
                is_open = true;
                drop(permit.take());
                self.opened.fetch_add(1, Ordering::Relaxed);
            }
            if is_over {
                return Ok(());
            }
        }
    }

    fn see(&self, reader: &Reader, scanner: &mut MarkScanner, bytes: &[u8]) {
        let at = now();
        let mut order = reader.order();
        let mut latencies = self.latencies();
        let before = order.delivered;
        scanner.push(bytes, |mark| {
            if mark.run == self.run {
                order.see(&mark);
                latencies.record(at.saturating_sub(mark.sent));
            }
        });
        drop(latencies);
        if order.delivered > before {
            self.delivered.fetch_add(order.delivered - before, Ordering::Relaxed);
            self.last.store(at, Ordering::Relaxed);
            if reader.live_at.load(Ordering::Relaxed) == 0
                && order.next(0) >= reader.live_from.load(Ordering::Relaxed)
            {
                reader.live_at.store(at, Ordering::Relaxed);
            }
        }
    }
}
