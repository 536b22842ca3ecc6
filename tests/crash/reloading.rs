//! SIGHUP: what was exchanged on the disk is taken at once; what is of no use changes nothing; nobody's stream ends.

use crate::event_source::{EventSource, Heard, http_builder};
use crate::server::{Launch, Place, Server, in_time, until};
use crate::supervised::Supervisor;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::CertifiedKey;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

async fn reload(server: &Server, supervisor: &Supervisor) {
    server.signal(Signal::HUP);
    supervisor.hears("RELOADING=1").await;
    supervisor.hears("READY=1").await;
}

/// The next event of a stream that does not end.
async fn next_data(stream: &mut EventSource) -> String {
    loop {
        match in_time(stream.next()).await.unwrap() {
            Heard::Frame(frame) if !frame.is_control() => return frame.data,
            Heard::Frame(_) => {}
            Heard::Gone { .. } => panic!("the stream has ended"),
        }
    }
}

/// Makes a certificate that signed itself, in the place of the one before, and a client that trusts no other.
fn certify(place: &Place) -> impl Fn() -> reqwest::Client + use<> {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(place.folder().join("certificate.pem"), cert.pem()).unwrap();
    fs::write(place.folder().join("key.pem"), signing_key.serialize_pem()).unwrap();
    let pem = cert.pem();
    move || {
        let certificate = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
        http_builder().tls_certs_only([certificate]).build().unwrap()
    }
}

/// Whether a new connection is made.
async fn is_trusted(http: reqwest::Client, server: &Server) -> bool {
    in_time(http.get(format!("{}/healthz", server.base)).send()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_served_at_once_and_no_stream_ends() {
    let place = Place::new();
    let old = certify(&place);
    let path = |name| place.folder().join(name).display().to_string();
    let launch = Launch::new(&place.file())
        .with("EVERTAIL_TLS_CERTIFICATE", path("certificate.pem"))
        .with("EVERTAIL_TLS_KEY", path("key.pem"));
    let (supervisor, launch) = Supervisor::of(&place, launch);
    let server = launch.start().await;
    supervisor.hears("READY=1").await;
    let url = format!("{}/api/v1/audits", server.base);
    let mut stream = EventSource::with_client(old(), url.clone());
    assert!(matches!(in_time(stream.next()).await.unwrap(), Heard::Frame(frame) if frame.is_control()));

    let new = certify(&place);
    reload(&server, &supervisor).await;
    assert!(is_trusted(new(), &server).await);
    assert!(!is_trusted(old(), &server).await);
    until("it says so", async || server.has_said("the certificate was replaced")).await;
    reload(&server, &supervisor).await;
    until("it says so", async || server.has_said("read again, and is the same")).await;

    fs::write(path("certificate.pem"), "no certificate").unwrap();
    reload(&server, &supervisor).await;
    until("it says so", async || server.has_said("the new certificate is not used")).await;
    assert!(is_trusted(new(), &server).await);

    let event = r#"{"data":"behind it all"}"#;
    assert_eq!(in_time(new().post(url).body(event).send()).await.unwrap().status(), 201);
    assert!(next_data(&mut stream).await.contains("behind it all"));
}

/// Who signs tokens.
struct Signer {
    name: &'static str,
    key: Ed25519KeyPair,
}

impl Signer {
    fn new(name: &'static str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { name, key: Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap() }
    }

    /// Its keys as a JWKS.
    fn set(&self) -> String {
        let public = URL_SAFE_NO_PAD.encode(self.key.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.name, "x": public}]}).to_string()
    }

    /// A client with a token that may do everything for an hour.
    fn client(&self) -> reqwest::Client {
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = [
            part(json!({"alg": "EdDSA", "kid": self.name})),
            part(json!({"sub": "alice", "aud": "evertail", "exp": until,
                "evertail": {"append": ["audits"], "read": ["audits"]}})),
        ]
        .join(".");
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        let token = format!("Bearer {signed}.{signature}").parse().unwrap();
        http_builder().default_headers(HeaderMap::from_iter([(AUTHORIZATION, token)])).build().unwrap()
    }

    /// What it is answered when it appends.
    async fn append(&self, server: &Server, data: &str) -> u16 {
        let request = self.client().post(format!("{}/api/v1/audits", server.base));
        in_time(request.body(format!("{{\"data\":\"{data}\"}}")).send()).await.unwrap().status().as_u16()
    }
}

/// An identity provider, and what it gives out now.
async fn provider() -> (String, watch::Sender<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let (set, given) = watch::channel(String::new());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let body = given.borrow().clone();
            let length = body.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
            // A request this short comes at once.
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (url, set)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_keys_of_tokens_are_taken_at_once_and_no_stream_ends() {
    let (url, set) = provider().await;
    for is_fetched in [false, true] {
        let place = Place::new();
        let file = place.folder().join("jwks.json");
        let give = |keys: &str| {
            fs::write(&file, keys).unwrap();
            set.send_replace(keys.to_owned());
        };
        let (old, new) = (Signer::new("old"), Signer::new("new"));
        give(&old.set());
        let source = if is_fetched { url.clone() } else { file.display().to_string() };
        let launch = Launch::new(&place.file()).with("EVERTAIL_AUTH", "on").with("EVERTAIL_JWKS", source);
        let (supervisor, launch) = Supervisor::of(&place, launch);
        let server = launch.start().await;
        supervisor.hears("READY=1").await;
        let mut stream = EventSource::with_client(old.client(), format!("{}/api/v1/audits", server.base));
        assert!(matches!(in_time(stream.next()).await.unwrap(), Heard::Frame(frame) if frame.is_control()));
        assert_eq!(old.append(&server, "first").await, 201);

        give(&new.set());
        assert_eq!(new.append(&server, "too early").await, 401);
        reload(&server, &supervisor).await;
        assert_eq!(new.append(&server, "second").await, 201);
        assert_eq!(old.append(&server, "too late").await, 401);
        until("it says so", async || server.has_said("the keys of tokens were read again")).await;

        give("no set");
        reload(&server, &supervisor).await;
        until("it says so", async || server.has_said("the new keys of tokens are not used")).await;
        assert_eq!(new.append(&server, "third").await, 201);
        for data in ["first", "second", "third"] {
            assert!(next_data(&mut stream).await.contains(data));
        }
    }
}
