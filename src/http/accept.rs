//! Content negotiation of the read routes.

use super::{Problem, ProblemCode, cloudevents};
use axum::http::{HeaderMap, header};

/// What a read route can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Representation {
    /// `text/event-stream`.
    Sse,
    /// `application/json`: one page.
    Json,
    /// `application/x-ndjson`: everything up to now, a line each.
    Lines,
    /// `text/csv`: everything up to now, a record each.
    Csv,
    /// `application/cloudevents-batch+json`: everything up to now, an array of CloudEvents.
    CloudEvents,
}

/// What each media range asks for; the first line of a group is what the range means when several fit.
const RANGES: [(&str, Representation); 9] = [
    ("text/event-stream", Representation::Sse),
    ("text/*", Representation::Sse),
    ("*/*", Representation::Sse),
    ("application/json", Representation::Json),
    ("application/*", Representation::Json),
    ("application/x-ndjson", Representation::Lines),
    ("application/ndjson", Representation::Lines),
    ("text/csv", Representation::Csv),
    (cloudevents::BATCH, Representation::CloudEvents),
];

/// Whether one event is sent as a CloudEvent.
const RANGES_OF_ONE: [(&str, bool); 4] =
    [("application/json", false), ("application/*", false), ("*/*", false), (cloudevents::ONE, true)];

/// Picks the best of what the client accepts.
///
/// No header is `*/*`: SSE. *Errors*: nothing fits, 406.
pub(super) fn negotiate(headers: &HeaderMap) -> Result<Representation, Problem> {
    match best(headers, &RANGES) {
        Some(representation) => Ok(representation),
        None if !headers.contains_key(header::ACCEPT) => Ok(Representation::Sse),
        None => {
            let detail = "accept text/event-stream, application/json, application/x-ndjson, text/csv or \
                          application/cloudevents-batch+json";
            Err(Problem::new(ProblemCode::NotAcceptable, detail))
        }
    }
}

/// Whether the client asks for an event stream by its name, as an EventSource does, and not for whatever there is.
pub(super) fn is_event_source(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).filter_map(|range| range.split(';').next());
    let is_named = names.map(str::trim).any(|name| name.eq_ignore_ascii_case("text/event-stream"));
    is_named && negotiate(headers).is_ok_and(|best| best == Representation::Sse)
}

/// Whether the client wants one event as a CloudEvent rather than as JSON, which everyone else gets.
pub(super) fn wants_cloud_event(headers: &HeaderMap) -> bool {
    best(headers, &RANGES_OF_ONE) == Some(true)
}

/// Whether CSV begins with the names of its columns (RFC 4180: the parameter `header` of its type).
pub(super) fn wants_header(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    !values.flat_map(|value| value.split([',', ';'])).any(|part| part.trim() == "header=absent")
}

/// The best of what fits: by quality, then by how specific the range is, then by its order.
fn best<T: Copy>(headers: &HeaderMap, ranges: &[(&str, T)]) -> Option<T> {
    let mut best: Option<(u16, bool, T)> = None;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let Some((_, meaning)) = ranges.iter().find(|(known, _)| *known == name) else { continue };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, per_mille);
            let candidate = (quality, !name.ends_with('*'), *meaning);
            let is_better = best.is_none_or(|(q, exact, _)| (candidate.0, candidate.1) > (q, exact));
            if quality > 0 && is_better {
                best = Some(candidate);
            }
        }
    }
    best.map(|(_, _, meaning)| meaning)
}

/// For a route that has nothing but JSON to send. No header is `*/*`.
///
/// *Errors*: JSON is not accepted, 406.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut best: Option<(usize, u16)> = None;
    let mut is_given = false;
    for value in headers.get_all(header::ACCEPT) {
        is_given = true;
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            // The most specific range that means JSON decides (RFC 9110, section 12.5.1).
            let ranges = ["*/*", "application/*", "application/json"];
            let Some(precision) = ranges.iter().position(|known| *known == name) else { continue };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, per_mille);
            best = best.max(Some((precision, quality)));
        }
    }
    match best {
        None if !is_given => Ok(()),
        Some((_, 1..)) => Ok(()),
        _ => Err(Problem::new(
            ProblemCode::NotAcceptable,
            "accept application/json, which is all that is here",
        )),
    }
}

fn per_mille(quality: &str) -> u16 {
    quality.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_best_accepted_representation_is_sent() {
        for (accept, expected) in [
            ("text/event-stream", Some(Representation::Sse)),
            ("*/*", Some(Representation::Sse)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some(Representation::Sse)),
            ("application/json, */*", Some(Representation::Json)),
            ("Application/JSON;q=0.5, application/x-ndjson", Some(Representation::Lines)),
            ("application/json;q=0, application/ndjson;q=0.1", Some(Representation::Lines)),
            ("text/csv; header=absent", Some(Representation::Csv)),
            ("application/json;q=0.9, application/cloudevents-batch+json", Some(Representation::CloudEvents)),
            ("application/cloudevents+json", None),
            ("text/html", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(negotiate(&headers).ok(), expected, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()).ok(), Some(Representation::Sse));
    }
}
