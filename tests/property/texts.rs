//! A page of the table as one text is exactly the page that its rows make, whatever the file holds: line ends, control
//! characters and broken UTF-8 in any column, empty texts where NULL belongs, times in other zones, large data.

use crate::cases;
use crate::fixture::{Place, close, in_time, open, other_process};
use evertail::event::{Pattern, Selection, Seq};
use evertail::frames::{Format, Frames, PageBuilder};
use evertail::log::{ReaderOptions, Step};
use evertail::store::{self, PageLimits, Store};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sqlx::SqliteConnection;

/// One row of `log` as somebody wrote it, past every rule but those that the table itself holds.
#[derive(Clone, Debug)]
struct Row {
    stream: Vec<u8>,
    source: Vec<u8>,
    id: Option<Vec<u8>>,
    r#type: Vec<u8>,
    subject: Option<Vec<u8>>,
    time: Option<Vec<u8>>,
    traceparent: Option<Vec<u8>>,
    created_at: &'static str,
    data: Option<Vec<u8>>,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd: Vec<&[u8]> = vec![
        b"",
        b"=",
        b"=x",
        b"\"",
        b"\\",
        b"\n",
        b"\r",
        b"a\nb",
        b"\x1e",
        b"\x1f",
        b"a\x1fb",
        b"\0",
        b"\x01\x08\x0c\t\x7f",
        b"\xff",
        b"\xc3",
        b"a\xed\xa0\x80",
        "\u{2028}".as_bytes(),
        "\u{85}ü😀".as_bytes(),
    ];
    let plain: Vec<&[u8]> = vec![b"a", b"a.b", b"orders.eu", b"user.login", b"message", "ü.x".as_bytes()];
    prop_oneof![12 => select(plain), 1 => select(odd)].prop_map(<[u8]>::to_vec)
}

fn data() -> impl Strategy<Value = Option<Vec<u8>>> {
    let odd: Vec<&[u8]> = vec![
        b"",
        b"[1,\n2]",
        b"[1,\r\n2]\n",
        b"[\x1f1]",
        b"\x1e",
        b"not JSON",
        b"\"\xff\"",
        b"\n",
        b"[\t1]",
        b"\"\x00\"",
        b"1\n2\x1fa\x1f\x1f\x1fmessage\x1f\x1f\x1f\x1f2026-11-21T09:00:00.000000Z\x1f1",
    ];
    let plain: Vec<&[u8]> = vec![b"1", b"{\"a\":[1,null]}", b"\"x\\ny\"", b"\"\"", "\"ü\u{7f}\"".as_bytes()];
    let large = select(vec![100_usize, 16_383, 16_384, 16_385, 40_000]);
    prop_oneof![
        3 => Just(None),
        12 => select(plain).prop_map(|data| Some(data.to_vec())),
        1 => select(odd).prop_map(|data| Some(data.to_vec())),
        1 => large.prop_map(|bytes| Some([&b"\""[..], &vec![b'x'; bytes - 2], b"\""].concat())),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let created_at = prop_oneof![
        12 => select(vec!["2026-11-21T09:00:00.000001Z", "2028-02-29T23:59:59.999999Z", "2026-01-31T00:00:00.000000Z"]),
        1 => select(vec!["2026-11-21T10:00:00.0+01:00", "1969-12-31T23:59:59.000000Z", "2026-11-21t09:00:00.000000z"]),
    ];
    let optional = || prop_oneof![3 => Just(None), 1 => name().prop_map(Some)];
    let source = prop_oneof![4 => Just(Vec::new()), 1 => name()];
    (name(), source, optional(), name(), optional(), optional(), optional(), created_at, data()).prop_map(
        |(stream, source, id, r#type, subject, time, traceparent, created_at, data)| Row {
            stream,
            source,
            id,
            r#type,
            subject,
            time,
            traceparent,
            created_at,
            data,
        },
    )
}

fn options() -> impl Strategy<Value = ReaderOptions> {
    let streams = select(vec![&[][..], &[], &["a"], &["a.*", "orders.eu"], &["*"]]);
    let types = select(vec![&[][..], &[], &["message", "user.*"], &["ü.*"]]);
    let format = select(vec![
        Format::Lines,
        Format::Sse { as_message: false },
        Format::Sse { as_message: true },
        Format::SseData { as_message: false },
        Format::SseData { as_message: true },
        Format::SseCloudEvents { as_message: false },
        Format::SseCloudEvents { as_message: true },
        Format::CloudEventLines,
        Format::CloudEventItems,
    ]);
    let parse = |texts: &[&str]| texts.iter().filter_map(|text| Pattern::parse(text)).collect();
    let limit = prop_oneof![3 => Just(None), 1 => (1..40_u64).prop_map(Some)];
    (streams, types, format, limit, select(vec![1_usize, 300, 4_000, 64 << 10])).prop_map(
        move |(streams, types, format, limit, page_bytes_max)| ReaderOptions {
            selection: Selection { streams: parse(streams), types: parse(types), ..Selection::default() },
            format,
            through: None,
            until: None,
            limit,
            page_bytes_max,
        },
    )
}

async fn insert(connection: &mut SqliteConnection, row: &Row) {
    sqlx::query(
        "INSERT INTO log (seq, stream, source, id, type, subject, time, traceparent, created_at, data)
         SELECT coalesce(max(seq), 0) + 1, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT),
                CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), ?, CAST(? AS TEXT) FROM log",
    )
    .bind(row.stream.clone())
    .bind(row.source.clone())
    .bind(row.id.clone())
    .bind(row.r#type.clone())
    .bind(row.subject.clone())
    .bind(row.time.clone())
    .bind(row.traceparent.clone())
    .bind(row.created_at)
    .bind(row.data.clone())
    .execute(connection)
    .await
    .expect("the table takes the row");
}

/// What a reader with these options is given when every page is made of rows.
async fn by_rows(store: &Store, last_seq: Seq, after: Seq, options: &ReaderOptions) -> Vec<u8> {
    let (mut cursor, mut bytes, mut remaining) = (after, Vec::new(), options.limit.unwrap_or(u64::MAX));
    while cursor < last_seq && remaining > 0 {
        let limits = PageLimits { events_max: 7.min(remaining) as usize, bytes_max: 1 << 20 };
        let stored = store.page(cursor, last_seq, &options.selection, limits).await.expect("rows are total");
        let mut page =
            PageBuilder::new(cursor, &options.selection, options.format, 1 << 30, limits.events_max);
        page.add(&Frames::encode(&stored.events), last_seq);
        let page = page.finish(Some(stored.scanned_to));
        bytes.extend_from_slice(&page.bytes);
        (cursor, remaining) = (page.cursor, remaining - page.events as u64);
    }
    bytes
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_reader_of_the_table_is_given_exactly_what_its_rows_make(
        rows in vec(row(), 1..150),
        readers in vec((any::<prop::sample::Index>(), options()), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let place = Place::new();
            let mut settings = place.settings();
            settings.window_bytes_max = 0;
            let opened = store::open(&settings.store).await.expect("the file opens");
            let mut other = other_process(&place.file()).await;
            for row in &rows {
                insert(&mut other, row).await;
            }
            let mut expected = Vec::new();
            for (after, options) in &readers {
                let after = after.index(rows.len()) as Seq;
                expected.push((after, by_rows(&opened.store, rows.len() as Seq, after, options).await));
            }
            opened.store.close().await;
            opened.appender.close().await.expect("nothing is under way");
            drop(opened.lock);
            let (log, task) = open(settings).await;
            for ((_, options), (after, expected)) in readers.iter().zip(expected) {
                let mut reader = log.reader(after, options.clone());
                let mut bytes = Vec::new();
                while let Step::Page(page) = in_time(reader.next()).await.expect("rows are total") {
                    assert!(page.bytes.is_empty() || page.events > 0);
                    bytes.extend_from_slice(&page.bytes);
                }
                assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&expected), "{options:?}");
            }
            close(log, task).await;
        });
    }
}
