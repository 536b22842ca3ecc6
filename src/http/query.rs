//! The query parameters of the read routes, and the cursor with all the names that clients give it.

use super::access::TICKET;
use super::{HttpSettings, Problem, ProblemCode, form};
use crate::event::{Condition, Pattern, Selection, Seq, StreamName, Timestamp};
use crate::frames::Format;
use crate::log::{From, Log, Reader, ReaderOptions};
use axum::http::HeaderMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most patterns for streams, and for types, of one reader.
pub(super) const PATTERNS_MAX: usize = 64;
/// Most conditions on the payload.
pub(super) const CONDITIONS_MAX: usize = 16;

/// The shape of an event on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Payload {
    /// The event's JSON.
    #[default]
    Event,
    /// Its `data` alone.
    Data,
    /// A CloudEvent.
    CloudEvent,
}

/// What a reader asks for.
#[derive(Debug)]
pub(super) struct ReadQuery {
    /// `None` when no cursor of any kind was given.
    pub(super) from: Option<From>,
    /// The log that the cursor belongs to.
    pub(super) log_id: Option<String>,
    pub(super) selection: Selection,
    pub(super) payload: Payload,
    /// Every type as a plain message.
    pub(super) as_message: bool,
    pub(super) limit: Option<u64>,
    /// End before the first event of this time.
    pub(super) until: Option<Timestamp>,
    /// End before this seq.
    pub(super) before: Option<Seq>,
    /// Newest first; pages only.
    pub(super) is_descending: bool,
    /// With who appended each event, and from where.
    pub(super) with_producer: bool,
    /// The parameters that are not the cursor, as given: what a link to the next page repeats.
    pub(super) rest: String,
    /// What its readers of history share with others of the same client.
    pub(super) share: Option<Arc<Semaphore>>,
}

impl ReadQuery {
    /// A reader for this query.
    pub(super) fn reader(&self, log: &Log, cursor: Seq, options: ReaderOptions) -> Reader {
        let mut reader = log.reader(cursor, options);
        if let Some(share) = &self.share {
            reader.share_history(share.clone());
        }
        reader
    }

    /// The options of a reader for this query, that follows the log for ever.
    pub(super) fn reader_options(&self, settings: &HttpSettings, format: Format) -> ReaderOptions {
        ReaderOptions {
            selection: self.selection.clone(),
            format,
            through: self.before.map(|before| before.saturating_sub(1)),
            until: self.until,
            limit: self.limit,
            page_bytes_max: settings.page_bytes_max,
        }
    }
}

/// Reads query and headers of a read route. `stream` is the one of the URL, `None` for the whole log.
///
/// The cursor is the `Last-Event-ID` header, else `last_event_id` in any of its spellings, else `after`, `since` or
/// `last`: a browser that reconnects repeats its URL, and its header says more than the URL does.
pub(super) fn read(
    headers: &HeaderMap,
    query: &str,
    stream: Option<&StreamName>,
) -> Result<ReadQuery, Problem> {
    let mut read = ReadQuery {
        from: None,
        log_id: None,
        selection: stream.map_or_else(Selection::all, Selection::stream),
        payload: Payload::default(),
        as_message: false,
        limit: None,
        until: None,
        before: None,
        is_descending: false,
        with_producer: false,
        rest: String::new(),
        share: None,
    };
    let header_cursor = header_cursor(headers)?.map(From::After);
    let mut query_cursor = None;
    let mut rest = form_urlencoded::Serializer::new(String::new());
    for pair in form::pairs(query) {
        let (name, value) = pair.map_err(|part| parameter(&part, "is not UTF-8"))?;
        let value = value.as_str();
        match name.as_str() {
            "last_event_id" | "lastEventID" | "lastEventId" => {
                once(&query_cursor, &name)?;
                query_cursor = Some(From::After(cursor(&name, value)?));
                continue;
            }
            "after" => start(&mut read.from, &name, From::After(cursor(&name, value)?))?,
            "since" => start(&mut read.from, &name, From::Since(time(&name, value)?))?,
            "last" => start(&mut read.from, &name, From::Last(number(&name, value)?))?,
            "before" => {
                once(&read.before, &name)?;
                read.before = Some(number(&name, value)?);
            }
            "until" => {
                once(&read.until, &name)?;
                let until = time(&name, value)?;
                read.until = Some(until);
                // A link repeats the time that was meant, not how long ago it was.
                rest.append_pair(&name, &until.to_string());
            }
            // Read before anything else, and repeated nowhere.
            TICKET => {}
            other => {
                member(&mut read, other, value, stream.is_some())?;
                rest.append_pair(other, value);
            }
        }
    }
    read.rest = rest.finish();
    read.from = header_cursor.or(query_cursor).or(read.from);
    Ok(read)
}

/// The selection of a query, and the query without its cursor as a link to the next page repeats it.
///
/// *Errors*: the parameter that cannot be used.
pub fn parse_query(query: &str, stream: Option<&StreamName>) -> Result<(Selection, String), Problem> {
    read(&HeaderMap::new(), query, stream).map(|read| (read.selection, read.rest))
}

/// A parameter that is not the cursor.
fn member(read: &mut ReadQuery, name: &str, value: &str, is_one_stream: bool) -> Result<(), Problem> {
    match name {
        "log" => {
            once(&read.log_id, name)?;
            read.log_id = Some(value.to_owned());
        }
        "limit" => {
            once(&read.limit, name)?;
            read.limit = Some(number(name, value)?);
        }
        "stream" if is_one_stream => {
            return Err(parameter(name, "is named by the path; select streams at /api/v1/events"));
        }
        "stream" => push(&mut read.selection.streams, name, value)?,
        "type" => push(&mut read.selection.types, name, value)?,
        "source" => push_name(&mut read.selection.filter.sources, name, value)?,
        "subject" => push_name(&mut read.selection.filter.subjects, name, value)?,
        "order" => match value {
            "asc" => read.is_descending = false,
            "desc" => read.is_descending = true,
            _ => return Err(parameter(name, "must be asc or desc")),
        },
        "producer" => read.with_producer = flag(name, value)?,
        "format" => {
            read.payload = match value {
                "event" => Payload::Event,
                "data" => Payload::Data,
                "cloudevents" => Payload::CloudEvent,
                _ => return Err(parameter(name, "must be event, data or cloudevents")),
            }
        }
        "event" => match value {
            "message" => read.as_message = true,
            _ => return Err(parameter(name, "must be message")),
        },
        _ => match Condition::parse(name, value) {
            Some(Ok(_)) if read.selection.filter.conditions.len() >= CONDITIONS_MAX => {
                return Err(parameter(name, &format!("is one of more than {CONDITIONS_MAX} conditions")));
            }
            Some(Ok(condition)) => read.selection.filter.conditions.push(condition),
            Some(Err(what)) => return Err(parameter(name, what)),
            None => {
                let known = "after, since, last, before, until, last_event_id, log, limit, order, stream, type, source, \
                             subject, data (with a member, as in data.actor=alice), format, event and producer";
                return Err(parameter(name, &format!("is not known; known are {known}")));
            }
        },
    }
    Ok(())
}

/// One more name or prefix.
pub(super) fn push(patterns: &mut Vec<Pattern>, name: &str, value: &str) -> Result<(), Problem> {
    let Some(pattern) = Pattern::parse(value) else {
        return Err(parameter(name, "must be a name, or a prefix such as orders.*"));
    };
    if patterns.len() >= PATTERNS_MAX {
        return Err(parameter(name, &format!("can be given at most {PATTERNS_MAX} times")));
    }
    patterns.push(pattern);
    Ok(())
}

fn push_name(names: &mut Vec<String>, name: &str, value: &str) -> Result<(), Problem> {
    if names.len() >= PATTERNS_MAX {
        return Err(parameter(name, &format!("can be given at most {PATTERNS_MAX} times")));
    }
    names.push(value.to_owned());
    Ok(())
}

fn start(from: &mut Option<From>, name: &str, value: From) -> Result<(), Problem> {
    if from.is_some() {
        return Err(parameter(name, "excludes the others of after, since and last; give one of them, once"));
    }
    *from = Some(value);
    Ok(())
}

/// *Errors*: the parameter was given before.
pub(super) fn once<T>(known: &Option<T>, name: &str) -> Result<(), Problem> {
    if known.is_some() { Err(parameter(name, "must be given once")) } else { Ok(()) }
}

/// The cursor that a client gives by itself when it comes back.
pub(super) fn header_cursor(headers: &HeaderMap) -> Result<Option<Seq>, Problem> {
    let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(None) };
    cursor("Last-Event-ID", value.to_str().unwrap_or_default()).map(Some)
}

/// A cursor: digits that SQLite's integers can hold.
fn cursor(name: &str, value: &str) -> Result<Seq, Problem> {
    let is_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse::<Seq>() {
        Ok(seq) if is_digits && i64::try_from(seq).is_ok() => Ok(seq),
        _ => {
            let detail =
                format!("{name} must be the seq of an event, 0 for the beginning, at most {}", i64::MAX);
            Err(Problem::new(ProblemCode::CursorInvalid, detail).with("parameter", name))
        }
    }
}

pub(super) fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(parameter(name, "must be true or false")),
    }
}

fn number(name: &str, value: &str) -> Result<u64, Problem> {
    match value.parse::<u64>() {
        Ok(number) if number > 0 && i64::try_from(number).is_ok() => Ok(number),
        _ => Err(parameter(name, "must be a whole number from 1")),
    }
}

/// A time, or how long ago. humantime takes a bare `0`, which whoever means the beginning must not be told is now.
fn time(name: &str, value: &str) -> Result<Timestamp, Problem> {
    let ago = || humantime::parse_duration(value).ok().filter(|_| value.trim() != "0");
    Timestamp::parse(value)
        .or_else(|| ago().map(|ago| Timestamp::now().minus(ago)))
        .ok_or_else(|| parameter(name, "must be an RFC 3339 time, or a duration such as 10m, 2h or 7d"))
}

/// A parameter that cannot be used.
pub(super) fn parameter(name: &str, what: &str) -> Problem {
    // The name may be anything that was sent: bounded, and JSON escapes the rest.
    let name: String = name.chars().take(64).collect();
    Problem::new(ProblemCode::ParameterInvalid, format!("the parameter {name} {what}"))
        .with("parameter", name)
}
