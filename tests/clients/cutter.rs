//! A proxy between a client and the server, on a port of its own: it cuts connections where it is told to, knows what
//! the client asks for and when, and can be gone, as a server is that does not run.

use crate::server::{in_time, lasting_port};
use memchr::memmem;
use socket2::SockRef;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The end of one connection: so many bytes before the end of these words.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) words: String,
    pub(crate) less: usize,
}

/// A request for the stream.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The cursor that it came with.
    pub(crate) last_event_id: Option<String>,
    /// That was in its query: a program made this one, and not the client by itself.
    pub(crate) is_reopened: bool,
    /// Since the last connection ended.
    pub(crate) delay: Option<Duration>,
}

/// What the proxy has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<Request>,
    /// All that was passed to the client.
    pub(crate) passed: Vec<u8>,
    ended: Option<Instant>,
    open: usize,
}

struct Shared {
    upstream: SocketAddr,
    /// Where requests for anything but the log go: one origin for a page and the log, as behind a proxy.
    site: Mutex<Option<SocketAddr>>,
    cuts: Mutex<VecDeque<Cut>>,
    seen: watch::Sender<Seen>,
    /// Counts the times that all open connections are reset.
    resets: watch::Sender<u64>,
}

pub(crate) struct Cutter {
    port: u16,
    shared: Arc<Shared>,
    connections: Option<JoinSet<()>>,
}

impl Cutter {
    /// One in front of the server at this port.
    pub(crate) async fn start(server_port: u16) -> Self {
        let shared = Shared {
            upstream: ([127, 0, 0, 1], server_port).into(),
            site: Mutex::default(),
            cuts: Mutex::default(),
            seen: watch::Sender::default(),
            resets: watch::Sender::default(),
        };
        let mut cutter = Self { port: lasting_port(), shared: Arc::new(shared), connections: None };
        cutter.listen().await;
        cutter
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Passes requests for a page on to this address.
    pub(crate) fn serve(&self, site: SocketAddr) {
        *self.shared.site.lock().unwrap() = Some(site);
    }

    /// Ends the connections to come, one each.
    pub(crate) fn cut(&self, cuts: impl IntoIterator<Item = Cut>) {
        self.shared.cuts.lock().unwrap().extend(cuts);
    }

    /// Resets what is open: the client may lose what it was sent and has not read.
    pub(crate) fn reset(&self) {
        self.shared.resets.send_modify(|resets| *resets += 1);
    }

    pub(crate) async fn listen(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let shared = self.shared.clone();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                open.spawn(carry(shared.clone(), client));
            }
        });
        self.connections = Some(connections);
    }

    /// Listens no more, as if there were no server. What is open ends first by itself.
    pub(crate) async fn leave(&mut self) {
        in_time(self.shared.seen.subscribe().wait_for(|seen| seen.open == 0)).await.unwrap();
        if let Some(mut connections) = self.connections.take() {
            connections.shutdown().await;
        }
    }

    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.shared.seen.subscribe()
    }

    /// How much was passed so far.
    pub(crate) fn passed(&self) -> usize {
        self.shared.seen.borrow().passed.len()
    }

    /// Waits until these words have been passed, behind so many bytes.
    pub(crate) async fn has_passed(&self, from: usize, words: &str) {
        let is_there = |seen: &Seen| memmem::find(&seen.passed[from..], words.as_bytes()).is_some();
        in_time(self.seen().wait_for(is_there)).await.unwrap();
    }

    /// Waits until there was one more than so many requests, and returns it.
    pub(crate) async fn request(&self, before: usize) -> Request {
        let mut seen = self.seen();
        in_time(seen.wait_for(|seen| seen.requests.len() > before)).await.unwrap().requests[before].clone()
    }
}

async fn carry(shared: Arc<Shared>, mut client: TcpStream) {
    // Browsers open connections ahead, which would take places at the server.
    let mut begin = [0; 8];
    match client.peek(&mut begin).await {
        Ok(1..) => {}
        _ => return,
    }
    let site = *shared.site.lock().unwrap();
    let upstream = site.filter(|_| &begin == b"GET / HT").unwrap_or(shared.upstream);
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let mut resets = shared.resets.subscribe();
    resets.mark_unchanged();
    let has_asked = AtomicBool::new(false);
    let is_reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            () = ask(&shared, from_client, to_server, &has_asked) => false,
            () = answer(&shared, from_server, to_client) => false,
            _ = resets.changed() => true,
        }
    };
    if is_reset {
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(client);
    if has_asked.load(Relaxed) {
        shared.seen.send_modify(|seen| {
            seen.ended = Some(Instant::now());
            seen.open -= 1;
        });
    }
}

/// Passes requests on, and notes those for the stream.
async fn ask(shared: &Shared, mut client: ReadHalf<'_>, mut server: WriteHalf<'_>, has_asked: &AtomicBool) {
    let mut heads = Vec::new();
    loop {
        let from = heads.len();
        match client.read_buf(&mut heads).await {
            Ok(1..) => {}
            _ => return,
        }
        if server.write_all(&heads[from..]).await.is_err() {
            return;
        }
        // None of them has a body.
        while let Some(at) = memmem::find(&heads, b"\r\n\r\n") {
            let head = String::from_utf8(heads.drain(..at + 4).collect()).unwrap();
            if head.starts_with("GET /api/") {
                has_asked.store(true, Relaxed);
                shared.seen.send_modify(|seen| {
                    seen.open += 1;
                    let delay = seen.ended.map(|ended| ended.elapsed());
                    seen.requests.push(request(&head, delay));
                });
            }
        }
    }
}

fn request(head: &str, delay: Option<Duration>) -> Request {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let header = lines.find(|(name, _)| name.eq_ignore_ascii_case("last-event-id")).map(|(_, value)| value);
    let target = head.split(' ').nth(1).unwrap();
    let query = target.split(['?', '&']).find_map(|part| part.strip_prefix("last_event_id="));
    Request {
        last_event_id: header.or(query).map(str::to_owned),
        is_reopened: header.is_none() && query.is_some(),
        delay,
    }
}

/// Passes an answer on, up to where it is to be cut.
async fn answer(shared: &Shared, mut server: ReadHalf<'_>, mut client: WriteHalf<'_>) {
    let mut answer = Vec::new();
    loop {
        let from = answer.len();
        match server.read_buf(&mut answer).await {
            Ok(1..) => {}
            _ => return,
        }
        let cut = {
            let mut cuts = shared.cuts.lock().unwrap();
            let cut = cuts.front().and_then(|cut| {
                let begin = from.saturating_sub(cut.words.len());
                let at = memmem::find(&answer[begin..], cut.words.as_bytes())?;
                Some(begin + at + cut.words.len() - cut.less)
            });
            if cut.is_some() {
                cuts.pop_front();
            }
            cut
        };
        // What is before the cut may have been passed already: then the cut is here.
        let passed = &answer[from..cut.unwrap_or(answer.len()).max(from)];
        shared.seen.send_modify(|seen| seen.passed.extend_from_slice(passed));
        if client.write_all(passed).await.is_err() || cut.is_some() {
            return;
        }
    }
}
