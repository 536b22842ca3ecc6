//! TLS: the same over it as without, on HTTP/1.1 and HTTP/2; who does not finish the handshake; a new certificate under
//! open streams.

use crate::raw::Connection;
use crate::server::{Server, Settings, within};
use evertail::client::{Client, ClientError, TailItem};
use evertail::http::{Closing, Tls, TlsFiles};
use rcgen::CertifiedKey;
use reqwest::Version;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const SOON: Duration = Duration::from_millis(200);

/// A certificate of its own making, in files.
pub(crate) struct Identity {
    folder: TempDir,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, pem) = write(&folder);
        Self { folder, certificate, pem }
    }

    /// Another certificate in the same files.
    fn replace(&mut self) {
        (self.certificate, self.pem) = write(&self.folder);
    }

    fn files(&self) -> TlsFiles {
        let path = |name| self.folder.path().join(name);
        TlsFiles { certificate: path("certificate.pem"), key: path("key.pem") }
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls::load(self.files()).unwrap()
    }

    /// A connection that trusts this certificate and no other, and offers these protocols.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        within("the handshake", TlsConnector::from(Arc::new(config)).connect(name, socket)).await
    }
}

fn write(folder: &TempDir) -> (CertificateDer<'static>, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(folder.path().join("certificate.pem"), cert.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
    (cert.der().clone(), cert.pem())
}

/// A server that speaks TLS. Its client uses HTTP/2.
pub(crate) async fn secure(identity: &Identity, change: impl FnOnce(&mut Settings)) -> Server {
    Server::start_with(|settings| {
        settings.connections.tls = Some(identity.tls());
        change(settings);
    })
    .await
}

/// The same server with a client of each version.
async fn each_version(identity: &Identity, change: impl Fn(&mut Settings)) -> [(Version, Server); 2] {
    let mut http1 = secure(identity, &change).await;
    http1.use_http1();
    [(Version::HTTP_11, http1), (Version::HTTP_2, secure(identity, &change).await)]
}

#[tokio::test]
async fn all_is_over_tls_as_it_is_without() {
    let identity = Identity::new();
    let short = |settings: &mut Settings| settings.http.keep_alive = Duration::from_millis(100);
    for (version, server) in each_version(&identity, short).await {
        let healthz = server.get("/healthz").send().await.unwrap();
        assert_eq!(healthz.version(), version);
        let mut live = server.stream("/api/v1/audits").await;
        assert_eq!(live.cursor().await, 0);
        live.keep_alive().await;
        assert_eq!(server.append("audits", r#"{"id":"1"}"#).await[0].seq, 1);
        assert_eq!(live.seqs(1).await, [1]);
        live.keep_alive().await;
        server.append("audits", r#"[{"id":"2"},{"id":"3"}]"#).await;
        assert_eq!(live.seqs(2).await, [2, 3]);
        drop(live);

        let mut resumed = server.stream_after("/api/v1/audits", 1).await;
        assert_eq!(resumed.cursor().await, 1);
        assert_eq!(resumed.seqs(2).await, [2, 3]);
        let mut limited = server.stream("/api/v1/audits?after=0&limit=2").await;
        assert_eq!(limited.rest().await.len(), 3, "a cursor and two events, then the end");
        let page = server.page("/api/v1/audits?after=1").await.json();
        assert_eq!(page["events"].as_array().unwrap().len(), 2);
        assert_eq!(server.lines("/api/v1/audits?after=0").await.text().lines().count(), 3);
        server.page("/api/v1/nothing/here").await.problem(404, "route_not_found");
    }
}

#[tokio::test]
async fn history_larger_than_every_buffer_comes_whole_and_in_order() {
    let identity = Identity::new();
    let small = |settings: &mut Settings| settings.log.window_bytes_max = 16 << 10;
    for (_, server) in each_version(&identity, small).await {
        let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(2000));
        let batch = format!("[{}]", vec![event; 500].join(","));
        for _ in 0..4 {
            server.append("a", &batch).await;
        }
        let mut stream = server.stream("/api/v1/a?after=0&limit=2000").await;
        stream.cursor().await;
        assert_eq!(stream.seqs(2000).await, (1..=2000).collect::<Vec<u64>>());
        assert_eq!(stream.event_or_end().await, None);
        assert_eq!(server.lines("/api/v1/a?after=0").await.text().lines().count(), 2000);
    }
}

#[tokio::test]
async fn gap_and_end_are_told_over_tls() {
    let identity = Identity::new();
    for (_, server) in each_version(&identity, |_| ()).await {
        server.append("a", "[{},{},{}]").await;
        server.trim(2).await;
        let mut stream = server.stream_after("/api/v1/a", 1).await;
        stream.cursor().await;
        assert_eq!(stream.control("evertail.gap").await.0["to"], 2);
        assert_eq!(stream.seqs(1).await, [3]);
        server.close(Closing::Drain);
        assert_eq!(stream.control("evertail.notice").await.0["reason"], "drain");
        assert_eq!(stream.event_or_end().await, None);
        server.restart().await;
    }
}

#[tokio::test]
async fn new_certificate_is_for_new_handshakes_and_leaves_streams_alone() {
    for is_http1 in [true, false] {
        let mut identity = Identity::new();
        let mut server = secure(&identity, |_| ()).await;
        if is_http1 {
            server.use_http1();
        }
        let tls = server.settings.connections.tls.clone().unwrap();
        let mut stream = server.stream("/api/v1/a").await;
        stream.cursor().await;
        let before = identity.certificate.clone();
        assert!(!tls.reload().unwrap(), "nothing has changed");
        identity.replace();
        assert!(identity.connect(server.address, &[]).await.is_err(), "the old one is served until a look");
        assert!(tls.reload().unwrap());
        let connection = identity.connect(server.address, &[]).await.unwrap();
        let served = connection.get_ref().1.peer_certificates().unwrap()[0].clone();
        assert!(served == identity.certificate && served != before);
        server.append("a", "{}").await;
        assert_eq!(stream.seqs(1).await, [1]);
        // Without its key it is of no use: nothing changes, and open streams do not even notice.
        fs::write(identity.files().key, "-----BEGIN").unwrap();
        tls.reload().unwrap_err();
        identity.connect(server.address, &[]).await.unwrap();
        server.append("a", "{}").await;
        assert_eq!(stream.seqs(1).await, [2]);
    }
}

#[tokio::test]
async fn changed_files_are_noticed() {
    let mut identity = Identity::new();
    let server = secure(&identity, |_| ()).await;
    identity.connect(server.address, &[]).await.unwrap();
    identity.replace();
    within("the new certificate is served", async {
        while identity.connect(server.address, &[]).await.is_err() {}
    })
    .await;
}

#[test]
fn files_that_cannot_be_served_are_told_with_what_to_do() {
    let (identity, other) = (Identity::new(), Identity::new());
    let TlsFiles { certificate, key } = identity.files();
    let told = |certificate: &std::path::Path, key: &std::path::Path| {
        Tls::load(TlsFiles { certificate: certificate.into(), key: key.into() }).unwrap_err().to_string()
    };
    let missing = identity.folder.path().join("missing.pem");
    for (text, parts) in [
        (told(&missing, &key), ["missing.pem cannot be read", "EVERTAIL_TLS_CERTIFICATE"]),
        (told(&certificate, &missing), ["missing.pem cannot be read", "EVERTAIL_TLS_KEY"]),
        (told(&key, &key), ["key.pem holds no certificate", "EVERTAIL_TLS_CERTIFICATE"]),
        (told(&certificate, &certificate), ["certificate.pem holds no private key", "EVERTAIL_TLS_KEY"]),
        (told(&certificate, &other.files().key), ["certificate.pem and", "it was made for"]),
    ] {
        for part in parts {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[tokio::test]
async fn reader_that_leaves_gives_its_place_up() {
    let identity = Identity::new();
    // A connection; on HTTP/2 its stream besides, and the place that is kept for the next connection.
    for (is_http1, connections_max) in [(true, 1), (false, 3)] {
        let change = |settings: &mut Settings| settings.connections.connections_max = connections_max;
        let mut server = secure(&identity, change).await;
        if is_http1 {
            server.use_http1();
        }
        for _ in 0..5 {
            within("a place", async {
                // On HTTP/2 who comes a moment too early is told to come back.
                while server.stream("/api/v1/a").await.event().await.event != "evertail.cursor" {}
            })
            .await;
        }
        assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn plain_request_is_told_that_the_port_speaks_tls() {
    let server = secure(&Identity::new(), |_| ()).await;
    let mut connection = Connection::open(server.address).await;
    let reply = connection.get("/healthz", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (400, "This port speaks TLS; use https.\n"));
    assert!(connection.is_closed_within(Duration::from_secs(30)).await);
}

#[tokio::test]
async fn handshake_that_is_not_finished_in_time_is_ended() {
    let server = secure(&Identity::new(), |settings| settings.connections.header_timeout = SOON).await;
    let mut silent = Connection::open(server.address).await;
    assert_eq!(silent.until_closed().await, b"");
    // The header of a record whose rest does not come.
    let mut half = Connection::open(server.address).await;
    half.send([22, 3, 1, 2, 0]).await;
    assert_eq!(half.until_closed().await, b"");
}

#[tokio::test]
async fn stop_does_not_wait_for_handshakes() {
    let never = Duration::from_secs(3600);
    let server = secure(&Identity::new(), |settings| {
        settings.connections.header_timeout = never;
        settings.connections.drain_timeout = never;
    })
    .await;
    let mut silent = Connection::open(server.address).await;
    // Accepted after the silent one, and answered.
    server.append("a", "{}").await;
    let (_, said) = tokio::join!(server.restart(), silent.until_closed());
    assert_eq!(said, b"");
}

#[tokio::test]
async fn connection_that_asks_for_nothing_is_ended() {
    let identity = Identity::new();
    let server =
        secure(&identity, |settings| settings.connections.header_timeout = Duration::from_secs(2)).await;
    for protocols in [&["http/1.1"], &["h2"]] {
        let mut silent = identity.connect(server.address, protocols).await.unwrap();
        let mut nowhere = tokio::io::sink();
        let read = tokio::io::copy(&mut silent, &mut nowhere);
        // Without close_notify: the server is not there to a client that says nothing.
        let _ = within("the server closes", read).await;
    }
}

#[tokio::test]
async fn client_trusts_whom_it_is_told_to() {
    let (identity, other) = (Identity::new(), Identity::new());
    let server = secure(&identity, |_| ()).await;
    let url = server.url("");
    let client = Client::over_tls(&url, Some(identity.pem.as_bytes())).unwrap();
    let receipts = client.append("a", "application/json", b"{}".to_vec()).await.unwrap();
    assert_eq!(receipts[0].seq, 1);
    let mut tail = client.tail(Some("a"), "after=0");
    while tail.cursor() != "1" {
        let item = within("the event", tail.next()).await.unwrap();
        assert!(matches!(item, TailItem::Event(_)), "{item:?}");
    }
    let wary = Client::over_tls(&url, Some(other.pem.as_bytes())).unwrap();
    let error = wary.append("a", "application/json", b"{}".to_vec()).await.unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error:?}");
    // Waiting does not help, so the tail does not.
    let error = within("the refusal", wary.tail(None, "").next()).await.unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error:?}");
    assert_eq!(server.table().await.len(), 1);
}
