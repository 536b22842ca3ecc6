//! The plan of a commit: which events a batch becomes, and what each request is answered.
//!
//! A pure function of the log's position, the time, the batch, and what the table knows of its ids and streams. No
//! clock, no random source, no I/O: the same block applied to the same log gives the same events everywhere.

use crate::event::{Content, Event, Origin, Receipt, Seq, StreamName, Timestamp};
use crate::store::{IdKey, Known, StreamEnd};
use std::collections::HashMap;
use std::sync::Arc;

/// One request to append: all of its events or none.
#[derive(Debug, Clone, Default)]
pub struct Append {
    /// The events, in order.
    pub contents: Vec<Content>,
    /// Append only if the log is where the producer thinks it is.
    pub expected: Option<ExpectedLastSeq>,
    /// Who asks, where that is known. [`super::Log::append`] takes it from its handle: see [`super::Log::by`].
    pub origin: Option<Arc<Origin>>,
}

/// A condition on the newest seq (`If-Match`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedLastSeq {
    /// Of this stream; `None` for the whole log.
    pub stream: Option<StreamName>,
    /// What it must be; 0 for a stream without events.
    pub seq: Seq,
}

/// Why a request cannot be stored. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The id of the event at this index belongs to another event of the stream.
    IdReused {
        /// Which of the request's events.
        index: usize,
        /// The event that has the id.
        seq: Seq,
    },
    /// The event at this index has the id of an earlier event of the same request, and differs from it.
    IdTwice {
        /// Which of the request's events.
        index: usize,
    },
    /// The stream of the event at this index is closed.
    StreamClosed {
        /// Which of the request's events.
        index: usize,
        /// The stream's final event; `None` if that is an earlier one of the same request.
        seq: Option<Seq>,
    },
    /// The condition does not hold.
    LastSeqDiffers {
        /// What it is.
        last_seq: Seq,
    },
}

/// Where the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) last_seq: Seq,
    pub(super) last_created_at: Timestamp,
}

/// What the table says about a batch.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    pub(super) ids: HashMap<IdKey, Known>,
    pub(super) last_seqs: HashMap<StreamName, Seq>,
    /// Of the streams of the batch, those that are closed.
    pub(super) ends: HashMap<StreamName, StreamEnd>,
}

/// What a batch becomes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// New events, continuing the log.
    pub(super) events: Vec<Event>,
    /// Their origins; shorter than they are where the last ones have none.
    pub(super) origins: Vec<Option<Arc<Origin>>>,
    /// The answer to each request, valid once the events are durable.
    pub(super) outcomes: Vec<Result<Vec<Receipt>, Refusal>>,
}

/// Plans a batch. The clock is clamped: `created_at` never decreases.
pub(super) fn plan<'a>(
    position: Position,
    now: Timestamp,
    appends: impl Iterator<Item = &'a Append>,
    mut known: Knowledge,
) -> Plan {
    let created_at = now.max(position.last_created_at);
    let mut plan = Plan::default();
    for append in appends {
        let kept = plan.events.len();
        let outcome = plan.request(position.last_seq, created_at, append, &mut known);
        if outcome.is_err() {
            for event in plan.events.drain(kept..) {
                IdKey::of(&event.content).map(|key| known.ids.remove(&key));
                if event.content.r#type.is_closed() {
                    known.ends.remove(&event.content.stream);
                }
            }
        }
        if append.origin.is_some() && plan.events.len() > kept {
            plan.origins.resize(kept, None);
            plan.origins.resize(plan.events.len(), append.origin.clone());
        }
        for event in &plan.events[kept..] {
            if let Some(last_seq) = known.last_seqs.get_mut(&event.content.stream) {
                *last_seq = event.seq;
            }
        }
        plan.outcomes.push(outcome);
    }
    plan
}

impl Plan {
    fn request(
        &mut self,
        last_seq: Seq,
        created_at: Timestamp,
        append: &Append,
        known: &mut Knowledge,
    ) -> Result<Vec<Receipt>, Refusal> {
        if let Some(expected) = &append.expected {
            let last_seq = match &expected.stream {
                Some(stream) => known.last_seqs.get(stream).copied().unwrap_or(0),
                None => last_seq + self.events.len() as Seq,
            };
            if last_seq != expected.seq {
                return Err(Refusal::LastSeqDiffers { last_seq });
            }
        }
        // What this request would itself append has a seq from here on; none of those is shown in a refusal.
        let first_own = last_seq + 1 + self.events.len() as Seq;
        let mut receipts = Vec::with_capacity(append.contents.len());
        for (index, content) in append.contents.iter().enumerate() {
            let key = IdKey::of(content);
            if let Some(found) = key.as_ref().and_then(|key| known.ids.get(key)) {
                receipts.push(repeat(found, content).map_err(|seq| match seq {
                    seq if seq >= first_own => Refusal::IdTwice { index },
                    seq => Refusal::IdReused { index, seq },
                })?);
                continue;
            }
            // A repeat is told what it was told before, whatever became of its stream.
            let is_end = content.r#type.is_closed();
            match known.ends.get(&content.stream) {
                Some(end) if is_end => {
                    let (stream, created_at) = (content.stream.clone(), end.created_at);
                    receipts.push(Receipt { seq: end.seq, stream, id: None, created_at, is_duplicate: true });
                    continue;
                }
                Some(end) => {
                    let seq = Some(end.seq).filter(|seq| *seq < first_own);
                    return Err(Refusal::StreamClosed { index, seq });
                }
                None => {}
            }
            let seq = last_seq + 1 + self.events.len() as Seq;
            if is_end {
                known.ends.insert(content.stream.clone(), StreamEnd { seq, created_at: Some(created_at) });
            }
            let event = Event { seq, created_at, content: content.clone() };
            receipts.push(Receipt::of(&event, false));
            if let Some(key) = key {
                known.ids.insert(key, Known::Stored(Box::new(event.clone())));
            }
            self.events.push(event);
        }
        Ok(receipts)
    }
}

/// The receipt of a repeat, or the seq of the different event that has its id. What was trimmed can no longer be
/// compared and counts as the same.
fn repeat(found: &Known, content: &Content) -> Result<Receipt, Seq> {
    match found {
        Known::Stored(event) if content.repeats(&event.content) => Ok(Receipt::of(event, true)),
        Known::Stored(event) => Err(event.seq),
        Known::Trimmed(seq) => Ok(Receipt {
            seq: *seq,
            stream: content.stream.clone(),
            id: content.id.clone(),
            created_at: None,
            is_duplicate: true,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position { last_seq: 10, last_created_at: Timestamp::EPOCH };

    fn append(ids: &[(Option<&str>, &str)]) -> Append {
        let contents = ids.iter().map(|(id, data)| {
            let mut content = Content::new(StreamName::parse("a").unwrap());
            content.id = id.map(Arc::from);
            content.data = Some(Arc::from(*data));
            content
        });
        Append { contents: contents.collect(), ..Append::default() }
    }

    fn seqs(outcome: &Result<Vec<Receipt>, Refusal>) -> Vec<(Seq, bool)> {
        outcome.as_ref().unwrap().iter().map(|r| (r.seq, r.is_duplicate)).collect()
    }

    #[test]
    fn seqs_continue_the_log_without_a_hole_when_a_request_is_refused() {
        let batch = [
            append(&[(None, "1"), (Some("x"), "2")]),
            append(&[(Some("y"), "3"), (Some("x"), "other")]),
            append(&[(Some("y"), "4"), (Some("x"), "2")]),
        ];
        let plan = plan(POSITION, Timestamp::EPOCH, batch.iter(), Knowledge::default());
        assert_eq!(plan.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [11, 12, 13]);
        assert_eq!(seqs(&plan.outcomes[0]), [(11, false), (12, false)]);
        assert_eq!(plan.outcomes[1], Err(Refusal::IdReused { index: 1, seq: 12 }));
        // The refused request left nothing behind: its id y is free for the third.
        assert_eq!(seqs(&plan.outcomes[2]), [(13, false), (12, true)]);
    }

    #[test]
    fn origins_stay_with_their_events() {
        let by = |name: &str| Some(Arc::new(Origin { producer: name.into(), address: None }));
        let from = |append: Append, name| Append { origin: by(name), ..append };
        let batch = [
            append(&[(None, "1")]),
            from(append(&[(Some("x"), "1"), (None, "2")]), "b"),
            from(append(&[(Some("x"), "other")]), "refused"),
            from(append(&[(Some("x"), "1")]), "repeat"),
            append(&[(None, "3")]),
            from(append(&[(None, "4")]), "c"),
            append(&[(None, "5")]),
        ];
        let plan = plan(POSITION, Timestamp::EPOCH, batch.iter(), Knowledge::default());
        assert_eq!(plan.events.len(), 6);
        assert_eq!(plan.origins, [None, by("b"), by("b"), None, by("c")]);
    }

    #[test]
    fn no_refusal_names_a_seq_that_its_own_request_would_have_had() {
        let twice = append(&[(Some("x"), "1"), (Some("x"), "2")]);
        let plan = plan(POSITION, Timestamp::EPOCH, [twice].iter(), Knowledge::default());
        assert_eq!(plan.outcomes, [Err(Refusal::IdTwice { index: 1 })]);
    }

    fn close() -> Append {
        let mut content = Content::new(StreamName::parse("a").unwrap());
        content.r#type = crate::event::EventType::closed();
        Append { contents: vec![content], ..Append::default() }
    }

    #[test]
    fn closes_and_appends_of_a_batch_behave_in_order() {
        let batch = [
            append(&[(Some("x"), "1")]),
            close(),
            append(&[(Some("x"), "1")]),
            append(&[(Some("x"), "1"), (Some("y"), "2")]),
            close(),
        ];
        let plan = plan(POSITION, Timestamp::EPOCH, batch.iter(), Knowledge::default());
        assert_eq!(plan.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [11, 12]);
        assert_eq!(seqs(&plan.outcomes[1]), [(12, false)]);
        assert_eq!(seqs(&plan.outcomes[2]), [(11, true)]);
        assert_eq!(plan.outcomes[3], Err(Refusal::StreamClosed { index: 1, seq: Some(12) }));
        assert_eq!(seqs(&plan.outcomes[4]), [(12, true)]);
    }

    #[test]
    fn a_close_that_is_refused_closes_nothing() {
        let mut conditional = close();
        conditional.expected = Some(ExpectedLastSeq { stream: None, seq: 7 });
        let mut both = close();
        both.contents.extend(append(&[(None, "1")]).contents);
        let batch = [conditional, both, append(&[(None, "1")])];
        let plan = plan(POSITION, Timestamp::EPOCH, batch.iter(), Knowledge::default());
        assert_eq!(plan.outcomes[0], Err(Refusal::LastSeqDiffers { last_seq: 10 }));
        assert_eq!(plan.outcomes[1], Err(Refusal::StreamClosed { index: 1, seq: None }));
        assert_eq!(seqs(&plan.outcomes[2]), [(11, false)]);
    }

    #[test]
    fn a_clock_that_steps_back_is_clamped() {
        let late = Timestamp::from_microseconds(5_000_000);
        let position = Position { last_seq: 0, last_created_at: late };
        let plan = plan(position, Timestamp::EPOCH, [append(&[(None, "1")])].iter(), Knowledge::default());
        assert_eq!(plan.events[0].created_at, late);
    }

    #[test]
    fn a_condition_sees_the_requests_before_it_in_the_batch() {
        let stream = StreamName::parse("a").unwrap();
        let mut conditional = append(&[(None, "1")]);
        conditional.expected = Some(ExpectedLastSeq { stream: Some(stream.clone()), seq: 7 });
        let known = Knowledge { last_seqs: HashMap::from([(stream, 7)]), ..Knowledge::default() };
        let plan = plan(POSITION, Timestamp::EPOCH, [conditional.clone(), conditional].iter(), known);
        assert_eq!(seqs(&plan.outcomes[0]), [(11, false)]);
        assert_eq!(plan.outcomes[1], Err(Refusal::LastSeqDiffers { last_seq: 11 }));
    }
}
