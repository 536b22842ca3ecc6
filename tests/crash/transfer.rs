//! `evertail export` and `evertail import`: what goes out comes in again, the same and in the same order.

use crate::cli::{Running, command, json, run, server};
use crate::server::{Launch, Place, Server, lasting_port, until};
use crate::table::{Stored, rows};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Output;

fn event(n: usize) -> String {
    let stream = ["audits", "orders.eu", "orders.us"][n % 3];
    let id = if n.is_multiple_of(2) { format!(r#","id":"e-{n}","source":"/é""#) } else { String::new() };
    let data = [
        format!(r#"{{"n":{n},"x":1.500,"deep":[{{"ü":"a\u0000b"}},1e3,-0.0]}}"#),
        format!("\"text {n} \\u2028 = \\\"quoted\\\"\""),
        "null".to_owned(),
        "-7".to_owned(),
    ];
    let data = &data[n % 4];
    let id = match n % 7 {
        3 => format!(r#"{id},"traceparent":"00-{n:032x}-00f067aa0ba902b7-01""#),
        _ => id,
    };
    format!(r#"{{"stream":"{stream}","type":"t{}"{id},"subject":"=s,{n}","data":{data}}}"#, n % 5)
}

async fn fill(place: &Place, server: &Server, events: std::ops::Range<usize>) {
    let lines: String = events.map(|n| event(n) + "\n").collect();
    std::fs::write(place.folder().join("in.ndjson"), lines).unwrap();
    ok(&run(place, &server.base, &["import", "in.ndjson"], "").await);
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The CloudEvents of these lines as the array that the server answers: on one line.
fn as_http_answers(lines: &str) -> String {
    format!("[{}]", lines.trim_end().replace('\n', ","))
}

/// What a producer said of an event: stream, source, id, type, subject, time, data and traceparent.
type Said =
    (String, String, Option<String>, String, Option<String>, Option<String>, Option<String>, Option<String>);

/// All that a producer said, as the table has it, in order.
async fn said(place: &Place) -> Vec<Said> {
    let mut connection = crate::table::open(&place.file()).await;
    sqlx::query_as(
        "SELECT stream, source, id, type, subject, time, data, traceparent FROM events ORDER BY seq",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_and_imported_is_the_same_in_the_same_order() {
    let place = Place::new();
    let from = server(&place).await;
    fill(&place, &from, 0..2_500).await;
    let told = ok(&run(&place, &from.base, &["export", "--output", "all.ndjson"], "").await);
    assert!(told.contains("exported 2500 events, the last is seq 2500"), "{told}");
    ok(&run(&place, &from.base, &["export", "--output", "all.ndjson.zst"], "").await);
    let plain = std::fs::read(place.folder().join("all.ndjson")).unwrap();
    let compressed = std::fs::read(place.folder().join("all.ndjson.zst")).unwrap();
    assert!(compressed.len() < plain.len() / 2);
    assert_eq!(zstd::decode_all(&*compressed).unwrap(), plain);
    let stdout = run(&place, &from.base, &["export"], "").await;
    assert_eq!(stdout.stdout, plain.trim_ascii_end(), "stdout has the same");

    for file in ["all.ndjson", "all.ndjson.zst"] {
        let other = Place::new();
        let to = server(&other).await;
        let file = place.folder().join(file).to_str().unwrap().to_owned();
        let told = ok(&run(&other, &to.base, &["import", &file], "").await);
        assert!(told.contains("imported 2500 events; 0 were there already"), "{told}");
        assert_eq!(said(&other).await, said(&place).await);
        assert_eq!(said(&other).await[2].6.as_deref(), Some("null"), "null is a payload");
        assert!(said(&other).await[3].7.is_some(), "the span that it was made in is kept");
        // Every other event has an id, and is not stored twice.
        let told = ok(&run(&other, &to.base, &["import", &file, "--from-line", "2301"], "").await);
        assert!(told.contains("imported 100 events; 100 were there already"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloud_events_that_are_exported_and_imported_are_the_same_in_the_same_order() {
    let place = Place::new();
    let from = server(&place).await;
    fill(&place, &from, 0..2_500).await;
    let read = |name: &str| std::fs::read(place.folder().join(name)).unwrap();
    for name in ["all.cloudevents.json", "all.cloudevents.json.zst", "all.cloudevents.ndjson"] {
        let told = ok(&run(&place, &from.base, &["export", "--output", name], "").await);
        assert!(told.contains("exported 2500 events, the last is seq 2500"), "{told}");
    }
    let array = read("all.cloudevents.json");
    assert_eq!(zstd::decode_all(&*read("all.cloudevents.json.zst")).unwrap(), array);
    let events: Vec<Value> = serde_json::from_slice(&array).unwrap();
    assert_eq!((events.len(), &events[2_499]["sequence"]), (2_500, &"00000000000000002500".into()));
    let lines = String::from_utf8(read("all.cloudevents.ndjson")).unwrap();
    let array = String::from_utf8(array).unwrap();
    assert_eq!(
        lines.trim_end().replace('\n', ",\n"),
        array.trim_start_matches("[\n").trim_end_matches("\n]\n")
    );
    let stdout = run(&place, &from.base, &["export", "--format", "cloudevents"], "").await;
    assert_eq!(stdout.stdout, array.trim_end().as_bytes(), "stdout has the same");
    std::fs::write(place.folder().join("http.json"), as_http_answers(&lines)).unwrap();

    // Without an id an event has its seq as one.
    let mut expected = said(&place).await;
    for (event, seq) in expected.iter_mut().zip(1..) {
        event.2.get_or_insert_with(|| format!("{seq:020}"));
    }
    for file in ["all.cloudevents.json", "all.cloudevents.json.zst", "all.cloudevents.ndjson", "http.json"] {
        let other = Place::new();
        // Smaller requests than import makes.
        let to = Launch::new(&other.file()).with("EVERTAIL_BATCH_EVENTS_MAX", 300).start().await;
        let file = place.folder().join(file).to_str().unwrap().to_owned();
        let told = ok(&run(&other, &to.base, &["import", &file], "").await);
        assert!(told.contains("imported 2500 events; 0 were there already"), "{told}");
        let imported = said(&other).await;
        assert!(imported == expected, "{file}");
        let told = ok(&run(&other, &to.base, &["import", &file, "--from-element", "2301"], "").await);
        assert!(told.contains("imported 0 events; 200 were there already"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_of_nothing_is_whole_too() {
    let place = Place::new();
    let server = server(&place).await;
    fill(&place, &server, 0..3).await;
    for (name, nothing) in
        [("none.cloudevents.json", "[]\n"), ("none.cloudevents.ndjson", ""), ("none.ndjson", "")]
    {
        let none = ["export", "--type", "none", "--output", name];
        for arguments in [&none[..], &[&none[..], &["--resume"]].concat()] {
            ok(&run(&place, &server.base, arguments, "").await);
            assert_eq!(std::fs::read_to_string(place.folder().join(name)).unwrap(), nothing);
        }
        let told = ok(&run(&place, &server.base, &["import", name], "").await);
        assert!(told.contains("imported 0 events; 0 were there already"), "{told}");
        // Once there is something, it goes on.
        ok(&run(&place, &server.base, &["export", "--output", name, "--resume"], "").await);
        let told = ok(&run(&place, &server.base, &["import", name, "--from-line", "4"], "").await);
        assert!(told.contains("imported 0 events"), "{told}");
        assert_eq!(
            std::fs::read_to_string(place.folder().join(name)).unwrap().matches("\"stream\"").count(),
            3
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_export_of_its_format_is_gone_on_with() {
    let place = Place::new();
    let server = server(&place).await;
    fill(&place, &server, 0..5).await;
    let path = |name: &str| place.folder().join(name);
    ok(&run(&place, &server.base, &["export", "--output", "events.ndjson"], "").await);
    ok(&run(&place, &server.base, &["export", "--output", "all.cloudevents.json"], "").await);
    std::fs::write(path("letter"), "Dear all,\nthis is no export.\n").unwrap();
    std::fs::write(path("numbers.json"), "[1, 2]").unwrap();
    std::fs::write(path("objects.json"), "[{\"a\":1}, {\"a\":2}]").unwrap();
    for (name, format) in [
        ("letter", "ndjson"),
        ("letter", "cloudevents"),
        ("numbers.json", "cloudevents"),
        ("objects.json", "cloudevents"),
        ("events.ndjson", "cloudevents"),
        ("events.ndjson", "cloudevents-lines"),
        ("events.ndjson", "csv"),
        ("all.cloudevents.json", "ndjson"),
        ("all.cloudevents.json", "cloudevents-lines"),
    ] {
        let before = std::fs::read(path(name)).unwrap();
        let refused = ["export", "--output", name, "--format", format, "--resume"];
        let refused = run(&place, &server.base, &refused, "").await;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{name} as {format}: {told}");
        assert!(told.contains("cannot be taken up") && told.contains("--output"), "{told}");
        assert_eq!(std::fs::read(path(name)).unwrap(), before, "{name} as {format}");
    }
    // Nor is a whole file opened before there is something to write.
    let whole = std::fs::read(path("all.cloudevents.json")).unwrap();
    let nobody = format!("http://127.0.0.1:{}", lasting_port());
    let failed = run(&place, &nobody, &["export", "--output", "all.cloudevents.json", "--resume"], "").await;
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(std::fs::read(path("all.cloudevents.json")).unwrap(), whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_selected_resumed_and_never_overwritten() {
    let place = Place::new();
    let server = server(&place).await;
    fill(&place, &server, 0..300).await;
    let path = |name: &str| place.folder().join(name);
    for (name, others) in [
        ("orders.ndjson", 0),
        ("orders.csv", 1),
        ("orders.cloudevents.ndjson", 0),
        ("orders.cloudevents.json", 2),
    ] {
        let selected = ["export", "orders.*", "--where", "data!=null", "--output", name];
        ok(&run(&place, &server.base, &selected, "").await);
        let whole = std::fs::read_to_string(path(name)).unwrap();
        assert_eq!(whole.lines().count(), 150 + others, "{name}");
        let again = run(&place, &server.base, &selected, "").await;
        assert_eq!(again.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
        // Torn in the middle of a line, as a crash leaves it.
        let first_line = whole.find('\n').unwrap() + 1;
        let last_line = whole.trim_end().rfind('\n').unwrap();
        let middle = whole.len() / 2;
        for torn in [middle, last_line + 1, last_line, last_line - 1, whole.len() - 1, first_line, 1, 0] {
            std::fs::write(path(name), &whole[..torn]).unwrap();
            ok(&run(&place, &server.base, &[&selected[..], &["--resume"]].concat(), "").await);
            assert_eq!(std::fs::read_to_string(path(name)).unwrap(), whole, "{name} torn at {torn}");
        }
        ok(&run(&place, &server.base, &[&selected[..], &["--resume"]].concat(), "").await);
        assert_eq!(std::fs::read_to_string(path(name)).unwrap(), whole, "{name} was whole");
    }
    // An array as the server answers it, broken off.
    let lines = std::fs::read_to_string(path("orders.cloudevents.ndjson")).unwrap();
    let text = as_http_answers(&lines);
    for torn in [text.len(), text.len() - 1, text.len() / 2, 1] {
        std::fs::write(path("http.json"), &text[..torn]).unwrap();
        let resumed = ["export", "orders.*", "--where", "data!=null", "--output", "http.json"];
        let resumed = [&resumed[..], &["--format", "cloudevents", "--resume"]].concat();
        ok(&run(&place, &server.base, &resumed, "").await);
        let events: Vec<Value> = serde_json::from_slice(&std::fs::read(path("http.json")).unwrap()).unwrap();
        let expected = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        assert!(expected.eq(events), "torn at {torn}");
    }
    let csv = std::fs::read_to_string(path("orders.csv")).unwrap();
    assert!(csv.starts_with(
        "seq,stream,source,id,type,subject,time,created_at,data,traceparent\r\n2,orders.eu,,,t1,\"'=s,1\","
    ));
    let lines =
        json(&run(&place, &server.base, &["export", "audits", "--last", "2", "--before", "200"], "").await);
    let seqs: Vec<&Value> = lines.iter().map(|line| &line["seq"]).collect();
    assert_eq!(seqs, [196, 199]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_line_is_named_and_the_import_stops_or_goes_on_as_told() {
    let place = Place::new();
    let server = server(&place).await;
    let mut file = std::fs::File::create(place.folder().join("bad.ndjson")).unwrap();
    for n in 0..1_500 {
        match n {
            1_233 => writeln!(file, r#"{{"stream":"a","type":"error","data":1}}"#).unwrap(),
            1_300 => writeln!(file, "no json").unwrap(),
            1_400 => writeln!(file, r#"{{"stream":"a","unknown":1}}"#).unwrap(),
            1_450 => writeln!(file, r#"{{"stream":"evertail"}}"#).unwrap(),
            _ => writeln!(file, r#"{{"stream":"a","data":{n}}}"#).unwrap(),
        }
    }
    drop(file);
    let stopped = run(&place, &server.base, &["import", "bad.ndjson"], "").await;
    let told = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert_eq!(stopped.status.code(), Some(1));
    assert!(told.contains("line 1234 is refused: ") && told.contains("type"), "{told}");
    assert_eq!(said(&place).await.len(), 1_233, "all before it is stored, nothing behind it");
    let went_on = ["import", "bad.ndjson", "--from-line", "1234", "--on-error", "skip"];
    let went_on = run(&place, &server.base, &went_on, "").await;
    let told = String::from_utf8_lossy(&went_on.stderr).into_owned();
    assert_eq!(went_on.status.code(), Some(1), "{told}");
    for line in [1_234, 1_301, 1_401, 1_451] {
        assert!(told.contains(&format!("line {line} is refused: ")), "{told}");
    }
    assert!(told.contains("imported 263 events; 0 were there already, 4 were refused"), "{told}");
    assert_eq!(said(&place).await.len(), 1_496);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_element_is_named_and_the_import_stops_or_goes_on_as_told() {
    let place = Place::new();
    let server = server(&place).await;
    let events: Vec<String> = (0..900)
        .map(|n| {
            let event =
                |rest: &str| format!(r#"{{"specversion":"1.0","id":"{n}","source":"/s","type":"t"{rest}}}"#);
            match n {
                // Two of one request, of which the second stops the server first.
                33 => event(r#","stream":"a","traceparent":"x""#),
                40 => event(r#","stream":"a","data":{"a":1,"a":2}"#),
                700 => event(""),
                701 => r#"{"stream":"a","type":"error"}"#.to_owned(),
                // An event of ours among CloudEvents is taken as what it is.
                702 => format!(r#"{{"stream":"a","source":"/s","type":"t","id":"{n}"}}"#),
                800 => r#"{"specversion":"1.0","stream":"a"}"#.to_owned(),
                _ => event(r#","stream":"a""#),
            }
        })
        .collect();
    std::fs::write(place.folder().join("bad.json"), format!("[\n{}\n]", events.join(",\n"))).unwrap();
    std::fs::write(place.folder().join("bad.ndjson"), events.join("\n")).unwrap();
    let stopped = run(&place, &server.base, &["import", "bad.json"], "").await;
    let told = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert_eq!(stopped.status.code(), Some(1));
    assert!(told.contains("element 34 is refused: /traceparent must be "), "{told}");
    assert!(told.contains("--from-element 34"), "{told}");
    assert_eq!(said(&place).await.len(), 33, "all before it is stored, nothing behind it");
    for (file, item, appended) in [("bad.json", "element", 862), ("bad.ndjson", "line", 0)] {
        let went_on = run(&place, &server.base, &["import", file, "--on-error", "skip"], "").await;
        let told = String::from_utf8_lossy(&went_on.stderr).into_owned();
        assert_eq!(went_on.status.code(), Some(1), "{told}");
        for (number, why) in
            [(34, "traceparent"), (41, "duplicate"), (701, "stream"), (702, "type"), (801, "id")]
        {
            let line = told.lines().find(|line| line.contains(&format!("{item} {number} is refused: ")));
            assert!(line.is_some_and(|line| line.contains(why)), "{number}: {told}");
        }
        let repeated = 895 - appended;
        let summary = format!("imported {appended} events; {repeated} were there already, 5 were refused");
        assert!(told.contains(&summary), "{told}");
    }
    // Told what it is, the file holds nothing else.
    let strict = ["import", "bad.ndjson", "--format", "cloudevents-lines", "--from-line", "703"];
    let told = String::from_utf8_lossy(&run(&place, &server.base, &strict, "").await.stderr).into_owned();
    assert!(told.contains("line 703 is refused: ") && told.contains("specversion"), "{told}");
    let strict = ["import", "bad.json", "--format", "ndjson"];
    let told = String::from_utf8_lossy(&run(&place, &server.base, &strict, "").await.stderr).into_owned();
    assert!(told.contains("line 1 is refused: "), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloud_events_of_anyone_are_imported_into_the_stream_that_is_told() {
    let place = Place::new();
    let server = server(&place).await;
    let events = [
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":1.50}}"#,
        r#"{"specversion":"1.0","id":"2","source":"/s","type":"t","datacontenttype":"text/plain","data":"hi"}"#,
        r#"{"specversion":"1.0","id":"3","source":"/s","type":"t","stream":"orders"}"#,
        r#"{"specversion":"1.0","id":"4","source":"/s","type":"t","stream":"other"}"#,
        r#"{"stream":"orders","data":5}"#,
        r#"{"stream":"other","data":6}"#,
    ];
    let import = ["import", "-", "--on-error", "skip"];
    let lines = events.join("\n");
    let told = run(&place, &server.base, &[&import[..], &["--stream", "orders"]].concat(), &lines).await;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("imported 4 events; 0 were there already, 2 were refused"), "{told}");
    assert!(told.contains("line 4 is refused: ") && told.contains("line 6 is refused: "), "{told}");
    let said = said(&place).await;
    assert!(said.iter().all(|event| event.0 == "orders"));
    let data: Vec<Option<&str>> = said.iter().map(|event| event.6.as_deref()).collect();
    assert_eq!(data, [Some(r#"{"n":1.50}"#), Some(r#""hi""#), None, Some("5")]);
    let told = run(&place, &server.base, &["import", "-"], events[0]).await;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("line 1 is refused: ") && told.contains("stream"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_before_an_item_that_cannot_be_read_is_stored() {
    let place = Place::new();
    let server = server(&place).await;
    let files = [
        ("torn.json", "[", ",", &b",{\"spec"[..], "element 3 cannot be read: the file ends before"),
        ("open.json", "[", ",", b",", "element 3 cannot be read: the file ends before"),
        ("wrong.json", "[", ",", b",7]", "element 3 cannot be read: an event is a JSON object"),
        ("bytes.ndjson", "", "\n", b"\n\xff\n", "line 3 cannot be read: "),
    ];
    for (index, (name, beginning, between, end, why)) in files.into_iter().enumerate() {
        let event = |id| {
            let id = format!("{index}-{id}");
            format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t","stream":"a"}}"#)
        };
        let mut bytes = [beginning, &event(1), between, &event(2)].concat().into_bytes();
        bytes.extend_from_slice(end);
        std::fs::write(place.folder().join(name), bytes).unwrap();
        let stopped = run(&place, &server.base, &["import", name, "--on-error", "skip"], "").await;
        let told = String::from_utf8_lossy(&stopped.stderr).into_owned();
        assert_eq!(stopped.status.code(), Some(1), "{told}");
        assert!(told.contains(why) && told.contains("go on with --from-"), "{told}");
        assert_eq!(said(&place).await.len(), (index + 1) * 2, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_goes_on_across_a_kill_and_ends_where_the_log_ended_when_it_began() {
    let place = Place::new();
    let launch = Launch::new(&place.file()).listen(format!("127.0.0.1:{}", lasting_port()));
    let mut server = launch.start().await;
    fill(&place, &server, 0..40_000).await;
    let mut export = Running(command(&place, &server.base, &["export"]).spawn().unwrap());
    let mut stdout = BufReader::new(export.0.stdout.take().unwrap());
    let mut text = String::new();
    // Far less than there is: the rest waits in buffers and in the server when it is killed.
    for _ in 0..100 {
        stdout.read_line(&mut text).unwrap();
    }
    server.kill();
    let server = launch.start().await;
    fill(&place, &server, 0..10).await;
    let rest = std::thread::spawn(move || {
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    assert!(export.ended().await.success());
    let text = rest.join().unwrap();
    let exported: Vec<Stored> = text.lines().map(|line| Stored::parse(line).unwrap()).collect();
    assert_eq!(exported.len(), 40_000);
    assert_eq!(exported, rows(&place.file(), 0).await[..40_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_is_one_across_kills_of_the_server_and_of_the_export() {
    let place = Place::new();
    let launch = Launch::new(&place.file()).listen(format!("127.0.0.1:{}", lasting_port()));
    let mut server = launch.start().await;
    fill(&place, &server, 0..40_000).await;
    ok(&run(&place, &server.base, &["export", "--output", "whole.cloudevents.json"], "").await);
    let whole = std::fs::read_to_string(place.folder().join("whole.cloudevents.json")).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Value>>(&whole).unwrap().len(), 40_000);

    // The export is killed wherever it is, again and again.
    let torn = place.folder().join("torn.cloudevents.json");
    let length = || std::fs::metadata(&torn).map_or(0, |file| file.len());
    let arguments = ["export", "--output", "torn.cloudevents.json", "--resume"];
    let mut kills = 0;
    for _ in 0..5 {
        let before = length();
        let mut export = Running(command(&place, &server.base, &arguments).spawn().unwrap());
        until("the export goes on", async || {
            length() > before + 100_000 || export.0.try_wait().unwrap().is_some()
        })
        .await;
        kills += u32::from(export.0.try_wait().unwrap().is_none());
    }
    assert!(kills > 0);
    ok(&run(&place, &server.base, &arguments, "").await);
    assert!(std::fs::read_to_string(&torn).unwrap() == whole);

    // The server is killed while most waits in buffers.
    let arguments = ["export", "--format", "cloudevents"];
    let mut export = Running(command(&place, &server.base, &arguments).spawn().unwrap());
    let mut stdout = BufReader::new(export.0.stdout.take().unwrap());
    let mut text = String::new();
    for _ in 0..100 {
        stdout.read_line(&mut text).unwrap();
    }
    server.kill();
    let server = launch.start().await;
    fill(&place, &server, 0..10).await;
    let rest = std::thread::spawn(move || {
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    assert!(export.ended().await.success());
    assert!(rest.join().unwrap() == whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_closes_the_streams_that_had_ended_and_leaves_out_what_the_other_server_told() {
    let place = Place::new();
    let from = server(&place).await;
    fill(&place, &from, 0..6).await;
    let hold = ["hold", "add", "audits", "--name", "case", "--reason", "why"];
    ok(&run(&place, &from.base, &hold, "").await);
    let lines = concat!(
        "{\"stream\":\"ended\",\"id\":\"1\"}\n",
        "{\"stream\":\"ended\",\"type\":\"evertail.closed\",\"data\":{\"reason\":\"é\"}}\n",
        "{\"stream\":\"silent\",\"type\":\"evertail.closed\"}\n",
        "{\"stream\":\"audits\",\"id\":\"last\"}\n",
    );
    let told = ok(&run(&place, &from.base, &["import", "-"], lines).await);
    assert!(told.contains("imported 4 events; 0 were there already, 0 were refused"), "{told}");
    ok(&run(&place, &from.base, &["export", "--output", "all.ndjson"], "").await);
    let file = place.folder().join("all.ndjson").to_str().unwrap().to_owned();
    let other = Place::new();
    let to = server(&other).await;
    let told = ok(&run(&other, &to.base, &["import", &file], "").await);
    let expected = "imported 10 events; 0 were there already, 0 were refused, 1 of the server's own stream were left out";
    assert!(told.contains(expected), "{told}");
    let without_own = |mut said: Vec<_>| {
        said.retain(|row: &Said| row.0 != "evertail");
        said
    };
    assert_eq!(said(&other).await, without_own(said(&place).await));
    let refused = run(&other, &to.base, &["append", "ended", "1"], "").await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stream_closed"), "{refused:?}");
    // Again: what has an id, and what is closed, is there already.
    let told = ok(&run(&other, &to.base, &["import", &file, "--from-line", "8"], "").await);
    assert!(told.contains("imported 0 events; 4 were there already"), "{told}");
    // Only the end of a stream may have the type of one, with nothing but a reason.
    let odd = "{\"stream\":\"odd\",\"type\":\"evertail.closed\",\"data\":{\"x\":1}}\n";
    let refused = run(&other, &to.base, &["import", "-"], odd).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("line 1 is refused: "), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_says_which_streams_have_lost_events() {
    let place = Place::new();
    let server = server(&place).await;
    fill(&place, &server, 0..12).await;
    ok(&run(&place, &server.base, &["trim", "--stream", "audits", "--before", "8"], "").await);
    let told =
        ok(&run(&place, &server.base, &["export", "--after", "2", "--output", "rest.ndjson"], "").await);
    let gap = "evertail: events of the stream audits from seq 3 to 7 are gone (trimmed); going on with what is left";
    assert!(told.starts_with(gap), "{told}");
    let told = ok(&run(&place, &server.base, &["export", "--output", "all.ndjson"], "").await);
    assert!(!told.contains("gone"), "{told}");
    let refused = run(&place, &server.base, &["export", "audits", "--after", "2"], "").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("read after 9"), "{refused:?}");
}
