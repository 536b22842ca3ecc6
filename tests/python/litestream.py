"""Continuous backup by the real Litestream, which has the checkpoints: the log goes on, restarts beside it, and is restored
to a point in time with every event before it.
"""

import json
import sqlite3
import subprocess
import sys
import time
import unittest
from contextlib import closing
from datetime import datetime, timezone
from http.client import HTTPConnection
from pathlib import Path

from server import HANG_SECONDS, Server

LITESTREAM = Path(sys.executable).with_name("litestream")
# Between two looks at what nothing announces.
LOOK_SECONDS = 0.05


def until(what, condition):
    began = time.monotonic()
    while not (found := condition()):
        assert time.monotonic() < began + HANG_SECONDS, f"{what}: it did not happen"
        time.sleep(LOOK_SECONDS)
    return found


class Litestream:
    """Replicates the log of a server into a folder beside it."""

    def __init__(self, server):
        self.server = server
        self.folder = Path(server.folder.name)
        self.settings = self.folder / "litestream.yml"
        # Often, so that nothing waits for it here; how often is otherwise a matter of what may be lost with the machine.
        self.settings.write_text(
            f"""
            dbs:
              - path: {server.file}
                monitor-interval: 50ms
                min-checkpoint-page-count: 100
                replica:
                  path: {self.folder / "replica"}
                  sync-interval: 50ms
            """
        )
        self.process = None

    def start(self):
        said = open(self.folder / "litestream.log", "ab")
        self.process = subprocess.Popen([LITESTREAM, "replicate", "-config", self.settings], stdout=said, stderr=said)
        said.close()

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def restore(self, name, *arguments):
        """A file as it was, or None while there is nothing to restore."""
        target = self.folder / name
        target.unlink(missing_ok=True)
        command = [LITESTREAM, "restore", "-config", self.settings, "-o", target, *arguments, self.server.file]
        done = subprocess.run(command, capture_output=True, text=True)
        return target if done.returncode == 0 and target.exists() else None

    def holds(self, seq):
        """Waits until a restore would have this event."""

        def has():
            target = self.restore("look.db")
            return target and last_seq(target) >= seq

        until(f"event {seq} is in the replica", has)


def last_seq(file):
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT max(seq) FROM log").fetchone()[0] or 0
    finally:
        connection.close()


class Replicated(unittest.TestCase):
    def setUp(self):
        self.server = Server(EVERTAIL_CHECKPOINTS="external")
        self.addCleanup(self.server.stop)
        self.litestream = Litestream(self.server)
        self.addCleanup(self.litestream.stop)

    def append(self, count):
        """The seq of the last of so many events, all of them acked."""
        lines = b"".join(b'{"id":"%x","data":"%s"}\n' % (time.time_ns() + n, b"x" * 200) for n in range(count))
        status, _, body = self.server.request(
            "POST", "/api/v1/audits", {"Content-Type": "application/x-ndjson"}, lines
        )
        self.assertEqual(status, 201, body)
        return json.loads(body)[-1]["seq"]

    def has_only(self, seq):
        target = self.litestream.restore("look.db")
        return target and last_seq(target) == seq

    def sound(self, file, seq):
        """It is a log that keeps its promises, and ends with this event."""
        found = self.server.command("check", str(file))
        self.assertEqual((found["outcome"], found["first_seq"], found["last_seq"]), ("ok", 1, seq), found)

    def test_a_point_in_time_has_every_event_before_it_and_none_behind(self):
        self.litestream.start()
        before = max(self.append(500) for _ in range(10))
        self.litestream.holds(before)
        moment = datetime.now(timezone.utc).isoformat()
        behind = max(self.append(500) for _ in range(10))
        self.litestream.holds(behind)
        self.sound(self.litestream.restore("then.db", "-timestamp", moment), before)
        self.sound(self.litestream.restore("now.db"), behind)

        # Who has read more than that is told, once the log is that of then.
        self.server.end()
        with self.assertRaisesRegex(AssertionError, "end it, then restore again"):
            self.server.command("restore", "then.db", "--file", self.server.file)
        self.litestream.stop()
        self.server.command("restore", "then.db", "--file", self.server.file)
        self.server.start()
        with closing(HTTPConnection(self.server.address, timeout=HANG_SECONDS)) as reader:
            reader.request("GET", "/api/v1/audits", headers={"Last-Event-ID": str(behind)})
            stream = reader.getresponse()
            lines = iter(lambda: stream.readline().decode().strip(), "")
            told = next(line for line in lines if line.startswith("data: "))
            reset = {"cursor": behind, "last_seq": before, "reason": "ahead"}
            self.assertLessEqual(reset.items(), json.loads(told.removeprefix("data: ")).items())
        # It goes on from there.
        subprocess.run(
            [LITESTREAM, "reset", "-config", self.litestream.settings, self.server.file], check=True, capture_output=True
        )
        self.litestream.start()
        goes_on = self.append(10)
        self.assertEqual(goes_on, before + 10)
        until("the replica has what is appended now", lambda: self.has_only(goes_on))
        self.sound(self.litestream.restore("again.db"), goes_on)

    def test_the_log_restarts_beside_it_and_leaves_the_checkpoints_to_it(self):
        self.litestream.start()
        last = 0
        for _ in range(3):
            last = max(self.append(500) for _ in range(6))
            self.litestream.holds(last)
            # A clean end, then one that is not.
            self.server.end()
            self.server.start()
            last = self.append(1)
            self.server.kill()
            self.server.start()
            self.assertEqual(self.append(1), last + 1)
            last += 1
        self.litestream.holds(last)
        self.sound(self.litestream.restore("now.db"), last)
        # Nobody else does: more than so much was appended.
        until("the WAL is moved into the file", lambda: Path(self.server.file).stat().st_size > 1_000_000)
        found = self.server.command("doctor", "--file", self.server.file)
        self.assertNotEqual(found["outcome"], "problem", found)

    def test_what_was_appended_while_it_did_not_run_is_replicated_later(self):
        self.litestream.start()
        self.litestream.holds(self.append(100))
        self.litestream.stop()
        for _ in range(2):
            self.append(1_000)
        # The last to have the file open moves its WAL into it.
        self.server.end()
        self.server.start()
        last = self.append(100)
        self.litestream.start()
        self.litestream.holds(last)
        self.sound(self.litestream.restore("now.db"), last)


if __name__ == "__main__":
    unittest.main(verbosity=2)
