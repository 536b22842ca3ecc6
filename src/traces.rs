//! Spans of requests, sent to an OpenTelemetry collector where there is one.
//!
//! The only place that knows OpenTelemetry. Layer L1: imports nothing of this crate, and knows no route and no event.
//!
//! A span is made when its request is answered, from what is known by then, so that a request costs nothing where spans are
//! not asked for and one call where they are. They are sent in batches by a thread of the SDK. If they come faster than the
//! collector takes them, the queue is full and some are lost: nothing of the log waits for a collector.

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

/// How long a collector may take to answer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last spans to be taken.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Most of a collector's answer that is looked at. *Units*: bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why no spans can be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// There is no HTTP client.
    #[error("spans cannot be sent")]
    Client(#[source] reqwest::Error),
    /// The endpoint is none, or a variable of OpenTelemetry is not what it should be.
    #[error("spans cannot be sent there")]
    Exporter(#[source] ExporterBuildError),
}

/// Where spans go. Cheap to clone; the task behind it is a thread of the SDK, which [`Traces::close`] ends.
#[derive(Debug, Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// Its method.
    pub method: &'static str,
    /// Its route as a template, if it has one.
    pub route: Option<&'static str>,
    /// Its id, by which the server's own log names it.
    pub request_id: &'a str,
    /// The span that it is part of: version 00, checked.
    pub traceparent: Option<&'a str>,
    /// The status of its answer.
    pub status: u16,
    /// When it came.
    pub began: Instant,
}

impl Traces {
    /// Sends spans to this URL, as OTLP over HTTP in protobuf. Requests are made on this runtime.
    ///
    /// *Errors*: see [`TracesError`]. A collector that does not answer is none: it may come.
    pub fn to(endpoint: &str, runtime: Handle) -> Result<Self, TracesError> {
        // For the process, once. Whoever was first has taken one that does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(EXPORT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("evertail/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(TracesError::Client)?;
        let collector = Collector { http, runtime, is_refusing: Arc::default() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(TracesError::Exporter)?;
        let resource = Resource::builder()
            .with_service_name("evertail")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            // Whoever began the trace has decided whether it is recorded.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .build();
        let tracer = provider.tracer("evertail");
        // The last of them to go would wait for the collector. Only `close` does, where there is time to.
        std::mem::forget(provider.clone());
        Ok(Self { provider, tracer })
    }

    /// Makes the span of a request. Waits for nothing.
    pub fn add(&self, request: &Answered<'_>) {
        let ended = SystemTime::now();
        let began = ended.checked_sub(request.began.elapsed()).unwrap_or(ended);
        let name = match request.route {
            Some(route) => format!("{} {route}", request.method),
            None => request.method.to_owned(),
        };
        let mut attributes = vec![
            KeyValue::new("http.request.method", request.method),
            KeyValue::new("http.response.status_code", i64::from(request.status)),
            KeyValue::new("evertail.request_id", request.request_id.to_owned()),
        ];
        attributes.extend(request.route.map(|route| KeyValue::new("http.route", route)));
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_start_time(began)
            .with_attributes(attributes);
        let parent = request
            .traceparent
            .and_then(remote)
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let mut span = self.tracer.build_with_context(span, &parent);
        if request.status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(ended);
    }

    /// Sends what is left, for two seconds at most.
    ///
    /// *Cancel safety*: what is left may be lost.
    pub async fn close(self) {
        // An error is a collector that does not take them, which has been told.
        let _ = spawn_blocking(move || self.provider.shutdown_with_timeout(CLOSE_TIMEOUT)).await;
    }
}

/// The span that a `traceparent` of version 00 names.
fn remote(traceparent: &str) -> Option<SpanContext> {
    let mut fields = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(fields.next()?).ok()?;
    let span = SpanId::from_hex(fields.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(fields.next()?, 16).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::default()))
}

/// The collector, asked from the thread of the SDK, which is none of the runtime.
#[derive(Debug)]
struct Collector {
    http: reqwest::Client,
    runtime: Handle,
    /// It has been said that it takes nothing, and is not said again until it did.
    is_refusing: Arc<AtomicBool>,
}

/// What [`HttpClient`] returns.
type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Collector {
    fn send_bytes<'s, 'a>(&'s self, request: Request<Bytes>) -> Sending<'a>
    where
        's: 'a,
        Self: 'a,
    {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move { send(http, request).await });
        let is_refusing = self.is_refusing.clone();
        Box::pin(async move {
            let answered = sent.await.map_err(HttpError::from).flatten();
            let was_refusing = is_refusing.load(Ordering::Relaxed);
            let is_taken = answered.as_ref().is_ok_and(|answer| answer.status().is_success());
            is_refusing.store(!is_taken, Ordering::Relaxed);
            if !is_taken && !was_refusing {
                let status = answered.as_ref().ok().map(|answer| answer.status().as_u16());
                let error =
                    answered.as_ref().err().map(|error| &**error as &(dyn std::error::Error + 'static));
                tracing::warn!(status, error, "the collector takes no spans; they are lost until it does");
            }
            answered
        })
    }
}

async fn send(http: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = http.execute(request.try_into()?).await?;
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX
        && let Some(chunk) = answer.chunk().await?
    {
        bytes.extend_from_slice(&chunk);
    }
    Ok(Response::builder().status(answer.status()).body(bytes.into())?)
}
