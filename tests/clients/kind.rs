//! The clients: where their programs are, how they are run, and which versions they have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chromium,
    Firefox,
    /// In a page of another origin than the log.
    FirefoxElsewhere,
    FetchEventSource,
    NpmEventsource,
    NpmEventsourceClient,
    HttpxSse,
    RequestsSse,
    SseclientPy,
    SseStream,
    CargoEventsourceClient,
    Curl,
    Httpie,
}

impl Kind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Chromium,
        Self::Firefox,
        Self::FirefoxElsewhere,
        Self::FetchEventSource,
        Self::NpmEventsource,
        Self::NpmEventsourceClient,
        Self::HttpxSse,
        Self::RequestsSse,
        Self::SseclientPy,
        Self::SseStream,
        Self::CargoEventsourceClient,
        Self::Curl,
        Self::Httpie,
    ];

    /// As `docs/clients.md` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chromium => "Chromium's EventSource",
            Self::Firefox => "Firefox's EventSource",
            Self::FirefoxElsewhere => "Firefox's EventSource, from another origin",
            Self::FetchEventSource => "npm @microsoft/fetch-event-source",
            Self::NpmEventsource => "npm eventsource",
            Self::NpmEventsourceClient => "npm eventsource-client",
            Self::HttpxSse => "Python httpx-sse",
            Self::RequestsSse => "Python requests-sse",
            Self::SseclientPy => "Python sseclient-py",
            Self::SseStream => "Rust sse-stream",
            Self::CargoEventsourceClient => "Rust eventsource-client",
            Self::Curl => "curl",
            Self::Httpie => "HTTPie",
        }
    }

    /// Its program, below `tests/clients/`.
    pub(crate) fn recipe(self) -> &'static str {
        match self {
            Self::Chromium | Self::Firefox => "browser/event_source.js",
            Self::FirefoxElsewhere => "browser/event_source_elsewhere.js",
            Self::FetchEventSource => "browser/fetch_event_source.js",
            Self::NpmEventsource => "node/eventsource.js",
            Self::NpmEventsourceClient => "node/eventsource_client.js",
            Self::HttpxSse => "python/with_httpx_sse.py",
            Self::RequestsSse => "python/with_requests_sse.py",
            Self::SseclientPy => "python/with_sseclient.py",
            Self::SseStream => "rust/src/bin/with_sse_stream.rs",
            Self::CargoEventsourceClient => "rust/src/bin/with_eventsource_client.rs",
            Self::Curl => "shell/with_curl.sh",
            Self::Httpie => "shell/with_httpie.sh",
        }
    }

    pub(crate) fn source(self) -> String {
        let file = folder().join(self.recipe());
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    pub(crate) fn is_in_browser(self) -> bool {
        matches!(self, Self::Chromium | Self::Firefox | Self::FirefoxElsewhere | Self::FetchEventSource)
    }

    /// Whether its page and the log are behind one proxy. The others are of another port, which is another origin.
    pub(crate) fn is_of_the_same_origin(self) -> bool {
        self == Self::Firefox
    }

    /// Whether it is tried on texts of many lines too: a shell script is not, and one Firefox is enough.
    pub(crate) fn is_for_texts(self) -> bool {
        !matches!(self, Self::Curl | Self::Httpie | Self::FirefoxElsewhere)
    }

    /// What runs the program, given its URL or, in a browser, its page. `home` is an empty folder of its own.
    pub(crate) fn command(self, url: &str, home: &Path) -> Command {
        let recipe = folder().join(self.recipe());
        let (program, arguments): (PathBuf, Vec<PathBuf>) = match self {
            Self::Chromium | Self::FetchEventSource => return chromium(url, home),
            Self::Firefox | Self::FirefoxElsewhere => return firefox(url, home),
            Self::NpmEventsource | Self::NpmEventsourceClient => ("node".into(), vec![recipe]),
            Self::HttpxSse | Self::RequestsSse | Self::SseclientPy => (python("python"), vec![recipe]),
            Self::SseStream | Self::CargoEventsourceClient => {
                (tools().join("clients/debug").join(recipe.file_stem().unwrap()), vec![])
            }
            Self::Curl | Self::Httpie => ("sh".into(), vec![recipe]),
        };
        let mut command = Command::new(program);
        command.args(arguments).arg(url);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", python("").display()));
        command
    }

    /// The version, and whether a file of ours pins it; else it is the one that Debian has.
    pub(crate) fn version(self) -> (String, bool) {
        let pinned = |file: &str, before: &str, after: &str| {
            let text = fs::read_to_string(folder().join(file)).unwrap();
            let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
            let (version, _) = found.unwrap_or_else(|| panic!("{file} does not pin {before}"));
            (version.to_owned(), true)
        };
        let said = |mut command: Command| {
            let output = command.arg("--version").output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
            let version = text.split_whitespace().find(is_version).unwrap().trim_end_matches("esr");
            (version.to_owned(), false)
        };
        match self {
            Self::Chromium => said(Command::new(chromium_program())),
            Self::Firefox | Self::FirefoxElsewhere => said(Command::new(firefox_program())),
            Self::Curl => said(Command::new("curl")),
            Self::FetchEventSource => {
                pinned("node/package.json", "\"@microsoft/fetch-event-source\": \"", "\"")
            }
            Self::NpmEventsource => pinned("node/package.json", "\"eventsource\": \"", "\""),
            Self::NpmEventsourceClient => pinned("node/package.json", "\"eventsource-client\": \"", "\""),
            Self::HttpxSse => pinned("python/requirements.txt", "\nhttpx-sse==", "\n"),
            Self::RequestsSse => pinned("python/requirements.txt", "\nrequests-sse==", "\n"),
            Self::SseclientPy => pinned("python/requirements.txt", "\nsseclient-py==", "\n"),
            Self::Httpie => pinned("python/requirements.txt", "\nhttpie==", "\n"),
            Self::SseStream => pinned("rust/Cargo.toml", "\nsse-stream = \"=", "\""),
            Self::CargoEventsourceClient => {
                pinned("rust/Cargo.toml", "\neventsource-client = { version = \"=", "\"")
            }
        }
    }
}

/// Where the programs are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Where `scripts/test` puts what the tests need.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools")
}

fn python(name: &str) -> PathBuf {
    tools().join("python/bin").join(name)
}

fn chromium_program() -> String {
    std::env::var("EVERTAIL_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned())
}

fn chromium(url: &str, home: &Path) -> Command {
    let mut command = Command::new(chromium_program());
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-proxy-server",
    ]);
    command.arg(format!("--user-data-dir={}", home.display())).arg(url);
    command
}

fn firefox_program() -> String {
    std::env::var("EVERTAIL_FIREFOX").unwrap_or_else(|_| "firefox-esr".to_owned())
}

fn firefox(url: &str, home: &Path) -> Command {
    // Without the pages and the connections that a new profile begins with.
    let settings = [
        ("app.normandy.enabled", "false"),
        ("browser.aboutwelcome.enabled", "false"),
        ("browser.newtabpage.enabled", "false"),
        ("browser.safebrowsing.update.enabled", "false"),
        ("browser.shell.checkDefaultBrowser", "false"),
        ("browser.startup.homepage_override.mstone", "\"ignore\""),
        ("datareporting.policy.dataSubmissionEnabled", "false"),
        ("extensions.update.enabled", "false"),
        ("network.captive-portal-service.enabled", "false"),
        ("network.connectivity-service.enabled", "false"),
        ("network.proxy.type", "0"),
        ("services.settings.server", "\"http://127.0.0.1:1\""),
        ("toolkit.telemetry.enabled", "false"),
        ("trailhead.firstrun.didSeeAboutWelcome", "true"),
    ];
    let text: String =
        settings.iter().map(|(name, value)| format!("user_pref(\"{name}\", {value});\n")).collect();
    fs::write(home.join("user.js"), text).unwrap();
    let mut command = Command::new(firefox_program());
    command.args(["--headless", "--no-remote", "--profile"]).arg(home).arg(url);
    command
}
