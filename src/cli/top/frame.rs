//! A frame of `evertail top`: the figures in words, a line for each part of the server.

use super::figures::Figures;
use crate::cli::output;
use indicatif::HumanCount;

/// The lines of a frame, in the order in which an event passes.
pub(super) fn lines(figures: &Figures) -> Vec<String> {
    let f = figures;
    let state = if f.is_open { "takes appends" } else { "TAKES NO APPENDS" };
    let per_second = |value: f64, what: &str| format!("{} {what}/s", count(value));
    let refused = match f.refusals_per_second.is_empty() {
        true => vec!["nothing".to_owned()],
        false => f.refusals_per_second.iter().map(|(code, rate)| per_second(*rate, code)).collect(),
    };
    let parts: [(&str, Vec<String>); 9] = [
        (
            "appends",
            vec![
                per_second(f.acks_per_second, "acks"),
                per_second(f.events_per_second, "events"),
                format!("{}/s", bytes(Some(f.bytes_per_second))),
                format!("ack p50 {}", time(f.ack_p50_seconds)),
                format!("p99 {}", time(f.ack_p99_seconds)),
            ],
        ),
        (
            "commits",
            vec![
                format!("p50 {}", time(f.commit_p50_seconds)),
                format!("p99 {}", time(f.commit_p99_seconds)),
                format!("fsync p50 {}", time(f.fsync_p50_seconds)),
                format!("p99 {}", time(f.fsync_p99_seconds)),
                format!(
                    "batch {} events of {} requests",
                    mean(f.events_per_batch),
                    mean(f.requests_per_batch)
                ),
            ],
        ),
        (
            "queue",
            vec![
                format!("{} requests", count(f.queue_requests)),
                bytes(Some(f.queue_bytes)),
                format!("oldest {}", time(Some(f.queue_age_seconds))),
            ],
        ),
        (
            "readers",
            vec![
                format!("{} live", count(f.live_readers)),
                format!("{} catching up", count(f.catch_up_readers)),
                format!("behind p50 {}", count(f.lag_p50_events)),
                format!("p99 {}", count(f.lag_p99_events)),
                format!("worst {} events", count(f.lag_worst_events)),
                per_second(f.lagged_per_second, "lagged"),
            ],
        ),
        (
            "sent",
            vec![
                per_second(f.sent_frames_per_second, "frames"),
                format!("{}/s", bytes(Some(f.sent_bytes_per_second))),
                format!("from memory {}", share(f.window_hit_share)),
                per_second(f.catch_up_events_per_second, "events from the file"),
                per_second(f.gaps_per_second, "gaps"),
            ],
        ),
        (
            "log",
            vec![
                format!("seq {} to {}", count(f.first_seq), count(f.last_seq)),
                format!("{} events", count(f.retained_events)),
                bytes(Some(f.retained_bytes)),
                format!("{} to be trimmed", count(f.excess_events)),
            ],
        ),
        (
            "disk",
            vec![
                format!("file {}", bytes(f.file_bytes)),
                format!("WAL {}", bytes(f.wal_bytes)),
                format!("free {}", bytes(f.disk_free_bytes)),
                per_second(f.checkpoints_per_second, "checkpoints"),
            ],
        ),
        (
            "process",
            vec![
                format!("{:.2} cores", f.cores),
                bytes(f.resident_bytes),
                format!("{} descriptors", f.open_fds.map_or_else(none, count)),
                format!("{} of {} connections", count(f.connections), count(f.connections_max)),
            ],
        ),
        ("refused", refused),
    ];
    let line =
        |(name, values): (&str, Vec<String>)| output::printable(&format!("{name:<9} {}", values.join("   ")));
    let head = output::printable(&format!("evertail {}   {state}", f.version));
    std::iter::once(head).chain(parts.into_iter().map(line)).collect()
}

fn none() -> String {
    "-".to_owned()
}

/// A number of things; small ones with a decimal, so that one a minute is not none.
fn count(value: f64) -> String {
    if value > 0.0 && value < 10.0 && value.fract() > 0.001 {
        return format!("{value:.1}");
    }
    HumanCount(value.round() as u64).to_string()
}

fn mean(value: Option<f64>) -> String {
    value.map_or_else(none, |value| format!("{value:.1}"))
}

fn bytes(value: Option<f64>) -> String {
    value.map_or_else(none, |value| output::bytes(value.round() as u64))
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(none, |value| format!("{:.1} %", value * 100.0))
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => none(),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0.0, 0.25, 9.5, 12.4, 1_234_567.0].map(count), ["0", "0.2", "9.5", "12", "1,234,567"]);
        assert_eq!([None, Some(0.0), Some(0.00123), Some(2.5)].map(time), ["-", "0.0 ms", "1.2 ms", "2.5 s"]);
        assert_eq!([None, Some(0.9987)].map(share), ["-", "99.9 %"]);
    }
}
