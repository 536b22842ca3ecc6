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

/// Deepest nesting of arrays and objects in a payload.
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
/// *Errors*: syntax, a duplicate member, a lone surrogate, a number out of range, nesting beyond [`DEPTH_MAX`].
pub fn compact(text: &str) -> Result<Arc<str>, JsonError> {
    let mut path = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    Strict { path: &mut path }
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| JsonError { message: error.to_string(), pointer: pointer(&path) })?;
    Ok(Arc::from(without_white_space(text)))
}

/// A text as a JSON string.
pub fn quote(text: &str) -> Arc<str> {
    Arc::from(serde_json::to_string(text).expect("a string always serialises"))
}

fn without_white_space(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut kept_from = 0;
    let (mut is_string, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        if is_string {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => is_string = false,
                _ => {}
            }
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            out.push_str(&text[kept_from..at]);
            kept_from = at + 1;
        } else {
            is_string = byte == b'"';
        }
    }
    out.push_str(&text[kept_from..]);
    out
}

/// RFC 6901: `~` and `/` are written `~0` and `~1`.
fn pointer(path: &[String]) -> String {
    path.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
}

/// Reads any value and keeps nothing but the way to where it is; on an error the path stays where it happened.
struct Strict<'p> {
    path: &'p mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
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
        check_depth(self.path)?;
        for index in 0usize.. {
            self.path.push(index.to_string());
            let is_item = items.next_element_seed(Strict { path: self.path })?.is_some();
            self.path.pop();
            if !is_item {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        check_depth(self.path)?;
        let mut seen = HashSet::new();
        while let Some(Name(name)) = members.next_key()? {
            self.path.push(name.clone().into_owned());
            if !seen.insert(name) {
                return Err(A::Error::custom("duplicate member"));
            }
            members.next_value_seed(Strict { path: self.path })?;
            self.path.pop();
        }
        Ok(())
    }
}

fn check_depth<E: serde::de::Error>(path: &[String]) -> Result<(), E> {
    if path.len() >= DEPTH_MAX { Err(E::custom(format!("nested deeper than {DEPTH_MAX}"))) } else { Ok(()) }
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
            ("null", "null"),
            (r#"{"\u0061":1}"#, r#"{"\u0061":1}"#),
        ] {
            assert_eq!(&*compact(given).unwrap(), stored);
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
            ("\"a\nb\"", ""),
            ("NaN", ""),
        ] {
            assert_eq!(compact(given).unwrap_err().pointer, pointer, "{given}");
        }
        assert!(compact(&format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX))).is_ok());
        assert!(compact(&format!("{}{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1))).is_err());
        assert!(compact(&"[".repeat(1_000_000)).is_err());
    }
}
