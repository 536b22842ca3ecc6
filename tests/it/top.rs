//! `evertail top` as a process, on a server in this one.

use crate::server::{Server, within};
use evertail::auth::{AuthSettings, Grants, TokenDraft};
use serde_json::Value;
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

/// The command, free of this process's own variables.
fn top(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evertail"));
    command.arg("top").args(["--interval", "0.1", "--url", &server.url("")]).args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EVERTAIL_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.current_dir(server.file().parent().unwrap());
    command
}

async fn run(mut command: Command) -> Output {
    within("it ends", command.output()).await.unwrap()
}

fn said(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

#[tokio::test]
async fn one_frame_tells_what_the_server_holds() {
    let server = Server::start().await;
    server.append("a", r#"[{"data":1},{"data":2},{"data":3}]"#).await;
    let mut stream = server.stream("/api/v1/a").await;
    stream.cursor().await;
    let output = run(top(&server, &["--once"])).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let frame = said(&output.stdout);
    let lines: Vec<&str> = frame.lines().collect();
    assert_eq!(lines[0], format!("evertail {}   takes appends", env!("CARGO_PKG_VERSION")));
    let first = lines.iter().skip(1).map(|line| line.split_whitespace().next().unwrap());
    let parts = ["appends", "commits", "queue", "readers", "sent", "log", "disk", "process", "refused"];
    assert_eq!(first.collect::<Vec<_>>(), parts);
    assert!(
        frame.contains("1 live   0 catching up") && frame.contains("seq 1 to 3   3 events   3 bytes"),
        "{frame}"
    );
    assert!(lines.iter().all(|line| line.chars().count() <= 120), "{frame}");
}

#[tokio::test]
async fn lines_of_json_have_rates_of_what_came_in_between() {
    let server = Server::start().await;
    let mut child = top(&server, &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let next = async |lines: &mut Lines<BufReader<ChildStdout>>| -> Value {
        let line = lines.next_line().await.unwrap().expect("it goes on");
        serde_json::from_str(&line).unwrap()
    };
    let figures = within("a rate", async {
        loop {
            server.append("a", r#"[{"data":1},{"data":2}]"#).await;
            let figures = next(&mut lines).await;
            if figures["events_per_second"].as_f64().unwrap() > 0.0 {
                return figures;
            }
        }
    })
    .await;
    assert_eq!((figures["is_open"].as_bool(), figures["version"].as_str().is_some()), (Some(true), true));
    assert!(figures["ack_p99_seconds"].as_f64() >= figures["ack_p50_seconds"].as_f64());
    assert!(figures["fsync_p50_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(figures["events_per_batch"], 2.0);
    let refused = server.post("/api/v1/a", "application/json", "{").send();
    assert_eq!(within("a refusal", refused).await.unwrap().status(), 400);
    let refused = async {
        let rate = |figures: Value| figures["refusals_per_second"]["json_invalid"].as_f64();
        while rate(next(&mut lines).await).is_none_or(|rate| rate <= 0.0) {}
    };
    within("it is told", refused).await;
}

#[tokio::test]
async fn a_terminal_is_redrawn_in_place_and_left_as_it_was() {
    let server = Server::start().await;
    let binary = env!("CARGO_BIN_EXE_evertail");
    let line = format!("stty rows 30 cols 60; exec {binary} top --interval 0.1 --url {}", server.url(""));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut shown = String::new();
    let mut bytes = [0; 4096];
    while shown.matches("evertail ").count() < 2 {
        let read = within("a frame", stdout.read(&mut bytes)).await.unwrap();
        assert!(read > 0, "{shown}");
        shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    // Ctrl-C, as the terminal sends it.
    let mut stdin = child.stdin.take().unwrap();
    within("it is typed", tokio::io::AsyncWriteExt::write_all(&mut stdin, b"\x03")).await.unwrap();
    within("the end", stdout.read_to_string(&mut shown)).await.unwrap();
    assert_eq!(within("the end", child.wait()).await.unwrap().code(), Some(130), "{shown}");
    assert!(
        shown.contains("\x1b[?25l") && shown.contains("\x1b[10A"),
        "hidden cursor, ten lines up: {shown:?}"
    );
    assert!(shown.ends_with("\x1b[?25h"), "the cursor is there again: {shown:?}");
    let widest = shown.lines().map(|line| line.trim_start_matches(|c: char| c != 'e').chars().count()).max();
    assert!(widest.unwrap() <= 60, "{shown:?}");
}

#[tokio::test]
async fn whoever_is_refused_is_told_what_to_do() {
    let server = Server::start_with(|settings| {
        let audience = "evertail".to_owned();
        settings.auth = Some(AuthSettings { keys: None, issuer: None, audience, anonymous_read: vec![] });
    })
    .await;
    let token = async |metrics| {
        let nothing = || Grants::patterns([]).unwrap().into();
        let grants = Grants { append: nothing(), read: nothing(), admin: false, metrics };
        let (secret, token) = TokenDraft { name: "t".into(), grants, expires_at: None }.make().unwrap();
        let token = server.log.create_token(token).await.unwrap();
        evertail::auth::shown(&token, Some(&secret)).token.unwrap()
    };
    let refused = run(top(&server, &["--once"])).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused.stderr)
            .ends_with("show a token made with --metrics or --admin, with --token-file or EVERTAIL_TOKEN\n")
    );
    let mut command = top(&server, &["--once"]);
    command.env("EVERTAIL_TOKEN", token(false).await);
    let refused = run(command).await;
    assert!(said(&refused.stderr).contains("403 forbidden"), "{}", said(&refused.stderr));
    let mut command = top(&server, &["--once"]);
    command.env("EVERTAIL_TOKEN", token(true).await);
    assert_eq!(run(command).await.status.code(), Some(0));
    assert_eq!(run(top(&server, &["--once", "--interval", "0"])).await.status.code(), Some(2));
}
