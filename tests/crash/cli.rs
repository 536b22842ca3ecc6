//! `evertail append` and `evertail tail` as processes of their own.

use crate::server::{Launch, Place, Server, evertail, in_time, lasting_port, until};
use crate::table::{Stored, rows};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use tokio::sync::watch;

/// A command of the client, talking to this server.
pub(crate) fn command(place: &Place, base: &str, arguments: &[&str]) -> Command {
    let mut command = evertail(&[], place.folder());
    command.args(arguments).env("EVERTAIL_URL", base);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end with this on stdin.
pub(crate) async fn run(place: &Place, base: &str, arguments: &[&str], stdin: &str) -> Output {
    let mut command = command(place, base, arguments);
    let mut child = Running(command.stdin(Stdio::piped()).spawn().unwrap());
    let mut pipe = child.0.stdin.take().unwrap();
    let stdin = stdin.to_owned();
    let writing = std::thread::spawn(move || pipe.write_all(stdin.as_bytes()));
    let stdout = child.0.stdout.take().unwrap();
    let stderr = child.0.stderr.take().unwrap();
    let reading = [lines_of(stdout), lines_of(stderr)];
    let status = child.ended().await;
    // Whoever refuses its arguments reads no stdin.
    let _ = writing.join().unwrap();
    let [stdout, stderr] = reading.map(|lines| lines.join().unwrap().join("\n").into_bytes());
    Output { status, stdout, stderr }
}

fn lines_of(pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).collect())
}

/// Killed if it is still there in the end.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        until("the command ends", async || self.0.try_wait().unwrap().is_some()).await;
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The JSON of each line of stdout.
pub(crate) fn json(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) async fn server(place: &Place) -> Server {
    Launch::new(&place.file()).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_takes_json_text_and_lines() {
    let place = Place::new();
    let server = server(&place).await;
    let base = server.base.as_str();
    let appended = ["append", "audits", r#"{"n":1.50}"#, "--type", "user.login", "--id", "a-1"];
    let first = json(&run(&place, base, &appended, "").await);
    assert_eq!(
        (&first[0]["seq"], &first[0]["stream"], &first[0]["id"]),
        (&1.into(), &"audits".into(), &"a-1".into())
    );
    let repeat = json(&run(&place, base, &appended, "").await);
    assert_eq!((&repeat[0]["seq"], &repeat[0]["duplicate"]), (&1.into(), &true.into()));
    assert_eq!(json(&run(&place, base, &["append", "notes", "it's \"text\""], "").await).len(), 1);
    let lines: String = (0..2_000).map(|line| format!("{{\"line\":{line}}}\n")).collect();
    let receipts = json(&run(&place, base, &["append", "logs", "-", "--type", "line"], &lines).await);
    let seqs: Vec<u64> = receipts.iter().map(|receipt| receipt["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (3..2_003).collect::<Vec<u64>>());
    let mixed =
        json(&run(&place, base, &["append", "logs", "-"], "plain\n\n[1, 2]\nno newline at the end").await);
    assert_eq!(mixed.len(), 3);

    let all = rows(&place.file(), 0).await;
    assert_eq!(all.len(), 2_005);
    let event =
        |index: usize| (all[index].stream.as_str(), all[index].r#type.as_str(), all[index].data.as_str());
    assert_eq!(event(0), ("audits", "user.login", r#"{"n":1.50}"#));
    assert_eq!(event(1), ("notes", "message", r#""it's \"text\"""#));
    assert_eq!(event(2), ("logs", "line", r#"{"line":0}"#));
    assert_eq!(event(2_001), ("logs", "line", r#"{"line":1999}"#));
    let rest: Vec<&str> = all[2_002..].iter().map(|row| row.data.as_str()).collect();
    assert_eq!(rest[0], "\"plain\"");
    assert!(rest[1] == "[1,2]" || rest[1] == "[1, 2]", "{rest:?}");
    assert_eq!(rest[2], "\"no newline at the end\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_says_what_to_do_when_it_cannot() {
    let place = Place::new();
    let server = server(&place).await;
    let refused = run(&place, &server.base, &["append", "Bad Name", "1"], "").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stream_invalid"), "{refused:?}");
    let usage = run(&place, &server.base, &["append", "logs", "-", "--id", "one"], "a\nb\n").await;
    assert_eq!(usage.status.code(), Some(2));
    drop(server);
    let nobody = format!("http://127.0.0.1:{}", lasting_port());
    let unreachable = run(&place, &nobody, &["append", "logs", "1"], "").await;
    assert_eq!(unreachable.status.code(), Some(1));
    let said = String::from_utf8_lossy(&unreachable.stderr).into_owned();
    assert!(said.ends_with("start the server, or name another with --url"), "{said}");
    assert_eq!(rows(&place.file(), 0).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_prints_one_json_event_a_line() {
    let place = Place::new();
    let server = server(&place).await;
    let base = server.base.as_str();
    let lines: String = (0..50).map(|line| format!("{line}\n")).collect();
    run(&place, base, &["append", "logs", "-"], &lines).await;
    run(&place, base, &["append", "audits", "{}", "--type", "user.login"], "").await;
    let all = rows(&place.file(), 0).await;
    let tail = async |arguments: &[&str]| {
        let output = run(&place, base, arguments, "").await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        stdout.lines().map(|line| Stored::parse(line).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(tail(&["tail", "--last", "10", "--limit", "10"]).await, all[41..]);
    assert_eq!(tail(&["tail", "logs", "--last", "3", "--limit", "2"]).await, all[47..49]);
    assert_eq!(tail(&["tail", "--after", "0", "--limit", "51"]).await, all);
    assert_eq!(tail(&["tail", "--after", "0", "--type", "user.*", "--limit", "1"]).await, all[50..]);
    // With an end of its own it ends by itself.
    assert_eq!(tail(&["tail", "logs.*", "--after", "0", "--before", "4"]).await, all[..0]);
    assert_eq!(
        tail(&["tail", "logs", "--where", "data>=48", "--after", "0", "--before", "51"]).await,
        all[48..50]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_prints_each_event_once_across_kills() {
    let place = Place::new();
    let launch = Launch::new(&place.file()).listen(format!("127.0.0.1:{}", lasting_port()));
    let launch = launch.with("EVERTAIL_RETRY_SECONDS_MAX", "1");
    let mut server = launch.start().await;
    let base = server.base.clone();
    let mut tail = Running(command(&place, &base, &["tail", "--after", "0"]).spawn().unwrap());
    let (told, mut printed) = watch::channel(Vec::<String>::new());
    let stdout = BufReader::new(tail.0.stdout.take().unwrap());
    let stderr = lines_of(tail.0.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            told.send_modify(|lines| lines.push(line));
        }
    });
    for round in 0..4 {
        let lines: String = (0..20).map(|line| format!("{{\"round\":{round},\"line\":{line}}}\n")).collect();
        run(&place, &base, &["append", "logs", "-"], &lines).await;
        // Alternately with all of it printed, and at whatever moment.
        if round % 2 == 0 {
            in_time(printed.wait_for(|lines| lines.len() == (round + 1) * 20)).await.unwrap();
        }
        server.kill();
        server = launch.start().await;
    }
    in_time(printed.wait_for(|lines| lines.len() >= 80)).await.unwrap();
    drop(tail);
    let complaints = stderr.join().unwrap();
    assert!(complaints.iter().all(|line| line.starts_with("evertail: disconnected; ")), "{complaints:?}");
    let printed: Vec<Stored> = printed.borrow().iter().map(|line| Stored::parse(line).unwrap()).collect();
    assert_eq!(printed, rows(&place.file(), 0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_tail_that_has_had_enough_is_success() {
    let place = Place::new();
    let server = server(&place).await;
    let lines: String = (0..5_000).map(|line| format!("{line}\n")).collect();
    run(&place, &server.base, &["append", "logs", "-"], &lines).await;
    let script = "\"$0\" tail --after 0 | head -n 2; echo \"${PIPESTATUS[0]}\"";
    let mut shell = evertail(&["bash", "-c", script].map(str::to_owned), place.folder());
    shell.env("EVERTAIL_URL", &server.base).stdin(Stdio::null());
    let mut child = Running(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let printed = lines_of(child.0.stdout.take().unwrap());
    let complaints = lines_of(child.0.stderr.take().unwrap());
    assert!(child.ended().await.success());
    let printed = printed.join().unwrap();
    assert_eq!((printed.len(), printed[2].as_str()), (3, "0"), "{printed:?}");
    assert_eq!(complaints.join().unwrap(), [""; 0]);
}
