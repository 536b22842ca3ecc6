//! What strace has seen: the system calls of all threads in the order in which they began and ended.
//!
//! A call that another thread's interrupts is written on two lines, `<unfinished ...>` and `resumed`: it began at the
//! first and ended at the second. A call on one line began and ended with nothing in between.
//!
//! # The proof
//! Events carry marks. A mark that goes out on a socket must be durable: the page of the write-ahead log that holds it
//! was written, the frame that commits its transaction too, and an fsync of the write-ahead log that began after that
//! has ended with success, all before the call began that told of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::{Command, Stdio};

/// What every mark begins with; so many digits follow.
const MARK: &str = "mark-";
const MARK_DIGITS: usize = 6;
/// A frame of the write-ahead log: this header, then a page. *Source*: <https://www.sqlite.org/fileformat2.html#walformat>.
const FRAME_HEADER_BYTES: usize = 24;
/// The header of the write-ahead log itself.
const WAL_HEADER_BYTES: usize = 32;

/// A unique word for an event.
pub(crate) fn mark(number: usize) -> String {
    format!("{MARK}{number:0MARK_DIGITS$}")
}

/// The words before a program so that strace follows it from aside: the process that is started is the program itself.
pub(crate) fn strace(out: &Path, options: &[&str]) -> Vec<String> {
    let mut words = vec!["strace", "-D", "-f", "-yy", "-s", "20000", "-o", out.to_str().unwrap()];
    words.extend(options);
    words.into_iter().map(str::to_owned).collect()
}

/// Why strace cannot be used here, if it cannot.
pub(crate) fn missing_strace() -> Option<String> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=fsync", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    match strace.status() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("strace cannot trace here ({status}); allow ptrace")),
        Err(error) => Some(format!("strace cannot be run ({error}); install it")),
    }
}

/// One system call.
#[derive(Debug, Default)]
pub(crate) struct Call {
    name: String,
    arguments: String,
    /// Line on which it began.
    began: usize,
    /// Line on which it ended with this result; `None` if the process ended first.
    ended: Option<(usize, i64)>,
}

impl Call {
    /// The file or the socket that its first argument names.
    fn target(&self) -> &str {
        let Some((_, rest)) = self.arguments.split_once('<') else { return "" };
        // A socket's name has an arrow in it.
        let end = [">,", ">)"].iter().filter_map(|end| rest.find(end)).min();
        rest[..end.unwrap_or(rest.len())].trim_end_matches('>')
    }

    /// Every string among its arguments, decoded and joined.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = self.arguments.bytes().peekable();
        while rest.by_ref().any(|byte| byte == b'"') {
            while let Some(byte) = rest.next().filter(|byte| *byte != b'"') {
                bytes.push(if byte == b'\\' { unescape(&mut rest) } else { byte });
            }
        }
        bytes
    }
}

fn unescape(rest: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> u8 {
    match rest.next() {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'v') => 11,
        Some(b'f') => 12,
        Some(first @ b'0'..=b'7') => {
            let mut value = first - b'0';
            for _ in 0..2 {
                let Some(digit) = rest.next_if(|byte| (b'0'..=b'7').contains(byte)) else { break };
                value = value.wrapping_mul(8).wrapping_add(digit - b'0');
            }
            value
        }
        other => other.unwrap_or(b'\\'),
    }
}

/// Reads the output of `strace -f`.
pub(crate) fn parse(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: HashMap<&str, usize> = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let (index, ending) = if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(index) = open.remove(thread) else { continue };
            let Some((_, ending)) = resumed.split_once(" resumed>") else { continue };
            (index, ending)
        } else {
            let Some((name, arguments)) = rest.split_once('(') else { continue };
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                continue;
            }
            calls.push(Call { name: name.to_owned(), began: at, ..Call::default() });
            (calls.len() - 1, arguments)
        };
        let call = &mut calls[index];
        if let Some(beginning) = ending.strip_suffix(" <unfinished ...>") {
            call.arguments.push_str(beginning);
            open.insert(thread, index);
        } else if let Some((arguments, result)) = ending.rsplit_once(" = ") {
            call.arguments.push_str(arguments);
            let result = result.split_whitespace().next().and_then(|result| result.parse().ok());
            call.ended = result.map(|result| (at, result));
        }
    }
    calls
}

/// What a trace proves.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// Marks that an answer of 201 told.
    pub(crate) acked: BTreeSet<String>,
    /// Marks that anything told: answers, pages and streams.
    pub(crate) told: BTreeSet<String>,
    /// Commits of the write-ahead log, each with an fsync after it.
    pub(crate) commits: usize,
}

/// Proves that nothing was told before it was durable.
///
/// *Errors*: the first thing that was told too early.
pub(crate) fn prove(calls: &[Call], wal: &Path) -> Result<Proof, String> {
    let wal = wal.to_str().unwrap();
    let (durable, commits) = durable_marks(calls, wal);
    let mut proof = Proof { commits, ..Proof::default() };
    for call in calls.iter().filter(|call| call.target().starts_with("TCP")) {
        let bytes = call.bytes();
        let marks = marks(&bytes);
        let is_ack = bytes.starts_with(b"HTTP/1.1 201");
        if is_ack && marks.is_empty() {
            return Err(format!("an answer of 201 that names nothing: {call:?}"));
        }
        for mark in marks {
            let is_durable = durable.get(&mark).is_some_and(|at| *at < call.began);
            if !is_durable {
                let durable = durable.get(&mark);
                return Err(format!(
                    "{mark} was told at line {}, and was durable at {durable:?}: {call:?}",
                    call.began
                ));
            }
            if is_ack {
                proof.acked.insert(mark.clone());
            }
            proof.told.insert(mark);
        }
    }
    Ok(proof)
}

/// From which line on each mark is durable, and how many commits there were.
fn durable_marks(calls: &[Call], wal: &str) -> (BTreeMap<String, usize>, usize) {
    let mut durable = BTreeMap::new();
    let mut unsynced: Vec<(usize, BTreeSet<String>)> = Vec::new();
    let mut transaction = BTreeSet::new();
    let mut is_last_frame = false;
    let mut commits = 0;
    // In the order of their ends: a call counts when it is done.
    let mut ended: Vec<(usize, i64, &Call)> = calls
        .iter()
        .filter(|call| call.target() == wal)
        .filter_map(|c| c.ended.map(|e| (e.0, e.1, c)))
        .collect();
    ended.sort_by_key(|(end, ..)| *end);
    for (end, result, call) in ended {
        match call.name.as_str() {
            "pwrite64" => {
                let bytes = call.bytes();
                if usize::try_from(result) != Ok(bytes.len()) || bytes.len() == WAL_HEADER_BYTES {
                    continue;
                }
                if bytes.len() == FRAME_HEADER_BYTES {
                    // The size of the database after the commit: zero but in the last frame of one.
                    is_last_frame = bytes[4..8] != [0; 4];
                    continue;
                }
                transaction.extend(marks(&bytes));
                if is_last_frame {
                    unsynced.push((end, std::mem::take(&mut transaction)));
                }
            }
            "fsync" | "fdatasync" if result == 0 => {
                let (synced, rest) =
                    std::mem::take(&mut unsynced).into_iter().partition(|(at, _)| *at < call.began);
                unsynced = rest;
                let synced: Vec<(usize, BTreeSet<String>)> = synced;
                commits += synced.len();
                for mark in synced.into_iter().flat_map(|(_, marks)| marks) {
                    durable.entry(mark).or_insert(end);
                }
            }
            _ => {}
        }
    }
    (durable, commits)
}

/// The first line on which a mark went out on a socket.
pub(crate) fn first_told(calls: &[Call]) -> Option<usize> {
    let sockets = calls.iter().filter(|call| call.target().starts_with("TCP"));
    sockets.filter(|call| !marks(&call.bytes()).is_empty()).map(|call| call.began).min()
}

/// The lines on which an fsync of this file ended well.
pub(crate) fn syncs(calls: &[Call], file: &Path) -> Vec<usize> {
    let file = file.to_str().unwrap();
    let syncs = calls.iter().filter(|call| call.name.ends_with("sync") && call.target() == file);
    syncs.filter_map(|call| call.ended.filter(|(_, result)| *result == 0).map(|(end, _)| end)).collect()
}

/// The lines on which a write to this file began.
pub(crate) fn writes(calls: &[Call], file: &Path) -> Vec<usize> {
    let file = file.to_str().unwrap();
    let writes = calls.iter().filter(|call| call.name == "pwrite64" && call.target() == file);
    writes.map(|call| call.began).collect()
}

/// The lines on which the head of this WAL was written: with its first frames, or when all of it is written anew.
pub(crate) fn head_writes(calls: &[Call], wal: &Path) -> Vec<usize> {
    let wal = wal.to_str().unwrap();
    let writes = calls.iter().filter(|call| call.name == "pwrite64" && call.target() == wal);
    // Both byte orders of the checksums begin so.
    writes.filter(|call| call.bytes().starts_with(&[0x37, 0x7f, 0x06])).map(|call| call.began).collect()
}

fn marks(bytes: &[u8]) -> BTreeSet<String> {
    let length = MARK.len() + MARK_DIGITS;
    let found = bytes.windows(length).filter(|word| {
        word.starts_with(MARK.as_bytes()) && word[MARK.len()..].iter().all(u8::is_ascii_digit)
    });
    found.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

const WAL: &str = "/d/log.db-wal";

/// The lines of a commit that holds a mark, from the first frame to the last.
fn commit(mark: &str) -> String {
    let header = |size: &str| {
        format!(
            r#"7 pwrite64(9<{WAL}>, "\0\0\0\1\0\0\0{size}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, 32) = 24"#
        )
    };
    let page =
        format!(r#"7 pwrite64(9<{WAL}>, "\r\0{mark}\"", {}, 56) = {}"#, mark.len() + 3, mark.len() + 3);
    [header("\\0"), page.clone(), header("\\4"), page].join("\n")
}

fn verdict(lines: &[&str]) -> Result<usize, String> {
    prove(&parse(&lines.join("\n")), Path::new(WAL)).map(|proof| proof.acked.len())
}

const TOLD: &str = r#"8 writev(5<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{iov_base="HTTP/1.1 201 Created\r\n", iov_len=22}, {iov_base="{\"id\":\"mark-000001\"}", iov_len=20}], 2) = 42"#;

#[test]
fn a_mark_told_after_its_commit_is_synced_is_proven() {
    let commit = commit("mark-000001");
    assert_eq!(verdict(&[&commit, "7 fsync(9</d/log.db-wal>) = 0", TOLD]), Ok(1));
    let split = ["7 fsync(9</d/log.db-wal> <unfinished ...>", "8 read(5) = 1", "7 <... fsync resumed>) = 0"];
    assert_eq!(verdict(&[&commit, &split.join("\n"), TOLD]), Ok(1));
}

#[test]
fn a_mark_told_before_its_commit_is_synced_is_a_fault() {
    let commit = commit("mark-000001");
    let sync = "7 fsync(9</d/log.db-wal>) = 0";
    let began = "7 fsync(9</d/log.db-wal> <unfinished ...>";
    let ended = "7 <... fsync resumed>) = 0";
    let first_frames = commit.lines().take(2).collect::<Vec<_>>().join("\n");
    for lines in [
        vec![commit.as_str(), TOLD],
        vec![&commit, TOLD, sync],
        vec![sync, &commit, TOLD],
        vec![&commit, began, TOLD, ended],
        vec![began, &commit, ended, TOLD],
        vec![&commit, "7 fsync(9</d/log.db-wal>) = -1 EIO (Input/output error) (INJECTED)", TOLD],
        vec![&commit, "7 fsync(9</d/log.db>) = 0", TOLD],
        vec![&first_frames, sync, TOLD],
    ] {
        assert!(verdict(&lines).is_err(), "{lines:#?}");
    }
}
