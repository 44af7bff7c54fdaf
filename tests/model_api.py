"""A real server that speaks Replicate's model API, with faults on request: for the resolver."""

from __future__ import annotations

import copy
import importlib.util
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.rendering import ROOT, clean_env, commit_all, git, snapshot

# Invented models, which the server of the fixture `api` knows besides those recorded.
NEW, OTHER = "someone/new-model", "someone/other-model"
FIRST, SECOND = "1000.0.0", "1001.0.0"
RECORDS = Path(__file__).parent / "data" / "models.jsonl"
TOKEN = "r8_only-for-these-tests"

Fault = Callable[["Handler"], None]


def load_extension(name: str) -> ModuleType:
    """An extension of the template, loaded by its path as Copier does."""
    spec = importlib.util.spec_from_file_location(f"tested_{name}", ROOT / f"extensions/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def records() -> dict[str, dict[str, Any]]:
    """Answers of `GET /v1/models/{owner}/{name}`, as recorded, by owner/name."""
    lines = RECORDS.read_text("utf-8").splitlines()
    return {f"{record['owner']}/{record['name']}": record for record in map(json.loads, lines)}


def record(
    name: str,
    properties: Mapping[str, Any] | None = None,
    *,
    official: bool = False,
    output: Any = None,
    required: tuple[str, ...] = (),
    schemas: Mapping[str, Any] | None = None,
    version: str = "5" * 64,
) -> dict[str, Any]:
    """An answer about an invented model; it makes one file from a prompt unless told otherwise."""
    model = copy.deepcopy(records()["lucataco/remove-bg"])
    model["owner"], _, model["name"] = name.partition("/")
    model["is_official"] = official
    model["latest_version"]["id"] = version
    known = model["latest_version"]["openapi_schema"]["components"]["schemas"]
    known |= {
        "Input": {
            "type": "object",
            "title": "Input",
            "properties": dict(properties or {"prompt": {"type": "string", "x-order": 0}}),
            "required": list(required),
        },
        **({} if output is None else {"Output": output}),
        **(schemas or {}),
    }
    return model


@dataclass
class ModelApi:
    """What the server knows, and what it was asked."""

    url: str
    models: dict[str, dict[str, Any]]
    latency: float = 0.0  # seconds before each answer
    faults: dict[str, list[Fault]] = field(default_factory=dict)  # by owner/name, one a request
    asked: list[str] = field(default_factory=list)  # paths, without /v1/models/

    def env(self, token: str = TOKEN) -> dict[str, str]:
        """The environment in which Copier asks this server."""
        return clean_env(REPLICATE_API_TOKEN=token, REPLICATE_BASE_URL=self.url)


@contextmanager
def serving(models: Mapping[str, dict[str, Any]] | None = None) -> Iterator[ModelApi]:
    """The server, with the recorded models unless others are given."""
    with Server(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        server.api = ModelApi(url, copy.deepcopy(dict(models or records())))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.api
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def api() -> Iterator[ModelApi]:
    with serving() as server:
        server.models |= {name: record(name) for name in (NEW, OTHER)}
        yield server


def publish(api: ModelApi, name: str, **properties: Any) -> None:
    """A new version of a model, whose inputs are these."""
    api.models[name] = record(name, properties, version="6" * 64)


def two_releases(folder: Path, change: Callable[[Path], None]) -> Path:
    """The template in two releases: FIRST is the present, SECOND what `change` makes of it."""
    clone = snapshot(folder / "template")
    git(clone, "tag", FIRST)
    change(clone)
    commit_all(clone, "Second")
    git(clone, "tag", SECOND)
    return clone


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True
    block_on_close = False
    api: ModelApi


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        api = self.server.api
        path = self.path.removeprefix("/v1/models/")
        api.asked.append(path)
        time.sleep(api.latency)
        owner, _, rest = path.partition("/")
        name, _, version = rest.partition("/versions/")
        name = f"{owner}/{name}"
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            detail = "You did not pass a valid authentication token"
            self.answer(401, {"title": "Unauthenticated", "detail": detail, "status": 401})
        elif faults := api.faults.get(name):
            faults.pop(0)(self)
        elif name not in api.models:
            self.answer(
                404, {"detail": "The requested resource could not be found.", "status": 404}
            )
        elif not version:
            self.answer(200, api.models[name])
        elif api.models[name]["latest_version"]["id"] == version:
            self.answer(200, api.models[name]["latest_version"])
        else:
            self.answer(
                404, {"detail": "The requested resource could not be found.", "status": 404}
            )

    def answer(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON (bytes are sent as they are)."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/json" if status < 400 else "application/problem+json"
        self.send_response(status)
        for key, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def status(code: int, body: Any = None, **headers: str) -> Fault:
    """Answer with an error; `body` may hold what Replicate says."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda handler: handler.answer(
        code, body or {"detail": "Planted", "status": code}, named
    )


def reply(body: Any) -> Fault:
    """Answer 200 with something else than the model."""
    return lambda handler: handler.answer(200, body)


def reset(handler: Handler) -> None:
    """Break the connection instead of answering."""
    handler.close_connection = True
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def hang(seconds: float) -> Fault:
    """Answer too late."""

    def wait(handler: Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return wait
