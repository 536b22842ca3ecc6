//! Reading: one path over the table and the recent window, which a reader cannot tell apart.

use crate::fixture::{
    Place, append, close, content, event_type, in_time, line, open, options, reader, start, stored, stream,
};
use evertail::event::{Pattern, Selection, Seq};
use evertail::frames::Format;
use evertail::log::{Log, LogTask, Reader, ReaderOptions, Step};
use futures_util::FutureExt;

/// Steps until nothing more comes now: the text of all pages, and how many they were.
async fn read_all(reader: &mut Reader) -> (String, usize) {
    let (mut text, mut pages) = (String::new(), 0);
    let mut cursor = reader.cursor();
    while let Step::Page(page) = in_time(reader.next()).await.expect("the table is readable") {
        assert!(page.cursor > cursor, "the reader stands still at {cursor}");
        cursor = page.cursor;
        text += std::str::from_utf8(&page.bytes).expect("JSON is text");
        pages += 1;
        in_time(reader.read_ahead()).await;
    }
    (text, pages)
}

async fn append_count(log: &Log, count: u64) {
    for n in 1..=count {
        append(log, [content("a", None, &n.to_string())]).await.expect("the event is stored");
    }
}

/// A log of so many events that were not appended one by one: `rare` at its ends, `a` between them.
async fn open_large(place: &Place, events: u64, window_bytes_max: usize) -> (Log, LogTask) {
    let (log, task) = place.open().await;
    close(log, task).await;
    let mut other = place.other_process().await;
    sqlx::query(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
         INSERT INTO log (seq, stream, created_at, data)
         SELECT n, iif(n IN (1, ?1), 'rare', 'a'), strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1e9 + n / 10, 'unixepoch'), n FROM n",
    )
    .bind(events as i64)
    .execute(&mut other)
    .await
    .expect("the rows are good");
    let mut settings = place.settings();
    settings.window_bytes_max = window_bytes_max;
    open(settings).await
}

#[tokio::test]
async fn reader_that_joins_at_any_cursor_gets_exactly_what_is_after_it() {
    for window_bytes_max in [0, 1, 1_500, 1 << 20] {
        for is_restarted in [false, true] {
            let place = Place::new();
            let mut settings = place.settings();
            settings.window_bytes_max = window_bytes_max;
            let (mut log, mut task) = open(settings.clone()).await;
            for _ in 0..7 {
                append(&log, vec![content("a", None, "1"); 3]).await.unwrap();
            }
            if is_restarted {
                close(log, task).await;
                (log, task) = open(settings).await;
            }
            let lines: Vec<_> = stored(&mut place.other_process().await).await.iter().map(line).collect();
            for cursor in 0..=21 {
                let (text, _) = read_all(&mut reader(&log, cursor as Seq)).await;
                assert_eq!(text, lines[cursor..].concat(), "{window_bytes_max} {is_restarted} {cursor}");
            }
            close(log, task).await;
        }
    }
}

#[tokio::test]
async fn reader_that_lags_still_gets_every_event() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.window_bytes_max = 2_000;
    let (log, task) = open(settings).await;
    let mut reader = log.reader(0, ReaderOptions { page_bytes_max: 300, ..options() });
    let mut text = String::new();
    for _ in 0..10 {
        let Step::Page(page) = reader.next().await.unwrap_or_else(|error| panic!("{error}")) else {
            append_count(&log, 30).await;
            continue;
        };
        text += std::str::from_utf8(&page.bytes).unwrap();
    }
    text += &read_all(&mut reader).await.0;
    let lines: String = stored(&mut place.other_process().await).await.iter().map(line).collect();
    assert!(!lines.is_empty());
    assert_eq!(text, lines);
    close(log, task).await;
}

/// After close no table can be read: what still comes is memory's.
#[tokio::test]
async fn recent_window_answers_from_its_floor_on_without_the_table() {
    for is_restarted in [false, true] {
        let place = Place::new();
        let (mut log, mut task) = place.open().await;
        append_count(&log, 3).await;
        if is_restarted {
            close(log, task).await;
            (log, task) = place.open().await;
        }
        let mut readers: Vec<_> = (0..=3).map(|cursor| reader(&log, cursor)).collect();
        close(log, task).await;
        for (cursor, reader) in readers.iter_mut().enumerate() {
            assert_eq!(read_all(reader).await.0.lines().count(), 3 - cursor, "{is_restarted}");
        }
    }
}

#[tokio::test]
async fn page_that_cannot_be_read_leaves_the_cursor_where_it_was() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.window_bytes_max = 0;
    let (log, task) = open(settings).await;
    append_count(&log, 3).await;
    let mut reader = reader(&log, 1);
    close(log, task).await;
    for _ in 0..2 {
        let error = in_time(reader.next()).await.unwrap_err();
        assert_eq!(error.to_string(), "the events after 1 could not be read");
        assert_eq!(reader.cursor(), 1);
    }
}

#[tokio::test]
async fn selection_means_the_same_in_memory_and_in_the_table() {
    let contents: Vec<_> = ["a", "a.b", "a.b.c", "a-b", "a0b", "ab", "b"]
        .iter()
        .flat_map(|name| {
            ["message", "user.login", "user", "user.", "users", "user/x", "ü.x"].map(|r#type| {
                let mut content = content(name, None, "1");
                content.r#type = event_type(r#type);
                content
            })
        })
        .collect();
    let patterns =
        |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect::<Vec<_>>();
    let mut counts = Vec::new();
    for window_bytes_max in [0, 1 << 20] {
        let place = Place::new();
        let mut settings = place.settings();
        settings.window_bytes_max = window_bytes_max;
        let (log, task) = open(settings).await;
        append(&log, contents.clone()).await.unwrap();
        let rows = stored(&mut place.other_process().await).await;
        for streams in [&[][..], &["a"], &["a.*"], &["*"], &["b", "a.b.*"], &["none"]] {
            for types in
                [&[][..], &["user"], &["user.*"], &["ü.*", "message"], &["*"], &["user.*", "user.login"]]
            {
                let selection =
                    Selection { streams: patterns(streams), types: patterns(types), ..Selection::default() };
                let is_wanted = |name: &str, texts: &[&str]| {
                    let is_meant = |text: &&str| match text.strip_suffix('*') {
                        Some(prefix) => name.starts_with(prefix),
                        None => name == *text,
                    };
                    texts.is_empty() || texts.iter().any(is_meant)
                };
                let expected: String = rows
                    .iter()
                    .filter(|row| is_wanted(row.content.stream.as_str(), streams))
                    .filter(|row| is_wanted(row.content.r#type.as_str(), types))
                    .map(line)
                    .collect();
                let mut reader = log.reader(0, ReaderOptions { selection, ..options() });
                let (text, _) = read_all(&mut reader).await;
                assert_eq!(text, expected, "{streams:?} {types:?}");
                assert_eq!(reader.cursor(), rows.len() as Seq);
                counts.push(text.lines().count());
            }
        }
        close(log, task).await;
    }
    assert!(counts.iter().any(|count| *count > 2) && counts.contains(&0));
}

#[tokio::test]
async fn limit_and_through_end_a_reader_exactly_there() {
    for window_bytes_max in [0, 1 << 20] {
        let place = Place::new();
        let mut settings = place.settings();
        settings.window_bytes_max = window_bytes_max;
        let (log, task) = open(settings).await;
        append_count(&log, 10).await;
        for cursor in 0..=10 {
            for (limit, through, events) in [
                (Some(0), None, 0),
                (Some(1), None, 1.min(10 - cursor)),
                (Some(4), None, 4.min(10 - cursor)),
                (None, Some(7), 7_u64.saturating_sub(cursor)),
                (Some(2), Some(7), 7_u64.saturating_sub(cursor).min(2)),
                (Some(9), Some(0), 0),
            ] {
                let mut reader = log.reader(cursor, ReaderOptions { limit, through, ..options() });
                let (text, _) = read_all(&mut reader).await;
                assert_eq!(text.lines().count() as u64, events, "{cursor} {limit:?} {through:?}");
                let is_over =
                    limit == Some(events) || through.is_some_and(|through| reader.cursor() >= through);
                let expected = if is_over { Step::End } else { Step::CaughtUp };
                assert_eq!(reader.next().await.unwrap(), expected, "{cursor} {limit:?} {through:?}");
            }
        }
        close(log, task).await;
    }
}

#[tokio::test]
async fn reader_through_a_seq_that_is_not_there_yet_waits_for_it() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append_count(&log, 2).await;
    let mut reader = log.reader(0, ReaderOptions { through: Some(3), ..options() });
    assert_eq!(read_all(&mut reader).await.0.lines().count(), 2);
    assert_eq!(reader.next().await.unwrap(), Step::CaughtUp);
    append(&log, [content("a", None, "3"), content("a", None, "4")]).await.unwrap();
    in_time(reader.wait()).await;
    assert_eq!(read_all(&mut reader).await.0.lines().count(), 1);
    assert_eq!(reader.next().await.unwrap(), Step::End);
    close(log, task).await;
}

#[tokio::test]
async fn page_ends_with_the_event_that_reaches_its_bytes() {
    for window_bytes_max in [0, 1 << 20] {
        let place = Place::new();
        let mut settings = place.settings();
        settings.window_bytes_max = window_bytes_max;
        let (log, task) = open(settings).await;
        append_count(&log, 8).await;
        append(&log, [content("a", None, &format!("\"{}\"", "x".repeat(10_000)))]).await.unwrap();
        append_count(&log, 8).await;
        for page_bytes_max in [1, 99, 100, 500, 20_000] {
            let mut reader = log.reader(0, ReaderOptions { page_bytes_max, ..options() });
            let mut events = 0;
            while let Step::Page(page) = reader.next().await.unwrap() {
                assert!(page.events > 0);
                events += page.events;
                let text = std::str::from_utf8(&page.bytes).unwrap();
                let last = text.lines().last().map_or(0, |line| line.len() + 1);
                assert!(text.len() - last < page_bytes_max, "{} of {page_bytes_max}", text.len());
            }
            assert_eq!(events, 17);
        }
        close(log, task).await;
    }
}

#[tokio::test]
async fn filtered_reader_gets_what_lies_behind_many_unwanted_rows() {
    let place = Place::new();
    let (log, task) = open_large(&place, 140_000, 0).await;
    let selection = Selection::stream(&stream("rare"));
    let mut reader = log.reader(0, ReaderOptions { selection, ..options() });
    let (text, pages) = read_all(&mut reader).await;
    let seqs: Vec<_> = text.lines().map(|line| line.split(['{', ',']).nth(1).unwrap()).collect();
    assert_eq!(seqs, ["\"seq\":1", "\"seq\":140000"]);
    assert_eq!((reader.cursor(), pages), (140_000, 3));
    close(log, task).await;
}

#[tokio::test]
async fn last_and_since_find_their_place_among_many_rows() {
    use evertail::event::Timestamp;
    use evertail::log::From;
    let place = Place::new();
    let (log, task) = open_large(&place, 140_000, 1 << 20).await;
    let rare = Selection::stream(&stream("rare"));
    let (all, none) = (Selection::all(), Selection::stream(&stream("none")));
    let at = |second: i64| Timestamp::from_microseconds((1_000_000_000 + second) * 1_000_000);
    for (from, selection, cursor) in [
        (From::Last(1), &rare, 139_999),
        (From::Last(2), &rare, 0),
        (From::Last(3), &rare, 0),
        (From::Last(1), &none, 0),
        (From::Last(70_000), &all, 70_000),
        (From::Since(at(0)), &all, 0),
        (From::Since(at(1)), &all, 9),
        (From::Since(at(6_999)), &rare, 69_989),
        (From::Since(at(14_000)), &rare, 139_999),
        (From::Since(at(14_001)), &rare, 140_000),
    ] {
        let resume = log.resume(from, None, selection).await.unwrap();
        assert_eq!((resume.cursor, resume.reset), (cursor, None), "{from:?} {selection:?}");
    }
    close(log, task).await;
}

#[tokio::test]
async fn stored_text_that_is_not_utf8_does_not_end_a_reader() {
    let place = Place::new();
    let (log, task) = place.open().await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    close(log, task).await;
    let mut other = place.other_process().await;
    for sql in [
        "INSERT INTO log (seq, stream, source, id, type, subject, time, created_at, data)
         SELECT 2, t, t, t, t, t, t, '2999-01-01T00:00:00.000000Z', '\"' || t || '\"'
         FROM (SELECT CAST(x'61ff62' AS TEXT) AS t)",
        "INSERT INTO events (stream, subject, data)
         VALUES ('a', CAST(x'ff' AS TEXT), '{\"a\":\"' || CAST(x'c3' AS TEXT) || '\"}')",
    ] {
        sqlx::query(sql).execute(&mut other).await.unwrap();
    }
    for window_bytes_max in [0, 1 << 20] {
        let mut settings = place.settings();
        settings.window_bytes_max = window_bytes_max;
        let (log, task) = open(settings).await;
        let seq = append(&log, [content("a", None, "4")]).await.unwrap()[0].seq;
        for format in
            [Format::Lines, Format::Sse { as_message: false }, Format::SseData { as_message: false }]
        {
            let mut reader = log.reader(0, ReaderOptions { format, ..options() });
            let (text, _) = read_all(&mut reader).await;
            assert_eq!(reader.cursor(), seq);
            assert!(text.contains('\u{FFFD}'), "{text}");
            if format == Format::Lines {
                for line in text.lines() {
                    serde_json::from_str::<serde_json::Value>(line)
                        .unwrap_or_else(|error| panic!("{line}: {error}"));
                }
                assert_eq!(text.lines().count() as u64, seq);
            }
        }
        assert!(log.event(2).await.unwrap().is_some());
        close(log, task).await;
    }
}

#[tokio::test]
async fn damaged_row_is_named_and_the_reader_keeps_its_cursor() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.window_bytes_max = 0;
    let (log, task) = open(settings.clone()).await;
    append_count(&log, 1).await;
    close(log, task).await;
    let mut other = place.other_process().await;
    sqlx::query("INSERT INTO log (seq, stream, created_at) VALUES (2, 'a', '2026-11-21 09:00:00 ......Z'), (3, 'a', '2999-01-01T00:00:00.000000Z')")
        .execute(&mut other)
        .await
        .unwrap();
    let (log, task) = open(settings).await;
    let mut reader = log.reader(0, ReaderOptions { page_bytes_max: 1, ..options() });
    assert!(matches!(reader.next().await, Ok(Step::Page(_))));
    let error = reader.next().await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("event 2 "), "{error:?}");
    assert_eq!(reader.cursor(), 1);
    close(log, task).await;
}

#[tokio::test]
async fn readers_of_history_that_share_a_permit_wait_for_each_other_and_nobody_else_does() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.window_bytes_max = 0;
    let (log, task) = open(settings).await;
    append(&log, [content("a", None, "1")]).await.unwrap();
    let share = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
    let held = share.clone().acquire_owned().await.unwrap();
    let (mut sharing, mut other) = (reader(&log, 0), reader(&log, 0));
    sharing.share_history(share);
    let mut waits = start(sharing.next());
    assert!(matches!(in_time(other.next()).await.unwrap(), Step::Page(page) if page.events == 1));
    assert!((&mut waits).now_or_never().is_none());
    drop(held);
    assert!(matches!(in_time(&mut waits).await.unwrap(), Step::Page(page) if page.events == 1));
    drop(waits);
    close(log, task).await;
}
