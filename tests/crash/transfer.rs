//! `evertail export` and `evertail import`: what goes out comes in again, the same and in the same order.

use crate::cli::{Running, command, json, run, server};
use crate::server::{Launch, Place, Server, lasting_port};
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

/// All that a producer said, as the table has it, in order.
async fn said(
    place: &Place,
) -> Vec<(String, String, Option<String>, String, Option<String>, Option<String>, Option<String>)> {
    let mut connection = crate::table::open(&place.file()).await;
    sqlx::query_as("SELECT stream, source, id, type, subject, time, data FROM events ORDER BY seq")
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
        // Every other event has an id, and is not stored twice.
        let told = ok(&run(&other, &to.base, &["import", &file, "--from-line", "2301"], "").await);
        assert!(told.contains("imported 100 events; 100 were there already"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_selected_resumed_and_never_overwritten() {
    let place = Place::new();
    let server = server(&place).await;
    fill(&place, &server, 0..300).await;
    let path = |name: &str| place.folder().join(name);
    for (name, header) in [("orders.ndjson", 0), ("orders.csv", 1)] {
        let selected = ["export", "orders.*", "--where", "data!=null", "--output", name];
        ok(&run(&place, &server.base, &selected, "").await);
        let whole = std::fs::read_to_string(path(name)).unwrap();
        assert_eq!(whole.lines().count(), 150 + header, "{name}");
        let again = run(&place, &server.base, &selected, "").await;
        assert_eq!(again.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
        // Torn in the middle of a line, as a crash leaves it.
        let first_line = whole.find('\n').unwrap() + 1;
        for torn in [whole.len() / 2, whole.len() - 1, first_line, 0] {
            std::fs::write(path(name), &whole[..torn]).unwrap();
            ok(&run(&place, &server.base, &[&selected[..], &["--resume"]].concat(), "").await);
            assert_eq!(std::fs::read_to_string(path(name)).unwrap(), whole, "{name} torn at {torn}");
        }
        ok(&run(&place, &server.base, &[&selected[..], &["--resume"]].concat(), "").await);
        assert_eq!(std::fs::read_to_string(path(name)).unwrap(), whole, "{name} was whole");
    }
    let csv = std::fs::read_to_string(path("orders.csv")).unwrap();
    assert!(csv.starts_with(
        "seq,stream,source,id,type,subject,time,created_at,data\r\n2,orders.eu,,,t1,\"'=s,1\","
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
        said.retain(|row: &(String, _, _, _, _, _, _)| row.0 != "evertail");
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
