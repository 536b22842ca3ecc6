//! Spans of requests, as a collector gets them; and a collector that is not there.

use crate::server::{Launch, Place, lasting_port};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message;
use rustix::process::Signal;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PRODUCER: &str = "b7ad6b7169203331";

/// A collector, and what it was sent: the names of services and their spans.
async fn collector() -> (String, Arc<Mutex<Vec<(String, Span)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let spans: Arc<Mutex<Vec<(String, Span)>>> = Arc::default();
    let sent = spans.clone();
    let export = move |body: Bytes| async move {
        for resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            let service = resource.resource.unwrap().attributes.into_iter().find(|a| a.key == "service.name");
            let Some(Any::StringValue(service)) = service.unwrap().value.unwrap().value else { panic!() };
            let of_scopes = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            sent.lock().unwrap().extend(of_scopes.map(|span| (service.clone(), span)));
        }
        Bytes::new()
    };
    let router = Router::new().route("/v1/traces", post(export));
    tokio::spawn(axum::serve(listener, router).into_future());
    (endpoint, spans)
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    Some(match found.value.clone().unwrap().value.unwrap() {
        Any::StringValue(text) => text,
        Any::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_a_span_of_the_trace_of_its_producer() {
    let (endpoint, spans) = collector().await;
    let place = Place::new();
    let mut server = Launch::new(&place.file()).with("EVERTAIL_OTLP_ENDPOINT", endpoint).start().await;
    let http = crate::load::http_client();
    let url = |path: &str| format!("{}{path}", server.base);
    let traced = |flags: &str| format!("00-{TRACE}-{PRODUCER}-{flags}");
    for (request, status) in [
        (http.post(url("/api/v1/audits")).body("{}").header("traceparent", traced("01")), 201),
        // Whoever began that trace does not record it.
        (http.post(url("/api/v1/audits")).body("{}").header("traceparent", traced("00")), 201),
        (http.get(url("/api/v1/audits/none")), 404),
        (http.get(url("/healthz")), 200),
    ] {
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    let spans = spans.lock().unwrap().clone();
    assert!(spans.iter().all(|(service, _)| service == "evertail"));
    let spans: Vec<Span> = spans.into_iter().map(|(_, span)| span).collect();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["POST /api/v1/{stream}", "GET", "GET /healthz"]);
    let append = &spans[0];
    assert_eq!((hex(&append.trace_id), hex(&append.parent_span_id)), (TRACE.into(), PRODUCER.into()));
    assert_eq!(append.kind, SpanKind::Server as i32);
    for (name, value) in [
        ("http.request.method", Some("POST")),
        ("http.route", Some("/api/v1/{stream}")),
        ("http.response.status_code", Some("201")),
    ] {
        assert_eq!(attribute(append, name).as_deref(), value, "{name}");
    }
    assert!(attribute(append, "evertail.request_id").unwrap().starts_with("req-"));
    assert!(append.start_time_unix_nano <= append.end_time_unix_nano);
    let unset =
        |span: &Span| span.status.as_ref().is_none_or(|status| status.code == StatusCode::Unset as i32);
    assert!(spans.iter().all(unset), "what the client did wrong is no error of the server");
    assert_eq!(attribute(&spans[1], "http.route"), None);
    assert!(spans[1].parent_span_id.is_empty() && hex(&spans[1].trace_id) != TRACE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_costs_a_warning() {
    let place = Place::new();
    let mut server = Launch::new(&place.file())
        .with("EVERTAIL_OTLP_ENDPOINT", format!("http://127.0.0.1:{}/v1/traces", lasting_port()))
        .start()
        .await;
    let http = crate::load::http_client();
    for _ in 0..10 {
        let request = http.post(format!("{}/api/v1/audits", server.base)).body("{}");
        assert_eq!(request.send().await.unwrap().status(), 201);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    assert_eq!(server.times_said("the collector takes no spans"), 1);
}
