//! From strings to types: defaults, ranges, cross-checks; all problems told at once.

use super::resolver::Resolver;
use super::{table, values};
use crate::event::{Pattern, Retention, RetentionRules};
use ipnet::IpNet;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// Most events, and bytes of data, that a retention can be told to keep.
pub(super) const EVENTS_MAX: u64 = 1_000_000_000_000;
pub(super) const BYTES_MAX: u64 = 1 << 50;

/// Settings as they were given, by variable; those not given are missing.
pub type Raw = HashMap<&'static str, String>;

/// One entry of the list of allowed origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// Every origin (`*`).
    Any,
    /// `null`: a page opened from disk, or sandboxed.
    Null,
    /// `https://app.example`, compared as browsers write it: lower-case, without a default port.
    Exact(String),
}

/// How the server's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the keys of JSON Web Tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// One key.
    KeyFile(PathBuf),
    /// A JWKS.
    SetFile(PathBuf),
    /// A JWKS that is fetched.
    SetUrl(String),
}

/// How clients are authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// The keys of JSON Web Tokens, if those are taken.
    pub jwt_keys: Option<JwtKeys>,
    /// Who must have issued them.
    pub jwt_issuer: Option<String>,
    /// For whom they must be.
    pub jwt_audience: String,
    /// Streams that everyone may read.
    pub anonymous_read: Vec<Pattern>,
}

/// The settings, resolved. Each field is the setting of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table says what each is")]
pub struct Config {
    pub listen: SocketAddr,
    /// `None` for that of the API.
    pub metrics_listen: Option<SocketAddr>,
    pub file: PathBuf,
    /// Certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// `None` where nobody needs a credential.
    pub auth: Option<AuthConfig>,
    pub allowed_origins: Vec<AllowedOrigin>,
    pub allowed_hosts: Vec<String>,
    pub trusted_proxies: Vec<IpNet>,
    pub event_bytes_max: usize,
    pub depth_max: usize,
    pub uri_bytes_max: usize,
    pub headers_max: usize,
    pub header_bytes_max: usize,
    pub batch_events_max: usize,
    pub batch_bytes_max: usize,
    pub queue_requests_max: usize,
    pub queue_bytes_max: usize,
    pub window_bytes_max: usize,
    pub page_bytes_max: usize,
    pub read_connections: u32,
    pub catch_up_pages_max: usize,
    pub connections_max: usize,
    pub address_connections_max: Option<usize>,
    pub client_streams_max: Option<usize>,
    pub client_requests_per_second: Option<NonZeroU32>,
    pub stream_age_max: Option<Duration>,
    pub keep_alive: Duration,
    pub retry: (Duration, Duration),
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    pub send_timeout: Duration,
    pub send_buffer_bytes: usize,
    pub busy_timeout: Duration,
    pub is_checkpointing: bool,
    pub disk_free_bytes_min: u64,
    pub retention: RetentionRules,
    pub drain_timeout: Duration,
    pub log_filter: String,
    pub log_format: LogFormat,
    pub otlp_endpoint: Option<String>,
}

/// One setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Its variable.
    pub variable: &'static str,
    /// What was given.
    pub value: String,
    /// What is accepted.
    pub accepted: String,
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigError { variable, value, accepted }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{variable} is {value:?}; give it {accepted}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Resolves the settings. `state_directory` is where a service keeps its files, if the supervisor named a place.
///
/// *Errors*: every setting that is out of range or contradicts another, each with its name, value and range.
pub fn resolve(raw: &Raw, state_directory: Option<PathBuf>) -> Result<Config, ConfigErrors> {
    let mut r = Resolver::new(raw);
    let file = match (raw.get(table::FILE.variable), state_directory) {
        (None, Some(folder)) => folder.join("evertail.db"),
        _ => PathBuf::from(r.text(&table::FILE)),
    };
    let config = Config {
        listen: r.parse(&table::LISTEN, SocketAddr::from(([127, 0, 0, 1], 8888))),
        metrics_listen: r.some_address(&table::METRICS_LISTEN),
        file,
        tls: r.paths(&table::TLS_CERTIFICATE, &table::TLS_KEY),
        auth: r.auth(),
        allowed_origins: r.list(&table::ALLOWED_ORIGINS, values::origin),
        allowed_hosts: r.list(&table::ALLOWED_HOSTS, values::host),
        trusted_proxies: r.list(&table::TRUSTED_PROXIES, values::network),
        event_bytes_max: r.bytes(&table::EVENT_BYTES_MAX, 1 << 10, 16 << 20) as usize,
        depth_max: r.number(&table::DEPTH_MAX, 1, 120) as usize,
        uri_bytes_max: r.bytes(&table::URI_BYTES_MAX, 256, 64 << 10) as usize,
        headers_max: r.number(&table::HEADERS_MAX, 16, 1_000) as usize,
        header_bytes_max: r.bytes(&table::HEADER_BYTES_MAX, 8 << 10, 1 << 20) as usize,
        batch_events_max: r.number(&table::BATCH_EVENTS_MAX, 1, 10_000) as usize,
        batch_bytes_max: r.bytes(&table::BATCH_BYTES_MAX, 1 << 10, 64 << 20) as usize,
        queue_requests_max: r.number(&table::QUEUE_REQUESTS_MAX, 1, 1_000_000) as usize,
        queue_bytes_max: r.bytes(&table::QUEUE_BYTES_MAX, 1 << 10, 4 << 30) as usize,
        window_bytes_max: r.bytes(&table::WINDOW_BYTES_MAX, 0, 64 << 30) as usize,
        page_bytes_max: r.bytes(&table::PAGE_BYTES_MAX, 1 << 10, 16 << 20) as usize,
        read_connections: r.number(&table::READ_CONNECTIONS, 1, 64) as u32,
        catch_up_pages_max: r.number(&table::CATCH_UP_PAGES_MAX, 1, 64) as usize,
        connections_max: r.number(&table::CONNECTIONS_MAX, 1, 1_000_000) as usize,
        address_connections_max: r.some(&table::ADDRESS_CONNECTIONS_MAX, 1_000_000).map(|n| n as usize),
        client_streams_max: r.some(&table::CLIENT_STREAMS_MAX, 1_000_000).map(|n| n as usize),
        client_requests_per_second: r
            .some(&table::CLIENT_REQUESTS_PER_SECOND, 1_000_000)
            .and_then(|n| NonZeroU32::new(n as u32)),
        stream_age_max: r.some(&table::STREAM_SECONDS_MAX, 31_536_000).map(Duration::from_secs),
        keep_alive: r.seconds(&table::KEEP_ALIVE_SECONDS, 1, 600),
        retry: (r.seconds(&table::RETRY_SECONDS_MIN, 0, 3600), r.seconds(&table::RETRY_SECONDS_MAX, 0, 3600)),
        header_timeout: r.seconds(&table::HEADER_TIMEOUT_SECONDS, 1, 600),
        body_timeout: r.seconds(&table::BODY_TIMEOUT_SECONDS, 1, 3600),
        idle_timeout: r.seconds(&table::IDLE_TIMEOUT_SECONDS, 1, 3600),
        send_timeout: r.seconds(&table::SEND_TIMEOUT_SECONDS, 1, 3600),
        send_buffer_bytes: r.bytes(&table::SEND_BUFFER_BYTES, 4 << 10, 16 << 20) as usize,
        busy_timeout: r.seconds(&table::BUSY_TIMEOUT_SECONDS, 1, 600),
        is_checkpointing: r.choice(&table::CHECKPOINTS, &[("own", true), ("external", false)]),
        disk_free_bytes_min: r.bytes(&table::DISK_FREE_BYTES_MIN, 0, 1 << 40),
        retention: RetentionRules {
            log: Retention {
                events: r.some(&table::RETENTION_EVENTS, EVENTS_MAX),
                bytes: Some(r.bytes(&table::RETENTION_BYTES, 0, BYTES_MAX)).filter(|bytes| *bytes > 0),
                age: r.age(&table::RETENTION_AGE),
            },
            streams: r.stream_retention(&table::RETENTION_STREAMS),
        },
        drain_timeout: r.seconds(&table::DRAIN_SECONDS, 0, 600),
        log_filter: r.text(&table::LOG),
        log_format: r.choice(
            &table::LOG_FORMAT,
            &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)],
        ),
        otlp_endpoint: r.url(&table::OTLP_ENDPOINT),
    };
    let is_open = r.choice(&table::ALLOW_UNAUTHENTICATED, &[("true", true), ("false", false)]);
    let is_guarded = config.auth.is_some() || is_open;
    let listens = [(Some(config.listen), table::LISTEN), (config.metrics_listen, table::METRICS_LISTEN)];
    let is_exposed = |address: Option<SocketAddr>| address.is_some_and(|address| !address.ip().is_loopback());
    for (_, setting) in listens.iter().filter(|(address, _)| !is_guarded && is_exposed(*address)) {
        r.refuse(setting, "a loopback address, or set EVERTAIL_AUTH=on to serve who has a token, or EVERTAIL_ALLOW_UNAUTHENTICATED=true to serve everyone who can reach it");
    }
    if config.batch_bytes_max < config.event_bytes_max {
        r.refuse(&table::BATCH_BYTES_MAX, "at least EVERTAIL_EVENT_BYTES_MAX");
    }
    if config.queue_bytes_max < config.batch_bytes_max {
        r.refuse(&table::QUEUE_BYTES_MAX, "at least EVERTAIL_BATCH_BYTES_MAX");
    }
    if config.retry.1 < config.retry.0 {
        r.refuse(&table::RETRY_SECONDS_MAX, "at least EVERTAIL_RETRY_SECONDS_MIN");
    }
    r.finish(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    fn with(pairs: &[(&'static str, &str)]) -> Result<Config, ConfigErrors> {
        resolve(&pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), None)
    }

    #[test]
    fn defaults_are_within_their_own_ranges() {
        let config = with(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8888");
        assert_eq!(config.event_bytes_max, 256 << 10);
        let in_directory = resolve(&Raw::new(), Some(PathBuf::from("/state"))).unwrap();
        assert_eq!(in_directory.file, PathBuf::from("/state/evertail.db"));
    }

    #[test]
    fn all_problems_are_told_at_once_with_name_value_and_range() {
        let errors = with(&[
            ("EVERTAIL_LISTEN", "0.0.0.0:1"),
            ("EVERTAIL_EVENT_BYTES_MAX", "1"),
            ("EVERTAIL_LOG_FORMAT", "x"),
        ]);
        let text = errors.unwrap_err().to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("EVERTAIL_EVENT_BYTES_MAX is \"1\"; give it 1KiB to 16MiB"), "{text}");
        assert!(text.contains("EVERTAIL_ALLOW_UNAUTHENTICATED=true"), "{text}");
        assert!(
            with(&[("EVERTAIL_LISTEN", "0.0.0.0:1"), ("EVERTAIL_ALLOW_UNAUTHENTICATED", "true")]).is_ok()
        );
    }

    #[test]
    fn a_collector_is_named_by_a_url() {
        let endpoint = |value| with(&[("EVERTAIL_OTLP_ENDPOINT", value)]).map(|config| config.otlp_endpoint);
        assert_eq!(endpoint("").unwrap(), None);
        for good in ["http://localhost:4318/v1/traces", "https://collector.example"] {
            assert_eq!(endpoint(good).unwrap().as_deref(), Some(good));
        }
        for bad in ["localhost:4318", "grpc://localhost", "http://", "https:///v1/traces"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn certificate_and_key_are_given_together() {
        assert_eq!(with(&[]).unwrap().tls, None);
        let both = [("EVERTAIL_TLS_CERTIFICATE", "a.pem"), ("EVERTAIL_TLS_KEY", "b.pem")];
        assert_eq!(with(&both).unwrap().tls, Some(("a.pem".into(), "b.pem".into())));
        for (given, missing) in [(both[0], both[1].0), (both[1], both[0].0)] {
            let errors = with(&[given]).unwrap_err();
            assert_eq!(errors.0.len(), 1);
            assert_eq!(errors.0[0].variable, missing);
            assert!(errors.to_string().contains(given.0), "{errors}");
        }
    }

    #[test]
    fn any_address_may_be_listened_on_by_who_asks_for_credentials() {
        let open = ("EVERTAIL_LISTEN", "0.0.0.0:1");
        assert!(with(&[open]).is_err());
        assert!(with(&[open, ("EVERTAIL_AUTH", "on")]).unwrap().auth.is_some());
        assert_eq!(with(&[]).unwrap().auth, None);
    }

    #[test]
    fn metrics_have_a_port_of_their_own_by_the_same_rule() {
        assert_eq!(with(&[]).unwrap().metrics_listen, None);
        let own = |address| ("EVERTAIL_METRICS_LISTEN", address);
        let port = with(&[own("127.0.0.1:9464")]).unwrap().metrics_listen.unwrap().port();
        assert_eq!(port, 9464);
        let errors = with(&[own("0.0.0.0:9464"), ("EVERTAIL_LISTEN", "0.0.0.0:1")]).unwrap_err();
        let variables: Vec<&str> = errors.0.iter().map(|error| error.variable).collect();
        assert_eq!(variables, ["EVERTAIL_LISTEN", "EVERTAIL_METRICS_LISTEN"]);
        for allowed in [("EVERTAIL_AUTH", "on"), ("EVERTAIL_ALLOW_UNAUTHENTICATED", "true")] {
            assert!(with(&[own("0.0.0.0:9464"), allowed]).is_ok());
        }
        assert!(with(&[own("9464")]).is_err());
    }

    #[test]
    fn what_belongs_to_authentication_is_refused_where_it_is_off() {
        let auth = |pairs: &[(&'static str, &str)]| {
            with(&[pairs, &[("EVERTAIL_AUTH", "on")]].concat()).map(|config| config.auth.unwrap())
        };
        for (setting, value) in [
            ("EVERTAIL_JWT_KEY_FILE", "key.pem"),
            ("EVERTAIL_JWKS", "https://id.example/jwks"),
            ("EVERTAIL_JWT_ISSUER", "id"),
            ("EVERTAIL_JWT_AUDIENCE", "log"),
            ("EVERTAIL_ANONYMOUS_READ", "news,status.*"),
        ] {
            let errors = with(&[(setting, value)]).unwrap_err();
            assert_eq!(errors.0[0].variable, setting);
            assert!(errors.to_string().contains("EVERTAIL_AUTH=on"), "{errors}");
            auth(&[(setting, value)]).unwrap();
        }
        let keys = |value| auth(&[("EVERTAIL_JWKS", value)]).unwrap().jwt_keys;
        assert_eq!(keys("http://id/x"), Some(JwtKeys::SetUrl("http://id/x".into())));
        assert_eq!(keys("jwks.json"), Some(JwtKeys::SetFile("jwks.json".into())));
        assert!(auth(&[("EVERTAIL_JWKS", "a"), ("EVERTAIL_JWT_KEY_FILE", "b")]).is_err());
        assert!(auth(&[("EVERTAIL_ANONYMOUS_READ", "News")]).is_err());
        assert!(auth(&[("EVERTAIL_JWT_AUDIENCE", "")]).is_err());
    }

    #[test]
    fn every_setting_is_read_and_refuses_nonsense() {
        // Any text may be the name of a file.
        let free_form = ["EVERTAIL_FILE", "EVERTAIL_LOG", "EVERTAIL_TLS_CERTIFICATE", "EVERTAIL_TLS_KEY"];
        for setting in SETTINGS.iter().filter(|setting| !free_form.contains(&setting.variable)) {
            let errors = with(&[(setting.variable, "no such: value/")]).expect_err(setting.variable);
            assert!(errors.0.iter().any(|error| error.variable == setting.variable), "{}", setting.variable);
        }
    }

    #[test]
    fn streams_have_retention_of_their_own() {
        let of = |text| with(&[("EVERTAIL_RETENTION_STREAMS", text)]).map(|config| config.retention.streams);
        let rules = of(" debug.* age=7d events=10000 ;audits; * bytes=1GiB ").unwrap();
        assert_eq!(rules.len(), 3);
        assert_eq!(rules[0].streams, Pattern::Prefix("debug.".into()));
        let kept =
            Retention { events: Some(10_000), bytes: None, age: Some(Duration::from_secs(7 * 86_400)) };
        assert_eq!(rules[0].keep, kept);
        assert_eq!(rules[1].keep, Retention::default());
        assert_eq!(rules[2].keep.bytes, Some(1 << 30));
        for bad in ["a events=0", "a events=1 events=2", "a age=x", "a b", "a keep=1", "A", "a*", "events=1"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn proxies_are_addresses_and_networks() {
        let of = |text| with(&[("EVERTAIL_TRUSTED_PROXIES", text)]).map(|config| config.trusted_proxies);
        let proxies = of("127.0.0.1, 10.0.0.0/8,fd00::/8").unwrap();
        assert_eq!(
            proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]
        );
        for bad in ["10.0.0.0/33", "localhost", "127.0.0.1:80", "*"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
