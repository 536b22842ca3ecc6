//! Readers that follow the log across everything that happens to the server, and what each must have got in the end.

use crate::event_source::{EventSource, Frame, Heard};
use crate::ledger::Ledger;
use crate::server::until;
use crate::table::Stored;
use evertail::client::{Client, TailItem};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What a reader asks for, and how it behaves.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// Below `/api/v1`.
    pub(crate) path: &'static str,
    pub(crate) matches: fn(&Stored) -> bool,
    pub(crate) manner: Manner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A browser's.
    Native,
    /// A browser's that loses its connection now and then.
    Fickle,
    /// A browser's that is slow to take what it is sent.
    Slow,
    /// `format=data`: the payload alone.
    Payload,
    /// Our own client.
    Tail,
}

/// What a reader has got so far.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The first id it was given: it reads what is after it.
    start: Option<u64>,
    /// Id, name and data of every event.
    events: Vec<(u64, String, String)>,
    /// Control frames, cursors left out.
    pub(crate) controls: Vec<Frame>,
    /// Ends of a stream that the server made itself.
    ends: usize,
    /// Connections that were lost or could not be made.
    losses: usize,
    faults: Vec<String>,
}

impl Record {
    fn connections_lost(&self) -> usize {
        self.ends + self.losses
    }
}

pub(crate) struct Reader {
    wanted: Wanted,
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Readers at work, each of which has been answered.
    pub(crate) async fn start_each(base: &str, wanted: &[Wanted], ledger: &Ledger) -> Vec<Self> {
        let readers: Vec<Self> = wanted.iter().map(|wanted| Self::start(base, *wanted, ledger)).collect();
        for reader in &readers {
            reader.is_reading().await;
        }
        readers
    }

    /// A reader at work. It goes on until it is dropped.
    pub(crate) fn start(base: &str, wanted: Wanted, ledger: &Ledger) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let reading = Reading { wanted, record: record.clone(), ledger: ledger.clone() };
        let url = format!("{base}/api/v1{}", wanted.path);
        let task = match wanted.manner {
            Manner::Tail => tokio::spawn(reading.tail(base.to_owned())),
            _ => tokio::spawn(reading.follow(EventSource::new(url))),
        };
        Self { wanted, record, task }
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    /// Waits until it has been given its first cursor.
    pub(crate) async fn is_reading(&self) {
        until("the reader reads", async || self.record().start.is_some()).await;
    }

    /// Waits until it has got every event of the table that it wants, and sees that it got nothing else.
    pub(crate) async fn got_exactly(&self, rows: &[Stored]) {
        until(&format!("{} reads to the end: {:?}", self.wanted.path, self.summary()), async || {
            let record = self.record();
            assert!(record.faults.is_empty(), "{}: {:?}", self.wanted.path, record.faults);
            let start = record.start.unwrap_or(u64::MAX);
            let last = rows.iter().rfind(|row| row.seq > start && (self.wanted.matches)(row));
            record.start.is_some()
                && last.is_none_or(|last| record.events.last().is_some_and(|e| e.0 >= last.seq))
        })
        .await;
        let record = self.record();
        let start = record.start.unwrap();
        let mut wanted = rows.iter().filter(|row| row.seq > start && (self.wanted.matches)(row));
        for (index, (seq, event, data)) in record.events.iter().enumerate() {
            let row = wanted
                .next()
                .unwrap_or_else(|| panic!("{}: seq {seq} is not in the table", self.wanted.path));
            assert_eq!(row.seq, *seq, "{}: event {index} of the reader", self.wanted.path);
            assert_eq!(row.r#type, *event, "the name of seq {seq}");
            match self.wanted.manner {
                Manner::Payload => assert_eq!(payload(&row.data), *data, "the payload of seq {seq}"),
                _ => assert_eq!(Stored::parse(data).as_ref(), Ok(row), "the data of seq {seq}"),
            }
        }
        assert_eq!(wanted.next(), None, "{}: missing at the end", self.wanted.path);
    }

    /// Waits until its stream has ended, and sees that it was told why, once.
    pub(crate) async fn was_told(&self, reason: &str) {
        until("the stream ends", async || self.record().connections_lost() > 0).await;
        let summary = self.summary();
        let data = format!(r#"{{"reason":"{reason}"}}"#);
        let notice = Frame { event: "evertail.notice".to_owned(), data, ..Frame::default() };
        let record = self.record();
        assert_eq!((&record.controls, record.ends), (&vec![notice], 1), "{summary} was told");
    }

    /// One line about it.
    pub(crate) fn summary(&self) -> String {
        let record = self.record();
        let Record { events, losses, ends, start, .. } = &*record;
        format!(
            "{} {:?}: from {start:?} {} events, {losses} losses, {ends} ends",
            self.wanted.path,
            self.wanted.manner,
            events.len()
        )
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    // A test that fails under the lock has said all there is to say.
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A JSON string without its quotes, anything else as it is.
fn payload(data: &str) -> String {
    serde_json::from_str::<String>(data).unwrap_or_else(|_| data.to_owned())
}

struct Reading {
    wanted: Wanted,
    record: Arc<Mutex<Record>>,
    ledger: Ledger,
}

impl Reading {
    async fn follow(self, mut source: EventSource) {
        loop {
            match source.next().await {
                Ok(Heard::Frame(frame)) => {
                    self.take(frame);
                    match self.wanted.manner {
                        Manner::Fickle if rand::random_bool(0.04) => source.hang_up(),
                        Manner::Slow if rand::random_bool(0.02) => {
                            tokio::time::sleep(Duration::from_millis(rand::random_range(1..60))).await;
                        }
                        _ => {}
                    }
                }
                Ok(Heard::Gone { is_ended }) => {
                    self.lose(is_ended);
                    // A browser's own delay is longer; the cycles are short.
                    tokio::time::sleep(Duration::from_millis(rand::random_range(1..30))).await;
                }
                Err(fault) => return lock(&self.record).faults.push(fault),
            }
        }
    }

    async fn tail(self, base: String) {
        let mut tail =
            Client::new(&base).tail(None, self.wanted.path.split_once('?').map_or("", |(_, query)| query));
        loop {
            match tail.next().await {
                Ok(TailItem::Event(event)) => {
                    let id = event.last_event_id.parse().ok();
                    self.take(Frame { event: event.event, data: event.data, id, ..Frame::default() });
                }
                Ok(TailItem::Disconnected(_)) => {
                    self.lose(false);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(TailItem::End) => return lock(&self.record).faults.push("the end of a tail".to_owned()),
                Err(error) => return lock(&self.record).faults.push(error.to_string()),
            }
        }
    }

    fn take(&self, frame: Frame) {
        let is_event = !frame.is_control();
        if is_event && self.wanted.manner != Manner::Payload {
            match Stored::parse(&frame.data) {
                Ok(event) if Some(event.seq) == frame.id => self.ledger.see(self.wanted.path, event),
                other => self.ledger.fault(format!("{}: {other:?} in {frame:?}", self.wanted.path)),
            }
        }
        let mut record = lock(&self.record);
        if record.start.is_none() {
            record.start = frame.id;
        }
        match frame.id {
            Some(id) if is_event => record.events.push((id, frame.event, frame.data)),
            _ if frame.event == "evertail.cursor" => {}
            // When to come back is another matter.
            _ => record.controls.push(Frame { retry_milliseconds: None, ..frame }),
        }
    }

    fn lose(&self, is_ended: bool) {
        let mut record = lock(&self.record);
        if is_ended {
            record.ends += 1;
        } else {
            record.losses += 1;
        }
    }
}
