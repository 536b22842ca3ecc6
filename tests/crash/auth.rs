//! The first token of all, the client commands with one, and what the server's own log never says.

use crate::cli::{json, run};
use crate::server::{Launch, Place, in_time};
use serde_json::{Value, json};
use std::process::Output;

/// A token made on the file, while no server runs.
async fn first(place: &Place, grants: &[&str]) -> Value {
    let file = place.file().display().to_string();
    let arguments = [&["token", "create", "--file", &file, "--name", "first"], grants].concat();
    let output = run(place, "http://127.0.0.1:1", &arguments, "").await;
    json(&output).remove(0)
}

fn token_file(place: &Place, name: &str, token: &Value) -> String {
    let path = place.folder().join(name);
    std::fs::write(&path, format!("{}\n", token["token"].as_str().unwrap())).unwrap();
    path.display().to_string()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_token_is_made_on_the_file_and_makes_the_others() {
    let place = Place::new();
    let admin = first(&place, &["--admin", "--read", "evertail"]).await;
    let admin_file = token_file(&place, "admin", &admin);
    let server = Launch::new(&place.file()).with("EVERTAIL_AUTH", "on").start().await;
    let base = server.base.as_str();

    let file = place.file().display().to_string();
    let beside = run(&place, base, &["token", "list", "--file", &file], "").await;
    assert_eq!(beside.status.code(), Some(1));
    assert!(said(&beside).contains("in use by another evertail"), "{}", said(&beside));

    let arguments = [
        "token",
        "create",
        "--append",
        "audits",
        "--read",
        "orders.*,audits",
        "--expires",
        "90d",
        "--name",
        "ci",
        "--token-file",
        &admin_file,
    ];
    let ci = json(&run(&place, base, &arguments, "").await).remove(0);
    assert_eq!((&ci["append"], &ci["read"]), (&json!(["audits"]), &json!(["orders.*", "audits"])));
    let ci_file = token_file(&place, "ci", &ci);
    let listed = json(&run(&place, base, &["token", "list", "--token-file", &admin_file], "").await);
    assert_eq!(listed[0]["tokens"].as_array().unwrap().len(), 2);
    assert!(!listed[0].to_string().contains("evt_"));

    let append = ["append", "audits", "1", "--token-file", &ci_file];
    assert_eq!(json(&run(&place, base, &append, "").await)[0]["stream"], "audits");
    let refused = run(&place, base, &["append", "other", "1", "--token-file", &ci_file], "").await;
    assert!(said(&refused).contains("403 forbidden"), "{}", said(&refused));
    let without = run(&place, base, &["append", "audits", "1"], "").await;
    assert!(said(&without).contains("401 unauthorized"), "{}", said(&without));
    let tail = ["tail", "audits", "--last", "1", "--limit", "1", "--token-file", &ci_file];
    assert_eq!(json(&run(&place, base, &tail, "").await)[0]["data"], 1);
    let export = ["export", "audits", "--token-file", &ci_file];
    assert_eq!(json(&run(&place, base, &export, "").await).len(), 1);

    // A tail that is refused ends, and does not come back for ever.
    let tail = run(&place, base, &["tail", "audits"], "").await;
    assert_eq!(tail.status.code(), Some(1), "{tail:?}");
    assert!(said(&tail).contains("--token-file"), "{}", said(&tail));

    let id = ci["id"].as_str().unwrap();
    let revoked = json(&run(&place, base, &["token", "revoke", id, "--token-file", &admin_file], "").await);
    assert!(revoked[0]["revoked_at"].is_string());
    let refused = run(&place, base, &append, "").await;
    assert!(said(&refused).contains("401 credential_invalid"), "{}", said(&refused));
    for output in [&refused, &tail, &without] {
        assert!(!said(output).contains("evt_"), "no command prints what it was given");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_holds_a_credential_or_a_payload() {
    let place = Place::new();
    let token = first(&place, &["--admin", "--append", "*", "--read", "*"]).await;
    let secret = token["token"].as_str().unwrap().to_owned();
    let key = place.folder().join("key");
    std::fs::write(&key, "the-secret-of-json-web-tokens-is-this").unwrap();
    let launch = Launch::new(&place.file())
        .with("EVERTAIL_AUTH", "on")
        .with("EVERTAIL_LOG", "trace")
        .with("EVERTAIL_JWT_KEY_FILE", key.display());
    let mut server = launch.start().await;
    // Every client of reqwest wants one, whatever it asks.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = crate::load::http_client();
    let url = |path: &str| format!("{}{path}", server.base);
    let send = async |request: reqwest::RequestBuilder| {
        let response = in_time(request.send()).await.unwrap();
        let cookie = response.headers().get("set-cookie").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), cookie, in_time(response.text()).await.unwrap())
    };
    let payload = "payload-that-nobody-else-has-to-see";
    let event = format!(r#"{{"data":"{payload}","id":"{payload}-id"}}"#);
    let post = |path: &str, body: &str| http.post(url(path)).bearer_auth(&secret).body(body.to_owned());
    assert_eq!(send(post("/api/v1/a", &event)).await.0, 201);
    let (status, cookie, _) = send(post("/auth/session", "")).await;
    let cookie = cookie.unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(status, 204);
    let (_, _, ticket) = send(post("/auth/tickets", r#"{"stream":"a"}"#)).await;
    let ticket: Value = serde_json::from_str(&ticket).unwrap();
    let (_, _, made) = send(post("/admin/tokens", r#"{"name":"x","read":["a"]}"#)).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    let page = |request: reqwest::RequestBuilder| request.header("accept", "application/json");
    assert_eq!(send(page(http.get(url("/api/v1/a")).header("cookie", &cookie))).await.0, 200);
    let mut stream =
        in_time(http.get(url(ticket["url"].as_str().unwrap())).header("last-event-id", "0").send())
            .await
            .unwrap();
    while !String::from_utf8_lossy(&in_time(stream.chunk()).await.unwrap().unwrap()).contains(payload) {}
    // What is refused is no less of a secret: it may be right but for one character.
    let wrong = format!("{}x", secret);
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ3aG8tZXZlciIsImF1ZCI6IngifQ.c2lnbmF0dXJl";
    for bad in [wrong.as_str(), jwt] {
        assert_eq!(send(page(http.get(url("/api/v1/a")).bearer_auth(bad))).await.0, 401);
        assert_eq!(send(page(http.get(url(&format!("/api/v1/a?ticket={bad}"))))).await.0, 401);
        assert_eq!(
            send(page(http.get(url("/api/v1/a")).header("cookie", format!("evertail_session={bad}"))))
                .await
                .0,
            401
        );
    }
    assert_eq!(send(post("/api/v1/a", &format!("{{\"{payload}\":1}}"))).await.0, 422);
    server.signal(rustix::process::Signal::TERM);
    drop(stream);
    let log = server.stderr().await.join("\n");
    assert!(
        log.contains("\"TRACE\"") || log.contains("\"DEBUG\""),
        "the log is at its most talkative: {log}"
    );
    assert!(log.contains("a credential was refused"));
    // Behind `evt_`, the id and `_`; the secret may hold a `_` itself.
    let hidden = |token: &str| token[21..].to_owned();
    for (what, text) in [
        ("the token", hidden(&secret)),
        ("the token made over HTTP", hidden(made["token"].as_str().unwrap())),
        ("the session", cookie.split_once("evs_").unwrap().1.to_owned()),
        ("the ticket", ticket["ticket"].as_str().unwrap()[4..].to_owned()),
        ("the JSON Web Token", jwt.split('.').nth(1).unwrap().to_owned()),
        ("the secret of JSON Web Tokens", "the-secret-of".to_owned()),
        ("the payload", payload.to_owned()),
        ("a token at all", "evt_".to_owned()),
    ] {
        assert!(!log.contains(&text), "the log holds {what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_keys_do_not_come_starts_and_says_so() {
    let place = Place::new();
    let launch = Launch::new(&place.file()).with("EVERTAIL_AUTH", "on");
    for url in ["http://127.0.0.1:1/jwks", "https://127.0.0.1:1/jwks"] {
        let mut server = launch.clone().with("EVERTAIL_JWKS", url).start().await;
        server.signal(rustix::process::Signal::TERM);
        assert!(server.stderr().await.join("\n").contains("the keys of tokens were not fetched"), "{url}");
    }
    let mut server = launch.clone().start().await;
    server.signal(rustix::process::Signal::TERM);
    assert!(server.stderr().await.join("\n").contains("evertail token create"));
    let without = launch.with("EVERTAIL_JWT_KEY_FILE", "/no/such/file").spawn().complaint().await;
    assert!(without.contains("/no/such/file cannot be read"), "{without}");
    let open = Launch::new(&place.file()).listen("0.0.0.0:0");
    let refused = open.spawn().complaint().await;
    assert!(refused.contains("EVERTAIL_AUTH=on") && refused.lines().count() == 1, "{refused}");
    open.with("EVERTAIL_AUTH", "on").start().await;
}
