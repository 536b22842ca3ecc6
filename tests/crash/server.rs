//! The server as a process of its own: started, listened to, stopped, killed. Dropping it kills it.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::watch;

/// Only ends a test that hangs; no test waits for it.
const HANG: Duration = Duration::from_secs(60);
/// Between two looks at a condition that nothing announces.
const LOOK: Duration = Duration::from_millis(2);

/// A folder with one log file, gone with the value.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::with_prefix("evertail-crash-").unwrap() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("log.db")
    }
}

/// The binary, free of this process's own `EVERTAIL_*` variables and of any `.env`.
pub(crate) fn evertail(wrapper: &[String], folder: &Path) -> Command {
    let binary = env!("CARGO_BIN_EXE_evertail").to_owned();
    let mut words = wrapper.iter().chain([&binary]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).current_dir(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EVERTAIL_")) {
        command.env_remove(name);
    }
    command
}

/// How to start a server.
#[derive(Clone)]
pub(crate) struct Launch {
    file: PathBuf,
    /// Not where a socket is passed.
    listen: Option<String>,
    /// A socket that is passed as systemd passes one, and how many times.
    passed: Option<(Arc<OwnedFd>, usize)>,
    variables: Vec<(&'static str, String)>,
    wrapper: Vec<String>,
}

impl Launch {
    /// On a free port of loopback, with no retry delay for readers and no floor under the disk's free space.
    pub(crate) fn new(file: &Path) -> Self {
        let variables = [
            ("EVERTAIL_LOG_FORMAT", "json"),
            ("EVERTAIL_RETRY_SECONDS_MIN", "0"),
            ("EVERTAIL_RETRY_SECONDS_MAX", "0"),
            ("EVERTAIL_DISK_FREE_BYTES_MIN", "0"),
        ];
        Self {
            file: file.to_owned(),
            listen: Some("127.0.0.1:0".to_owned()),
            passed: None,
            variables: variables.map(|(name, value)| (name, value.to_owned())).to_vec(),
            wrapper: Vec::new(),
        }
    }

    pub(crate) fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// On this socket, in so many copies, instead of an address.
    pub(crate) fn on(mut self, socket: impl Into<OwnedFd>, copies: usize) -> Self {
        self.passed = Some((Arc::new(socket.into()), copies));
        self.listen = None;
        self
    }

    pub(crate) fn with(mut self, variable: &'static str, value: impl ToString) -> Self {
        self.variables.push((variable, value.to_string()));
        self
    }

    /// Through a program that becomes the server, such as `prlimit`, or that traces it from aside, `strace -D`.
    pub(crate) fn under(mut self, wrapper: Vec<String>) -> Self {
        self.wrapper = wrapper;
        self
    }

    pub(crate) fn spawn(&self) -> Server {
        let folder = self.file.parent().unwrap();
        let mut wrapper = self.wrapper.clone();
        let mut stdin = Stdio::null();
        if let Some((socket, copies)) = &self.passed {
            // The shell has it as its stdin, moves it to where it belongs, and becomes the server.
            let moves: String = (3..3 + copies).map(|descriptor| format!("{descriptor}<&0 ")).collect();
            let script =
                format!("exec {moves} </dev/null; export LISTEN_FDS={copies} LISTEN_PID=$$; exec \"$@\"");
            wrapper.splice(0..0, ["sh", "-c", &script, "sh"].map(str::to_owned));
            stdin = Stdio::from(socket.try_clone().unwrap());
        }
        let mut command = evertail(&wrapper, folder);
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        command.env("EVERTAIL_FILE", &self.file);
        command.envs(self.listen.iter().map(|address| ("EVERTAIL_LISTEN", address)));
        command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (told, lines) = watch::channel(Lines::default());
        let deaf = Arc::new(AtomicBool::new(false));
        let is_deaf = deaf.clone();
        std::thread::spawn(move || {
            let heard = BufReader::new(stderr).lines().map_while(Result::ok);
            for line in heard.take_while(|_| !is_deaf.load(Ordering::Relaxed)) {
                told.send_modify(|lines| lines.all.push(line));
            }
            told.send_modify(|lines| lines.is_over = true);
        });
        Server { child, lines, deaf, base: String::new() }
    }

    /// Spawns it and waits until it serves.
    pub(crate) async fn start(&self) -> Server {
        let mut server = self.spawn();
        server.serving().await;
        server
    }
}

/// What the process, and whoever traces it, has said on stderr.
#[derive(Debug, Default)]
struct Lines {
    all: Vec<String>,
    is_over: bool,
}

impl Lines {
    /// Where it serves, once it does.
    fn page(&self) -> Option<String> {
        let mut parsed =
            self.all.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let serving = parsed.find(|line| line["message"] == "serving")?;
        Some(serving["page"].as_str()?.trim_end_matches('/').to_owned())
    }
}

pub(crate) struct Server {
    child: Child,
    lines: watch::Receiver<Lines>,
    /// Closes the pipe of its stderr with the next line.
    deaf: Arc<AtomicBool>,
    /// `http://127.0.0.1:port`, once it serves.
    pub(crate) base: String,
}

impl Server {
    /// Waits until it serves.
    pub(crate) async fn serving(&mut self) {
        let mut lines = self.lines.clone();
        let page = {
            let told =
                in_time(lines.wait_for(|lines| lines.is_over || lines.page().is_some())).await.unwrap();
            told.page().unwrap_or_else(|| panic!("it ended instead of serving:\n{}", told.all.join("\n")))
        };
        self.base = page;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// kill -9, and waits for the process to be gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.lines.borrow().page().is_some()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The most memory it has had so far. *Units*: bytes.
    pub(crate) fn memory_bytes_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Waits for the process to end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        in_time(async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(LOOK).await,
                }
            }
        })
        .await
    }

    /// All that was said on stderr, once the process and whoever traces it have ended.
    pub(crate) async fn stderr(&mut self) -> Vec<String> {
        in_time(self.lines.wait_for(|lines| lines.is_over)).await.unwrap().all.clone()
    }

    /// Whether its log has a line with these words.
    pub(crate) fn has_said(&self, words: &str) -> bool {
        self.times_said(words) > 0
    }

    /// How many lines of its log have these words.
    pub(crate) fn times_said(&self, words: &str) -> usize {
        self.lines.borrow().all.iter().filter(|line| line.contains(words)).count()
    }

    /// The lines of its log so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.lines.borrow().all.clone()
    }

    /// Closes the other end of its stderr at the next line, as a log shipper does that dies.
    pub(crate) fn stop_listening(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// The one sentence for people among the log lines.
    pub(crate) async fn complaint(&mut self) -> String {
        let stderr = self.stderr().await;
        let mut sentences = stderr.iter().filter(|line| !line.starts_with('{'));
        let sentence = sentences.next().unwrap_or_else(|| panic!("no sentence for people in {stderr:?}"));
        assert_eq!(sentences.next(), None, "one sentence is enough: {stderr:?}");
        sentence.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.lines.borrow();
            let from = lines.all.len().saturating_sub(12);
            complain(&format!("the server had said last:\n{}", lines.all[from..].join("\n")));
        }
    }
}

/// A free port outside the range from which outgoing connections take theirs. Inside it, a reader that dials the port
/// of a dead server could be given that very port and be connected to itself, and the server not come back.
pub(crate) fn lasting_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let low = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..1_000).map(|_| rand::random_range(10_000..low)).find(is_free).expect("a free port")
}

/// Fails a test that would wait for ever.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.expect("it happens, rather than never")
}

/// Waits until a condition holds that nothing announces.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < HANG, "{what}: it did not happen");
        tokio::time::sleep(LOOK).await;
    }
}

/// Says why a test was not run, or what a failed one knows.
#[expect(clippy::print_stderr, reason = "for the person who reads the outcome of the tests")]
pub(crate) fn complain(what: &str) {
    eprintln!("{what}");
}
