//! Content negotiation of the read routes.

use super::{Problem, ProblemCode};
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
    Csv {
        /// The first record names the columns (RFC 4180, `header=absent` for none).
        has_header: bool,
    },
}

/// What each media range asks for; the first line of a group is what the range means when several fit.
const RANGES: [(&str, Representation); 8] = [
    ("text/event-stream", Representation::Sse),
    ("text/*", Representation::Sse),
    ("*/*", Representation::Sse),
    ("application/json", Representation::Json),
    ("application/*", Representation::Json),
    ("application/x-ndjson", Representation::Lines),
    ("application/ndjson", Representation::Lines),
    ("text/csv", Representation::Csv { has_header: true }),
];

/// Picks the best of what the client accepts: by quality, then by how specific the range is, then by its order.
///
/// No header is `*/*`: SSE. *Errors*: nothing fits, 406.
pub(super) fn negotiate(headers: &HeaderMap) -> Result<Representation, Problem> {
    let mut best: Option<(u16, bool, Representation)> = None;
    let mut is_given = false;
    for value in headers.get_all(header::ACCEPT) {
        is_given = true;
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let Some((_, representation)) = RANGES.iter().find(|(known, _)| *known == name) else { continue };
            let parameters: Vec<&str> = parts.collect();
            let quality = parameters.iter().find_map(|part| part.strip_prefix("q=")).map_or(1000, per_mille);
            let representation = match *representation {
                Representation::Csv { .. } => {
                    Representation::Csv { has_header: !parameters.contains(&"header=absent") }
                }
                other => other,
            };
            let candidate = (quality, !name.ends_with('*'), representation);
            let is_better = best.is_none_or(|(q, exact, _)| (candidate.0, candidate.1) > (q, exact));
            if quality > 0 && is_better {
                best = Some(candidate);
            }
        }
    }
    match best {
        Some((_, _, representation)) => Ok(representation),
        None if !is_given => Ok(Representation::Sse),
        None => {
            let detail = "accept text/event-stream, application/json, application/x-ndjson or text/csv";
            Err(Problem::new(ProblemCode::NotAcceptable, detail))
        }
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
            ("text/csv", Some(Representation::Csv { has_header: true })),
            ("text/csv; header=absent", Some(Representation::Csv { has_header: false })),
            ("text/html", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(negotiate(&headers).ok(), expected, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()).ok(), Some(Representation::Sse));
    }
}
