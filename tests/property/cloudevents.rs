//! Whatever an event says, its CloudEvent says the same when it is read as a body.

use crate::cases;
use evertail::event::{
    Content, Event, EventText, EventType, StreamName, Timestamp, check_id, check_subject, check_time,
    check_traceparent, compact,
};
use evertail::http::{HttpSettings, LimitSettings, OriginSettings, parse_body};
use evertail::wire::cloud::put_cloud_event;
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

fn settings() -> HttpSettings {
    HttpSettings {
        origins: OriginSettings { is_loopback: true, allowed_origins: vec![], allowed_hosts: vec![] },
        limits: LimitSettings::default(),
        trusted_proxies: vec![],
        uri_bytes_max: 8 << 10,
        depth_max: 64,
        event_bytes_max: 256 << 10,
        batch_events_max: 1,
        batch_bytes_max: 1 << 20,
        body_timeout: Duration::from_secs(1),
        page_bytes_max: 64 << 10,
        keep_alive: Duration::from_secs(15),
        retry: (Duration::ZERO, Duration::ZERO),
    }
}

/// Short texts of anything that is no control character, quotes and backslashes often.
fn text() -> impl Strategy<Value = String> {
    "[\"\\\\%a1 /]{1,6}|\\PC{1,20}"
}

fn data() -> impl Strategy<Value = Arc<str>> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("-0.10e+2".to_owned()),
        Just("12345678901234567890123".to_owned()),
        Just(r#""\u00e9\n\/""#.to_owned()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).expect("a string serialises")),
    ];
    let json = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[ {}]", items.join(" ,"))),
            inner.prop_map(|value| format!(r#"{{"data": {value},"id":null}}"#)),
        ]
    });
    json.prop_map(|json| compact(&json, 64).expect("it is JSON"))
}

fn content() -> impl Strategy<Value = Content> {
    let time = "20[0-9]{2}-0[1-9]-[01][1-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]0[0-9]:30)";
    let r#type = prop_oneof![Just("message".to_owned()), text()];
    let optional = || option::of(text());
    let span = option::of("(00-[0-9a-f]{31}1-[0-9a-f]{15}1-|01-[0-9a-f]{31}1-[0-9a-f]{15}1-)[0-9a-f]{2}");
    (optional(), optional(), r#type, optional(), option::of(time), span, option::of(data())).prop_filter_map(
        "a reserved type",
        |(source, id, r#type, subject, time, span, data)| {
            let mut content = Content::new(StreamName::parse("a").ok()?);
            content.source = source.map_or(Some(Arc::from("")), |source| check_id(&source).ok())?;
            content.id = id.map(|id| check_id(&id)).transpose().ok()?;
            content.r#type = EventType::parse(&r#type).ok()?;
            content.subject = subject.map(|subject| check_subject(&subject)).transpose().ok()?;
            content.time = time.map(|time| check_time(&time)).transpose().ok()?;
            content.traceparent = span.map(|span| check_traceparent(&span)).transpose().ok()?;
            content.data = data;
            Some(content)
        },
    )
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_cloud_event_is_read_as_the_event_it_was_made_of(content in content(), seq in 1_u64..) {
        let event = Event { seq, created_at: Timestamp::EPOCH, content };
        let mut body = Vec::new();
        put_cloud_event(&mut body, &EventText::of(&event, &event.created_at.to_string()));
        let stream = event.content.stream.clone();
        let read = parse_body("application/cloudevents+json", &body, &stream, &settings());
        let read = read.unwrap_or_else(|problem| panic!("{problem:?}"));
        let id = event.content.id.clone().unwrap_or_else(|| Arc::from(format!("{seq:020}")));
        prop_assert_eq!(read, [Content { id: Some(id), ..event.content }]);
    }
}
