//! Which events a reader wants. One value, used alike for memory, table and every format.
//!
//! Layer L0.

use super::{EventType, Filter, StreamName};
use std::fmt;
use std::sync::Arc;

/// A name, or every name that begins with a prefix (`orders.*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This name.
    Exact(String),
    /// Every name that begins so; the text before the `*`.
    Prefix(String),
}

impl Pattern {
    /// Reads `name` or `prefix.*`, or `*` for everything. A star elsewhere makes no pattern.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            Some(prefix) if prefix.contains('*') => None,
            Some(prefix) if prefix.is_empty() || prefix.ends_with('.') => {
                Some(Self::Prefix(prefix.to_owned()))
            }
            Some(_) => None,
            None if text.is_empty() || text.contains('*') => None,
            None => Some(Self::Exact(text.to_owned())),
        }
    }

    /// Whether the name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix),
        }
    }

    /// Whether it means every name.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }
}

impl fmt::Display for Pattern {
    /// As [`Pattern::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// The events a reader wants: any of the streams, any of the types, and what the filter lets through. Empty lists want
/// all.
///
/// Streams and types are names: the table is searched by them and has an index of them. The filter looks into each
/// event that they leave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// Streams, any of which; none means all.
    pub streams: Vec<Pattern>,
    /// Types, any of which; none means all.
    pub types: Vec<Pattern>,
    /// What is asked of each event of these names.
    pub filter: Filter,
    /// Streams that the reader may read, whatever it asks for; `None` means all, an empty list none.
    ///
    /// Part of the selection, so that no way to an event goes around it: memory, table, index and searches all select by
    /// this one value.
    pub granted: Option<Arc<[Pattern]>>,
}

impl Selection {
    /// Everything in the log.
    pub fn all() -> Self {
        Self::default()
    }

    /// Everything in one stream.
    pub fn stream(name: &StreamName) -> Self {
        Self { streams: vec![Pattern::Exact(name.as_str().to_owned())], ..Self::default() }
    }

    /// Wants every event.
    pub fn is_all(&self) -> bool {
        self.has_all_names() && self.filter.is_all()
    }

    /// Wants, and may read, events of every stream and type.
    pub fn has_all_names(&self) -> bool {
        self.streams.is_empty() && self.types.is_empty() && self.granted.is_none()
    }

    /// The one stream that everything wanted is of, if there is one and it may be read.
    pub fn one_stream(&self) -> Option<&str> {
        match self.streams.as_slice() {
            [Pattern::Exact(name)] if self.may_read(name) => Some(name),
            _ => None,
        }
    }

    /// Whether events of this stream may be read.
    pub fn may_read(&self, stream: &str) -> bool {
        self.granted.as_deref().is_none_or(|granted| granted.iter().any(|pattern| pattern.matches(stream)))
    }

    /// Whether events of this stream are wanted and may be read.
    pub fn matches_stream(&self, stream: &str) -> bool {
        self.may_read(stream)
            && (self.streams.is_empty() || self.streams.iter().any(|pattern| pattern.matches(stream)))
    }

    /// Whether events of this stream and type are wanted, as far as their names tell.
    pub fn matches_names(&self, stream: &StreamName, r#type: &EventType) -> bool {
        self.matches_stream(stream.as_str())
            && (self.types.is_empty() || self.types.iter().any(|pattern| pattern.matches(r#type.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_a_star_only_at_the_end_of_a_prefix() {
        assert_eq!(Pattern::parse("orders.*"), Some(Pattern::Prefix("orders.".into())));
        assert_eq!(Pattern::parse("*"), Some(Pattern::Prefix(String::new())));
        assert_eq!(Pattern::parse("orders"), Some(Pattern::Exact("orders".into())));
        for bad in ["", "or*", "*.eu", "a.*.b", "**"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
        assert!(!Pattern::parse("orders.*").unwrap().matches("orders"));
        for text in ["orders.*", "*", "orders"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_granted_is_not_wanted() {
        let selection = |streams: &[&str], granted: Option<&[&str]>| {
            let parse = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            Selection {
                streams: parse(streams),
                granted: granted.map(|g| Arc::from(parse(g))),
                ..Selection::all()
            }
        };
        let wants = |selection: &Selection, stream: &str| {
            selection.matches_names(&StreamName::parse(stream).unwrap(), &EventType::message())
        };
        let narrowed = selection(&[], Some(&["a", "b.*"]));
        assert!(wants(&narrowed, "a") && wants(&narrowed, "b.c") && !wants(&narrowed, "c"));
        assert!(!narrowed.is_all() && !narrowed.has_all_names());
        assert!(!wants(&selection(&["c", "a"], Some(&["a"])), "c"));
        assert!(!wants(&selection(&[], Some(&[])), "a"), "an empty list grants nothing");
        assert!(wants(&selection(&[], None), "a"));
        assert_eq!(selection(&["a"], Some(&["a"])).one_stream(), Some("a"));
        assert_eq!(
            selection(&["a"], Some(&["b"])).one_stream(),
            None,
            "nothing is told of what may not be read"
        );
    }
}
