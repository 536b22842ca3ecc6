//! `GET /openapi.json`: what this server answers to what, as OpenAPI 3.1.
//!
//! Made of what the handlers work with: the types that answers are written with, the bounds that they keep, the codes of
//! problems, the settings of this server. What no type says stands in one table of operations, since the routes of the log
//! have no router that could be asked; tests hold it against what is answered.

mod answers;
mod bodies;
mod operations;
mod parameters;

use super::{App, HttpSettings, ProblemCode, page};
use crate::auth::Auth;
use axum::Extension;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;
use operations::{ANY, CREDENTIALS, GRANTS, NOTHING_THERE, Needs, OPERATIONS, Operation};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the document says of this server.
const DESCRIPTION: &str = "A durable event log in one binary and one SQLite file, tailed by any EventSource.\n\n\
    POST an event and it is on disk before you are answered. Open an `EventSource` and you get every event after your \
    cursor, in order, across disconnects, crashes and restarts. The log is all streams in one total order; `seq` is an \
    event's place in it, rising by exactly 1.\n\n\
    HEAD is answered wherever GET is, without a body. Any other method is 405 with `Allow`, any other path 404. Every \
    answer has an `X-Request-Id`; every error is a Problem (RFC 9457).";

const TAGS: [(&str, &str); 6] = [
    ("Append", "Durable when it is answered."),
    ("Read", "Streams, pages and everything up to now: the same selection everywhere."),
    ("List", "Which streams there are, and how much is in them."),
    ("Administer", "Trims, holds and tokens. Never for pages of other origins."),
    ("Credentials", "What a page gets for a token."),
    ("Server", "Beside the log."),
];

/// `GET /openapi.json`.
pub(super) async fn serve(Extension(app): Extension<App>, headers: HeaderMap) -> Response {
    page::unless_known(&headers, "application/json", app.openapi.to_vec())
}

/// The document, as it is sent.
pub(super) fn text(settings: &HttpSettings, access: Credentials) -> Bytes {
    serde_json::to_vec(&document(settings, access)).expect("a document always serialises").into()
}

/// Who is let in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Authentication is off.
    None,
    /// Everyone shows one.
    Needed,
    /// Some streams are read by everyone.
    NeededButForReading,
}

impl Credentials {
    pub(super) fn of(auth: Option<&Auth>) -> Self {
        match auth {
            None => Self::None,
            Some(auth) if auth.lets_anyone_read() => Self::NeededButForReading,
            Some(_) => Self::Needed,
        }
    }
}

fn document(settings: &HttpSettings, credentials: Credentials) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut answers = answers::answers(settings);
    for operation in OPERATIONS {
        let described = describe(operation, credentials, &mut answers);
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), described);
    }
    let mut schemas = answers::schemas();
    schemas.extend(bodies::schemas());
    let mut components = json!({
        "schemas": schemas,
        "parameters": parameters::parameters(),
        "requestBodies": bodies::bodies(settings),
        "responses": answers,
    });
    if credentials != Credentials::None {
        components["securitySchemes"] = parameters::security_schemes();
    }
    let tags = TAGS.map(|(name, description)| json!({"name": name, "description": description}));
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Evertail",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": components,
    })
}

fn describe(operation: &Operation, credentials: Credentials, answers: &mut Map<String, Value>) -> Value {
    let with_auth = credentials != Credentials::None;
    let mut statuses: BTreeMap<String, Vec<ProblemCode>> = BTreeMap::new();
    for code in operation.codes(with_auth) {
        let codes = statuses.entry(code.status().as_str().to_owned()).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    let component = |kind: &str, name: &str| json!({"$ref": format!("#/components/{kind}/{name}")});
    let mut responses: Map<String, Value> = Map::new();
    for (status, name) in operation.answers {
        responses.insert((*status).to_owned(), component("responses", name));
    }
    for (status, mut codes) in statuses {
        codes.sort_by_key(|code| code.as_str());
        // Those that may be answered alike share one description, named after them.
        let name = codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(".");
        answers.entry(name.clone()).or_insert_with(|| answers::refusal(&codes));
        responses.insert(status, component("responses", &name));
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "responses": responses,
    });
    let parameters: Vec<Value> =
        operation.parameters.concat().iter().map(|name| component("parameters", name)).collect();
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(body) = operation.body {
        described["requestBody"] = component("requestBodies", body);
    }
    if with_auth {
        described["security"] = security(operation.needs, credentials == Credentials::NeededButForReading);
    }
    described
}

/// The credentials that an operation takes, each with what it must grant.
fn security(needs: Needs, is_read_by_everyone: bool) -> Value {
    let mut any = match needs {
        Needs::Nothing => vec![],
        Needs::Append => vec![json!({"bearer": ["append"]}), json!({"session": ["append"]})],
        Needs::Read => vec![json!({"bearer": ["read"]}), json!({"session": ["read"]})],
        Needs::ReadOfStream => {
            vec![json!({"bearer": ["read"]}), json!({"session": ["read"]}), json!({"ticket": ["read"]})]
        }
        Needs::Admin => vec![json!({"bearer": ["admin"]}), json!({"session": ["admin"]})],
        Needs::Metrics => vec![json!({"bearer": ["metrics"]}), json!({"session": ["metrics"]})],
        Needs::Token => vec![json!({"bearer": []})],
    };
    if is_read_by_everyone && matches!(needs, Needs::Read | Needs::ReadOfStream) {
        any.push(json!({}));
    }
    any.into()
}

/// Whether the document says that this request may be answered so.
pub(super) fn is_listed(method: &str, path: &str, code: ProblemCode) -> bool {
    match operations::find(method, path) {
        Some(operation) => {
            [true, false].iter().any(|with_auth| operation.codes(*with_auth).any(|c| c == code))
        }
        None => [ANY, CREDENTIALS, GRANTS, NOTHING_THERE].concat().contains(&code),
    }
}
