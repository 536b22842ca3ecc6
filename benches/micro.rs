//! What the parts of the hot paths cost, each by itself: a later change shows here what it makes slower.
//!
//! `cargo bench --bench micro`, or with `-- --test` to see only that each runs. The files lie in the folder for temporary
//! files; where that is memory, a commit has no fsync to wait for.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run says so by panicking")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evertail::event::{Content, Event, EventType, RetentionRules, Selection, Seq, StreamName, Timestamp};
use evertail::frames::{Format, Frames, PageBuilder, page_of_texts};
use evertail::http::{HttpSettings, LimitSettings, OriginSettings, parse_body};
use evertail::log::{Append, Log, LogSettings, ReaderOptions, Step};
use evertail::store::{self, Cause, Excess, Opened, PageLimits, StoreSettings};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Events of one page.
const PAGE_EVENTS: usize = 200;
const PAGE_BYTES_MAX: usize = 1 << 20;
const SSE: Format = Format::Sse { as_message: false };

fn content(n: Seq, id: Option<Seq>) -> Content {
    let mut content = Content::new(StreamName::parse(["audits", "orders", "notes"][n as usize % 3]).unwrap());
    content.r#type = EventType::parse(["message", "user.login"][n as usize % 2]).unwrap();
    content.id = id.map(|id| Arc::from(format!("01930000-{id:012}")));
    content.data = Some(Arc::from(format!("{{\"n\":{n:010},\"text\":\"{}\"}}", "x".repeat(174))));
    content
}

fn events(seqs: std::ops::Range<Seq>, has_ids: bool) -> Vec<Event> {
    // One batch has one time.
    let created_at = Timestamp::from_microseconds(1_800_000_000_000_000 + seqs.start as i64);
    let event = |seq: Seq| Event { seq, created_at, content: content(seq, has_ids.then_some(seq)) };
    seqs.map(event).collect()
}

/// A log file of its own, open.
struct Place {
    runtime: Runtime,
    opened: Opened,
    _folder: TempDir,
}

fn settings(folder: &TempDir) -> StoreSettings {
    StoreSettings {
        file: folder.path().join("log.db"),
        read_connections: 1,
        busy_timeout: Duration::from_secs(5),
        is_checkpointing: true,
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl Place {
    fn new() -> Self {
        let (runtime, folder) = (runtime(), TempDir::new().unwrap());
        let opened = runtime.block_on(store::open(&settings(&folder))).unwrap();
        Self { runtime, opened, _folder: folder }
    }

    fn with_events(count: Seq) -> Self {
        let mut place = Self::new();
        for first in (1..=count).step_by(1_000) {
            let events = events(first..(first + 1_000).min(count + 1), false);
            place.runtime.block_on(place.opened.appender.append(&events, &[])).unwrap();
        }
        place
    }
}

fn commit(criterion: &mut Criterion) {
    for has_ids in [false, true] {
        let name = if has_ids { "commit of a batch with rising ids" } else { "commit of a batch" };
        let mut group = criterion.benchmark_group(name);
        for batch in [1, 16, 256, 1_024] {
            let mut place = Place::new();
            let mut next = 1;
            group.throughput(Throughput::Elements(batch));
            group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
                bencher.iter_custom(|times| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..times {
                        let events = events(next..next + batch, has_ids);
                        next += batch;
                        let start = Instant::now();
                        place.runtime.block_on(place.opened.appender.append(&events, &[])).unwrap();
                        spent += start.elapsed();
                        // As the writer does after the ack, and not part of it.
                        place.runtime.block_on(place.opened.appender.checkpoint_if_due()).unwrap();
                    }
                    spent
                });
            });
        }
    }
}

/// What the writer does between appends, for a block of the index.
fn upkeep(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a block of 4,096 events");
    group.sample_size(10);
    // The blocks of a backlog are read back from the log; without one they were noted as they were appended.
    for (name, backlog) in [("index, noted", 0), ("index, read back", 40_960), ("trim", 40_960)] {
        let mut place = Place::with_events(backlog);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| keep_up(&mut place, name == "trim")).sum());
        });
    }
}

fn keep_up(place: &mut Place, is_trim: bool) -> Duration {
    let Place { runtime, opened, .. } = place;
    runtime.block_on(async {
        let appender = &mut opened.appender;
        let next = appender.log_state().await.unwrap().last_seq + 1;
        for first in (next..next + 4_096).step_by(1_024) {
            appender.append(&events(first..first + 1_024, false), &[]).await.unwrap();
        }
        let state = appender.log_state().await.unwrap();
        let start = Instant::now();
        if is_trim {
            let excess = Excess { through: state.trimmed_seq + 4_096, ..Excess::default() };
            while appender.trim_step(None, excess, Cause::Retention).await.unwrap().events > 0 {}
        } else {
            assert!(appender.index_block(state.last_seq, state.trimmed_seq).await.unwrap());
        }
        start.elapsed()
    })
}

fn table(criterion: &mut Criterion) {
    let place = Place::with_events(20_000);
    let store = &place.opened.store;
    let mut group = criterion.benchmark_group("page of the table");
    group.throughput(Throughput::Elements(PAGE_EVENTS as u64));
    let few = Selection::stream(&StreamName::parse("notes").unwrap());
    for (name, selection) in [("all, as a text", Selection::all()), ("a third, as a text", few)] {
        group.bench_function(name, |bencher| {
            let mut after = 0;
            bencher.iter(|| {
                let page = store.text_page(after, 20_000, &selection, PAGE_EVENTS);
                let page = place.runtime.block_on(page).unwrap().unwrap();
                after = (after + 997) % 15_000;
                page_of_texts(0, page.read(), SSE, PAGE_BYTES_MAX, PAGE_EVENTS)
            });
        });
    }
    group.bench_function("all, as rows", |bencher| {
        let limits = PageLimits { events_max: PAGE_EVENTS, bytes_max: PAGE_BYTES_MAX };
        let (all, mut after) = (Selection::all(), 0);
        bencher.iter(|| {
            let page = place.runtime.block_on(store.page(after, 20_000, &all, limits)).unwrap();
            after = (after + 997) % 15_000;
            Frames::encode(&page.events)
        });
    });
}

fn frames(criterion: &mut Criterion) {
    let events = events(1..1 + PAGE_EVENTS as Seq, false);
    let mut group = criterion.benchmark_group("frames");
    group.throughput(Throughput::Elements(PAGE_EVENTS as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| Frames::encode(black_box(&events))));
    let frames = Frames::encode(&events);
    let third = Selection::stream(&StreamName::parse("notes").unwrap());
    for (name, selection) in [("cut all", Selection::all()), ("cut a third", third)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut page = PageBuilder::new(0, &selection, SSE, PAGE_BYTES_MAX, usize::MAX);
                page.add(black_box(&frames), Seq::MAX);
                page.finish(None)
            });
        });
    }
}

/// The window as a reader meets it: a page of the newest events, and one event that has just come.
fn window(criterion: &mut Criterion) {
    let (runtime, folder) = (runtime(), TempDir::new().unwrap());
    let settings = LogSettings {
        store: settings(&folder),
        queue_requests_max: 16,
        queue_bytes_max: 64 << 20,
        window_bytes_max: 64 << 20,
        disk_free_bytes_min: 0,
        retention: RetentionRules::default(),
        catch_up_pages_max: 1,
        notice_interval: Duration::from_secs(1),
    };
    let (log, mut task) = runtime.block_on(Log::open(settings)).unwrap();
    let append = |count: Seq| {
        let contents = (0..count).map(|n| content(n, None)).collect();
        runtime.block_on(log.append(Append { contents, ..Append::default() })).unwrap();
    };
    append(1_000);
    let mut group = criterion.benchmark_group("window");
    let mut read = |name: &str, cursor: Seq| {
        let options = ReaderOptions {
            selection: Selection::all(),
            format: SSE,
            through: None,
            until: None,
            limit: None,
            page_bytes_max: 64 << 10,
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let step = runtime.block_on(log.reader(cursor, options.clone()).next()).unwrap();
                assert!(matches!(step, Step::Page(_)));
                step
            });
        });
    };
    read("read a page", 0);
    append(1);
    read("read one event", 1_000);
    group.finish();
    // Plan, commit, frames, window and ack.
    let mut group = criterion.benchmark_group("append through the log");
    for batch in [1, 1_000] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| bencher.iter(|| append(batch)));
    }
    group.finish();
    runtime.block_on(async {
        log.close().await;
        task.wait().await.unwrap();
    });
}

/// What a request asks for, from its bytes.
fn request(criterion: &mut Criterion) {
    let origins =
        OriginSettings { is_loopback: true, allowed_origins: Vec::new(), allowed_hosts: Vec::new() };
    let settings = HttpSettings {
        origins,
        limits: LimitSettings::default(),
        trusted_proxies: vec![],
        uri_bytes_max: 8 << 10,
        depth_max: 64,
        event_bytes_max: 1 << 20,
        batch_events_max: 10_000,
        batch_bytes_max: 16 << 20,
        body_timeout: Duration::from_secs(10),
        page_bytes_max: PAGE_BYTES_MAX,
        keep_alive: Duration::from_secs(15),
        retry: (Duration::ZERO, Duration::ZERO),
    };
    let stream = StreamName::parse("audits").unwrap();
    let line = format!("{{\"type\":\"user.login\",\"data\":{{\"text\":\"{}\"}}}}\n", "x".repeat(188));
    let mut group = criterion.benchmark_group("request body");
    for (content_type, lines) in [("application/json", 1), ("application/x-ndjson", 1_000)] {
        let body = line.repeat(lines);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(content_type, |bencher| {
            bencher
                .iter(|| parse_body(content_type, black_box(body.as_bytes()), &stream, &settings).unwrap());
        });
    }
}

criterion_group!(benches, commit, upkeep, table, frames, window, request);
criterion_main!(benches);
