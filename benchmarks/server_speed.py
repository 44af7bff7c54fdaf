"""Django's WSGI server, as a project starts it, against gunicorn with as many threads.

    .venv/bin/uv pip install gunicorn && .venv/bin/python benchmarks/server_speed.py [--seconds 3]

One process each, on SQLite: webhooks a second, pages of predictions a second, and webhooks while a
hundred callers wait for a prediction. Rounds are interleaved and medians compared: only ratios
count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.webhook_speed import (  # noqa: E402
    ROWS,
    SECRET,
    new_rows,
    request_for,
    sent,
    serving,
)
from tests.rendering import free_port, project_env, render  # noqa: E402

WAITING = 100
ROUNDS = 3
APP = [sys.executable, "-m", "app", "web", "--port"]
GUNICORN = [sys.executable, "-m", "gunicorn", "--worker-class=gthread", "--threads=160"]


def command(server: str, port: int) -> list[str]:
    if server == "granian":
        return [*APP, str(port)]
    return [*GUNICORN, f"--bind=127.0.0.1:{port}", "app.wsgi:application"]


@contextlib.contextmanager
def started(project: Path, folder: Path) -> Iterator[dict[str, str]]:
    """The URL of each server, with a database of its own."""
    with contextlib.ExitStack() as stack:
        urls = {}
        for server in ("granian", "gunicorn"):
            port = free_port()
            env = project_env(
                project,
                ENVIRONMENT="development",
                REPLICATE_API_TOKEN="r8_none",
                REPLICATE_WEBHOOK_SECRET=SECRET,
                PUBLIC_URL="https://example.com",
                DATABASE_URL=f"sqlite:///{folder}/{server}.db",
                CALLER_PER_MINUTE="1000000",
                ADDRESS_PER_MINUTE="1000000",
            )
            subprocess.run([*APP[:3], "migrate"], cwd=project, env=env, check=True)
            urls[server] = f"http://127.0.0.1:{port}"
            stack.enter_context(serving(command(server, port), project, env, urls[server]))
        yield urls


def own_rows(url: str) -> tuple[str, list[str]]:
    """A session's cookie, and predictions of its own that wait for a worker, which is not there."""
    opener = urllib.request.build_opener()
    with opener.open(f"{url}/api/predictions") as reply:
        cookie = reply.headers["Set-Cookie"].partition(";")[0]
    headers = {"Content-Type": "application/json", "Prefer": "respond-async", "Cookie": cookie}
    body = json.dumps({"model": "flux-schnell", "input": {"prompt": "x"}}).encode()
    asked = urllib.request.Request(f"{url}/api/predictions", data=body, headers=headers)
    return cookie, [json.load(opener.open(asked))["id"] for _ in range(ROWS)]


def get(url: str, path: str, cookie: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nCookie: {cookie}\r\n\r\n".encode()
    )


@contextlib.contextmanager
def waiting(url: str, row_id: str, cookie: str, seconds: int) -> Iterator[None]:
    """A hundred callers who wait for a prediction that does not change; ends with their waits."""
    parts = urlsplit(url)
    with contextlib.ExitStack() as stack:
        callers = []
        for _ in range(WAITING):
            caller = socket.create_connection((parts.hostname, parts.port))
            callers.append(stack.enter_context(caller))
            caller.sendall(get(url, f"/api/predictions/{row_id}?wait={seconds}", cookie))
        yield
        for caller in callers:
            assert b" 200 " in caller.recv(2**16)[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    seconds = parser.parse_args().seconds
    rates: dict[tuple[str, str], list[float]] = {}
    tails: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = render(folder, framework="django")
        with started(project, folder) as urls:
            mine = {server: own_rows(url) for server, url in urls.items()}
            rows = {server: new_rows(url) for server, url in urls.items()}

            def measure(kind: str, server: str) -> None:
                url, (cookie, own) = urls[server], mine[server]
                count = int(6_000 * seconds)
                if kind == "page":
                    requests = [get(url, "/api/predictions", cookie)] * count
                else:
                    ids = rows[server]
                    requests = [request_for(url, ids[n % ROWS], SECRET) for n in range(count)]
                held = waiting(url, own[0], cookie, int(seconds) + 2)
                with held if kind == "webhook, 100 wait" else contextlib.nullcontext():
                    times, took, _ = sent(url, requests, seconds)
                rates.setdefault((kind, server), []).append(len(times) / took)
                tails.setdefault((kind, server), []).append(
                    1000 * sorted(times)[-len(times) // 100]
                )

            kinds = ("webhook", "page", "webhook, 100 wait")
            for _ in range(ROUNDS):
                for kind in kinds:
                    for server in urls:
                        measure(kind, server)
    print(f"{'':<20}{'server':<10}{'a second':>10}{'ratio':>8}{'p99':>10}")
    for kind in kinds:
        base = statistics.median(rates[kind, "granian"])
        for server in urls:
            rate, tail = (statistics.median(each[kind, server]) for each in (rates, tails))
            print(f"{kind:<20}{server:<10}{rate:>10.0f}{rate / base:>8.2f}{tail:>7.1f} ms")


if __name__ == "__main__":
    main()
