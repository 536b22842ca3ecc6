//! The queries of `docs/sqlite.md`, each run as it stands there, with the system's `sqlite3` on the file of a running server.

use crate::event_source::http_client;
use crate::server::{Launch, Place, complain, until};
use crate::table::open;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::path::Path;
use std::process::{Command, Output};

/// Fewer would mean that they are not found.
const QUERIES_MIN: usize = 20;

/// A log of May 2024, written into the tables while no server runs, since the server gives the time of today: 5,000 events of
/// `metrics` with one of `rare` among them, then a few of everything that the queries ask for.
const EVENTS_OF_2024: &str = r#"
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000)
    INSERT INTO log (seq, stream, type, created_at, data)
    SELECT n, iif(n = 700, 'rare', iif(n BETWEEN 101 AND 110, 'debug', 'metrics')), 'message',
           strftime('%Y-%m-%dT%H:%M:%f000Z', '2024-05-01 08:00:00', (n / 2) || ' seconds'), json_object('load', n % 7)
    FROM n;
    INSERT INTO log (seq, stream, source, id, type, subject, time, created_at, data) VALUES
    (5001, 'audits', '', NULL, 'user.login', NULL, NULL, '2024-05-01T09:00:00.000000Z', '{"actor":"alice","ip":"10.0.0.1"}'),
    (5002, 'audits', '', NULL, 'user.login', NULL, NULL, '2024-05-01T09:00:10.000000Z', '{"actor":"bob","ip":"10.0.0.2"}'),
    (5003, 'audits', '', NULL, 'user.logout', NULL, NULL, '2024-05-01T09:30:00.000000Z', '{"actor":"bob"}'),
    (5004, 'orders.eu', 'shop', 'o-1', 'order.made', 'order/1', '2024-05-01T09:50:00Z', '2024-05-01T10:00:00.000000Z',
     '{"total":99.5,"items":[{"sku":"a","count":2},{"sku":"b","count":1}]}'),
    (5005, 'orders.us', 'shop', 'o-2', 'order.made', 'order/2', '2024-05-01T10:00:01Z', '2024-05-01T10:00:02.000000Z',
     '{"total":10}'),
    (5006, 'orders.us', 'shop', 'o-3', 'order.made', 'order/3', '2024-05-01T10:00:03Z', '2024-05-01T10:00:03.000000Z',
     '{"total":20,"note":"it''s urgent"}'),
    (5007, 'orders.eu', 'shop', 'p-1', 'order.paid', 'order/1', '2024-05-01T11:00:00Z', '2024-05-01T11:00:00.000000Z', NULL),
    (5008, 'audits', '', NULL, 'user.login', NULL, NULL, '2024-05-01T15:00:00.000000Z', '{"actor":"alice","ip":null}'),
    (5009, 'notes', '', NULL, 'message', NULL, NULL, '2024-05-01T15:00:01.000000Z', json_quote(hex(zeroblob(2000)))),
    (5010, 'notes', '', NULL, 'message', NULL, NULL, '2024-05-01T15:00:02.000000Z', '"the last of 2024"');
    INSERT INTO ids (id, stream, source, seq) SELECT id, stream, source, seq FROM log WHERE id IS NOT NULL;
    INSERT INTO streams (name, first_seq, last_seq, events, bytes)
    SELECT stream, min(seq), max(seq), count(*), coalesce(sum(octet_length(data)), 0) FROM log GROUP BY stream;
"#;

/// The statements of the document that are to be looked up by people, with what stands above each.
fn queries() -> Vec<(String, String)> {
    let document = include_str!("../../docs/sqlite.md");
    let section = document.split("\n## ").find(|section| section.starts_with("Queries\n")).unwrap();
    let block = section.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    let query = |text: &str| {
        let (title, sql) = text.trim().split_once('\n').unwrap();
        (title.strip_prefix("-- ").unwrap().to_owned(), sql.to_owned())
    };
    block.split("\n\n").map(query).collect()
}

fn sqlite3(file: &Path, sql: &str) -> std::io::Result<Output> {
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-bail", "-readonly", "-header", "-csv", "-cmd", ".timeout 60000"]);
    command.arg(file).arg(sql).output()
}

/// The same whenever the test runs: times of today are hidden, those of 2024 are not.
fn without_today(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let cell = |cell: &str| {
            let is_time = |text: &str| {
                let digits =
                    |range| text.get(range).is_some_and(|d: &str| d.bytes().all(|b| b.is_ascii_digit()));
                digits(0..4)
                    && digits(5..7)
                    && digits(8..10)
                    && text[4..].starts_with('-')
                    && text[7..].starts_with('-')
            };
            let text = cell.trim_matches('"');
            if is_time(text) && !text.starts_with("2024") { "TODAY".to_owned() } else { cell.to_owned() }
        };
        line.split(',').map(cell).collect::<Vec<_>>().join(",")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_document_finds_what_it_says() {
    let place = Place::new();
    let file = place.file();
    let launch = Launch::new(&file);
    drop(launch.start().await);
    let mut past = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    sqlx::raw_sql(EVENTS_OF_2024).execute(&mut past).await.unwrap();
    past.close().await.unwrap();

    let server = launch.start().await;
    let http = http_client();
    let post = async |path: &str, body: &str| {
        let reply = http.post(format!("{}{path}", server.base)).body(body.to_owned()).send().await.unwrap();
        assert!(reply.status().is_success(), "{path}: {}", reply.text().await.unwrap());
    };
    let hold = http.put(format!("{}/admin/holds/audits/case-17", server.base)).body(r#"{"reason":"letter"}"#);
    assert!(hold.send().await.unwrap().status().is_success());
    post("/admin/trim", r#"{"stream":"debug","keep_events":4,"reason":"disk"}"#).await;
    post("/api/v1/orders.eu", r#"{"type":"order.paid","data":{"total":1}}"#).await;
    let mut connection = open(&file).await;
    until("the first block is in the index", async || {
        let query = sqlx::query_scalar::<_, i64>("SELECT indexed_seq FROM meta");
        query.fetch_one(&mut connection).await.unwrap() == 4_096
    })
    .await;

    let queries = queries();
    assert!(queries.len() >= QUERIES_MIN, "{}", queries.len());
    let mut shown = String::new();
    for (title, sql) in &queries {
        let output = match sqlite3(&file, sql) {
            Ok(output) => output,
            Err(error) => return complain(&format!("no sqlite3 here, so its queries were not run: {error}")),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{title}: {said}");
        let rows = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
        assert!(rows.lines().count() >= 2, "{title}: no rows\n{rows}");
        // How large a file is depends on more than what it holds.
        let rows =
            if title.starts_with("the file") { "file,free\n".to_owned() } else { without_today(&rows) };
        shown += &format!("# {title}\n{}\n\n", rows.trim_end());
    }
    insta::assert_snapshot!(shown);
}
