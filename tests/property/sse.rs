//! Properties of the Server-Sent Events codec: the encoder against the parser, and the parser against two
//! others.
//!
//! Two oracles stand beside our parser. `read_literally` is the standard's text (WHATWG HTML, section 9.2.6)
//! written down with no thought of speed or chunks. The crate sse-stream is the work of others; it returns
//! raw blocks and leaves ids, defaults and empty blocks to its caller, which `oracle_events` supplies. It
//! refuses invalid UTF-8, where the standard replaces it, so it is asked about valid text only. No other
//! deviation is known.

use std::convert::Infallible;

use evertail::sse::{Block, Event, Item, KEEP_ALIVE, ParseError, Parser, put_block};
use futures_util::{FutureExt, StreamExt, stream};
use proptest::{collection::vec, option, prelude::*, sample::select};
use sse_stream::SseByteStream;

const ROOMY_BYTES: usize = 1 << 20;

type Items = Vec<Result<Item, ParseError>>;

/// A [`Block`] that owns its text.
#[derive(Clone, Debug)]
struct OwnedBlock {
    retry_milliseconds: Option<u64>,
    event: Option<String>,
    data: String,
    id: Option<u64>,
}

impl OwnedBlock {
    fn put(&self, out: &mut Vec<u8>) {
        put_block(
            out,
            &Block {
                retry_milliseconds: self.retry_milliseconds,
                event: self.event.as_deref(),
                data: &self.data,
                id: self.id,
            },
        );
    }

    /// What a reader must get for this block, given the id before it.
    fn expected_event(&self, last_event_id: &str) -> Event {
        let event = self.event.as_deref().unwrap_or_default().replace(['\r', '\n', '\0'], "\u{FFFD}");
        Event {
            event: if event.is_empty() { "message".to_owned() } else { event },
            data: expected_data(&self.data),
            last_event_id: self.id.map_or_else(|| last_event_id.to_owned(), |id| id.to_string()),
        }
    }
}

fn expected_data(data: &str) -> String {
    if data.chars().all(|character| matches!(character, '\r' | '\n')) {
        format!("{data:?}")
    } else {
        data.replace("\r\n", "\n").replace('\r', "\n")
    }
}

fn expected_events(blocks: &[OwnedBlock]) -> Vec<Event> {
    let mut last_event_id = String::new();
    let mut events = Vec::new();
    for block in blocks {
        let event = block.expected_event(&last_event_id);
        last_event_id.clone_from(&event.last_event_id);
        events.push(event);
    }
    events
}

fn expected_items(blocks: &[OwnedBlock]) -> Vec<Item> {
    let mut items = Vec::new();
    for (block, event) in blocks.iter().zip(expected_events(blocks)) {
        items.extend(block.retry_milliseconds.map(Item::Retry));
        items.push(Item::Event(event));
    }
    items
}

fn encoded(blocks: &[OwnedBlock]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in blocks {
        block.put(&mut out);
    }
    out
}

/// Cuts `stream` into chunks of the given sizes, used again and again; a size of 0 is an empty chunk.
fn chunks<'a>(stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = stream;
    let mut chunks = Vec::new();
    for &size in sizes.iter().cycle() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        chunks.push(chunk);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    chunks
}

fn items_in_chunks(event_bytes_max: usize, stream: &[u8], sizes: &[usize]) -> Items {
    let mut parser = Parser::new(event_bytes_max);
    let mut items = Vec::new();
    for chunk in chunks(stream, sizes) {
        parser.push(chunk);
        items.extend(&mut parser);
    }
    items
}

fn items(stream: &[u8]) -> Vec<Item> {
    items_in_chunks(ROOMY_BYTES, stream, &[stream.len().max(1)])
        .into_iter()
        .map(|item| item.expect("the stream is small"))
        .collect()
}

fn events_only(items: impl IntoIterator<Item = Item>) -> Vec<Event> {
    items
        .into_iter()
        .filter_map(|item| match item {
            Item::Event(event) => Some(event),
            Item::Comment | Item::Retry(_) => None,
        })
        .collect()
}

/// The standard, sentence by sentence.
fn read_literally(stream: &[u8]) -> Vec<Item> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let Some((lines, _unfinished)) = text.rsplit_once('\n') else {
        return Vec::new();
    };
    let (mut data, mut event, mut id_buffer) = (String::new(), String::new(), String::new());
    let mut items = Vec::new();
    for line in lines.split('\n') {
        if line.is_empty() {
            if let Some(data) = data.strip_suffix('\n') {
                items.push(Item::Event(Event {
                    event: if event.is_empty() { "message".to_owned() } else { event.clone() },
                    data: data.to_owned(),
                    last_event_id: id_buffer.clone(),
                }));
            }
            data.clear();
            event.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => items.push(Item::Comment),
            "event" => event = value.to_owned(),
            "data" => data += &format!("{value}\n"),
            "id" if !value.contains('\0') => id_buffer = value.to_owned(),
            "retry" if value.chars().all(|digit| digit.is_ascii_digit()) => {
                items.extend(value.parse().ok().map(Item::Retry));
            }
            _ => {}
        }
    }
    items
}

/// What sse-stream reads, with ids carried over, the default type filled in and blocks without data left out.
fn oracle_events(chunks: &[&[u8]]) -> Vec<Event> {
    let chunks = chunks.iter().map(|chunk| Ok::<_, Infallible>(*chunk));
    let blocks: Vec<_> = SseByteStream::new(stream::iter(chunks))
        .collect()
        .now_or_never()
        .expect("chunks that are all there need no waiting");
    let mut last_event_id = String::new();
    let mut events = Vec::new();
    for block in blocks {
        let block = block.expect("the text is valid UTF-8");
        last_event_id = block.id.unwrap_or(last_event_id);
        if let Some(data) = block.data {
            events.push(Event {
                event: block.event.filter(|event| !event.is_empty()).unwrap_or_else(|| "message".to_owned()),
                data,
                last_event_id: last_event_id.clone(),
            });
        }
    }
    events
}

/// Text in which what matters to the format is frequent.
fn text() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "\r", "\n", "\r\n", "\0", " ", ":", "a", "é", "😀", "\u{FEFF}", "\u{85}", "data: x", "id: 9", "\"",
        "\\",
    ];
    prop_oneof![
        4 => vec(select(PIECES), 0..8).prop_map(|pieces| pieces.concat()),
        2 => any::<String>(),
        1 => vec(select(&["\r", "\n"][..]), 0..4).prop_map(|pieces| pieces.concat()),
        1 => vec(select(&["x", "\n"][..]), 30..70).prop_map(|pieces| pieces.concat()),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000_u64, any::<u64>(), Just(u64::MAX)]
}

fn blocks() -> impl Strategy<Value = Vec<OwnedBlock>> {
    let block = (option::of(number()), option::of(text()), text(), option::of(number()));
    vec(
        block.prop_map(|(retry_milliseconds, event, data, id)| OwnedBlock {
            retry_milliseconds,
            event,
            data,
            id,
        }),
        0..6,
    )
}

/// Blocks with the ids 1, 2, 3 ... times `factor`, as a log would number them.
fn blocks_of_a_log() -> impl Strategy<Value = Vec<OwnedBlock>> {
    (blocks(), 1..200_u64).prop_map(|(mut blocks, factor)| {
        for (block, id) in blocks.iter_mut().zip(1..) {
            block.id = Some(id * factor);
        }
        blocks
    })
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        (vec(0..5_usize, 0..6), 1..9_usize).prop_map(|(mut sizes, last)| {
            sizes.push(last);
            sizes
        }),
        (1..200_usize).prop_map(|size| vec![size]),
    ]
}

/// A stream nobody's encoder would write, in valid UTF-8.
fn wild_text() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "\n",
        "\n",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "data",
        "data:",
        "data: ",
        "event: ",
        "event",
        "id: ",
        "id",
        "id: 1\0",
        "retry: ",
        "retry: 18446744073709551616",
        "+",
        "1",
        "2",
        " ",
        ":",
        "x",
        "é",
        "😀",
        "\u{FEFF}",
        "\0",
        "Data: x",
    ];
    (any::<bool>(), vec(select(PIECES), 0..40)).prop_map(|(has_byte_order_mark, pieces)| {
        let byte_order_mark = if has_byte_order_mark { "\u{FEFF}" } else { "" };
        format!("{byte_order_mark}{}", pieces.concat())
    })
}

/// The same with bytes that are no UTF-8, and with no structure at all.
fn wild_bytes() -> impl Strategy<Value = Vec<u8>> {
    const BROKEN: &[&[u8]] =
        &[b"\xFF", b"\xE2\x82", b"\xF0\x9F\x98", b"\x80", b"\xC0\x80", b"\xEF\xBB", b"\xED\xA0\x80"];
    let torn = (wild_text(), vec((any::<prop::sample::Index>(), select(BROKEN)), 0..6)).prop_map(
        |(text, insertions)| {
            let mut bytes = text.into_bytes();
            for (index, broken) in insertions {
                let at = index.index(bytes.len() + 1);
                bytes.splice(at..at, broken.iter().copied());
            }
            bytes
        },
    );
    prop_oneof![3 => torn, 1 => any::<Vec<u8>>()]
}

proptest! {
    #[test]
    fn encoded_blocks_are_read_back_under_any_chunking(blocks in blocks(), sizes in sizes()) {
        let expected: Items = expected_items(&blocks).into_iter().map(Ok).collect();
        prop_assert_eq!(items_in_chunks(ROOMY_BYTES, &encoded(&blocks), &sizes), expected);
    }

    #[test]
    fn encoded_blocks_keep_to_the_dialect(blocks in blocks()) {
        for block in &blocks {
            let frame = String::from_utf8(encoded(std::slice::from_ref(block))).expect("blocks are UTF-8");
            prop_assert!(!frame.contains('\r'));
            let lines = frame.strip_suffix("\n\n").expect("a blank line ends a block");
            let fields: Option<Vec<_>> = lines.split('\n').map(|line| line.split_once(": ")).collect();
            let fields = fields.expect("every line has a name and a value");
            let place = |name: &str| ["retry", "event", "data", "id"].iter().position(|known| *known == name);
            prop_assert!(fields.iter().all(|(name, _)| place(name).is_some()), "{frame:?}");
            prop_assert!(fields.is_sorted_by_key(|(name, _)| place(name)), "{frame:?}");
            prop_assert!(fields.iter().any(|(name, value)| *name == "data" && !value.is_empty()));
            prop_assert_eq!(fields.last().is_some_and(|(name, _)| *name == "id"), block.id.is_some());
        }
    }

    #[test]
    fn encoded_blocks_are_read_alike_by_sse_stream(blocks in blocks(), sizes in sizes()) {
        let stream = encoded(&blocks);
        prop_assert_eq!(oracle_events(&chunks(&stream, &sizes)), expected_events(&blocks));
    }

    #[test]
    fn keep_alives_between_blocks_are_reported_and_change_no_event(blocks in blocks(), sizes in sizes()) {
        let mut stream = KEEP_ALIVE.to_vec();
        for block in &blocks {
            block.put(&mut stream);
            stream.extend_from_slice(KEEP_ALIVE);
        }
        let items: Vec<_> = items_in_chunks(ROOMY_BYTES, &stream, &sizes).into_iter().flatten().collect();
        let keep_alives = items.iter().filter(|item| **item == Item::Comment).count();
        prop_assert_eq!(keep_alives, blocks.len() + 1);
        prop_assert_eq!(events_only(items), expected_events(&blocks));
        prop_assert_eq!(oracle_events(&chunks(&stream, &sizes)), expected_events(&blocks));
    }

    #[test]
    fn any_bytes_are_read_as_the_standard_says(stream in wild_bytes()) {
        prop_assert_eq!(items(&stream), read_literally(&stream));
    }

    #[test]
    fn any_bytes_give_the_same_items_under_any_chunking(
        stream in wild_bytes(),
        sizes in sizes(),
        event_bytes_max in prop_oneof![0..40_usize, Just(ROOMY_BYTES)],
    ) {
        let whole = items_in_chunks(event_bytes_max, &stream, &[stream.len().max(1)]);
        prop_assert_eq!(items_in_chunks(event_bytes_max, &stream, &sizes), whole);
    }

    #[test]
    fn bytes_pushed_ahead_of_reading_give_the_same_items(
        stream in wild_bytes(),
        sizes in sizes(),
        taken in 0..3_usize,
    ) {
        let mut parser = Parser::new(ROOMY_BYTES);
        let mut read_late = Vec::new();
        for chunk in chunks(&stream, &sizes) {
            parser.push(chunk);
            read_late.extend(parser.by_ref().take(taken));
        }
        read_late.extend(&mut parser);
        let expected: Items = items(&stream).into_iter().map(Ok).collect();
        prop_assert_eq!(read_late, expected);
    }

    #[test]
    fn bound_stops_exactly_the_events_beyond_it(blocks in blocks(), event_bytes_max in 0..80_usize) {
        let mut expected = Vec::new();
        for (block, event) in blocks.iter().zip(expected_events(&blocks)) {
            let frame = encoded(std::slice::from_ref(block));
            let line_bytes = frame.iter().filter(|byte| **byte != b'\n').count();
            if line_bytes > event_bytes_max {
                expected.push(Err(ParseError::TooLarge { bytes_max: event_bytes_max }));
                break;
            }
            expected.push(Ok(Item::Event(event)));
        }
        let mut read = items_in_chunks(event_bytes_max, &encoded(&blocks), &[7]);
        read.retain(|item| !matches!(item, Ok(Item::Retry(_))));
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn any_valid_text_is_read_alike_by_sse_stream(stream in wild_text(), sizes in sizes()) {
        let oracle = oracle_events(&chunks(stream.as_bytes(), &sizes));
        prop_assert_eq!(events_only(items(stream.as_bytes())), oracle);
    }

    #[test]
    fn stream_torn_anywhere_gives_only_what_was_delivered_in_full(blocks in blocks()) {
        let expected = expected_events(&blocks);
        let mut parser = Parser::new(ROOMY_BYTES);
        let mut read = Vec::new();
        for (block, event) in blocks.iter().zip(&expected) {
            let frame = encoded(std::slice::from_ref(block));
            let (blank_line, torn_frame) = frame.split_last().expect("a block is not empty");
            let cursor = parser.last_event_id().to_owned();
            let whole_frames = read.len();
            for byte in torn_frame {
                parser.push(&[*byte]);
                read.extend(events_only(parser.by_ref().map(|item| item.expect("the stream is small"))));
                prop_assert_eq!(read.len(), whole_frames);
                prop_assert_eq!(parser.last_event_id(), &cursor);
            }
            parser.push(&[*blank_line]);
            read.extend(events_only(parser.by_ref().map(|item| item.expect("the stream is small"))));
            prop_assert_eq!(read.last(), Some(event));
            prop_assert_eq!(parser.last_event_id(), &event.last_event_id);
        }
        prop_assert_eq!(read, expected);
    }

    /// A client that ends the torn block by itself, as some do, may see a cut event, but never a cursor
    /// beyond the events it has in full.
    #[test]
    fn stream_torn_anywhere_moves_no_careless_client_past_an_event_it_lacks(blocks in blocks_of_a_log()) {
        let stream = encoded(&blocks);
        let expected = expected_events(&blocks);
        for cut in 0..=stream.len() {
            let read = events_only(items(&[&stream[..cut], b"\n\n"].concat()));
            let cursor = read.last().map_or(0, |event| event.last_event_id.parse().unwrap_or(0));
            for (index, block) in blocks.iter().enumerate().filter(|(_, block)| block.id <= Some(cursor)) {
                prop_assert_eq!(&read[index].data, &expected[index].data, "cut {}, id {:?}", cut, block.id);
            }
        }
    }
}
