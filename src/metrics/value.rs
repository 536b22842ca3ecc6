//! What is measured while the server runs: atomics, so that whoever measures never waits.

use super::label::Label;
use super::text::{Text, Write};
use super::{Declaration, Kind};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Something that has a value to show.
pub(super) trait Metric {
    const KIND: Kind;
    const LABEL: Option<(&'static str, &'static [&'static str])> = None;

    /// Writes its samples.
    fn write(&self, declaration: &Declaration, text: &mut Text);
}

/// Only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many by now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Set by one, or counted up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is this now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less; there was one.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many cells a [`WideCounter`] has. More threads than that send streams only on machines where it does not matter.
const CELLS: usize = 8;

/// A cache line of its own, so that one thread's additions do not take it from another. *Source*: 64 bytes, fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell128(Counter);

/// Only rises, and is counted by thousands of readers on all threads at a time: each thread adds to a cell of its own.
#[derive(Debug, Default)]
pub struct WideCounter([Cell128; CELLS]);

impl WideCounter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0[cell()].0.add(count);
    }

    /// How many by now.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|cell| cell.0.get()).sum()
    }
}

/// The cell of this thread.
fn cell() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static CELL: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % CELLS));
    CELL.with(Cell::get)
}

/// A counter for each value of a label.
#[derive(Debug)]
pub struct CounterBy<L>(Box<[Counter]>, PhantomData<L>);

impl<L: Label> CounterBy<L> {
    /// The counter of one value.
    pub fn of(&self, label: L) -> &Counter {
        &self.0[label.index()]
    }
}

/// A wide counter for each value of a label.
#[derive(Debug)]
pub struct WideCounterBy<L>(Box<[WideCounter]>, PhantomData<L>);

impl<L: Label> WideCounterBy<L> {
    /// The counter of one value.
    pub fn of(&self, label: L) -> &WideCounter {
        &self.0[label.index()]
    }
}

/// A reading for each value of a label.
#[derive(Debug)]
pub struct GaugeBy<L>(Box<[u64]>, PhantomData<L>);

impl<L: Label> GaugeBy<L> {
    /// The reading of one value.
    pub fn of(&mut self, label: L) -> &mut u64 {
        &mut self.0[label.index()]
    }
}

macro_rules! default_by_label {
    ($($name:ident)+) => {
        $(impl<L: Label> Default for $name<L> {
            fn default() -> Self {
                Self(L::VALUES.iter().map(|_| Default::default()).collect(), PhantomData)
            }
        })+
    };
}

default_by_label!(CounterBy WideCounterBy GaugeBy);

/// How often values were observed, by the bounds that they do not exceed.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [u64],
    /// One for each bound and one for what exceeds them all. Their sum is how often.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Writes it, with `shown` turning its units into those of the metric.
    fn write(&self, name: &str, text: &mut Text, shown: impl Fn(u64) -> f64) {
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(self.bounds) {
            count += bucket.load(Ordering::Relaxed);
            text.put(name, "_bucket", Some(("le", &shown(*bound).to_string())), &count);
        }
        count += self.buckets[self.bounds.len()].load(Ordering::Relaxed);
        text.put(name, "_bucket", Some(("le", "+Inf")), &count);
        text.put(name, "_sum", None, &shown(self.sum.load(Ordering::Relaxed)));
        text.put(name, "_count", None, &count);
    }
}

/// Bounds of times: dense where acks and commits are, at 0.2 to 20 ms, and up to what a client waits for. *Units*:
/// microseconds. *Source*: `docs/benchmarks`: an ack takes 0.3 ms alone, 5 to 16 ms under half load.
const SECONDS_BOUNDS: &[u64] = &[
    100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 50_000,
    100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Times. *Units*: seconds, of whole microseconds.
#[derive(Debug)]
pub struct Seconds(Histogram);

impl Default for Seconds {
    fn default() -> Self {
        Self(Histogram::new(SECONDS_BOUNDS))
    }
}

impl Seconds {
    /// It took so long.
    pub fn observe(&self, took: Duration) {
        self.0.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// How often by now.
    pub fn count(&self) -> u64 {
        self.0.count()
    }
}

/// Bounds of sizes: a batch has 1 to 1,024 events, or those of one large request.
const SIZES_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096];

/// Numbers of things.
#[derive(Debug)]
pub struct Sizes(Histogram);

impl Default for Sizes {
    fn default() -> Self {
        Self(Histogram::new(SIZES_BOUNDS))
    }
}

impl Sizes {
    /// There were so many.
    pub fn observe(&self, count: u64) {
        self.0.observe(count);
    }
}

impl Metric for Counter {
    const KIND: Kind = Kind::Counter;

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        text.put(declaration.name, "", None, &self.get());
    }
}

impl Metric for WideCounter {
    const KIND: Kind = Kind::Counter;

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        text.put(declaration.name, "", None, &self.get());
    }
}

impl Metric for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        text.put(declaration.name, "", None, &self.get());
    }
}

impl Metric for Seconds {
    const KIND: Kind = Kind::Histogram;

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        self.0.write(declaration.name, text, |microseconds| microseconds as f64 / 1e6);
    }
}

impl Metric for Sizes {
    const KIND: Kind = Kind::Histogram;

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        self.0.write(declaration.name, text, |count| count as f64);
    }
}

/// Writes a sample for each value of a label.
fn write_by<L: Label>(declaration: &Declaration, text: &mut Text, values: impl Iterator<Item = u64>) {
    for (value, of_label) in values.zip(L::VALUES) {
        text.put(declaration.name, "", Some((L::NAME, of_label)), &value);
    }
}

impl<L: Label> Metric for CounterBy<L> {
    const KIND: Kind = Kind::Counter;
    const LABEL: Option<(&'static str, &'static [&'static str])> = Some((L::NAME, L::VALUES));

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        write_by::<L>(declaration, text, self.0.iter().map(Counter::get));
    }
}

impl<L: Label> Metric for WideCounterBy<L> {
    const KIND: Kind = Kind::Counter;
    const LABEL: Option<(&'static str, &'static [&'static str])> = Some((L::NAME, L::VALUES));

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        write_by::<L>(declaration, text, self.0.iter().map(WideCounter::get));
    }
}

impl<L: Label> Metric for GaugeBy<L> {
    const KIND: Kind = Kind::Gauge;
    const LABEL: Option<(&'static str, &'static [&'static str])> = Some((L::NAME, L::VALUES));

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        write_by::<L>(declaration, text, self.0.iter().copied());
    }
}

/// A reading; none where there is nothing to read.
impl<V: Write> Metric for Option<V> {
    const KIND: Kind = Kind::Gauge;

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        if let Some(value) = self {
            text.put(declaration.name, "", None, value);
        }
    }
}

macro_rules! readings {
    ($($type:ty)+) => {
        $(impl Metric for $type {
            const KIND: Kind = Kind::Gauge;

            fn write(&self, declaration: &Declaration, text: &mut Text) {
                text.put(declaration.name, "", None, self);
            }
        })+
    };
}

readings!(u64 f64);

/// A reading of the process that only rises. *Units*: those of its name.
#[derive(Debug, Default, Clone, Copy)]
pub struct Risen(pub f64);

impl Metric for Risen {
    const KIND: Kind = Kind::Counter;

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        text.put(declaration.name, "", None, &self.0);
    }
}

/// A fact, told as a label of a sample that is always 1.
#[derive(Debug, Default, Clone, Copy)]
pub struct Fact(pub &'static str, pub &'static str);

impl Metric for Fact {
    const KIND: Kind = Kind::Gauge;

    fn write(&self, declaration: &Declaration, text: &mut Text) {
        text.put(declaration.name, "", Some((self.0, self.1)), &1_u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_what_does_not_exceed_it() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21, 1_000] {
            histogram.observe(value);
        }
        let buckets: Vec<u64> =
            histogram.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        assert_eq!(buckets, [2, 2, 2]);
        assert_eq!((histogram.count(), histogram.sum.load(Ordering::Relaxed)), (6, 1_062));
    }

    #[test]
    fn nothing_is_lost_that_many_threads_count() {
        let counter = WideCounter::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * CELLS {
                scope.spawn(|| (0..1_000).for_each(|_| counter.increment()));
            }
        });
        assert_eq!(counter.get(), 2_000 * CELLS as u64);
    }

    #[test]
    fn bounds_rise() {
        for bounds in [SECONDS_BOUNDS, SIZES_BOUNDS] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }
}
