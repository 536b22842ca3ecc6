//! The document at `/openapi.json`, held against what the server answers.
//!
//! That every problem of an operation is in it, is asserted by the server itself in a debug build: each test of this binary
//! that provokes one is a test of the document.

use crate::server::{Reply, Server};
use evertail::auth::{AuthSettings, Grants, TokenDraft};
use evertail::event::Pattern;
use evertail::http::ProblemCode;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"];

pub(crate) async fn document(server: &Server) -> Value {
    Reply::of(server.get("/openapi.json")).await.json()
}

pub(crate) async fn with_auth() -> Server {
    with_auth_but_for(vec![]).await
}

/// The same, where everyone may read these streams.
async fn with_auth_but_for(anonymous_read: Vec<Pattern>) -> Server {
    Server::start_with(|settings| {
        let audience = "evertail".to_owned();
        settings.auth = Some(AuthSettings { keys: None, issuer: None, audience, anonymous_read });
    })
    .await
}

/// A token that may do everything.
async fn token(server: &Server) -> String {
    let all = || Grants::patterns(["*"]).unwrap().into();
    let grants = Grants { append: all(), read: all(), admin: true, metrics: false };
    let (secret, token) = TokenDraft { name: "all".into(), grants, expires_at: None }.make().unwrap();
    let token = server.log.create_token(token).await.unwrap();
    evertail::auth::shown(&token, Some(&secret)).token.unwrap()
}

/// Each path of the document, with the methods that it takes.
fn methods(document: &Value) -> BTreeMap<&str, BTreeSet<String>> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .map(|(path, operations)| {
            let mut methods: BTreeSet<String> =
                operations.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
            if methods.contains("GET") {
                methods.insert("HEAD".into());
            }
            (path.as_str(), methods)
        })
        .collect()
}

/// A path as it is asked for.
fn filled(path: &str) -> String {
    path.replace("{seq}", "1").replace("{stream}", "a").replace("{name}", "n").replace("{id}", "x")
}

#[tokio::test]
async fn every_path_takes_the_methods_of_the_document_and_no_others() {
    let server = with_auth().await;
    let token = token(&server).await;
    let document = document(&server).await;
    for (path, taken) in methods(&document) {
        for method in METHODS {
            // What would be a stream for ever ends before it begins.
            let url = format!("{}{}", filled(path), if path.starts_with("/api") { "?before=1" } else { "" });
            let reply = Reply::of(server.request(method, &url).bearer_auth(&token)).await;
            let is_405 = reply.status == 405;
            assert_eq!(!is_405, taken.contains(method), "{method} {path}: {}", reply.status);
            if is_405 {
                let allowed: BTreeSet<String> =
                    reply.header("allow").split(',').map(|method| method.trim().to_owned()).collect();
                assert_eq!(allowed, taken, "{method} {path}");
            }
            if method != "HEAD" && reply.status == 404 {
                assert_ne!(reply.json()["code"], "route_not_found", "{method} {path}");
            }
        }
    }
}

/// The routes as they stand in the source: a new one is not forgotten in the document.
#[tokio::test]
async fn every_route_of_the_source_is_in_the_document() {
    let server = Server::start().await;
    let document = document(&server).await;
    let listed: BTreeSet<&str> = methods(&document).into_keys().collect();
    let source = include_str!("../../src/http/service.rs");
    let of_the_router = source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let enumeration = source.split("enum Route<'p> {").nth(1).unwrap().split("\n}").next().unwrap();
    let of_the_log = enumeration.split("/// `").skip(1).map(|rest| rest.split('`').next().unwrap());
    let routes: BTreeSet<&str> = of_the_router.chain(of_the_log).collect();
    assert!(routes.len() > 15, "the test looks in the wrong place");
    assert_eq!(listed, routes);
}

/// Every text in the document under this name.
fn collect<'d>(value: &'d Value, name: &str, found: &mut Vec<&'d Value>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get(name));
            members.values().for_each(|value| collect(value, name, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, name, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_problem_code_is_in_the_document_with_an_operation_that_answers_it() {
    let mut answered = BTreeSet::new();
    for server in [Server::start().await, with_auth().await] {
        let document = document(&server).await;
        let schemas = &document["components"]["schemas"];
        let all: Vec<&str> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(schemas["ProblemCode"]["enum"], serde_json::json!(all));
        for operations in document["paths"].as_object().unwrap().values() {
            for operation in operations.as_object().unwrap().values() {
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let name = response["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
                    let content = &document["components"]["responses"][name]["content"];
                    let codes =
                        &content["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"];
                    for code in codes["enum"].as_array().into_iter().flatten() {
                        let code = ProblemCode::ALL.iter().find(|known| known.as_str() == code).unwrap();
                        assert_eq!(code.status().as_str(), status, "{code:?}");
                        answered.insert(code.as_str());
                    }
                }
            }
        }
    }
    // No operation of the document takes a wrong method.
    answered.insert("method_not_allowed");
    let missing: Vec<_> = ProblemCode::ALL.iter().filter(|code| !answered.contains(code.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_component_is_used() {
    let server = with_auth().await;
    let document = document(&server).await;
    let mut references = Vec::new();
    collect(&document, "$ref", &mut references);
    let references: BTreeSet<&str> = references.into_iter().map(|name| name.as_str().unwrap()).collect();
    for reference in &references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    // Shapes of frames are used by their names.
    let text = document.to_string();
    for (kind, components) in document["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys().filter(|_| kind != "securitySchemes") {
            let is_used = references.contains(format!("#/components/{kind}/{name}").as_str());
            assert!(is_used || text.matches(name.as_str()).count() > 1, "{kind} {name}");
        }
    }
}

#[tokio::test]
async fn document_says_what_the_server_is_set_to() {
    let server = Server::start_with(|settings| settings.http.batch_events_max = 7).await;
    let reply = Reply::of(server.get("/openapi.json")).await;
    let json = reply.json();
    assert!(json["openapi"].as_str().unwrap().starts_with("3.1."));
    let batch = &json["components"]["requestBodies"]["events"]["content"]["application/x-ndjson"];
    assert_eq!(batch["schema"]["maxItems"], 7);
    let known = server.get("/openapi.json").header("if-none-match", reply.header("etag"));
    assert_eq!(Reply::of(known).await.status, 304);
    assert_eq!(json["components"]["securitySchemes"], Value::Null);
    let from_page = server.get("/openapi.json").header("origin", "http://localhost:1");
    assert_eq!(Reply::of(from_page).await.header("access-control-allow-origin"), "http://localhost:1");

    let server = with_auth().await;
    let json = document(&server).await;
    for (path, needs) in [("/api/v1/{stream}", "read"), ("/admin/holds", "admin")] {
        assert_eq!(json["paths"][path]["get"]["security"][0]["bearer"][0], needs, "{path}");
    }
    assert_eq!(json["paths"]["/openapi.json"]["get"]["security"], serde_json::json!([]));

    let server = with_auth_but_for(vec![Pattern::parse("news").unwrap()]).await;
    let json = document(&server).await;
    let takes_nothing = |path: &str, method: &str| {
        let any = json["paths"][path][method]["security"].as_array().unwrap();
        any.contains(&serde_json::json!({}))
    };
    assert!(takes_nothing("/api/v1/{stream}", "get"));
    assert!(!takes_nothing("/api/v1/{stream}", "post") && !takes_nothing("/admin/holds", "get"));
}
