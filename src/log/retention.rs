//! Retention at work: what is to go, decided by the writer between appends.

use crate::event::{Event, Retention, RetentionRules, Seq, StreamName, Timestamp};
use crate::store::{Excess, StreamSize};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How many events more than it must keep the log may hold, so that trimming is a step for many appends.
const RETENTION_STEP: u64 = 1_024;
/// A stream may hold so much more than it must keep: one part in so many.
const STREAM_SHARE: u64 = 8;
/// How often is looked for what has become old, and at the streams.
const LOOK: Duration = Duration::from_secs(1);

/// What is too much of so many events with so much data, the old ones being known.
pub(super) fn excess(keep: &Retention, events: u64, bytes: u64, old_seq: Seq) -> Excess {
    Excess {
        through: old_seq,
        events: keep.events.map_or(0, |kept| events.saturating_sub(kept)),
        bytes: keep.bytes.map_or(0, |kept| bytes.saturating_sub(kept)),
    }
}

/// Applies the rules: says what is to go, as of its last look.
#[derive(Debug)]
pub(super) struct Keeper {
    rules: RetentionRules,
    /// What is retained of the log.
    events: u64,
    bytes: u64,
    /// The newest event of the log that is too old.
    old_seq: Seq,
    looked_at: Option<Instant>,
    /// The log is not trimmed before this: what is to go may not.
    rests_until: Option<Instant>,
    /// A walk over the streams: behind which it is, and for each rule the newest event that is too old.
    walk: Option<(String, Vec<Seq>)>,
    /// What it found.
    due: VecDeque<(StreamName, Excess)>,
}

impl Keeper {
    pub(super) fn new(rules: RetentionRules, (events, bytes): (u64, u64)) -> Self {
        Self {
            rules,
            events,
            bytes,
            old_seq: 0,
            looked_at: None,
            rests_until: None,
            walk: None,
            due: VecDeque::new(),
        }
    }

    /// Counts events that were appended, and returns their bytes.
    pub(super) fn add(&mut self, events: &[Event]) -> u64 {
        let data = events.iter().filter_map(|event| event.content.data.as_deref());
        let bytes = data.map(|data| data.len() as u64).sum::<u64>();
        self.events += events.len() as u64;
        self.bytes += bytes;
        bytes
    }

    /// How many events are retained, and their bytes.
    pub(super) fn retained(&self) -> (u64, u64) {
        (self.events, self.bytes)
    }

    /// About how many events of the log are to go, whether they may or not.
    pub(super) fn excess_events(&self, first_seq: Seq) -> u64 {
        let Excess { events, bytes, through } =
            excess(&self.rules.log, self.events, self.bytes, self.old_seq);
        let of_bytes = u128::from(bytes) * u128::from(self.events) / u128::from(self.bytes.max(1));
        events.max(through.saturating_sub(first_seq - 1)).max(u64::try_from(of_bytes).unwrap_or(u64::MAX))
    }

    pub(super) fn take(&mut self, events: u64, bytes: u64) {
        self.events = self.events.saturating_sub(events);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// The ages to look for, that of the log first, if it is time to look.
    pub(super) fn look(&mut self, now: Instant) -> Option<Vec<Option<Timestamp>>> {
        let has_rules = self.rules.log.age.is_some() || !self.rules.streams.is_empty();
        let is_early = self.looked_at.is_some_and(|at| now < at + LOOK);
        if !has_rules || is_early || self.walk.is_some() || !self.due.is_empty() {
            return None;
        }
        self.looked_at = Some(now);
        let of_streams = self.rules.streams.iter().map(|rule| rule.keep.age);
        let ages = std::iter::once(self.rules.log.age).chain(of_streams);
        Some(ages.map(|age| age.map(|age| Timestamp::now().minus(age))).collect())
    }

    /// What the look found: the newest event that is older, for each of the ages. Begins a walk over the streams.
    pub(super) fn found_old(&mut self, mut old_seqs: Vec<Seq>) {
        self.old_seq = old_seqs.remove(0);
        if !self.rules.streams.is_empty() {
            self.walk = Some((String::new(), old_seqs));
        }
    }

    /// What is to go of the log.
    pub(super) fn excess(&self, first_seq: Seq, now: Instant) -> Option<Excess> {
        if self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        let mut excess = excess(&self.rules.log, self.events, self.bytes, self.old_seq);
        if excess.events < RETENTION_STEP {
            excess.events = 0;
        }
        (excess.events > 0 || excess.bytes > 0 || excess.through >= first_seq).then_some(excess)
    }

    /// Nothing of what is to go of the log may: not tried again before the next look.
    pub(super) fn rest(&mut self, now: Instant) {
        self.rests_until = Some(now + LOOK);
    }

    /// A hold was released, or there is space again.
    pub(super) fn wake(&mut self) {
        (self.rests_until, self.looked_at) = (None, None);
    }

    /// The stream that is to lose events now, and which.
    pub(super) fn due_stream(&self) -> Option<&(StreamName, Excess)> {
        self.due.front()
    }

    /// That much of the stream has gone; it is done when nothing has.
    pub(super) fn trimmed_stream(&mut self, through: Seq, events: u64, bytes: u64) {
        let Some((_, excess)) = self.due.front_mut() else { return };
        *excess = excess.less(events, bytes);
        if events == 0 || (excess.events == 0 && excess.bytes == 0 && excess.through <= through) {
            self.due.pop_front();
        }
    }

    /// Behind which stream the walk is to go on.
    pub(super) fn walked_to(&self) -> Option<&str> {
        self.walk.as_ref().filter(|_| self.due.is_empty()).map(|(after, _)| after.as_str())
    }

    /// The streams that follow; none at the end of the walk.
    pub(super) fn walk(&mut self, sizes: Vec<StreamSize>) {
        let Some((after, old_seqs)) = &mut self.walk else { return };
        let Some(last) = sizes.last() else {
            self.walk = None;
            return;
        };
        last.name.as_str().clone_into(after);
        for size in sizes {
            let Some(rule) = self.rules.rule_of(&size.name).filter(|_| size.events > 0) else { continue };
            let keep = &self.rules.streams[rule].keep;
            let mut excess = excess(keep, size.events, size.bytes, old_seqs[rule]);
            if excess.events <= keep.events.unwrap_or(0) / STREAM_SHARE {
                excess.events = 0;
            }
            if excess.events > 0 || excess.bytes > 0 || excess.through >= size.first_seq {
                self.due.push_back((size.name, excess));
            }
        }
    }

    /// Gives up the walk; the next look begins another.
    pub(super) fn stop_walk(&mut self) {
        self.walk = None;
        self.due.clear();
    }

    /// Whether something is to be done at once.
    pub(super) fn has_work(&self, first_seq: Seq, now: Instant) -> bool {
        self.walk.is_some() || !self.due.is_empty() || self.excess(first_seq, now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Pattern, StreamRetention};

    fn retention(events: u64, bytes: u64, seconds: u64) -> Retention {
        let of = |number: u64| Some(number).filter(|number| *number > 0);
        Retention { events: of(events), bytes: of(bytes), age: of(seconds).map(Duration::from_secs) }
    }

    #[test]
    fn what_any_limit_does_not_keep_is_to_go() {
        let now = Instant::now();
        let rules = RetentionRules { log: retention(10, 100, 60), streams: Vec::new() };
        let mut keeper = Keeper::new(rules, (1_033, 100));
        assert_eq!(keeper.excess(1, now), None, "less than a step too many");
        keeper.events += 1;
        assert_eq!(keeper.excess(1, now), Some(Excess { events: 1_024, ..Excess::default() }));
        keeper.bytes += 1;
        assert_eq!(keeper.excess(1, now).unwrap().bytes, 1);
        keeper.take(1_024, 50);
        assert_eq!(keeper.excess(1_025, now), None);
        assert_eq!(keeper.look(now).unwrap().len(), 1);
        assert!(keeper.look(now).is_none());
        assert!(keeper.look(now + LOOK).is_some());
        keeper.found_old(vec![1_030]);
        assert_eq!(keeper.excess(1_025, now), Some(Excess { through: 1_030, ..Excess::default() }));
        assert_eq!(keeper.excess(1_031, now), None);
        assert_eq!((keeper.excess_events(1_025), keeper.excess_events(1_031)), (6, 0));
        keeper.rest(now);
        assert_eq!(keeper.excess(1_025, now), None);
        assert!(keeper.excess(1_025, now + LOOK).is_some());
        keeper.wake();
        assert!(keeper.excess(1_025, now).is_some());
    }

    #[test]
    fn a_walk_finds_the_streams_that_hold_too_much() {
        let keep = |streams: &str, keep| StreamRetention { streams: Pattern::parse(streams).unwrap(), keep };
        let streams = vec![keep("n.*", retention(16, 0, 0)), keep("old", retention(0, 0, 60))];
        let mut keeper = Keeper::new(RetentionRules { log: Retention::default(), streams }, (0, 0));
        let size = |name: &str, events, first_seq| StreamSize {
            name: StreamName::parse(name).unwrap(),
            events,
            bytes: 0,
            first_seq,
        };
        let now = Instant::now();
        assert_eq!(keeper.look(now).unwrap().len(), 3);
        keeper.found_old(vec![0, 0, 50]);
        assert!(keeper.has_work(1, now));
        assert_eq!(keeper.walked_to(), Some(""));
        keeper.walk(vec![size("n.few", 18, 1), size("n.many", 19, 1), size("new", 1_000, 1)]);
        assert_eq!(keeper.walked_to(), None, "first what was found");
        let (name, excess) = keeper.due_stream().unwrap();
        assert_eq!((name.as_str(), excess.events), ("n.many", 3));
        keeper.trimmed_stream(2, 2, 0);
        assert_eq!(keeper.due_stream().unwrap().1.events, 1);
        keeper.trimmed_stream(3, 1, 0);
        assert_eq!((keeper.due_stream(), keeper.walked_to()), (None, Some("new")));
        keeper.walk(vec![size("old", 5, 50)]);
        assert_eq!(keeper.due_stream().unwrap().1.through, 50);
        keeper.trimmed_stream(0, 0, 0);
        keeper.walk(Vec::new());
        assert!(!keeper.has_work(1, now));
    }
}
