//! JSON payloads: checked strictly, stored as they came but for insignificant white space.
//!
//! Layer L0. serde_json reads; what it lets through and a strict reader elsewhere would not, is refused here:
//! duplicate members, lone surrogates, numbers beyond an IEEE double, deep nesting. Nothing is ever re-serialised, so
//! numbers, escapes and member order reach every reader as the producer wrote them.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Deepest nesting of arrays and objects in a payload, unless it is set otherwise; and most steps of a condition.
pub const DEPTH_MAX: usize = 64;

/// Why a text is not an acceptable JSON value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JsonError {
    /// What is wrong, with line and column.
    pub message: String,
    /// Where reading stopped: a JSON pointer (RFC 6901) below the value, empty for the value itself.
    pub pointer: String,
}

/// Checks one JSON value and takes the insignificant white space out, which also puts it on one line.
///
/// *Errors*: syntax, a duplicate member, a lone surrogate, a number out of range, nesting deeper than this.
pub fn compact(text: &str, depth_max: usize) -> Result<Arc<str>, JsonError> {
    let mut path = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    Strict { path: &mut path, depth_max }
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| JsonError { message: error.to_string(), pointer: pointer(&path) })?;
    Ok(without_white_space(text))
}

/// A text as a JSON string.
pub fn quote(text: &str) -> Arc<str> {
    Arc::from(serde_json::to_string(text).expect("a string always serialises"))
}

fn without_white_space(text: &str) -> Arc<str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut kept_from = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b' ' | b'\t' | b'\n' | b'\r' => {
                if out.capacity() == 0 {
                    out.reserve(text.len());
                }
                out.push_str(&text[kept_from..at]);
                kept_from = at + 1;
                at += 1;
            }
            _ => at += 1,
        }
    }
    // Most payloads come compact: copied once.
    if kept_from == 0 {
        return Arc::from(text);
    }
    out.push_str(&text[kept_from..]);
    Arc::from(out)
}

/// Behind the closing quote of the string that begins here. The text is known to be JSON.
fn string_end(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    loop {
        match memchr::memchr2(b'"', b'\\', &bytes[at..]) {
            Some(found) if bytes[at + found] == b'"' => return at + found + 1,
            Some(found) => at += found + 2,
            None => return bytes.len(),
        }
    }
}

/// A step on the way to a value; written out only when something is wrong there.
enum Step<'de> {
    Item(usize),
    Member(Cow<'de, str>),
}

/// RFC 6901: `~` and `/` are written `~0` and `~1`.
fn pointer(path: &[Step<'_>]) -> String {
    path.iter()
        .map(|step| match step {
            Step::Item(index) => format!("/{index}"),
            Step::Member(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
        })
        .collect()
}

/// Reads any value and keeps nothing but the way to where it is; on an error the path stays where it happened.
struct Strict<'p, 'de> {
    path: &'p mut Vec<Step<'de>>,
    depth_max: usize,
}

impl<'de> DeserializeSeed<'de> for Strict<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        check_depth(self.path, self.depth_max)?;
        for index in 0usize.. {
            self.path.push(Step::Item(index));
            let is_item =
                items.next_element_seed(Strict { path: self.path, depth_max: self.depth_max })?.is_some();
            self.path.pop();
            if !is_item {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        check_depth(self.path, self.depth_max)?;
        let mut seen = Seen::default();
        while let Some(Name(name)) = members.next_key()? {
            self.path.push(Step::Member(name.clone()));
            if !seen.insert(name) {
                return Err(A::Error::custom("duplicate member"));
            }
            members.next_value_seed(Strict { path: self.path, depth_max: self.depth_max })?;
            self.path.pop();
        }
        Ok(())
    }
}

/// The names of an object so far. A few are compared one by one, which is faster than hashing them.
#[derive(Default)]
struct Seen<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Seen<'de> {
    const FEW: usize = 16;

    /// False if the name was there before.
    fn insert(&mut self, name: Cow<'de, str>) -> bool {
        if self.few.contains(&name) {
            return false;
        }
        if self.few.len() < Self::FEW {
            self.few.push(name);
            return true;
        }
        self.many.insert(name)
    }
}

fn check_depth<E: serde::de::Error>(path: &[Step<'_>], depth_max: usize) -> Result<(), E> {
    if path.len() >= depth_max { Err(E::custom(format!("nested deeper than {depth_max}"))) } else { Ok(()) }
}

/// A member's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_insignificant_white_space_is_taken_out() {
        for (given, stored) in [
            (" { \"b\" : 1.50 ,\n\"a\" : [ 1e2 , \"x y\\\" \\n\" ] } ", r#"{"b":1.50,"a":[1e2,"x y\" \n"]}"#),
            ("12345678901234567890123", "12345678901234567890123"),
            ("\t\"  \"\r\n", "\"  \""),
            (r#"["a\\", "b\" ,", "c"]"#, r#"["a\\","b\" ,","c"]"#),
            ("null", "null"),
            (r#"{"\u0061":1}"#, r#"{"\u0061":1}"#),
        ] {
            assert_eq!(&*compact(given, DEPTH_MAX).unwrap(), stored);
        }
    }

    #[test]
    fn what_a_strict_reader_would_refuse_is_refused_with_its_place() {
        for (given, pointer) in [
            (r#"{"a":{"b":1,"b":2}}"#, "/a/b"),
            (r#"{"a":1,"\u0061":2}"#, "/a"),
            (r#"{"x/y":["\ud800"]}"#, "/x~1y/0"),
            ("[1,1e400]", "/1"),
            ("{\"a\":01}", "/a"),
            ("", ""),
            ("{} {}", ""),
            ("[1,]", "/1"),
            (
                r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1,"r":1,"r":1}"#,
                "/r",
            ),
            ("\"a\nb\"", ""),
            ("NaN", ""),
        ] {
            assert_eq!(compact(given, DEPTH_MAX).unwrap_err().pointer, pointer, "{given}");
        }
        assert!(compact(&format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX)), DEPTH_MAX).is_ok());
        assert!(
            compact(&format!("{}{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1)), DEPTH_MAX)
                .is_err()
        );
        assert!(compact(&"[".repeat(1_000_000), DEPTH_MAX).is_err());
    }
}
