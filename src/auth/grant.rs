//! What someone may do: append to streams, read streams, administer, read the metrics.

use crate::event::{Pattern, StreamName};
use std::sync::Arc;

/// Most patterns of one kind.
pub const PATTERNS_MAX: usize = 64;

/// Why a list of streams cannot be granted. The display is a sentence fragment that fits after the member's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantsError {
    /// Not a stream, nor a prefix of streams.
    #[error("must hold streams such as audits, or prefixes such as orders.* and *; {0:?} is neither")]
    Pattern(String),
    /// Too many.
    #[error("must hold at most {PATTERNS_MAX} streams")]
    TooMany,
}

/// What someone may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// Streams that may be appended to, and closed.
    pub append: Arc<[Pattern]>,
    /// Streams that may be read.
    pub read: Arc<[Pattern]>,
    /// Trims, holds and tokens. Reads and appends nothing by itself.
    pub admin: bool,
    /// The metrics, which `admin` has too.
    pub metrics: bool,
}

impl Grants {
    /// Reads a list of streams and prefixes.
    ///
    /// *Errors*: one of them is none, or there are too many.
    pub fn patterns<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Vec<Pattern>, GrantsError> {
        let mut patterns = Vec::new();
        for text in texts {
            // What begins the name of a stream is one itself, with a letter behind its dot.
            let name = text.strip_suffix('*').map_or_else(|| text.to_owned(), |prefix| format!("{prefix}x"));
            let is_stream = StreamName::parse(&name).is_ok();
            let pattern = Pattern::parse(text).filter(|_| is_stream);
            patterns.push(pattern.ok_or_else(|| GrantsError::Pattern(text.to_owned()))?);
            if patterns.len() > PATTERNS_MAX {
                return Err(GrantsError::TooMany);
            }
        }
        Ok(patterns)
    }

    /// Whether events may be appended to this stream.
    pub fn may_append(&self, stream: &StreamName) -> bool {
        self.append.iter().any(|pattern| pattern.matches(stream.as_str()))
    }

    /// What a selection is narrowed by; `None` where everything may be read.
    pub fn reading(&self) -> Option<Arc<[Pattern]>> {
        (!self.read.iter().any(Pattern::is_all)).then(|| self.read.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_name_streams_and_prefixes() {
        let read = |texts: &[&str]| Grants::patterns(texts.iter().copied());
        assert_eq!(read(&["audits", "orders.*", "*"]).map(|patterns| patterns.len()), Ok(3));
        for bad in ["", "or*", "A", "a b", "A.*", "a/b.*", "events", "a.*.b"] {
            assert_eq!(read(&[bad]), Err(GrantsError::Pattern(bad.to_owned())), "{bad:?}");
        }
        assert_eq!(read(&["a"; PATTERNS_MAX + 1]), Err(GrantsError::TooMany));
    }

    #[test]
    fn nothing_is_granted_by_an_empty_list_and_everything_by_a_star() {
        let grants = |append: &[&str], read: &[&str]| Grants {
            append: Grants::patterns(append.iter().copied()).unwrap().into(),
            read: Grants::patterns(read.iter().copied()).unwrap().into(),
            admin: false,
            metrics: false,
        };
        let stream = |name| StreamName::parse(name).unwrap();
        assert!(!grants(&[], &["*"]).may_append(&stream("a")));
        assert!(grants(&["a.*"], &[]).may_append(&stream("a.b")));
        assert!(!grants(&["a.*"], &[]).may_append(&stream("a")));
        assert_eq!(grants(&["*"], &[]).reading().as_deref(), Some([].as_slice()));
        assert_eq!(grants(&[], &["a", "*"]).reading(), None);
    }
}
