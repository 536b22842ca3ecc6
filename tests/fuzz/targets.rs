//! What must hold for any bytes at all. Each function takes bytes and panics if it does not hold; `fuzz/` feeds them by
//! coverage, `tests/fuzz/` from seeds.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use evertail::event::{
    Condition, Content, DEPTH_MAX, Event, EventText, EventType, Filter, Pattern, StreamName, Timestamp,
    compact,
};
use evertail::frames::Frames;
use evertail::http::{HttpSettings, LimitSettings, OriginSettings, parse_body, parse_query, parse_request};
use evertail::sse::{Block, Item, Parser, put_block};
use evertail::wire::EventJson;
use evertail::wire::cloud::{put_cloud_event, source_of};
use std::time::Duration;

const EVENT_BYTES_MAX: usize = 64 << 10;
/// By the first byte of the input.
const CONTENT_TYPES: [&str; 6] = [
    "application/json",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "text/plain",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
];

fn settings() -> HttpSettings {
    HttpSettings {
        origins: OriginSettings { is_loopback: true, allowed_origins: vec![], allowed_hosts: vec![] },
        trusted_proxies: vec![],
        uri_bytes_max: 8 << 10,
        depth_max: DEPTH_MAX,
        limits: LimitSettings::default(),
        event_bytes_max: EVENT_BYTES_MAX,
        batch_events_max: 100,
        batch_bytes_max: 1 << 20,
        body_timeout: Duration::from_secs(1),
        page_bytes_max: 64 << 10,
        keep_alive: Duration::from_secs(15),
        retry: (Duration::ZERO, Duration::ZERO),
    }
}

fn stream() -> StreamName {
    StreamName::parse("a").expect("a name")
}

fn stored(content: Content, seq: u64) -> Event {
    Event { seq, created_at: Timestamp::EPOCH, content }
}

/// Bodies of appends: what is taken is bounded, is one line each, and comes out of the frames as it went in.
pub fn body(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    let content_type = CONTENT_TYPES[usize::from(*first) % CONTENT_TYPES.len()];
    let Ok(contents) = parse_body(content_type, body, &stream(), &settings()) else { return };
    assert!(contents.len() <= 100);
    for (seq, content) in (1..).zip(contents) {
        assert!(content.size_bytes() <= EVENT_BYTES_MAX);
        EventType::parse(content.r#type.as_str()).expect("a type that was taken is one");
        if let Some(data) = &content.data {
            assert_eq!(compact(data, DEPTH_MAX).as_ref(), Ok(data), "stored as it would be taken again");
            assert!(!data.contains(['\n', '\r', '\0']), "one line");
        }
        let event = stored(content, seq);
        let json = Frames::encode(std::slice::from_ref(&event)).first_json();
        let told: EventJson<'_> = serde_json::from_slice(&json).expect("an event is JSON");
        let created_at = event.created_at.to_string();
        assert_eq!(told.text(), EventText::of(&event, &created_at));
        let text = std::str::from_utf8(&json).expect("JSON is UTF-8");
        assert_eq!(parsed(event.content.r#type.as_str(), text.trim_end(), seq), text.trim_end());
    }
}

/// CloudEvents: what is taken says the same when it is given out as a CloudEvent and taken again.
pub fn cloud_events(input: &[u8]) {
    let content_type = match input.first() {
        Some(b'[') => "application/cloudevents-batch+json",
        _ => "application/cloudevents+json",
    };
    let Ok(contents) = parse_body(content_type, input, &stream(), &settings()) else { return };
    contents.into_iter().for_each(is_taken_again);
}

/// CloudEvents in binary mode, the headers as lines and behind an empty one the body: what is taken says the same when it is
/// given out as a CloudEvent and taken again, and when it is sent in binary mode again.
pub fn cloud_headers(input: &[u8]) {
    let (mut headers, mut rest) = (HeaderMap::new(), input);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        // As many as the server takes of one request.
        if line.is_empty() || headers.len() == 64 {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), value) {
            headers.append(name, value);
        }
    }
    if !headers.keys().any(|name| name.as_str().starts_with("ce-")) {
        return;
    }
    let Ok(contents) = parse_request(&headers, rest, &stream(), &settings()) else { return };
    for content in contents {
        let taken = parse_request(&binary(&content), body_of(&content), &stream(), &roomy());
        let taken = taken.unwrap_or_else(|problem| panic!("{problem:?} of {content:?}"));
        assert_eq!(taken.as_slice(), std::slice::from_ref(&content));
        is_taken_again(content);
    }
}

/// The headers of an event in binary mode, with everything escaped that may be.
fn binary(content: &Content) -> HeaderMap {
    let source = match &*content.source {
        "" => source_of(content.stream.as_str()),
        source => source.to_owned(),
    };
    let attributes = [
        ("ce-specversion", Some("1.0")),
        ("ce-id", content.id.as_deref()),
        ("ce-source", Some(&*source)),
        ("ce-type", Some(content.r#type.as_str())),
        ("ce-subject", content.subject.as_deref()),
        ("ce-time", content.time.as_deref()),
        ("ce-traceparent", content.traceparent.as_deref()),
        ("ce-stream", Some(content.stream.as_str())),
        ("content-type", Some("application/json")),
    ];
    let header = |(name, text): (&'static str, Option<&str>)| {
        let escaped = |byte: u8| match byte {
            b'!' | b'#'..=b'$' | b'&'..=b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        let value: String = text?.bytes().map(escaped).collect();
        Some((HeaderName::from_static(name), HeaderValue::try_from(value).expect("it is escaped")))
    };
    attributes.into_iter().filter_map(header).collect()
}

fn body_of(content: &Content) -> &[u8] {
    content.data.as_deref().unwrap_or_default().as_bytes()
}

/// Names and quotes of a CloudEvent are no part of the event, and some characters take more room escaped.
fn roomy() -> HttpSettings {
    HttpSettings { event_bytes_max: EVENT_BYTES_MAX * 8, ..settings() }
}

fn is_taken_again(content: Content) {
    let event = stored(content, 7);
    let mut again = Vec::new();
    put_cloud_event(&mut again, &EventText::of(&event, &event.created_at.to_string()));
    let taken = parse_body("application/cloudevents+json", &again, &stream(), &roomy());
    let taken = taken.unwrap_or_else(|problem| panic!("{problem:?}: {}", String::from_utf8_lossy(&again)));
    assert_eq!(taken, [event.content]);
}

/// Queries of reads: what is taken, repeated in a link, means the same.
pub fn query(input: &[u8]) {
    let Ok(query) = std::str::from_utf8(input) else { return };
    for stream in [None, Some(&stream())] {
        let Ok((selection, rest)) = parse_query(query, stream) else { continue };
        let again = parse_query(&rest, stream).unwrap_or_else(|problem| panic!("{problem:?}: {rest}"));
        assert_eq!(again, (selection, rest));
    }
}

/// Selections: a condition in the first line, JSON to look for it in behind that. Whatever both are, there is an answer.
pub fn selection(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (asked, json) = text.split_once('\n').unwrap_or((text, "null"));
    if let Some(pattern) = Pattern::parse(asked) {
        let prefix = asked.strip_suffix('*').unwrap_or(asked);
        assert!(pattern.matches(prefix), "{pattern:?} has what it is made of");
    }
    let (name, value) = asked.split_once('=').unwrap_or((asked, ""));
    let Some(Ok(condition)) = Condition::parse(name, value) else { return };
    let Ok(data) = compact(json, DEPTH_MAX) else { return };
    let filter = Filter { conditions: vec![condition], ..Filter::default() };
    let mut content = Content::new(stream());
    content.data = Some(data);
    let event = stored(content, 1);
    let created_at = event.created_at.to_string();
    let text = EventText::of(&event, &created_at);
    assert_eq!(filter.matches(&text), filter.matches(&text));
}

/// Event streams: the items depend on the bytes and not on how they come; a block that is written is read as it was.
pub fn sse(input: &[u8]) {
    let whole = items(input.chunks(input.len().max(1)));
    assert_eq!(items(input.chunks(1)), whole);
    assert_eq!(items(input.chunks(7)), whole);
    let Ok(data) = std::str::from_utf8(input) else { return };
    if data.bytes().any(|byte| byte != b'\n' && byte != b'\r') {
        let event = data.lines().next().unwrap_or_default();
        let lines = data.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(parsed(event, data, 7), lines);
    }
}

fn items<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Result<Item, evertail::sse::ParseError>> {
    let mut parser = Parser::new(1 << 10);
    let mut items = Vec::new();
    for chunk in chunks {
        parser.push(chunk);
        for item in parser.by_ref() {
            let is_over = item.is_err();
            items.push(item);
            if is_over {
                return items;
            }
        }
    }
    items
}

/// The data of the one event that a block of this data is read as.
fn parsed(event: &str, data: &str, id: u64) -> String {
    let mut bytes = Vec::new();
    put_block(&mut bytes, &Block { retry_milliseconds: None, event: Some(event), data, id: Some(id) });
    let mut parser = Parser::new(1 << 24);
    parser.push(&bytes);
    match (parser.next(), parser.next()) {
        (Some(Ok(Item::Event(read))), None) => {
            assert_eq!(read.last_event_id, id.to_string());
            read.data
        }
        other => panic!("{other:?} from {:?}", String::from_utf8_lossy(&bytes)),
    }
}
