//! Retention as it is set: how much of the log and of its streams is kept.
//!
//! Layer L0.

use super::{Pattern, StreamName};
use std::time::Duration;

/// What is kept; what any of these does not keep is trimmed. `None` keeps all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest events; of the log up to 1,024 more, of a stream up to an eighth more.
    pub events: Option<u64>,
    /// At most so much data, the newest. *Units*: bytes of payloads.
    pub bytes: Option<u64>,
    /// Events received no longer ago than this.
    pub age: Option<Duration>,
}

/// What is kept of streams of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRetention {
    /// Of which streams. `*` does not mean the server's own stream, whose events tell of trims.
    pub streams: Pattern,
    /// Of each of them.
    pub keep: Retention,
}

/// All that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionRules {
    /// Of the log as a whole, whatever the streams.
    pub log: Retention,
    /// Of single streams. For each stream the most precise one holds: its name before a prefix, a longer prefix before a
    /// shorter one.
    pub streams: Vec<StreamRetention>,
}

impl RetentionRules {
    /// The place of the rule for a stream.
    pub fn rule_of(&self, stream: &StreamName) -> Option<usize> {
        let precision = |rule: &StreamRetention| match &rule.streams {
            Pattern::Exact(_) => usize::MAX,
            Pattern::Prefix(prefix) => prefix.len(),
        };
        let is_meant = |rule: &StreamRetention| {
            let is_exact = matches!(rule.streams, Pattern::Exact(_));
            rule.streams.matches(stream.as_str()) && (is_exact || !stream.is_own())
        };
        let rules = self.streams.iter().enumerate().filter(|(_, rule)| is_meant(rule));
        rules.max_by_key(|(_, rule)| precision(rule)).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_precise_rule_of_a_stream_holds() {
        let rule = |streams: &str| StreamRetention {
            streams: Pattern::parse(streams).unwrap(),
            keep: Retention::default(),
        };
        let streams = ["*", "a.*", "a.b.*", "a.b.c"].map(rule).to_vec();
        let rules = RetentionRules { log: Retention::default(), streams };
        let of = |name: &str| rules.rule_of(&StreamName::stored(name.into()));
        assert_eq!(["x", "a.x", "a.b.x", "a.b.c"].map(of), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(of("evertail"), None, "its events tell of trims");
    }
}
