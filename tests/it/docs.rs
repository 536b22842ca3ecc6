//! Every curl line of the documents, run as it stands there against a real server.

use crate::server::{Server, within};
use std::process::Stdio;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// Documents with lines to run, and how many each has at least: fewer would mean that they are not found.
const DOCUMENTS: [(&str, &str, usize); 3] = [
    ("README.md", include_str!("../../README.md"), 12),
    ("docs/api.md", include_str!("../../docs/api.md"), 5),
    ("docs/retention.md", include_str!("../../docs/retention.md"), 5),
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
