//! The table of operations: each method of each path, what it takes, what it needs, and every way in which it answers.
//!
//! Paths stand in the order in which they are matched: `events` is no stream. In a debug build the service holds every
//! problem that it answers against this table, so each test of a problem is a test of it.

use super::ProblemCode;
use super::ProblemCode::*;

/// What a credential must grant, where authentication is on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: everyone is answered.
    Nothing,
    /// Appending to the stream.
    Append,
    /// Reading anything at all; what may not be read is not there.
    Read,
    /// The same, and a ticket for the stream will do.
    ReadOfStream,
    /// Administering.
    Admin,
    /// Reading the metrics, which who administers may, too.
    Metrics,
    /// A token shown as such.
    Token,
}

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) needs: Needs,
    /// Names of `parameters`.
    pub(super) parameters: &'static [&'static [&'static str]],
    /// A name of `bodies`.
    pub(super) body: Option<&'static str>,
    /// Each status that is no problem, and a name of `answers`.
    pub(super) answers: &'static [(&'static str, &'static str)],
    /// Problems, beside those that any request may meet, and those of credentials.
    pub(super) problems: &'static [&'static [ProblemCode]],
}

/// What any request to any path may be answered.
pub(super) const ANY: &[ProblemCode] =
    &[RequestInvalid, HostRefused, OriginRefused, UriTooLong, RateLimited, ConnectionsFull, Internal];
/// Where a credential is looked at.
pub(super) const CREDENTIALS: &[ProblemCode] =
    &[Unauthorized, CredentialInvalid, CredentialExpired, KeysUnavailable];
/// Where something must be granted.
pub(super) const GRANTS: &[ProblemCode] = &[Forbidden];
/// Where there is no operation.
pub(super) const NOTHING_THERE: &[ProblemCode] = &[RouteNotFound, MethodNotAllowed];

/// Of a body, before it is looked into.
const BODY: &[ProblemCode] = &[BodyTooLarge, ContentEncodingUnsupported, RequestTimeout, Utf8Invalid];
/// Of a body that is events.
const EVENTS: &[ProblemCode] =
    &[BodyEmpty, ContentTypeUnsupported, JsonInvalid, EventInvalid, EventTooLarge, BatchTooLarge];
/// Of a body that is one small object.
const OBJECT: &[ProblemCode] = &[BodyInvalid, JsonInvalid, ContentTypeUnsupported];
/// Where the name of a stream is one of a route: `/api/v1/streams` takes no POST.
const ROUTE: &[ProblemCode] = &[MethodNotAllowed];
/// Of an append.
const APPEND: &[ProblemCode] =
    &[IdempotencyKeyInvalid, PreconditionInvalid, PreconditionFailed, IdReused, StreamClosed, QueueFull];
/// Of a change that must be durable.
const COMMIT: &[ProblemCode] = &[LogBusy, DiskFull, LogUnavailable, Draining];
/// Of reading events.
const READ: &[ProblemCode] = &[
    NotAcceptable,
    ParameterInvalid,
    CursorInvalid,
    Gone,
    CursorAhead,
    LogReplaced,
    StreamsFull,
    ReadFailed,
];
/// Of a route without parameters that answers JSON.
const PLAIN: &[ProblemCode] = &[NotAcceptable, ParameterInvalid];

/// The parameters that say which events are read, and how.
const READING: &[&str] = &[
    "Last-Event-ID",
    "last_event_id",
    "after",
    "since",
    "last",
    "before",
    "until",
    "limit",
    "order",
    "log",
    "type",
    "source",
    "subject",
    "data",
    "format",
    "event",
    "producer",
    "If-None-Match",
];

const APPENDING: &[&str] = &["Idempotency-Key", "If-Match", "traceparent"];

const APPEND_DESCRIPTION: &str = "An ack means that the events are in a committed, fsynced transaction. One event is \
    answered with a receipt, a batch with an array of receipts in its order: it is stored whole or not at all, and \
    problems name the index.\n\nA body that begins with `{` or `[` is JSON, whatever its content type says. An id makes \
    an event idempotent for ever: a repeat with the same content is answered with the original receipt and \
    `\"duplicate\":true`. CloudEvents are taken in structured and batch mode by their content types, \
    and in binary mode: the attributes are headers, of which `ce-specversion: 1.0`, `ce-id`, `ce-source` and `ce-type` are \
    needed and `ce-subject` and `ce-time` are optional, and the body is the data, `application/json` or `text/plain`.";

const READ_DESCRIPTION: &str = "By `Accept`: an event stream (also for `*/*`), a JSON page, everything up to now as \
    NDJSON, as CSV or as an array of CloudEvents.\n\nThe cursor is the `Last-Event-ID` header, else `last_event_id` (or \
    `lastEventID`, `lastEventId`), else one of `after`, `since` and `last`. Without one a stream is live from now, and \
    history begins at the beginning. An unknown parameter is refused.\n\n`order=desc` and `producer` are for JSON pages, \
    `format=data` and `event` for event streams. `last` excludes `order=desc`, `format=cloudevents` excludes CSV.\n\n\
    **Event stream.** Blocks as the HTML standard has them, `id` last:\n\n```text\n\
    retry: 3217\nevent: evertail.cursor\ndata: {\"first_seq\":1,\"last_seq\":41,\"log\":\"6f1c...\"}\nid: 41\n\n\
    event: user.login\ndata: {\"seq\":42,\"stream\":\"audits\",\"type\":\"user.login\",\"created_at\":\"...\",\"data\":{}}\n\
    id: 42\n```\n\nThe first block carries `retry` and hands out the \
    cursor. Control frames are named, so they never reach `onmessage`: `evertail.cursor` (CursorData, with the reader's \
    cursor as id), `evertail.gap` (GapData), `evertail.reset` (ResetData), `evertail.notice` (NoticeData: the stream is \
    about to end, and may be opened again); the last three carry no id. `evertail.closed` is the final event of a \
    stream. A line `:` is sent after silence. Where a client that names `text/event-stream` would be refused for now (no \
    place, too many requests, no valid credential), it is sent a stream of one `evertail.notice` that ends, since a native \
    EventSource takes anything else for the end.";

/// All of them.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/api/v1/events",
        id: "appendToLog",
        tag: "Append",
        summary: "Append events that each name their stream",
        description: APPEND_DESCRIPTION,
        needs: Needs::Append,
        parameters: &[APPENDING],
        body: Some("placed_events"),
        answers: &[("201", "appended"), ("200", "nothing_new")],
        problems: &[BODY, EVENTS, APPEND, COMMIT],
    },
    Operation {
        method: "get",
        path: "/api/v1/events",
        id: "readLog",
        tag: "Read",
        summary: "Read the whole log, or some of its streams",
        description: READ_DESCRIPTION,
        needs: Needs::Read,
        parameters: &[&["stream"], READING],
        body: None,
        answers: &[("200", "events"), ("204", "over"), ("304", "not_modified")],
        problems: &[READ],
    },
    Operation {
        method: "get",
        path: "/api/v1/events/{seq}",
        id: "readEvent",
        tag: "Read",
        summary: "Read one event",
        description: "As JSON, or by `Accept: application/cloudevents+json` as a CloudEvent.",
        needs: Needs::Read,
        parameters: &[&["seq", "producer"]],
        body: None,
        answers: &[("200", "event")],
        problems: &[&[CursorInvalid, ParameterInvalid, Gone, EventNotFound, ReadFailed]],
    },
    Operation {
        method: "get",
        path: "/api/v1/streams",
        id: "listStreams",
        tag: "List",
        summary: "List the streams",
        description: "By name, a page at a time. Counts and bytes are of what is retained.",
        needs: Needs::Read,
        parameters: &[&["stream", "after_name", "streams_limit", "If-None-Match"]],
        body: None,
        answers: &[("200", "streams"), ("304", "not_modified")],
        problems: &[PLAIN, &[LogBusy, ReadFailed]],
    },
    Operation {
        method: "get",
        path: "/api/v1/streams/{stream}",
        id: "readStreamTotals",
        tag: "List",
        summary: "Tell what is in one stream",
        description: "Its counts, bounds and sizes, and whether it is closed.",
        needs: Needs::Read,
        parameters: &[&["path_stream", "If-None-Match"]],
        body: None,
        answers: &[("200", "totals"), ("304", "not_modified")],
        problems: &[PLAIN, &[StreamInvalid, StreamNotFound, LogBusy, ReadFailed]],
    },
    Operation {
        method: "post",
        path: "/api/v1/{stream}/close",
        id: "closeStream",
        tag: "Append",
        summary: "Close a stream",
        description: "Appends its final event, of the type `evertail.closed`. A stream stays closed; closing it again is \
            answered with the same receipt.",
        needs: Needs::Append,
        parameters: &[&["path_stream", "If-Match"]],
        body: Some("closing"),
        answers: &[("201", "closed"), ("200", "closed_before")],
        problems: &[
            BODY,
            OBJECT,
            COMMIT,
            &[
                StreamInvalid,
                StreamReserved,
                PreconditionInvalid,
                PreconditionFailed,
                StreamClosed,
                QueueFull,
            ],
            ROUTE,
        ],
    },
    Operation {
        method: "post",
        path: "/api/v1/{stream}",
        id: "append",
        tag: "Append",
        summary: "Append one event or a batch",
        description: APPEND_DESCRIPTION,
        needs: Needs::Append,
        parameters: &[&["path_stream"], APPENDING],
        body: Some("events"),
        answers: &[("201", "appended"), ("200", "nothing_new")],
        problems: &[BODY, EVENTS, APPEND, COMMIT, &[StreamInvalid, StreamReserved], ROUTE],
    },
    Operation {
        method: "get",
        path: "/api/v1/{stream}",
        id: "read",
        tag: "Read",
        summary: "Read a stream",
        description: READ_DESCRIPTION,
        needs: Needs::ReadOfStream,
        parameters: &[&["path_stream"], READING],
        body: None,
        answers: &[("200", "events"), ("204", "over"), ("304", "not_modified")],
        problems: &[READ, &[StreamInvalid]],
    },
    Operation {
        method: "post",
        path: "/admin/trim",
        id: "trim",
        tag: "Administer",
        summary: "Trim the log or a stream, or say what would go",
        description: "Deletes a prefix: events from the oldest on that any criterion no longer keeps, up to the first hold. \
            With `dry_run` nothing is trimmed; `{\"dry_run\":true}` alone tells what retention as it is set would trim. A \
            trim goes on when the client does not wait for the answer.",
        needs: Needs::Admin,
        parameters: &[],
        body: Some("trim"),
        answers: &[("200", "trimmed")],
        problems: &[
            BODY,
            OBJECT,
            PLAIN,
            &[BodyEmpty, StreamNotFound, LogBusy, ReadFailed, TrimIncomplete, LogUnavailable, Draining],
        ],
    },
    Operation {
        method: "get",
        path: "/admin/holds",
        id: "listHolds",
        tag: "Administer",
        summary: "List the holds",
        description: "What a hold keeps, no trim and no retention deletes.",
        needs: Needs::Admin,
        parameters: &[],
        body: None,
        answers: &[("200", "holds")],
        problems: &[PLAIN, &[ReadFailed]],
    },
    Operation {
        method: "put",
        path: "/admin/holds/{stream}/{name}",
        id: "hold",
        tag: "Administer",
        summary: "Hold a stream",
        description: "Repeating it for the same reason changes nothing.",
        needs: Needs::Admin,
        parameters: &[&["hold_stream", "hold_name"]],
        body: Some("hold"),
        answers: &[("201", "held"), ("200", "held_before")],
        problems: &[
            BODY,
            OBJECT,
            PLAIN,
            COMMIT,
            &[BodyEmpty, StreamInvalid, HoldInvalid, HoldDiffers, HoldsFull],
        ],
    },
    Operation {
        method: "delete",
        path: "/admin/holds/{stream}/{name}",
        id: "release",
        tag: "Administer",
        summary: "Release a hold",
        description: "Answers what it was. The reason is given in the query, or in a body like that of a hold.",
        needs: Needs::Admin,
        parameters: &[&["hold_stream", "hold_name", "reason"]],
        body: None,
        answers: &[("200", "released")],
        problems: &[BODY, OBJECT, PLAIN, COMMIT, &[StreamInvalid, HoldInvalid, HoldNotFound]],
    },
    Operation {
        method: "get",
        path: "/admin/tokens",
        id: "listTokens",
        tag: "Administer",
        summary: "List the tokens",
        description: "All of them, the oldest first, revoked and expired ones too; never the secrets.",
        needs: Needs::Admin,
        parameters: &[],
        body: None,
        answers: &[("200", "tokens")],
        problems: &[PLAIN],
    },
    Operation {
        method: "post",
        path: "/admin/tokens",
        id: "createToken",
        tag: "Administer",
        summary: "Make a token",
        description: "The answer is the only place where the token itself is ever shown.",
        needs: Needs::Admin,
        parameters: &[],
        body: Some("token"),
        answers: &[("201", "token_made")],
        problems: &[BODY, OBJECT, PLAIN, COMMIT, &[BodyEmpty, TokensFull]],
    },
    Operation {
        method: "delete",
        path: "/admin/tokens/{id}",
        id: "revokeToken",
        tag: "Administer",
        summary: "Revoke a token",
        description: "At once, for open streams too. Revoking it again changes nothing.",
        needs: Needs::Admin,
        parameters: &[&["token_id"]],
        body: None,
        answers: &[("200", "token_revoked")],
        problems: &[PLAIN, COMMIT, &[TokenNotFound]],
    },
    Operation {
        method: "post",
        path: "/auth/session",
        id: "beginSession",
        tag: "Credentials",
        summary: "Get a cookie for a token",
        description: "For pages of this server, which cannot give an EventSource a header. Where authentication is off, \
            there is nothing here.",
        needs: Needs::Token,
        parameters: &[],
        body: None,
        answers: &[("204", "session")],
        problems: &[&[RouteNotFound]],
    },
    Operation {
        method: "delete",
        path: "/auth/session",
        id: "endSession",
        tag: "Credentials",
        summary: "Give the cookie back",
        description: "An old or invalid cookie too; without one, a token must be shown.",
        needs: Needs::Nothing,
        parameters: &[],
        body: None,
        answers: &[("204", "session")],
        problems: &[CREDENTIALS],
    },
    Operation {
        method: "post",
        path: "/auth/tickets",
        id: "createTicket",
        tag: "Credentials",
        summary: "Get a ticket for one stream",
        description: "A ticket goes into the URL of an EventSource of another origin, and opens that stream only, for a \
            while. Whether there is such a stream is not told. Where authentication is off, there is nothing here.",
        needs: Needs::Read,
        parameters: &[],
        body: Some("ticket"),
        answers: &[("201", "ticket")],
        problems: &[BODY, OBJECT, &[BodyEmpty, RouteNotFound]],
    },
    Operation {
        method: "get",
        path: "/",
        id: "console",
        tag: "Server",
        summary: "A live page",
        description: "Events as they come, in a browser.",
        needs: Needs::Nothing,
        parameters: &[],
        body: None,
        answers: &[("200", "page")],
        problems: &[],
    },
    Operation {
        method: "get",
        path: "/healthz",
        id: "healthz",
        tag: "Server",
        summary: "The process runs",
        description: "Nothing more is looked at.",
        needs: Needs::Nothing,
        parameters: &[],
        body: None,
        answers: &[("200", "word")],
        problems: &[],
    },
    Operation {
        method: "get",
        path: "/readyz",
        id: "readyz",
        tag: "Server",
        summary: "Appends are taken",
        description: "A full disk heals without a restart, and is no reason to be taken out of service.",
        needs: Needs::Nothing,
        parameters: &[],
        body: None,
        answers: &[("200", "word")],
        problems: &[&[Draining, LogUnavailable]],
    },
    Operation {
        method: "get",
        path: "/metrics",
        id: "metrics",
        tag: "Server",
        summary: "What the server counts and is",
        description: "For Prometheus. Where metrics have a port of their own, they are there alone.",
        needs: Needs::Metrics,
        parameters: &[],
        body: None,
        answers: &[("200", "metrics")],
        problems: &[&[RouteNotFound]],
    },
    Operation {
        method: "get",
        path: "/openapi.json",
        id: "openapi",
        tag: "Server",
        summary: "This document",
        description: "With the limits of the server that sends it.",
        needs: Needs::Nothing,
        parameters: &[&["If-None-Match"]],
        body: None,
        answers: &[("200", "document"), ("304", "not_modified")],
        problems: &[],
    },
];

impl Operation {
    /// Every problem that it may be answered with, those of credentials only where authentication is on.
    pub(super) fn codes(&self, with_auth: bool) -> impl Iterator<Item = ProblemCode> {
        let is_open = self.needs == Needs::Nothing;
        let of_credentials: &[&[ProblemCode]] = match (with_auth, self.needs) {
            (false, _) | (_, Needs::Nothing) => &[],
            (true, Needs::Token) => &[CREDENTIALS],
            (true, _) => &[CREDENTIALS, GRANTS],
        };
        let hidden: &[ProblemCode] = match (with_auth, is_open) {
            (false, true) => CREDENTIALS,
            (true, false) => &[RouteNotFound],
            _ => &[],
        };
        let groups =
            [ANY].into_iter().chain(of_credentials.iter().copied()).chain(self.problems.iter().copied());
        groups.flatten().copied().filter(move |code| !hidden.contains(code))
    }
}

/// The operation that a request is for; HEAD is GET.
pub(super) fn find(method: &str, path: &str) -> Option<&'static Operation> {
    let method = if method == "HEAD" { "GET" } else { method };
    let path = OPERATIONS.iter().map(|operation| operation.path).find(|template| is_path(template, path))?;
    OPERATIONS
        .iter()
        .find(|operation| operation.path == path && operation.method.eq_ignore_ascii_case(method))
}

fn is_path(template: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let is_match = template.split('/').all(|wanted| {
        parts.next().is_some_and(|part| wanted == part || (wanted.starts_with('{') && !part.is_empty()))
    });
    is_match && parts.next().is_none()
}
