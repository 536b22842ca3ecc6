//! The backbone: any sequence of appends, foreign inserts, trims and restarts, with readers that join anywhere, lag,
//! leave and resume. Each gets exactly the events after its cursor that it wants, once, in order; what was trimmed
//! before it got there is told; the table is the model.

use crate::cases;
use crate::fixture::{Place, assert_sound, close, in_time, open, other_process, shown};
use crate::model::{Fate, Model, ModelReader, SPANS, STREAMS, Sketch, TYPES};
use evertail::event::{Content, Event, Pattern, Selection, Seq, StreamName, Timestamp};
use evertail::frames::Format;
use evertail::log::{
    Append, Bounds, From, Log, LogTask, Reader, ReaderOptions, Step, TrimReport, TrimRequest,
};
use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sqlx::{Connection, SqliteConnection};

#[derive(Clone, Debug)]
enum Operation {
    /// These requests at once.
    Append(Vec<Request>),
    /// One transaction of another process.
    Foreign {
        rows: Vec<Sketch>,
        is_committed: bool,
    },
    /// Ends one of the streams.
    Close(usize),
    /// Waits until everything stored is shown.
    Settle,
    Trim(Index),
    TrimAll,
    TrimStream {
        stream: usize,
        through: Index,
    },
    /// Holds a stream, or releases it.
    Hold(usize),
    Reopen {
        window_bytes_max: usize,
    },
    Join {
        start: Start,
        options: Wishes,
    },
    /// So many steps of one reader; the others lag.
    Read {
        reader: Index,
        steps: usize,
    },
    /// One reader's connection drops, and it comes back with its cursor.
    Rejoin {
        reader: Index,
    },
    Leave {
        reader: Index,
    },
    CheckTable,
}

#[derive(Clone, Debug)]
struct Request {
    events: Vec<Sketch>,
    /// A stream or the whole log, and how far the condition is from what holds before the operation.
    condition: Option<(Option<usize>, Seq)>,
}

#[derive(Clone, Debug)]
enum Start {
    Now,
    Zero,
    BeforeLast,
    Last,
    BeyondLast,
    After(Index),
    Since(Index, i64),
    Newest(u64),
}

#[derive(Clone, Debug)]
struct Wishes {
    selection: Selection,
    format: Format,
    through: Option<Index>,
    limit: Option<u64>,
    page_bytes_max: usize,
}

#[derive(Clone, Debug)]
struct Setup {
    window_bytes_max: usize,
    read_connections: u32,
    catch_up_pages_max: usize,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let id = prop_oneof![
        3 => Just(None),
        2 => (0..6_u8, prop_oneof![6 => Just(0_u8), 1 => 1..5_u8]).prop_map(Some),
    ];
    let data = prop_oneof![8 => 0..6_usize, 1 => 6..40_usize];
    let source = prop_oneof![4 => Just(0_usize), 1 => Just(1)];
    let traceparent = prop_oneof![3 => Just(0_usize), 1 => 1..SPANS.len()];
    (0..STREAMS.len(), source, id, 0..TYPES.len(), data, traceparent).prop_map(
        |(stream, source, id, r#type, data, traceparent)| Sketch {
            stream,
            source,
            id,
            r#type,
            data,
            traceparent,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let condition = (
        prop_oneof![Just(None), (0..STREAMS.len()).prop_map(Some)],
        prop_oneof![4 => Just(0), 1 => 1..3_u64],
    );
    let condition = prop_oneof![4 => Just(None), 1 => condition.prop_map(Some)];
    let events = prop_oneof![6 => vec(sketch(), 1), 3 => vec(sketch(), 0..6), 1 => vec(sketch(), 20..40)];
    (events, condition).prop_map(|(events, condition)| Request { events, condition })
}

fn patterns(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Pattern>> {
    let pattern = select(names).prop_map(|name| Pattern::parse(name).expect("it is a pattern"));
    prop_oneof![3 => Just(Vec::new()), 2 => vec(pattern, 1..3)]
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let selection = (
        patterns(&["a", "a.b", "a.*", "a.b.*", "orders.*", "none", "*"]),
        patterns(&["message", "user", "user.*", "ü.*", "none", "*"]),
    )
        .prop_map(|(streams, types)| Selection { streams, types, ..Selection::default() });
    let format =
        select(vec![Format::Lines, Format::Sse { as_message: false }, Format::Sse { as_message: true }]);
    let through = prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let limit = prop_oneof![4 => Just(None), 1 => (0..9_u64).prop_map(Some)];
    let page_bytes_max = select(vec![1, 150, 1_000, 64 << 10]);
    (selection, format, through, limit, page_bytes_max).prop_map(
        |(selection, format, through, limit, page_bytes_max)| Wishes {
            selection,
            format,
            through,
            limit,
            page_bytes_max,
        },
    )
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Now),
        Just(Start::Zero),
        Just(Start::BeforeLast),
        Just(Start::Last),
        Just(Start::BeyondLast),
        any::<Index>().prop_map(Start::After),
        (any::<Index>(), -1..2_i64).prop_map(|(event, microseconds)| Start::Since(event, microseconds)),
        (0..9_u64).prop_map(Start::Newest),
    ]
}

fn window_bytes_max() -> impl Strategy<Value = usize> {
    select(vec![0, 1, 700, 4_000, 1 << 20])
}

fn operation() -> impl Strategy<Value = Operation> {
    let reader = any::<Index>;
    prop_oneof![
        8 => vec(request(), 1..2).prop_map(Operation::Append),
        4 => vec(request(), 2..8).prop_map(Operation::Append),
        3 => (vec(sketch(), 1..5), prop_oneof![4 => Just(true), 1 => Just(false)])
            .prop_map(|(rows, is_committed)| Operation::Foreign { rows, is_committed }),
        // Some streams stay open in every case.
        1 => (2..STREAMS.len()).prop_map(Operation::Close),
        1 => Just(Operation::Settle),
        2 => any::<Index>().prop_map(Operation::Trim),
        1 => Just(Operation::TrimAll),
        3 => (0..STREAMS.len(), any::<Index>())
            .prop_map(|(stream, through)| Operation::TrimStream { stream, through }),
        1 => (1..STREAMS.len()).prop_map(Operation::Hold),
        1 => window_bytes_max().prop_map(|window_bytes_max| Operation::Reopen { window_bytes_max }),
        6 => (start(), wishes()).prop_map(|(start, options)| Operation::Join { start, options }),
        9 => (reader(), 1..5_usize).prop_map(|(reader, steps)| Operation::Read { reader, steps }),
        2 => reader().prop_map(|reader| Operation::Rejoin { reader }),
        1 => reader().prop_map(|reader| Operation::Leave { reader }),
        1 => Just(Operation::CheckTable),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    (window_bytes_max(), 1..3_u32, 1..3_usize).prop_map(
        |(window_bytes_max, read_connections, catch_up_pages_max)| Setup {
            window_bytes_max,
            read_connections,
            catch_up_pages_max,
        },
    )
}

/// The log under test with its model.
struct Run {
    place: Place,
    setup: Setup,
    log: Log,
    /// Taken only while the log is opened again.
    task: Option<LogTask>,
    other: SqliteConnection,
    model: Model,
    readers: Vec<(Reader, ModelReader)>,
}

async fn open_with(place: &Place, setup: &Setup) -> (Log, LogTask) {
    let mut settings = place.settings();
    settings.window_bytes_max = setup.window_bytes_max;
    settings.store.read_connections = setup.read_connections;
    settings.catch_up_pages_max = setup.catch_up_pages_max;
    open(settings).await
}

impl Run {
    async fn new(setup: Setup) -> Self {
        let place = Place::new();
        let (log, task) = open_with(&place, &setup).await;
        let other = other_process(&place.file()).await;
        Self { place, setup, log, task: Some(task), other, model: Model::default(), readers: Vec::new() }
    }

    async fn operate(&mut self, operation: Operation) {
        match operation {
            Operation::Append(requests) => self.append(&requests).await,
            Operation::Foreign { rows, is_committed } => self.foreign(&rows, is_committed).await,
            Operation::Settle => self.settle().await,
            Operation::Trim(through) => {
                self.trim(None, through.index(self.model.last() as usize + 3) as Seq).await;
            }
            Operation::TrimAll => self.trim(None, Seq::MAX).await,
            Operation::TrimStream { stream, through } => {
                let name = crate::fixture::stream(STREAMS[stream]);
                self.trim(Some(name), through.index(self.model.last() as usize + 3) as Seq).await;
            }
            Operation::Hold(stream) => self.hold(&crate::fixture::stream(STREAMS[stream])).await,
            Operation::Reopen { window_bytes_max } => self.reopen(window_bytes_max).await,
            Operation::Join { start, options } => self.join(&start, &options).await,
            Operation::Read { reader, steps } => {
                if let Some(at) = self.at(reader) {
                    self.read(at, steps).await;
                }
            }
            Operation::Rejoin { reader } => {
                if let Some(at) = self.at(reader) {
                    let (reader, model_reader) = self.readers.swap_remove(at);
                    assert_eq!(reader.cursor(), model_reader.cursor);
                    drop(reader);
                    self.rejoin(model_reader).await;
                }
            }
            Operation::Leave { reader } => {
                if let Some(at) = self.at(reader) {
                    drop(self.readers.swap_remove(at));
                }
            }
            Operation::Close(stream) => {
                let name = crate::fixture::stream(STREAMS[stream]);
                let receipt = in_time(self.log.close_stream(name.clone(), None, None)).await;
                self.model.close(&name, &receipt.expect("the stream closes"));
            }
            Operation::CheckTable => self.model.check_table(&mut self.other).await,
        }
    }

    fn at(&self, reader: Index) -> Option<usize> {
        (!self.readers.is_empty()).then(|| reader.index(self.readers.len()))
    }

    /// The queue keeps the order in which the requests are made, so the model may go one by one.
    async fn append(&mut self, requests: &[Request]) {
        let appends: Vec<Append> = requests
            .iter()
            .map(|request| Append {
                contents: request.events.iter().map(Sketch::content).collect(),
                expected: request.condition.map(|(stream, distance)| {
                    self.model.expected(stream.map(|stream| STREAMS[stream]), distance)
                }),
                ..Append::default()
            })
            .collect();
        let answers = in_time(join_all(appends.iter().map(|append| self.log.append(append.clone())))).await;
        for (append, answer) in appends.iter().zip(answers) {
            self.model.append(&append.contents, append.expected.as_ref(), answer);
        }
    }

    async fn foreign(&mut self, rows: &[Sketch], is_committed: bool) {
        let mut model = self.model.clone();
        sqlx::query("BEGIN").execute(&mut self.other).await.expect("no transaction is open");
        for content in rows.iter().map(Sketch::content) {
            let result = insert(&mut self.other, &content).await;
            match model.fate(&content) {
                Fate::Reuse(seq) => {
                    let error = result.expect_err("the id belongs to another event").to_string();
                    assert!(error.contains("already used"), "{error}, as {seq}");
                }
                Fate::Closed(seq) => {
                    let error = result.expect_err("the stream is closed").to_string();
                    assert!(error.contains("this stream is closed"), "{error}, with {seq}");
                }
                Fate::Repeat(_) => result.expect("a repeat is no error"),
                Fate::New => {
                    result.expect("the row keeps the rules");
                    let (seq, created_at): (i64, String) =
                        sqlx::query_as("SELECT seq, created_at FROM log ORDER BY seq DESC LIMIT 1")
                            .fetch_one(&mut self.other)
                            .await
                            .expect("there is a row");
                    model.push(content, Timestamp::parse(&created_at).expect("created_at is a time"));
                    assert_eq!(seq as Seq, model.last());
                }
            }
        }
        if is_committed {
            sqlx::query("COMMIT").execute(&mut self.other).await.expect("the lock is ours");
            self.model = model;
        } else {
            sqlx::query("ROLLBACK").execute(&mut self.other).await.expect("a transaction is open");
        }
    }

    async fn settle(&self) {
        let last = self.model.last();
        if last >= self.model.first() {
            shown(&self.log, last).await;
        }
        assert_eq!(self.log.bounds(), Bounds { first_seq: self.model.first(), last_seq: last });
    }

    async fn trim(&mut self, stream: Option<StreamName>, through: Seq) {
        let shown_before = self.log.bounds().last_seq;
        let before = Some(through.saturating_add(1));
        let request = TrimRequest { stream, before, reason: Some("why".into()), ..TrimRequest::default() };
        let plan = self.log.plan_trim(&request).await.expect("the table is readable");
        let report = in_time(self.log.trim(&request)).await.expect("the trim is taken");
        if shown_before == self.model.last() {
            let undone = |report: &TrimReport| TrimReport { streams: Default::default(), ..report.clone() };
            assert_eq!(undone(&plan), report, "what is done is what was planned");
        }
        let stream = request.stream.as_ref();
        let possible = shown_before..=self.model.last();
        let must_tell = self.model.trim(stream, through, possible, &report);
        if let (Some(stream), Some(through)) = (stream, report.through_seq) {
            for (_, reader) in &mut self.readers {
                reader.untold.insert(stream.clone(), through);
            }
        }
        if must_tell {
            let event = self.own_event("evertail.trimmed").await;
            let (data, subject) = (event.content.data.as_deref(), event.content.subject.as_deref());
            let data: serde_json::Value = serde_json::from_str(data.expect("it has data")).expect("JSON");
            assert_eq!((data["cause"].as_str(), data["reason"].as_str()), (Some("request"), Some("why")));
            assert_eq!(data["through_seq"].as_u64(), report.through_seq);
            assert!(data["events"].as_u64().expect("a count") <= report.events);
            assert_eq!(
                (data["stream"].as_str(), subject),
                (stream.map(|s| s.as_str()), data["stream"].as_str())
            );
        }
    }

    async fn hold(&mut self, name: &StreamName) {
        let is_held = self.model.is_held(name);
        if is_held {
            in_time(self.log.release(name.clone(), "case".into(), None)).await.expect("it is held");
        } else {
            let held = in_time(self.log.hold(name.clone(), "case".into(), "why".into())).await;
            assert!(held.expect("there is room").1, "it is new");
            let again = in_time(self.log.hold(name.clone(), "case".into(), "why".into())).await;
            assert!(!again.expect("the same is no error").1);
        }
        self.own_event(if is_held { "evertail.released" } else { "evertail.held" }).await;
        self.model.hold(name, !is_held);
    }

    /// The event that the server has just appended of its own accord.
    async fn own_event(&mut self, r#type: &str) -> Event {
        let event = self.log.event(self.model.last() + 1).await.expect("the table is readable");
        self.model.push_own(event, r#type).clone()
    }

    async fn reopen(&mut self, window_bytes_max: usize) {
        let readers: Vec<_> = self.readers.drain(..).map(|(_, model_reader)| model_reader).collect();
        self.setup.window_bytes_max = window_bytes_max;
        close(self.log.clone(), self.task.take().expect("the log is open")).await;
        let (log, task) = open_with(&self.place, &self.setup).await;
        (self.log, self.task) = (log, Some(task));
        assert_eq!(self.log.bounds(), Bounds { first_seq: self.model.first(), last_seq: self.model.last() });
        for reader in readers {
            self.rejoin(reader).await;
        }
    }

    async fn join(&mut self, start: &Start, wishes: &Wishes) {
        let last = self.log.bounds().last_seq;
        let event = |index: &Index| index.index(self.model.last() as usize + 1) as Seq;
        let from = match start {
            Start::Now => From::Now,
            Start::Zero => From::After(0),
            Start::BeforeLast => From::After(last.saturating_sub(1)),
            Start::Last => From::After(last),
            Start::BeyondLast => From::After(last + 1),
            Start::After(index) => From::After(event(index)),
            Start::Since(index, microseconds) => {
                let time = match event(index) {
                    0 => Timestamp::EPOCH,
                    seq => self.model.event(seq).created_at,
                };
                From::Since(Timestamp::from_microseconds(time.microseconds() + microseconds))
            }
            Start::Newest(count) => From::Last(*count),
        };
        let cursor = self.resume(from, &wishes.selection).await;
        let options = ReaderOptions {
            until: None,
            selection: wishes.selection.clone(),
            format: wishes.format,
            through: wishes.through.map(|through| through.index(self.model.last() as usize + 10) as Seq),
            limit: wishes.limit,
            page_bytes_max: wishes.page_bytes_max,
        };
        let mut reader = self.log.reader(cursor, options.clone());
        if !matches!(from, From::After(1..)) {
            reader.begin_here();
        }
        self.readers.push((reader, self.model.reader(from, cursor, options)));
    }

    async fn rejoin(&mut self, before: ModelReader) {
        let mut options = before.options;
        let cursor = self.resume(From::After(before.cursor), &options.selection).await;
        options.limit = options.limit.map(|_| before.remaining);
        let reader = self.log.reader(cursor, options.clone());
        // Told again of what it may have been told of before.
        self.readers.push((reader, self.model.reader(From::After(cursor.max(1)), cursor, options)));
    }

    async fn resume(&self, from: From, selection: &Selection) -> Seq {
        let shown_before = self.log.bounds().last_seq;
        let resume = self.log.resume(from, None, selection).await.expect("the table is readable");
        let shown_after = self.log.bounds().last_seq;
        let mut expected = (shown_before..=shown_after).map(|last| self.model.resume(from, selection, last));
        assert!(
            expected.any(|expected| expected == resume),
            "{from:?} {selection:?} is {resume:?} while {shown_before} to {shown_after} of {} are shown",
            self.model.last()
        );
        resume.cursor
    }

    /// Reads until so many steps are done, or nothing more comes now.
    async fn read(&mut self, at: usize, steps: usize) {
        let (reader, model_reader) = &mut self.readers[at];
        for _ in 0..steps {
            let shown_before = self.log.bounds().last_seq;
            let step = in_time(reader.next()).await.expect("the table is readable");
            self.model.step(model_reader, &step, shown_before..=self.model.last());
            assert_eq!(reader.cursor(), model_reader.cursor);
            match step {
                // Every other reader has read ahead when the next thing happens, a trim perhaps.
                Step::Gap(_) | Step::Page(_) if at.is_multiple_of(2) => in_time(reader.read_ahead()).await,
                Step::Gap(_) | Step::Page(_) => {}
                Step::CaughtUp | Step::End => break,
            }
        }
    }

    /// Everyone reads to the end, the tables are compared, and all of it once more after a restart.
    async fn finish(mut self) {
        for _ in 0..2 {
            self.settle().await;
            let start = Start::Zero;
            let selection = Selection::all();
            let options = Wishes {
                selection,
                format: Format::Lines,
                through: None,
                limit: None,
                page_bytes_max: 5_000,
            };
            self.join(&start, &options).await;
            for at in 0..self.readers.len() {
                self.read(at, usize::MAX).await;
            }
            self.model.check_table(&mut self.other).await;
            self.reopen(1_000).await;
        }
        self.readers.clear();
        close(self.log, self.task.expect("the log is open")).await;
        assert_sound(&self.place.file()).await;
        self.other.close().await.expect("nothing is under way");
    }
}

async fn insert(connection: &mut SqliteConnection, content: &Content) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO events (stream, source, id, type, subject, time, data, traceparent) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(content.stream.to_string())
    .bind((!content.source.is_empty()).then(|| content.source.clone()))
    .bind(content.id.clone())
    .bind(content.r#type.shared())
    .bind(content.subject.clone())
    .bind(content.time.clone())
    .bind(content.data.clone())
    .bind(content.traceparent.clone())
    .execute(connection)
    .await
    .map(drop)
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn readers_get_exactly_what_follows_their_cursor_and_the_table_is_the_model(
        setup in setup(),
        operations in vec(operation(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut run = Run::new(setup).await;
            for operation in operations {
                run.operate(operation).await;
            }
            run.finish().await;
        });
    }
}
