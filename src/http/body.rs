//! Reading a request body: bounded in bytes and time, refused before it is sent where the headers already say too much.

use super::{HttpSettings, Problem, ProblemCode};
use axum::BoxError;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};

/// Most bytes that are read of a body that is refused. As many as the largest body that a setting allows.
const DISCARDED_BYTES_MAX: u64 = 64 << 20;

/// The whole body.
///
/// *Errors*: 413 beyond the limit (before a `100 Continue` where Content-Length tells), 408 when it takes too long, 415
/// for a content encoding, 400 when the connection broke.
pub(super) async fn read<B>(headers: &HeaderMap, body: B, settings: &HttpSettings) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let detail = "send the body without Content-Encoding";
        return Err(Problem::new(ProblemCode::ContentEncodingUnsupported, detail));
    }
    let bytes_max = settings.batch_bytes_max;
    let too_large = || {
        let detail = format!("send at most {bytes_max} bytes, in several requests");
        Problem::new(ProblemCode::BodyTooLarge, detail).with("bytes_max", bytes_max)
    };
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    let collected =
        tokio::time::timeout(settings.body_timeout, Limited::new(body, bytes_max).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(ProblemCode::RequestInvalid, "the body ended before it was complete")),
        Err(_) => {
            let seconds = settings.body_timeout.as_secs();
            let detail = format!("send the whole body within {seconds} seconds");
            Err(Problem::new(ProblemCode::RequestTimeout, detail))
        }
    }
}

/// Reads what is left of the body of a refused request, within bounds, and drops it.
///
/// A connection that is closed with bytes unread is reset: a client that sends before it reads, as proxies do, would see
/// that and not the refusal. Whoever has asked whether to send has been answered, and sends nothing.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Incoming, settings: &HttpSettings) {
    let announced = body.size_hint().exact();
    if headers.contains_key(header::EXPECT) || announced.is_some_and(|bytes| bytes > DISCARDED_BYTES_MAX) {
        return;
    }
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > DISCARDED_BYTES_MAX {
                break;
            }
        }
    };
    // However it ends, the answer is the refusal; where the next request begins is then hyper's to know.
    let _ = tokio::time::timeout(settings.body_timeout, rest).await;
}
