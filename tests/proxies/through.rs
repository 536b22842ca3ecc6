//! What is asked of every proxy.

use crate::event_source::http_builder;
use crate::event_source::{EventSource, Frame, Heard};
use crate::proxy::{Kind, Proxy};
use crate::server::{Launch, Place, Server, in_time, lasting_port, until};
use reqwest::{Client, Response};
use serde_json::Value;

/// So long that nothing but events is ever sent.
const SILENT_SECONDS: u32 = 600;

/// A server that trusts a proxy on 127.0.0.1, and the proxy in front of it.
async fn behind(kind: Kind, place: &Place, keep_alive_seconds: u32) -> (Launch, Server, Proxy) {
    let launch = Launch::new(&place.file())
        .listen(format!("127.0.0.1:{}", lasting_port()))
        .with("EVERTAIL_ALLOWED_HOSTS", "log.example")
        .with("EVERTAIL_TRUSTED_PROXIES", "127.0.0.1,::1")
        .with("EVERTAIL_KEEP_ALIVE_SECONDS", keep_alive_seconds);
    let server = launch.start().await;
    let proxy = Proxy::start(kind, &server.base).await;
    (launch, server, proxy)
}

fn client() -> Client {
    http_builder().no_proxy().build().unwrap()
}

/// Appends events with these numbers as their data, one request each, and sees the acks.
async fn append(base: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let request = client().post(format!("{base}/api/v1/a")).body(format!("{{\"data\":{number}}}"));
        let answer = in_time(request.send()).await.unwrap();
        assert_eq!(answer.status(), 201);
        assert!(answer.headers()["location"].to_str().unwrap().starts_with("/api/v1/events/"));
        let receipt: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(receipt["stream"], "a");
    }
}

/// Reads a stream until it has brought these words.
async fn read_until(stream: &mut Response, text: &mut String, words: &str) {
    while !text.contains(words) {
        let chunk = in_time(stream.chunk()).await.unwrap().expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk).expect("a stream is not compressed"));
    }
}

/// Each is waited for with nothing sent behind it, so a proxy that holds back what it has would never show it.
pub(crate) async fn events_are_seen_at_once(kind: Kind) {
    let place = Place::new();
    let (_, _server, proxy) = behind(kind, &place, SILENT_SECONDS).await;
    let base = proxy.base();
    for format in ["event", "data"] {
        let url = format!("{base}/api/v1/a?format={format}");
        let request = client().get(url).header("accept-encoding", "gzip, deflate, br");
        let mut stream = in_time(request.send()).await.unwrap();
        assert_eq!(stream.status(), 200);
        assert_eq!(stream.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert!(!stream.headers().contains_key("content-encoding"), "{:?}", stream.headers());
        let mut text = String::new();
        read_until(&mut stream, &mut text, "evertail.cursor").await;
        for number in 0..3 {
            append(&base, number..number + 1).await;
            let data = if format == "event" {
                format!("\"data\":{number}}}\n")
            } else {
                format!("data: {number}\n")
            };
            read_until(&mut stream, &mut text, &data).await;
        }
    }
}

/// Of a stream without events, several times as many as a buffer would take before it is passed on.
pub(crate) async fn keep_alives_pass(kind: Kind) {
    let place = Place::new();
    let (_, _server, proxy) = behind(kind, &place, 1).await;
    let mut stream = in_time(client().get(format!("{}/api/v1/a", proxy.base())).send()).await.unwrap();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "\n\n").await;
    read_until(&mut stream, &mut text, "\n\n:\n").await;
    read_until(&mut stream, &mut text, "\n\n:\n:\n").await;
}

/// Takes frames until the event with this seq, and holds each against its place in the log.
async fn follow(source: &mut EventSource, taken: &mut Vec<Frame>, through: u64) {
    while taken.len() < through as usize {
        match in_time(source.next()).await.unwrap() {
            Heard::Frame(frame) if frame.is_control() => {}
            Heard::Frame(frame) => {
                taken.push(frame);
                let frame = taken.last().unwrap();
                assert_eq!(frame.id, Some(taken.len() as u64), "once, and in order");
                let data: Value = serde_json::from_str(&frame.data).unwrap();
                assert_eq!(data["data"], taken.len() as u64 - 1);
            }
            Heard::Gone { .. } => tokio::task::yield_now().await,
        }
    }
}

pub(crate) async fn reader_cut_off_by_the_proxy_resumes_exactly(kind: Kind) {
    let place = Place::new();
    let (_, server, mut proxy) = behind(kind, &place, SILENT_SECONDS).await;
    let mut source = EventSource::new(format!("{}/api/v1/a?after=0", proxy.base()));
    let mut taken = Vec::new();
    append(&proxy.base(), 0..5).await;
    follow(&mut source, &mut taken, 3).await;
    for round in 1..4 {
        // Past the proxy, before, and after its end.
        append(&server.base, round * 20 - 15..round * 20 - 5).await;
        proxy.restart().await;
        append(&proxy.base(), round * 20 - 5..round * 20 + 5).await;
        follow(&mut source, &mut taken, round * 20 + 5).await;
    }
}

pub(crate) async fn restart_of_the_server_ends_no_event_source(kind: Kind) {
    let place = Place::new();
    let (launch, mut server, proxy) = behind(kind, &place, SILENT_SECONDS).await;
    let mut source = EventSource::new(format!("{}/api/v1/a?after=0", proxy.base()));
    let mut taken = Vec::new();
    append(&proxy.base(), 0..5).await;
    follow(&mut source, &mut taken, 5).await;
    server.kill();
    // What an EventSource would end at fails this at once.
    let following = tokio::spawn(async move {
        follow(&mut source, &mut taken, 15).await;
    });
    if kind == Kind::Nginx {
        let page = client().get(format!("{}/api/v1/a", proxy.base())).header("accept", "application/json");
        assert_eq!(
            in_time(page.send()).await.unwrap().status(),
            502,
            "only an EventSource is told otherwise"
        );
    }
    // There is nobody to store it: it waits for the server to come back, or is not acked.
    let post = client().post(format!("{}/api/v1/a", proxy.base())).body(r#"{"data":5}"#);
    let (answer, server) = tokio::join!(in_time(post.send()), launch.start());
    match answer.unwrap().status().as_u16() {
        201 => {}
        502 if kind != Kind::Haproxy => append(&server.base, 5..6).await,
        other => panic!("{other}"),
    }
    append(&proxy.base(), 6..15).await;
    in_time(following).await.unwrap();
}

pub(crate) async fn clients_are_known_by_their_own_addresses(kind: Kind) {
    let place = Place::new();
    let (_, server, proxy) = behind(kind, &place, SILENT_SECONDS).await;
    let read = async |base: &str, address: [u8; 4], forged: &[(&str, &str)]| {
        let from = http_builder().no_proxy().local_address(Some(address.into())).build().unwrap();
        let mut request = from.get(format!("{base}/api/v1/a")).header("host", "log.example");
        request = request.header("origin", "http://log.example");
        for (name, value) in forged {
            request = request.header(*name, *value);
        }
        let mut stream = in_time(request.send()).await.unwrap();
        assert_eq!(stream.status(), 200);
        read_until(&mut stream, &mut String::new(), "evertail.cursor").await;
        let words =
            format!("\"message\":\"stream opened\",\"client\":\"{}\"", std::net::IpAddr::from(address));
        until(&format!("the log names {address:?}"), async || server.has_said(&words)).await;
    };
    let base = proxy.base();
    read(&base, [127, 0, 0, 5], &[]).await;
    read(&base, [127, 0, 0, 6], &[("x-forwarded-for", "6.6.6.6")]).await;
    read(&base, [127, 0, 0, 7], &[("forwarded", "for=6.6.6.6")]).await;
    let both = [("x-forwarded-for", "6.6.6.6, 127.0.0.1"), ("forwarded", "for=6.6.6.6;by=127.0.0.1")];
    read(&base, [127, 0, 0, 8], &both).await;
    read(&server.base, [127, 0, 0, 9], &both).await;
    assert!(!server.has_said("6.6.6.6"), "a forged address was believed");
}

pub(crate) async fn large_bodies_pass_whole(kind: Kind) {
    let place = Place::new();
    let (_, _server, proxy) = behind(kind, &place, SILENT_SECONDS).await;
    let url = format!("{}/api/v1/a", proxy.base());
    let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(30_000));
    let post =
        |count: usize| client().post(&url).body(format!("[{}]", vec![event.as_str(); count].join(",")));
    let answer = in_time(post(100).send()).await.unwrap();
    assert_eq!(answer.status(), 201);
    let lines = client().get(&url).header("accept", "application/x-ndjson").send();
    let lines = in_time(in_time(lines).await.unwrap().text()).await.unwrap();
    assert_eq!(lines.lines().count(), 100);
    assert!(lines.lines().all(|line| line.contains(&event[1..event.len() - 1])));
    // Beyond the limit it is Evertail that answers.
    let refused = in_time(post(150).send()).await.unwrap();
    assert_eq!(refused.status(), 413);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
}
