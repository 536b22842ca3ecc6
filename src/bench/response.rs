//! HTTP/1.1 answers: the head, and the body out of whatever framing it has. Pure; bytes come as they were read.

use super::BenchError;

/// Largest head. *Bounds*: a server that never ends its head is found out.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;

/// What the head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Where to go on, for servers that page.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Where in the body the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Rest(u64),
    UntilClose,
    ChunkSize { size: u64, is_extension: bool },
    ChunkData(u64),
    ChunkEnd,
    Trailer { is_empty: bool },
}

/// Reads one answer after the other.
#[derive(Debug)]
pub struct Response {
    place: Place,
    /// A head that has come in part.
    begun: Vec<u8>,
    keeps_headers: bool,
    head: Head,
}

/// How far a push went.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that belong to this answer; what is left belongs to the next.
    pub consumed: usize,
    /// The answer is whole.
    pub is_complete: bool,
}

impl Response {
    /// At the beginning of an answer. Headers are kept only when asked for: few need them.
    pub fn new(keeps_headers: bool) -> Self {
        let head = Head { status: 0, headers: Vec::new() };
        Self { place: Place::Head, begun: Vec::new(), keeps_headers, head }
    }

    /// The head of the answer that is being read, once it is there.
    pub fn head(&self) -> Option<&Head> {
        (self.place != Place::Head || self.head.status != 0).then_some(&self.head)
    }

    /// Whether the connection may end here.
    pub fn may_end(&self) -> bool {
        self.place == Place::UntilClose
    }

    /// Takes what was read; gives the bytes of the body to `sink`. Stops behind the end of the answer.
    ///
    /// *Errors*: [`BenchError::Answer`] when it is not HTTP/1.1.
    pub fn push(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<Progress, BenchError> {
        let mut at = 0;
        if self.place == Place::Head {
            self.head.status = 0;
            match self.push_head(input)? {
                Some(consumed) => at = consumed,
                None => return Ok(Progress { consumed: input.len(), is_complete: false }),
            }
            // An answer without a body is whole with its head.
            if self.place == Place::Rest(0) {
                self.place = Place::Head;
                return Ok(Progress { consumed: at, is_complete: true });
            }
        }
        while at < input.len() {
            at += self.step(&input[at..], sink)?;
            if self.place == Place::Head {
                return Ok(Progress { consumed: at, is_complete: true });
            }
        }
        Ok(Progress { consumed: at, is_complete: false })
    }

    /// How many bytes of the input the head took; `None` while it is not whole.
    fn push_head(&mut self, input: &[u8]) -> Result<Option<usize>, BenchError> {
        let before = self.begun.len();
        if before > 0 {
            self.begun.extend_from_slice(input);
        }
        let begun = std::mem::take(&mut self.begun);
        let bytes = if before > 0 { &begun } else { input };
        match self.read_head(bytes)? {
            Some(length) => Ok(Some(length - before)),
            None if bytes.len() > HEAD_BYTES_MAX => Err(BenchError::Answer("its head has no end".into())),
            None => {
                self.begun = bytes.to_vec();
                Ok(None)
            }
        }
    }

    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, BenchError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(BenchError::Answer(format!("no HTTP/1.1: {error}"))),
        };
        self.head.status = parsed.code.unwrap_or(0);
        self.head.headers.clear();
        let mut place = Place::UntilClose;
        for header in parsed.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or_default();
            if header.name.eq_ignore_ascii_case("content-length") {
                let length =
                    value.parse().map_err(|_| BenchError::Answer("its length is no number".into()))?;
                place = Place::Rest(length);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                place = Place::ChunkSize { size: 0, is_extension: false };
            }
            if self.keeps_headers {
                self.head.headers.push((header.name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        if matches!(self.head.status, 204 | 304) {
            place = Place::Rest(0);
        }
        self.place = place;
        Ok(Some(length))
    }

    /// One part of the body; how many bytes it took, at least one.
    fn step(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<usize, BenchError> {
        let part = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let first = input[0];
        match self.place {
            Place::Head => unreachable!("a head is read before its body"),
            Place::UntilClose => {
                sink(input);
                Ok(input.len())
            }
            Place::Rest(left) => {
                let taken = part(left);
                sink(&input[..taken]);
                let left = left - taken as u64;
                self.place = if left == 0 { Place::Head } else { Place::Rest(left) };
                Ok(taken)
            }
            Place::ChunkSize { size, is_extension } => {
                self.place = match first {
                    b'\n' if size == 0 => Place::Trailer { is_empty: true },
                    b'\n' => Place::ChunkData(size),
                    b'\r' => self.place,
                    _ if is_extension => self.place,
                    b';' | b' ' => Place::ChunkSize { size, is_extension: true },
                    digit => {
                        let digit = char::from(digit).to_digit(16);
                        let digit = digit.ok_or_else(|| BenchError::Answer("a chunk has no size".into()))?;
                        Place::ChunkSize { size: (size << 4) + u64::from(digit), is_extension }
                    }
                };
                Ok(1)
            }
            Place::ChunkData(left) => {
                let taken = part(left);
                sink(&input[..taken]);
                let left = left - taken as u64;
                self.place = if left == 0 { Place::ChunkEnd } else { Place::ChunkData(left) };
                Ok(taken)
            }
            Place::ChunkEnd => {
                if first == b'\n' {
                    self.place = Place::ChunkSize { size: 0, is_extension: false };
                }
                Ok(1)
            }
            Place::Trailer { is_empty } => {
                self.place = match first {
                    b'\n' if is_empty => Place::Head,
                    b'\n' => Place::Trailer { is_empty: true },
                    b'\r' => self.place,
                    _ => Place::Trailer { is_empty: false },
                };
                Ok(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: &str = "HTTP/1.1 201 Created\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1A;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nT: 1\r\n\r\n\
        HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn answers_are_read_however_they_are_cut() {
        for size in [1, 2, 3, 7, 16, 50, 1000] {
            let mut response = Response::new(true);
            let mut seen = Vec::new();
            let mut body = Vec::new();
            for piece in ANSWERS.as_bytes().chunks(size) {
                let mut at = 0;
                while at < piece.len() {
                    let progress =
                        response.push(&piece[at..], &mut |bytes| body.extend_from_slice(bytes)).unwrap();
                    at += progress.consumed;
                    if progress.is_complete {
                        let text = String::from_utf8(std::mem::take(&mut body)).unwrap();
                        seen.push((response.head().unwrap().status, text));
                    }
                }
            }
            let expected = [(201, "hello"), (204, ""), (200, "helloabcdefghijklmnopqrstuvwxyz"), (429, "")];
            assert_eq!(seen, expected.map(|(status, body)| (status, body.to_owned())), "pieces of {size}");
        }
    }

    #[test]
    fn what_is_not_http_is_told_and_a_body_without_length_ends_with_the_connection() {
        let mut ignore = |_: &[u8]| ();
        assert!(Response::new(false).push(b"SSH-2.0-x\r\n\r\n", &mut ignore).is_err());
        let mut response = Response::new(false);
        response.push(b"HTTP/1.1 200 OK\r\n\r\nabc", &mut ignore).unwrap();
        assert!(response.may_end());
    }
}
