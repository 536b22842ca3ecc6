//! What two scrapes of the metrics say together: rates, and quantiles of what happened in between.

use crate::metrics::samples;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// The metrics as they were at one time.
#[derive(Debug)]
pub(super) struct Scrape {
    at: Instant,
    /// By name and label; the label is empty where there is none.
    values: BTreeMap<(String, String), f64>,
}

/// What is shown. Quantiles are left out where nothing happened, and what the server does not tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) version: String,
    pub(super) is_open: bool,
    pub(super) acks_per_second: f64,
    pub(super) events_per_second: f64,
    pub(super) bytes_per_second: f64,
    pub(super) ack_p50_seconds: Option<f64>,
    pub(super) ack_p99_seconds: Option<f64>,
    pub(super) commit_p50_seconds: Option<f64>,
    pub(super) commit_p99_seconds: Option<f64>,
    pub(super) fsync_p50_seconds: Option<f64>,
    pub(super) fsync_p99_seconds: Option<f64>,
    pub(super) events_per_batch: Option<f64>,
    pub(super) requests_per_batch: Option<f64>,
    pub(super) queue_requests: f64,
    pub(super) queue_bytes: f64,
    pub(super) queue_age_seconds: f64,
    pub(super) live_readers: f64,
    pub(super) catch_up_readers: f64,
    pub(super) lag_p50_events: f64,
    pub(super) lag_p99_events: f64,
    pub(super) lag_worst_events: f64,
    pub(super) lagged_per_second: f64,
    pub(super) sent_frames_per_second: f64,
    pub(super) sent_bytes_per_second: f64,
    pub(super) window_hit_share: Option<f64>,
    pub(super) catch_up_events_per_second: f64,
    pub(super) gaps_per_second: f64,
    pub(super) first_seq: f64,
    pub(super) last_seq: f64,
    pub(super) retained_events: f64,
    pub(super) retained_bytes: f64,
    pub(super) excess_events: f64,
    pub(super) file_bytes: Option<f64>,
    pub(super) wal_bytes: Option<f64>,
    pub(super) disk_free_bytes: Option<f64>,
    pub(super) checkpoints_per_second: f64,
    pub(super) cores: f64,
    pub(super) resident_bytes: Option<f64>,
    pub(super) open_fds: Option<f64>,
    pub(super) connections: f64,
    pub(super) connections_max: f64,
    /// Refusals in a second by code, those that there are.
    pub(super) refusals_per_second: BTreeMap<String, f64>,
}

impl Scrape {
    /// What a text says; `None` where it is not of Evertail.
    pub(super) fn of(text: &str) -> Option<Self> {
        let key = |name: &str, label: Option<&str>| (name.to_owned(), label.unwrap_or_default().to_owned());
        let values = samples(text).map(|sample| (key(sample.name, sample.label), sample.value)).collect();
        let scrape = Self { at: Instant::now(), values };
        scrape.get("evertail_last_seq", "").is_some().then_some(scrape)
    }

    fn get(&self, name: &str, label: &str) -> Option<f64> {
        self.values.get(&(name.to_owned(), label.to_owned())).copied()
    }

    /// The labels and values of one metric.
    fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = (&'s str, f64)> {
        let from = (name.to_owned(), String::new());
        let of_it = self.values.range(from..).take_while(move |((found, _), _)| found == name);
        of_it.map(|((_, label), value)| (label.as_str(), *value))
    }
}

impl Figures {
    /// What happened between two scrapes, and what is at the second.
    pub(super) fn between(before: &Scrape, after: &Scrape) -> Self {
        let seconds = (after.at - before.at).as_secs_f64().max(1e-3);
        let of = |name: &str, label: &str| after.get(&format!("evertail_{name}"), label);
        let now = |name: &str| of(name, "").unwrap_or(0.0);
        let risen = |name: &str, label: &str| risen(before, after, name, label);
        let rate = |name: &str, label: &str| risen(&format!("evertail_{name}"), label) / seconds;
        let time =
            |name: &str, share| quantile(before, after, &format!("evertail_{name}_seconds_bucket"), share);
        let mean = |name: &str| {
            let count = rate(&format!("{name}_count"), "");
            (count > 0.0).then(|| rate(&format!("{name}_sum"), "") / count)
        };
        let pages = |source| rate("reader_pages_total", source);
        let all_pages = pages("window") + pages("table");
        let codes = after.all("evertail_refusals_total").map(|(code, _)| code);
        let refusals = codes.map(|code| (code.to_owned(), rate("refusals_total", code)));
        Self {
            version: after.all("evertail_build_info").map(|(version, _)| version).collect(),
            is_open: now("log_open") > 0.0,
            acks_per_second: rate("append_seconds_count", ""),
            events_per_second: rate("appended_events_total", ""),
            bytes_per_second: rate("appended_bytes_total", ""),
            ack_p50_seconds: time("append", 0.5),
            ack_p99_seconds: time("append", 0.99),
            commit_p50_seconds: time("commit", 0.5),
            commit_p99_seconds: time("commit", 0.99),
            fsync_p50_seconds: time("fsync", 0.5),
            fsync_p99_seconds: time("fsync", 0.99),
            events_per_batch: mean("batch_events"),
            requests_per_batch: mean("batch_requests"),
            queue_requests: now("queue_requests"),
            queue_bytes: now("queue_bytes"),
            queue_age_seconds: now("queue_age_seconds"),
            live_readers: of("readers", "live").unwrap_or(0.0),
            catch_up_readers: of("readers", "catch_up").unwrap_or(0.0),
            lag_p50_events: of("reader_lag_events", "50").unwrap_or(0.0),
            lag_p99_events: of("reader_lag_events", "99").unwrap_or(0.0),
            lag_worst_events: of("reader_lag_events", "100").unwrap_or(0.0),
            lagged_per_second: rate("reader_lagged_total", ""),
            sent_frames_per_second: rate("sent_frames_total", ""),
            sent_bytes_per_second: rate("sent_bytes_total", ""),
            window_hit_share: (all_pages > 0.0).then(|| pages("window") / all_pages),
            catch_up_events_per_second: rate("reader_events_total", "table"),
            gaps_per_second: rate("gaps_told_total", ""),
            first_seq: now("first_seq"),
            last_seq: now("last_seq"),
            retained_events: now("retained_events"),
            retained_bytes: now("retained_bytes"),
            excess_events: now("retention_excess_events"),
            file_bytes: of("file_bytes", ""),
            wal_bytes: of("wal_bytes", ""),
            disk_free_bytes: of("disk_free_bytes", ""),
            checkpoints_per_second: rate("checkpoint_seconds_count", ""),
            cores: risen("process_cpu_seconds_total", "") / seconds,
            resident_bytes: after.get("process_resident_memory_bytes", ""),
            open_fds: after.get("process_open_fds", ""),
            connections: now("connections"),
            connections_max: now("connections_max"),
            refusals_per_second: refusals.filter(|(_, rate)| *rate > 0.0).collect(),
        }
    }
}

/// By how much a counter has risen. One that has fallen is of a server that has started anew, at 0.
fn risen(before: &Scrape, after: &Scrape, name: &str, label: &str) -> f64 {
    let (was, is) = (before.get(name, label).unwrap_or(0.0), after.get(name, label).unwrap_or(0.0));
    if is < was { is } else { is - was }
}

/// The value that this share of the observations in between did not exceed, as Prometheus estimates it: within the bucket it
/// is in, as if they were spread evenly. `None` if there was no observation.
fn quantile(before: &Scrape, after: &Scrape, buckets: &str, share: f64) -> Option<f64> {
    let bound = |label: &str| label.parse::<f64>().ok();
    let mut counts: Vec<(f64, f64)> = after
        .all(buckets)
        .filter_map(|(label, _)| Some((bound(label)?, risen(before, after, buckets, label))))
        .collect();
    counts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rank = counts.last().filter(|(_, all)| *all > 0.0)?.1 * share;
    let at = counts.iter().position(|(_, count)| *count >= rank)?;
    let (from, below) = if at == 0 { (0.0, 0.0) } else { counts[at - 1] };
    let (to, count) = counts[at];
    Some(if to.is_infinite() { from } else { from + (to - from) * (rank - below) / (count - below) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn scrape(text: &str, seconds: u64) -> Scrape {
        let mut scrape = Scrape::of(&format!("evertail_last_seq 9\n{text}")).unwrap();
        scrape.at = Instant::now() + Duration::from_secs(seconds);
        scrape
    }

    fn buckets(counts: [u64; 3]) -> String {
        let bounds = ["0.001", "0.002", "+Inf"].into_iter().zip(counts);
        let line = |(le, count)| format!("evertail_append_seconds_bucket{{le=\"{le}\"}} {count}\n");
        bounds.map(line).collect::<String>() + &format!("evertail_append_seconds_count {}\n", counts[2])
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let before =
            scrape("evertail_appended_events_total 100\nevertail_refusals_total{code=\"gone\"} 4\n", 0);
        let text = "evertail_appended_events_total 120\nevertail_refusals_total{code=\"gone\"} 8\n\
                    evertail_refusals_total{code=\"internal\"} 0\nevertail_build_info{version=\"1.2.3\"} 1\n";
        let figures = Figures::between(&before, &scrape(text, 2));
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 0.01, "{value} {expected}");
        near(figures.events_per_second, 10.0);
        assert_eq!(figures.refusals_per_second.keys().collect::<Vec<_>>(), ["gone"]);
        near(figures.refusals_per_second["gone"], 2.0);
        assert_eq!((figures.version.as_str(), figures.last_seq, figures.is_open), ("1.2.3", 9.0, false));
        assert_eq!((figures.ack_p50_seconds, figures.window_hit_share), (None, None));
        // A server that has started anew.
        near(
            Figures::between(&before, &scrape("evertail_appended_events_total 6\n", 2)).events_per_second,
            3.0,
        );
    }

    #[test]
    fn quantiles_are_of_what_happened_between() {
        let before = scrape(&buckets([1_000, 1_000, 1_000]), 0);
        let of = |counts, share| {
            quantile(&before, &scrape(&buckets(counts), 1), "evertail_append_seconds_bucket", share)
        };
        assert_eq!(of([1_000, 1_000, 1_000], 0.5), None);
        assert_eq!(of([1_010, 1_010, 1_010], 0.5), Some(0.0005));
        let value = of([1_000, 1_010, 1_010], 0.5).unwrap();
        assert!((value - 0.0015).abs() < 1e-9, "{value}");
        assert_eq!(of([1_000, 1_000, 1_010], 0.5), Some(0.002), "the last bound there is");
    }

    #[test]
    fn a_text_of_something_else_is_none_of_ours() {
        assert!(Scrape::of("go_goroutines 7\n").is_none());
        assert!(Scrape::of("<html>").is_none());
    }
}
