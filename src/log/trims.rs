//! What single streams have lost: the holes in the log that readers are told of.
//!
//! The writer sets it after the commit of a trim. A reader that gets a page read after a trim that is not set yet waits
//! for it, so that it is told of what is missing before it is given the page.

use super::reader::Gap;
use crate::event::{Selection, Seq, StreamName};
use crate::store::StreamMarks;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// Most streams that a gap names; beyond, it says that any may be meant.
const NAMED_MAX: usize = 100;

/// Up to where single streams are trimmed, where that is beyond the trim of the whole log.
#[derive(Debug)]
pub(super) struct StreamTrims {
    /// How many times events of single streams were trimmed; set after the marks that it counts.
    count: AtomicU64,
    /// The highest of the marks: beyond it no seq is missing.
    max_seq: AtomicU64,
    marks: RwLock<BTreeMap<StreamName, Mark>>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    trimmed_seq: Seq,
    /// The count with which it was set.
    count: u64,
}

impl StreamTrims {
    pub(super) fn new(stored: StreamMarks) -> Self {
        let count = stored.stream_trims;
        let max_seq = stored.trimmed_seqs.iter().map(|(_, seq)| *seq).max().unwrap_or(0);
        let marks = stored.trimmed_seqs.into_iter();
        let marks = marks.map(|(stream, trimmed_seq)| (stream, Mark { trimmed_seq, count })).collect();
        Self { count: count.into(), max_seq: max_seq.into(), marks: RwLock::new(marks) }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Beyond this seq no event is missing.
    pub(super) fn max_seq(&self) -> Seq {
        self.max_seq.load(Ordering::Acquire)
    }

    /// A stream is trimmed up to here. Called by the writer alone.
    pub(super) fn set(&self, stream: StreamName, trimmed_seq: Seq, count: u64) {
        let mut marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        marks.insert(stream, Mark { trimmed_seq, count });
        self.max_seq.fetch_max(trimmed_seq, Ordering::AcqRel);
        self.count.store(count, Ordering::Release);
    }

    /// The whole log is trimmed up to here, and its bounds say so, which is all that a reader is told of from now on.
    pub(super) fn pass(&self, trimmed_seq: Seq) {
        if trimmed_seq >= self.max_seq() {
            self.marks.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// What a reader at this cursor has not been told of, if it was told of so many trims.
    pub(super) fn gap(&self, told: u64, cursor: Seq, selection: &Selection) -> Option<Gap> {
        if cursor >= self.max_seq() {
            return None;
        }
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        let is_new = |mark: &Mark| mark.count > told && mark.trimmed_seq > cursor;
        // A gap names no stream that its reader may not read.
        let lost =
            marks.iter().filter(|(stream, mark)| is_new(mark) && selection.matches_stream(stream.as_str()));
        let (mut streams, mut to) = (Vec::new(), 0);
        for (stream, mark) in lost {
            to = to.max(mark.trimmed_seq);
            streams.push(stream.as_str().to_owned());
        }
        if streams.len() > NAMED_MAX {
            streams = vec!["*".to_owned()];
        }
        (to > 0).then_some(Gap { from: cursor + 1, to, streams })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Pattern;

    #[test]
    fn a_reader_is_told_of_what_it_asked_for_and_not_twice() {
        let name = |name: &str| StreamName::parse(name).unwrap();
        let trimmed_seqs = vec![(name("a"), 10), (name("b"), 20)];
        let trims = StreamTrims::new(StreamMarks { stream_trims: 3, trimmed_seqs });
        let all = Selection::all();
        let gap = |from, to, streams: &[&str]| {
            Some(Gap { from, to, streams: streams.iter().map(|&stream| stream.to_owned()).collect() })
        };
        assert_eq!(trims.gap(0, 4, &all), gap(5, 20, &["a", "b"]));
        assert_eq!(trims.gap(0, 10, &all), gap(11, 20, &["b"]));
        assert_eq!(trims.gap(0, 20, &all), None);
        assert_eq!(trims.gap(0, 4, &Selection::stream(&name("a"))), gap(5, 10, &["a"]));
        assert_eq!(trims.gap(0, 4, &Selection::stream(&name("c"))), None);
        let granted = Some([Pattern::Exact("b".into())].into());
        assert_eq!(trims.gap(0, 4, &Selection { granted, ..Selection::all() }), gap(5, 20, &["b"]));
        assert_eq!(trims.gap(3, 4, &all), None);
        trims.set(name("a"), 12, 4);
        assert_eq!((trims.count(), trims.max_seq()), (4, 20));
        assert_eq!(trims.gap(3, 4, &all), gap(5, 12, &["a"]));
        trims.pass(19);
        assert_eq!(trims.gap(3, 4, &all), gap(5, 12, &["a"]));
        trims.pass(20);
        assert_eq!(trims.gap(3, 4, &all), None);
        for number in 0..=NAMED_MAX as u64 {
            trims.set(name(&format!("s{number}")), 30, 5 + number);
        }
        assert_eq!(trims.gap(0, 0, &all), gap(1, 30, &["*"]));
    }
}
