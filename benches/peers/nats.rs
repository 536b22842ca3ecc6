//! NATS JetStream over its text protocol: publishing with an ack, and an ordered push consumer.

use crate::drive::{Exchange, Wire, payload};

const STREAM: &str = r#"{"name":"EV","subjects":["events"],"storage":"file"}"#;
const CONSUMER: &str = r#"{"stream_name":"EV","config":{"deliver_subject":"deliver","deliver_policy":"all","ack_policy":"none","max_deliver":1,"mem_storage":true,"flow_control":true,"idle_heartbeat":5000000000}}"#;

/// A connection that has subscribed to a subject of its own.
async fn connect(address: &str, subject: &str) -> Wire {
    let mut wire = Wire::connect(address).await;
    assert!(wire.line().await.starts_with("INFO "));
    let hello = format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB {subject} 1\r\nPING\r\n");
    wire.send(hello.as_bytes()).await;
    while wire.line().await != "PONG" {}
    wire
}

/// A call of the JetStream API; its answer must not be an error.
async fn call(wire: &mut Wire, inbox: &str, subject: &str, body: &str) {
    wire.send(format!("PUB {subject} {inbox} {}\r\n{body}\r\n", body.len()).as_bytes()).await;
    let answer = String::from_utf8(message(wire).await.to_vec()).unwrap();
    assert!(!answer.contains("\"error\""), "{answer}");
}

/// The payload of the next message.
async fn message(wire: &mut Wire) -> &[u8] {
    loop {
        let line = wire.line().await;
        if line.starts_with("MSG ") {
            let length = line.rsplit(' ').next().unwrap().parse().unwrap();
            return wire.bytes(length).await;
        }
        assert!(!line.starts_with("-ERR"), "{line}");
        if line == "PING" {
            wire.send(b"PONG\r\n").await;
        }
    }
}

/// A name that no other connection has.
fn inbox() -> String {
    format!("_INBOX.{:016x}", rand::random::<u64>())
}

/// Makes the stream.
pub(crate) async fn prepare(address: &str) {
    let inbox = inbox();
    let mut wire = connect(address, &inbox).await;
    call(&mut wire, &inbox, "$JS.API.STREAM.CREATE.EV", STREAM).await;
}

/// Publishes and waits for the ack.
pub(crate) struct Producer {
    wire: Wire,
    request: Vec<u8>,
}

impl Producer {
    pub(crate) async fn connect(address: &str) -> Self {
        let inbox = inbox();
        let payload = payload();
        let request = format!("PUB events {inbox} {}\r\n{payload}\r\n", payload.len()).into_bytes();
        Self { wire: connect(address, &inbox).await, request }
    }
}

impl Exchange for Producer {
    async fn exchange(&mut self) {
        self.wire.send(&self.request).await;
        let answer = message(&mut self.wire).await;
        assert!(memchr::memmem::find(answer, b"\"seq\":").is_some(), "an ack names its seq");
    }
}

/// Stores so many events and no others, a thousand for each ack.
pub(crate) async fn fill(address: &str, events: u64) {
    prepare(address).await;
    let inbox = inbox();
    let mut wire = connect(address, &inbox).await;
    call(&mut wire, &inbox, "$JS.API.STREAM.PURGE.EV", "").await;
    let mut producer = Producer::connect(address).await;
    let payload = payload();
    let one = format!("PUB events {}\r\n{payload}\r\n", payload.len());
    let many = one.repeat(999);
    for _ in 0..events / 1000 {
        producer.wire.send(many.as_bytes()).await;
        producer.exchange().await;
    }
}

/// Reads the stream from its beginning; how many came.
pub(crate) async fn read(address: &str, events: u64) -> u64 {
    let (calling, subject) = (inbox(), inbox());
    let mut wire = connect(address, &subject).await;
    let mut caller = connect(address, &calling).await;
    let consumer = CONSUMER.replace("\"deliver\"", &format!("{subject:?}"));
    call(&mut caller, &calling, "$JS.API.CONSUMER.CREATE.EV", &consumer).await;
    let mut seen = 0;
    while seen < events {
        let line = wire.line().await;
        let mut words = line.split(' ');
        match words.next() {
            Some("MSG") => {
                let length = words.next_back().unwrap().parse().unwrap();
                wire.bytes(length).await;
                seen += 1;
            }
            Some("HMSG") => {
                // Flow control asks for an answer to where it says.
                let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
                let length = words[words.len() - 1].parse().unwrap();
                wire.bytes(length).await;
                if words.len() == 6 {
                    wire.send(format!("PUB {} 0\r\n\r\n", words[3]).as_bytes()).await;
                }
            }
            Some("PING") => wire.send(b"PONG\r\n").await,
            other => panic!("{other:?}"),
        }
    }
    seen
}
