"""The transactional outbox from another process: Python's own sqlite3 module, beside a running server.

A business row and its event are one transaction: stored together, or neither. Needs nothing but Python.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import unittest
from contextlib import closing, contextmanager
from http.client import HTTPConnection

from server import HANG_SECONDS, Server

ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER NOT NULL CHECK (total > 0)) STRICT"


def connect(file):
    # Transactions are begun below, as what they are: the module's own would begin as readers.
    return sqlite3.connect(file, isolation_level=None, timeout=HANG_SECONDS)


@contextmanager
def transaction(connection):
    """All of the block, or nothing of it. IMMEDIATE: it waits for its turn to write before it reads anything."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def place_order(connection, id, total):
    """What a shop does: the order, and the event that tells of it."""
    connection.execute("INSERT INTO orders (id, total) VALUES (?, ?)", (id, total))
    event = ("orders", "order.made", str(id), json.dumps({"total": total}))
    connection.execute("INSERT INTO events (stream, type, id, data) VALUES (?, ?, ?, ?)", event)


class Reader:
    """An open stream of the log, from its beginning."""

    def __init__(self, server):
        self.connection = HTTPConnection(server.address, timeout=HANG_SECONDS)
        self.connection.request("GET", "/api/v1/orders?after=0", headers={"Accept": "text/event-stream"})
        self.lines = self.connection.getresponse()

    def next(self):
        """The next event, however long the server waits for it."""
        while line := self.lines.readline().decode():
            if line.startswith("data: {\"seq\""):
                return json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream ended")


class Outbox(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.stop)
        self.shop = connect(self.server.file)
        self.addCleanup(self.shop.close)
        self.shop.execute(ORDERS)
        self.reader = Reader(self.server)
        self.addCleanup(self.reader.connection.close)

    def orders(self):
        return self.shop.execute("SELECT id, total FROM orders ORDER BY id").fetchall()

    def test_order_and_event_are_stored_together_and_the_event_is_delivered(self):
        for id in range(1, 21):
            with transaction(self.shop):
                place_order(self.shop, id, id * 10)
            # The stream is open and nobody else appends: it is the server that notices.
            event = self.reader.next()
            self.assertEqual((event["seq"], event["id"], event["type"]), (id, str(id), "order.made"))
            self.assertEqual(event["data"], {"total": id * 10})
        self.assertEqual(self.orders(), [(id, id * 10) for id in range(1, 21)])

    def test_what_is_rolled_back_is_never_seen(self):
        with self.assertRaises(KeyError), transaction(self.shop):
            place_order(self.shop, 1, 10)
            raise KeyError("the shop thinks again")
        with self.assertRaises(sqlite3.IntegrityError), transaction(self.shop):
            place_order(self.shop, 2, 20)
            place_order(self.shop, 3, 0)
        with transaction(self.shop):
            place_order(self.shop, 4, 40)
        event = self.reader.next()
        # Its seq too is that of the first event there ever was.
        self.assertEqual((event["seq"], event["id"]), (1, "4"))
        self.assertEqual(self.orders(), [(4, 40)])

    def test_an_event_that_breaks_the_rules_takes_its_order_along(self):
        for statement in (
            "INSERT INTO events (stream, data) VALUES ('Orders', '1')",
            "INSERT INTO events (stream, data) VALUES ('orders', 'no JSON')",
            "INSERT INTO events (stream, type) VALUES ('orders', 'evertail.closed')",
        ):
            with self.assertRaisesRegex(sqlite3.IntegrityError, "evertail: "), transaction(self.shop):
                self.shop.execute("INSERT INTO orders (id, total) VALUES (1, 10)")
                self.shop.execute(statement)
        self.assertEqual(self.orders(), [])
        self.assertEqual(self.shop.execute("SELECT count(*) FROM events").fetchone(), (0,))

    def test_a_process_that_is_killed_in_the_midst_leaves_neither(self):
        script = "import outbox, sys; c = outbox.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); "
        script += "outbox.place_order(c, 1, 10); print('placed', flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", script, self.server.file]
        folder = os.path.dirname(os.path.abspath(__file__))
        with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shop:
            self.assertEqual(shop.stdout.readline(), b"placed\n")
            shop.send_signal(signal.SIGKILL)
        with transaction(self.shop):
            place_order(self.shop, 2, 20)
        event = self.reader.next()
        self.assertEqual((event["seq"], event["id"]), (1, "2"))
        self.assertEqual(self.orders(), [(2, 20)])

    def test_a_repeat_by_id_is_one_event(self):
        repeat = "INSERT INTO events (stream, type, id, data) VALUES ('orders', 'order.made', '1', '{\"total\":10}')"
        with transaction(self.shop):
            place_order(self.shop, 1, 10)
            self.shop.execute(repeat)
        status, _, body = self.server.request(
            "POST", "/api/v1/orders", {}, b'{"type":"order.made","id":"1","data":{"total":10}}'
        )
        self.assertEqual((status, json.loads(body)["seq"]), (200, 1))
        self.assertEqual(self.reader.next()["id"], "1")
        self.assertEqual(self.shop.execute("SELECT count(*) FROM events").fetchone(), (1,))

    def test_shop_and_producers_append_at_the_same_time(self):
        with closing(HTTPConnection(self.server.address, timeout=HANG_SECONDS)) as producer:
            for id in range(1, 101):
                producer.request("POST", "/api/v1/orders", json.dumps({"id": f"h-{id}", "data": id}))
                with transaction(self.shop):
                    place_order(self.shop, id, id)
                with producer.getresponse() as response:
                    self.assertEqual(response.status, 201, response.read())
                    response.read()
        events = [self.reader.next() for _ in range(200)]
        self.assertEqual([event["seq"] for event in events], list(range(1, 201)))
        self.assertEqual([e["id"] for e in events if not e["id"].startswith("h-")], [str(id) for id in range(1, 101)])


if __name__ == "__main__":
    unittest.main(verbosity=2)
