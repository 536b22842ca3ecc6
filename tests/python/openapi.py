"""The document of the API, held against the rules of OpenAPI 3.1 and, by schemathesis, against the running server.

With EXAMPLES and SEED in the environment it looks further, or elsewhere.
"""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

import openapi_spec_validator
from jsonschema import Draft202012Validator
from server import Server

HERE = Path(__file__).parent
EXAMPLES = os.environ.get("EXAMPLES", "12")
SEED = os.environ.get("SEED", "1")
EVENTS = [{"stream": f"a{n % 3}", "type": "user.login", "data": {"actor": "alice", "n": n}} for n in range(12)]

# What is too large, or too late, is refused by a status of its own.
CONFIG = """[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "410", "412", "413", "414", "415", "422"]
"""


class OpenApi(unittest.TestCase):
    def serve(self, **settings):
        server = Server(**settings)
        self.addCleanup(server.stop)
        return server

    def document(self, server):
        status, content_type, body = server.request("GET", "/openapi.json")
        self.assertEqual((status, content_type), (200, "application/json"))
        return json.loads(body)

    def fill(self, server):
        """Appends some events, and holds them: trims are among what is tried."""
        headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
        status, _, body = server.request("POST", "/api/v1/events", headers, json.dumps(EVENTS))
        self.assertEqual(status, 201, body)
        status, _, body = server.request("PUT", "/admin/holds/a0/test", headers, '{"reason":"test"}')
        self.assertEqual(status, 201, body)

    def schemathesis(self, server, phases, token=None):
        """Runs it, and wants it to find nothing."""
        config = Path(server.folder.name, "schemathesis.toml")
        config.write_text(CONFIG + (f'[auth.openapi.bearer]\nbearer = "{token}"\n' if token else ""))
        command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={config}"]
        command += ["run", f"http://{server.address}/openapi.json", "--checks=all", f"--phases={phases}"]
        command += [f"--max-examples={EXAMPLES}", f"--seed={SEED}", "--generation-database=none", "--no-color"]
        # Only ends what hangs: every event stream that is asked for has an end.
        command += ["--continue-on-failure", "--request-timeout=20"]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "openapi_hooks", "NO_PROXY": "*", "PYTHONPATH": str(HERE)}
        ran = subprocess.run(
            command, cwd=server.folder.name, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said = ran.stdout.decode()
        print(said[said.find("=== SUMMARY") :] if ran.returncode == 0 else said)
        self.assertEqual(ran.returncode, 0)
        self.assertEqual([line for line in server.log if b"panick" in line], [])

    def test_document_is_openapi_3_1(self):
        for settings in ({}, {"EVERTAIL_AUTH": "on"}):
            document = self.document(self.serve(**settings))
            self.assertRegex(document["openapi"], r"^3\.1\.")
            openapi_spec_validator.validate(document)

    def test_examples_are_what_their_schemas_say(self):
        document = self.document(self.serve())
        checked = 0
        for name, schema in document["components"]["schemas"].items():
            validator = Draft202012Validator(document | {"$ref": f"#/components/schemas/{name}"})
            for example in schema.get("examples", []):
                validator.validate(example)
                checked += 1
        self.assertGreater(checked, 10)

    def test_open_server_does_what_the_document_says(self):
        server = self.serve()
        self.fill(server)
        self.schemathesis(server, "examples,coverage,fuzzing,stateful")

    def test_server_with_authentication_does_what_the_document_says(self):
        server = self.serve(EVERTAIL_AUTH="on")
        self.fill(server)
        self.schemathesis(server, "examples,fuzzing,stateful", server.token)

    def test_whoever_shows_no_credential_is_answered_as_the_document_says(self):
        self.schemathesis(self.serve(EVERTAIL_AUTH="on"), "examples,fuzzing")


if __name__ == "__main__":
    unittest.main(verbosity=2)
