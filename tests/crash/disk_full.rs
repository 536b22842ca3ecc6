//! A full disk refuses appends and nothing else, and heals by itself.

use crate::ledger::Ledger;
use crate::load::{self, Answer, Request};
use crate::reader::{Manner, Reader, Wanted};
use crate::server::{Launch, Place, Server, complain, until};
use crate::table::{assert_sound, rows};
use crate::trace::{missing_strace, strace};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const DISK_BYTES: u64 = 40 << 20;
const READER: Wanted = Wanted { path: "/events?after=0", matches: |_| true, manner: Manner::Native };

/// A small file system of its own, gone with the value.
struct Disk {
    place: Place,
}

impl Disk {
    /// *Errors*: why none can be had here.
    fn mount() -> Result<Self, String> {
        let disk = Self { place: Place::new() };
        let image = disk.place.folder().join("image");
        fs::create_dir(disk.root()).unwrap();
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.root()))?;
        Ok(disk)
    }

    fn root(&self) -> PathBuf {
        self.place.folder().join("disk")
    }

    fn file(&self) -> PathBuf {
        self.root().join("log.db")
    }

    fn balloon(&self) -> PathBuf {
        self.root().join("balloon")
    }

    /// Fills the disk up to so many bytes.
    fn fill(&self, bytes_left: u64) {
        let balloon = File::create(self.balloon()).unwrap();
        let mut step = self.free().saturating_sub(bytes_left);
        while step > 0 {
            let size = balloon.metadata().unwrap().len();
            // The file system keeps some of what it says is free for its own records.
            if fallocate(&balloon, FallocateFlags::empty(), size, step).is_err() {
                step /= 2;
            }
            step = step.min(self.free().saturating_sub(bytes_left));
        }
    }

    fn free(&self) -> u64 {
        let disk = statvfs(self.root()).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    fn relieve(&self) {
        fs::remove_file(self.balloon()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted if there was a reason to skip.
        let _ = run(Command::new("umount").arg(self.root()))
            .or_else(|_| run(Command::new("umount").arg("-l").arg(self.root())));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Who appends, and what they were answered.
struct Producer {
    http: reqwest::Client,
    ledger: Ledger,
    count: u64,
}

impl Producer {
    fn new() -> Self {
        Self { http: crate::load::http_client(), ledger: Ledger::default(), count: 0 }
    }

    /// Appends a batch; false if the disk is full, which must be said as it should.
    async fn append(&mut self, base: &str, events: usize, padding: usize) -> bool {
        self.count += 1;
        let event = |index| {
            let id = format!("{}-{index}", self.count);
            load::event("audits", "message", Some(id), padding)
        };
        let request = Request::batch((0..events).map(event).collect());
        self.ledger.post(&request.events);
        let sent_at = Instant::now();
        match request.send(&self.http, base).await {
            Answer::Acked { receipts, .. } => {
                self.ledger.ack(sent_at, &request.events, &receipts);
                true
            }
            Answer::Refused { status: 507, code, retry_after } => {
                assert_eq!(code, "disk_full");
                let seconds = retry_after.and_then(|seconds| seconds.parse::<u64>().ok());
                assert!(seconds.is_some_and(|seconds| seconds > 0), "no Retry-After");
                false
            }
            other => panic!("{other:?}"),
        }
    }

    /// Appends until the disk is full.
    async fn fill(&mut self, base: &str) {
        let mut refused = 0;
        until("the disk is full", async || {
            refused = if self.append(base, 3, 2_000).await { 0 } else { refused + 1 };
            refused == 10
        })
        .await;
    }

    /// Appends until appends go through again, without a restart.
    async fn heal(&mut self, base: &str) {
        until("appends go through again", async || self.append(base, 3, 2_000).await).await;
        for _ in 0..100 {
            assert!(self.append(base, 10, 2_000).await, "there is space");
        }
    }

    /// The table holds what was acked and nothing of what was refused.
    async fn assert_only_acked_is_stored(&self, file: &Path) {
        let all = rows(file, 0).await;
        self.ledger.assert_agrees(&all);
        assert_eq!(all.len(), self.ledger.acks(), "something refused was stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_appends_and_heals_by_itself() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(reason) => return complain(&format!("SKIPPED disk_full: {reason}")),
    };
    // Nothing in memory: readers need the file itself.
    let mut server = Launch::new(&disk.file()).with("EVERTAIL_WINDOW_BYTES_MAX", "0").start().await;
    let base = server.base.clone();
    let mut producer = Producer::new();
    let reader = Reader::start(&base, READER, &producer.ledger);
    for _ in 0..20 {
        assert!(producer.append(&base, 5, 2_000).await);
    }
    for round in 0..2 {
        disk.fill(if round == 0 { 0 } else { 200_000 });
        producer.fill(&base).await;
        producer.assert_only_acked_is_stored(&disk.file()).await;
        assert_reads_are_served(&mut server, &reader, &producer, &disk).await;
        disk.relieve();
        producer.heal(&base).await;
        producer.assert_only_acked_is_stored(&disk.file()).await;
    }
    assert!(server.is_running(), "it was not restarted");
    reader.got_exactly(&rows(&disk.file(), 0).await).await;
    assert_eq!(reader.record().controls, []);
    server.kill();
    drop(Launch::new(&disk.file()).start().await);
    producer.assert_only_acked_is_stored(&disk.file()).await;
    assert_sound(&disk.file()).await;
}

/// While the disk is full: a page, an open stream and a new one.
async fn assert_reads_are_served(server: &mut Server, reader: &Reader, producer: &Producer, disk: &Disk) {
    let all = rows(&disk.file(), 0).await;
    assert_eq!(load::page(&server.base, "last=7").await, all[all.len() - 7..]);
    reader.got_exactly(&all).await;
    Reader::start(&server.base, READER, &producer.ledger).got_exactly(&all).await;
    let alive = crate::load::http_client().get(format!("{}/healthz", server.base)).send().await.unwrap();
    assert_eq!(alive.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_floor_refuses_before_the_disk_is_full() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(reason) => return complain(&format!("SKIPPED disk_full: {reason}")),
    };
    let floor: u64 = 8 << 20;
    let mut server = Launch::new(&disk.file()).with("EVERTAIL_DISK_FREE_BYTES_MIN", floor).start().await;
    let base = server.base.clone();
    let mut producer = Producer::new();
    assert!(producer.append(&base, 5, 2_000).await);
    disk.fill(floor - (1 << 20));
    for _ in 0..5 {
        assert!(!producer.append(&base, 5, 2_000).await, "the disk is below its floor");
    }
    let free = disk.free();
    assert!(free > floor / 2, "the log has used up its reserve: {free} bytes are free");
    producer.assert_only_acked_is_stored(&disk.file()).await;
    disk.relieve();
    producer.heal(&base).await;
    producer.assert_only_acked_is_stored(&disk.file()).await;
    assert!(server.is_running());
}

/// Killed on a full disk, it cannot move the WAL into the file: it may refuse to start, and then says so; with space it
/// starts and has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_on_a_full_disk_starts_again_when_there_is_space() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(reason) => return complain(&format!("SKIPPED disk_full: {reason}")),
    };
    let launch = Launch::new(&disk.file());
    let mut server = launch.start().await;
    let mut producer = Producer::new();
    // Some of it in the file, the rest in the WAL.
    for _ in 0..6 {
        assert!(producer.append(&server.base, 100, 10_000).await);
    }
    disk.fill(0);
    producer.fill(&server.base.clone()).await;
    server.kill();
    let mut full = launch.spawn();
    until("it serves or ends", async || !full.is_running() || full.is_serving()).await;
    if full.is_running() {
        complain("a killed server starts on a full disk");
    } else {
        assert_eq!(full.ended().await.code(), Some(1));
        let complaint = full.complaint().await;
        assert!(
            complaint.contains(disk.file().to_str().unwrap()) && complaint.contains("full"),
            "{complaint}"
        );
    }
    drop(full);
    disk.relieve();
    let server = launch.start().await;
    producer.assert_only_acked_is_stored(&disk.file()).await;
    producer.heal(&server.base).await;
    producer.assert_only_acked_is_stored(&disk.file()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_find_no_space_refuse_and_heal() {
    if let Some(reason) = missing_strace() {
        return complain(&format!("SKIPPED disk_full: {reason}"));
    }
    for when in ["30..60", "41..90"] {
        let inject = format!("inject=pwrite64:error=ENOSPC:when={when}");
        let wrapper = strace(Path::new("/dev/null"), &["-e", "trace=pwrite64", "-e", &inject]);
        let place = Place::new();
        drop(Launch::new(&place.file()).start().await);
        let mut server = Launch::new(&place.file()).under(wrapper).start().await;
        let base = server.base.clone();
        let mut producer = Producer::new();
        let reader = Reader::start(&base, READER, &producer.ledger);
        let mut refused = 0;
        for _ in 0..80 {
            refused += usize::from(!producer.append(&base, 3, 2_000).await);
        }
        assert!(refused > 0, "no write was refused");
        producer.heal(&base).await;
        assert!(server.is_running());
        producer.assert_only_acked_is_stored(&place.file()).await;
        reader.got_exactly(&rows(&place.file(), 0).await).await;
        complain(&format!("ENOSPC at the writes {when}: {refused} appends refused, then healed"));
    }
}

/// It tried without a pause, and filled its own log with the same line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_that_cannot_trim_says_so_once_and_goes_on_when_there_is_space() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(reason) => return complain(&format!("SKIPPED disk_full: {reason}")),
    };
    let mut server = Launch::new(&disk.file()).start().await;
    let mut producer = Producer::new();
    for _ in 0..30 {
        assert!(producer.append(&server.base, 100, 5_000).await);
    }
    server.signal(rustix::process::Signal::TERM);
    assert!(server.ended().await.success());
    // Enough to start with, too little for a step.
    disk.fill(100_000);
    let mut server = Launch::new(&disk.file()).with("EVERTAIL_RETENTION_EVENTS", 1).start().await;
    until("it cannot trim", async || server.has_said("nothing was trimmed")).await;
    // Each answer gives it time to try again.
    for _ in 0..50 {
        assert_eq!(load::page(&server.base, "last=1").await.len(), 1);
    }
    disk.relieve();
    until("it trims", async || rows(&disk.file(), 0).await.len() < 2_000).await;
    server.kill();
    let told = server.stderr().await.iter().filter(|line| line.contains("nothing was trimmed")).count();
    assert_eq!(told, 1);
    // The newest that was appended, and perhaps what tells of the trim.
    assert!(rows(&disk.file(), 0).await.iter().any(|row| row.seq == 3_000));
}
