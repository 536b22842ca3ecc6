//! The index of sparse selections changes nothing but speed: with it, half filled in, or trimmed in the midst of a
//! block, a reader is given what a look at every event gives.

use crate::cases;
use crate::fixture::{
    Place, append, assert_sound, close, content, event_type, in_time, open, other_process, shown,
};
use evertail::event::{Pattern, Selection, Seq};
use evertail::frames::Format;
use evertail::log::{From, Log, ReaderOptions, Step, TrimRequest};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sqlx::SqliteConnection;

/// Seqs of one block.
const BLOCK: Seq = 4_096;

/// A log of some blocks: which stream and type the event with this seq has.
#[derive(Clone, Copy, Debug)]
struct Layout {
    events: Seq,
    streams: Seq,
    seed: Seq,
}

impl Layout {
    fn names(self, seq: Seq) -> (String, &'static str) {
        if seq > self.events {
            return ("evertail".to_owned(), "evertail.trimmed");
        }
        let random = (seq ^ self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let stream = match random % 100 {
            0 => "rare".to_owned(),
            1..3 => "rare.eu".to_owned(),
            // Only in the second block, or only in the last.
            3 if seq / BLOCK == 1 => "second".to_owned(),
            4 if seq + BLOCK > self.events => "last".to_owned(),
            _ => format!("s{}", random / 100 % self.streams),
        };
        (stream, ["message", "user.login", "user.logout"][(random % 3) as usize])
    }
}

fn layout() -> impl Strategy<Value = Layout> {
    (1..13_000_u64, select(vec![1_u64, 7, 3_000]), any::<Seq>()).prop_map(|(events, streams, seed)| Layout {
        events,
        streams,
        seed,
    })
}

fn selection() -> impl Strategy<Value = Selection> {
    let parse = |texts: &[&str]| texts.iter().filter_map(|text| Pattern::parse(text)).collect();
    let streams = select(vec![
        &["rare"][..],
        &["rare.*"],
        &["rare", "rare.eu"],
        &["rare", "s0", "none"],
        &["second"],
        &["last"],
        &["none"],
        &["s1"],
        &[],
    ]);
    let types = select(vec![&[][..], &[], &["user.login"], &["user.*"], &["none"]]);
    let granted = select(vec![
        None,
        None,
        Some(&["rare.*", "last"][..]),
        Some(&["rare", "s1"]),
        Some(&["s0", "second"]),
        Some(&[]),
    ]);
    (streams, types, granted).prop_map(move |(streams, types, granted)| Selection {
        streams: parse(streams),
        types: parse(types),
        granted: granted.map(|granted| parse(granted).into()),
        ..Selection::default()
    })
}

/// Fills the log: by appends, but for some events in the midst, which another process inserts.
async fn fill(log: &Log, other: &mut SqliteConnection, layout: Layout) {
    let foreign = layout.events / 2..layout.events / 2 + 50;
    let mut seq = 1;
    while seq <= layout.events {
        let (stream, r#type) = layout.names(seq);
        if foreign.contains(&seq) {
            sqlx::query("INSERT INTO events (stream, type) VALUES (?, ?)")
                .bind(stream)
                .bind(r#type)
                .execute(&mut *other)
                .await
                .expect("the row keeps the rules");
            seq += 1;
            continue;
        }
        shown(log, seq - 1).await;
        let limit = if seq < foreign.start { foreign.start } else { layout.events + 1 };
        let contents: Vec<_> = (seq..limit.min(seq + 1_000))
            .map(|seq| {
                let (stream, r#type) = layout.names(seq);
                let mut content = content(&stream, None, "1");
                content.r#type = event_type(r#type);
                content
            })
            .collect();
        seq += contents.len() as Seq;
        append(log, contents).await.expect("the events are stored");
    }
    shown(log, layout.events).await;
}

async fn indexed(other: &mut SqliteConnection) -> (i64, i64) {
    sqlx::query_as("SELECT indexed_seq, (SELECT coalesce(sum(events), 0) FROM blocks) FROM meta")
        .fetch_one(other)
        .await
        .expect("the table is readable")
}

/// What a reader of lines is given, as seqs.
async fn read(log: &Log, cursor: Seq, selection: &Selection, through: Option<Seq>) -> Vec<Seq> {
    let mut reader = log.reader(
        cursor,
        ReaderOptions {
            until: None,
            selection: selection.clone(),
            format: Format::Lines,
            through,
            limit: None,
            page_bytes_max: 8_000,
        },
    );
    let mut seqs = Vec::new();
    loop {
        match in_time(reader.next()).await.expect("the table is readable") {
            Step::Page(page) => {
                let text = std::str::from_utf8(&page.bytes).expect("lines are text");
                let seq = |line: &str| line["{\"seq\":".len()..].split(',').next()?.parse::<Seq>().ok();
                seqs.extend(text.lines().map(|line| seq(line).expect("a line begins with its seq")));
            }
            Step::Gap(_) => {}
            Step::CaughtUp | Step::End => return seqs,
        }
    }
}

/// `trimmed` is that of the log, `lost` that of the stream `rare`.
async fn check(log: &Log, layout: Layout, trimmed: Seq, lost: Seq, selections: &[(Selection, Index, u64)]) {
    // Whatever tells of a trim is behind what was appended.
    let newest = log.bounds().last_seq;
    let trimmed = trimmed.max(log.bounds().first_seq - 1);
    for (selection, index, count) in selections {
        let cursor = index.index(layout.events as usize + 1) as Seq;
        let through = count.is_multiple_of(2).then_some(layout.events - count.min(&layout.events));
        let matches = |name: &str, patterns: &[Pattern]| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
        };
        let is_wanted = |seq: &Seq| {
            let (stream, r#type) = layout.names(*seq);
            let is_lost = stream == "rare" && *seq <= lost;
            let is_granted = |granted: &[Pattern]| granted.iter().any(|pattern| pattern.matches(&stream));
            !is_lost
                && selection.granted.as_deref().is_none_or(is_granted)
                && matches(&stream, &selection.streams)
                && matches(r#type, &selection.types)
        };
        let wanted: Vec<Seq> = (trimmed + 1..=newest).filter(is_wanted).collect();
        let last = through.unwrap_or(newest);
        let expected: Vec<Seq> = wanted.iter().copied().filter(|seq| *seq > cursor && *seq <= last).collect();
        assert_eq!(read(log, cursor, selection, through).await, expected, "{selection:?} after {cursor}");
        let resume = in_time(log.resume(From::Last(*count), None, selection)).await.expect("it is readable");
        let before =
            wanted.iter().rev().nth((*count as usize).wrapping_sub(1)).map_or(trimmed, |seq| seq - 1);
        let is_all = selection.is_all();
        if *count > 0 && !is_all {
            assert_eq!(resume.cursor, before, "{selection:?} last {count}");
        }
    }
}

proptest! {
    #![proptest_config(cases(10))]

    #[test]
    fn a_reader_of_few_is_given_what_a_look_at_every_event_gives(
        layout in layout(),
        selections in vec((selection(), any::<Index>(), 0..400_u64), 1..8),
        trim in any::<Index>(),
        lost in any::<Index>(),
        is_lagging in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let place = Place::new();
            let mut settings = place.settings();
            settings.window_bytes_max = 0;
            let (mut log, mut task) = open(settings.clone()).await;
            let mut other = other_process(&place.file()).await;
            fill(&log, &mut other, layout).await;
            if is_lagging {
                // As a crash leaves it, or a log of an earlier version: the index lags, and is filled in.
                close(log, task).await;
                sqlx::query("DELETE FROM blocks").execute(&mut other).await.expect("it is derived");
                sqlx::query("UPDATE meta SET indexed_seq = 0").execute(&mut other).await.expect("it is derived");
                (log, task) = open(settings.clone()).await;
            }
            check(&log, layout, 0, 0, &selections).await;
            let complete = (layout.events / BLOCK * BLOCK) as i64;
            in_time(async {
                while indexed(&mut other).await != (complete, complete) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            check(&log, layout, 0, 0, &selections).await;
            let through = trim.index(layout.events as usize + 1) as Seq;
            in_time(log.trim_through(through)).await.expect("the trim is taken");
            check(&log, layout, through, 0, &selections).await;
            let lost = lost.index(layout.events as usize) as Seq;
            let rare = crate::fixture::stream("rare");
            let request = TrimRequest { stream: Some(rare), before: Some(lost + 1), ..TrimRequest::default() };
            in_time(log.trim(&request)).await.expect("the trim is taken");
            check(&log, layout, through, lost, &selections).await;
            let oldest: Option<i64> =
                sqlx::query_scalar("SELECT min(block) FROM blocks").fetch_one(&mut other).await.expect("readable");
            assert!(oldest.is_none_or(|block| block as Seq >= through / BLOCK), "{oldest:?} is trimmed whole");
            close(log, task).await;
            assert_sound(&place.file()).await;
        });
    }
}
