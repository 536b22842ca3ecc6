//! Where the open event streams are: what they tell of themselves, for whoever asks.
//!
//! A reader stores its cursor after each page, into a cell of its own; that is all it pays. Whoever asks walks the cells.

use crate::event::Seq;
use crate::metrics::{GaugeBy, Percentile, ReaderState};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The bit of a cell that says that the reader is catching up; the cursor is what stands above it.
const CATCHES_UP: u64 = 1;

/// All open event streams.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Held when a stream opens or closes, and while someone asks, who copies what is in the cells and sorts it afterwards.
    cells: Mutex<HashMap<u64, Arc<AtomicU64>>>,
    next: AtomicU64,
}

impl Readers {
    /// A place for a reader at this cursor.
    pub(super) fn enter(self: &Arc<Self>, cursor: Seq, is_live: bool) -> Place {
        let cell = Arc::new(AtomicU64::new(packed(cursor, is_live)));
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).insert(id, cell.clone());
        Place { id, cell, readers: self.clone() }
    }

    /// How many there are in each state, and how far they are behind.
    pub(super) fn read(&self, last_seq: Seq) -> (GaugeBy<ReaderState>, GaugeBy<Percentile>) {
        let (mut states, mut lag) = (GaugeBy::default(), GaugeBy::default());
        let mut behind: Vec<u64> = {
            let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            cells.values().map(|cell| cell.load(Ordering::Relaxed)).collect()
        };
        for cell in &mut behind {
            let is_live = *cell & CATCHES_UP == 0;
            *states.of(if is_live { ReaderState::Live } else { ReaderState::CatchUp }) += 1;
            *cell = last_seq.saturating_sub(*cell >> 1);
        }
        behind.sort_unstable();
        for percentile in Percentile::ALL {
            *lag.of(percentile) = behind.get(percentile.rank(behind.len())).copied().unwrap_or(0);
        }
        (states, lag)
    }
}

fn packed(cursor: Seq, is_live: bool) -> u64 {
    cursor << 1 | if is_live { 0 } else { CATCHES_UP }
}

/// The place of one reader; it leaves with the value.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    cell: Arc<AtomicU64>,
    readers: Arc<Readers>,
}

impl Place {
    /// It is here now.
    pub(super) fn set(&self, cursor: Seq, is_live: bool) {
        self.cell.store(packed(cursor, is_live), Ordering::Relaxed);
    }

    pub(super) fn is_live(&self) -> bool {
        self.cell.load(Ordering::Relaxed) & CATCHES_UP == 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.readers.cells.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_told_by_state_and_by_how_far_they_are_behind() {
        let readers = Arc::new(Readers::default());
        let told = |last_seq| {
            let (mut states, mut lag) = readers.read(last_seq);
            (
                [ReaderState::Live, ReaderState::CatchUp].map(|state| *states.of(state)),
                Percentile::ALL.map(|percentile| *lag.of(percentile)),
            )
        };
        assert_eq!(told(100), ([0, 0], [0; 4]));
        let mut places: Vec<Place> = (1..=10).map(|cursor| readers.enter(cursor * 10, true)).collect();
        assert_eq!(told(100), ([10, 0], [40, 80, 90, 90]));
        places[0].set(0, false);
        assert!(!places[0].is_live() && places[1].is_live());
        assert_eq!(told(100), ([9, 1], [40, 80, 100, 100]));
        // A reader may have been given what whoever asks has not seen yet.
        places[0].set(Seq::MAX >> 1, true);
        assert_eq!(told(100), ([10, 0], [30, 70, 80, 80]));
        places.clear();
        assert_eq!(told(100), ([0, 0], [0; 4]));
    }
}
