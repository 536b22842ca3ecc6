//! Prometheus as a process of its own on loopback, with the configuration that is published. Dropping it kills it.

use crate::event_source::http_client;
use crate::server::{complain, in_time, lasting_port, until};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const PUBLISHED: &str = include_str!("../../docs/prometheus/prometheus.yml");

pub(crate) struct Prometheus {
    folder: TempDir,
    base: String,
    child: Child,
}

impl Prometheus {
    /// One that scrapes this address, with this token if there is one.
    pub(crate) async fn start(address: &str, token: Option<&str>) -> Self {
        let folder = TempDir::with_prefix("evertail-prometheus-").unwrap();
        let token_file = folder.path().join("token");
        let mut configuration = replaced(PUBLISHED, "127.0.0.1:9464", address);
        configuration = replaced(&configuration, "scrape_interval: 15s", "scrape_interval: 200ms");
        configuration = replaced(&configuration, "evaluation_interval: 15s", "evaluation_interval: 200ms");
        if let Some(token) = token {
            fs::write(&token_file, token).unwrap();
            let path = token_file.to_str().unwrap();
            configuration = replaced(&configuration, "/etc/prometheus/evertail.token", path);
            for line in ["authorization:", "  credentials_file:"] {
                configuration = replaced(&configuration, &format!("# {line}"), line);
            }
        }
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration).unwrap();
        fs::write(folder.path().join("alerts.yml"), include_str!("../../docs/prometheus/alerts.yml"))
            .unwrap();
        let port = lasting_port();
        let said = fs::File::create(folder.path().join("stderr")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus is not installed, see scripts/test: {error}"));
        let mut prometheus = Self { folder, base: format!("http://127.0.0.1:{port}"), child };
        let ready = format!("{}/-/ready", prometheus.base);
        until("Prometheus is ready", async || {
            let ended = prometheus.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", prometheus.said());
            http_client().get(&ready).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        prometheus
    }

    async fn api(&self, path: &str, query: &str) -> Value {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let url = format!("{}/api/v1/{path}?{query}", self.base);
        let answer = in_time(http_client().get(url).send()).await.unwrap();
        serde_json::from_str(&in_time(answer.text()).await.unwrap()).unwrap()
    }

    /// What an expression is now: labels and value of each series.
    ///
    /// *Errors*: Prometheus cannot evaluate it.
    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>, String> {
        let answer = self.api("query", expression).await;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let series = answer["data"]["result"].as_array().unwrap().iter();
        Ok(series
            .map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap().parse().unwrap()))
            .collect())
    }

    /// Waits until an expression holds for a series.
    pub(crate) async fn until(&self, expression: &str) {
        until(expression, async || !self.query(expression).await.unwrap().is_empty()).await;
    }

    /// The rules that Prometheus has taken up.
    pub(crate) async fn rules(&self) -> Vec<Value> {
        self.api("rules", "").await["data"]["groups"][0]["rules"].as_array().unwrap().clone()
    }

    /// What it says of its one target.
    pub(crate) async fn target(&self) -> Value {
        self.api("targets", "").await["data"]["activeTargets"][0].clone()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            complain(&format!("Prometheus had said:\n{}", self.said()));
        }
    }
}

/// Each is there once, so that what is tested is what is published.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in\n{text}");
    text.replace(from, to)
}

/// promtool on files of `docs/prometheus/`, which must find them in order.
pub(crate) fn promtool(arguments: &[&str], stdin: Option<&str>) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/prometheus");
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool is not installed, see scripts/test: {error}"));
    let mut pipe = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut pipe, stdin.unwrap_or_default().as_bytes()).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}
