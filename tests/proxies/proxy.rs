//! A proxy as a process of its own on loopback, with the configuration of `docs/proxies.md` inside the least of a frame that
//! lets it run from a temporary folder. Its port stays the same across restarts. Dropping it kills it.

use crate::server::{complain, in_time, lasting_port, until};
use rustix::process::{Pid, Signal, getuid, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::net::TcpStream;

const PAGE: &str = include_str!("../../docs/proxies.md");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Apache,
    Haproxy,
    Caddy,
}

impl Kind {
    /// The block of the page in this proxy's language.
    fn published(self) -> &'static str {
        let fence = match self {
            Self::Nginx => "```nginx\n",
            Self::Apache => "```apache\n",
            Self::Haproxy => "```haproxy\n",
            Self::Caddy => "```caddyfile\n",
        };
        let (_, rest) = PAGE.split_once(fence).unwrap_or_else(|| panic!("the page has no {fence}"));
        assert!(!rest.contains(fence), "the page has two of {fence}");
        rest.split_once("```").unwrap().0
    }

    /// The whole configuration: compression is on for everything, as it may be on a machine with other sites.
    fn configuration(self, folder: &Path, port: u16, upstream: &str) -> String {
        // Each is there once, so that what is tested is what is published.
        let replaced = |text: &str, pairs: &[(&str, String)]| {
            pairs.iter().fold(text.to_owned(), |text, (from, to)| {
                assert_eq!(text.matches(from).count(), 1, "{from} in\n{text}");
                text.replace(from, to)
            })
        };
        let server = ("127.0.0.1:8888", upstream.to_owned());
        let folder = folder.display();
        match self {
            Self::Nginx => {
                let site =
                    replaced(self.published(), &[server, ("listen 80", format!("listen 127.0.0.1:{port}"))]);
                let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|what| format!("{what}_temp_path {folder}/{what};"))
                    .join("\n");
                format!(
                    "daemon off; master_process off; pid {folder}/pid; error_log stderr warn;\n\
                     events {{ worker_connections 256; }}\n\
                     http {{\naccess_log off; {temporary}\n\
                     gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0; gzip_http_version 1.0;\n{site}}}\n"
                )
            }
            Self::Apache => {
                let site = replaced(
                    self.published(),
                    &[server, ("<VirtualHost *:80>", format!("<VirtualHost 127.0.0.1:{port}>"))],
                );
                let modules =
                    ["mpm_event", "authz_core", "env", "filter", "deflate", "headers", "proxy", "proxy_http"]
                        .map(|name| {
                            format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
                        })
                        .concat();
                let user = if getuid().is_root() { "User www-data\nGroup www-data\n" } else { "" };
                format!(
                    "{modules}{user}ServerName localhost\nListen 127.0.0.1:{port}\nPidFile {folder}/pid\n\
                     DefaultRuntimeDir {folder}\nErrorLog /dev/stderr\nSetOutputFilter DEFLATE\n{site}"
                )
            }
            Self::Haproxy => {
                let site =
                    replaced(self.published(), &[server, ("bind :80", format!("bind 127.0.0.1:{port}"))]);
                let compression = "    compression algo gzip\n    compression type text/event-stream application/x-ndjson\n";
                format!(
                    "global\n    maxconn 200\n    log stderr format raw local0 warning\n{site}{compression}"
                )
            }
            Self::Caddy => {
                let address = format!("http://:{port} {{\n    bind 127.0.0.1\n    encode gzip\n");
                let site = replaced(self.published(), &[server, ("log.example {\n", address)]);
                format!("{{\n    admin off\n    auto_https off\n    storage file_system {folder}\n}}\n{site}")
            }
        }
    }

    fn command(self, folder: &Path, file: &Path) -> Command {
        let (program, arguments): (_, &[&str]) = match self {
            Self::Nginx => ("nginx", &["-e", "stderr", "-c"]),
            Self::Apache => ("apache2", &["-X", "-f"]),
            Self::Haproxy => ("haproxy", &["-db", "-f"]),
            Self::Caddy => ("caddy", &["run", "--adapter", "caddyfile", "--config"]),
        };
        let mut command = Command::new(program);
        // Where Debian puts them is not on everyone's path.
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        command.args(arguments).arg(file).env("PATH", path);
        command.env("HOME", folder).env("XDG_CONFIG_HOME", folder).env("XDG_DATA_HOME", folder);
        command
    }
}

pub(crate) struct Proxy {
    kind: Kind,
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Proxy {
    /// One in front of a server, `http://127.0.0.1:port`, that answers.
    pub(crate) async fn start(kind: Kind, server: &str) -> Self {
        let folder = TempDir::with_prefix("evertail-proxy-").unwrap();
        let port = lasting_port();
        let upstream = server.trim_start_matches("http://");
        let file = folder.path().join("configuration");
        fs::write(&file, kind.configuration(folder.path(), port, upstream)).unwrap();
        let child = spawn(kind, folder.path());
        let mut proxy = Self { kind, folder, port, child };
        proxy.answers().await;
        proxy
    }

    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it at once, with every connection that it has, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.end();
        self.child = spawn(self.kind, self.folder.path());
        self.answers().await;
    }

    async fn answers(&mut self) {
        let port = self.port;
        until("the proxy listens", async || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended instead of listening: {ended:?}\n{}", self.said());
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        let url = format!("{}/healthz", self.base());
        let answer = in_time(crate::event_source::http_client().get(url).send()).await.unwrap();
        assert_eq!(answer.status(), 200, "{}", self.said());
    }

    fn end(&mut self) {
        // All run as one process, so that none leaves workers behind.
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            complain(&format!("{:?} had said:\n{}", self.kind, self.said()));
        }
    }
}

fn spawn(kind: Kind, folder: &Path) -> Child {
    let said = fs::OpenOptions::new().create(true).append(true).open(folder.join("stderr")).unwrap();
    let mut command = kind.command(folder, &folder.join("configuration"));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
    command.spawn().unwrap_or_else(|error| panic!("{kind:?} is not installed, see scripts/test: {error}"))
}
