//! The items of a file that is read back: its lines, or the elements of its one JSON array.
//!
//! One item is in memory at a time, however many there are. serde_json reads each element and decides where it ends; what is
//! read here is only what stands between them.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::{self, BufRead, Read};

/// Largest item. *Units*: bytes. The server's largest event is 16 MiB, before JSON escapes.
const ITEM_BYTES_MAX: u64 = 64 << 20;

/// What holds the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Lines,
    Array,
}

impl Container {
    /// What one of its items is called.
    pub(super) fn item(self) -> &'static str {
        match self {
            Self::Lines => "line",
            Self::Array => "element",
        }
    }
}

/// The next item cannot be read, and so none behind it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ItemError {
    /// The array has no end: whatever wrote it was stopped.
    #[error("the file ends before the array does")]
    Torn,
    #[error("it is larger than {} MiB", ITEM_BYTES_MAX >> 20)]
    TooLarge,
    #[error("{0}")]
    Syntax(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Where in an array the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Within,
    Behind,
}

/// Reads items, one after the other.
#[derive(Debug)]
pub(super) struct Items<R> {
    input: R,
    container: Container,
    place: Place,
    /// Of the item read last, from 1. Lines that are blank count too.
    number: u64,
    /// How much was read. *Units*: bytes.
    offset: u64,
    item_bytes_max: u64,
}

impl<R: BufRead> Items<R> {
    /// Begins to read. A file that begins with `[` is an array, unless it is told what it is.
    ///
    /// *Errors*: the file cannot be read.
    pub(super) fn open(input: R, told: Option<Container>) -> io::Result<Self> {
        let mut items = Self {
            input,
            container: Container::Lines,
            place: Place::Before,
            number: 0,
            offset: 0,
            item_bytes_max: ITEM_BYTES_MAX,
        };
        let first = items.peek()?;
        items.container = told.unwrap_or(match first {
            Some(b'[') => Container::Array,
            _ => Container::Lines,
        });
        if items.container == Container::Array {
            items.number = 0;
        }
        Ok(items)
    }

    pub(super) fn container(&self) -> Container {
        self.container
    }

    /// Of the item that was read last, or could not be.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Behind the item that was read last. *Units*: bytes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next item; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<String>, ItemError> {
        match self.container {
            Container::Lines => self.line(),
            Container::Array => self.element(),
        }
    }

    fn line(&mut self) -> Result<Option<String>, ItemError> {
        let mut text = String::new();
        loop {
            text.clear();
            let read = (&mut self.input).take(self.item_bytes_max).read_line(&mut text);
            self.number += 1;
            let read = read? as u64;
            self.offset += read;
            if read == self.item_bytes_max && !text.ends_with('\n') {
                return Err(ItemError::TooLarge);
            }
            if read == 0 {
                return Ok(None);
            }
            if !text.trim().is_empty() {
                return Ok(Some(text));
            }
        }
    }

    fn element(&mut self) -> Result<Option<String>, ItemError> {
        let next = self.peek()?;
        self.number += u64::from(self.place != Place::Behind);
        match (self.place, next) {
            (Place::Before, Some(b'[')) => {
                self.skip(1);
                self.place = Place::Within;
                if self.peek()? == Some(b']') {
                    return self.end();
                }
            }
            (Place::Within, Some(b']')) => return self.end(),
            (Place::Within, Some(b',')) => self.skip(1),
            (Place::Behind, None) => return Ok(None),
            (Place::Before | Place::Within, None) => return Err(ItemError::Torn),
            (Place::Before, Some(_)) => return Err(syntax("an array begins with [")),
            (Place::Within, Some(_)) => return Err(syntax("expected , or ] behind the element before it")),
            (Place::Behind, Some(_)) => return Err(syntax("something stands behind the array")),
        }
        match self.peek()? {
            Some(b'{') => self.object().map(Some),
            Some(_) => Err(syntax("an event is a JSON object")),
            None => Err(ItemError::Torn),
        }
    }

    /// An object ends with its brace: nothing behind it has to be looked at, and so nothing is lost.
    fn object(&mut self) -> Result<String, ItemError> {
        let mut bounded = (&mut self.input).take(self.item_bytes_max);
        let read = <Box<RawValue>>::deserialize(&mut serde_json::Deserializer::from_reader(&mut bounded));
        match read {
            Ok(raw) => {
                let text = String::from(<Box<str>>::from(raw));
                self.offset += text.len() as u64;
                Ok(text)
            }
            Err(_) if bounded.limit() == 0 => Err(ItemError::TooLarge),
            Err(error) if error.is_io() => Err(ItemError::Io(error.into())),
            // A number may break off where it is none yet: an error at the end of the file is the end of the file.
            Err(error) if error.is_eof() || self.input.fill_buf()?.is_empty() => Err(ItemError::Torn),
            Err(error) => Err(syntax(&error.to_string())),
        }
    }

    fn end(&mut self) -> Result<Option<String>, ItemError> {
        self.skip(1);
        self.place = Place::Behind;
        match self.peek()? {
            None => Ok(None),
            Some(_) => Err(syntax("something stands behind the array")),
        }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            let bytes = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            let blank = bytes.iter().take_while(|byte| byte.is_ascii_whitespace());
            let (mut skipped, mut line_ends) = (0, 0);
            for byte in blank {
                skipped += 1;
                line_ends += u64::from(*byte == b'\n');
            }
            let next = bytes.get(skipped).copied();
            let is_over = bytes.is_empty();
            self.skip(skipped);
            if self.place == Place::Before {
                self.number += line_ends;
            }
            if next.is_some() || is_over {
                return Ok(next);
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.offset += bytes as u64;
    }
}

fn syntax(what: &str) -> ItemError {
    ItemError::Syntax(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io::BufReader;

    /// What is read before the end or an error, and what that is.
    fn read(text: &[u8]) -> (Vec<(u64, String)>, Option<String>) {
        let mut items = Items::open(text, None).unwrap();
        let mut seen = Vec::new();
        loop {
            match items.next() {
                Ok(Some(item)) => {
                    if items.container() == Container::Array {
                        let end = usize::try_from(items.offset()).unwrap();
                        assert_eq!(&text[end - item.len()..end], item.as_bytes());
                    }
                    seen.push((items.number(), item));
                }
                Ok(None) => return (seen, None),
                Err(error) => return (seen, Some(format!("{} {error}", items.number()))),
            }
        }
    }

    const ELEMENTS: [&str; 4] =
        [r#"{"a":[1,{"b":"]}\"\\"}],"n":-1.5e+3}"#, "{}", "{ \"ü\" :\n\ttrue }", r#"{"data":"\u00e9,{"}"#];

    #[test]
    fn elements_come_as_they_are_whatever_stands_between_them() {
        for (before, between, behind) in
            [("[", ",", "]"), ("[\n", ",\n", "\n]\n"), ("\n\n [ ", "\r\n,\t", " ] \n ")]
        {
            let (seen, error) = read(format!("{before}{}{behind}", ELEMENTS.join(between)).as_bytes());
            assert_eq!(error, None);
            assert_eq!(seen, (1..).zip(ELEMENTS.map(str::to_owned)).collect::<Vec<_>>());
        }
        for empty in ["[]", " [ ] ", "", "\n \n"] {
            assert_eq!(read(empty.as_bytes()), (vec![], None), "{empty:?}");
        }
    }

    #[test]
    fn array_that_breaks_off_anywhere_gives_its_whole_elements() {
        let whole = format!("[{}]", ELEMENTS.join(","));
        for end in 1..whole.len() {
            let (seen, error) = read(&whole.as_bytes()[..end]);
            let error = error.unwrap();
            assert_eq!(error, format!("{} the file ends before the array does", seen.len() + 1), "{end}");
            assert!(seen.iter().map(|(_, text)| text).eq(&ELEMENTS[..seen.len()]), "{end}");
        }
    }

    #[test]
    fn what_is_no_array_of_objects_is_told_with_its_number() {
        for (text, what) in [
            ("[{},1]", "2 an event is a JSON object"),
            ("[{},]", "2 an event is a JSON object"),
            ("[{} {}]", "2 expected , or ] behind the element before it"),
            ("[{}]]", "2 something stands behind the array"),
            ("[{},{\"a\" 1}]", "2 expected `:` at line 1 column 6"),
            ("[{},{\"a\":-}]", "2 invalid number at line 1 column 7"),
        ] {
            assert_eq!(read(text.as_bytes()).1.as_deref(), Some(what), "{text}");
        }
        assert_eq!(read(b"[{},{\"a\":\"\xff\"}]").0.len(), 1);
        let mut told = Items::open(&b"{}"[..], Some(Container::Array)).unwrap();
        assert_eq!(told.next().unwrap_err().to_string(), "an array begins with [");
    }

    #[test]
    fn lines_are_counted_with_those_that_are_blank() {
        let (seen, error) = read("\n \n{}\n\n[1]\nlast".as_bytes());
        assert_eq!(error, None);
        let seen: Vec<(u64, &str)> = seen.iter().map(|(number, text)| (*number, text.trim())).collect();
        assert_eq!(seen, [(3, "{}"), (5, "[1]"), (6, "last")]);
        assert_eq!(read(b"{}\n\xff\n").1.as_deref(), Some("2 stream did not contain valid UTF-8"));
    }

    /// A file that is as long as it is wanted.
    struct Endless<'c> {
        piece: &'static [u8],
        given: &'c Cell<usize>,
    }

    impl Read for Endless<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let from = self.given.get();
            for (index, byte) in out.iter_mut().enumerate() {
                // The bracket first, then one piece after the other.
                *byte =
                    if from + index == 0 { b'[' } else { self.piece[(from + index - 1) % self.piece.len()] };
            }
            self.given.set(from + out.len());
            Ok(out.len())
        }
    }

    #[test]
    fn no_more_is_read_than_what_is_given() {
        const BUFFER_BYTES: usize = 1 << 10;
        let given = Cell::new(0);
        let piece = b"{\"specversion\":\"1.0\"},";
        let input = BufReader::with_capacity(BUFFER_BYTES, Endless { piece, given: &given });
        let mut items = Items::open(input, None).unwrap();
        for number in 1..=100_000 {
            assert_eq!(items.next().unwrap().unwrap().as_bytes(), &piece[..piece.len() - 1]);
            assert!(given.get() <= number * piece.len() + BUFFER_BYTES);
        }
    }

    #[test]
    fn item_without_an_end_is_not_held() {
        for (beginning, container) in
            [("[{},{\"a\":\"", Container::Array), ("{}\n{\"a\":\"", Container::Lines)]
        {
            let endless = BufReader::new(beginning.as_bytes().chain(io::repeat(b'x')));
            let mut items = Items::open(endless, None).unwrap();
            items.item_bytes_max = 1 << 12;
            assert_eq!(
                (items.container(), items.next().unwrap().as_deref().map(str::trim)),
                (container, Some("{}"))
            );
            assert!(matches!(items.next().unwrap_err(), ItemError::TooLarge));
            assert_eq!(items.number(), 2);
        }
    }
}
