//! The seam between catch-up and live, in real time: producers, another process and a trimmer at work on several
//! threads, while readers join, lag, leave and come back wherever it may hurt. Each is compared afterwards with what
//! was stored.

use crate::cases;
use crate::fixture::{
    Place, close, content, event_type, in_time, open, other_process, request, stored, stored_of,
};
use crate::model::{STREAMS, check_page};
use evertail::event::{Content, Event, Pattern, Selection, Seq, Timestamp};
use evertail::frames::{Format, Page};
use evertail::log::{From, Gap, Log, Reader, ReaderOptions, Reset, Step, TrimRequest};
use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Debug)]
struct Plan {
    threads: usize,
    window_bytes_max: usize,
    /// How many events each request of a producer has, and how many requests it makes at once.
    producers: Vec<Vec<(usize, usize)>>,
    /// How many rows each transaction of another process has.
    foreign: Vec<usize>,
    /// Trims when so many more events are shown, and leaves so many.
    trims: Option<(Seq, Seq)>,
    readers: Vec<PlannedReader>,
}

#[derive(Clone, Debug)]
struct PlannedReader {
    options: ReaderOptions,
    stints: Vec<Stint>,
}

/// One connection of a reader.
#[derive(Clone, Debug)]
struct Stint {
    /// Where the first begins; later ones come back with their cursor.
    start: Start,
    /// It joins when so many events are shown, so that the joining falls among the commits.
    joins_after: Seq,
    /// It leaves after so many steps; the last one stays to the end.
    steps: usize,
    /// After each step it lags until so many more events are shown.
    lag: Seq,
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Zero,
    /// Exactly at the seam, or beside it.
    Last,
    BeforeLast,
    BeyondLast,
    Now,
    /// So many events back: about where the window begins.
    Back(Seq),
}

/// What a reader was given.
#[derive(Debug)]
enum Given {
    Gap(Gap),
    Page {
        after: Seq,
        page: Page,
    },
    /// It came back, and was sent elsewhere.
    Moved(Seq),
}

/// What was stored, by whoever stored it.
#[derive(Default)]
struct Record {
    events: Mutex<BTreeMap<Seq, Event>>,
    trimmed: Mutex<BTreeSet<Seq>>,
    /// Up to where single streams were trimmed in the end.
    lost: Mutex<BTreeMap<String, Seq>>,
}

impl Record {
    fn add(&self, event: Event) {
        let earlier = self.events.lock().expect("no test panicked").insert(event.seq, event.clone());
        assert_eq!(earlier, None, "{event:?}");
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let requests = vec((select(vec![1_usize, 1, 1, 3, 17]), select(vec![1_usize, 1, 2, 5])), 30..80);
    (
        1..4_usize,
        select(vec![0, 1, 1_500, 6_000, 1 << 20]),
        vec(requests, 1..3),
        prop_oneof![Just(Vec::new()), vec(select(vec![1_usize, 2, 40]), 5..20)],
        prop_oneof![2 => Just(None), 3 => (1..60_u64, 0..50_u64).prop_map(Some)],
        vec(planned_reader(), 4..12),
    )
        .prop_map(|(threads, window_bytes_max, producers, foreign, trims, readers)| Plan {
            threads,
            window_bytes_max,
            producers,
            foreign,
            trims,
            readers,
        })
}

fn planned_reader() -> impl Strategy<Value = PlannedReader> {
    let start = prop_oneof![
        Just(Start::Zero),
        Just(Start::Last),
        Just(Start::BeforeLast),
        Just(Start::BeyondLast),
        Just(Start::Now),
        (1..60_u64).prop_map(Start::Back),
    ];
    let lag = prop_oneof![2 => Just(0), 1 => 1..40_u64];
    let stint = (start, 0..150_u64, 1..20_usize, lag).prop_map(|(start, joins_after, steps, lag)| Stint {
        start,
        joins_after,
        steps,
        lag,
    });
    let selection = select(vec![&[][..], &[], &["a"], &["a.*"], &["orders.*", "outbox"], &["none"]]);
    let format = select(vec![Format::Lines, Format::Sse { as_message: false }]);
    (vec(stint, 1..5), selection, format, select(vec![1, 400, 4_000, 64 << 10])).prop_map(
        |(stints, streams, format, page_bytes_max)| {
            let streams = streams.iter().filter_map(|text| Pattern::parse(text)).collect();
            let selection = Selection { streams, ..Selection::default() };
            let options =
                ReaderOptions { selection, format, through: None, until: None, limit: None, page_bytes_max };
            PlannedReader { options, stints }
        },
    )
}

/// Waits until this seq is shown, or all that ever will be.
async fn shown(log: &Log, seq: Seq, end: &watch::Receiver<Option<Seq>>) {
    let mut end = end.clone();
    if let Some(cursor) = seq.checked_sub(1) {
        let mut reader = crate::fixture::reader(log, cursor);
        tokio::select! {
            () = reader.wait() => {}
            _ = end.wait_for(Option::is_some) => {}
        }
    }
}

async fn produce(log: Log, number: usize, requests: Vec<(usize, usize)>, record: Arc<Record>) {
    for (n, (events, at_once)) in requests.into_iter().enumerate() {
        let bodies: Vec<Vec<Content>> = (0..at_once)
            .map(|which| (0..events).map(|index| numbered(number, n, which, index)).collect())
            .collect();
        let appends = bodies.iter().map(|contents| log.append(request(contents.clone())));
        for (contents, answer) in bodies.iter().zip(join_all(appends).await) {
            let receipts = answer.expect("the queue is long enough");
            let seqs: Vec<_> = receipts.iter().map(|receipt| receipt.seq).collect();
            assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a request is one run: {seqs:?}");
            read_own(&log, seqs[0]).await;
            for (content, receipt) in contents.iter().zip(receipts) {
                let created_at = receipt.created_at.expect("it is new");
                record.add(Event { seq: receipt.seq, created_at, content: content.clone() });
            }
        }
    }
}

fn numbered(producer: usize, n: usize, which: usize, index: usize) -> Content {
    let id = format!("{producer}/{n}/{which}/{index}");
    let mut content = content(
        STREAMS[(n + index) % STREAMS.len()],
        n.is_multiple_of(4).then_some(&*id),
        &format!("\"{id}{}\"", "x".repeat(n * 7 % 200)),
    );
    content.r#type = event_type(if n.is_multiple_of(3) { "message" } else { "user.login" });
    content
}

/// What is acked is there at once for whoever comes with the cursor before it.
async fn read_own(log: &Log, seq: Seq) {
    let mut reader = crate::fixture::reader(log, seq - 1);
    match reader.next().await.expect("the table is readable") {
        Step::Page(page) => assert!(page.bytes.starts_with(format!("{{\"seq\":{seq},").as_bytes())),
        Step::Gap(gap) => assert_eq!(gap.from, seq),
        step => panic!("{step:?} for {seq}, which was acked"),
    }
}

async fn insert_rows(file: PathBuf, transactions: Vec<usize>, record: Arc<Record>) {
    let mut other = other_process(&file).await;
    for (n, rows) in transactions.into_iter().enumerate() {
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut other)
            .await
            .expect("the writer's transactions are short");
        for row in 0..rows {
            let data = format!("[{n},{row}]");
            sqlx::query("INSERT INTO events (stream, data) VALUES ('outbox', ?)")
                .bind(data.clone())
                .execute(&mut other)
                .await
                .expect("the row keeps the rules");
            let (seq, created_at): (i64, String) =
                sqlx::query_as("SELECT seq, created_at FROM log ORDER BY seq DESC LIMIT 1")
                    .fetch_one(&mut other)
                    .await
                    .expect("there is a row");
            let created_at = Timestamp::parse(&created_at).expect("created_at is a time");
            record.add(Event { seq: seq as Seq, created_at, content: content("outbox", None, &data) });
        }
        sqlx::query("COMMIT").execute(&mut other).await.expect("the lock is ours");
    }
}

/// Trims the whole log and one of its streams by turns.
async fn trim(
    log: Log,
    (every, left): (Seq, Seq),
    file: PathBuf,
    record: Arc<Record>,
    end: watch::Receiver<Option<Seq>>,
) {
    let mut other = other_process(&file).await;
    for turn in 0.. {
        let next = log.bounds().last_seq + every;
        shown(&log, next, &end).await;
        let last = log.bounds().last_seq;
        let stream = (turn % 3 != 0).then(|| crate::fixture::stream(STREAMS[turn % 2]));
        let before = Some((last + 1).saturating_sub(left));
        let request = TrimRequest { stream: stream.clone(), before, ..TrimRequest::default() };
        let report = log.trim(&request).await.expect("the trim is taken");
        record.trimmed.lock().expect("no test panicked").insert(log.bounds().first_seq - 1);
        if let (Some(stream), Some(through)) = (stream, report.through_seq) {
            record.lost.lock().expect("no test panicked").insert(stream.to_string(), through);
        }
        if report.events > 0 {
            let told = stored_of(&mut other, "evertail").await;
            let mut events = record.events.lock().expect("no test panicked");
            for event in told {
                let before = events.insert(event.seq, event.clone());
                assert!(before.is_none_or(|before| before == event));
            }
        }
        if last < next {
            return;
        }
    }
}

async fn read(
    log: Log,
    planned: PlannedReader,
    file: PathBuf,
    end: watch::Receiver<Option<Seq>>,
) -> (ReaderOptions, Vec<Given>) {
    let PlannedReader { options, stints } = planned;
    let mut other = other_process(&file).await;
    let (mut cursor, mut given) = (None, Vec::new());
    let last_stint = stints.len() - 1;
    for (number, stint) in stints.into_iter().enumerate() {
        shown(&log, stint.joins_after, &end).await;
        let start = join(&log, stint.start, cursor, &options).await;
        given.push(Given::Moved(start));
        let mut reader = log.reader(start, options.clone());
        let mut steps = 0;
        while number == last_stint || steps < stint.steps {
            steps += 1;
            let after = reader.cursor();
            match reader.next().await.expect("the table is readable") {
                Step::Gap(gap) => given.push(Given::Gap(gap)),
                Step::Page(page) => {
                    let stored: i64 = sqlx::query_scalar(
                        "SELECT max(trimmed_seq, coalesce((SELECT max(seq) FROM log), 0)) FROM meta",
                    )
                    .fetch_one(&mut other)
                    .await
                    .expect("the table is readable");
                    assert!(page.cursor > after, "a reader stands still at {after}");
                    assert!(page.cursor <= stored as Seq, "{} is shown, {stored} is committed", page.cursor);
                    given.push(Given::Page { after, page });
                    reader.read_ahead().await;
                }
                Step::CaughtUp if is_over(&reader, &end) => break,
                Step::CaughtUp => wait(&mut reader, &end).await,
                Step::End => panic!("a reader without an end ended"),
            }
            shown(&log, (log.bounds().last_seq + stint.lag) * u64::from(stint.lag > 0), &end).await;
        }
        cursor = Some(reader.cursor());
    }
    (options, given)
}

fn is_over(reader: &Reader, end: &watch::Receiver<Option<Seq>>) -> bool {
    end.borrow().is_some_and(|last| last > 0 && reader.cursor() >= last)
}

async fn wait(reader: &mut Reader, end: &watch::Receiver<Option<Seq>>) {
    let mut end = end.clone();
    let cursor = reader.cursor();
    tokio::select! {
        () = reader.wait() => {}
        _ = end.wait_for(|end| end.is_some_and(|last| last > 0 && cursor >= last)) => {}
    }
}

/// The cursor with which a stint begins.
async fn join(log: &Log, start: Start, cursor: Option<Seq>, options: &ReaderOptions) -> Seq {
    let shown_before = log.bounds();
    let last = shown_before.last_seq;
    let from = match (cursor, start) {
        (Some(cursor), _) => From::After(cursor),
        (None, Start::Zero) => From::After(0),
        (None, Start::Last) => From::After(last),
        (None, Start::BeforeLast) => From::After(last.saturating_sub(1)),
        (None, Start::BeyondLast) => From::After(last + 1),
        (None, Start::Now) => From::Now,
        (None, Start::Back(events)) => From::After(last.saturating_sub(events)),
    };
    let resume = log.resume(from, None, &options.selection).await.expect("the table is readable");
    match from {
        From::After(0) => {
            assert!((shown_before.first_seq - 1..log.bounds().first_seq).contains(&resume.cursor))
        }
        // By now the seq may be there.
        From::After(cursor) if resume.reset.is_some() => {
            assert_eq!(resume.reset, Some(Reset::Ahead { cursor }));
            assert_eq!(resume.cursor + 1, cursor);
        }
        From::After(cursor) => assert_eq!(resume.cursor, cursor),
        _ => assert!((last..=log.bounds().last_seq).contains(&resume.cursor)),
    }
    resume.cursor
}

/// Everything that a reader was given follows its cursor without a hole, is what was stored, or was trimmed; and what was
/// trimmed of single streams is missing only after the reader was told.
fn check(
    options: &ReaderOptions,
    given: &[Given],
    events: &[Event],
    trimmed: &BTreeSet<Seq>,
    lost: &BTreeMap<String, Seq>,
) {
    let mut cursor = None;
    let mut told: BTreeMap<String, Seq> = BTreeMap::new();
    for given in given {
        match given {
            Given::Moved(start) => {
                let is_resumed = cursor.is_none_or(|cursor| cursor == *start || cursor == 0 && *start > 0);
                assert!(is_resumed, "a reader at {cursor:?} came back at {start}");
                cursor = Some(*start);
                told.clear();
            }
            Given::Gap(gap) if !gap.streams.is_empty() => {
                assert_eq!(Some(gap.from), cursor.map(|cursor| cursor + 1));
                for stream in &gap.streams {
                    assert!(lost.contains_key(stream), "{gap:?} of {lost:?}");
                    told.insert(stream.clone(), gap.to);
                }
            }
            Given::Gap(gap) => {
                assert_eq!(Some(gap.from), cursor.map(|cursor| cursor + 1));
                assert!(trimmed.contains(&gap.to), "{gap:?} of {trimmed:?}");
                assert!(gap.from <= gap.to);
                cursor = Some(gap.to);
            }
            Given::Page { after, page } => {
                assert_eq!(Some(*after), cursor);
                assert!(page.cursor > *after, "{page:?} after {after}");
                let seqs: BTreeSet<Seq> = seqs(page);
                let is_there = |event: &&Event| {
                    let stream = event.content.stream.as_str();
                    let may_be_missing = told.get(stream).is_some_and(|told| event.seq <= *told)
                        && lost.get(stream).is_some_and(|lost| event.seq <= *lost);
                    !may_be_missing || seqs.contains(&event.seq)
                };
                let events = &events[*after as usize..page.cursor as usize];
                let events: Vec<_> = events.iter().filter(is_there).cloned().collect();
                check_page(page, &events, options);
                cursor = Some(page.cursor);
            }
        }
    }
    assert_eq!(cursor, Some(events.len() as Seq), "a reader was not given everything");
}

/// The seqs of a page of lines or frames.
fn seqs(page: &Page) -> BTreeSet<Seq> {
    let text = std::str::from_utf8(&page.bytes).expect("frames are text");
    let rest = text.split("{\"seq\":").skip(1);
    rest.map(|rest| rest.split(',').next().expect("a number").parse().expect("a seq")).collect()
}

async fn run(plan: Plan) {
    let place = Place::new();
    let mut settings = place.settings();
    settings.window_bytes_max = plan.window_bytes_max;
    settings.queue_requests_max = 10_000;
    let (log, task) = open(settings).await;
    let record = Arc::new(Record::default());
    let (end, is_ended) = watch::channel(None);

    let mut producers = JoinSet::new();
    for (number, requests) in plan.producers.into_iter().enumerate() {
        producers.spawn(produce(log.clone(), number, requests, record.clone()));
    }
    producers.spawn(insert_rows(place.file(), plan.foreign, record.clone()));
    let mut readers = JoinSet::new();
    for planned in plan.readers {
        readers.spawn(read(log.clone(), planned, place.file(), is_ended.clone()));
    }
    let trimmer = plan
        .trims
        .map(|trims| tokio::spawn(trim(log.clone(), trims, place.file(), record.clone(), is_ended.clone())));

    in_time(producers.join_all()).await;
    // Whoever trims adds events as long as it trims.
    end.send_replace(Some(0));
    if let Some(trimmer) = trimmer {
        in_time(trimmer).await.expect("the trimmer ends well");
    }
    let last = record.events.lock().expect("no test panicked").len() as Seq;
    crate::fixture::shown(&log, last).await;
    end.send_replace(Some(last));
    let all_given = in_time(readers.join_all()).await;

    let events: Vec<Event> = record.events.lock().expect("no test panicked").values().cloned().collect();
    assert!(events.iter().map(|event| event.seq).eq(1..=last));
    assert!(events.is_sorted_by_key(|event| event.created_at));
    let bounds = log.bounds();
    assert_eq!(bounds.last_seq, last);
    let table = stored(&mut place.other_process().await).await;
    let lost = record.lost.lock().expect("no test panicked").clone();
    let is_kept = |event: &&Event| {
        let lost = lost.get(event.content.stream.as_str());
        event.seq >= bounds.first_seq && lost.is_none_or(|lost| event.seq > *lost)
    };
    assert_eq!(table, events.iter().filter(is_kept).cloned().collect::<Vec<_>>());
    let trimmed = record.trimmed.lock().expect("no test panicked").clone();
    for (options, given) in &all_given {
        check(options, given, &events, &trimmed, &lost);
    }
    close(log, task).await;
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn readers_that_come_and_go_among_the_commits_get_every_event_once(plan in plan()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(plan.threads)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(run(plan));
    }
}
