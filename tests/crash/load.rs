//! Producers: events of every kind, posted as fast as they are answered, and posted again by id when they are not.

use crate::ledger::{Ledger, Posted};
use crate::server::in_time;
use crate::table::Stored;
use evertail::wire::ReceiptJson;
use serde_json::value::RawValue;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Streams that are posted to.
pub(crate) const STREAMS: [&str; 4] = ["audits", "orders.eu", "orders.us", "notes"];
const TYPES: [&str; 4] = ["message", "user.login", "user.logout", "order.made"];
/// Most events of a batch.
const BATCH_MAX: usize = 24;

/// How a producer posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// One event with an id.
    Single,
    /// A batch across streams, with ids.
    Batch,
    /// One event without id; never repeated.
    Anonymous,
    /// Plain text under an idempotency key.
    Text,
    /// What was acked before, once more.
    Repeat,
}

/// How far the producers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Run,
    /// Have what is open acked, and end.
    Finish,
    /// End.
    Quit,
}

/// Producers at work.
pub(crate) struct Load {
    phase: watch::Sender<Phase>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(base: &str, ledger: &Ledger, manners: &[Manner]) -> Self {
        let phase = watch::Sender::new(Phase::Run);
        let producer = |(index, manner): (usize, &Manner)| {
            let name = format!("{manner:?}-{index}-{:08x}", rand::random::<u32>());
            tokio::spawn(produce(*manner, name, base.to_owned(), ledger.clone(), phase.subscribe()))
        };
        let tasks = manners.iter().enumerate().map(producer).collect();
        Self { phase, tasks }
    }

    /// Returns once everything that can be repeated is acked.
    pub(crate) async fn finish(self) {
        self.end(Phase::Finish).await;
    }

    /// Leaves what is open as it is.
    pub(crate) async fn quit(self) {
        self.end(Phase::Quit).await;
    }

    async fn end(self, phase: Phase) {
        self.phase.send_replace(phase);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn produce(manner: Manner, name: String, base: String, ledger: Ledger, phase: watch::Receiver<Phase>) {
    let http = http_client();
    let mut count = 0;
    while *phase.borrow() == Phase::Run {
        count += 1;
        let Some(request) = Request::make(manner, &name, count, &ledger) else {
            pause(5).await;
            continue;
        };
        loop {
            if request.post(&http, &base, &ledger).await {
                break;
            }
            pause(10).await;
            if manner == Manner::Anonymous || *phase.borrow() == Phase::Quit {
                break;
            }
        }
        if rand::random_bool(0.3) {
            pause(4).await;
        }
    }
}

/// Up to so many milliseconds: producers come as they like.
async fn pause(milliseconds_max: u64) {
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..=milliseconds_max))).await;
}

/// One POST.
pub(crate) struct Request {
    path: String,
    content_type: &'static str,
    key: Option<String>,
    pub(crate) body: String,
    pub(crate) events: Vec<Posted>,
}

/// What a POST was answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// 2xx: a promise.
    Acked {
        status: u16,
        receipts: Vec<ReceiptJson>,
    },
    Refused {
        status: u16,
        code: String,
        retry_after: Option<String>,
    },
    /// The connection could not be made, or ended.
    None,
}

impl Request {
    /// `None` if there is nothing to post now.
    fn make(manner: Manner, name: &str, count: u64, ledger: &Ledger) -> Option<Self> {
        let padding = match rand::random_range(0..100) {
            0 => 40_000,
            1..10 => 3_000,
            _ => 60,
        };
        let id = format!("{name}-{count}");
        let event = |id: String| event(any(&STREAMS), any(&TYPES), Some(id), padding);
        Some(match manner {
            Manner::Single => Self::one(event(id)),
            Manner::Batch => {
                let size = rand::random_range(1..=BATCH_MAX);
                Self::batch((0..size).map(|index| event(format!("{id}-{index}"))).collect())
            }
            Manner::Anonymous => Self::one(Posted { id: None, ..event(id) }),
            Manner::Text => Self::text(any(&STREAMS), &id),
            Manner::Repeat => Self::one(ledger.any_acked()?),
        })
    }

    /// One event, as JSON.
    pub(crate) fn one(event: Posted) -> Self {
        let path = format!("/api/v1/{}", event.stream);
        Self {
            path,
            content_type: "application/json",
            key: None,
            body: json(&event, false),
            events: vec![event],
        }
    }

    /// Events that name their streams, as NDJSON.
    pub(crate) fn batch(mut events: Vec<Posted>) -> Self {
        let request = events[0].request.clone();
        events.iter_mut().for_each(|event| event.request.clone_from(&request));
        let body = events.iter().map(|event| json(event, true)).collect::<Vec<_>>().join("\n");
        let path = "/api/v1/events".to_owned();
        Self { path, content_type: "application/x-ndjson", key: None, body, events }
    }

    fn text(stream: &str, id: &str) -> Self {
        let body = format!("{id} says \"\u{e9}\u{1f600}\"\n\tand goes on");
        let data = serde_json::to_string(&body).unwrap();
        let event = Posted { data, ..event(stream, "message", Some(id.to_owned()), 0) };
        let path = format!("/api/v1/{stream}");
        Self { path, content_type: "text/plain", key: Some(id.to_owned()), body, events: vec![event] }
    }

    /// Sends it, and notes down what it was answered. True if it was acked.
    pub(crate) async fn post(&self, http: &reqwest::Client, base: &str, ledger: &Ledger) -> bool {
        ledger.post(&self.events);
        let sent_at = Instant::now();
        match self.send(http, base).await {
            Answer::Acked { receipts, .. } => {
                ledger.ack(sent_at, &self.events, &receipts);
                true
            }
            Answer::Refused { status, code, .. } => {
                ledger.refused(status, code);
                false
            }
            Answer::None => false,
        }
    }

    pub(crate) async fn send(&self, http: &reqwest::Client, base: &str) -> Answer {
        let mut request = http.post(format!("{base}{}", self.path)).header("content-type", self.content_type);
        if let Some(key) = &self.key {
            request = request.header("idempotency-key", key);
        }
        let Ok(response) = in_time(request.body(self.body.clone()).send()).await else { return Answer::None };
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        // A 2xx whose body was cut off by the kill promises all the same, but does not say what.
        let Ok(body) = in_time(response.bytes()).await else { return Answer::None };
        match status {
            200 | 201 => Answer::Acked { status, receipts: receipts(&body) },
            _ => {
                let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                let code = problem["code"].as_str().unwrap_or_default().to_owned();
                Answer::Refused { status, code, retry_after }
            }
        }
    }
}

/// The events of a JSON page.
pub(crate) async fn page(base: &str, query: &str) -> Vec<Stored> {
    #[derive(serde::Deserialize)]
    struct Page {
        events: Vec<Box<RawValue>>,
    }
    let request = http_client().get(format!("{base}/api/v1/events?{query}"));
    let response = in_time(request.header("accept", "application/json").send()).await.unwrap();
    assert_eq!(response.status(), 200);
    let page: Page = serde_json::from_slice(&in_time(response.bytes()).await.unwrap()).unwrap();
    page.events.iter().map(|event| Stored::parse(event.get()).unwrap()).collect()
}

fn receipts(body: &[u8]) -> Vec<ReceiptJson> {
    if body.starts_with(b"[") {
        serde_json::from_slice(body).unwrap()
    } else {
        vec![serde_json::from_slice(body).unwrap()]
    }
}

/// An event whose payload nobody else has, with everything in it that a careless server would rewrite.
pub(crate) fn event(stream: &str, r#type: &str, id: Option<String>, padding: usize) -> Posted {
    let unique = rand::random::<u128>();
    let label = id.as_deref().unwrap_or_default();
    let padding = "x".repeat(padding);
    let data = format!(
        r#"{{"b":1,"a":{{"n":1.50e3}},"of":"{label}","u":"\u00e9\ud83d\ude00 é","unique":"{unique:032x}","p":"{padding}"}}"#
    );
    let request = format!("{unique:032x}");
    Posted { stream: stream.to_owned(), r#type: r#type.to_owned(), id, data, request }
}

/// The request's JSON for an event; its payload goes as it is.
fn json(event: &Posted, is_stream_named: bool) -> String {
    let mut members = Vec::new();
    if is_stream_named {
        members.push(format!("\"stream\":\"{}\"", event.stream));
    }
    if let Some(id) = &event.id {
        members.push(format!("\"id\":\"{id}\""));
    }
    if event.r#type != "message" {
        members.push(format!("\"type\":\"{}\"", event.r#type));
    }
    members.push(format!("\"data\":{}", event.data));
    format!("{{{}}}", members.join(","))
}

fn any(names: &[&'static str]) -> &'static str {
    names[rand::random_range(0..names.len())]
}

/// A client of plain HTTP, which is made with cryptography all the same. The certificates of the system would take it longer
/// to read than some servers here have to live.
pub(crate) fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_certs_only([]).build().unwrap()
}
