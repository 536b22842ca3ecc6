//! A bare connection: bytes out, answers in, read with no more trust than a strict client has.

use crate::server::{Reply, within};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) struct Connection {
    socket: TcpStream,
    /// Read and not yet taken.
    bytes: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self { socket: TcpStream::connect(address).await.unwrap(), bytes: Vec::new() }
    }

    /// One whose kernel takes little before the sender must wait.
    pub(crate) async fn open_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        Self { socket: socket.connect(address).await.unwrap(), bytes: Vec::new() }
    }

    /// Sends bytes. That the server has closed shows when its answer is read.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("the bytes are taken", self.socket.write_all(bytes.as_ref())).await;
    }

    /// Sends bytes, all of them.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        let _ = self.socket.shutdown().await;
    }

    /// Sends one request without a body and reads the answer.
    pub(crate) async fn get(&mut self, path: &str, headers: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        self.reply().await
    }

    /// The next answer, which must be there and well formed.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await.expect("the connection was closed without an answer")
    }

    /// The answer to a request of this method; `None` when the server closed without one.
    pub(crate) async fn reply_to(&mut self, method: &str) -> Option<Reply> {
        let head = self.head().await?;
        let (status, headers) = parse_head(&head);
        let is_bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let body = match (text("content-length"), text("transfer-encoding")) {
            _ if is_bodiless => Vec::new(),
            (Some(length), None) => self.take(length.parse().unwrap()).await,
            (None, Some(encoding)) => {
                assert_eq!(encoding, "chunked");
                self.chunks().await
            }
            (None, None) => self.until_closed().await,
            (Some(_), Some(_)) => panic!("both lengths: {head:?}"),
        };
        Some(Reply { status, headers, body })
    }

    /// The head of an answer whose body has no end; `None` when the server closed without one.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.bytes.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more().await {
                assert!(self.bytes.is_empty(), "a torn answer: {:?}", String::from_utf8_lossy(&self.bytes));
                return None;
            }
        }
    }

    /// As [`Connection::head`], and leaves it to be read again.
    pub(crate) async fn peek_head(&mut self) -> Option<String> {
        let head = self.head().await?;
        self.bytes.splice(0..0, head.bytes());
        Some(head)
    }

    /// One chunk of a chunked body; empty at its end, `None` if the connection ends before.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\r\n") {
                let size = std::str::from_utf8(&self.bytes[..end]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                if self.bytes.len() >= end + 2 + size + 2 {
                    let chunk = self.bytes[end + 2..end + 2 + size].to_vec();
                    assert_eq!(&self.bytes[end + 2 + size..end + 4 + size], b"\r\n");
                    self.bytes.drain(..end + 4 + size);
                    return Some(chunk);
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await.expect("a torn body");
            if chunk.is_empty() {
                return body;
            }
            body.extend(chunk);
        }
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.bytes.len() < length {
            assert!(self.more().await, "a body of {} bytes instead of {length}", self.bytes.len());
        }
        self.bytes.drain(..length).collect()
    }

    /// Everything until the server closes.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        self.until_closed_or(b"\0no such bytes\0").await
    }

    /// Everything until the server closes, or has sent these bytes.
    pub(crate) async fn until_closed_or(&mut self, bytes: &[u8]) -> Vec<u8> {
        let all = async {
            while !self.bytes.windows(bytes.len()).any(|window| window == bytes) && self.more().await {}
            std::mem::take(&mut self.bytes)
        };
        within("the server closes", all).await
    }

    /// Whether the server says something, or closes, before this time is over.
    pub(crate) async fn has_bytes_within(&mut self, time: Duration) -> bool {
        !self.bytes.is_empty() || tokio::time::timeout(time, self.more()).await.is_ok()
    }

    /// Whether the server closes before this time is over. It must not say anything.
    pub(crate) async fn is_closed_within(&mut self, time: Duration) -> bool {
        match tokio::time::timeout(time, self.more()).await {
            Ok(is_open) => {
                assert!(!is_open, "{:?}", String::from_utf8_lossy(&self.bytes));
                true
            }
            Err(_) => false,
        }
    }

    /// Reads once. False at the end, however the connection ended.
    pub(crate) async fn more(&mut self) -> bool {
        match within("the server says something or closes", self.socket.read_buf(&mut self.bytes)).await {
            Ok(length) => length > 0,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }
}

fn parse_head(head: &str) -> (u16, HeaderMap) {
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let status_line = lines.next().unwrap();
    let (version, rest) = status_line.split_once(' ').unwrap();
    assert!(matches!(version, "HTTP/1.1" | "HTTP/1.0"), "{status_line}");
    let status = rest.get(..3).and_then(|status| status.parse().ok()).expect(status_line);
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").or_else(|| line.split_once(':')).expect(line);
        headers.append(HeaderName::try_from(name).expect(line), HeaderValue::try_from(value).expect(line));
    }
    for name in ["content-length", "content-type", "transfer-encoding", "x-request-id", "location"] {
        assert!(headers.get_all(name).iter().count() <= 1, "{name} is there twice: {head}");
    }
    (status, headers)
}
