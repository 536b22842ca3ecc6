//! The server under a supervisor, as systemd is one: on a socket that it was passed, and telling of its life.

use crate::cli::Running;
use crate::load::{self, Answer, Request};
use crate::server::{Launch, Place, evertail, in_time, until};
use crate::table::{self, rows};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{self, OpenptFlags};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixDatagram};
use tokio::sync::watch;

/// Where the server tells of its life.
pub(crate) struct Supervisor(UnixDatagram);

impl Supervisor {
    /// A supervisor of this launch.
    pub(crate) fn of(place: &Place, launch: Launch) -> (Self, Launch) {
        let path = place.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (Self(socket), launch.with("NOTIFY_SOCKET", path.display()))
    }

    /// The next that it is told, as lines.
    pub(crate) async fn told(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = in_time(self.0.recv(&mut buffer)).await.unwrap();
        str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits until it is told this.
    pub(crate) async fn hears(&self, line: &str) -> Vec<String> {
        loop {
            let told = self.told().await;
            if told.iter().any(|told| told == line) {
                return told;
            }
        }
    }

    /// Whether it was told nothing more.
    fn has_heard_all(&self) -> bool {
        self.0.try_recv(&mut [0; 4096]).is_err()
    }
}

/// One event, over a connection of its own.
async fn post(address: &str, event: &str) -> String {
    let mut socket = in_time(TcpStream::connect(address)).await.expect("no connection is refused");
    let request = format!(
        "POST /api/v1/audits HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{event}",
        event.len()
    );
    in_time(socket.write_all(request.as_bytes())).await.unwrap();
    let mut answer = String::new();
    in_time(socket.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_on_a_passed_socket_refuses_no_connection() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let launch = Launch::new(&place.file()).on(listener, 1);
    let mut server = launch.start().await;
    assert_eq!(server.base, format!("http://{address}"));

    let (end, ended) = watch::channel(false);
    let producers: Vec<_> = (0..4)
        .map(|producer| {
            let (ended, address) = (ended.clone(), address.clone());
            tokio::spawn(async move {
                let mut acked = Vec::new();
                for n in 0.. {
                    let id = format!("{producer}-{n}");
                    let answer = post(&address, &format!("{{\"id\":\"{id}\",\"data\":{n}}}")).await;
                    match answer.get(9..12) {
                        Some("201") => acked.push(id),
                        Some("503") if answer.contains("\"draining\"") => {}
                        _ => panic!("{id}: {answer:?}"),
                    }
                    if *ended.borrow() {
                        break;
                    }
                }
                acked
            })
        })
        .collect();
    for _ in 0..3 {
        let stored = rows(&place.file(), 0).await.len();
        until("events come in", async || rows(&place.file(), 0).await.len() > stored + 20).await;
        server.signal(Signal::TERM);
        assert_eq!(server.ended().await.code(), Some(0));
        // Nobody serves now, and who connects waits.
        let waiting = tokio::spawn({
            let address = address.clone();
            async move { post(&address, "{\"data\":\"waited\"}").await }
        });
        server = launch.start().await;
        assert!(waiting.await.unwrap().starts_with("HTTP/1.1 201"));
    }
    end.send_replace(true);
    let mut acked = Vec::new();
    for producer in producers {
        acked.extend(producer.await.unwrap());
    }
    let mut stored: Vec<_> = rows(&place.file(), 0).await.into_iter().filter_map(|event| event.id).collect();
    acked.sort();
    stored.sort();
    assert_eq!(acked, stored, "what was acked was stored, and what was refused was not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passed_socket_is_checked_as_an_address_is() {
    let place = Place::new();
    let open = || Launch::new(&place.file()).on(TcpListener::bind("0.0.0.0:0").unwrap(), 1);
    let local = || Launch::new(&place.file()).on(TcpListener::bind("127.0.0.1:0").unwrap(), 1);
    let connected = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    };
    let unix = UnixListener::bind(place.folder().join("socket")).unwrap();
    let new = || Launch::new(&place.file());
    for (launch, code, words) in [
        (open(), 2, "EVERTAIL_ALLOW_UNAUTHENTICATED=true"),
        (local().listen("127.0.0.1:1"), 2, "leave EVERTAIL_LISTEN out"),
        (new().on(TcpListener::bind("127.0.0.1:0").unwrap(), 2), 1, "passed 2 sockets"),
        (new().on(connected, 1), 1, "Accept=no"),
        (new().on(unix, 1), 1, "ListenStream="),
    ] {
        let mut server = launch.spawn();
        assert_eq!(server.ended().await.code(), Some(code), "{words}");
        let complaint = server.complaint().await;
        assert!(complaint.contains(words), "{complaint}");
        assert!(!place.file().exists(), "what does not serve makes no file");
    }
    open().with("EVERTAIL_AUTH", "on").start().await;
    // Variables that were left over for another process mean nothing.
    let server = new().with("LISTEN_FDS", "1").with("LISTEN_PID", "1").start().await;
    assert!(server.base.starts_with("http://127.0.0.1:"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_is_told_when_it_serves_reloads_and_stops() {
    let place = Place::new();
    let (supervisor, launch) = Supervisor::of(&place, Launch::new(&place.file()));
    let mut server = launch.start().await;
    let serving = format!("STATUS=serving on {}/", server.base);
    assert_eq!(supervisor.told().await, ["READY=1", &serving]);
    server.signal(Signal::HUP);
    let reloading = supervisor.told().await;
    assert_eq!(reloading[0], "RELOADING=1");
    let since: u64 = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!(since > 0);
    assert_eq!(supervisor.told().await, ["READY=1", &serving]);
    until("it says so", async || server.has_said("there is nothing to reload")).await;
    server.signal(Signal::TERM);
    assert_eq!(supervisor.told().await[0], "STOPPING=1");
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(supervisor.has_heard_all());

    // Who cannot serve was never ready.
    let holder = Launch::new(&place.file()).start().await;
    assert_eq!(launch.spawn().ended().await.code(), Some(1));
    assert!(supervisor.has_heard_all());
    drop(holder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watchdog_is_told_as_long_as_the_writer_answers() {
    let place = Place::new();
    let launch =
        Launch::new(&place.file()).with("WATCHDOG_USEC", 100_000).with("EVERTAIL_BUSY_TIMEOUT_SECONDS", 600);
    let (supervisor, launch) = Supervisor::of(&place, launch);
    let server = launch.start().await;
    for _ in 0..5 {
        supervisor.hears("WATCHDOG=1").await;
    }
    // Nobody can write, so the next commit waits, and the writer with it.
    let mut other = SqliteConnectOptions::new().filename(place.file()).connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let base = server.base.clone();
    let stuck = tokio::spawn(async move {
        let request = Request::one(load::event("audits", "message", None, 0));
        request.send(&load::http_client(), &base).await
    });
    until("it is silent", async || {
        tokio::time::timeout(Duration::from_secs(1), supervisor.told()).await.is_err()
    })
    .await;
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    supervisor.hears("WATCHDOG=1").await;
    assert!(matches!(in_time(stuck).await.unwrap(), Answer::Acked { .. }));
}

/// Reads from the terminal until it shows this.
async fn shows(mut terminal: std::fs::File, words: &'static str) -> std::fs::File {
    let reading = tokio::task::spawn_blocking(move || {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&text).contains(words) {
            let length = terminal.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..length]);
        }
        terminal
    });
    in_time(reading).await.unwrap()
}

/// A terminal that is closed takes the server along, as any other program that was started in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hangup_of_its_terminal_stops_the_server() {
    let place = Place::new();
    // Not for the server to inherit: a terminal with an end that is open is not closed.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = pty::openpt(flags).unwrap();
    pty::grantpt(&terminal).unwrap();
    pty::unlockpt(&terminal).unwrap();
    let name = pty::ptsname(&terminal, Vec::new()).unwrap();
    let other_end = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = evertail(&[], place.folder());
    command.env("EVERTAIL_FILE", place.file()).env("EVERTAIL_LISTEN", "127.0.0.1:0").stderr(other_end);
    let mut running = Running(command.spawn().unwrap());
    drop(command);
    let pid = Pid::from_child(&running.0);
    let terminal = shows(std::fs::File::from(terminal), "serving").await;
    // Of another process, it reloads.
    kill_process(pid, Signal::HUP).unwrap();
    let terminal = shows(terminal, "nothing to reload").await;
    drop(terminal);
    kill_process(pid, Signal::HUP).unwrap();
    assert_eq!(running.ended().await.code(), Some(0));
    assert_eq!(table::wal_bytes(&place.file()), 0, "it has stopped in order");
}
