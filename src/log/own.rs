//! The events of the server's own stream: what it did to the log, as events like all others.

use crate::event::{Content, EventType, Pattern, Seq, StreamName};
use crate::store::{Cause, Hold, StoredToken, UntoldTrim};
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
struct TrimmedData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    from_seq: Seq,
    through_seq: Seq,
    events: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct HoldData<'a> {
    stream: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Events were trimmed, of a stream or of the whole log.
pub(super) fn trimmed(trim: &UntoldTrim, cause: Cause, reason: Option<&str>) -> Content {
    let stream = trim.stream.as_ref();
    let data = TrimmedData {
        stream: stream.map(StreamName::as_str),
        cause: cause.as_str(),
        reason,
        from_seq: trim.from,
        through_seq: trim.through,
        events: trim.events,
        bytes: trim.bytes,
    };
    event("evertail.trimmed", stream, &data)
}

/// A stream is held.
pub(super) fn held(hold: &Hold) -> Content {
    let data = HoldData { stream: hold.stream.as_str(), name: &hold.name, reason: Some(&hold.reason) };
    event("evertail.held", Some(&hold.stream), &data)
}

/// A hold is released.
pub(super) fn released(hold: &Hold, reason: Option<&str>) -> Content {
    let data = HoldData { stream: hold.stream.as_str(), name: &hold.name, reason };
    event("evertail.released", Some(&hold.stream), &data)
}

#[derive(Serialize)]
struct TokenData<'a> {
    id: &'a str,
    name: &'a str,
    append: Vec<String>,
    read: Vec<String>,
    admin: bool,
    metrics: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// A token was made. Neither it nor its hash is told.
pub(super) fn token_created(token: &StoredToken) -> Content {
    about_token("evertail.token_created", token)
}

/// A token was revoked.
pub(super) fn token_revoked(token: &StoredToken) -> Content {
    about_token("evertail.token_revoked", token)
}

fn about_token(r#type: &'static str, token: &StoredToken) -> Content {
    let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
    let data = TokenData {
        id: &token.id,
        name: &token.name,
        append: texts(&token.append),
        read: texts(&token.read),
        admin: token.admin,
        metrics: token.metrics,
        expires_at: token.expires_at.map(|time| time.to_string()),
    };
    event(r#type, None, &data)
}

/// The stream that it is about is its subject.
fn event(r#type: &'static str, about: Option<&StreamName>, data: &impl Serialize) -> Content {
    let mut content = Content::new(StreamName::own());
    content.r#type = EventType::own(r#type);
    content.subject = about.map(StreamName::shared);
    content.data = Some(Arc::from(serde_json::to_string(data).expect("own data always serialises")));
    content
}
