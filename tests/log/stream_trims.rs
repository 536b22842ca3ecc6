//! Trims of single streams, and holds: what is deleted, what stays, and who is told.

use crate::fixture::{
    Place, append, close, content, in_time, open, options, reader, stored, stored_of, stream, trim,
};
use evertail::event::{Pattern, Retention, Selection, Seq, StreamRetention};
use evertail::log::{Bounds, From, Gap, HoldError, Log, ReaderOptions, Step, TrimReport, TrimRequest};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use std::time::Duration;

fn of_stream(name: &str, through: Seq) -> TrimRequest {
    TrimRequest { stream: Some(stream(name)), before: Some(through + 1), ..TrimRequest::default() }
}

async fn trim_stream(log: &Log, name: &str, through: Seq) -> TrimReport {
    in_time(log.trim(&of_stream(name, through))).await.expect("the trim is taken")
}

async fn append_named<const N: usize>(log: &Log, names: [&str; N]) {
    append(log, names.map(|name| content(name, None, "12"))).await.expect("the events are stored");
}

async fn seqs(other: &mut SqliteConnection) -> Vec<Seq> {
    stored(other).await.iter().map(|event| event.seq).collect()
}

/// Type and data of the server's own events.
async fn told(other: &mut SqliteConnection) -> Vec<(String, Value)> {
    let events = stored_of(other, "evertail").await;
    let read = |data: &str| serde_json::from_str(data).expect("data is JSON");
    let told = events.iter().map(|event| {
        let data: Value = event.content.data.as_deref().map_or(Value::Null, read);
        assert_eq!(data["stream"].as_str(), event.content.subject.as_deref());
        (event.content.r#type.as_str().to_owned(), data)
    });
    told.collect()
}

fn gap(from: Seq, to: Seq, streams: &[&str]) -> Step {
    Step::Gap(Gap { from, to, streams: streams.iter().map(|&name| name.to_owned()).collect() })
}

#[tokio::test]
async fn a_stream_loses_its_oldest_events_and_all_others_stay() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    append_named(&log, ["b", "a", "b", "a", "b", "a", "b"]).await;
    let report = trim_stream(&log, "a", 5).await;
    assert_eq!((report.events, report.bytes, report.through_seq), (2, 4, Some(4)));
    assert_eq!(seqs(&mut other).await, [1, 3, 5, 6, 7, 8]);
    assert_eq!(log.bounds(), Bounds { first_seq: 1, last_seq: 8 });
    let totals = in_time(log.stream(&stream("a"))).await.unwrap().unwrap();
    assert_eq!((totals.events, totals.bytes, totals.first_seq, totals.last_seq), (1, 2, 6, 6));
    for seq in [2, 4] {
        assert_eq!(log.event(seq).await.unwrap(), None);
    }
    let data =
        json!({"stream": "a", "cause": "request", "from_seq": 2, "through_seq": 4, "events": 2, "bytes": 4});
    assert_eq!(told(&mut other).await, [("evertail.trimmed".to_owned(), data)]);
    // Done already.
    assert_eq!(trim_stream(&log, "a", 5).await.events, 0);
    assert_eq!(log.bounds().last_seq, 8);
    // The log begins with its first event.
    trim_stream(&log, "b", 3).await;
    assert_eq!(log.bounds(), Bounds { first_seq: 5, last_seq: 9 });
    close(log, task).await;
    let (log, task) = place.open().await;
    assert_eq!(log.bounds(), Bounds { first_seq: 5, last_seq: 9 });
    close(log, task).await;
}

#[tokio::test]
async fn the_newest_event_of_the_log_stays_so_that_no_seq_is_given_twice() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    append_named(&log, ["a", "a", "a"]).await;
    assert_eq!(trim_stream(&log, "a", 3).await.through_seq, Some(2));
    assert_eq!(seqs(&mut other).await, [3, 4]);
    // Now another one is the newest.
    assert_eq!(trim_stream(&log, "a", 3).await.through_seq, Some(3));
    assert_eq!(trim_stream(&log, "evertail", 9).await.through_seq, Some(4));
    assert_eq!(seqs(&mut other).await, [5]);
    close(log, task).await;
    let (log, task) = place.open().await;
    assert_eq!(append(&log, [content("a", None, "1")]).await.unwrap()[0].seq, 6);
    close(log, task).await;
}

#[tokio::test]
async fn readers_of_the_stream_are_told_once_and_others_are_not() {
    for window_bytes_max in [0, 1 << 20] {
        let place = Place::new();
        let mut settings = place.settings();
        settings.window_bytes_max = window_bytes_max;
        let (log, task) = open(settings).await;
        append_named(&log, ["a", "b", "a", "b", "a"]).await;
        let of = |name: &str, cursor| {
            let selection =
                Selection { streams: Pattern::parse(name).into_iter().collect(), ..Selection::all() };
            log.reader(cursor, ReaderOptions { selection, ..options() })
        };
        let mut all = reader(&log, 1);
        let (mut of_a, mut of_b, mut beyond) = (of("a", 1), of("b", 1), of("a", 3));
        trim_stream(&log, "a", 3).await;
        assert_eq!(all.next().await.unwrap(), gap(2, 3, &["a"]));
        assert_eq!(all.cursor(), 1, "what is left there is still to come");
        let Step::Page(page) = all.next().await.unwrap() else { panic!("2, 4, 5 and 6 are there") };
        assert_eq!((page.events, page.cursor), (4, 6));
        assert_eq!(all.next().await.unwrap(), Step::CaughtUp);
        assert_eq!(of_a.next().await.unwrap(), gap(2, 3, &["a"]));
        assert!(matches!(of_a.next().await.unwrap(), Step::Page(page) if page.events == 1));
        assert!(matches!(of_b.next().await.unwrap(), Step::Page(page) if page.events == 2));
        assert!(matches!(beyond.next().await.unwrap(), Step::Page(page) if page.events == 1));
        // Who begins anew misses nothing, who comes back may.
        let mut anew = reader(&log, 1);
        anew.begin_here();
        assert!(matches!(anew.next().await.unwrap(), Step::Page(page) if page.events == 4));
        assert_eq!(reader(&log, 2).next().await.unwrap(), gap(3, 3, &["a"]));
        close(log, task).await;
    }
}

#[tokio::test]
async fn what_was_read_ahead_before_a_trim_of_a_stream_is_not_given_after_it() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.window_bytes_max = 0;
    let (log, task) = open(settings).await;
    append_named(&log, ["b", "a", "b"]).await;
    let mut ahead = log.reader(0, ReaderOptions { page_bytes_max: 1, ..options() });
    assert!(matches!(ahead.next().await.unwrap(), Step::Page(page) if page.cursor == 1));
    in_time(ahead.read_ahead()).await;
    trim_stream(&log, "a", 2).await;
    assert_eq!(ahead.next().await.unwrap(), gap(2, 2, &["a"]));
    let mut step = ahead.next().await.unwrap();
    while matches!(&step, Step::Page(page) if page.events == 0) {
        step = ahead.next().await.unwrap();
    }
    assert!(matches!(step, Step::Page(page) if page.cursor == 3 && page.events == 1));
    close(log, task).await;
}

/// How many events the index names that are not there.
async fn untrue(other: &mut SqliteConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM blocks, json_each('[' || seqs || ']') AS place
         LEFT JOIN log ON log.seq = block * 4096 + place.value WHERE log.stream IS NOT blocks.stream",
    )
    .fetch_one(other)
    .await
    .expect("the table is readable")
}

/// Over several blocks of the index, and beyond it.
#[tokio::test]
async fn index_and_totals_stay_true_through_the_steps_of_a_long_trim() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.window_bytes_max = 0;
    let (log, task) = open(settings).await;
    let mut other = place.other_process().await;
    let name = |seq: Seq| if seq.is_multiple_of(3) { "a" } else { "b" };
    for start in (1..13_001_u64).step_by(1_000) {
        let contents: Vec<_> = (start..start + 1_000).map(|seq| content(name(seq), None, "12")).collect();
        append(&log, contents).await.unwrap();
    }
    for through in [5_000, 5_002, 12_500, 12_999] {
        trim_stream(&log, "a", through).await;
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM log WHERE stream = 'a'")
            .fetch_one(&mut other)
            .await
            .unwrap();
        assert_eq!(kept as u64, (through + 1..=13_000).filter(|seq| seq % 3 == 0).count() as u64);
        let totals = in_time(log.stream(&stream("a"))).await.unwrap().unwrap();
        assert_eq!((totals.events, totals.bytes), (kept as u64, kept as u64 * 2));
        let first: Option<i64> = sqlx::query_scalar("SELECT min(seq) FROM log WHERE stream = 'a'")
            .fetch_one(&mut other)
            .await
            .unwrap();
        assert_eq!(totals.first_seq, first.map_or(totals.last_seq + 1, |first| first as Seq));
        assert_eq!(untrue(&mut other).await, 0, "the index names what is there");
        let miscounted: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM blocks WHERE events <> json_array_length('[' || seqs || ']')",
        )
        .fetch_one(&mut other)
        .await
        .unwrap();
        assert_eq!(miscounted, 0);
    }
    let cursor = log.resume(From::Last(5), None, &Selection::all()).await.unwrap().cursor;
    // Four events of `evertail` at the end, and 12,999 is gone.
    assert_eq!(cursor, 12_999);
    // What was noted for the block that was not complete is no longer what is in it.
    append(&log, vec![content("b", None, "1"); 4_000]).await.unwrap();
    in_time(async {
        let indexed = "SELECT indexed_seq FROM meta";
        while sqlx::query_scalar::<_, i64>(indexed).fetch_one(&mut other).await.unwrap() < 16_384 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(untrue(&mut other).await, 0);
    close(log, task).await;
}

#[tokio::test]
async fn what_is_kept_may_be_said_in_events_and_bytes() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append_named(&log, ["a", "b", "a", "a", "b", "a", "b"]).await;
    let keep = |stream: Option<&str>, events, bytes| TrimRequest {
        stream: stream.map(crate::fixture::stream),
        keep: Retention { events, bytes, age: None },
        ..TrimRequest::default()
    };
    for (request, through) in [
        (keep(Some("a"), Some(3), None), Some(1)),
        (keep(Some("a"), Some(9), Some(5)), Some(3)),
        (keep(Some("b"), None, Some(6)), None),
    ] {
        let plan = log.plan_trim(&request).await.unwrap();
        let report = in_time(log.trim(&request)).await.unwrap();
        assert_eq!(report.through_seq, through, "{request:?}");
        assert_eq!((plan.events, plan.bytes, plan.through_seq), (report.events, report.bytes, through));
    }
    // 2, 4, 5, 6, 7 and two that tell.
    let request = keep(None, Some(4), None);
    assert_eq!(in_time(log.trim(&request)).await.unwrap().through_seq, Some(5));
    assert_eq!(log.bounds(), Bounds { first_seq: 6, last_seq: 10 });
    close(log, task).await;
}

#[tokio::test]
async fn no_trim_passes_a_hold_and_each_is_told() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    append_named(&log, ["b", "b", "a", "b", "a"]).await;
    let hold = |reason: &'static str| log.hold(stream("a"), "case 7".into(), reason.into());
    assert!(in_time(hold("asked by court")).await.unwrap().1);
    assert!(!in_time(hold("asked by court")).await.unwrap().1, "the same is no error");
    assert!(matches!(in_time(hold("another reason")).await, Err(HoldError::Differs(_))));
    let whole = in_time(log.trim_through(9)).await.unwrap();
    assert_eq!((whole.events, whole.through_seq), (2, Some(2)));
    assert_eq!(&*whole.held_by.unwrap().hold.name, "case 7");
    let of_a = trim_stream(&log, "a", 5).await;
    assert_eq!((of_a.events, of_a.held_by.map(|held| held.first_seq)), (0, Some(Some(3))));
    let of_b = trim_stream(&log, "b", 5).await;
    assert_eq!((of_b.events, of_b.held_by), (1, None));
    // Whatever is asked of the table.
    for sql in [
        "BEGIN; UPDATE meta SET trimmed_seq = 9; DELETE FROM log WHERE seq = 3",
        "BEGIN; UPDATE streams SET trimmed_seq = 9; DELETE FROM log WHERE seq = 3",
    ] {
        let refused = sqlx::raw_sql(sql).execute(&mut other).await.unwrap_err().to_string();
        assert!(refused.contains("this stream is held"), "{sql}: {refused}");
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    }
    assert_eq!(log.holds().await.unwrap().len(), 1);
    close(log, task).await;
    let (log, task) = place.open().await;
    assert_eq!(trim(&log, 9).await.first_seq, 3, "after a restart too");
    let unknown = in_time(log.release(stream("a"), "case 8".into(), None)).await;
    assert!(matches!(unknown, Err(HoldError::Unknown)));
    in_time(log.release(stream("a"), "case 7".into(), Some("closed".into()))).await.unwrap();
    assert!(trim_stream(&log, "a", 5).await.held_by.is_none());
    let told = told(&mut other).await;
    let types: Vec<_> = told.iter().map(|(r#type, _)| r#type.as_str()).collect();
    let trimmed = "evertail.trimmed";
    assert_eq!(types, ["evertail.held", trimmed, trimmed, "evertail.released", trimmed]);
    assert_eq!(told[0].1, json!({"stream": "a", "name": "case 7", "reason": "asked by court"}));
    assert_eq!(told[3].1, json!({"stream": "a", "name": "case 7", "reason": "closed"}));
    close(log, task).await;
}

#[tokio::test]
async fn streams_have_retention_of_their_own_and_a_hold_stops_only_its_own() {
    let place = Place::new();
    let (log, task) = place.open().await;
    in_time(log.hold(stream("held"), "case".into(), "why".into())).await.unwrap();
    for _ in 0..20 {
        append_named(&log, ["held", "few.x", "few.y", "all", "bytes"]).await;
    }
    close(log, task).await;
    let mut settings = place.settings();
    let rule = |streams: &str, events, bytes, age: Option<u64>| StreamRetention {
        streams: Pattern::parse(streams).unwrap(),
        keep: Retention { events, bytes, age: age.map(Duration::from_secs) },
    };
    settings.retention.streams = vec![
        rule("*", Some(1), None, None),
        rule("few.*", Some(8), None, None),
        rule("few.y", Some(3), None, Some(1 << 30)),
        rule("all", None, None, None),
        rule("bytes", None, Some(10), None),
    ];
    let (log, task) = open(settings).await;
    let events = async |name: &str| log.stream(&stream(name)).await.unwrap().unwrap().events;
    in_time(async {
        while (events("few.x").await, events("few.y").await, events("bytes").await) != (8, 3, 5) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((events("all").await, events("held").await), (20, 20));
    let plan = log.plan_retention().await.unwrap();
    let held: Vec<_> = plan.iter().filter_map(|report| report.held_by.as_ref()).collect();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].hold.stream.as_str(), "held");
    // Told within a minute: at the latest here, after a restart.
    close(log, task).await;
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    in_time(async {
        while told(&mut other).await.len() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let told = told(&mut other).await;
    let mut streams: Vec<_> = told[1..].iter().map(|(_, data)| data["stream"].as_str().unwrap()).collect();
    streams.sort_unstable();
    assert_eq!(streams, ["bytes", "few.x", "few.y"]);
    assert!(
        told[1..].iter().all(|(_, data)| data["cause"] == "retention" && data["events"].as_u64() > Some(10))
    );
    close(log, task).await;
}

#[tokio::test]
async fn space_of_what_was_trimmed_is_given_back_to_the_file_system() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let data = format!("\"{}\"", "x".repeat(10_000));
    for _ in 0..60 {
        append(&log, vec![content("a", None, &data); 100]).await.unwrap();
    }
    close(log, task).await;
    let size = || std::fs::metadata(place.file()).unwrap().len();
    let before = size();
    assert!(before > 60_000_000);
    let (log, task) = place.open().await;
    trim(&log, 5_990).await;
    in_time(async {
        while size() > 8_000_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(append(&log, [content("a", None, "1")]).await.unwrap()[0].seq, 6_002);
    close(log, task).await;
    let mut other = place.other_process().await;
    let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut other).await.unwrap();
    assert_eq!(check, "ok");
}
