//! Every setting, once: its flag, its variable, its default, and what a person needs to know to change it.

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The variable; the flag is its name without `EVERTAIL_`, in lower case, with dashes.
    pub variable: &'static str,
    /// The default, as it would be written.
    pub default: &'static str,
    /// What it is, with its unit.
    pub meaning: &'static str,
    /// What is accepted.
    pub range: &'static str,
    /// When to change it.
    pub change: &'static str,
}

impl Setting {
    /// The flag without its dashes in front: `EVERTAIL_KEEP_ALIVE_SECONDS` is `keep-alive-seconds`.
    pub fn flag(&self) -> String {
        self.variable.trim_start_matches("EVERTAIL_").to_ascii_lowercase().replace('_', "-")
    }
}

macro_rules! settings {
    ($($name:ident: $variable:literal = $default:literal, $meaning:literal, $range:literal, $change:literal;)*) => {
        $(pub(super) const $name: Setting = Setting {
            variable: $variable, default: $default, meaning: $meaning, range: $range, change: $change,
        };)*
        /// Every setting, in the order of the documentation.
        pub const SETTINGS: &[Setting] = &[$($name),*];
    };
}

settings! {
    LISTEN: "EVERTAIL_LISTEN" = "127.0.0.1:8888",
        "Address and port to listen on.",
        "an IP address and a port; port 0 takes a free one",
        "To be reached from other machines. Anything but loopback also needs EVERTAIL_AUTH or EVERTAIL_ALLOW_UNAUTHENTICATED. Leave it out where systemd passes a socket.";
    METRICS_LISTEN: "EVERTAIL_METRICS_LISTEN" = "",
        "Address and port of /metrics, /healthz and /readyz alone; empty is the port of the API, which has no /metrics otherwise.",
        "an IP address and a port such as 127.0.0.1:9464; empty for none of its own",
        "Where the API is public, or behind a proxy, and the metrics are to be neither. Like EVERTAIL_LISTEN off loopback.";
    FILE: "EVERTAIL_FILE" = "data/evertail.db",
        "The log file, made if missing. Under systemd the default is evertail.db in $STATE_DIRECTORY.",
        "a path on a local disk",
        "To keep the log elsewhere, or to run several servers.";
    AUTH: "EVERTAIL_AUTH" = "off",
        "Whether whoever comes must show a credential: an API token, a JSON Web Token, or a session or ticket made for one.",
        "on or off",
        "To be reached from other machines, or to tell apart who may do what. See docs/auth.md.";
    JWT_KEY_FILE: "EVERTAIL_JWT_KEY_FILE" = "",
        "The key of JSON Web Tokens: a public key in PEM (RS256, ES256, EdDSA), or the secret of HS256.",
        "a path to a PEM file, or to a secret of 32 bytes or more; with EVERTAIL_AUTH=on",
        "When another service says who may do what, with one key.";
    JWKS: "EVERTAIL_JWKS" = "",
        "The keys of JSON Web Tokens as a JWKS: a file, or where it is fetched at the start and when an unknown key is named.",
        "a path or an http or https URL, instead of EVERTAIL_JWT_KEY_FILE; with EVERTAIL_AUTH=on",
        "When an identity provider, whose keys change, says who may do what.";
    JWT_ISSUER: "EVERTAIL_JWT_ISSUER" = "",
        "Who must have issued a JSON Web Token, its claim iss; empty takes every issuer that signs with the key.",
        "a text; with EVERTAIL_AUTH=on",
        "When the keys are used by several issuers.";
    JWT_AUDIENCE: "EVERTAIL_JWT_AUDIENCE" = "evertail",
        "For whom a JSON Web Token must be, its claim aud.",
        "a text; with EVERTAIL_AUTH=on",
        "When several servers take tokens of one issuer, so that a token for one is none for the others.";
    ANONYMOUS_READ: "EVERTAIL_ANONYMOUS_READ" = "",
        "Streams that everyone may read, without a credential.",
        "a list with commas of streams such as news or status.*; with EVERTAIL_AUTH=on",
        "For public streams beside others that are not.";
    ALLOW_UNAUTHENTICATED: "EVERTAIL_ALLOW_UNAUTHENTICATED" = "false",
        "Serve everyone who can reach the address, without authentication.",
        "true or false",
        "Only where a proxy or the network itself decides who may connect.";
    TLS_CERTIFICATE: "EVERTAIL_TLS_CERTIFICATE" = "",
        "Certificate with its chain, a PEM file. With it the server speaks https, HTTP/2 included. A new one is taken within seconds.",
        "a path, together with EVERTAIL_TLS_KEY; empty is plain http",
        "To be reached from other machines without a proxy, or for more than six streams in one browser.";
    TLS_KEY: "EVERTAIL_TLS_KEY" = "",
        "Private key of the certificate, a PEM file without a passphrase.",
        "a path, together with EVERTAIL_TLS_CERTIFICATE; empty is plain http",
        "With EVERTAIL_TLS_CERTIFICATE.";
    ALLOWED_ORIGINS: "EVERTAIL_ALLOWED_ORIGINS" = "",
        "Origins whose pages may read and append, besides those of this machine while listening on loopback.",
        "a list with commas of origins such as https://app.example, null (a page opened from disk), or *",
        "When a page from another origin uses this server.";
    ALLOWED_HOSTS: "EVERTAIL_ALLOWED_HOSTS" = "",
        "Host names this server answers to, besides localhost and loopback addresses while listening on loopback.",
        "a list with commas of names without port; empty allows every name off loopback",
        "Behind a proxy that passes its own name on, or to pin the name of a public server.";
    TRUSTED_PROXIES: "EVERTAIL_TRUSTED_PROXIES" = "",
        "Proxies in front of this server, which are believed when they say where a request comes from.",
        "a list with commas of IP addresses and networks such as 127.0.0.1 or 10.0.0.0/8",
        "Behind a proxy: else its own address counts as the client's. Never name a network that clients are in.";
    EVENT_BYTES_MAX: "EVERTAIL_EVENT_BYTES_MAX" = "256KiB",
        "Largest event, all its texts together, in bytes.",
        "1KiB to 16MiB",
        "For larger payloads. Some SSE clients stop at 64 KiB or 512 KiB a line.";
    DEPTH_MAX: "EVERTAIL_DEPTH_MAX" = "64",
        "Deepest JSON of a payload, in levels of arrays and objects.",
        "1 to 120",
        "Rarely: some readers of JSON stop at 100.";
    BATCH_EVENTS_MAX: "EVERTAIL_BATCH_EVENTS_MAX" = "1000",
        "Most events of one request.",
        "1 to 10000",
        "For larger atomic batches.";
    BATCH_BYTES_MAX: "EVERTAIL_BATCH_BYTES_MAX" = "4MiB",
        "Largest request body, in bytes.",
        "1KiB to 64MiB, at least EVERTAIL_EVENT_BYTES_MAX",
        "For larger atomic batches.";
    QUEUE_REQUESTS_MAX: "EVERTAIL_QUEUE_REQUESTS_MAX" = "4096",
        "Most append requests that wait for the disk; beyond it they get 429.",
        "1 to 1000000",
        "When bursts from very many producers are refused.";
    QUEUE_BYTES_MAX: "EVERTAIL_QUEUE_BYTES_MAX" = "64MiB",
        "Most content that waits for the disk, in bytes; beyond it appends get 429.",
        "1KiB to 4GiB, at least EVERTAIL_BATCH_BYTES_MAX",
        "When bursts are refused and memory allows more.";
    WINDOW_BYTES_MAX: "EVERTAIL_WINDOW_BYTES_MAX" = "64MiB",
        "Memory for the newest events, from which live readers are served, in bytes.",
        "0 to 64GiB",
        "Larger when readers often fall behind by more; smaller on a small machine.";
    PAGE_BYTES_MAX: "EVERTAIL_PAGE_BYTES_MAX" = "64KiB",
        "Most bytes that one reader is given in one step, and a JSON page holds.",
        "1KiB to 16MiB",
        "Rarely: larger is a little faster for few readers and costs memory for each of many.";
    READ_CONNECTIONS: "EVERTAIL_READ_CONNECTIONS" = "3",
        "Connections that read the file.",
        "1 to 64",
        "One more than cores that may be busy reading history.";
    CATCH_UP_PAGES_MAX: "EVERTAIL_CATCH_UP_PAGES_MAX" = "2",
        "Pages of history that all readers together may be reading from the file at one time.",
        "1 to 64",
        "Larger when history matters more than the latency of appends.";
    CONNECTIONS_MAX: "EVERTAIL_CONNECTIONS_MAX" = "10000",
        "Most connections at one time, open streams on HTTP/2 included; lowered at the start to what the descriptor limit allows.",
        "1 to 1000000",
        "With more readers, together with the descriptor limit of the service.";
    ADDRESS_CONNECTIONS_MAX: "EVERTAIL_ADDRESS_CONNECTIONS_MAX" = "50",
        "Most connections of one address, of IPv6 of one /64, at one time; 0 for no limit. This machine and trusted proxies have none.",
        "0 to 1000000",
        "Larger where many clients share an address; smaller with HTTP/2, where a browser needs one.";
    CLIENT_STREAMS_MAX: "EVERTAIL_CLIENT_STREAMS_MAX" = "0",
        "Most event streams of one client, a credential or else an address, at one time; 0 for no limit.",
        "0 to 1000000",
        "Where nobody needs more than so many streams.";
    CLIENT_REQUESTS_PER_SECOND: "EVERTAIL_CLIENT_REQUESTS_PER_SECOND" = "0",
        "Most requests of one client, a credential or else an address, in a second; 0 for no limit. More get 429.",
        "0 to 1000000",
        "Where clients are not trusted to be modest.";
    STREAM_SECONDS_MAX: "EVERTAIL_STREAM_SECONDS_MAX" = "0",
        "How long an event stream lasts, and up to a tenth less, in seconds; 0 for ever. Then the client comes back by itself.",
        "0 to 31536000",
        "To spread clients anew over several servers or proxies.";
    KEEP_ALIVE_SECONDS: "EVERTAIL_KEEP_ALIVE_SECONDS" = "15",
        "Longest silence on a stream, in seconds; then a comment is sent.",
        "1 to 600",
        "Shorter behind a proxy that cuts silent connections sooner.";
    RETRY_SECONDS_MIN: "EVERTAIL_RETRY_SECONDS_MIN" = "1",
        "Shortest time after which a client that lost its stream comes back, in seconds.",
        "0 to 3600",
        "Together with the longest, to spread the return of very many readers.";
    RETRY_SECONDS_MAX: "EVERTAIL_RETRY_SECONDS_MAX" = "5",
        "Longest time after which a client that lost its stream comes back, in seconds.",
        "0 to 3600, at least EVERTAIL_RETRY_SECONDS_MIN",
        "Larger with very many readers: each takes a random time in between.";
    URI_BYTES_MAX: "EVERTAIL_URI_BYTES_MAX" = "8KiB",
        "Longest path and query of a request, in bytes.",
        "256 to 64KiB",
        "For selections of very many streams.";
    HEADERS_MAX: "EVERTAIL_HEADERS_MAX" = "64",
        "Most headers of a request.",
        "16 to 1000",
        "Behind a chain of proxies that add many.";
    HEADER_BYTES_MAX: "EVERTAIL_HEADER_BYTES_MAX" = "16KiB",
        "Largest request head, in bytes.",
        "8KiB to 1MiB",
        "For very large cookies or credentials.";
    HEADER_TIMEOUT_SECONDS: "EVERTAIL_HEADER_TIMEOUT_SECONDS" = "10",
        "How long a request head may take to arrive, in seconds.",
        "1 to 600",
        "Rarely.";
    BODY_TIMEOUT_SECONDS: "EVERTAIL_BODY_TIMEOUT_SECONDS" = "30",
        "How long a request body may take to arrive, in seconds.",
        "1 to 3600",
        "For large batches over slow links.";
    IDLE_TIMEOUT_SECONDS: "EVERTAIL_IDLE_TIMEOUT_SECONDS" = "75",
        "How long a connection may wait for its next request, in seconds.",
        "1 to 3600",
        "Above the one of a proxy in front, so that the proxy closes first.";
    SEND_TIMEOUT_SECONDS: "EVERTAIL_SEND_TIMEOUT_SECONDS" = "30",
        "How long a client may take nothing of what it is sent, in seconds; then it is disconnected.",
        "1 to 3600",
        "Longer for readers on very bad links.";
    SEND_BUFFER_BYTES: "EVERTAIL_SEND_BUFFER_BYTES" = "32KiB",
        "Kernel memory for each connection's unsent bytes.",
        "4KiB to 16MiB",
        "Larger for few readers over fast, distant links.";
    BUSY_TIMEOUT_SECONDS: "EVERTAIL_BUSY_TIMEOUT_SECONDS" = "5",
        "How long a commit waits for another process that writes to the file, in seconds; then appends get 503.",
        "1 to 600",
        "When other processes hold the file for long transactions.";
    CHECKPOINTS: "EVERTAIL_CHECKPOINTS" = "own",
        "Who moves the write-ahead log into the file: this server, or another program such as Litestream.",
        "own or external",
        "To external while Litestream replicates the file, and only then: see docs/backup.md.";
    DISK_FREE_BYTES_MIN: "EVERTAIL_DISK_FREE_BYTES_MIN" = "256MiB",
        "Free space below which appends are refused with 507, in bytes, so that checkpoints and trimming still work.",
        "0 to 1TiB",
        "Smaller on a small disk.";
    RETENTION_EVENTS: "EVERTAIL_RETENTION_EVENTS" = "0",
        "How many of the newest events are kept, and up to 1,024 more; older ones are trimmed, and 0 keeps all.",
        "0 to 1000000000000",
        "To bound the file: without it the log grows for ever.";
    RETENTION_BYTES: "EVERTAIL_RETENTION_BYTES" = "0",
        "How much data is kept, the newest, in bytes of payloads; older events are trimmed, and 0 keeps all.",
        "0 to 1024TiB",
        "To bound the file by its size: it is larger than its payloads, by what stands around them and the index.";
    RETENTION_AGE: "EVERTAIL_RETENTION_AGE" = "0",
        "How long events are kept after they were received; older ones are trimmed, and 0 keeps all.",
        "0, or a duration such as 12h, 30d or 1year",
        "Where a rule says how long data may, or must, be kept.";
    RETENTION_STREAMS: "EVERTAIL_RETENTION_STREAMS" = "",
        "What is kept of single streams, besides what is kept of the log as a whole: debug.* age=7d events=10000; audits.",
        "a list with semicolons of a stream or pattern with any of age=, events= and bytes=; without one all is kept",
        "Where some streams may go sooner than others. The most precise pattern counts; * means all but evertail.";
    DRAIN_SECONDS: "EVERTAIL_DRAIN_SECONDS" = "10",
        "How long requests may take to end when the server stops, in seconds.",
        "0 to 600",
        "To match the stop time of the supervisor.";
    LOG: "EVERTAIL_LOG" = "info",
        "What the server's own log says, on stderr.",
        "error, warn, info, debug, trace, or a filter such as info,evertail::http=debug",
        "To look into a problem.";
    LOG_FORMAT: "EVERTAIL_LOG_FORMAT" = "auto",
        "How the server's own log is written.",
        "text, json, or auto: text on a terminal, else JSON",
        "To force one of them.";
    OTLP_ENDPOINT: "EVERTAIL_OTLP_ENDPOINT" = "",
        "Where the span of each request is sent, as OTLP over HTTP in protobuf; empty sends none.",
        "an http or https URL, such as http://localhost:4318/v1/traces",
        "To see requests in the traces of who makes them. See docs/logs.md.";
}

/// The settings of the client commands.
pub const CLIENT_SETTINGS: &[Setting] = &[CLIENT_URL, CLIENT_CA_FILE, CLIENT_TOKEN];

/// Where the server is.
pub const CLIENT_URL: Setting = Setting {
    variable: "EVERTAIL_URL",
    default: "http://127.0.0.1:8888",
    meaning: "Where the commands that use a server, such as `evertail tail`, find it.",
    range: "an http or https URL",
    change: "When the server listens elsewhere.",
};

/// Whom the server's certificate is from.
pub const CLIENT_CA_FILE: Setting = Setting {
    variable: "EVERTAIL_CA_FILE",
    default: "",
    meaning: "Authorities that these commands trust over https, a PEM file; empty takes those of the system.",
    range: "a path",
    change: "When the server's certificate is of a private authority, or signed by itself. No other is trusted then.",
};

/// What these commands show the server.
pub const CLIENT_TOKEN: Setting = Setting {
    variable: "EVERTAIL_TOKEN",
    default: "",
    meaning: "The token that these commands show the server. It is never printed.",
    range: "an API token or a JSON Web Token",
    change: "When the server has EVERTAIL_AUTH=on. From a file: --token-file.",
};
