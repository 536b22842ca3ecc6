//! `evertail trim` and `evertail hold` as processes of their own.

use crate::cli::{Running, command, json, run, server};
use crate::server::{Launch, Place, Server, in_time, lasting_port};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Output;
use tokio::sync::watch;

async fn fill(place: &Place, server: &Server, events: usize) {
    let line = |n: usize| format!("{{\"stream\":\"{}\",\"data\":{}}}\n", ["a", "b"][n % 2], n % 10);
    let lines: String = (0..events).map(line).collect();
    let output = run(place, &server.base, &["import", "-"], &lines).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// What it complains of: one sentence.
#[track_caller]
fn refused(output: &Output, exit: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    assert_eq!(output.status.code(), Some(exit), "{output:?}");
    assert_eq!((said.lines().count(), output.stdout.len()), (1, 0), "{output:?}");
    said
}

async fn seqs(place: &Place, stream: &str) -> Vec<i64> {
    let mut connection = crate::table::open(&place.file()).await;
    let seqs = sqlx::query_scalar("SELECT seq FROM log WHERE stream = ? ORDER BY seq").bind(stream);
    seqs.fetch_all(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trim_says_what_would_go_and_then_deletes_it() {
    let place = Place::new();
    let server = server(&place).await;
    fill(&place, &server, 20).await;
    let base = server.base.as_str();
    let arguments = ["trim", "--stream", "a", "--keep-events", "4", "--reason", "room"];
    let planned = json(&run(&place, base, &[&arguments[..], &["--dry-run"]].concat(), "").await);
    let expected = json!({
        "dry_run": true, "first_seq": 1, "stream": "a", "events": 6, "bytes": 6, "through_seq": 11,
        "streams": [{"stream": "a", "events": 6, "bytes": 6}],
    });
    assert_eq!(planned, [expected]);
    assert_eq!(seqs(&place, "a").await.len(), 10);
    let done = json(&run(&place, base, &[&arguments[..], &["--json"]].concat(), "").await);
    assert_eq!((&done[0]["events"], &done[0]["through_seq"]), (&json!(6), &json!(11)));
    assert_eq!(seqs(&place, "a").await, [13, 15, 17, 19]);
    let own = json(&run(&place, base, &["tail", "evertail", "--last", "1", "--limit", "1"], "").await);
    assert_eq!((&own[0]["type"], &own[0]["data"]["reason"]), (&json!("evertail.trimmed"), &json!("room")));
    let all = ["trim", "--before", "7", "--older-than", "30d", "--keep-bytes", "1GiB"];
    assert_eq!(json(&run(&place, base, &all, "").await)[0]["events"], 3);
    assert_eq!(json(&run(&place, base, &["trim", "--dry-run"], "").await)[0]["trims"][0]["events"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trim_and_hold_say_what_to_do_when_they_cannot() {
    let place = Place::new();
    let server = server(&place).await;
    fill(&place, &server, 4).await;
    let base = server.base.as_str();
    for nothing in [&["trim"][..], &["trim", "--stream", "a"], &["trim", "--stream", "a", "--dry-run"]] {
        assert!(refused(&run(&place, base, nothing, "").await, 2).contains("--dry-run alone"), "{nothing:?}");
    }
    let wrong = refused(&run(&place, base, &["trim", "--older-than", "soon"], "").await, 1);
    assert!(wrong.contains("/older_than") && wrong.ends_with("change the command as it says"), "{wrong}");
    let unknown = refused(&run(&place, base, &["trim", "--stream", "c", "--before", "2"], "").await, 1);
    assert!(unknown.contains("stream_not_found"), "{unknown}");
    let released = refused(&run(&place, base, &["hold", "release", "a", "--name", "case"], "").await, 1);
    assert!(released.ends_with("`evertail hold list` lists the holds"), "{released}");
    for (arguments, exit) in [(&["hold"][..], 2), (&["hold", "add", "a"], 2), (&["trim", "--before", "0"], 2)]
    {
        assert_eq!(run(&place, base, arguments, "").await.status.code(), Some(exit), "{arguments:?}");
    }
    drop(server);
    let nobody = format!("http://127.0.0.1:{}", lasting_port());
    for arguments in [&["trim", "--before", "2"][..], &["hold", "list"]] {
        let said = refused(&run(&place, &nobody, arguments, "").await, 1);
        assert!(said.ends_with("start the server, or name another with --url"), "{said}");
    }
    assert_eq!(seqs(&place, "a").await, [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_outlives_a_kill_and_stops_trims_until_it_is_released() {
    let place = Place::new();
    let launch = Launch::new(&place.file()).listen(format!("127.0.0.1:{}", lasting_port()));
    let mut server = launch.start().await;
    fill(&place, &server, 10).await;
    let base = server.base.clone();
    let name = "Fall 17/ä".replace('/', "-");
    let added =
        json(&run(&place, &base, &["hold", "add", "b", "--name", &name, "--reason", "letter"], "").await);
    server.kill();
    server = launch.start().await;
    let listed = json(&run(&place, &base, &["hold", "list"], "").await);
    let hold = &listed[0]["holds"][0];
    assert_eq!(
        (&hold["name"], &hold["created_at"], &hold["first_seq"]),
        (&json!(name), &added[0]["created_at"], &json!(2))
    );
    let trimmed = json(&run(&place, &base, &["trim", "--before", "9"], "").await);
    assert_eq!((&trimmed[0]["events"], &trimmed[0]["held_by"]["name"]), (&json!(1), &json!(name)));
    let released = json(&run(&place, &base, &["hold", "release", "b", "--name", &name], "").await);
    assert_eq!(released[0]["reason"], "letter");
    let trimmed = json(&run(&place, &base, &["trim", "--before", "9"], "").await);
    assert_eq!((&trimmed[0]["events"], trimmed[0].get("held_by")), (&json!(7), None::<&Value>));
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_tells_which_streams_have_lost_events_and_prints_what_the_server_tells() {
    let place = Place::new();
    let server = server(&place).await;
    fill(&place, &server, 10).await;
    let trim = ["trim", "--stream", "a", "--before", "8"];
    assert_eq!(json(&run(&place, &server.base, &trim, "").await)[0]["events"], 4);
    let mut tail = Running(command(&place, &server.base, &["tail", "--after", "3"]).spawn().unwrap());
    let (told, mut printed) = watch::channel(Vec::<String>::new());
    let stdout = BufReader::new(tail.0.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            told.send_modify(|lines| lines.push(line));
        }
    });
    in_time(printed.wait_for(|lines| lines.len() == 6)).await.unwrap();
    let mut complaint = String::new();
    BufReader::new(tail.0.stderr.take().unwrap()).read_line(&mut complaint).unwrap();
    let gap =
        "evertail: events of the stream a from seq 4 to 7 are gone (trimmed); going on with what is left\n";
    assert_eq!(complaint, gap);
    let events: Vec<Value> =
        printed.borrow().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [4, 6, 8, 9, 10, 11]);
    assert_eq!((&events[5]["stream"], &events[5]["type"]), (&json!("evertail"), &json!("evertail.trimmed")));
}
