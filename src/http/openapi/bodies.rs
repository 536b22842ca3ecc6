//! The bodies that operations take. They are read by hand, member by member; these schemas say the same to a machine, and
//! schemathesis holds the one against the other.

use super::parameters::{duration, event_type, hold_name, seq, stream_name, text, traceparent};
use crate::auth::{PATTERNS_MAX, TICKET_MAX};
use crate::event::ID_CHARS_MAX;
use crate::http::{HttpSettings, cloudevents, session};
use serde_json::{Map, Value, json};

/// A body that begins so is JSON, whatever its content type says.
const LOOKS_LIKE_JSON: &str = r"^[ \t\r\n]*[\[{]";

/// An event to append; where it is placed, it names its stream.
fn event(is_placed: bool) -> Value {
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "description": "An event to append. What is not one of these members goes under data.",
        "properties": {
            "id": with(text(ID_CHARS_MAX), "The producer's own identifier, unique for ever within stream and source."),
            "type": with(event_type(), "What happened."),
            "source": with(source(), "Where it comes from."),
            "subject": with(text(ID_CHARS_MAX), "What it is about."),
            "time": {"type": "string", "format": "date-time", "description": "When it happened; stored as given."},
            "traceparent": with(traceparent(), "The span it was made in; without it, that of the request."),
            "data": {"description": "The payload: any JSON value."},
        },
        "examples": [{"type": "user.login", "data": {"actor": "alice"}}],
    });
    schema["properties"]["type"]["default"] = json!("message");
    if is_placed {
        schema["required"] = json!(["stream"]);
        schema["properties"]["stream"] = placed();
        schema["examples"] = json!([{"stream": "audits", "type": "user.login", "data": {"actor": "alice"}}]);
    }
    schema
}

/// A stream that may be appended to.
fn placed() -> Value {
    let mut schema = with(stream_name(), "The stream to append to.");
    schema["not"]["enum"] = json!(["events", "streams", "evertail"]);
    schema
}

fn source() -> Value {
    let mut schema = text(ID_CHARS_MAX);
    schema["minLength"] = json!(0);
    schema
}

/// A CloudEvent to append. An attribute that is null is not set.
fn cloud_event(is_placed: bool) -> Value {
    let or_null = |mut schema: Value| {
        schema["type"] = json!(["string", "null"]);
        schema
    };
    let mut schema = json!({
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "additionalProperties": {"type": "null"},
        "description": "A CloudEvent 1.0 in JSON. Attributes that an event cannot keep are refused.",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text(ID_CHARS_MAX),
            "source": text(ID_CHARS_MAX),
            "type": event_type(),
            "subject": or_null(text(ID_CHARS_MAX)),
            "time": or_null(json!({"format": "date-time"})),
            "traceparent": or_null(traceparent()),
            "datacontenttype": {"enum": ["application/json", null]},
            "data": {"description": "The payload: any JSON value. With a datacontenttype of text/plain, a string."},
        },
        "examples": [{"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": {"amount": 1}}],
    });
    if is_placed {
        schema["required"] = json!(["specversion", "id", "source", "type", "stream"]);
        schema["properties"]["stream"] = placed();
        schema["examples"][0]["stream"] = json!("orders");
    }
    schema
}

/// The schemas of what is sent, beside those of what is answered.
pub(super) fn schemas() -> Map<String, Value> {
    let reason = || with(text(ID_CHARS_MAX), "Why.");
    let whole = |what: &str| with(seq(1), what);
    let all = [
        ("NewEvent", event(false)),
        ("NewPlacedEvent", event(true)),
        ("NewCloudEvent", cloud_event(false)),
        ("NewPlacedCloudEvent", cloud_event(true)),
        ("Closing", object(&[], json!({"reason": reason()}), json!({"reason": "stop"}))),
        ("NewHold", object(&["reason"], json!({"reason": reason()}), json!({"reason": "case 17"}))),
        (
            "TrimRequest",
            with_any(
                object(
                    &[],
                    json!({
                        "stream": with(stream_name(), "Of this stream alone, else of the whole log."),
                        "before": whole("Everything before this seq."),
                        "older_than": with(age(), "Everything older than this."),
                        "keep_events": whole("All but the newest so many."),
                        "keep_bytes": {
                            "description": "All but the newest so many bytes of data.",
                            "anyOf": [whole("Bytes."), {"type": "string", "pattern": "^[1-9][0-9]{0,5} ?(KiB|MiB|GiB)?$"}],
                        },
                        "reason": reason(),
                        "dry_run": {"type": "boolean", "description": "Trim nothing; say what would go."},
                    }),
                    json!({"older_than": "90d", "dry_run": true}),
                ),
                &["before", "older_than", "keep_events", "keep_bytes"],
                Some(
                    json!({"required": ["dry_run"], "properties": {"dry_run": {"const": true}, "stream": false}}),
                ),
            ),
        ),
        (
            "NewToken",
            with_any(
                object(
                    &["name"],
                    json!({
                        "name": with(hold_name(), "What people call it."),
                        "append": with(streams(), "Streams that it may append to."),
                        "read": with(streams(), "Streams that it may read."),
                        "admin": {"type": "boolean", "description": "Whether it may trim, hold, and make tokens."},
                        "metrics": {"type": "boolean", "description": "Whether it may read the metrics, and nothing else by that."},
                        "expires_in": with(age(), "When it ends; for ever if left out."),
                        "expires_at": {"type": "string", "format": "date-time", "description": "The same as a time to come. Excludes expires_in."},
                    }),
                    json!({"name": "ci", "append": ["audits"], "expires_in": "90d"}),
                ),
                &["append", "read", "admin", "metrics"],
                None,
            ),
        ),
        (
            "NewTicket",
            object(
                &["stream"],
                json!({
                    "stream": with(stream_name(), "The stream that is to be opened."),
                    "seconds": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": TICKET_MAX.as_secs(),
                        "default": session::TICKET_DEFAULT.as_secs(),
                        "description": "How long the ticket opens it.",
                    },
                }),
                json!({"stream": "orders"}),
            ),
        ),
    ];
    let mut schemas: Map<String, Value> =
        all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    schemas["NewToken"]["not"] = json!({"required": ["expires_in", "expires_at"]});
    schemas
}

/// The bodies, by the names that the table has for them.
pub(super) fn bodies(settings: &HttpSettings) -> Map<String, Value> {
    let events = |event: &str, cloud_event: &str| {
        let batch = |of: &str| json!({"type": "array", "items": reference(of), "maxItems": settings.batch_events_max});
        let mut form =
            json!({"type": "object", "additionalProperties": false, "minProperties": 1, "properties": {}});
        for member in ["id", "type", "source", "subject", "time", "traceparent"] {
            form["properties"][member] =
                json!({"$ref": format!("#/components/schemas/{event}/properties/{member}")});
        }
        form["properties"]["data"] =
            json!({"type": "string", "description": "JSON if it begins with `{` or `[`, else text."});
        // Nothing at all is no batch, unlike an empty array.
        let mut lines = batch(event);
        lines["minItems"] = json!(1);
        let mut content = json!({
            "application/json": {"schema": {"oneOf": [reference(event), batch(event)]}},
            "application/x-ndjson": {"schema": lines},
            "application/x-www-form-urlencoded": {"schema": form},
            cloudevents::ONE: {"schema": reference(cloud_event)},
            cloudevents::BATCH: {"schema": batch(cloud_event)},
        });
        if event == "NewEvent" {
            let text = json!({"type": "string", "not": {"pattern": LOOKS_LIKE_JSON}});
            content["text/plain"] = json!({"schema": text, "example": "any text: the payload is that text"});
        } else {
            let form = &mut content["application/x-www-form-urlencoded"]["schema"];
            form["required"] = json!(["stream"]);
            form["properties"]["stream"] = placed();
        }
        let (event_bytes, bytes) = (settings.event_bytes_max, settings.batch_bytes_max);
        let description = format!(
            "One event or several. On this server an event has at most {event_bytes} bytes, a body {bytes}, and JSON {} levels.",
            settings.depth_max
        );
        json!({"required": true, "description": description, "content": content})
    };
    let one = |name: &str, is_required: bool| {
        let content = json!({"application/json": {"schema": reference(name)}});
        json!({"required": is_required, "content": content})
    };
    let all = [
        ("events", events("NewEvent", "NewCloudEvent")),
        ("placed_events", events("NewPlacedEvent", "NewPlacedCloudEvent")),
        ("closing", one("Closing", false)),
        ("trim", one("TrimRequest", true)),
        ("hold", one("NewHold", true)),
        ("token", one("NewToken", true)),
        ("ticket", one("NewTicket", true)),
    ];
    all.into_iter().map(|(name, body)| (name.to_owned(), body)).collect()
}

/// A schema by its name.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn age() -> Value {
    let mut schema = duration();
    // Not of zeros alone.
    schema["allOf"] = json!([{"pattern": "[1-9]"}]);
    schema
}

/// Streams that a token is for.
fn streams() -> Value {
    let pattern = r"^(\*|[a-z0-9][a-z0-9._-]{0,124}\.\*|[a-z0-9][a-z0-9._-]{0,127})$";
    let items = json!({"type": "string", "pattern": pattern, "not": {"enum": ["events", "streams"]}});
    json!({"type": "array", "items": items, "maxItems": PATTERNS_MAX})
}

fn object(required: &[&str], properties: Value, example: Value) -> Value {
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties, "examples": [example]});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// At least one of these members, or something else.
fn with_any(mut schema: Value, members: &[&str], or: Option<Value>) -> Value {
    let any = members.iter().map(|member| json!({"required": [member]})).chain(or);
    schema["anyOf"] = any.collect();
    schema
}

fn with(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}
