//! From the trace of the system calls: nothing is told, by an ack, a page or a stream, before the fsync that makes it
//! durable has ended.

use crate::load::{self, Answer, Request};
use crate::server::{Launch, Place, Server, complain, in_time};
use crate::table::rows;
use crate::trace::{
    Call, first_told, head_writes, mark, missing_strace, parse, prove, strace, syncs, writes,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const CALLS: &str = "trace=fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg";
/// Producers that post at the same time, and what each posts.
const PRODUCERS: usize = 8;
const POSTS: usize = 6;
const BATCH: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_before_the_fsync_that_makes_it_durable() {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED fsync_before_ack: {reason}"));
    }
    let place = Place::new();
    let out = place.folder().join("trace");
    let mut server = Launch::new(&place.file()).under(strace(&out, &["-e", CALLS])).start().await;
    let stream = tokio::spawn(read_stream(server.base.clone(), (30 + PRODUCERS * POSTS * BATCH) as u64));
    let mut acked = BTreeSet::new();
    for number in 0..30 {
        acked.extend(post(&server.base, &[number]).await);
    }
    let producers = (0..PRODUCERS).map(|producer| {
        let base = server.base.clone();
        tokio::spawn(async move {
            let mut acked = BTreeSet::new();
            for post_number in 0..POSTS {
                let first = 30 + (producer * POSTS + post_number) * BATCH;
                let numbers: Vec<usize> = (first..first + BATCH).collect();
                acked.extend(post(&base, &numbers).await);
                // A page shows what others have just appended.
                load::page(&base, "last=20").await;
            }
            acked
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        acked.extend(producer.await.unwrap());
    }
    in_time(stream).await.unwrap();
    let calls = end(&mut server, &out).await;
    let proof = prove(&calls, &wal(&place)).unwrap();
    complain(&format!("{} acks told after their fsync, in {} commits", proof.acked.len(), proof.commits));
    assert_eq!(acked.len(), 30 + PRODUCERS * POSTS * BATCH);
    assert_eq!(proof.acked, acked, "every ack that was received is in the trace");
    assert_eq!(proof.told, acked);
    assert!(proof.commits >= 30, "each event that was posted alone has a commit of its own");
}

/// Killed between the write of a commit and its fsync, the server leaves an event that only the page cache has. It is
/// there after the restart, and must not be shown before it is made durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_left_unsynced_is_made_durable_before_it_is_shown() {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED fsync_before_ack: {reason}"));
    }
    let place = Place::new();
    let out = place.folder().join("trace");
    let (mut server, posted) = restarted_with_unsynced(&Launch::new(&place.file()), &out).await;
    let calls = end(&mut server, &out).await;
    let told = first_told(&calls).unwrap();
    let written = writes(&calls, &place.file()).into_iter().min().expect("the WAL is moved into the file");
    let is_before = |file: &Path, line: usize| syncs(&calls, file).iter().any(|end| *end < line);
    assert!(is_before(&wal(&place), written), "the WAL is synced before it is moved into the file");
    let moved = writes(&calls, &place.file()).into_iter().filter(|line| *line < told).max().unwrap();
    let is_synced = syncs(&calls, &place.file()).iter().any(|end| moved < *end && *end < told);
    assert!(is_synced, "the file is synced before anything of it is shown");
    assert_eq!(rows(&place.file(), 0).await.len(), posted + 1);
}

/// The same where the WAL stays where it is, since checkpoints are another program's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_unsynced_in_a_wal_that_is_not_ours_to_move_is_written_anew_before_it_is_shown() {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED fsync_before_ack: {reason}"));
    }
    let place = Place::new();
    let out = place.folder().join("trace");
    let launch = Launch::new(&place.file()).with("EVERTAIL_CHECKPOINTS", "external");
    let (mut server, posted) = restarted_with_unsynced(&launch, &out).await;
    let calls = end(&mut server, &out).await;
    let told = first_told(&calls).unwrap();
    let moved = writes(&calls, &place.file()).into_iter().filter(|line| *line < told).count();
    assert_eq!(moved, 0, "nothing is moved into the file");
    let written = head_writes(&calls, &wal(&place)).into_iter().min().expect("the WAL is written anew");
    let is_synced = syncs(&calls, &wal(&place)).iter().any(|end| written < *end && *end < told);
    assert!(is_synced, "the WAL is synced before anything of it is shown");
    assert_eq!(rows(&place.file(), 0).await.len(), posted + 1);
}

/// A server after one that was killed between a write and its fsync, traced; and the number of the event that only the page
/// cache has, which it has shown.
async fn restarted_with_unsynced(launch: &Launch, out: &Path) -> (Server, usize) {
    drop(launch.start().await);
    let kill = strace(out, &["-e", "trace=fsync", "-e", "inject=fsync:signal=SIGKILL:when=12"]);
    let mut server = launch.clone().under(kill).start().await;
    let http = crate::load::http_client();
    let mut posted = 0;
    while let Answer::Acked { .. } = request(&[posted]).send(&http, &server.base).await {
        posted += 1;
        assert!(posted < 100, "acks without fsyncs");
    }
    assert!(posted > 0 && !server.ended().await.success());

    let server = launch.clone().under(strace(out, &["-e", CALLS])).start().await;
    let page = load::page(&server.base, "last=1").await;
    assert_eq!(page[0].id, Some(mark(posted)), "the event that was not acked is in the page cache");
    (server, posted)
}

fn wal(place: &Place) -> PathBuf {
    place.file().with_extension("db-wal")
}

/// Ends the server, and reads its trace once that is whole.
async fn end(server: &mut Server, out: &Path) -> Vec<Call> {
    server.kill();
    server.stderr().await;
    parse(&String::from_utf8_lossy(&std::fs::read(out).unwrap()))
}

fn request(numbers: &[usize]) -> Request {
    let event = |number: &usize| load::event("audits", "message", Some(mark(*number)), 0);
    match numbers {
        [number] => Request::one(event(number)),
        _ => Request::batch(numbers.iter().map(event).collect()),
    }
}

/// Posts events with these marks as their ids, and returns the marks once they are acked.
async fn post(base: &str, numbers: &[usize]) -> Vec<String> {
    let http = crate::load::http_client();
    match request(numbers).send(&http, base).await {
        Answer::Acked { status: 201, .. } => numbers.iter().map(|number| mark(*number)).collect(),
        other => panic!("{other:?}"),
    }
}

/// Reads a stream until it ends.
async fn read_stream(base: String, limit: u64) {
    let url = format!("{base}/api/v1/audits?after=0&limit={limit}");
    let response =
        crate::load::http_client().get(url).header("accept", "text/event-stream").send().await.unwrap();
    response.bytes().await.unwrap();
}
