"""What schemathesis must know of the server that OpenAPI has no words for. Loaded by openapi.py.

Requests that are meant to be right are kept right: parameters that exclude each other are not sent together, and every
representation has its turn, event streams with an end. Requests that are meant to be wrong are sent as they are, for JSON.
"""

import json
from zlib import crc32

import schemathesis
from schemathesis import GenerationMode
from schemathesis.core.parameters import ParameterLocation

# Every event stream ends before this seq; the log has more events.
BEFORE = 8
JSON = "application/json"
STREAM = "text/event-stream"
READS = ("/api/v1/events", "/api/v1/{stream}")
# Right by its schema, and refused for what is in the log or for the time it is: code, and a part of the detail.
NOT_IN_A_SCHEMA = {
    "id_reused": "",
    "gone": "",
    "cursor_ahead": "",
    "log_replaced": "",
    "precondition_failed": "",
    "event_not_found": "",
    "body_invalid": "must be an RFC 3339 time to come",
}


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    if isinstance(value, list):
        value = "\n".join(json.dumps(item) for item in value)
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    case.headers["Accept"] = representation(case)
    # The example of a precondition hardly ever holds, and would hide what comes after it.
    if case.headers.get("If-Match") == '"41"' and turn(case, [True, True, False]):
        del case.headers["If-Match"]


def representation(case):
    if case.operation.path == "/api/v1/events/{seq}":
        return turn(case, [JSON, "application/cloudevents+json"])
    if case.operation.path not in READS or case.method != "GET":
        return JSON
    said = case.meta and case.meta.components.get(ParameterLocation.QUERY)
    if said and said.mode is not GenerationMode.POSITIVE:
        return JSON
    query = case.query
    # Of those that say where to begin, one.
    for name in [name for name in ("after", "since", "last") if name in query][1:]:
        del query[name]
    if query.get("order") == "desc" or "producer" in query:
        for name in ("format", "event") + (("last",) if query.get("order") == "desc" else ()):
            query.pop(name, None)
        accept = JSON
    elif query.get("format") == "data" or "event" in query:
        accept = STREAM
    else:
        known = [JSON, STREAM, "application/x-ndjson", "text/csv", "application/cloudevents-batch+json"]
        accept = turn(case, known)
        if query.get("format") == "cloudevents" and accept == "text/csv":
            accept = JSON
    if accept == JSON and int(query.get("limit", 1)) > 1000:
        query["limit"] = 1000
    if accept == STREAM:
        query["before"] = BEFORE
    return accept


def turn(case, representations):
    """One of them, always the same for the same request."""
    said = json.dumps([case.path_parameters, case.query, case.body], sort_keys=True, default=str)
    return representations[crc32(said.encode()) % len(representations)]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drops what is no failure of the server nor of the document."""
    kind = type(failure).__name__
    # An EventSource without a valid credential is told so by a stream of one notice: tests/it/auth.rs.
    if kind == "IgnoredAuth":
        return case.headers.get("Accept") != STREAM
    if kind == "AcceptedNegativeData":
        return b'data: {"reason":"unauthorized"}' not in response.content
    if kind != "RejectedPositiveData":
        return True
    try:
        problem = response.json()
    except ValueError:
        return True
    expected = NOT_IN_A_SCHEMA.get(problem.get("code"))
    return expected is None or expected not in problem["detail"]
