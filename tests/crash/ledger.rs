//! What everyone was told: what producers posted and were promised, what readers and the table showed. One seq, one
//! event, whoever says it and whenever.

use crate::table::{Stored, assert_ordered};
use evertail::wire::ReceiptJson;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// An event as its producer knows it. Its payload is unlike that of any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Posted {
    pub(crate) stream: String,
    pub(crate) r#type: String,
    pub(crate) id: Option<String>,
    pub(crate) data: String,
    /// The request that carries it: all of its events are stored, next to each other, or none.
    pub(crate) request: String,
}

/// Shared by all producers and readers of a test.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    /// By payload.
    posted: HashMap<String, Posted>,
    /// Events of each request.
    requests: HashMap<String, usize>,
    acks: BTreeMap<u64, (String, ReceiptJson)>,
    seq_by_data: HashMap<String, u64>,
    seen: BTreeMap<u64, Stored>,
    refusals: Vec<(u16, String)>,
    /// When a producer was first told that the log has failed: nothing sent later may be acked.
    failed_at: Option<Instant>,
    faults: Vec<String>,
}

impl Ledger {
    fn told(&self) -> MutexGuard<'_, Told> {
        // A test that fails under the lock has said all there is to say.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that must never happen.
    pub(crate) fn fault(&self, what: String) {
        self.told().faults.push(what);
    }

    /// Before it is sent, so that nothing stored is unknown.
    pub(crate) fn post(&self, events: &[Posted]) {
        let mut told = self.told();
        for event in events {
            if told.posted.insert(event.data.clone(), event.clone()).is_none() {
                *told.requests.entry(event.request.clone()).or_default() += 1;
            }
        }
    }

    /// A 2xx for what was sent at that time.
    pub(crate) fn ack(&self, sent_at: Instant, events: &[Posted], receipts: &[ReceiptJson]) {
        let mut told = self.told();
        if told.failed_at.is_some_and(|failed_at| sent_at > failed_at) {
            told.faults.push(format!("acked after the log had failed: {receipts:?}"));
        }
        if events.len() != receipts.len() {
            told.faults.push(format!("{} events, {} receipts", events.len(), receipts.len()));
        }
        for (event, receipt) in events.iter().zip(receipts) {
            told.ack(event, receipt);
        }
    }

    pub(crate) fn refused(&self, status: u16, code: String) {
        let mut told = self.told();
        if code == "log_unavailable" {
            told.failed_at.get_or_insert_with(Instant::now);
        }
        told.refusals.push((status, code));
    }

    /// Another process serves the log.
    pub(crate) fn restarted(&self) {
        self.told().failed_at = None;
    }

    pub(crate) fn refusals(&self) -> Vec<(u16, String)> {
        self.told().refusals.clone()
    }

    pub(crate) fn acks(&self) -> usize {
        self.told().acks.len()
    }

    /// The seqs of all that is acked by now.
    pub(crate) fn acked(&self) -> Vec<u64> {
        self.told().acks.keys().copied().collect()
    }

    /// One of the acked events that have an id.
    pub(crate) fn any_acked(&self) -> Option<Posted> {
        let told = self.told();
        let last = *told.acks.keys().next_back()?;
        let from = rand::random_range(0..=last);
        let mut acked = told.acks.range(from..).map(|(_, (data, _))| &told.posted[data]);
        acked.find(|event| event.id.is_some()).cloned()
    }

    /// A reader or the table shows an event.
    pub(crate) fn see(&self, who: &str, event: Stored) {
        let mut told = self.told();
        let fault = match told.seen.get(&event.seq) {
            Some(known) if *known == event => None,
            Some(known) => Some(format!("{who} shows {event:?}, another showed {known:?}")),
            None => {
                let fault = told.differs(&event).map(|what| format!("{who} shows {event:?}: {what}"));
                told.seen.insert(event.seq, event);
                fault
            }
        };
        told.faults.extend(fault);
    }

    pub(crate) fn assert_faultless(&self) {
        let told = self.told();
        assert!(
            told.faults.is_empty(),
            "{} faults, the first of them: {:#?}",
            told.faults.len(),
            &told.faults[..1]
        );
    }

    /// Holds the whole table against everything that was told.
    pub(crate) fn assert_agrees(&self, rows: &[Stored]) {
        assert_ordered(0, rows);
        rows.iter().for_each(|row| self.see("the table", row.clone()));
        self.assert_faultless();
        let told = self.told();
        let lost: Vec<_> = told.acks.iter().filter(|(seq, _)| **seq > rows.len() as u64).collect();
        assert!(lost.is_empty(), "acked and not stored: {lost:?}");
        let ahead: Vec<_> = told.seen.range(rows.len() as u64 + 1..).collect();
        assert!(ahead.is_empty(), "seen and not stored: {ahead:?}");
        let mut stored: HashMap<&str, Vec<u64>> = HashMap::new();
        let mut data = HashMap::new();
        for row in rows {
            assert_eq!(data.insert(&row.data, row.seq), None, "stored twice: {row:?}");
            stored.entry(&told.posted[&row.data].request).or_default().push(row.seq);
        }
        for (request, seqs) in stored {
            assert_eq!(seqs.len(), told.requests[request], "part of the batch {request}: {seqs:?}");
            assert!(seqs.is_sorted_by(|a, b| a + 1 == *b), "the batch {request} is scattered: {seqs:?}");
        }
    }
}

impl Told {
    fn ack(&mut self, event: &Posted, receipt: &ReceiptJson) {
        let seq = receipt.seq;
        let mut faults = Vec::new();
        if receipt.stream != event.stream || receipt.id != event.id || receipt.created_at.is_none() {
            faults.push(format!("{receipt:?} is no receipt for {event:?}"));
        }
        match self.seq_by_data.get(&event.data) {
            Some(known) if *known != seq || !receipt.duplicate => {
                faults.push(format!("{event:?} was acked as seq {known} and is now {receipt:?}"));
            }
            _ => {}
        }
        match self.acks.get(&seq) {
            Some((data, known)) if *data != event.data || known.created_at != receipt.created_at => {
                faults.push(format!("seq {seq} was acked to {data} and to {}", event.data));
            }
            _ => {}
        }
        self.seq_by_data.insert(event.data.clone(), seq);
        self.acks.insert(seq, (event.data.clone(), receipt.clone()));
        if let Some(seen) = self.seen.get(&seq)
            && let Some(what) = self.differs(seen)
        {
            faults.push(format!("{receipt:?} for {seen:?}: {what}"));
        }
        self.faults.extend(faults);
    }

    /// Why this event is not what was posted and acked.
    fn differs(&self, event: &Stored) -> Option<String> {
        let Some(posted) = self.posted.get(&event.data) else { return Some("nobody posted it".to_owned()) };
        let is_posted =
            (&posted.stream, &posted.r#type, &posted.id) == (&event.stream, &event.r#type, &event.id);
        if !is_posted {
            return Some(format!("posted was {posted:?}"));
        }
        let (data, receipt) = self.acks.get(&event.seq)?;
        let is_acked = *data == event.data && receipt.created_at.as_ref() == Some(&event.created_at);
        (!is_acked).then(|| format!("acked was {receipt:?} for {data}"))
    }
}
