//! Which events a reader wants. One value, used alike for memory, table and every format.
//!
//! Layer L0.

use super::{EventType, Filter, StreamName};

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

    /// Wants events of every stream and type.
    pub fn has_all_names(&self) -> bool {
        self.streams.is_empty() && self.types.is_empty()
    }

    /// The one stream that everything wanted is of, if there is one.
    pub fn one_stream(&self) -> Option<&str> {
        match self.streams.as_slice() {
            [Pattern::Exact(name)] => Some(name),
            _ => None,
        }
    }

    /// Whether events of this stream and type are wanted, as far as their names tell.
    pub fn matches_names(&self, stream: &StreamName, r#type: &EventType) -> bool {
        let any = |patterns: &[Pattern], name: &str| {
            patterns.is_empty() || patterns.iter().any(|p| p.matches(name))
        };
        any(&self.streams, stream.as_str()) && any(&self.types, r#type.as_str())
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
    }
}
