"""What the two Python scripts share: named checks, and the emulator's control interface."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BASE = os.environ.get("EMULATOR", "")
OFFICIAL = "black-forest-labs/flux-schnell"
TEXT = "meta/meta-llama-3-8b-instruct"
COMMUNITY = os.environ.get("COMMUNITY", "")  # owner/name:hash of real-esrgan
PICTURE = "data:image/png;base64,iVBORw0KGgo="

_checks: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Register a check under its name."""
    _checks[function.__name__] = function
    return function


def run_checks() -> None:
    """Run all; print one JSON object, name -> null or what went wrong."""
    results: dict[str, str | None] = {}
    for name, function in _checks.items():
        control("faults", method="DELETE")
        try:
            function()
            results[name] = None
        except Exception:
            results[name] = traceback.format_exc()
    print(json.dumps(results))


def control(name: str, body: Any = None, method: str | None = None) -> Any:
    """Ask the emulator for something that is not Replicate's."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{BASE}/_emulator/{name}", data, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@contextmanager
def settings(**changes: Any) -> Iterator[None]:
    """Change the emulator's settings for a moment."""
    before = control("settings")
    control("settings", changes)
    try:
        yield
    finally:
        control("settings", before)


class Receiver(ThreadingHTTPServer):
    """An HTTP server that keeps the webhooks it gets, as (headers, body).

    It answers 200 once the given statuses are used up; a 3xx points to its own ``/elsewhere``.
    """

    request_queue_size = 1000

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses = list(statuses)
        self.got: list[tuple[dict[str, str], str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait(self, count: int = 1) -> tuple[dict[str, str], str]:
        """The first of ``count`` webhooks; raises AssertionError after 30 s."""
        end = time.monotonic() + 30
        while len(self.got) < count:
            assert time.monotonic() < end, f"{len(self.got)} of {count} webhooks came"
            time.sleep(0.02)
        return self.got[0]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        about = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append((about | {"path": self.path}, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass
