//! A POST as prebuilt bytes, patched in place before each sending.

use super::mark::{MARK_BYTES, Mark};
use super::target::Target;

/// Text that is replaced in every request: an id is as long as a UUID.
const ID_BYTES: usize = 36;

/// What the events of a run look like.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Bytes of the payload, the event's data.
    pub bytes: usize,
    /// Events in a request; more than one is sent as NDJSON.
    pub batch: usize,
    /// Send a batch as a JSON array.
    pub is_array: bool,
    /// Whether each event has a time-ordered id.
    pub has_ids: bool,
    /// The body is the payload alone, without Evertail's envelope.
    pub is_bare: bool,
    /// For the `Content-Type` header; by default that of the body.
    pub content_type: Option<String>,
    /// Further headers, each a whole line without its end.
    pub headers: Vec<String>,
    /// One event of so many goes to another stream (`rare`), and the rest name theirs (`bench`).
    pub rare_every: Option<u64>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            bytes: 200,
            batch: 1,
            is_array: false,
            has_ids: false,
            is_bare: false,
            content_type: None,
            headers: Vec::new(),
            rare_every: None,
        }
    }
}

/// The request, and where its changing parts are.
#[derive(Debug)]
pub struct Request {
    bytes: Vec<u8>,
    marks: Vec<usize>,
    ids: Vec<usize>,
    streams: Vec<usize>,
    rare_every: Option<u64>,
    clock: IdClock,
}

impl Request {
    /// Builds the request once.
    pub fn new(target: &Target, shape: &Shape) -> Self {
        let mut body = Vec::new();
        let (mut marks, mut ids, mut streams) = (Vec::new(), Vec::new(), Vec::new());
        if shape.is_array {
            body.push(b'[');
        }
        for index in 0..shape.batch {
            if index > 0 {
                body.push(if shape.is_array { b',' } else { b'\n' });
            }
            if !shape.is_bare {
                body.push(b'{');
            }
            if !shape.is_bare && shape.rare_every.is_some() {
                body.extend_from_slice(b"\"stream\":\"");
                streams.push(body.len());
                body.extend_from_slice(b"bench\",");
            }
            if shape.has_ids && !shape.is_bare {
                body.extend_from_slice(b"\"id\":\"");
                ids.push(body.len());
                body.extend_from_slice(&[b'0'; ID_BYTES]);
                body.extend_from_slice(b"\",");
            }
            if !shape.is_bare {
                body.extend_from_slice(b"\"data\":");
            }
            let start = body.len();
            body.extend_from_slice(b"{\"mark\":\"");
            marks.push(body.len());
            body.extend_from_slice(&[b'0'; MARK_BYTES]);
            body.extend_from_slice(b"\",\"pad\":\"");
            let end = start + shape.bytes.max(body.len() - start + 2);
            body.resize(end - 2, b'x');
            body.extend_from_slice(b"\"}");
            if !shape.is_bare {
                body.push(b'}');
            }
        }
        if shape.is_array {
            body.push(b']');
        }
        let own_type =
            if shape.batch > 1 && !shape.is_array { "application/x-ndjson" } else { "application/json" };
        let content_type = shape.content_type.as_deref().unwrap_or(own_type);
        let mut bytes = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n",
            target.path,
            target.host,
            body.len()
        );
        for header in &shape.headers {
            bytes.push_str(header);
            bytes.push_str("\r\n");
        }
        bytes.push_str("\r\n");
        let mut bytes = bytes.into_bytes();
        let head = bytes.len();
        bytes.extend_from_slice(&body);
        for place in marks.iter_mut().chain(&mut ids).chain(&mut streams) {
            *place += head;
        }
        Self { bytes, marks, ids, streams, rare_every: shape.rare_every, clock: IdClock::default() }
    }

    /// Events in the request.
    pub fn events(&self) -> usize {
        self.marks.len()
    }

    /// The request whose first event is this one; the others follow it in number.
    pub fn patched(&mut self, first: Mark) -> &[u8] {
        for (index, at) in (0..).zip(&self.marks) {
            Mark { number: first.number + index, ..first }.put(&mut self.bytes[*at..]);
        }
        for at in &self.ids {
            self.clock.put_id(&mut self.bytes[*at..]);
        }
        if let Some(every) = self.rare_every {
            for (index, at) in (0..).zip(&self.streams) {
                let is_rare = (first.number + index) % every == every - 1;
                // Padded to one length with what JSON ignores.
                let name: &[u8] = if is_rare { b"rare\", " } else { b"bench\"," };
                self.bytes[*at..*at + name.len()].copy_from_slice(name);
            }
        }
        &self.bytes
    }
}

/// Ids that rise with time, in the form of a UUIDv7: milliseconds, a counter within them, random bits.
#[derive(Debug)]
struct IdClock {
    milliseconds: u64,
    counter: u64,
    random: u64,
}

impl Default for IdClock {
    fn default() -> Self {
        Self { milliseconds: 0, counter: 0, random: rand::random() }
    }
}

impl IdClock {
    fn put_id(&mut self, out: &mut [u8]) {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(0);
        self.counter += 1;
        // Also when the counter is used up, or the clock steps back: an id must not come twice.
        if milliseconds > self.milliseconds || self.counter > 0xfff {
            self.milliseconds = milliseconds.max(self.milliseconds + 1);
            self.counter = 0;
        }
        // A step of Weyl's sequence: distinct for as long as a run can last, and cheap.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let high = self.milliseconds << 16 | 0x7000 | self.counter;
        let low = self.random >> 2 | 1 << 63;
        let mut at = 0;
        for index in 0..32 {
            if matches!(index, 8 | 12 | 16 | 20) {
                out[at] = b'-';
                at += 1;
            }
            let half = if index < 16 { high } else { low };
            out[at] = b"0123456789abcdef"[(half >> (60 - index % 16 * 4) & 15) as usize];
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn bodies(shape: &Shape, number: u64) -> (String, Vec<Value>) {
        let target = Target::parse("http://127.0.0.1:1/api/v1/bench").unwrap();
        let mut request = Request::new(&target, shape);
        let bytes = request.patched(Mark { run: 1, producer: 2, number, sent: 4 }).to_vec();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len()).trim_end().to_owned()),
            "{head}"
        );
        (head.to_owned(), body.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn one_event_is_json_of_the_wanted_size_with_its_mark() {
        let (head, bodies) = bodies(&Shape::default(), 3);
        assert!(head.starts_with("POST /api/v1/bench HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{head}");
        let data = &bodies[0]["data"];
        assert_eq!(data.to_string().len(), 200);
        let mark = Mark::read(data["mark"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(mark, Mark { run: 1, producer: 2, number: 3, sent: 4 });
    }

    #[test]
    fn a_batch_numbers_its_events_and_gives_each_an_id_that_rises() {
        let shape = Shape { batch: 5000, has_ids: true, ..Shape::default() };
        let (head, bodies) = bodies(&shape, 10);
        assert!(head.contains("application/x-ndjson"));
        let ids: Vec<&str> = bodies.iter().map(|body| body["id"].as_str().unwrap()).collect();
        assert!(ids.is_sorted_by(|a, b| a[..18] < b[..18]), "{:?}", &ids[..3]);
        assert!(ids.iter().all(|id| id.len() == 36 && &id[14..15] == "7"));
        let last = bodies.last().unwrap()["data"]["mark"].as_str().unwrap();
        assert_eq!(Mark::read(last.as_bytes()).unwrap().number, 5009);
    }

    #[test]
    fn a_bare_body_is_the_payload_and_rare_events_name_their_stream() {
        let (_, bare) = bodies(&Shape { is_bare: true, ..Shape::default() }, 0);
        assert!(bare[0]["mark"].is_string());
        let shape = Shape { batch: 10, rare_every: Some(5), ..Shape::default() };
        let streams: Vec<String> =
            bodies(&shape, 0).1.iter().map(|body| body["stream"].as_str().unwrap().to_owned()).collect();
        assert_eq!(streams.iter().filter(|name| *name == "rare").count(), 2);
        assert_eq!((streams[4].as_str(), streams[5].as_str()), ("rare", "bench"));
    }
}
