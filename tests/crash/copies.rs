//! `evertail backup`, `restore`, `check` and `doctor` as processes, beside a server that is at work.

use crate::cli::{json, run};
use crate::event_source::{EventSource, Frame, Heard, http_client};
use crate::ledger::Ledger;
use crate::load::{Load, Manner};
use crate::server::{Launch, Place, Server, in_time, lasting_port, until};
use crate::table::{Stored, assert_ordered, assert_sound, rows};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

const PRODUCERS: [Manner; 6] =
    [Manner::Single, Manner::Batch, Manner::Batch, Manner::Batch, Manner::Batch, Manner::Repeat];

/// A command on the file of this place; it needs no server.
async fn on_file(place: &Place, arguments: &[&str]) -> Output {
    run(place, "http://127.0.0.1:9", arguments, "").await
}

/// What it says on stderr, and its exit code.
fn refusal(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

async fn append(server: &Server, data: u64) {
    let url = format!("{}/api/v1/audits", server.base);
    let reply = http_client().post(url).body(json!({ "data": data }).to_string()).send().await.unwrap();
    assert_eq!(reply.status(), 201);
}

async fn stop(mut server: Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
}

/// The names in the folder of the log, in order.
fn names(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.folder()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_of_a_server_at_work_has_every_event_that_was_acked_before_it() {
    let place = Place::new();
    let server = Launch::new(&place.file()).start().await;
    let ledger = Ledger::default();
    let load = Load::start(&server.base, &ledger, &PRODUCERS);
    until("the load is on", async || ledger.acks() > 2_000).await;

    let mut copies: Vec<Vec<Stored>> = Vec::new();
    for number in 1..=4 {
        let target = place.folder().join("copy.db");
        let acked = ledger.acked();
        let mut arguments = vec!["backup", "copy.db", "--file", "log.db"];
        // The first is made, each further one replaces the one before.
        arguments.extend((number > 1).then_some("--force"));
        let told = json(&on_file(&place, &arguments).await);
        let copy = rows(&target, 0).await;
        assert_ordered(0, &copy);
        let last_seq = copy.last().unwrap().seq;
        assert_eq!((&told[0]["last_seq"], &told[0]["events"]), (&json!(last_seq), &json!(copy.len())));
        let missing = acked.iter().find(|seq| **seq > last_seq);
        assert_eq!(missing, None, "backup {number} ends at {last_seq}");
        let checked = on_file(&place, &["check", "copy.db"]).await;
        assert_eq!(json(&checked)[0]["outcome"], "ok", "{checked:?}");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        copies.push(copy);
    }
    load.finish().await;
    let all = rows(&place.file(), 0).await;
    ledger.assert_agrees(&all);
    for copy in &copies {
        assert!(all[..copy.len()] == copy[..], "a copy is what the log was at a moment");
    }
    assert!(copies.is_sorted_by_key(Vec::len));
    assert!(names(&place).iter().all(|name| !name.contains("partial")), "{:?}", names(&place));
    stop(server).await;
    assert_sound(&place.file()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_ahead_of_a_restored_backup_is_told_and_goes_on() {
    let place = Place::new();
    let launch = Launch::new(&place.file()).listen(format!("127.0.0.1:{}", lasting_port()));
    let server = launch.start().await;
    for n in 1..=10 {
        append(&server, n).await;
    }
    assert_eq!(json(&on_file(&place, &["backup", "copy.db", "--file", "log.db"]).await)[0]["last_seq"], 10);
    for n in 11..=20 {
        append(&server, n).await;
    }
    let mut reader = EventSource::new(format!("{}/api/v1/audits?after=0", server.base));
    let mut frame = async |wanted: &str| -> Frame {
        in_time(async {
            loop {
                match reader.next().await.unwrap() {
                    Heard::Frame(frame) if frame.event == wanted => return frame,
                    Heard::Frame(_) | Heard::Gone { .. } => {}
                }
            }
        })
        .await
    };
    for seq in 1..=20 {
        assert_eq!(frame("message").await.id, Some(seq));
    }
    stop(server).await;

    let restored = json(&on_file(&place, &["restore", "copy.db", "--file", "log.db"]).await);
    assert_eq!((&restored[0]["last_seq"], &restored[0]["first_seq"]), (&json!(10), &json!(1)));
    // What was there is kept, whole.
    let kept = Path::new(restored[0]["kept"].as_str().unwrap());
    assert_eq!(rows(&place.folder().join(kept), 0).await.len(), 20);
    assert_eq!(rows(&place.folder().join("copy.db"), 0).await.len(), 10);

    let server = launch.start().await;
    let reset: Value = serde_json::from_str(&frame("evertail.reset").await.data).unwrap();
    assert_eq!(
        (&reset["cursor"], &reset["last_seq"], &reset["reason"]),
        (&json!(20), &json!(10), &json!("ahead"))
    );
    append(&server, 111).await;
    let next = frame("message").await;
    assert_eq!((next.id, next.data.contains("111")), (Some(11), true));
    stop(server).await;
    assert_sound(&place.file()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_replaces_nothing_that_is_in_use_and_by_nothing_that_is_not_sound() {
    let place = Place::new();
    let restore = ["restore", "copy.db", "--file", "log.db"];
    let missing = on_file(&place, &["restore", "copy.db", "--file", "new/log.db"]).await;
    assert_eq!(refusal(&missing), (Some(2), "evertail: copy.db is not there; name the log file".to_owned()));
    assert!(names(&place).is_empty());

    let server = Launch::new(&place.file()).start().await;
    append(&server, 1).await;
    json(&on_file(&place, &["backup", "copy.db", "--file", "log.db"]).await);
    append(&server, 2).await;
    let (code, said) = refusal(&on_file(&place, &restore).await);
    assert_eq!(code, Some(1));
    assert!(said.contains("log.db is in use by another evertail (process "), "{said}");
    stop(server).await;

    // Another program that has the file open could go on writing to the one that is put aside.
    let mut other = SqliteConnectOptions::new().filename(place.file()).connect().await.unwrap();
    sqlx::query("INSERT INTO events (stream, data) VALUES ('audits', '3')")
        .execute(&mut other)
        .await
        .unwrap();
    let (code, said) = refusal(&on_file(&place, &restore).await);
    assert_eq!(code, Some(1));
    assert!(said.ends_with("log.db open; end it, then restore again"), "{said}");
    other.close().await.unwrap();

    let sound = fs::read(place.folder().join("copy.db")).unwrap();
    let mut copy =
        SqliteConnectOptions::new().filename(place.folder().join("copy.db")).connect().await.unwrap();
    sqlx::raw_sql("UPDATE streams SET events = 7").execute(&mut copy).await.unwrap();
    copy.close().await.unwrap();
    let (code, said) = refusal(&on_file(&place, &restore).await);
    assert_eq!(code, Some(1));
    assert!(
        said.contains(
            "copy.db is not sound, and no copy was kept: the totals of the stream audits are wrong"
        ),
        "{said}"
    );
    assert_eq!(rows(&place.file(), 0).await.len(), 3);

    // Once more with the backup as it was, and into a place where no log is yet.
    fs::write(place.folder().join("copy.db"), sound).unwrap();
    json(&on_file(&place, &restore).await);
    assert_eq!(rows(&place.file(), 0).await.len(), 1);
    let new = json(&on_file(&place, &["restore", "copy.db", "--file", "new/log.db"]).await);
    assert_eq!(new[0].get("kept"), None);
    assert_eq!(rows(&place.folder().join("new/log.db"), 0).await.len(), 1);
    assert!(names(&place).iter().all(|name| !name.contains("partial")), "{:?}", names(&place));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_left_in_the_wal_is_kept_by_a_restore() {
    let place = Place::new();
    let mut server = Launch::new(&place.file()).start().await;
    append(&server, 1).await;
    json(&on_file(&place, &["backup", "copy.db", "--file", "log.db"]).await);
    append(&server, 2).await;
    server.kill();
    assert!(names(&place).contains(&"log.db-wal".to_owned()));
    let restored = json(&on_file(&place, &["restore", "copy.db", "--file", "log.db"]).await);
    assert!(!names(&place).contains(&"log.db-wal".to_owned()), "{:?}", names(&place));
    assert_eq!(rows(&place.file(), 0).await.len(), 1);
    let kept = restored[0]["kept"].as_str().unwrap();
    assert_eq!(rows(&place.folder().join(kept), 0).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_takes_the_place_of_nothing_that_it_must_not() {
    let place = Place::new();
    let server = Launch::new(&place.file()).start().await;
    append(&server, 1).await;
    let backup = async |target: &str, force: &[&str]| {
        refusal(&on_file(&place, &[&["backup", target, "--file", "log.db"], force].concat()).await)
    };
    assert_eq!(backup("copy.db", &[]).await.0, Some(0));
    let exists = "evertail: copy.db is there already; choose another name, or replace it with --force";
    assert_eq!(backup("copy.db", &[]).await, (Some(2), exists.to_owned()));
    assert_eq!(backup("copy.db", &["--force"]).await.0, Some(0));
    let (code, said) = backup("log.db", &["--force"]).await;
    assert_eq!(
        (code, said.as_str()),
        (Some(2), "evertail: log.db is part of a log that is in use; choose another name")
    );
    fs::write(place.folder().join("other.db-wal"), "of something else").unwrap();
    let (code, said) = backup("other.db", &["--force"]).await;
    assert_eq!((code, said.contains("other.db-wal is part of a log")), (Some(2), true), "{said}");
    stop(server).await;
    // Nor is a stopped log replaced by itself.
    assert_eq!(backup("log.db", &["--force"]).await.0, Some(2));
    assert_eq!(backup("nowhere/copy.db", &[]).await.0, Some(1));
    assert_eq!(rows(&place.file(), 0).await.len(), 1);

    // A copy of what is not sound is not a backup.
    let mut other = SqliteConnectOptions::new().filename(place.file()).connect().await.unwrap();
    sqlx::raw_sql("UPDATE streams SET events = 7").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let before = names(&place);
    let (code, said) = backup("copy.db", &["--force"]).await;
    assert_eq!((code, said.contains("is not sound")), (Some(1), true), "{said}");
    assert_eq!(names(&place), before);
    assert_sound(&place.folder().join("copy.db")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_looks_at_a_server_at_work_and_check_leaves_it_alone() {
    let place = Place::new();
    let server = Launch::new(&place.file()).start().await;
    append(&server, 1).await;
    let doctor = ["doctor", "--file", "log.db"];
    let found = json(&on_file(&place, &doctor).await).remove(0);
    assert_eq!(
        (&found["server"], &found["last_seq"], &found["file"]),
        (&json!(true), &json!(1), &json!("log.db"))
    );
    assert_ne!(found["outcome"], "problem", "{found}");
    let checks: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["check"].as_str().unwrap())
        .collect();
    let expected =
        "permissions wal file_system free_space sqlite pragmas clock schema contiguity time data totals";
    assert_eq!(checks.join(" "), expected);
    let (code, said) = refusal(&on_file(&place, &["check", "log.db"]).await);
    assert_eq!(code, Some(2));
    assert!(said.contains("is in use by a server (process ") && said.contains("`evertail backup`"), "{said}");
    let disk = rustix::fs::statvfs(place.folder()).unwrap();
    if disk.f_bavail * disk.f_frsize < 1 << 40 {
        // A floor above what is free: the server would refuse appends.
        let mut poor = crate::cli::command(&place, &server.base, &doctor);
        poor.env("EVERTAIL_DISK_FREE_BYTES_MIN", "1TiB");
        let output = tokio::task::spawn_blocking(move || poor.output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let problem = findings.iter().find(|finding| finding["outcome"] == "problem").unwrap();
        assert_eq!(problem["check"], "free_space");
        assert!(problem["next_step"].as_str().unwrap().contains("retention"), "{problem}");
    }
    stop(server).await;

    // Nobody has it now.
    let found = json(&on_file(&place, &["check", "log.db"]).await).remove(0);
    assert_eq!((&found["server"], &found["outcome"]), (&json!(false), &json!("ok")));
    assert_eq!(names(&place), ["log.db", "log.db.lock"]);
    assert_eq!(on_file(&place, &["check", "nothing.db"]).await.status.code(), Some(2));
    fs::write(place.folder().join("notes.db"), "notes ".repeat(1_000)).unwrap();
    let (code, said) = refusal(&on_file(&place, &["check", "notes.db"]).await);
    assert_eq!((code, said.contains("notes.db ")), (Some(1), true), "{said}");
}
