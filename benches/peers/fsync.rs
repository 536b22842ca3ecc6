//! What the disk asks for: appending 24 KiB, about what a commit of one event writes to the WAL, and making it durable.

use evertail::bench::figures::Latencies;
use evertail::bench::mark::now;
use evertail::bench::report::Report;
use std::fs::File;
use std::io::Write;

/// How often.
const TIMES: usize = 2000;
/// *Units*: nanoseconds.
const LONGEST: u64 = 2_000_000_000;

/// Appends and syncs, with both calls.
pub(crate) fn measure(path: &str) -> Report {
    let mut report = Report::new("fsync");
    for (name, is_whole) in [("fsync", true), ("fdatasync", false)] {
        let mut file = File::create(path).unwrap();
        let mut latencies = Latencies::default();
        let start = now();
        while latencies.count() < TIMES as u64 && now() - start < LONGEST {
            let before = now();
            file.write_all(&[7; 24 << 10]).unwrap();
            if is_whole { file.sync_all() } else { file.sync_data() }.unwrap();
            latencies.record(now() - before);
        }
        report.set_latencies(name, &latencies);
        std::fs::remove_file(path).unwrap();
    }
    report
}
