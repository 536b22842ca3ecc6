"""Follows the stream at a URL with sseclient-py, over requests."""

import json
import sys
import time

import requests
from sseclient import SSEClient

last, wait_seconds = None, 1
while True:
    print("connecting", file=sys.stderr)
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    try:
        # Keep-alives come every 15 seconds: a connection that is silent for longer than that is dead.
        with requests.get(sys.argv[1], headers=headers, stream=True, timeout=(10, 60)) as response:
            response.raise_for_status()
            for event in SSEClient(response).events():
                print(json.dumps({"type": event.event, "data": event.data}), flush=True)
                last = event.id or last
                if event.retry is not None:
                    wait_seconds = int(event.retry) / 1000
                if event.event == "evertail.closed":
                    sys.exit()
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
        pass
    time.sleep(wait_seconds)
