//! Every metric, once: its name, its type, and in its doc comment what it means, which is also its help text.
//!
//! Names follow the conventions of Prometheus: `evertail_`, then the word of the design, then the unit, then `_total` for what
//! only rises. What is counted is a struct that the layer that counts owns; what is a state is a struct that the layer fills
//! when someone asks.

use super::Declaration;
use super::label::{Cause, Label, Notice, Percentile, ReaderState, Source};
use super::text::{Text, kind_of};
use super::value::{
    Counter, CounterBy, Fact, Gauge, GaugeBy, Metric, Risen, Seconds, Sizes, WideCounter, WideCounterBy,
};

macro_rules! metrics {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident $(<$generic:ident>)? {
            $($(#[doc = $help:literal])+ $field:ident: $type:ty = $metric:literal;)+
        }
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug)]
            pub struct $name $(<$generic: Label>)? {
                $($(#[doc = $help])+ pub $field: $type,)+
            }

            impl $(<$generic: Label>)? Default for $name $(<$generic>)? {
                fn default() -> Self {
                    Self { $($field: Default::default(),)+ }
                }
            }

            impl $(<$generic: Label>)? $name $(<$generic>)? {
                /// What is said of each.
                pub fn declarations() -> Vec<Declaration> {
                    vec![$(Declaration {
                        name: $metric,
                        help: concat!($($help),+).trim(),
                        kind: kind_of::<$type>(),
                        label: <$type as Metric>::LABEL,
                    },)+]
                }

                /// Writes all of them.
                pub fn write(&self, text: &mut Text) {
                    let mut declarations = Self::declarations().into_iter();
                    $(
                        let declaration = declarations.next().expect("there is one for each field");
                        text.metric(&declaration, &self.$field);
                    )+
                }
            }
        )+
    };
}

metrics! {
    /// What the log counts.
    LogMetrics {
        /// Time from an append's entry into the queue to its ack, for each request that was acked.
        append_seconds: Seconds = "evertail_append_seconds";
        /// Events appended, those of other processes included.
        appended_events: Counter = "evertail_appended_events_total";
        /// Payload bytes of the events appended.
        appended_bytes: Counter = "evertail_appended_bytes_total";
        /// Events appended by other processes to the file.
        noticed_events: Counter = "evertail_noticed_events_total";
        /// Events answered with the seq that they have since an earlier append of the same id.
        repeated_events: Counter = "evertail_repeated_events_total";
        /// Time of a commit of appended events, from its hand-over to SQLite until it is durable.
        commit_seconds: Seconds = "evertail_commit_seconds";
        /// Time of SQLite's COMMIT alone, in commits of appended events: from the first write to the WAL until its fsync is heard of.
        fsync_seconds: Seconds = "evertail_fsync_seconds";
        /// Events of a batch, which is one commit.
        batch_events: Sizes = "evertail_batch_events";
        /// Append requests of a batch, which one fsync makes durable together.
        batch_requests: Sizes = "evertail_batch_requests";
        /// Time of a checkpoint, which moves the WAL into the file and fsyncs it, between commits.
        checkpoint_seconds: Seconds = "evertail_checkpoint_seconds";
        /// Events trimmed, by cause.
        trimmed_events: CounterBy<Cause> = "evertail_trimmed_events_total";
        /// Payload bytes of the events trimmed, by cause.
        trimmed_bytes: CounterBy<Cause> = "evertail_trimmed_bytes_total";
        /// Events that the log retains.
        retained_events: Gauge = "evertail_retained_events";
        /// Payload bytes of the events that the log retains.
        retained_bytes: Gauge = "evertail_retained_bytes";
        /// Events that the retention of the whole log no longer keeps and that are still there; up to 1,024 are trimmed late,
        /// and held ones not at all.
        excess_events: Gauge = "evertail_retention_excess_events";
        /// Pages given to readers, from the recent window or from the table; the window's share is its hit rate.
        reader_pages: WideCounterBy<Source> = "evertail_reader_pages_total";
        /// Events given to readers, from the recent window or from the table; from the table is the catch-up rate.
        reader_events: WideCounterBy<Source> = "evertail_reader_events_total";
        /// How often an event stream that was live fell out of the recent window.
        lagged: Counter = "evertail_reader_lagged_total";
    }

    /// What the log is when someone asks.
    LogReadings {
        /// Whether appends are taken: 1, or 0 when the log is closing or has failed.
        log_open: u64 = "evertail_log_open";
        /// Oldest retained seq; last_seq + 1 when nothing is retained.
        first_seq: u64 = "evertail_first_seq";
        /// Newest committed seq.
        last_seq: u64 = "evertail_last_seq";
        /// When the newest event was received, in seconds since 1970.
        last_event_time: Option<f64> = "evertail_last_event_timestamp_seconds";
        /// Append requests that wait to be taken into a batch.
        queue_requests: u64 = "evertail_queue_requests";
        /// Most append requests that may wait.
        queue_requests_max: u64 = "evertail_queue_requests_max";
        /// Content of the appends that are not answered yet.
        queue_bytes: u64 = "evertail_queue_bytes";
        /// Most content that may wait.
        queue_bytes_max: u64 = "evertail_queue_bytes_max";
        /// Age of the oldest append that is not answered yet; 0 when there is none.
        queue_age_seconds: f64 = "evertail_queue_age_seconds";
        /// Open event streams, by state.
        readers: GaugeBy<ReaderState> = "evertail_readers";
        /// How many events of the log open event streams are behind its end, at most, for so many percent of them.
        reader_lag: GaugeBy<Percentile> = "evertail_reader_lag_events";
        /// Memory of the recent window.
        window_bytes: u64 = "evertail_window_bytes";
        /// Most memory of the recent window.
        window_bytes_max: u64 = "evertail_window_bytes_max";
        /// Size of the log file.
        file_bytes: Option<u64> = "evertail_file_bytes";
        /// Size of the WAL beside the log file; it is used again after a checkpoint rather than cut.
        wal_bytes: Option<u64> = "evertail_wal_bytes";
        /// When the last checkpoint ended, in seconds since 1970.
        last_checkpoint: f64 = "evertail_last_checkpoint_timestamp_seconds";
        /// Space left on the disk of the log file, for this process.
        disk_free_bytes: Option<u64> = "evertail_disk_free_bytes";
        /// Space below which appends are refused.
        disk_free_bytes_min: u64 = "evertail_disk_free_bytes_min";
        /// Events that retention keeps of the whole log, if it is bounded so.
        retention_events: Option<u64> = "evertail_retention_events";
        /// Payload bytes that retention keeps of the whole log, if it is bounded so.
        retention_bytes: Option<u64> = "evertail_retention_bytes";
        /// How long retention keeps events of the whole log, if it is bounded so.
        retention_age: Option<f64> = "evertail_retention_age_seconds";
    }

    /// What the HTTP side counts. `L` is the codes of problems.
    HttpMetrics<L> {
        /// Requests refused, by the code of the problem that answered them.
        refusals: CounterBy<L> = "evertail_refusals_total";
        /// Event streams ended by the server, by the reason that their notice gave.
        notices: CounterBy<Notice> = "evertail_notices_total";
        /// Gaps told to event streams: what they asked for and was trimmed.
        gaps: Counter = "evertail_gaps_told_total";
        /// Resets told to event streams: their cursor was not one of this log.
        resets: Counter = "evertail_resets_told_total";
        /// Frames sent to event streams, events and what the server says of itself, but for keep-alives.
        sent_frames: WideCounter = "evertail_sent_frames_total";
        /// Bytes sent to event streams, without what carries them.
        sent_bytes: WideCounter = "evertail_sent_bytes_total";
        /// Connections of the API, those that are only told that there is no place included.
        connections: Gauge = "evertail_connections";
        /// Most connections of the API there may be, but for those that are only told so.
        connections_max: Gauge = "evertail_connections_max";
    }

    /// Which server it is.
    BuildReadings {
        /// Always 1; the label says which version of Evertail runs.
        build_info: Fact = "evertail_build_info";
    }

    /// What the system says of the process; names as in every exporter.
    ProcessReadings {
        /// When the process started, in seconds since 1970.
        start_time: Option<f64> = "process_start_time_seconds";
        /// Time that the process has been computing, for itself and in the kernel.
        cpu_seconds: Risen = "process_cpu_seconds_total";
        /// Memory of the process that is in RAM.
        resident_bytes: Option<u64> = "process_resident_memory_bytes";
        /// Descriptors that the process has open.
        open_fds: Option<u64> = "process_open_fds";
        /// Most descriptors that the process may have open.
        max_fds: Option<u64> = "process_max_fds";
    }
}
