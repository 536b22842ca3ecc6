"""Follows the stream at a URL with requests-sse, which resumes by itself."""

import json
import sys
import time

import requests
from requests_sse import EventSource

last = None
while True:
    print("connecting", file=sys.stderr)
    try:
        # Keep-alives come every 15 seconds: a connection that is silent for longer than that is dead.
        with EventSource(sys.argv[1], timeout=60, latest_event_id=last) as source:
            for event in source:
                print(json.dumps({"type": event.type, "data": event.data}), flush=True)
                last = event.last_event_id
                if event.type == "evertail.closed":
                    sys.exit()
    except requests.ConnectionError:
        # It has tried five times, each time after twice as long.
        time.sleep(1)
