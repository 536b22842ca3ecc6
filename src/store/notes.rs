//! What the writer has just appended, noted for the index while it is at hand: a complete block then costs a few rows,
//! where reading it back from the log and grouping it holds up the appends behind it by some milliseconds.
//!
//! A cache: a block that was not noted from its first event to its last, because the server started or another process
//! appended in its midst, is read back from the log.

use super::blocks::BLOCK_SEQS;
use crate::event::{Event, EventType, Seq, StreamName};
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;

/// Complete blocks that may wait. More wait only where the disk is full or busy, and then the log tells.
const COMPLETE_MAX: usize = 4;

/// The places of the events of one block, by stream and type.
pub(super) type Places = HashMap<(StreamName, EventType), Place>;

/// The events of one stream and type in a block.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) events: i64,
    pub(super) seqs: String,
}

/// Notes of the block that is being filled, and of those that are complete.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The last event noted.
    last_seq: Seq,
    /// Of the block that `last_seq` is in; `None` while its beginning is missing.
    open: Option<Places>,
    /// With the seq that each ends with, in order.
    complete: VecDeque<(Seq, Places)>,
}

impl Notes {
    /// Notes events that are stored, in order.
    pub(super) fn add(&mut self, events: &[Event]) {
        for event in events {
            if event.seq % BLOCK_SEQS == 1 {
                self.open = Some(Places::new());
            } else if event.seq != self.last_seq + 1 {
                self.open = None;
            }
            self.last_seq = event.seq;
            let Some(places) = &mut self.open else { continue };
            let content = &event.content;
            let place = places.entry((content.stream.clone(), content.r#type.clone())).or_default();
            place.events += 1;
            let comma = if place.seqs.is_empty() { "" } else { "," };
            let number = (event.seq - 1) % BLOCK_SEQS + 1;
            write!(place.seqs, "{comma}{number}").expect("writing to memory cannot fail");
            if number == BLOCK_SEQS {
                self.complete.extend(self.open.take().map(|places| (event.seq, places)));
                if self.complete.len() > COMPLETE_MAX {
                    self.complete.pop_front();
                }
            }
        }
    }

    /// What was noted is no longer what the log holds.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The block that ends with this seq, if it was noted whole. Those before it are forgotten.
    pub(super) fn take(&mut self, through: Seq) -> Option<Places> {
        while self.complete.front().is_some_and(|(last, _)| *last < through) {
            self.complete.pop_front();
        }
        let (_, places) = self.complete.pop_front_if(|(last, _)| *last == through)?;
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Content, Timestamp};

    fn events(seqs: std::ops::RangeInclusive<Seq>) -> Vec<Event> {
        let names = |seq: Seq| if seq.is_multiple_of(2) { "even" } else { "odd" };
        let content = |seq| Content::new(StreamName::parse(names(seq)).unwrap());
        seqs.map(|seq| Event { seq, created_at: Timestamp::EPOCH, content: content(seq) }).collect()
    }

    #[test]
    fn a_block_is_told_only_if_it_was_noted_from_its_first_event_to_its_last() {
        let mut notes = Notes::default();
        notes.add(&events(4_000..=5_000));
        notes.add(&events(5_001..=8_192));
        assert!(notes.take(4_096).is_none());
        let places = notes.take(8_192).unwrap();
        let odd = &places[&(StreamName::parse("odd").unwrap(), EventType::message())];
        assert_eq!((places.len(), odd.events), (2, 2_048));
        assert!(odd.seqs.starts_with("1,3,5,") && odd.seqs.ends_with(",4095"));
        notes.add(&events(8_193..=9_000));
        // Another process appended 9,001.
        notes.add(&events(9_002..=16_385));
        assert!(notes.take(12_288).is_none());
        assert!(notes.take(16_384).is_some());
        assert!(notes.take(16_384).is_none());
    }
}
