//! The server of a test, in this process.

use crate::stream::Stream;
use crate::table::{self, Row};
use evertail::auth::{Auth, AuthSettings};
use evertail::client::Client;
use evertail::event::{Content, RetentionRules, StreamName};
use evertail::http::{
    self, Closing, ConnectionSettings, HttpSettings, LimitSettings, OriginSettings, Service,
};
use evertail::log::{Append, Log, LogSettings, LogTask};
use evertail::store::StoreSettings;
use evertail::wire::ReceiptJson;
use reqwest::RequestBuilder;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Far beyond anything a test waits for: it is reached only by a test that hangs.
const HANG: Duration = Duration::from_secs(30);

/// Awaits what must happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.unwrap_or_else(|_| panic!("it never happened: {what}"))
}

/// Panics of this process that are no failed assertion of a test.
static SERVER_PANICS: AtomicUsize = AtomicUsize::new(0);

/// How often the server has panicked so far, whichever test made it.
pub(crate) fn server_panics() -> usize {
    SERVER_PANICS.load(Ordering::SeqCst)
}

fn count_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.location().is_none_or(|location| !location.file().starts_with("tests/")) {
                SERVER_PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

/// All settings of a server.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) log: LogSettings,
    pub(crate) http: HttpSettings,
    pub(crate) connections: ConnectionSettings,
    /// Off, unless a test says otherwise.
    pub(crate) auth: Option<AuthSettings>,
}

impl Settings {
    fn of(file: PathBuf) -> Self {
        Self {
            log: LogSettings {
                store: StoreSettings {
                    file,
                    read_connections: 2,
                    busy_timeout: Duration::from_secs(5),
                    is_checkpointing: true,
                },
                queue_requests_max: 4096,
                queue_bytes_max: 64 << 20,
                window_bytes_max: 1 << 20,
                disk_free_bytes_min: 0,
                retention: RetentionRules::default(),
                catch_up_pages_max: 2,
                notice_interval: Duration::from_millis(5),
            },
            http: HttpSettings {
                origins: OriginSettings { is_loopback: true, allowed_origins: vec![], allowed_hosts: vec![] },
                limits: LimitSettings::default(),
                trusted_proxies: vec![],
                uri_bytes_max: 8 << 10,
                depth_max: 64,
                event_bytes_max: 256 << 10,
                batch_events_max: 1000,
                batch_bytes_max: 4 << 20,
                body_timeout: Duration::from_secs(30),
                page_bytes_max: 64 << 10,
                keep_alive: Duration::from_secs(15),
                retry: (Duration::from_secs(1), Duration::from_secs(5)),
            },
            connections: ConnectionSettings {
                connections_max: 1000,
                headers_max: 64,
                header_bytes_max: 16 << 10,
                header_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(75),
                send_timeout: Duration::from_secs(30),
                send_buffer_bytes: 32 << 10,
                drain_timeout: Duration::from_secs(10),
                streams: Handle::current(),
                tls: None,
            },
            auth: None,
        }
    }
}

/// A client that takes any certificate.
pub(crate) fn http_client(
    change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
    change(builder).build().unwrap()
}

/// A running server.
pub(crate) struct Server {
    pub(crate) log: Log,
    pub(crate) address: SocketAddr,
    pub(crate) settings: Settings,
    client: reqwest::Client,
    closing: watch::Sender<Option<Closing>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    task: LogTask,
    folder: TempDir,
}

impl Server {
    /// With the settings that `evertail` has by default, but for a small window and no floor of free disk.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::of(folder.path().join("evertail.db"));
        change(&mut settings);
        Self::start_at("127.0.0.1:0".parse().unwrap(), folder, settings).await
    }

    async fn start_at(address: SocketAddr, folder: TempDir, settings: Settings) -> Self {
        count_panics();
        let listener = http::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (log, task) = Log::open(settings.log.clone()).await.unwrap();
        let (closing, closing_seen) = watch::channel(None);
        let auth = match settings.auth.clone() {
            Some(auth) => Some(Auth::open(&log, auth).await.unwrap()),
            None => None,
        };
        let service = Service::new(log.clone(), auth, settings.http.clone(), closing_seen);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(http::serve(listener, service, settings.connections.clone(), async {
            let _ = stopped.await;
        }));
        let client = http_client(|builder| builder);
        Self { log, address, settings, client, closing, stop, serving, task, folder }
    }

    /// Stops as the command does, and starts again with the same file and address.
    pub(crate) async fn restart(self) -> Self {
        let Self { log, address, settings, closing, stop, serving, mut task, folder, client } = self;
        drop(client);
        closing.send_replace(Some(Closing::Drain));
        stop.send(()).unwrap();
        within("the server stops", serving).await.unwrap();
        log.close().await;
        within("the log closes", task.wait()).await.unwrap();
        drop(log);
        Self::start_at(address, folder, settings).await
    }

    /// Tells every stream and append that the end has come, and goes on serving.
    pub(crate) fn close(&self, why: Closing) {
        self.closing.send_replace(Some(why));
    }

    pub(crate) fn file(&self) -> &Path {
        &self.settings.log.store.file
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.settings.connections.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Requests of this server's client are HTTP/1.1 from now on, where TLS would let it choose HTTP/2.
    pub(crate) fn use_http1(&mut self) {
        self.client = http_client(reqwest::ClientBuilder::http1_only);
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url(""))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub(crate) fn head(&self, path: &str) -> RequestBuilder {
        self.client.head(self.url(path))
    }

    pub(crate) fn post(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> RequestBuilder {
        self.client.post(self.url(path)).header("content-type", content_type).body(body)
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(method.parse().unwrap(), self.url(path))
    }

    /// A JSON page, or whatever it is that is answered instead.
    pub(crate) async fn page(&self, path: &str) -> Reply {
        Reply::of(self.get(path).header("accept", "application/json")).await
    }

    pub(crate) async fn lines(&self, path: &str) -> Reply {
        Reply::of(self.get(path).header("accept", "application/x-ndjson")).await
    }

    /// An event stream, with its first byte still to be read.
    pub(crate) async fn stream(&self, path: &str) -> Stream {
        Stream::open(self.get(path)).await
    }

    pub(crate) async fn stream_after(&self, path: &str, last_event_id: impl ToString) -> Stream {
        Stream::open(self.get(path).header("last-event-id", last_event_id.to_string())).await
    }

    /// Appends JSON, one event or an array, which must be acked as new.
    pub(crate) async fn append(&self, stream: &str, json: &str) -> Vec<ReceiptJson> {
        let path = format!("/api/v1/{stream}");
        let reply = Reply::of(self.post(&path, "application/json", json.to_owned())).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        if reply.body.starts_with(b"[") {
            serde_json::from_slice(&reply.body).unwrap()
        } else {
            vec![serde_json::from_slice(&reply.body).unwrap()]
        }
    }

    /// Appends one event where nobody is let in without a credential.
    pub(crate) async fn append_as(&self, stream: &str, json: &str) {
        let member: Value = serde_json::from_str(json).unwrap();
        let mut content = Content::new(StreamName::parse(stream).unwrap());
        content.data = member.get("data").map(|data| data.to_string().into());
        let append = Append { contents: vec![content], ..Append::default() };
        within("the append", self.log.append(append)).await.unwrap();
    }

    /// Appends events of these types to the stream, one request each; their data is their place in the list.
    pub(crate) async fn append_types(&self, stream: &str, types: impl IntoIterator<Item = &str>) {
        for (index, r#type) in types.into_iter().enumerate() {
            self.append(stream, &format!(r#"{{"type":"{type}","data":{index}}}"#)).await;
        }
    }

    pub(crate) async fn trim(&self, through: u64) {
        within("the trim", self.log.trim_through(through)).await.unwrap();
    }

    pub(crate) async fn table(&self) -> Vec<Row> {
        table::read(self.file()).await
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = within("the answer", request.send()).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = within("the whole answer", response.bytes()).await.unwrap().to_vec();
        Self { status, headers, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Holds the answer against what every problem must have, and returns its body.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.any_problem();
        assert_eq!((self.status, body["code"].as_str().unwrap()), (status, code), "{body}");
        body
    }

    /// RFC 9457, and what section 5 of the design adds to it.
    #[track_caller]
    pub(crate) fn any_problem(&self) -> Value {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{}: {}",
            self.status,
            self.text()
        );
        let body = self.json();
        let code = body["code"].as_str().expect("a problem has a code");
        let listed = http::ProblemCode::ALL.iter().find(|known| known.as_str() == code);
        let listed = listed.unwrap_or_else(|| panic!("{code} is not listed"));
        assert_eq!(self.status, listed.status(), "{body}");
        assert_eq!(body["no_effect"], listed.certainly_had_no_effect(), "{body}");
        assert_eq!(body["type"], format!("urn:evertail:problem:{code}"));
        assert_eq!(body["status"], self.status);
        assert_eq!(body["instance"], self.header("x-request-id"), "the instance is the request's id");
        for member in ["title", "detail"] {
            assert!(!body[member].as_str().unwrap().is_empty(), "{member} in {body}");
        }
        assert_eq!(body["retryable"].as_bool().unwrap(), !self.header("retry-after").is_empty(), "{body}");
        body
    }
}
