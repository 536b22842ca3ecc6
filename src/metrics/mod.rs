//! Metrics: what is measured, what each is called and means, and how that is written for Prometheus.
//!
//! Layer L0. Imports nothing; knows no I/O and no HTTP.
//!
//! | file | holds |
//! |---|---|
//! | `table` | every metric, declared once: its name, its help, its type |
//! | `value` | counters and histograms, which are atomics and nothing else |
//! | `label` | the closed sets that labels come from |
//! | `text` | the text format of Prometheus, written and read |
//!
//! # What a measurement costs
//! Whoever counts pays an atomic addition, for each commit, answer or page rather than for each event; nothing is allocated
//! and no lock is taken. What is a state rather than a count (bounds, sizes, readers) is gathered when someone asks.
//!
//! # Why no crate
//! `prometheus-client` locks a mutex for each observation of a histogram, finds a labelled counter in a map under a lock,
//! and writes OpenMetrics only, which `promtool check metrics` cannot read. Without these, text is left.

mod label;
mod table;
mod text;
mod value;

pub use label::{Cause, Label, Notice, Percentile, ReaderState, Source};
pub use table::{BuildReadings, HttpMetrics, LogMetrics, LogReadings, ProcessReadings};
pub use text::{Sample, Text, samples};
pub use value::{
    Counter, CounterBy, Fact, Gauge, GaugeBy, Risen, Seconds, Sizes, WideCounter, WideCounterBy,
};

/// What a metric is, and how Prometheus calls that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// How often values were observed, by size.
    Histogram,
}

impl Kind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What is said of a metric besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// Its name.
    pub name: &'static str,
    /// What it means: the doc comment of its field.
    pub help: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its label and the values of that, if it has one from a closed set.
    pub label: Option<(&'static str, &'static [&'static str])>,
}

/// Every metric there is. `L` is what refusals are told apart by.
pub fn declarations<L: Label>() -> Vec<Declaration> {
    let tables = [
        LogMetrics::declarations(),
        LogReadings::declarations(),
        HttpMetrics::<L>::declarations(),
        BuildReadings::declarations(),
        ProcessReadings::declarations(),
    ];
    tables.concat()
}
