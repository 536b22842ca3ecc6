//! Latencies of a run.

use hdrhistogram::Histogram;

/// Longest latency that is told apart. *Units*: nanoseconds.
const LATENCY_MAX: u64 = 600_000_000_000;

/// Latencies, to three digits. *Units*: nanoseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("the bounds are in order"))
    }
}

impl Latencies {
    /// Counts one.
    pub fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share of them, from 0 to 1, does not exceed. *Units*: microseconds.
    pub fn quantile_us(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// The longest. *Units*: microseconds.
    pub fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let mut latencies = Latencies::default();
        for microseconds in 1..=1000 {
            latencies.record(microseconds * 1000);
        }
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert!(near(latencies.quantile_us(0.5), 500.0));
        assert!(near(latencies.quantile_us(0.99), 990.0));
        assert!(near(latencies.max_us(), 1000.0));
        let mut other = Latencies::default();
        other.record(u64::MAX);
        latencies.add(&other);
        assert_eq!(latencies.count(), 1001);
    }
}
