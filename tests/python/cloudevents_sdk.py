"""The SDK of CloudEvents as a client: it sends in every mode that it has, and reads what we show."""

import json
import unittest
from datetime import datetime, timezone

from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_http_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent

import evertail_server

ONE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


class Server(evertail_server.Server):
    def send(self, path, message):
        status, _, body = self.request("POST", path, message.headers, message.body)
        return status, json.loads(body)

    def get(self, path, accept):
        status, content_type, body = self.request("GET", path, {"Accept": accept})
        assert status == 200, body
        return HTTPMessage({"content-type": content_type}, body)


def event(id, **others):
    data = others.pop("data", {"amount": 1, "note": "é"})
    attributes = {
        "id": id,
        "source": "/shop",
        "type": "order.paid",
        "subject": "order 7, 100% \"paid\" €",
        "time": datetime(2026, 11, 21, 9, 0, 0, 500000, tzinfo=timezone.utc),
        "datacontenttype": "application/json",
    }
    return CloudEvent(attributes | others, data)


def said(event):
    """What the producer said of it, without what a log adds."""
    own = ("stream", "sequence", "recordedtime")
    return {k: v for k, v in event.get_attributes().items() if k not in own}, event.get_data()


def items(message):
    """The SDK reads no batches by itself: each item is an event in structured mode."""
    bodies = [json.dumps(item).encode() for item in json.loads(message.body)]
    return [from_http_event(HTTPMessage({"content-type": ONE}, body)) for body in bodies]


class Sdk(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.stop)

    def test_what_is_sent_in_any_mode_is_read_back(self):
        sent = [event("structured"), event("binary"), event("text", data="two\nlines", datacontenttype="text/plain")]
        messages = [to_structured_event(sent[0]), to_binary_event(sent[1]), to_binary_event(sent[2])]
        for message in messages:
            status, receipt = self.server.send("/api/v1/orders", message)
            self.assertEqual(status, 201, receipt)
            status, receipt = self.server.send("/api/v1/orders", message)
            self.assertEqual((status, receipt["duplicate"]), (200, True))
        # Text is kept as a JSON string.
        sent[2] = event("text", data="two\nlines")
        for seq, expected in enumerate(sent, start=1):
            shown = from_http_event(self.server.get(f"/api/v1/events/{seq}", ONE))
            self.assertEqual(said(shown), said(expected))
            self.assertEqual(shown.get_extension("sequence"), f"{seq:020}")
            self.assertEqual(shown.get_extension("stream"), "orders")
        array = items(self.server.get("/api/v1/orders", BATCH))
        self.assertEqual([said(shown) for shown in array], [said(expected) for expected in sent])

    def test_modes_of_one_event_are_one_event(self):
        for convert, expected in ((to_structured_event, 201), (to_binary_event, 200)):
            status, receipt = self.server.send("/api/v1/orders", convert(event("1")))
            self.assertEqual((status, receipt["seq"]), (expected, 1), receipt)

    def test_what_the_sdk_reads_it_can_send_to_another_log(self):
        self.server.send("/api/v1/orders", to_structured_event(event("1")))
        self.server.send("/api/v1/orders", to_structured_event(event("2", data=None)))
        other = Server()
        self.addCleanup(other.stop)
        for shown, convert in zip(items(self.server.get("/api/v1/events", BATCH)), (to_binary_event, to_structured_event)):
            status, receipt = other.send("/api/v1/events", convert(shown))
            self.assertEqual(status, 201, receipt)
        copies = items(other.get("/api/v1/orders", BATCH))
        self.assertEqual([copy.get_data() for copy in copies], [event("1").get_data(), None])
        self.assertEqual(copies[0].get_attributes()["time"], event("1").get_attributes()["time"])

    def test_a_stream_is_read_event_by_event(self):
        self.server.send("/api/v1/orders", to_binary_event(event("1")))
        _, _, body = self.server.request("GET", "/api/v1/orders?after=0&limit=1&format=cloudevents")
        frames = [line for line in body.decode().split("\n") if line.startswith("data: ")]
        message = HTTPMessage({"content-type": ONE}, frames[-1].removeprefix("data: ").encode())
        self.assertEqual(said(from_http_event(message)), said(event("1")))

    def test_what_cannot_be_kept_is_refused_by_name(self):
        for pointer, refused in (
            ("/comexample", event("1", comexample="x")),
            ("/dataschema", event("1", dataschema="https://example.com/schema")),
            ("/data_base64", event("1", data=b"\x00", datacontenttype="application/octet-stream")),
        ):
            status, problem = self.server.send("/api/v1/orders", to_structured_event(refused))
            self.assertEqual(status, 422)
            self.assertIn(pointer, [error["pointer"] for error in problem["errors"]])


if __name__ == "__main__":
    unittest.main(verbosity=2)
