"""Follows the stream at a URL with httpx-sse."""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

last, wait_seconds = None, 1
# Keep-alives come every 15 seconds: a connection that is silent for longer than that is dead.
with httpx.Client(timeout=httpx.Timeout(10, read=60)) as client:
    while True:
        print("connecting", file=sys.stderr)
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with connect_sse(client, "GET", sys.argv[1], headers=headers) as source:
                source.response.raise_for_status()
                for event in source.iter_sse():
                    print(json.dumps({"type": event.event, "data": event.data}), flush=True)
                    last = event.id or last
                    if event.retry is not None:
                        wait_seconds = event.retry / 1000
                    if event.event == "evertail.closed":
                        sys.exit()
        except httpx.TransportError:
            pass
        time.sleep(wait_seconds)
