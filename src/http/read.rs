//! `GET`: the log and its streams as SSE, JSON or NDJSON, one event, and the few routes beside the API.

use super::accept::{Representation, negotiate, wants_cloud_event, wants_header};
use super::query::{self, ReadQuery};
use super::service::{Answer, AnswerBody};
use super::{
    App, Caller, Closing, Problem, ProblemCode, cloudevents, form, history, page, stream as event_stream,
};
use crate::event::{EventText, Selection, Seq, StreamName};
use crate::frames::Frames;
use crate::wire::cloud;
use axum::Extension;
use axum::body::Body;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

/// The plain live page.
pub(super) async fn console() -> Response {
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("console.html")).into_response()
}

/// The process runs.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Appends are taken.
pub(super) async fn readyz(Extension(app): Extension<App>) -> Result<&'static str, Problem> {
    match app.closing() {
        None if app.log.is_open() => Ok("ready\n"),
        closing => Err(Problem::closing(closing.unwrap_or(Closing::Unavailable))),
    }
}

/// One stream, or the whole log. `client` is who asks.
pub(super) async fn read(
    app: &App,
    request: &Parts,
    stream: Option<StreamName>,
    caller: &Caller,
) -> Result<Answer, Problem> {
    let representation = negotiate(&request.headers)?;
    let query = request.uri.query().unwrap_or_default();
    app.access.check_reader()?;
    let mut query: ReadQuery = query::read(&request.headers, query, stream.as_ref())?;
    query.selection.granted = app.access.reading();
    query.share = app.limits.history(caller.client.as_ref());
    if query.is_descending && representation != Representation::Json {
        return Err(query::parameter("order", "can be desc only for a JSON page"));
    }
    if query.with_producer {
        check_producer(app)?;
        if representation != Representation::Json {
            return Err(query::parameter("producer", "can be given only for a JSON page or one event"));
        }
    }
    match representation {
        Representation::Sse => event_stream::open(app, query, caller, &request.headers).await,
        Representation::Json => {
            Ok(page::json(app, query, stream.as_ref(), &request.headers).await?.map(AnswerBody::Whole))
        }
        Representation::Lines => Ok(history::lines(app, query).await?.map(AnswerBody::Whole)),
        Representation::Csv => {
            let has_header = wants_header(&request.headers);
            Ok(history::csv(app, query, has_header).await?.map(AnswerBody::Whole))
        }
        Representation::CloudEvents => Ok(history::cloud_events(app, query).await?.map(AnswerBody::Whole)),
    }
}

/// One event, as JSON or as a CloudEvent.
pub(super) async fn event(app: &App, request: &Parts, seq: &str) -> Result<Response, Problem> {
    let digits = Some(seq).filter(|seq| seq.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(seq) = digits.and_then(|seq| seq.parse::<Seq>().ok()) else {
        return Err(Problem::new(
            ProblemCode::CursorInvalid,
            "an event is named by its seq, a whole number from 1",
        ));
    };
    app.access.check_reader()?;
    let granted = Selection { granted: app.access.reading(), ..Selection::all() };
    let with_producer = with_producer(app, request)?;
    // Before the look: an event that comes meanwhile is not one that went.
    let last_seq = app.log.bounds().last_seq;
    let found = app.log.event(seq).await;
    match found.map(|event| event.filter(|event| granted.may_read(event.content.stream.as_str()))) {
        Ok(Some(event)) if wants_cloud_event(&request.headers) => {
            let mut json = Vec::with_capacity(event.content.size_bytes() + 400);
            cloud::put_cloud_event(&mut json, &EventText::of(&event, &event.created_at.to_string()));
            Ok(([(header::CONTENT_TYPE, cloudevents::ONE)], json).into_response())
        }
        Ok(Some(event)) => {
            let mut json = Frames::encode(&[event]).first_json();
            if with_producer {
                json = page::with_producers(app, &[json]).await?.swap_remove(0);
            }
            Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(json)).into_response())
        }
        Ok(None) => {
            let bounds = app.log.bounds();
            if (1..bounds.first_seq).contains(&seq) {
                return Err(Problem::gone(bounds.first_seq));
            }
            // Whoever may not read all streams is not told which of the others an event is missing from.
            if granted.granted.is_none() && (bounds.first_seq..=last_seq).contains(&seq) {
                // Seqs have no holes but those that trims of single streams have made.
                let detail = format!(
                    "seq {seq} was trimmed with the oldest events of its stream; read what is left after it"
                );
                return Err(Problem::new(ProblemCode::Gone, detail).with("first_seq", bounds.first_seq));
            }
            let detail = match seq > last_seq {
                true => format!("the newest event is seq {}", bounds.last_seq),
                false => "there is none with this seq that you may read".to_owned(),
            };
            Err(Problem::new(ProblemCode::EventNotFound, detail).with("last_seq", bounds.last_seq))
        }
        Err(error) => Err(Problem::read_failed(&error)),
    }
}

/// Whether the one parameter of this route is given: `producer=true`.
fn with_producer(app: &App, request: &Parts) -> Result<bool, Problem> {
    for pair in form::pairs(request.uri.query().unwrap_or_default()).filter_map(Result::ok) {
        if pair.0 == "producer" && query::flag(&pair.0, &pair.1)? {
            return check_producer(app).map(|()| true);
        }
    }
    Ok(false)
}

/// *Errors*: who appended what is for who administers.
fn check_producer(app: &App) -> Result<(), Problem> {
    app.access.check_admin()
}
