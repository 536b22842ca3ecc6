//! The rules of an event's texts stand twice, in `src/event/name.rs` and in the trigger of the view: the same inputs
//! go through both.

use crate::fixture::{Place, close, stored};
use evertail::event::{EventType, StreamName, check_id, check_subject, check_time, check_traceparent};
use sqlx::{AssertSqlSafe, SqliteConnection};

/// Whether the view takes a row with this text in this column.
async fn view_takes(connection: &mut SqliteConnection, column: &str, text: &str) -> bool {
    let sql = match column {
        "stream" => "INSERT INTO events (stream) VALUES (?)".to_owned(),
        _ => format!("INSERT INTO events (stream, {column}) VALUES ('a', ?)"),
    };
    sqlx::query("BEGIN").execute(&mut *connection).await.expect("no transaction is open");
    let result = sqlx::query(AssertSqlSafe(sql)).bind(text.to_owned()).execute(&mut *connection).await;
    sqlx::query("ROLLBACK").execute(&mut *connection).await.expect("a transaction is open");
    if let Err(error) = &result {
        assert!(error.to_string().contains("evertail: "), "{column} {text:?}: {error}");
    }
    result.is_ok()
}

fn names_takes(column: &str, text: &str) -> bool {
    match column {
        "stream" => StreamName::parse(text).and_then(|name| name.check_appendable()).is_ok(),
        "type" => EventType::parse(text).is_ok(),
        "id" => check_id(text).is_ok(),
        // An empty source is one that was not said.
        "source" => text.is_empty() || check_id(text).is_ok(),
        "subject" => check_subject(text).is_ok(),
        "time" => check_time(text).is_ok(),
        // The API makes one of version 00 of a later one, which a trigger is too short for.
        "traceparent" => check_traceparent(text).is_ok_and(|kept| *kept == *text),
        _ => unreachable!("{column}"),
    }
}

/// The inputs on which the two disagree, with what the view says.
async fn disagreements(columns: &[&'static str], texts: &[String]) -> Vec<(&'static str, String, bool)> {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    let mut found = Vec::new();
    for column in columns {
        for text in texts {
            let is_taken = view_takes(&mut other, column, text).await;
            if is_taken != names_takes(column, text) {
                found.push((*column, text.clone(), is_taken));
            }
        }
    }
    close(log, task).await;
    found
}

#[tokio::test]
async fn names_are_taken_by_the_view_exactly_if_the_api_takes_them() {
    let mut texts: Vec<String> = [
        "",
        "a",
        "0",
        "Z",
        "_",
        ".",
        "-",
        "a.b_c-d",
        "9.",
        ".9",
        "-a",
        "_a",
        "a b",
        " a",
        "a ",
        "a/b",
        "a\\b",
        "ä",
        "aä",
        "a*",
        "*",
        "?",
        "[",
        "]",
        "^",
        "a]",
        "a[b",
        "a^b",
        "'",
        "\"",
        "%",
        "NULL",
        "null",
        "events",
        "streams",
        "Events",
        "events.",
        "event",
        "evertail",
        "evertail.",
        "evertail.gap",
        "evertails",
        "evertail-x",
        "Evertail.gap",
        " evertail.gap",
        "error",
        "errors",
        "Error",
        "error ",
        "message",
        "Message",
        "user.login",
        "\u{A0}",
        "\u{AD}",
        "\u{2028}",
        "\u{FEFF}",
        "\u{FEFF}a",
        "\u{FFFD}",
        "\u{FFFF}",
        "😀",
        "e\u{301}",
        "\u{10FFFF}",
        "\u{E000}",
    ]
    .map(str::to_owned)
    .into();
    for character in (0..=0x20).chain(0x7E..=0xA1).filter_map(char::from_u32) {
        texts.extend([
            format!("{character}"),
            format!("a{character}b"),
            format!("a{character}"),
            format!("{character}a"),
        ]);
    }
    for length in [2, 127, 128, 129, 255, 256, 257, 512, 513, 1_025] {
        for character in ["a", "ä", "€", "😀"] {
            texts.push(character.repeat(length));
        }
        texts.push(format!("{}\0{}", "a".repeat(length / 2), "a".repeat(length - length / 2 - 1)));
    }
    let columns = ["stream", "type", "id", "source", "subject"];
    assert_eq!(disagreements(&columns, &texts).await, []);
}

#[tokio::test]
async fn control_characters_are_found_in_whichever_column_they_stand() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    for column in ["type", "id", "source", "subject"] {
        for (first, last) in [("", ""), ("a", "b")] {
            for control in ["\0", "\n", "\r", "\u{7F}", "\u{85}", "\u{9F}"] {
                assert!(
                    !view_takes(&mut other, column, &format!("{first}{control}{last}")).await,
                    "{column} {control:?}"
                );
            }
        }
    }
    close(log, task).await;
}

#[tokio::test]
async fn spans_are_taken_by_the_view_exactly_if_the_api_takes_them_as_they_are() {
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut texts: Vec<String> = ["", "00", "--", good].map(str::to_owned).to_vec();
    for at in 0..good.len() {
        for other in ["0", "f", "g", "A", "-", " ", "\0", "\n", "ä", "*", "]", "[", ""] {
            texts.push(format!("{}{other}{}", &good[..at], &good[at + 1..]));
        }
    }
    for (from, to) in [("0af7651916cd43dd8448eb211c80319c", 32), ("b7ad6b7169203331", 16)] {
        texts.push(good.replace(from, &"0".repeat(to)));
        texts.push(good.replace(from, &format!("{}1", "0".repeat(to - 1))));
    }
    for version in ["01", "fe", "ff"] {
        texts.push(good.replacen("00", version, 1));
    }
    texts.extend(["-", "-01", "0", "\0", "\0\0\0", "ä"].map(|more| format!("{good}{more}")));
    assert_eq!(disagreements(&["traceparent"], &texts).await, []);
}

#[tokio::test]
async fn times_are_taken_by_the_view_exactly_if_the_api_takes_them() {
    let texts = [
        "",
        "now",
        "yesterday",
        "1",
        "2026",
        "2026-11-21",
        "09:00:00",
        "2461366.5",
        "2026-11-21T09:00:00Z",
        "2026-11-21T09:00:00.1Z",
        "2026-11-21T09:00:00.123456789Z",
        "2026-11-21T09:00:00.1234567890123456789Z",
        "2026-11-21T09:00:00+00:00",
        "2026-11-21T09:00:00-00:00",
        "2026-11-21T09:00:00+01:00",
        "2026-11-21T09:00:00.5-03:30",
        "2026-11-21T09:00:00+14:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "9999-12-31T23:59:59.999999Z",
        "2024-02-29T00:00:00Z",
        "2026-12-31T23:59:59Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-11-21T25:00:00Z",
        "2026-11-21T09:60:00Z",
        "2026-11-21T09:00:61Z",
        "2026-11-21T09:00:00",
        "2026-11-21T09:00Z",
        "2026-11-21 09:00:00",
        "20261121T090000Z",
        "2026-11-21T09:00:00+01",
        "2026-11-21T09:00:00+0100",
        "2026-11-21T09:00:00+1:00",
        "2026-11-21T09:00:00.Z",
        " 2026-11-21T09:00:00Z",
        "2026-11-21T09:00:00Z ",
        "2026-11-21T09:00:00ZZ",
        "2026-11-21T09:00:00Z+01:00",
        "12026-11-21T09:00:00Z",
        "-2026-11-21T09:00:00Z",
        "2026-11-21T09:00:00,5Z",
        "٢٠٢٦-11-21T09:00:00Z",
    ]
    .map(str::to_owned);
    assert_eq!(disagreements(&["time"], &texts).await, []);
}

/// Days and hours that do not exist, no zone, a zone after white space, a NUL.
#[tokio::test]
async fn view_takes_no_time_that_the_api_refuses() {
    let texts = [
        "2026-02-29T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T09:00:00.5",
        "2026-11-21T09:00:00.123456",
        "2026-11-21T09:00:00 Z",
        "2026-11-21T09:00:00 +01:00",
        "2026-11-21T09:00:00.5\n+01:00",
        "2026-11-21T09:00:00Z\0",
        "2026-11-21T09:00:00Z\0Z",
        "2026-11-21T09:00:00-24:00",
    ]
    .map(str::to_owned);
    assert_eq!(disagreements(&["time"], &texts).await, []);
}

/// A leap second, wide zones, lower case, a space for the T.
#[tokio::test]
async fn view_takes_every_time_that_the_api_takes() {
    let texts = [
        "2026-12-31T23:59:60Z",
        "2026-11-21T09:00:00+14:30",
        "2026-11-21T09:00:00+23:59",
        "2026-11-21t09:00:00z",
        "2026-11-21T09:00:00z",
        "2026-11-21 09:00:00Z",
    ]
    .map(str::to_owned);
    assert_eq!(disagreements(&["time"], &texts).await, []);
}

#[tokio::test]
async fn data_is_taken_by_the_view_only_as_json_and_stored_on_one_line() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    let mut expected = Vec::new();
    for (sql, data) in [
        ("NULL", None),
        ("'null'", Some("null")),
        ("1", Some("1")),
        ("1.5", Some("1.5")),
        ("' { \"b\" : [ 1.50 , 1e2 ] ,\r\n\"a\" : \"x  y\" } '", Some("{\"b\":[1.50,1e2],\"a\":\"x  y\"}")),
        ("'12345678901234567890123'", Some("12345678901234567890123")),
        ("'\"\\u00e4\\n\"'", Some("\"\\u00e4\\n\"")),
        ("json_quote('a' || char(10) || 'b')", Some("\"a\\nb\"")),
        ("json_object('a', 1)", Some("{\"a\":1}")),
    ] {
        sqlx::query(AssertSqlSafe(format!("INSERT INTO events (stream, data) VALUES ('a', {sql})")))
            .execute(&mut other)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        expected.push(data.map(str::to_owned));
    }
    let rows = stored(&mut other).await;
    let data: Vec<_> = rows.iter().map(|row| row.content.data.as_deref().map(str::to_owned)).collect();
    assert_eq!(data, expected);
    for sql in [
        "''",
        "'text'",
        "'{a:1}'",
        "'{\"a\":1'",
        "'1 2'",
        "'[1,]'",
        "'0x10'",
        "'NaN'",
        "x'31'",
        "jsonb('1')",
        "9e999",
        "'\"a' || char(10) || 'b\"'",
        "'// no' || char(10) || '1'",
    ] {
        let refused =
            sqlx::query(AssertSqlSafe(format!("INSERT INTO events (stream, data) VALUES ('a', {sql})")))
                .execute(&mut other)
                .await;
        assert!(refused.is_err(), "{sql}");
    }
    close(log, task).await;
}

#[tokio::test]
async fn data_with_a_nul_is_refused_and_not_cut() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    let refused = sqlx::query("INSERT INTO events (stream, data) VALUES ('a', '1' || char(0) || '2')")
        .execute(&mut other)
        .await;
    assert!(refused.is_err(), "stored as {:?}", stored(&mut other).await[0].content.data);
    close(log, task).await;
}

#[tokio::test]
async fn column_of_another_type_is_refused_and_not_converted() {
    let place = Place::new();
    let (log, task) = place.open().await;
    let mut other = place.other_process().await;
    for sql in [
        "(stream) VALUES (1)",
        "(stream) VALUES (x'61')",
        "(stream, id) VALUES ('a', 1)",
        "(stream, id) VALUES ('a', x'61')",
        "(stream, type) VALUES ('a', 1)",
        "(stream, type) VALUES ('a', x'61')",
        "(stream, source) VALUES ('a', 1)",
        "(stream, subject) VALUES ('a', 1.5)",
        "(stream, time) VALUES ('a', 2461366.5)",
        "(stream, time) VALUES ('a', x'323032362D31312D32315430393A30303A30305A')",
        "(stream, traceparent) VALUES ('a', 1)",
        "(stream, traceparent) VALUES ('a', CAST('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' AS BLOB))",
        "(stream, seq) VALUES ('a', '1')",
        "(stream, seq) VALUES ('a', 1.5)",
    ] {
        let refused =
            sqlx::query(AssertSqlSafe(format!("INSERT INTO events {sql}"))).execute(&mut other).await;
        assert!(refused.is_err(), "{sql}");
    }
    close(log, task).await;
}
