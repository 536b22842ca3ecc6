//! A client as a process of its own: what it has written so far, and its end. Dropping it kills it and its children.

use crate::cutter::Cutter;
use crate::kind::Kind;
use crate::page::Site;
use crate::server::{complain, in_time};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use tempfile::TempDir;
use tokio::sync::watch;

/// A line of a program: an event as its client has handed it over.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Shown {
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    data: Value,
}

impl Shown {
    pub(crate) fn is_control(&self) -> bool {
        self.event_type.starts_with("evertail.")
    }

    /// What the `data:` lines held. A shell takes the JSON as it is.
    pub(crate) fn json(&self) -> Value {
        match &self.data {
            Value::String(text) => {
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
            }
            data => data.clone(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        self.data.as_str().unwrap()
    }
}

/// What a program has written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) shown: Vec<Shown>,
    /// On stderr. `connecting` each time that the recipe, and not the client by itself, connects.
    pub(crate) said: Vec<String>,
}

impl Written {
    pub(crate) fn events(&self) -> impl Iterator<Item = &Shown> {
        self.shown.iter().filter(|shown| !shown.is_control())
    }
}

pub(crate) struct Program {
    pub(crate) kind: Kind,
    child: Child,
    pub(crate) written: watch::Receiver<Written>,
    /// Where its page is, if it is one.
    _site: Option<Site>,
    _home: TempDir,
}

impl Program {
    /// One that follows this stream, through this proxy.
    pub(crate) async fn start(kind: Kind, cutter: &Cutter, stream: &str) -> Self {
        let url = cutter.url(stream);
        let home = TempDir::with_prefix("evertail-client-").unwrap();
        let (told, written) = watch::channel(Written::default());
        let site = match kind.is_in_browser() {
            true => Some(Site::start(kind, &url, told.clone()).await),
            false => None,
        };
        let opened = match &site {
            None => url,
            Some(site) if kind.is_of_the_same_origin() => {
                cutter.serve(site.address);
                cutter.url("/")
            }
            Some(site) => format!("http://{}/", site.address),
        };
        let mut command = kind.command(&opened, home.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().to_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        // What it leaves behind goes with its home; what it starts ends with its group.
        command.env("HOME", home.path()).current_dir(home.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{} is not installed, see scripts/test: {error}", kind.name());
        });
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let is_page = site.is_some();
        hear(stdout, told.clone(), move |written, line| match serde_json::from_str(&line) {
            Ok(shown) if !is_page => written.shown.push(shown),
            _ => written.said.push(line),
        });
        hear(stderr, told, |written, line| written.said.push(line));
        Self { kind, child, written, _site: site, _home: home }
    }

    /// Waits until it has shown so many events, apart from control frames.
    pub(crate) async fn has_shown(&mut self, events: usize) {
        in_time(self.written.wait_for(|written| written.events().count() >= events)).await.unwrap();
    }

    /// Waits until it has shown a frame of this type.
    pub(crate) async fn has_shown_control(&mut self, event_type: &str) {
        let is_there = |written: &Written| written.shown.iter().any(|shown| shown.event_type == event_type);
        in_time(self.written.wait_for(is_there)).await.unwrap();
    }

    /// Waits for the program to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        in_time(async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
                }
            }
        })
        .await
    }
}

/// Takes the lines of a pipe to its end.
fn hear(
    pipe: impl Read + Send + 'static,
    told: watch::Sender<Written>,
    take: impl Fn(&mut Written, String) + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            told.send_modify(|written| take(written, line));
        }
    });
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            let written = self.written.borrow();
            let name = self.kind.name();
            complain(&format!("{name} had shown {} events, last:", written.events().count()));
            for shown in written.shown.iter().rev().take(8).rev() {
                let data: String = shown.data.to_string().chars().take(200).collect();
                complain(&format!("  {} {data}", shown.event_type));
            }
            let from = written.said.len().saturating_sub(20);
            complain(&format!("and had said:\n{}", written.said[from..].join("\n")));
        }
    }
}
