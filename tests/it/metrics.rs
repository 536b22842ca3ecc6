//! `/metrics`: each metric moves for its reason and for no other, and is declared as it is documented.

use crate::server::{Reply, Server, within};
use crate::stream::Stream;
use evertail::auth::AuthSettings;
use evertail::event::Retention;
use evertail::http::{Closing, LimitSettings, all_metrics};
use evertail::metrics::{Declaration, Kind, samples};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

/// What was scraped: values by series, written as `name` or `name{value}`.
type Scraped = BTreeMap<String, f64>;

impl Server {
    async fn scrape(&self) -> Scraped {
        let reply = Reply::of(self.get("/metrics")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        let text = reply.text();
        let series = |name: &str, label: Option<&str>| match label {
            Some(label) => format!("{name}{{{label}}}"),
            None => name.to_owned(),
        };
        samples(&text).map(|sample| (series(sample.name, sample.label), sample.value)).collect()
    }

    /// Waits until what is scraped is so.
    async fn until(&self, what: &str, is_so: impl Fn(&Scraped) -> bool) -> Scraped {
        within(what, async {
            loop {
                let scraped = self.scrape().await;
                if is_so(&scraped) {
                    return scraped;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

fn of(scraped: &Scraped, series: &str) -> f64 {
    let short = format!("evertail_{series}");
    *scraped.get(&short).or_else(|| scraped.get(series)).unwrap_or_else(|| panic!("{series} was not scraped"))
}

/// What moved from one scrape to the next, of series with this beginning.
fn moved(before: &Scraped, after: &Scraped, beginning: &str) -> Vec<(String, f64)> {
    let beginning = format!("evertail_{beginning}");
    let of_it = after.iter().filter(|(series, _)| series.starts_with(&beginning));
    let difference =
        of_it.map(|(series, value)| (series.clone(), value - before.get(series).unwrap_or(&0.0)));
    difference.filter(|(_, difference)| *difference != 0.0).collect()
}

#[test]
fn metrics_are_declared_with_what_they_mean() {
    let line = |Declaration { name, help, kind, label }: Declaration| {
        let label = label.map_or(String::new(), |(name, values)| format!(" {name}={}", values.join("|")));
        format!("{name} {}{label}\n  {help}\n", kind.as_str())
    };
    insta::assert_snapshot!(all_metrics().into_iter().map(line).collect::<String>());
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for Declaration { name, help, kind, .. } in all_metrics() {
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("evertail_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        assert!(help.ends_with('.') && help.chars().next().unwrap().is_uppercase(), "{name}: {help}");
        for unit in ["milliseconds", "microseconds", "_ms", "_kib", "_mb", "_percent"] {
            assert!(!name.contains(unit), "{name} is not in a base unit");
        }
    }
}

#[tokio::test]
async fn what_is_scraped_is_what_is_declared() {
    let server = Server::start_with(|settings| {
        settings.log.retention.log =
            Retention { events: Some(9), bytes: Some(9), age: Some(Duration::from_secs(9)) };
    })
    .await;
    server.append("a", "{}").await;
    let reply = Reply::of(server.get("/metrics")).await;
    let text = reply.text();
    let told = |word: &str| {
        let lines =
            text.lines().filter_map(move |line| line.strip_prefix(&format!("# {word} ")).map(str::to_owned));
        lines.collect::<BTreeSet<_>>()
    };
    let declared: BTreeSet<String> =
        all_metrics().iter().map(|m| format!("{} {}", m.name, m.kind.as_str())).collect();
    assert_eq!(told("TYPE"), declared);
    assert_eq!(told("HELP"), all_metrics().iter().map(|m| format!("{} {}", m.name, m.help)).collect());
    let scraped = server.scrape().await;
    for Declaration { name, kind, label, .. } in all_metrics() {
        let series: Vec<String> = match (kind, label) {
            (Kind::Histogram, _) => {
                ["_bucket{+Inf}", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec()
            }
            (_, Some((_, values))) => values.iter().map(|value| format!("{name}{{{value}}}")).collect(),
            (_, None) if name == "evertail_build_info" => {
                vec![format!("{name}{{{}}}", env!("CARGO_PKG_VERSION"))]
            }
            (_, None) => vec![name.to_owned()],
        };
        for series in series {
            assert!(scraped.contains_key(&series), "{series}");
        }
    }
    assert_eq!(of(&scraped, "retention_events"), 9.0);
    assert_eq!(of(&scraped, "retention_bytes"), 9.0);
    assert_eq!(of(&scraped, "retention_age_seconds"), 9.0);
    assert_eq!(Reply::of(server.head("/metrics")).await.status, 200);
    let refused = Reply::of(server.request("POST", "/metrics")).await;
    refused.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn appends_are_counted_once_they_are_acked() {
    let server = Server::start().await;
    let before = server.scrape().await;
    assert_eq!((of(&before, "first_seq"), of(&before, "last_seq")), (1.0, 0.0));
    assert!(!before.contains_key("evertail_last_event_timestamp_seconds"), "there is no event");
    server.append("a", r#"{"id":"1","data":"12345678"}"#).await;
    server.append("a", r#"[{"data":1},{"data":2}]"#).await;
    let repeat = server.post("/api/v1/a", "application/json", r#"{"id":"1","data":"12345678"}"#);
    assert_eq!(Reply::of(repeat).await.status, 200);
    let after = server.scrape().await;
    for (series, value) in [
        ("append_seconds_count", 3.0),
        ("appended_events_total", 3.0),
        ("appended_bytes_total", 12.0),
        ("repeated_events_total", 1.0),
        ("noticed_events_total", 0.0),
        ("commit_seconds_count", 2.0),
        ("fsync_seconds_count", 2.0),
        ("batch_events_count", 2.0),
        ("batch_events_sum", 3.0),
        ("batch_events_bucket{1}", 1.0),
        ("batch_requests_sum", 2.0),
        ("retained_events", 3.0),
        ("retained_bytes", 12.0),
        ("first_seq", 1.0),
        ("last_seq", 3.0),
        ("queue_requests", 0.0),
        ("queue_bytes", 0.0),
        ("queue_age_seconds", 0.0),
        ("queue_requests_max", 4096.0),
        ("queue_bytes_max", (64 << 20) as f64),
        ("window_bytes_max", (1 << 20) as f64),
        ("disk_free_bytes_min", 0.0),
        ("log_open", 1.0),
    ] {
        assert_eq!(of(&after, series), value, "{series}");
    }
    // An ack takes longer than its commit, and a commit longer than its fsync.
    let sums = ["append", "commit", "fsync"].map(|what| of(&after, &format!("{what}_seconds_sum")));
    assert!(sums[0] >= sums[1] && sums[1] >= sums[2] && sums[2] > 0.0, "{sums:?}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    for series in ["last_event_timestamp_seconds", "last_checkpoint_timestamp_seconds"] {
        assert!((now - 60.0..now + 1.0).contains(&of(&after, series)), "{series}");
    }
    let (file, wal) = (of(&after, "file_bytes"), of(&after, "wal_bytes"));
    assert!(file >= 8192.0 && wal > of(&before, "wal_bytes"), "{file} {wal}");
    assert!(of(&after, "disk_free_bytes") > 0.0 && of(&after, "window_bytes") > 12.0);
}

#[tokio::test]
async fn events_of_other_processes_are_counted_apart() {
    use sqlx::ConnectOptions;
    let server = Server::start().await;
    let file = sqlx::sqlite::SqliteConnectOptions::new().filename(server.file());
    let mut other = file.connect().await.unwrap();
    sqlx::query("INSERT INTO events (stream, data) VALUES ('a', '7')").execute(&mut other).await.unwrap();
    let after = server.until("it is noticed", |scraped| of(scraped, "last_seq") == 1.0).await;
    assert_eq!(of(&after, "noticed_events_total"), 1.0);
    assert_eq!(of(&after, "appended_events_total"), 1.0);
    assert_eq!(of(&after, "append_seconds_count"), 0.0);
    assert_eq!(of(&after, "commit_seconds_count"), 0.0);
}

#[tokio::test]
async fn checkpoints_and_trims_are_counted_by_their_cause() {
    let server = Server::start_with(|settings| {
        settings.log.retention.log = Retention { bytes: Some(1 << 20), ..Retention::default() };
    })
    .await;
    let data = "x".repeat(200 << 10);
    let before = server.scrape().await;
    let batch = format!("[{}]", vec![format!("{{\"data\":\"{data}\"}}"); 16].join(","));
    for _ in 0..4 {
        server.append("a", &batch).await;
    }
    let is_trimmed = |scraped: &Scraped| of(scraped, "retained_bytes") <= (1 << 20) as f64;
    let after = server.until("retention trims", is_trimmed).await;
    let trimmed = of(&after, "trimmed_events_total{retention}");
    assert!(trimmed >= 59.0, "{trimmed}");
    // What is retained is what came less what went, the events that tell of it included.
    for what in ["events", "bytes"] {
        server
            .until("what is retained adds up", |scraped| {
                let gone = of(scraped, &format!("trimmed_{what}_total{{retention}}"));
                gone > 0.0
                    && of(scraped, &format!("retained_{what}"))
                        == of(scraped, &format!("appended_{what}_total")) - gone
            })
            .await;
    }
    assert_eq!(of(&after, "trimmed_events_total{request}"), 0.0);
    let after = server.until("a checkpoint", |scraped| of(scraped, "checkpoint_seconds_count") > 0.0).await;
    let (old, new) = ("last_checkpoint_timestamp_seconds", of(&after, "last_checkpoint_timestamp_seconds"));
    assert!(new > of(&before, old));
    let last = of(&after, "last_seq") as u64;
    server.trim(last - 1).await;
    let after = server.scrape().await;
    assert!(of(&after, "trimmed_events_total{request}") > 0.0);
    assert_eq!(of(&after, "retention_excess_events"), 0.0);
}

#[tokio::test]
async fn what_retention_may_not_trim_is_told() {
    let server = Server::start_with(|settings| {
        settings.log.retention.log = Retention { events: Some(1), ..Retention::default() };
    })
    .await;
    server.append("a", r#"[1,2,3,4]"#.replace(|c: char| c.is_ascii_digit(), "{}").as_str()).await;
    let after = server.until("excess", |scraped| of(scraped, "retention_excess_events") == 3.0).await;
    assert_eq!(of(&after, "retained_events"), 4.0, "less than a step of retention");
}

#[tokio::test]
async fn readers_say_where_they_are() {
    let server = Server::start_with(|settings| settings.log.window_bytes_max = 4 << 10).await;
    let readers = |scraped: &Scraped| [of(scraped, "readers{live}"), of(scraped, "readers{catch_up}")];
    assert_eq!(readers(&server.scrape().await), [0.0, 0.0]);
    let mut live = server.stream("/api/v1/a").await;
    live.cursor().await;
    let after = server.until("one is live", |scraped| readers(scraped) == [1.0, 0.0]).await;
    assert_eq!(of(&after, "reader_lag_events{100}"), 0.0);

    // One that is given its first page of many and does not take the rest.
    let data = "x".repeat(200 << 10);
    for _ in 0..40 {
        server.append("b", &format!("{{\"data\":\"{data}\"}}")).await;
    }
    let stuck = server.stream("/api/v1/b?after=0").await;
    let behind = |scraped: &Scraped| {
        // It has had a page by then, and no more than fits between it and the server.
        let worst = of(scraped, "reader_lag_events{100}");
        readers(scraped) == [1.0, 1.0]
            && of(scraped, "reader_lag_events{50}") == 0.0
            && worst > 0.0
            && worst < 40.0
    };
    let after = server.until("one catches up", behind).await;
    assert_eq!(of(&after, "reader_lag_events{99}"), of(&after, "reader_lag_events{100}"), "of two readers");
    drop((live, stuck));
    server.until("both have gone", |scraped| readers(scraped) == [0.0, 0.0]).await;
}

#[tokio::test]
async fn pages_are_counted_by_where_they_come_from() {
    let server = Server::start().await;
    for _ in 0..3 {
        server.append("a", "{}").await;
    }
    let read = async |server: &Server| {
        let before = server.scrape().await;
        let mut stream = server.stream("/api/v1/a?after=0&limit=3").await;
        while stream.event_or_end().await.is_some() {}
        let after =
            server.until("it is told", |scraped| moved(&before, scraped, "reader_events").len() == 1).await;
        moved(&before, &after, "reader_events").remove(0)
    };
    assert_eq!(read(&server).await, ("evertail_reader_events_total{window}".to_owned(), 3.0));
    let after = server.scrape().await;
    assert!(
        of(&after, "reader_pages_total{window}") >= 1.0 && of(&after, "reader_pages_total{table}") == 0.0
    );

    let server = Server::start_with(|settings| settings.log.window_bytes_max = 0).await;
    for _ in 0..3 {
        server.append("a", "{}").await;
    }
    assert_eq!(read(&server).await, ("evertail_reader_events_total{table}".to_owned(), 3.0));
    let after = server.scrape().await;
    assert!(
        of(&after, "reader_pages_total{table}") >= 1.0 && of(&after, "reader_pages_total{window}") == 0.0
    );
}

#[tokio::test]
async fn a_live_stream_that_falls_out_of_the_window_has_lagged() {
    let server = Server::start_with(|settings| settings.log.window_bytes_max = 1 << 10).await;
    let mut stream = server.stream("/api/v1/a").await;
    stream.cursor().await;
    server.append("a", "{}").await;
    assert_eq!(stream.event().await.last_event_id, "1");
    assert_eq!(of(&server.scrape().await, "reader_lagged_total"), 0.0);
    // More in one commit than the window holds.
    server.append("a", &format!("[{}]", vec!["{}"; 100].join(","))).await;
    while stream.event().await.last_event_id != "101" {}
    assert_eq!(of(&server.scrape().await, "reader_lagged_total"), 1.0);
}

#[tokio::test]
async fn what_is_sent_is_counted_to_the_byte() {
    let server = Server::start().await;
    for _ in 0..3 {
        server.append("a", "{}").await;
    }
    let mut stream = server.stream("/api/v1/a?after=0&limit=3").await;
    while stream.event_or_end().await.is_some() {}
    let bytes = stream.bytes.len() as f64;
    let is_sent = |scraped: &Scraped| of(scraped, "sent_bytes_total") == bytes;
    let after = server.until("it is counted", is_sent).await;
    assert_eq!(of(&after, "sent_frames_total"), 4.0, "the cursor and three events");
}

#[tokio::test]
async fn gaps_and_resets_are_counted_as_they_are_told() {
    let server = Server::start().await;
    for _ in 0..5 {
        server.append("a", "{}").await;
    }
    server.trim(3).await;
    server.stream_after("/api/v1/a", 4).await.cursor().await;
    let before = server.scrape().await;
    assert_eq!((of(&before, "gaps_told_total"), of(&before, "resets_told_total")), (0.0, 0.0));
    let mut stream = server.stream_after("/api/v1/a", 1).await;
    stream.cursor().await;
    stream.control("evertail.gap").await;
    let after = server.scrape().await;
    assert_eq!((of(&after, "gaps_told_total"), of(&after, "resets_told_total")), (1.0, 0.0));
    server.stream_after("/api/v1/a", 99).await.control("evertail.reset").await;
    let after = server.scrape().await;
    assert_eq!((of(&after, "gaps_told_total"), of(&after, "resets_told_total")), (1.0, 1.0));
}

#[tokio::test]
async fn refusals_are_counted_by_their_code() {
    let server = Server::start().await;
    let before = server.scrape().await;
    for _ in 0..2 {
        Reply::of(server.post("/api/v1/a", "application/json", "{")).await.problem(400, "json_invalid");
    }
    Reply::of(server.get("/nothing")).await.problem(404, "route_not_found");
    let after = server.scrape().await;
    let expected = [("json_invalid", 2.0), ("route_not_found", 1.0)]
        .map(|(code, count)| (format!("evertail_refusals_total{{{code}}}"), count));
    assert_eq!(moved(&before, &after, "refusals_total"), expected);
    assert_eq!(moved(&before, &after, "append"), []);
}

#[tokio::test]
async fn notices_are_counted_by_their_reason() {
    let server = Server::start_with(|settings| {
        settings.http.limits = LimitSettings {
            client_streams_max: Some(1),
            counts_this_machine: true,
            ..LimitSettings::default()
        };
    })
    .await;
    let mut open = server.stream("/api/v1/a").await;
    open.cursor().await;
    let event_source = server.get("/api/v1/a").header("accept", "text/event-stream");
    Stream::open(event_source).await.control("evertail.notice").await;
    let after = server.scrape().await;
    assert_eq!(of(&after, "notices_total{overloaded}"), 1.0);
    server.close(Closing::Drain);
    open.control("evertail.notice").await;
    let after = server.scrape().await;
    assert_eq!((of(&after, "notices_total{drain}"), of(&after, "notices_total{overloaded}")), (1.0, 1.0));
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let server = Server::start().await;
    let before = server.scrape().await;
    assert_eq!(of(&before, "connections_max"), 1000.0);
    let open = of(&before, "connections");
    assert!(open >= 1.0, "the one that scrapes");
    let mut stream = server.stream("/api/v1/a").await;
    stream.cursor().await;
    server.until("one more", |scraped| of(scraped, "connections") > open).await;
    drop(stream);
    server.until("as before", |scraped| of(scraped, "connections") == open).await;
}

#[tokio::test]
async fn the_queue_says_what_waits_and_since_when() {
    use sqlx::ConnectOptions;
    let server = Server::start().await;
    let file = sqlx::sqlite::SqliteConnectOptions::new().filename(server.file());
    let mut other = file.connect().await.unwrap();
    // The writer waits for this process, and the appends for the writer.
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let append = || server.post("/api/v1/a", "application/json", r#"{"data":"12345678"}"#).send();
    let ending = async {
        let waits = |scraped: &Scraped| {
            of(scraped, "queue_bytes") > 0.0
                && of(scraped, "queue_requests") >= 1.0
                && of(scraped, "queue_age_seconds") > 0.0
        };
        server.until("appends wait", waits).await;
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    };
    let (first, second, third, ()) =
        within("all ends", async { tokio::join!(append(), append(), append(), ending) }).await;
    for answer in [first, second, third] {
        assert_eq!(answer.unwrap().status(), 201);
    }
    let idle =
        |scraped: &Scraped| of(scraped, "queue_requests") == 0.0 && of(scraped, "queue_age_seconds") == 0.0;
    server.until("none waits", idle).await;
    assert_eq!(of(&server.scrape().await, "queue_bytes"), 0.0);
}

#[tokio::test]
async fn a_log_that_takes_no_appends_says_so() {
    let server = Server::start().await;
    server.log.close().await;
    server.until("it is closed", |scraped| of(scraped, "log_open") == 0.0).await;
}

#[tokio::test]
async fn scrapes_need_a_credential_where_one_is_needed() {
    let server = Server::start_with(|settings| {
        let audience = "evertail".to_owned();
        settings.auth = Some(AuthSettings { keys: None, issuer: None, audience, anonymous_read: vec![] });
    })
    .await;
    Reply::of(server.get("/metrics")).await.problem(401, "unauthorized");
}
