//! Every curl line of the documents, run as it stands there against a real server.

use crate::server::{Server, within};
use evertail::auth::{AuthSettings, Grants, TokenDraft};
use evertail::client::Client;
use evertail::http::{Tls, TlsFiles};
use std::process::Stdio;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// Documents with lines to run, and how many each has at least: fewer would mean that they are not found.
const DOCUMENTS: [(&str, &str, usize); 5] = [
    ("README.md", include_str!("../../README.md"), 12),
    ("docs/api.md", include_str!("../../docs/api.md"), 5),
    ("docs/http.md", include_str!("../../docs/http.md"), 1),
    ("docs/retention.md", include_str!("../../docs/retention.md"), 5),
    ("docs/metrics.md", include_str!("../../docs/metrics.md"), 1),
];

/// The lines in blocks of shell that are curl, alone.
fn curl_lines(document: &str) -> Vec<&str> {
    let mut is_shell = false;
    let mut lines = Vec::new();
    for line in document.lines() {
        match line {
            "```sh" => is_shell = true,
            "```" => is_shell = false,
            line if is_shell && line.starts_with("curl ") => lines.push(line),
            _ => {}
        }
    }
    lines
}

#[tokio::test]
async fn every_curl_line_of_the_documents_does_what_it_says() {
    let server = Server::start().await;
    for n in 0..12 {
        server
            .append("audits", &format!(r#"{{"type":"user.login","data":{{"actor":"alice","n":{n}}}}}"#))
            .await;
    }
    for (name, document, at_least) in DOCUMENTS {
        let lines = curl_lines(document);
        assert!(lines.len() >= at_least, "{name} has {} lines", lines.len());
        for line in lines {
            let line = line.replace("localhost:8888", &server.address.to_string());
            let command = line.replacen("curl", "curl -sS --fail-with-body --noproxy '*'", 1);
            let mut curl = Command::new("sh")
                .args(["-c", &format!("exec {command}")])
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut stdout = curl.stdout.take().unwrap();
            let mut out = Vec::new();
            if line.contains(" -N ") {
                // A stream: alive once it has handed out the cursor. It ends with this curl.
                while !out.windows(2).any(|two| two == b"\n\n") {
                    let read = within(&line, stdout.read_buf(&mut out)).await.unwrap();
                    assert!(read > 0, "{name}: {line}: {}", String::from_utf8_lossy(&out));
                }
                // A comment says that its place is being searched.
                let opening = out.strip_prefix(b":\n").unwrap_or(&out);
                assert!(opening.starts_with(b"retry: "), "{name}: {line}: {}", String::from_utf8_lossy(&out));
                within(&line, curl.kill()).await.unwrap();
            } else {
                within(&line, stdout.read_to_end(&mut out)).await.unwrap();
                let status = within(&line, curl.wait()).await.unwrap();
                assert!(status.success(), "{name}: {line}: {}", String::from_utf8_lossy(&out));
            }
        }
    }
}

/// The first command in the blocks of shell of a document that begins with this word, with the lines it goes on in.
fn command<'a>(document: &'a str, word: &str) -> &'a str {
    let at = document.find(&format!("\n{word} ")).unwrap() + 1;
    let mut end = at;
    for line in document[at..].split_inclusive('\n') {
        end += line.len();
        if !line.ends_with("\\\n") {
            break;
        }
    }
    document[at..end].trim_end()
}

#[tokio::test]
async fn certificate_of_the_documents_is_served_and_trusted() {
    let document = include_str!("../../docs/tls.md");
    let folder = tempfile::tempdir().unwrap();
    let run = async |line: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(folder.path()).kill_on_drop(true);
        let output = within(line, shell.output()).await.unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(command(document, "openssl")).await;
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    let pem = std::fs::read(&certificate).unwrap();
    let tls = Tls::load(TlsFiles { certificate, key }).unwrap();
    let server = Server::start_with(|settings| settings.connections.tls = Some(tls)).await;
    let localhost = format!("localhost:{}", server.address.port());
    let curl = command(document, "curl").replace("localhost:8888", &localhost);
    run(&curl.replacen("curl", "curl -sS --fail-with-body --noproxy '*'", 1)).await;
    let client = Client::over_tls(&format!("https://{localhost}"), Some(&pem)).unwrap();
    within("the ack", client.append("a", "application/json", b"{}".to_vec())).await.unwrap();
    assert_eq!(server.table().await.len(), 2);
}

#[tokio::test]
async fn the_curl_lines_on_credentials_do_what_they_say() {
    let document = include_str!("../../docs/auth.md");
    let server = Server::start_with(|settings| {
        let audience = "evertail".to_owned();
        settings.auth = Some(AuthSettings { keys: None, issuer: None, audience, anonymous_read: vec![] });
    })
    .await;
    let token = async |append: &[&str], read: &[&str], admin| {
        let patterns = |texts: &[&str]| Grants::patterns(texts.iter().copied()).unwrap().into();
        let grants = Grants { append: patterns(append), read: patterns(read), admin, metrics: false };
        let (secret, token) = TokenDraft { name: "t".into(), grants, expires_at: None }.make().unwrap();
        let token = server.log.create_token(token).await.unwrap();
        evertail::auth::shown(&token, Some(&secret))
    };
    let producer = token(&["audits"], &["audits"], false).await.token.unwrap();
    let operator = token(&[], &["*"], true).await.token.unwrap();
    let other = token(&[], &["a"], false).await.id;
    let folder = tempfile::tempdir().unwrap();
    let lines = curl_lines(document);
    assert!(lines.len() >= 10, "{lines:?}");
    for line in lines {
        let line = line.replace("localhost:8888", &server.address.to_string());
        // A stream is left once it has handed out the cursor.
        let is_stream = line.contains(" -N ");
        let limit = if is_stream { "--max-time 2" } else { "" };
        let command = line.replacen("curl", &format!("curl -sS --fail-with-body --noproxy '*' {limit}"), 1);
        let output = Command::new("sh")
            .args(["-c", &command])
            .envs([("TOKEN", &producer), ("ADMIN", &operator), ("ID", &other)])
            .current_dir(folder.path())
            .output();
        let output = within(&line, output).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let is_right = if is_stream { said.contains("evertail.cursor") } else { output.status.success() };
        assert!(is_right, "{line}: {said}");
    }
    assert!(server.log.tokens().borrow()[other.as_str()].revoked_at.is_some());
}
