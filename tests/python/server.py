"""A server for tests: the real binary, EVERTAIL_BIN or that of the debug build, on a free port and a log of its own."""

import json
import os
import subprocess
import tempfile
import threading
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

BINARY = os.environ.get("EVERTAIL_BIN") or Path(__file__).parents[2] / "target/debug/evertail"
# Only ends a test that hangs.
HANG_SECONDS = 30


class Server:
    """Runs until it is stopped. With authentication on, `token` may do everything."""

    def __init__(self, **variables):
        self.folder = tempfile.TemporaryDirectory(prefix="evertail-python-")
        self.file = f"{self.folder.name}/evertail.db"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EVERTAIL_")}
        self.environment = environment | {
            "EVERTAIL_FILE": self.file,
            "EVERTAIL_LISTEN": "127.0.0.1:0",
            "EVERTAIL_LOG_FORMAT": "json",
            "EVERTAIL_DISK_FREE_BYTES_MIN": "0",
        }
        self.environment |= variables
        self.token = None
        if variables.get("EVERTAIL_AUTH") == "on":
            # While no server has the file, as the first token is made.
            grants = ["--admin", "--append", "*", "--read", "*"]
            self.token = self.command("token", "create", *grants, "--name", "all", "--file", self.file)["token"]
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [BINARY], cwd=self.folder.name, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self.address = None
        for line in self.process.stderr:
            said = json.loads(line)
            if said.get("message") == "serving":
                self.address = urlsplit(said["page"]).netloc
                break
        assert self.address, "it ended instead of serving"
        # A full pipe would stop the server.
        self.log = []
        self.reading = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reading.start()

    def end(self):
        self.process.terminate()
        self.wait()

    def kill(self):
        self.process.kill()
        self.wait()

    def wait(self):
        self.process.wait()
        self.reading.join()
        self.process.stderr.close()

    def stop(self):
        self.end()
        self.folder.cleanup()

    def command(self, *arguments):
        """What a command of the client prints on this server's file, as JSON."""
        command = [BINARY, *arguments]
        done = subprocess.run(command, cwd=self.folder.name, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def request(self, method, path, headers=None, body=None):
        """Status, content type and body of the answer."""
        with closing(HTTPConnection(self.address, timeout=HANG_SECONDS)) as connection:
            connection.request(method, path, body, headers or {})
            with connection.getresponse() as response:
                return response.status, response.headers["content-type"], response.read()
