//! Redis Streams over its text protocol: XADD, and pages of XRANGE.

use crate::drive::{Exchange, Wire, payload};

/// Events of a page.
const PAGE: usize = 1000;

fn xadd() -> String {
    let payload = payload();
    format!("*5\r\n$4\r\nXADD\r\n$2\r\nev\r\n$1\r\n*\r\n$1\r\nd\r\n${}\r\n{payload}\r\n", payload.len())
}

/// Appends and waits for the ack.
pub(crate) struct Producer {
    wire: Wire,
    request: Vec<u8>,
}

impl Producer {
    pub(crate) async fn connect(address: &str) -> Self {
        Self { wire: Wire::connect(address).await, request: xadd().into_bytes() }
    }
}

impl Exchange for Producer {
    async fn exchange(&mut self) {
        self.wire.send(&self.request).await;
        bulk(&mut self.wire).await;
    }
}

/// The next text.
async fn bulk(wire: &mut Wire) -> &[u8] {
    let line = wire.line().await;
    let length = line.strip_prefix('$').unwrap_or_else(|| panic!("{line}")).parse().unwrap();
    wire.bytes(length).await
}

/// The length of the next list.
async fn list(wire: &mut Wire) -> usize {
    let line = wire.line().await;
    line.strip_prefix('*').unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

/// Stores so many events and no others, a thousand at a time.
pub(crate) async fn fill(address: &str, events: u64) {
    let mut wire = Wire::connect(address).await;
    wire.send(b"*2\r\n$3\r\nDEL\r\n$2\r\nev\r\n").await;
    wire.line().await;
    let many = xadd().repeat(1000);
    for _ in 0..events / 1000 {
        wire.send(many.as_bytes()).await;
        for _ in 0..1000 {
            bulk(&mut wire).await;
        }
    }
}

/// Reads the stream from its beginning; how many came.
pub(crate) async fn read(address: &str, _events: u64) -> u64 {
    let mut wire = Wire::connect(address).await;
    let mut from = String::from("-");
    let mut seen = 0;
    loop {
        let page = PAGE.to_string();
        let request = ["XRANGE", "ev", &from, "+", "COUNT", &page]
            .map(|word| format!("${}\r\n{word}\r\n", word.len()))
            .concat();
        wire.send(format!("*6\r\n{request}").as_bytes()).await;
        let count = list(&mut wire).await;
        for index in 0..count {
            list(&mut wire).await;
            let id = bulk(&mut wire).await;
            if index + 1 == count {
                from = format!("({}", std::str::from_utf8(id).unwrap());
            }
            list(&mut wire).await;
            bulk(&mut wire).await;
            bulk(&mut wire).await;
        }
        seen += count as u64;
        if count < PAGE {
            return seen;
        }
    }
}
