//! The parameters of operations, by the names that the table has for them: their bounds are those that the handlers keep.

use crate::event::{HOLD_CHARS_MAX, ID_CHARS_MAX, STREAM_BYTES_MAX, TYPE_CHARS_MAX};
use crate::http::access::{SESSION_COOKIE, TICKET};
use crate::http::query::{CONDITIONS_MAX, PATTERNS_MAX};
use crate::http::{page, streams};
use serde_json::{Map, Value, json};

/// A stream or type, or a prefix of some.
const PATTERN: &str = r"^([^*]+|([^*]*\.)?\*)$";
/// A number with a unit, or several; no more years than there are to come.
const DURATION: &str = "^(([0-9]{1,5} ?(ms|s|sec|m|min|h|hour|hours|d|day|days|w|week|weeks)|\
    [0-9]{1,3} ?(month|months|y|year|years)) ?){1,3}$";
/// No character that ends a line or controls anything.
pub(super) const PRINTABLE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// A seq as SQLite can hold it.
pub(super) fn seq(minimum: u64) -> Value {
    json!({"type": "integer", "format": "int64", "minimum": minimum, "maximum": i64::MAX})
}

/// A short text.
pub(super) fn text(chars_max: usize) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": chars_max, "pattern": PRINTABLE})
}

/// The name of a stream that is no route.
pub(super) fn stream_name() -> Value {
    let pattern = format!("^[a-z0-9][a-z0-9._-]{{0,{}}}$", STREAM_BYTES_MAX - 1);
    json!({"type": "string", "pattern": pattern, "not": {"enum": ["events", "streams"]}})
}

/// How long: `30d`.
pub(super) fn duration() -> Value {
    json!({"type": "string", "pattern": DURATION, "examples": ["30d", "12h"]})
}

fn time() -> Value {
    json!({"anyOf": [{"type": "string", "format": "date-time"}, duration()], "examples": ["10m", "2026-11-21T09:00:00Z"]})
}

fn several(items: Value) -> Value {
    json!({"type": "array", "items": items, "minItems": 1, "maxItems": PATTERNS_MAX})
}

/// All of them. A name stands for the parameter itself unless it says where it is.
pub(super) fn parameters() -> Map<String, Value> {
    let pattern = |example: &str| {
        several(json!({"type": "string", "minLength": 1, "pattern": PATTERN, "examples": [example]}))
    };
    let cursor = "The cursor: what is after this seq; 0 is the beginning.";
    let all = [
        ("path_stream", path("stream", stream_name(), "The stream.")),
        ("seq", path("seq", seq(0), "The event's position in the log.")),
        ("hold_stream", path("stream", stream_name(), "The stream that is held.")),
        ("hold_name", path("name", hold_name(), "What the hold is called.")),
        ("token_id", path("id", json!({"type": "string", "minLength": 1}), "The id of the token.")),
        (
            "Last-Event-ID",
            header("Last-Event-ID", header_cursor(), "The cursor, before all others; an empty one is none."),
        ),
        ("last_event_id", query("last_event_id", seq(0), cursor)),
        ("after", query("after", seq(0), cursor)),
        ("since", query("since", time(), "Received since this time, or so long ago.")),
        ("last", query("last", seq(1), "The newest so many.")),
        ("before", query("before", seq(1), "End before this seq.")),
        (
            "until",
            query("until", time(), "End before the first event received at this time, or so long ago."),
        ),
        ("limit", query("limit", seq(1), &limit())),
        ("order", query("order", json!({"enum": ["asc", "desc"]}), "Newest first, or not.")),
        ("log", query("log", json!({"type": "string"}), "The log that the cursor belongs to.")),
        (
            "stream",
            query("stream", pattern("orders.*"), "Of these streams, or of prefixes such as `orders.*`."),
        ),
        ("type", query("type", pattern("user.*"), "Of these types, or of prefixes such as `user.*`.")),
        ("source", query("source", several(json!({"type": "string"})), "With one of these sources.")),
        ("subject", query("subject", several(json!({"type": "string"})), "About one of these subjects.")),
        ("data", conditions()),
        ("format", query("format", json!({"enum": ["event", "data", "cloudevents"]}), FORMAT)),
        ("event", query("event", json!({"enum": ["message"]}), "Every type as a plain message.")),
        ("producer", query("producer", json!({"enum": ["true", "false"]}), PRODUCER)),
        (
            "If-None-Match",
            header("If-None-Match", json!({"type": "string"}), "The `ETag` that is known already."),
        ),
        ("after_name", query("after_name", json!({"type": "string"}), "The streams after this one.")),
        ("streams_limit", query("limit", streams_limit(), "At most so many.")),
        ("reason", query("reason", text(ID_CHARS_MAX), "Why.")),
        ("Idempotency-Key", header("Idempotency-Key", text(ID_CHARS_MAX - 8), KEY)),
        ("traceparent", header("traceparent", json!({"type": "string"}), TRACEPARENT)),
        (
            "If-Match",
            header("If-Match", precondition(), "Append only if this is the last seq; `\"0\"` for none."),
        ),
    ];
    all.into_iter().map(|(name, parameter)| (name.to_owned(), parameter)).collect()
}

const FORMAT: &str = "Each event as its JSON, as its payload alone, or as a CloudEvent.";
const PRODUCER: &str = "With who appended each event, and from where, for who may administer.";
const TRACEPARENT: &str = "The span that the request is made in (W3C Trace Context), kept with its events. One that cannot be read is none.";

const KEY: &str =
    "Stands in for missing ids: one event gets it as its id, those of a batch `key/0`, `key/1`, ...";

/// A span of W3C Trace Context, in the version in which it is kept.
pub(super) fn traceparent() -> Value {
    json!({"type": "string", "pattern": "^00-(?!0+-)[0-9a-f]{32}-(?!0+-)[0-9a-f]{16}-[0-9a-f]{2}$"})
}

/// The type of an event that a producer gives.
pub(super) fn event_type() -> Value {
    let mut schema = text(TYPE_CHARS_MAX);
    schema["not"] = json!({"anyOf": [{"const": "error"}, {"pattern": r"^evertail\."}]});
    schema["examples"] = json!(["user.login"]);
    schema
}

/// The name of a hold or a token.
pub(super) fn hold_name() -> Value {
    let pattern = r"^[^\u0000-\u001f\u007f-\u009f/]*$";
    json!({"type": "string", "minLength": 1, "maxLength": HOLD_CHARS_MAX, "pattern": pattern})
}

fn header_cursor() -> Value {
    json!({"anyOf": [seq(0), {"const": ""}]})
}

fn precondition() -> Value {
    json!({"type": "string", "pattern": "^(\"[0-9]{1,18}\"|[0-9]{1,18})$", "examples": ["\"41\""]})
}

fn limit() -> String {
    let (default, max) = (page::LIMIT_DEFAULT, page::LIMIT_MAX);
    format!("End after so many events; for a JSON page at most {max}, else {default}.")
}

fn streams_limit() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": streams::LIMIT_MAX, "default": streams::LIMIT_DEFAULT})
}

/// Conditions on the payload: a parameter each, whatever its name, as a form writes the members of an object.
fn conditions() -> Value {
    let description = "Conditions on the payload, a parameter each: `data.actor=alice`, `data.actor!=alice`, \
        `data.amount>=100`, `data.user.name~=ali`. All must hold.";
    let members = r"^data(\.[^.<>!~=]{1,100}){0,8}[<>!~]?$";
    let schema = json!({
        "type": "object",
        "propertyNames": {"pattern": members},
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 1024},
        "maxProperties": CONDITIONS_MAX,
        "examples": [{"data.actor": "alice"}],
    });
    let mut parameter = query("data", schema, description);
    parameter["style"] = json!("form");
    parameter["explode"] = json!(true);
    parameter
}

/// How whoever asks says who it is.
pub(super) fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API token, or a JSON Web Token where those are configured. What an operation needs of its grants is listed as its scope.",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": SESSION_COOKIE,
            "description": "For pages of this server, which send their Origin: what POST /auth/session sets.",
        },
        "ticket": {
            "type": "apiKey",
            "in": "query",
            "name": TICKET,
            "description": "For one stream, for a while: what POST /auth/tickets answers.",
        },
    })
}

fn path(name: &str, schema: Value, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
}

fn query(name: &str, schema: Value, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

fn header(name: &str, schema: Value, description: &str) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": schema})
}
