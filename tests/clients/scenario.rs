//! What every client is put through: cuts inside frames, silence, a reset, kill -9, a stop in good order, a full server, a
//! trim, and the end of the stream. Whoever resumes is to have every event exactly once, in order.

use crate::cutter::{Cut, Cutter, Request};
use crate::document::{self, Row};
use crate::event_source::http_builder;
use crate::kind::Kind;
use crate::program::Program;
use crate::server::{Launch, Place, Server, in_time, lasting_port};
use reqwest::{Client, Response};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

/// What the server asks for with `retry:`, once it does.
const RETRY: Duration = Duration::from_secs(1);
/// Timers of clients round down.
const ROUNDING: Duration = Duration::from_millis(50);
/// What the client leaves to the lines around it.
const BY_RECIPE: &str = "by the recipe";
/// Where the largest event is cut.
const MIDDLE: &str = "the middle";

/// Payloads as strange as they may be, in JSON: control characters, line ends that only some take for one, no BMP.
fn payloads() -> Vec<Value> {
    let half = "0123456789abcdef".repeat(6 << 10);
    vec![
        json!({"actor": "alice"}),
        json!("one\ntwo\r\nthree\rfour\n"),
        json!("\u{85}\u{2028}\u{2029}\u{b}\u{c}\u{1e}\u{0}\u{feff}"),
        json!("Žluťoučký kůň 🐎 مرحبا 漢字 e\u{301}"),
        json!(format!("{half}{MIDDLE}{half}")),
        json!("  data: id: 7\n\nid: 8\n: \n"),
        json!(null),
        json!([1e300, -0.5, "", {}]),
    ]
}

/// With `format=data`: a text, and the text that an event stream makes of it.
const TEXTS: [(&str, &str); 5] = [
    ("one\ntwo\r\nthree\rfour", "one\ntwo\nthree\nfour"),
    (
        "first\n\nthird: the middle\n: fourth\ndata: fifth",
        "first\n\nthird: the middle\n: fourth\ndata: fifth",
    ),
    ("\u{2028}🐎\u{85}\u{2029}", "\u{2028}🐎\u{85}\u{2029}"),
    ("id: 7", "id: 7"),
    ("", "\"\""),
];

struct Setting {
    launch: Launch,
    server: Server,
    http: Client,
    /// The events of the stream that the client is to have: seq, type, data.
    expected: Vec<(Value, Value, Value)>,
}

impl Setting {
    async fn post(&self, path: &str, content_type: &str, body: String) -> Value {
        let url = format!("{}{path}", self.server.base);
        let request = self.http.post(url).header("content-type", content_type).body(body);
        let answer = in_time(request.send()).await.unwrap();
        let status = answer.status();
        let body = answer.text().await.unwrap();
        assert!(status.is_success(), "{status}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Appends events of several types; returns their seqs.
    async fn append(&mut self, payloads: Vec<Value>) -> Vec<u64> {
        let types = ["message", "user.login", "note"].into_iter().cycle();
        let events: Vec<Value> =
            types.zip(payloads).map(|(event_type, data)| json!({"type": event_type, "data": data})).collect();
        let body = Value::from(events.clone()).to_string();
        let receipts = self.post("/api/v1/audits", "application/json", body).await;
        let receipts = receipts.as_array().unwrap();
        for (receipt, event) in receipts.iter().zip(events) {
            self.expected.push((receipt["seq"].clone(), event["type"].clone(), event["data"].clone()));
        }
        receipts.iter().map(|receipt| receipt["seq"].as_u64().unwrap()).collect()
    }

    /// Opens a stream, and takes the place that it needs.
    async fn occupy(&self) -> Response {
        let url = format!("{}/api/v1/events", self.server.base);
        let mut stream = in_time(self.http.get(url).send()).await.unwrap();
        assert!(in_time(stream.chunk()).await.unwrap().is_some());
        stream
    }
}

pub(crate) async fn run(kind: Kind) {
    let place = Place::new();
    let port = lasting_port();
    let launch =
        Launch::new(&place.file()).listen(format!("127.0.0.1:{port}")).with("EVERTAIL_KEEP_ALIVE_SECONDS", 1);
    let server = launch.start().await;
    let http = http_builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let mut setting = Setting { launch, server, http, expected: Vec::new() };

    let texts = match kind.is_for_texts() {
        true => Some(follow_texts(kind, &setting, port).await),
        false => None,
    };

    // Each of the first connections is cut: inside a long line, inside an id, between an id and the end of its frame.
    let seqs = setting.append([payloads(), payloads()].concat()).await;
    let mut cutter = Cutter::start(port).await;
    cutter.cut([
        Cut { words: MIDDLE.to_owned(), less: 3 },
        Cut { words: format!("\nid: {}\n", seqs[6]), less: 2 },
        Cut { words: format!("\nid: {}\n", seqs[10]), less: 0 },
    ]);
    let mut program = Program::start(kind, &cutter, "/api/v1/audits?after=0").await;
    program.has_shown(setting.expected.len()).await;
    let caught_up = cutter.seen().borrow().requests.len();

    // Live, and with silence in between, in which the cursor moves past an event of another stream. The next sign of life
    // is a comment: when that comes, the cursor has been read.
    for payload in payloads() {
        setting.append(vec![payload]).await;
    }
    program.has_shown(setting.expected.len()).await;
    let passed = cutter.passed();
    let other = setting.post("/api/v1/other", "text/plain", "not theirs".to_owned()).await["seq"].to_string();
    cutter.has_passed(passed, &format!("\nid: {other}\n\n")).await;
    let before = cutter.seen().borrow().requests.len();
    cutter.cut([Cut { words: "\r\n:\n\r\n".to_owned(), less: 0 }]);
    let moved = cutter.request(before).await;
    setting.append(payloads()).await;
    program.has_shown(setting.expected.len()).await;
    let before = cutter.seen().borrow().requests.len();
    cutter.reset();
    cutter.request(before).await;

    // From here on the server wants to be left alone for a while by whoever lost it.
    let quick = requests(&cutter, 1);
    setting.launch = setting
        .launch
        .with("EVERTAIL_RETRY_SECONDS_MAX", RETRY.as_secs())
        .with("EVERTAIL_RETRY_SECONDS_MIN", RETRY.as_secs());
    setting.server.kill();
    cutter.leave().await;
    setting.server = setting.launch.start().await;
    setting.append(payloads()).await;
    cutter.listen().await;
    program.has_shown(setting.expected.len()).await;
    if let Some((mut reader, _cutter)) = texts {
        let shown = reader
            .written
            .wait_for(|written| written.shown.iter().any(|shown| shown.event_type == "evertail.closed"));
        let written = in_time(shown).await.unwrap();
        let shown: Vec<&str> = written.events().map(|shown| shown.text()).collect();
        assert_eq!(shown, TEXTS.map(|(_, text)| text));
    }

    // Stopped in good order. When it is back, events are gone that the client has not seen, and there is no place for it.
    let slow_from = cutter.seen().borrow().requests.len();
    let passed = cutter.passed();
    setting.server.signal(Signal::TERM);
    assert!(setting.server.ended().await.success());
    cutter.has_passed(passed, "event: evertail.notice\ndata: {\"reason\":\"drain\"}\n\n").await;
    cutter.leave().await;
    setting.server = setting.launch.clone().with("EVERTAIL_CONNECTIONS_MAX", 2).start().await;
    let known = setting.expected.len();
    let seqs = setting.append(payloads()).await;
    setting
        .post("/admin/trim", "application/json", json!({"stream": "audits", "keep_events": 2}).to_string())
        .await;
    setting.expected.drain(known..known + seqs.len() - 2);
    let occupied = [setting.occupy().await, setting.occupy().await];
    let passed = cutter.passed();
    cutter.listen().await;
    cutter.has_passed(passed, "event: evertail.notice\ndata: {\"reason\":\"overloaded\"}\n").await;
    drop(occupied);
    program.has_shown(setting.expected.len()).await;

    // The end, after which the recipe stays away.
    let slow = requests(&cutter, slow_from);
    setting.post("/api/v1/audits/close", "application/json", String::new()).await;
    program.has_shown_control("evertail.closed").await;
    if !kind.is_in_browser() {
        assert!(program.ended().await.success());
    }

    let written = program.written.borrow();
    let shown: Vec<_> = written
        .events()
        .map(|shown| {
            let event = shown.json();
            let data = event.get("data").cloned().unwrap_or(Value::Null);
            assert_eq!(event.get("type").unwrap_or(&json!("message")), &shown.event_type);
            (event["seq"].clone(), json!(shown.event_type), data)
        })
        .collect();
    let seqs =
        |events: &[(Value, Value, Value)]| events.iter().map(|(seq, ..)| seq.to_string()).collect::<Vec<_>>();
    assert_eq!(seqs(&shown), seqs(&setting.expected));
    assert!(shown == setting.expected, "an event differs");
    let gaps: Vec<Value> = written
        .shown
        .iter()
        .filter(|shown| shown.event_type == "evertail.gap")
        .map(|shown| shown.json())
        .collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");

    let announced = written.said.iter().filter(|line| *line == "connecting").count();
    let requests = cutter.seen().borrow().requests.clone();
    // A browser may forget all that came before an error, the first cursor too, where its page has not taken it yet.
    let has_cursor = |request: &Request| request.last_event_id.is_some();
    assert!(requests[caught_up..].iter().all(has_cursor), "{requests:?}");
    let has_reopened = requests.iter().any(|request| request.is_reopened);
    let least = |requests: &[Request]| requests.iter().filter_map(|request| request.delay).min().unwrap();
    let (quick, slow) = (least(&quick), least(&slow));
    let source = kind.source().to_lowercase().replace("'last_event_id'", "last-event-id");
    let by = |words: &str| if source.contains(words) { BY_RECIPE } else { "yes" };
    let honours_retry = match slow + ROUNDING {
        // Who waits as long in any case does not wait for that.
        _ if quick >= RETRY => "no",
        slow if slow >= RETRY => by("retry"),
        slow if slow >= RETRY / 2 => document::HALF,
        _ => "no",
    };
    document::hold(
        kind,
        Row {
            reconnects: if announced < requests.len() && !has_reopened { "yes" } else { BY_RECIPE },
            sends_last_event_id: by("last-event-id"),
            cursor_moves: if moved.last_event_id.as_deref() == Some(&other) { "yes" } else { "no" },
            honours_retry,
        },
    );
}

fn requests(cutter: &Cutter, from: usize) -> Vec<Request> {
    cutter.seen().borrow().requests[from..].to_vec()
}

/// Starts to follow a stream of texts with `format=data`, over a cut inside a text of several lines.
async fn follow_texts(kind: Kind, setting: &Setting, port: u16) -> (Program, Cutter) {
    for (text, _) in TEXTS {
        setting.post("/api/v1/texts", "application/json", json!({"data": text}).to_string()).await;
    }
    setting.post("/api/v1/texts/close", "application/json", String::new()).await;
    let cutter = Cutter::start(port).await;
    cutter.cut([Cut { words: MIDDLE.to_owned(), less: 0 }]);
    (Program::start(kind, &cutter, "/api/v1/texts?format=data&after=0").await, cutter)
}
