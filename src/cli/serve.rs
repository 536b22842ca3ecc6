//! `evertail`, `evertail serve`: builds the parts, runs them, takes them down in order.

use super::{Exit, Failure, arguments, logging, reload, supervisor};
use crate::auth::{Auth, AuthSettings, KeySource};
use crate::config::{self, AuthConfig, Config, JwtKeys, Raw};
use crate::http::{
    self, Closing, ConnectionSettings, HttpSettings, LimitSettings, OriginSettings, Service, Tls, TlsFiles,
    turned_away_max,
};
use crate::log::{Log, LogSettings};
use crate::store::StoreSettings;
use crate::traces::Traces;
use clap::ArgMatches;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Descriptors kept for the file, its companions, the read connections and the process itself.
const DESCRIPTORS_RESERVED: u64 = 128;
/// Most connections of the port that is for who operates the server: a few scrapers and probes.
const OPERATORS_MAX: usize = 32;
/// What the threads of open streams give way by. *Units*: nice levels.
///
/// *Source*: measured with 10,000 readers and 10 events/s: without it an ack waits for the readers of the event before.
const STREAM_NICENESS: i32 = 10;
/// How often an idle writer looks for events of other processes.
///
/// *Source*: a look costs 32 us, so 40 a second are about 0.1% of a core.
const NOTICE_INTERVAL: Duration = Duration::from_millis(25);

/// `passed` is a socket of the supervisor's, to be served on instead of one of our own.
pub(super) async fn run(
    matches: &ArgMatches,
    streams: &Handle,
    passed: Option<std::net::TcpListener>,
) -> Result<Exit, Failure> {
    let mut raw = arguments::settings(matches)?;
    if let Some(passed) = &passed {
        take_address(&mut raw, passed.local_addr()?)?;
    }
    let state_directory = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    let config =
        config::resolve(&raw, state_directory).map_err(|errors| Failure::usage(errors.to_string()))?;
    logging::start(&config)?;
    let tls =
        config.tls.clone().map(|(certificate, key)| Tls::load(TlsFiles { certificate, key })).transpose();
    let tls = tls.map_err(|error| Failure::from_error(&error, ""))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let connections_max = connections_within_descriptors(config.connections_max);

    // From here on a signal is a clean stop, however early it comes.
    let mut signals = Signals::catch()?;
    let listener = match passed {
        Some(passed) => adopt(passed)?,
        None => listen(config.listen, "--listen")?,
    };
    let address = listener.local_addr()?;
    let operating = config.metrics_listen.map(|own| listen(own, "--metrics-listen")).transpose()?;
    let metrics_address = operating.as_ref().map_or(Ok(address), TcpListener::local_addr)?;
    let (log, mut task) =
        Log::open(log_settings(&config)).await.map_err(|error| Failure::from_error(&error, ""))?;
    let auth = match &config.auth {
        Some(settings) => Some(authentication(&log, settings).await?),
        None => None,
    };
    let page = format!("{scheme}://{address}/");
    let metrics = format!("{scheme}://{metrics_address}/metrics");
    tell_serving(&config, &log, (&page, &metrics), connections_max);

    let (closing, closing_seen) = watch::channel(None);
    let service = Service::new(
        log.clone(),
        auth.clone(),
        http_settings(&config, address.ip().is_loopback()),
        closing_seen,
    );
    let traces = config.otlp_endpoint.as_deref().map(|endpoint| Traces::to(endpoint, Handle::current()));
    let traces = traces
        .transpose()
        .map_err(|error| Failure::from_error(&error, "mend EVERTAIL_OTLP_ENDPOINT, or leave it out"))?;
    let service = match &traces {
        Some(traces) => service.with_traces(traces.clone()),
        None => service,
    };
    let connections = connection_settings(&config, connections_max, streams, tls.clone());
    let (service, operators) = match operating {
        Some(listener) => {
            let (service, apart) = service.apart(http_settings(&config, metrics_address.ip().is_loopback()));
            (service, Some(Operators::serve(listener, apart, connections.clone())))
        }
        None => (service, None),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let mut server = pin!(http::serve(listener, service, connections, async {
        let _ = stopped.await;
    }));
    let mut alive = pin!(supervisor::tell_alive(&log));
    let failed = {
        let reloading = pin!(reload::at_each_hangup(&mut signals.hangup, tls.as_ref(), auth.as_ref(), &page));
        tokio::select! {
            () = &mut server => unreachable!("the server ends only when stopped"),
            () = &mut alive => unreachable!("it is told for ever"),
            () = reloading => None,
            result = task.wait() => result.err(),
            _ = signals.terminate.recv() => None,
            _ = signals.interrupt.recv() => None,
        }
    };
    // Readers are told and come back by themselves; requests under way are answered; then the writer and the file.
    let reason = if failed.is_some() { Closing::Unavailable } else { Closing::Drain };
    if let Some(error) = &failed {
        let error: &dyn std::error::Error = error;
        tracing::error!(error, "the log has failed, and nothing is acked any more");
    }
    tracing::info!(reason = reason.reason(), "stopping");
    supervisor::tell_stopping();
    closing.send_replace(Some(reason));
    let _ = stop.send(());
    let ending = async {
        tokio::select! {
            () = &mut server => {}
            () = &mut alive => unreachable!("it is told for ever"),
        }
        // Until here whoever asks is told that the server is stopping.
        if let Some(operators) = operators {
            operators.stop().await?;
        }
        if let Some(traces) = traces {
            traces.close().await;
        }
        if let Some(error) = failed {
            return Err(Failure::from_error(&error, ""));
        }
        log.close().await;
        task.wait().await.map_err(|error| Failure::from_error(&error, ""))?;
        tracing::info!("stopped");
        Ok(Exit::Ok)
    };
    tokio::select! {
        ended = ending => return ended,
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
    }
    // What was acked is on disk; the next start finds the file as after a crash.
    tracing::warn!("stopped at once, at a second signal");
    Ok(Exit::Interrupted)
}

/// What the server does when it is sent which signal.
struct Signals {
    /// Stop; and again: stop at once.
    terminate: Signal,
    /// As `terminate`.
    interrupt: Signal,
    /// Reload.
    hangup: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Where a passed socket listens is the address of the server, for every check that there is.
fn take_address(raw: &mut Raw, address: SocketAddr) -> Result<(), Failure> {
    let address = address.to_string();
    match raw.insert("EVERTAIL_LISTEN", address.clone()) {
        Some(given) if given.trim() != address => Err(Failure::usage(format!(
            "EVERTAIL_LISTEN is {given:?}, and the supervisor passed a socket that listens on {address}; leave EVERTAIL_LISTEN out"
        ))),
        _ => Ok(()),
    }
}

fn adopt(passed: std::net::TcpListener) -> Result<TcpListener, Failure> {
    http::adopt(passed).map_err(|source| {
        let next = "give its unit Accept=no";
        Failure::failed(format!(
            "the socket that the supervisor passed cannot be listened on: {source}; {next}"
        ))
    })
}

fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    http::bind(address).map_err(|source| {
        let next = format!("stop what listens there, or choose another address with {flag}");
        Failure::failed(format!("{address} cannot be listened on: {source}; {next}"))
    })
}

/// The port that is for who operates the server.
struct Operators {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Operators {
    fn serve(listener: TcpListener, service: Service, settings: ConnectionSettings) -> Self {
        let (stop, stopped) = oneshot::channel();
        let settings = ConnectionSettings { connections_max: OPERATORS_MAX, ..settings };
        let task = tokio::spawn(http::serve(listener, service, settings, async {
            let _ = stopped.await;
        }));
        Self { stop, task }
    }

    async fn stop(self) -> Result<(), Failure> {
        let _ = self.stop.send(());
        self.task.await.map_err(|error| Failure::from_error(&error, "report it"))
    }
}

/// `pages` are where the page is, and the metrics.
fn tell_serving(config: &Config, log: &Log, (page, metrics): (&str, &str), connections_max: usize) {
    if cfg!(feature = "without-storage") {
        tracing::warn!("this build acks without storing anything; it is for benchmarks alone");
    }
    let file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
    tracing::info!(
        page,
        api = format!("{page}api/v1"),
        file = %file.display(),
        metrics,
        log = log.id(),
        last_seq = log.bounds().last_seq,
        connections_max,
        version = super::version::version(),
        "serving"
    );
    supervisor::tell_ready(&format!("serving on {page}"));
}

async fn authentication(log: &Log, config: &AuthConfig) -> Result<Auth, Failure> {
    let keys = config.jwt_keys.as_ref().map(|keys| match keys {
        JwtKeys::KeyFile(path) => KeySource::KeyFile(path.clone()),
        JwtKeys::SetFile(path) => KeySource::SetFile(path.clone()),
        JwtKeys::SetUrl(url) => KeySource::SetUrl(url.clone()),
    });
    let settings = AuthSettings {
        keys,
        issuer: config.jwt_issuer.clone(),
        audience: config.jwt_audience.clone(),
        anonymous_read: config.anonymous_read.clone(),
    };
    let auth = Auth::open(log, settings).await.map_err(|error| Failure::from_error(&error, ""))?;
    if !auth.has_credentials() {
        tracing::warn!(
            "there is no token yet, so nobody is let in; stop, and make one with `evertail token create --admin --file ...`"
        );
    }
    Ok(auth)
}

/// Raises the soft descriptor limit to the hard one, and says how many connections fit below it.
fn connections_within_descriptors(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { raised.current } else { limit.current };
    let Some(current) = current else { return wanted };
    let fitting = usize::try_from(current.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(usize::MAX);
    let fitting = fitting.saturating_sub(turned_away_max(fitting)).max(1);
    if fitting < wanted {
        tracing::warn!(
            wanted,
            fitting,
            "the descriptor limit allows fewer connections than EVERTAIL_CONNECTIONS_MAX"
        );
    }
    wanted.min(fitting)
}

/// Where open streams are sent: threads that give way to those that answer requests and commit.
pub(super) fn stream_threads() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("evertail-stream")
        .on_thread_start(|| {
            // Of this thread alone. Where it is refused all threads are equal, which is no harm.
            let _ = setpriority_process(None, STREAM_NICENESS);
        })
        .build()
}

pub(super) fn log_settings(config: &Config) -> LogSettings {
    LogSettings {
        store: StoreSettings {
            file: config.file.clone(),
            read_connections: config.read_connections,
            busy_timeout: config.busy_timeout,
            is_checkpointing: config.is_checkpointing,
        },
        queue_requests_max: config.queue_requests_max,
        queue_bytes_max: config.queue_bytes_max,
        window_bytes_max: config.window_bytes_max,
        disk_free_bytes_min: config.disk_free_bytes_min,
        retention: config.retention.clone(),
        catch_up_pages_max: config.catch_up_pages_max,
        notice_interval: NOTICE_INTERVAL,
    }
}

fn http_settings(config: &Config, is_loopback: bool) -> HttpSettings {
    HttpSettings {
        origins: OriginSettings {
            is_loopback,
            allowed_origins: config.allowed_origins.clone(),
            allowed_hosts: config.allowed_hosts.clone(),
        },
        limits: LimitSettings {
            address_connections_max: config.address_connections_max,
            client_streams_max: config.client_streams_max,
            client_requests_per_second: config.client_requests_per_second,
            stream_age_max: config.stream_age_max,
            counts_this_machine: false,
        },
        trusted_proxies: config.trusted_proxies.clone(),
        uri_bytes_max: config.uri_bytes_max,
        depth_max: config.depth_max,
        event_bytes_max: config.event_bytes_max,
        batch_events_max: config.batch_events_max,
        batch_bytes_max: config.batch_bytes_max,
        body_timeout: config.body_timeout,
        page_bytes_max: config.page_bytes_max,
        keep_alive: config.keep_alive,
        retry: config.retry,
    }
}

fn connection_settings(
    config: &Config,
    connections_max: usize,
    streams: &Handle,
    tls: Option<Tls>,
) -> ConnectionSettings {
    ConnectionSettings {
        connections_max,
        headers_max: config.headers_max,
        header_bytes_max: config.header_bytes_max,
        header_timeout: config.header_timeout,
        idle_timeout: config.idle_timeout,
        send_timeout: config.send_timeout,
        send_buffer_bytes: config.send_buffer_bytes,
        drain_timeout: config.drain_timeout,
        streams: streams.clone(),
        tls,
    }
}
