//! The promise against a server that is killed, whose disk fails or fills, that is stopped or doubled: the real binary
//! as a process of its own, over real sockets, on a real file.
//!
//! | file | shows |
//! |---|---|
//! | `kill_nine` | kill -9 at any moment loses no ack, reuses no seq, and costs no reader an event |
//! | `closing` | a stream that is being closed is closed with its final event or not at all |
//! | `crash_points` | nor does a kill at any one write of a first start, of a commit, of a checkpoint |
//! | `fsync_before_ack` | from the trace of the system calls: nothing is told before the fsync that makes it durable |
//! | `io_error` | one failed fsync ends acking for good, and the next start holds all that was acked |
//! | `disk_full` | a full disk refuses, keeps readers, and heals by itself |
//! | `logs` | the life of a process in its own log, and every line of a request by its name |
//! | `traces` | spans of requests, as a collector gets them |
//! | `graceful_stop` | SIGTERM under load loses nothing and tells the readers |
//! | `supervised` | a passed socket refuses nobody across a restart; a supervisor is told when it serves, reloads, stops and lives |
//! | `reloading` | SIGHUP takes a new certificate and new keys, keeps the old ones where the new are of no use, and ends nothing |
//! | `packaging` | `--version`, completions, manual pages, the unit of systemd and the Dockerfile |
//! | `refused_starts` | a second server on the file and an open address are turned away with the next step |
//! | `cli` | `evertail append` and `evertail tail` as processes, also across a kill -9 |
//! | `admin` | `evertail trim` and `evertail hold`, also across a kill -9 |
//! | `auth` | the first token, the client commands with one, and that no log holds a credential or a payload |
//! | `transfer` | `evertail export` and `evertail import`: the same events in the same order |
//! | `copies` | `evertail backup`, `restore`, `check` and `doctor` beside a server at work |
//! | `queries` | the queries of `docs/sqlite.md`, each with the system's `sqlite3` |
//! | `https` | the server with a certificate, and the client commands over it |
//! | `hostile` | thousands that are silent, slow or deaf at once cost memory within bounds and nobody a place; log lines are not forged |
//! | `herd` | thousands of readers that lose their server together come back spread, and miss nothing |
//! | `descriptors` | a low descriptor limit bounds the connections and not the service |
//!
//! The rest is the harness: `server` runs the process, `load` posts to it, `event_source` and `reader` read from it the
//! way a browser does, `crowd` connects and never reads, `ledger` holds what everyone was told and compares it with `table`, `trace` reads strace's output.
//!
//! `EVERTAIL_CRASH_CYCLES` sets the number of kills, 100 if it is not given.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod admin;
mod auth;
mod cli;
mod closing;
mod copies;
mod crash_points;
mod crowd;
mod descriptors;
mod disk_full;
mod event_source;
mod fsync_before_ack;
mod graceful_stop;
mod herd;
mod hostile;
mod https;
mod io_error;
mod kill_nine;
mod ledger;
mod load;
mod logs;
mod packaging;
mod queries;
mod reader;
mod refused_starts;
mod reloading;
mod server;
mod supervised;
mod table;
mod trace;
mod traces;
mod transfer;
