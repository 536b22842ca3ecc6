//! `POST /api/v1/{stream}` and `POST /api/v1/events`: append one event or a batch.

use super::envelope::{self, Context, Envelope};
use super::problem::MemberError;
use super::service::numbered;
use super::{App, Caller, Closing, Problem, ProblemCode, body};
use crate::event::{Content, IdempotencyKey, NameError, Receipt, StreamName};
use crate::log::{Append, AppendError, ExpectedLastSeq, Refusal};
use crate::wire::put_receipt;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Incoming;

/// A stream that the API may append to.
pub(super) fn appendable(stream: StreamName) -> Result<StreamName, Problem> {
    match stream.check_appendable() {
        Ok(()) => Ok(stream),
        Err(_) => {
            let detail = format!("`{stream}` is the server's own stream; append to another");
            Err(Problem::new(ProblemCode::StreamReserved, detail))
        }
    }
}

/// Appends a body to a stream, or to the streams that its events name.
pub(super) async fn append(
    app: &App,
    stream: Option<StreamName>,
    headers: &HeaderMap,
    body: &mut Incoming,
    caller: &Caller,
) -> Result<Response, Problem> {
    if let Some(closing) = app.closing() {
        return Err(Problem::closing(closing));
    }
    if let Some(stream) = &stream {
        app.access.check_append(stream)?;
    }
    let key = idempotency_key(headers)?;
    let expected = expected_last_seq(headers, stream.as_ref())?;
    let bytes = body::read(headers, body, &app.settings).await?;
    let context = Context {
        stream: stream.as_ref(),
        key: key.as_ref(),
        traceparent: caller.asked.traceparent(),
        settings: &app.settings,
    };
    let Envelope { contents, is_batch } = envelope::read_request(headers, &bytes, &context)?;
    drop(bytes);
    if contents.is_empty() {
        return Ok(answer(&[], true));
    }
    if stream.is_none() {
        check_streams(app, &contents, is_batch)?;
    }
    let receipts = app
        .log
        .append(Append { contents, expected, origin: None })
        .await
        .map_err(|error| append_problem(error, is_batch))?;
    Ok(answer(&receipts, is_batch))
}

/// *Errors*: one of the events is for a stream that may not be appended to; then none is stored.
fn check_streams(app: &App, contents: &[Content], is_batch: bool) -> Result<(), Problem> {
    for (index, content) in contents.iter().enumerate() {
        if let Err(problem) = app.access.check_append(&content.stream) {
            let pointer = if is_batch { format!("/{index}/stream") } else { "/stream".to_owned() };
            let errors = [MemberError { pointer, detail: "is not granted".into() }];
            return Err(problem.with_errors(&errors));
        }
    }
    Ok(())
}

/// The receipts as an answer: 201 if any event is new.
pub(super) fn answer(receipts: &[Receipt], is_batch: bool) -> Response {
    let is_new = receipts.iter().any(|receipt| !receipt.is_duplicate);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let mut body = Vec::with_capacity(receipts.len() * 128);
    match receipts {
        [receipt] if !is_batch => {
            put_receipt(&mut body, receipt);
            let mut response = json(status, body);
            response.headers_mut().insert(header::LOCATION, numbered("/api/v1/events/", receipt.seq));
            response
        }
        _ => {
            body.push(b'[');
            for receipt in receipts {
                if body.len() > 1 {
                    body.push(b',');
                }
                put_receipt(&mut body, receipt);
            }
            body.push(b']');
            json(status, body)
        }
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    // Room for what every answer gets later.
    response.headers_mut().reserve(6);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| NameError::Control);
    text.and_then(IdempotencyKey::parse).map(Some).map_err(|error| {
        Problem::new(ProblemCode::IdempotencyKeyInvalid, format!("the Idempotency-Key {error}"))
    })
}

/// `If-Match: "41"`: the newest seq of the stream, or of the whole log, must be 41.
pub(super) fn expected_last_seq(
    headers: &HeaderMap,
    stream: Option<&StreamName>,
) -> Result<Option<ExpectedLastSeq>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let digits = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let seq = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match seq.and_then(|digits| digits.parse().ok()) {
        Some(seq) => Ok(Some(ExpectedLastSeq { stream: stream.cloned(), seq })),
        None => {
            let detail =
                "If-Match takes one seq in quotes, such as \"41\", or \"0\" for a stream without events";
            Err(Problem::new(ProblemCode::PreconditionInvalid, detail))
        }
    }
}

/// Why nothing was stored, or why that is not known.
pub(super) fn append_problem(error: AppendError, is_batch: bool) -> Problem {
    match error {
        AppendError::QueueFull => {
            Problem::new(ProblemCode::QueueFull, "nothing was stored; repeat the request")
        }
        AppendError::DiskFull => {
            Problem::new(ProblemCode::DiskFull, "nothing was stored; repeat the request when there is space")
        }
        AppendError::Busy => Problem::new(ProblemCode::LogBusy, "nothing was stored; repeat the request"),
        AppendError::Closed => Problem::closing(Closing::Drain),
        AppendError::Unavailable => Problem::closing(Closing::Unavailable),
        AppendError::Refused(Refusal::IdReused { index, seq }) => {
            let detail =
                format!("the event with this id is seq {seq} and differs; give a new event a new id");
            id_reused(detail, is_batch.then_some(index)).with("seq", seq)
        }
        AppendError::Refused(Refusal::IdTwice { index }) => {
            let detail = "an earlier event of the batch has this id and differs; give each event its own id";
            id_reused(detail.to_owned(), Some(index))
        }
        AppendError::Refused(Refusal::StreamClosed { index, seq }) => {
            let pointer = if is_batch { format!("/{index}") } else { String::new() };
            let errors = [MemberError { pointer, detail: "its stream is closed".into() }];
            let detail = "the stream has its final event; append to another stream";
            let problem = Problem::new(ProblemCode::StreamClosed, detail).with_errors(&errors);
            seq.into_iter().fold(problem, |problem, seq| problem.with("closed_seq", seq))
        }
        AppendError::Refused(Refusal::LastSeqDiffers { last_seq }) => {
            let detail =
                format!("the last seq is {last_seq}; read up to it, decide again, and send it as If-Match");
            Problem::new(ProblemCode::PreconditionFailed, detail).with("last_seq", last_seq)
        }
    }
}

fn id_reused(detail: String, index: Option<usize>) -> Problem {
    let pointer = index.map_or_else(|| "/id".to_owned(), |index| format!("/{index}/id"));
    let errors = [MemberError { pointer, detail: "is used already".into() }];
    Problem::new(ProblemCode::IdReused, detail).with_errors(&errors)
}
