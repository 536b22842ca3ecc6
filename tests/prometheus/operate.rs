//! What an operator does with the metrics, and with what is published beside them.

use crate::event_source::http_client;
use crate::prometheus::{Prometheus, promtool};
use crate::server::{Launch, Place, Server, evertail, in_time, lasting_port};
use evertail::http::all_metrics;
use evertail::metrics::Kind;
use serde_json::Value;
use std::collections::BTreeSet;

const DASHBOARD: &str = include_str!("../../docs/grafana/evertail.json");
const ALERTS: &str = include_str!("../../docs/prometheus/alerts.yml");

/// A server with a port of its own for who operates it: where the API is, and where that is.
async fn server(place: &Place, change: impl FnOnce(Launch) -> Launch) -> (Server, String) {
    let own = format!("127.0.0.1:{}", lasting_port());
    let launch = change(Launch::new(&place.file()).with("EVERTAIL_METRICS_LISTEN", &own));
    (launch.start().await, own)
}

async fn answer(url: &str, token: Option<&str>) -> (u16, String) {
    let mut request = http_client().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = in_time(request.send()).await.unwrap();
    (answer.status().as_u16(), in_time(answer.text()).await.unwrap())
}

async fn append(server: &Server, body: &'static str, token: Option<&str>) -> u16 {
    let mut request = http_client().post(format!("{}/api/v1/a", server.base)).body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    in_time(request.send()).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn prometheus_scrapes_what_the_server_counts() {
    let place = Place::new();
    let (server, own) = server(&place, |launch| launch).await;
    let prometheus = Prometheus::start(&own, None).await;
    for _ in 0..3 {
        assert_eq!(append(&server, r#"[{"data":1},{"data":2}]"#, None).await, 201);
    }
    assert_eq!(append(&server, "{", None).await, 400);
    prometheus.until("evertail_appended_events_total == 6").await;
    prometheus.until(r#"evertail_refusals_total{code="json_invalid"} == 1"#).await;
    prometheus.until("evertail_append_seconds_count == 3").await;
    prometheus.until(r#"evertail_fsync_seconds_bucket{le="+Inf"} == 3"#).await;
    let build = prometheus.query("evertail_build_info").await.unwrap();
    assert_eq!(build[0].0["version"], env!("CARGO_PKG_VERSION"));
    let target = prometheus.target().await;
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()));
    // What it knows of each metric is what is declared.
    for metric in all_metrics() {
        let base = metric.name;
        let expression = match metric.kind {
            Kind::Histogram => format!("count({base}_bucket)"),
            _ => format!("count({base})"),
        };
        let is_optional = base.starts_with("evertail_retention_") && !base.ends_with("excess_events");
        let series = prometheus.query(&expression).await.unwrap();
        assert_eq!(series.is_empty(), is_optional, "{base}");
    }
}

#[tokio::test]
async fn metrics_have_a_port_of_their_own() {
    let place = Place::new();
    let (server, own) = server(&place, |launch| launch).await;
    for (path, status) in
        [("/metrics", 200), ("/healthz", 200), ("/readyz", 200), ("/", 404), ("/api/v1/a", 404)]
    {
        let (answered, body) = answer(&format!("http://{own}{path}"), None).await;
        assert_eq!(answered, status, "{path}: {body}");
    }
    for (path, status) in [("/metrics", 404), ("/healthz", 200), ("/readyz", 200), ("/api/v1/events/1", 404)]
    {
        assert_eq!(answer(&format!("{}{path}", server.base), None).await.0, status, "{path}");
    }
    let (_, text) = answer(&format!("http://{own}/metrics"), None).await;
    assert!(
        text.contains("\nevertail_refusals_total{code=\"route_not_found\"} 3\n"),
        "both ports are one server"
    );
    // Linted: names, units, help.
    assert_eq!(promtool(&["check", "metrics"], Some(&text)), "");
}

#[tokio::test]
async fn an_open_port_for_metrics_is_turned_away() {
    let place = Place::new();
    let launch = Launch::new(&place.file()).with("EVERTAIL_METRICS_LISTEN", "0.0.0.0:0");
    let mut server = launch.spawn();
    assert_eq!(server.ended().await.code(), Some(2));
    let complaint = server.complaint().await;
    assert!(
        complaint.contains("EVERTAIL_METRICS_LISTEN") && complaint.contains("EVERTAIL_AUTH=on"),
        "{complaint}"
    );
    assert!(!place.file().exists());
}

#[tokio::test]
async fn prometheus_needs_a_token_for_metrics_and_nothing_more() {
    let place = Place::new();
    let token = |flags: &[&str]| {
        let mut command = evertail(&[], place.folder());
        command.args(["token", "create", "--name", "t", "--json"]).args(flags);
        let output = command.arg("--file").arg(place.file()).output().unwrap();
        let made: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        made["token"].as_str().unwrap().to_owned()
    };
    let (scraper, producer) = (token(&["--metrics"]), token(&["--append", "a"]));
    let (server, own) = server(&place, |launch| launch.with("EVERTAIL_AUTH", "on")).await;
    let metrics = format!("http://{own}/metrics");
    assert_eq!(answer(&metrics, None).await.0, 401);
    assert_eq!(answer(&metrics, Some(&producer)).await.0, 403);
    assert_eq!(answer(&format!("http://{own}/readyz"), None).await.0, 200);
    assert_eq!(append(&server, "{}", Some(&scraper)).await, 403);
    assert_eq!(append(&server, "{}", Some(&producer)).await, 201);
    let prometheus = Prometheus::start(&own, Some(&scraper)).await;
    prometheus.until("evertail_appended_events_total >= 1").await;
}

#[test]
fn published_rules_and_configuration_are_in_order() {
    promtool(&["check", "config", "prometheus.yml"], None);
    promtool(&["check", "rules", "alerts.yml"], None);
    promtool(&["test", "rules", "alerts_test.yml"], None);
}

/// The names of metrics in an expression.
fn names(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !is_part(c)).map(str::to_owned);
    words.filter(|word| word.starts_with("evertail_") || word.starts_with("process_")).collect()
}

/// The names of all series.
fn series() -> BTreeSet<String> {
    let of = |name: &str, kind| match kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
        _ => vec![name.to_owned()],
    };
    all_metrics().iter().flat_map(|metric| of(metric.name, metric.kind)).collect()
}

#[tokio::test]
async fn every_alert_is_taken_up_and_is_of_metrics_that_there_are() {
    let named: BTreeSet<String> = ALERTS
        .lines()
        .filter(|line| !line.contains("summary:") && !line.contains("next:"))
        .flat_map(names)
        .collect();
    let known = series();
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(named.len() > 10 && unknown.is_empty(), "{unknown:?}");
    let place = Place::new();
    let (_server, own) = server(&place, |launch| launch).await;
    let prometheus = Prometheus::start(&own, None).await;
    prometheus.until("up == 1").await;
    let rules = prometheus.rules().await;
    assert_eq!(rules.len(), ALERTS.matches("- alert: ").count());
    let tests = include_str!("../../docs/prometheus/alerts_test.yml");
    for rule in rules {
        assert!(tests.contains(&format!("- name: {}\n", rule["name"].as_str().unwrap())), "{rule}");
        assert_eq!(rule["state"], "inactive", "a server in good order alarms nobody: {rule}");
    }
}

#[tokio::test]
async fn every_panel_of_the_dashboard_shows_something() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "instance"]);
    let place = Place::new();
    let (server, own) = server(&place, |launch| {
        launch.with("EVERTAIL_RETENTION_EVENTS", 1_000).with("EVERTAIL_RETENTION_BYTES", "1MiB")
    })
    .await;
    let prometheus = Prometheus::start(&own, None).await;
    assert_eq!(append(&server, "{}", None).await, 201);
    // Two scrapes behind it are a rate.
    prometheus.until("rate(evertail_appended_events_total[10s]) >= 0").await;
    let (mut ids, mut shown) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{title}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(["timeseries", "stat"].contains(&panel["type"].as_str().unwrap()), "{title}");
        assert!(panel["description"].as_str().unwrap().ends_with('.'), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            shown.extend(names(expression));
            let expression = expression.replace("$instance", ".*").replace("$__rate_interval", "10s");
            assert!(!expression.contains('$'), "{title}: {expression}");
            match prometheus.query(&expression).await {
                Ok(series) => assert!(!series.is_empty(), "{title} shows nothing for {expression}"),
                Err(error) => panic!("{title}: {expression}: {error}"),
            }
        }
    }
    let known = series();
    let unknown: Vec<_> = shown.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // What is declared and neither shown nor said to be of no use there would have no reason.
    let without_panel = [
        "evertail_trimmed_bytes_total",
        "evertail_retention_age_seconds",
        "evertail_last_event_timestamp_seconds",
        "process_start_time_seconds",
    ];
    for metric in all_metrics() {
        let is_shown = shown.iter().any(|name| name.starts_with(metric.name));
        assert_eq!(is_shown, !without_panel.contains(&metric.name), "{}", metric.name);
    }
}
