//! What operations answer: the bodies of answers by content type, from the types that they are written with; and problems.

use super::bodies::reference;
use super::parameters::seq;
use super::{HttpSettings, ProblemCode};
use crate::http::{cloudevents, session, streams};
use crate::wire::{self, admin};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value, json};

/// The schemas of what is answered.
pub(super) fn schemas() -> Map<String, Value> {
    let mut settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(as_written));
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    generator.subschema_for::<wire::EventJson<'_>>();
    generator.subschema_for::<wire::ReceiptJson>();
    generator.subschema_for::<wire::CursorData>();
    generator.subschema_for::<wire::GapData>();
    generator.subschema_for::<wire::ResetData>();
    generator.subschema_for::<wire::NoticeData>();
    generator.subschema_for::<streams::Listing<'_>>();
    generator.subschema_for::<admin::HoldsJson>();
    generator.subschema_for::<admin::TrimAnswer>();
    generator.subschema_for::<admin::RetentionAnswer>();
    generator.subschema_for::<admin::TokensJson>();
    generator.subschema_for::<session::TicketJson<'_>>();
    let mut schemas = generator.take_definitions(true);
    let by_hand = [
        ("EventPage", page()),
        ("CloudEvent", cloud_event()),
        ("ProblemCode", problem_code()),
        ("Problem", problem()),
    ];
    schemas.extend(by_hand.map(|(name, schema)| (name.to_owned(), schema)));
    for (name, example) in examples() {
        schemas[name]["examples"] = json!([example]);
    }
    schemas
}

/// What answers look like.
fn examples() -> [(&'static str, Value); 9] {
    let at = "2026-11-21T09:00:00.123456Z";
    let login = json!({"seq": 42, "stream": "audits", "id": "1", "type": "user.login", "created_at": at, "data": {"actor": "alice"}});
    let hold =
        json!({"stream": "audits", "name": "case-17", "reason": "letter of 2026-11-21", "created_at": at});
    let token = json!({
        "id": "5f4c5b4cdbbb8d8d", "name": "ci", "append": ["audits"], "read": [], "admin": false, "metrics": false, "created_at": at,
        "expires_at": "2027-02-19T09:00:00.123456Z",
    });
    [
        ("Event", login.clone()),
        ("Receipt", json!({"seq": 42, "stream": "audits", "id": "1", "created_at": at})),
        (
            "EventPage",
            json!({
                "events": [login], "first_seq": 1, "last_seq": 9000, "cursor": 42, "next": "/api/v1/audits?after=42",
            }),
        ),
        (
            "Stream",
            json!({
                "name": "audits", "events": 9000, "bytes": 1_204_112, "first_seq": 1, "last_seq": 9000,
                "first_created_at": at, "last_created_at": at,
            }),
        ),
        ("Trim", json!({"dry_run": false, "first_seq": 43, "events": 42, "bytes": 5511, "through_seq": 42})),
        ("Hold", hold),
        ("Token", token),
        (
            "Ticket",
            json!({
                "ticket": "evk_...", "stream": "orders", "url": "/api/v1/orders?ticket=evk_...", "expires_at": at,
            }),
        ),
        (
            "Problem",
            json!({
                "type": "urn:evertail:problem:cursor_invalid",
                "title": ProblemCode::CursorInvalid.title(),
                "status": 400,
                "detail": "after must be the seq of an event, 0 for the beginning",
                "instance": "req-4bb83519-9",
                "code": "cursor_invalid",
                "retryable": false,
                "no_effect": true,
                "parameter": "after",
            }),
        ),
    ]
}

/// What may be absent is left out, and never null; what it then means is said in words.
fn as_written(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else { return };
    let required = members.get("required").cloned().unwrap_or_default();
    let Some(Value::Object(properties)) = members.get_mut("properties") else { return };
    for (name, property) in properties {
        let is_required = required.as_array().is_some_and(|required| required.contains(&json!(name)));
        let Some(property) = property.as_object_mut().filter(|_| !is_required) else { continue };
        property.remove("default");
        if let Some(Value::Array(types)) = property.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = &mut types[..] {
                let only = only.take();
                property.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(any)) = property.get_mut("anyOf") {
            any.retain(|schema| schema["type"] != "null");
            if let [Value::Object(only)] = &mut any[..] {
                let only = std::mem::take(only);
                property.remove("anyOf");
                property.extend(only);
            }
        }
    }
}

/// A page is written piece by piece, so its schema is too.
fn page() -> Value {
    let event = json!({"anyOf": [reference("Event"), reference("CloudEvent")]});
    json!({
        "type": "object",
        "description": "History, a page at a time.",
        "required": ["events", "first_seq", "last_seq", "cursor"],
        "properties": {
            "events": {"type": "array", "items": event},
            "first_seq": described(seq(0), "Oldest retained seq; `last_seq + 1` when nothing is retained."),
            "last_seq": described(seq(0), "Newest seq of the log when the page was made."),
            "cursor": described(seq(0), "Where a stream continues without hole or overlap."),
            "next": {"type": "string", "description": "The URL of the next page, if there is one."},
            "prev": {"type": "string", "description": "The URL of the page before, if there is one."},
            "gaps": {"type": "array", "items": reference("GapData"), "description": "What single streams have lost of it."},
        },
    })
}

fn cloud_event() -> Value {
    let text = || json!({"type": "string"});
    json!({
        "type": "object",
        "description": "An event as a CloudEvent 1.0.",
        "required": ["specversion", "sequence", "id", "source", "type", "stream", "recordedtime"],
        "properties": {
            "specversion": {"const": "1.0"},
            "sequence": {"type": "string", "pattern": "^[0-9]{20}$", "description": "The seq, of fixed width."},
            "id": text(),
            "source": text(),
            "type": text(),
            "subject": text(),
            "time": {"type": "string", "format": "date-time"},
            "traceparent": text(),
            "stream": text(),
            "recordedtime": {"type": "string", "format": "date-time", "description": "When it was received."},
            "datacontenttype": text(),
            "data": {"description": "The payload: any JSON value."},
        },
    })
}

/// Every code there is, and what it means.
fn problem_code() -> Value {
    let meanings = ProblemCode::ALL
        .iter()
        .map(|code| format!("- `{}` ({}): {}", code.as_str(), code.status().as_u16(), code.title()));
    json!({
        "type": "string",
        "enum": ProblemCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>(),
        "description": format!("What went wrong.\n\n{}", meanings.collect::<Vec<_>>().join("\n")),
    })
}

fn problem() -> Value {
    let error = json!({
        "type": "object",
        "required": ["pointer", "detail"],
        "properties": {
            "pointer": {"type": "string", "description": "JSON pointer into the body."},
            "detail": {"type": "string"},
        },
    });
    json!({
        "type": "object",
        "description": "What went wrong, as RFC 9457 says it.",
        "required": ["type", "title", "status", "detail", "instance", "code", "retryable", "no_effect"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What to change."},
            "instance": {"type": "string", "description": "The id of the request, also in X-Request-Id."},
            "code": reference("ProblemCode"),
            "retryable": {"type": "boolean", "description": "The very same request may succeed later: after Retry-After."},
            "no_effect": {"type": "boolean", "description": "It is certain that nothing was changed."},
            "errors": {"type": "array", "items": error},
            "parameter": {"type": "string"},
            "bytes_max": {"type": "integer"},
            "events_max": {"type": "integer"},
            "first_seq": seq(0),
            "last_seq": seq(0),
        },
    })
}

/// The answers that are no problems, by the names that the table has for them.
pub(super) fn answers(settings: &HttpSettings) -> Map<String, Value> {
    let receipts = json!({"oneOf": [reference("Receipt"), {"type": "array", "items": reference("Receipt")}]});
    let text = |description: &str| json!({"schema": {"type": "string", "description": description}});
    let location = json!({"schema": {"type": "string"}, "description": "The event, where it is one."});
    let mut appended = json("Stored: the receipt, or the receipts of a batch.", receipts.clone());
    appended["headers"] = json!({"Location": location});
    let mut nothing_new = json("Nothing of it is new: the receipts that were given before.", receipts);
    nothing_new["headers"] = appended["headers"].clone();
    let (keep_alive, retry) = (settings.keep_alive.as_secs(), settings.retry.0.as_secs());
    // A block is an object of its fields: what clients and validators take for the items of such a stream.
    let block = json!({
        "type": "object",
        "description": format!(
            "A block. A comment is sent after {keep_alive} s of silence; a client comes back no sooner than after {retry} s."
        ),
        "required": ["data"],
        "properties": {
            "event": {"type": "string", "description": "The type; left out for `message`."},
            "data": {"type": "string", "minLength": 1, "description": "An Event, or what `format` says; or the data of a control frame."},
            "id": {"type": "string", "pattern": "^[0-9]+$", "description": "The seq, where the client resumes."},
            "retry": {"type": "integer", "description": "Of the first block. Milliseconds."},
        },
    });
    let events = json!({
        "description": "What was asked for, as it was asked for.",
        "headers": {
            "ETag": {"schema": {"type": "string"}, "description": "Of a JSON page."},
            "Link": {"schema": {"type": "string"}, "description": "Of a JSON page: `next` and `prev`."},
            "Evertail-Gaps": {
                "description": "Of history: what single streams have lost of it, as an array of GapData.",
                "content": {"application/json": {"schema": {"type": "array", "items": reference("GapData")}}},
            },
        },
        "content": {
            "text/event-stream": {"schema": block},
            "application/json": {"schema": reference("EventPage")},
            "application/x-ndjson": text("An Event on each line, up to now."),
            "text/csv": text("A record for each event, the names of the columns first; `text/csv; header=absent` leaves those out."),
            cloudevents::BATCH: {"schema": {"type": "array", "items": reference("CloudEvent")}},
        },
    });
    let event = json!({
        "description": "The event.",
        "content": {
            "application/json": {"schema": reference("Event")},
            cloudevents::ONE: {"schema": reference("CloudEvent")},
        },
    });
    let plain = |description: &str, content_type: &str| json!({"description": description, "content": {content_type: {"schema": {"type": "string"}}}});
    let trim = json!({"anyOf": [reference("Trim"), reference("RetentionPlan")]});
    let cookie = json!({"Set-Cookie": {"schema": {"type": "string"}}});
    let all = [
        ("appended", appended),
        ("nothing_new", nothing_new),
        ("events", events),
        ("event", event),
        ("over", json!({"description": "A stream that has come to its end: an EventSource stays away."})),
        ("not_modified", json!({"description": "The client has it: its `If-None-Match` holds the `ETag`."})),
        ("streams", json("The streams.", reference("Streams"))),
        ("totals", json("The stream.", reference("Stream"))),
        ("closed", json("Closed: the receipt of the final event.", reference("Receipt"))),
        (
            "closed_before",
            json("It was closed already: the receipt of its final event.", reference("Receipt")),
        ),
        ("trimmed", json("What went, or would go.", trim)),
        ("holds", json("The holds.", reference("Holds"))),
        ("held", json("Held.", reference("Hold"))),
        ("held_before", json("It was held already, for the same reason.", reference("Hold"))),
        ("released", json("What the hold was.", reference("Hold"))),
        ("tokens", json("The tokens.", reference("Tokens"))),
        ("token_made", json("The token, with its secret.", reference("Token"))),
        ("token_revoked", json("The token.", reference("Token"))),
        ("ticket", json("The ticket, and the URL to open.", reference("Ticket"))),
        ("session", json!({"description": "The cookie is set, or taken back.", "headers": cookie})),
        ("page", plain("The page.", "text/html")),
        ("word", plain("`ok` or `ready`.", "text/plain")),
        ("metrics", plain("The metrics, in the text format 0.0.4 of Prometheus.", "text/plain")),
        ("document", json("OpenAPI 3.1.", json!({"type": "object"}))),
    ];
    all.into_iter().map(|(name, answer)| (name.to_owned(), answer)).collect()
}

fn json(description: &str, schema: Value) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

/// A problem of one status, that is one of these.
pub(super) fn refusal(codes: &[ProblemCode]) -> Value {
    let said = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title()));
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let schema = json!({"allOf": [reference("Problem"), {"properties": {"code": {"enum": names}}}]});
    let mut refusal = json!({
        "description": said.collect::<Vec<_>>().join("\n"),
        "content": {"application/problem+json": {"schema": schema}},
    });
    if codes.iter().any(|code| code.retry_after_seconds().is_some()) {
        let seconds = json!({"type": "integer", "minimum": 0});
        refusal["headers"] =
            json!({"Retry-After": {"schema": seconds, "description": "Seconds, where it is retryable."}});
    }
    if codes.iter().any(|code| code.status().as_u16() == 401) {
        refusal["headers"] = json!({"WWW-Authenticate": {"schema": {"type": "string"}}});
    }
    refusal
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}
