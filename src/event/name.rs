//! Names: streams, types, ids and the other short texts of an event, each with the one rule that admits it.
//!
//! Layer L0. The same rules stand as SQL in `migrations/` for rows that another process inserts.

use std::fmt;
use std::sync::Arc;

/// Longest stream name. *Units*: bytes (all ASCII).
pub const STREAM_BYTES_MAX: usize = 128;
/// Longest event type. *Units*: characters.
pub const TYPE_CHARS_MAX: usize = 128;
/// Longest id, source and subject. *Units*: characters.
pub const ID_CHARS_MAX: usize = 256;
/// Longest name of a hold. *Units*: characters.
pub const HOLD_CHARS_MAX: usize = 128;

/// The stream that the server itself appends to.
const SERVER_STREAM: &str = "evertail";
/// Names that are routes of the API.
const RESERVED_STREAMS: [&str; 2] = ["events", "streams"];

/// Why a short text is refused. The display is a sentence fragment that fits after the member's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `[a-z0-9][a-z0-9._-]{0,127}`.
    #[error("must match [a-z0-9][a-z0-9._-]{{0,127}}")]
    StreamForm,
    /// A route of the API has this name.
    #[error("is reserved for a route of the API")]
    StreamIsRoute,
    /// Only the server appends to this stream.
    #[error("is the server's own stream")]
    StreamIsServers,
    /// Too short or too long.
    #[error("must have {min} to {max} characters")]
    Length {
        /// Fewest characters.
        min: usize,
        /// Most characters.
        max: usize,
    },
    /// CR, LF, NUL or another control character.
    #[error("must not hold control characters")]
    Control,
    /// Names are parts of a path.
    #[error("must not hold a slash")]
    Slash,
    /// A type that EventSource or this server gives a meaning of its own.
    #[error("is reserved: `error` belongs to EventSource, `evertail.` to the server")]
    TypeReserved,
    /// Not a point in time as RFC 3339 writes it.
    #[error("must be an RFC 3339 time such as 2026-11-21T09:00:00Z")]
    Time,
    /// Not a span as W3C Trace Context writes it.
    #[error("must be a W3C traceparent such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    TraceParent,
}

/// A stream's name. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// Checks a name that someone wants to append to or read.
    ///
    /// *Errors*: the form is wrong, or the name is a route. The server's own stream is a valid name; see
    /// [`StreamName::check_appendable`].
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let is_first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let is_rest = |b: u8| is_first(b) || matches!(b, b'.' | b'_' | b'-');
        match name.as_bytes() {
            [first, rest @ ..]
                if is_first(*first) && rest.iter().all(|b| is_rest(*b)) && name.len() <= STREAM_BYTES_MAX => {
            }
            _ => return Err(NameError::StreamForm),
        }
        if RESERVED_STREAMS.contains(&name) {
            return Err(NameError::StreamIsRoute);
        }
        Ok(Self(Arc::from(name)))
    }

    /// A name as it stands in the table, not checked again: what is stored is shown as it is.
    pub fn stored(name: Arc<str>) -> Self {
        Self(name)
    }

    /// The server's own stream, whose events tell of trims and holds.
    pub fn own() -> Self {
        Self(Arc::from(SERVER_STREAM))
    }

    /// Whether it is the server's own.
    pub fn is_own(&self) -> bool {
        &*self.0 == SERVER_STREAM
    }

    /// *Errors*: the stream is the server's own.
    pub fn check_appendable(&self) -> Result<(), NameError> {
        if self.is_own() { Err(NameError::StreamIsServers) } else { Ok(()) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event's type. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType(Arc<str>);

impl EventType {
    /// The type that EventSource gives an event without one.
    pub const MESSAGE: &'static str = "message";

    /// The type of the event that ends a stream. Only the server writes it.
    pub const CLOSED: &'static str = "evertail.closed";

    /// The type of the event that ends a stream.
    pub fn closed() -> Self {
        Self(Arc::from(Self::CLOSED))
    }

    /// A type of the server's own stream: `evertail.trimmed`, say.
    pub(crate) fn own(name: &'static str) -> Self {
        Self(Arc::from(name))
    }

    /// Whether an event of this type ends its stream.
    pub fn is_closed(&self) -> bool {
        &*self.0 == Self::CLOSED
    }

    /// `message`, without allocating each time.
    pub fn message() -> Self {
        static MESSAGE: std::sync::OnceLock<EventType> = std::sync::OnceLock::new();
        MESSAGE.get_or_init(|| Self(Arc::from(Self::MESSAGE))).clone()
    }

    /// Checks a type that a producer gives.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == Self::MESSAGE {
            return Ok(Self::message());
        }
        check_text(text, 1, TYPE_CHARS_MAX)?;
        if text == "error" || text.starts_with("evertail.") {
            return Err(NameError::TypeReserved);
        }
        Ok(Self(Arc::from(text)))
    }

    /// A type as it stands in the table, not checked again; the SSE encoder is total and needs no check.
    pub fn stored(text: Arc<str>) -> Self {
        Self(text)
    }

    /// The type.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The type, shared.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

/// Checks an id or a non-empty source.
pub fn check_id(text: &str) -> Result<Arc<str>, NameError> {
    check_text(text, 1, ID_CHARS_MAX).map(|()| Arc::from(text))
}

/// Checks a subject.
pub fn check_subject(text: &str) -> Result<Arc<str>, NameError> {
    check_id(text)
}

/// Checks the name of a hold.
pub fn check_hold_name(text: &str) -> Result<Arc<str>, NameError> {
    check_text(text, 1, HOLD_CHARS_MAX)?;
    if text.contains('/') { Err(NameError::Slash) } else { Ok(Arc::from(text)) }
}

/// Checks why something is trimmed, held or released.
pub fn check_reason(text: &str) -> Result<Arc<str>, NameError> {
    check_id(text)
}

/// Checks a producer's time. Kept as written, so that what is stored is what was said.
pub fn check_time(text: &str) -> Result<Arc<str>, NameError> {
    match chrono::DateTime::parse_from_rfc3339(text) {
        Ok(_) => Ok(Arc::from(text)),
        Err(_) => Err(NameError::Time),
    }
}

fn check_text(text: &str, min: usize, max: usize) -> Result<(), NameError> {
    // A character is at most four bytes: a long text is refused before it is counted.
    if text.len() > max * 4 || !(min..=max).contains(&text.chars().count()) {
        return Err(NameError::Length { min, max });
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(())
}

/// The `Idempotency-Key` of a request: stands in for the ids that its events do not have.
///
/// One event takes the key itself; the events of a batch take `key/0`, `key/1` and so on, so that repeating the
/// request repeats its ids.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// Checks a key, with or without the quotes of a structured header.
    ///
    /// *Bounds*: at least 8 characters shorter than an id, for the index of a batch.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        // The white space of HTTP; any other is part of the key.
        let text = text.trim_matches([' ', '\t']);
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        check_text(bare, 1, ID_CHARS_MAX - 8)?;
        Ok(Self(Arc::from(bare)))
    }

    /// The id for an event that comes alone.
    pub fn id(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The id for the event at this index of a batch.
    pub fn id_at(&self, index: usize) -> Arc<str> {
        Arc::from(format!("{}/{index}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_names_follow_the_documented_form() {
        for good in ["a", "0", "audits", "orders.eu-1_x", &"a".repeat(128)] {
            assert!(StreamName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "A", "a b", "a/b", "ä", "a\n", &"a".repeat(129)] {
            assert_eq!(StreamName::parse(bad), Err(NameError::StreamForm), "{bad:?}");
        }
        assert_eq!(StreamName::parse("events"), Err(NameError::StreamIsRoute));
        assert_eq!(
            StreamName::parse("evertail").unwrap().check_appendable(),
            Err(NameError::StreamIsServers)
        );
    }

    #[test]
    fn types_refuse_what_event_source_or_the_server_means() {
        assert!(EventType::parse("user.login").is_ok());
        assert!(EventType::parse("errors").is_ok());
        for reserved in ["error", "evertail.gap"] {
            assert_eq!(EventType::parse(reserved), Err(NameError::TypeReserved));
        }
        for control in ["a\nb", "a\rb", "a\0b", "\u{85}"] {
            assert_eq!(EventType::parse(control), Err(NameError::Control));
        }
        assert!(EventType::parse(&"ä".repeat(128)).is_ok());
        assert!(EventType::parse(&"ä".repeat(129)).is_err());
    }

    #[test]
    fn names_of_holds_fit_into_a_path() {
        for good in ["case-1", "Fall 17 (ä)", &"ä".repeat(HOLD_CHARS_MAX)] {
            assert!(check_hold_name(good).is_ok(), "{good}");
        }
        assert_eq!(check_hold_name("a/b"), Err(NameError::Slash));
        assert_eq!(check_hold_name("a\tb"), Err(NameError::Control));
        for bad in ["", &"a".repeat(HOLD_CHARS_MAX + 1)] {
            assert_eq!(check_hold_name(bad), Err(NameError::Length { min: 1, max: HOLD_CHARS_MAX }));
        }
    }

    #[test]
    fn times_are_kept_as_the_producer_wrote_them() {
        assert_eq!(&*check_time("2026-11-21T09:00:00.5+01:00").unwrap(), "2026-11-21T09:00:00.5+01:00");
        for bad in ["", "yesterday", "2026-11-21", "2026-13-01T00:00:00Z"] {
            assert_eq!(check_time(bad), Err(NameError::Time), "{bad}");
        }
    }
}
