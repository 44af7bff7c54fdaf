"""A Replicate of your own: the HTTP API, served from this project's pinned models.

``python dev/emulator.py`` needs no account and spends nothing. Its answers, errors, webhooks and
timings have Replicate's form; its pictures, sounds and texts are made up. Everything lives in
memory. Paths under ``/_emulator`` are not Replicate's: tests use them to change the settings, to
order faults (see FAULTS), and to see what was asked and what was sent.
"""

import argparse
import asyncio
import base64
import colorsys
import functools
import hashlib
import hmac
import io
import json
import math
import os
import re
import secrets
import struct
import time
import wave
import zlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.models import REGISTRY
from inference.registry import Model, input_fields

Json = dict[str, Any]
Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
Invalid = tuple[str, str, str]  # type, field, description

WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"the emulator's own secret").decode()
MODELS: dict[str, Model[Any]] = {model.owner_name: model for model in REGISTRY.values()}
ACCOUNT = {"type": "organization", "username": "emulator", "name": "The emulator"}
HARDWARE = [{"name": "CPU", "sku": "cpu"}, {"name": "Nvidia T4 GPU", "sku": "gpu-t4"}]
EVENTS = ["start", "output", "logs", "completed"]
NOT_FOUND = "The requested resource could not be found."
FAULTS = {
    "create_reset": "the prediction is created, then the connection dies before the answer",
    "create_500": "nothing is created, unless `accepted` is true",
    "create_402": "a billing error; `title` says which",
    "create_422": "an input error, whatever the input",
    "create_429": "throttled for `retry_after` seconds",
    "version_422": "the version does not exist or is not permitted",
    "abort": "the prediction is aborted before it starts",
    "hang": "the prediction runs until it is canceled or its Cancel-After has passed",
    "fail": "the prediction fails with `error`",
    "output": "the prediction's output is `output`, any JSON",
    "file_404": "the output file is gone",
    "file_401": "the output file wants the API token",
    "file_redirect": "the output file redirects to `url`",
    "file_body": "the output file is `body`, a text of type `content_type`",
    "file_short": "the output file ends before its announced length",
    "file_endless": "the output file never ends",
}


@dataclass
class Settings:
    """What ``POST /_emulator/settings`` changes; times in seconds, sizes in bytes."""

    cold_start_seconds: float = 0.2  # community models only: official ones are always warm
    run_seconds: float = 0.3
    output_bytes: int = 0  # output files and texts are padded to at least this size
    output_ttl_seconds: float = 3600  # then inputs, outputs and logs are gone
    upload_ttl_seconds: float = 24 * 3600
    max_upload_bytes: int = 100_000_000
    data_uris: bool = False  # output files as data: URIs, which the SDKs make FileOutputs of
    wait_says_processing: bool = False  # Replicate may say so of a finished one that was waited for
    reroute_version: str | None = None  # what runs instead of the version that was asked for
    official_latest_version: bool = True  # some official models show none
    list_webhook_field: bool = True
    body_webhook_field: bool = True
    webhook_delay: float = 0
    webhook_drop: float = 0  # share of events that are never sent, 0..1
    webhook_repeat: int = 0  # how many times more each event is sent
    webhook_tries: int = 7  # of a `completed` event; the pauses double: 1, 2, … 32 s
    webhook_retry_seconds: float = 1
    webhook_on_aborted: bool = True  # not documented: a client must bear both
    creates_per_minute: int | None = None  # None: no limit
    creates_burst: int = 1
    minimum_cancel_after: float = 5
    page_size: int = 100


@dataclass
class Fault:
    """A fault on order, for the next ``times`` occasions (None: until it is removed)."""

    fault: str
    times: int | None
    model: str | None
    params: Json


@dataclass
class StoredFile:
    """An output file, padded with zeros to ``size``, or an upload of ``POST /v1/files``."""

    name: str
    content_type: str
    body: bytes
    size: int
    model: str = ""
    metadata: Json = field(default_factory=dict)
    created: float = field(default_factory=time.time)


@dataclass
class Prediction:
    """A prediction, or a training (``model`` is None); times are seconds since the epoch."""

    base: str
    name: str
    version: str
    input: Json
    model: Model[Any] | None = None
    deployment: str | None = None
    destination: str = ""  # of a training
    webhook: str | None = None
    events: list[str] = field(default_factory=list)
    id: str = field(default_factory=lambda: new_id())
    created: float = field(default_factory=time.time)
    deadline: float | None = None
    status: Status = "starting"
    output: Any = None
    error: str | None = None
    logs: str = ""
    started: float | None = None
    completed: float | None = None
    told: float = 0  # when the last `output` event was sent
    faults: Json = field(default_factory=dict)  # those that were due when it was created
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def kind(self) -> str:
        return "predictions" if self.model else "trainings"

    @property
    def streams(self) -> bool:
        return self.model is not None and self.model.output == "text-stream"

    def touch(self) -> None:
        """Wake everyone who waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class Problem(HTTPException):
    """An error in Replicate's form."""

    def __init__(self, status: int, detail: str, title: str | None = None, **more: Any) -> None:
        super().__init__(status, detail)
        self.body: Json = {"title": title} if title else {}
        self.body |= {"detail": detail, "status": status, **more}


def invalid(errors: list[Invalid]) -> Problem:
    """The 422 of an input or a body that does not fit its schema."""
    lines = "".join(f"- {where}: {text}\n" for _, where, text in errors)
    fields = [{"type": kind, "field": where, "description": text} for kind, where, text in errors]
    return Problem(422, lines, "Input validation failed", invalid_fields=fields)


def invalid_version() -> Problem:
    """The 422 of a version that is unknown, not ours, or an official model's."""
    why = "The specified version does not exist (or perhaps you don't have permission to use it?)"
    return Problem(422, why, "Invalid version or not permitted")


def throttled(seconds: float) -> Problem:
    """The 429, with ``retry_after`` in whole seconds."""
    wait = math.ceil(seconds)
    detail = f"Request was throttled. Your rate limit resets in ~{wait}s."
    return Problem(429, detail, retry_after=wait)


def new_id() -> str:
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def instant(text: str | None, default: float) -> float:
    """Seconds since the epoch of an ISO 8601 time; raises Problem (422) if it is none."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else default
    except ValueError:
        raise Problem(422, f"Not an ISO 8601 date-time: {text}") from None


def duration(text: str) -> float:
    """Seconds of a Cancel-After such as ``30``, ``90s`` or ``2h30m``; 0 if it is none."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    hours, minutes, seconds = (int(n or 0) for n in parts.groups()) if parts else (0, 0, 0)
    return hours * 3600 + minutes * 60 + seconds


def sign(event_id: str, timestamp: str, body: bytes) -> str:
    """The ``webhook-signature`` header, over ``id.timestamp.body``."""
    key = base64.b64decode(WEBHOOK_SECRET.removeprefix("whsec_"))
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def server_sent(event: str, data: str, event_id: str) -> str:
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {event}\nid: {event_id}\n{lines}\n"


async def json_object(request: Request) -> Json:
    """The request's body; raises Problem (400) if it is not a JSON object."""
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Problem(400, "The request body must be a JSON object", "Bad request")
    return body


# --- schemas: what a pin says, in Replicate's words ---

JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
JSON_TYPES |= {list: "array", dict: "object", type(None): "null"}
FILE: Json = {"type": "string", "format": "uri"}
ITERATOR = {"x-cog-array-type": "iterator", "x-cog-array-display": "concatenate"}
OUTPUTS: dict[str, Json] = {
    "file": FILE,
    "files": {"type": "array", "items": FILE},
    "text": {"type": "string"},
    "text-stream": {"type": "array", "items": {"type": "string"}, **ITERATOR},
    "json": {"type": "object"},
}
BODY: list[Json] = [
    {"name": "input", "type": "object", "required": True},
    {"name": "webhook", "type": "string", "required": False},
    {"name": "webhook_events_filter", "type": "array", "required": False},
    {"name": "stream", "type": "boolean", "required": False},
]
VERSION: Json = {"name": "version", "type": "string", "required": True}


def version_view(model: Model[Any]) -> Json:
    """A version with its ``openapi_schema``; choices stand apart, as cog has them."""
    schemas: Json = {}
    properties: Json = {}
    for order, f in enumerate(input_fields(model)):
        name, kind = f["name"], "string" if f["type"] == "file" else f["type"]
        about: Json = {"type": kind, "title": name.replace("_", " ").title(), "x-order": order}
        if f["enum"]:
            schemas[name] = {"type": kind, "title": name, "enum": f["enum"]}
            about = {"allOf": [{"$ref": f"#/components/schemas/{name}"}], "x-order": order}
        about |= {"format": "uri"} if f["type"] == "file" else {}
        bounds = ("default", "minimum", "maximum")
        properties[name] = about | {key: f[key] for key in bounds if f[key] is not None}
    required = [f["name"] for f in input_fields(model) if f["required"]]
    schemas["Input"] = {"type": "object", "title": "Input", "properties": properties}
    schemas["Input"] |= {"required": required} if required else {}
    schemas["Output"] = OUTPUTS[model.output] | {"title": "Output"}
    info = {"title": "Cog", "version": "0.1.0"}
    schema = {"openapi": "3.0.2", "info": info, "paths": {}, "components": {"schemas": schemas}}
    return {
        # An official model shows a hash, too, but no prediction may name it.
        "id": model.version or hashlib.sha256(model.owner_name.encode()).hexdigest(),
        "created_at": "2025-01-01T00:00:00.000000Z",
        "cog_version": "0.13.0",
        "openapi_schema": schema,
    }


def json_type(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()  # to JSON, 1.0 is 1
    return "integer" if whole else JSON_TYPES[type(value)]


def mismatches(fields: list[Json], given: Json, where: str = "") -> list[Invalid]:
    """What is wrong with an input (or the whole body), as Replicate's validator says it."""
    errors: list[Invalid] = []
    for f in fields:
        name, at = f["name"], f"{where}.{f['name']}".lstrip(".")
        kind, enum = "string" if f["type"] == "file" else f["type"], f.get("enum")
        minimum, maximum = f.get("minimum"), f.get("maximum")
        value: Any = given.get(name)
        if name not in given:
            if f["required"]:
                errors.append(("required", where or "(root)", f"{name} is required"))
        elif json_type(value) != kind and (kind, json_type(value)) != ("number", "integer"):
            text = f"Invalid type. Expected: {kind}, given: {json_type(value)}"
            errors.append(("invalid_type", at, text))
        elif enum and value not in enum:
            choices = ", ".join(json.dumps(choice) for choice in enum)
            errors.append(("enum", at, f"{at} must be one of the following: {choices}"))
        elif minimum is not None and value < minimum:
            errors.append(("number_gte", at, f"Must be greater than or equal to {minimum}"))
        elif maximum is not None and value > maximum:
            errors.append(("number_lte", at, f"Must be less than or equal to {maximum}"))
        elif f["type"] == "file" and not re.match(r"[a-zA-Z][\w+.-]*:", value):
            errors.append(("format", at, "Does not match format 'uri'"))
    return errors


# --- outputs: real files, made from nothing but the input ---


@functools.lru_cache(maxsize=64)
def png(seed: bytes, width: int, height: int) -> bytes:
    """A picture of soft waves in three neighbouring colours of the seed's choice."""
    hues = [seed[0] / 256 + turn for turn in (0, 0.1, 0.25, 0)]
    corners = [colorsys.hsv_to_rgb(hue, 0.65, 0.95 - i % 3 * 0.2) for i, hue in enumerate(hues)]
    palette = bytearray()
    for i in range(256):
        part, t = divmod(i * 3 / 256, 1)
        pair = zip(corners[int(part)], corners[int(part) + 1], strict=True)
        palette += bytes(round(255 * (a + (b - a) * t)) for a, b in pair)
    # Each row is a slice of one long ramp: cheap even for hundreds of pictures a second.
    ramp = bytes(x * 256 // (width + 128) % 256 for x in range(width + height + 128))
    rows = bytearray()
    for y in range(height):
        shift = y + round(64 + 63 * math.sin(seed[1] + y * 6.28 / height))
        rows += b"\0" + ramp[shift : shift + width]

    def chunk(kind: bytes, data: bytes | bytearray) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"PLTE", palette)]
    chunks += [chunk(b"IDAT", zlib.compress(rows, 1)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@functools.lru_cache(maxsize=64)
def wav(seed: bytes) -> bytes:
    """One second of a soft tone whose pitch is the seed's choice."""
    rate, pitch = 8000, 220 * 2 ** (seed[0] % 13 / 12)
    waves = (math.sin(6.2832 * pitch * i / rate) * math.sin(3.1416 * i / rate) for i in range(rate))
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        sound.writeframes(b"".join(struct.pack("<h", round(12000 * height)) for height in waves))
    return out.getvalue()


FRAME = base64.b64decode(  # 160 x 90 pixels of VP8
    "sAgAnQEqoABaAD85nMBdLysmJKCMEeAnCWVu3VkbH+f6AFdHQ5vUX5zTW+v31RpG6/k/fFoZAXgJl56334VggTzX"
    "CTgD5VSU4U42WCwAAP7m0t1dEzGwNyH9rQCQqYDCtewNjpVgbPRB/mUQ6Z5uPIb2GG+GCYx6cP0I4yVNccankCL6"
    "npUjoxk2dxHKMOK37E12ZfUj3NbhL1+kechsnbiGkbSvmLxLzk2JpTctvDcOxKkL2CXo+L2oNFRxHrvgFBVHwfQu"
    "Onm8vCeYF/dX6e0A+PUAAA=="
)


def webm() -> bytes:
    """Two seconds of a small, still film: one key frame, shown ten times."""

    def element(name: int, *parts: bytes) -> bytes:
        body = b"".join(parts)
        size = (len(body) | 1 << 56).to_bytes(8, "big")
        return name.to_bytes((name.bit_length() + 7) // 8, "big") + size + body

    def number(name: int, value: int) -> bytes:
        return element(name, struct.pack(">I", value))

    header = element(0x1A45DFA3, element(0x4282, b"webm"), number(0x4287, 2), number(0x4285, 2))
    milliseconds = number(0x2AD7B1, 1_000_000)
    info = element(0x1549A966, milliseconds, element(0x4489, struct.pack(">d", 2000)))
    size = element(0xE0, number(0xB0, 160), number(0xBA, 90))
    about = (number(0xD7, 1), number(0x73C5, 1), number(0x83, 1), element(0x86, b"V_VP8"), size)
    blocks = [
        element(0xA3, b"\x81", struct.pack(">hB", at, 0x80), FRAME) for at in range(0, 2000, 200)
    ]
    cluster = element(0x1F43B675, number(0xE7, 0), *blocks)
    return header + element(0x18538067, info, element(0x1654AE6B, element(0xAE, *about)), cluster)


class Emulator:
    """The whole state and what happens to it: an ASGI application, on one event loop."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.predictions: dict[str, Prediction] = {}  # and trainings, oldest first
        self.outputs: dict[str, StoredFile] = {}
        self.uploads: dict[str, StoredFile] = {}
        self.deployments: dict[str, Json] = {}
        self.faults: list[Fault] = []
        self.requests: deque[Json] = deque(maxlen=10_000)
        self.deliveries: deque[Json] = deque(maxlen=10_000)
        self.allowance, self.refilled = 1.0, 0.0
        self.tasks: set[asyncio.Task[None]] = set()
        limits = httpx.Limits(max_connections=None)
        self.http = httpx.AsyncClient(timeout=10, trust_env=False, limits=limits)
        for key, chosen in json.loads(os.environ.get("MODEL_SETTINGS") or "{}").items():
            if key in REGISTRY and chosen.get("deployment"):
                self.deploy(chosen["deployment"], REGISTRY[key])
        errors: Any = {HTTPException: self.on_problem}
        self.app = Starlette(routes=self.routes(), exception_handlers=errors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the request, check the token, and lend the handlers a way to cut the line."""
        answer: ASGIApp = self.app
        if scope["type"] == "http":
            request, path = Request(scope), scope["path"]
            if not path.startswith("/_emulator/"):
                headers = {k: v for k, v in request.headers.items() if k != "authorization"}
                about = {"method": request.method, "path": path, "query": request.url.query}
                self.requests.append(about | {"headers": headers})
            # uvicorn's `send` is a method of the object that holds the connection.
            scope["cut"] = lambda: send.__self__.transport.abort()  # type: ignore[attr-defined]
            token = request.headers.get("authorization", "")
            if path.startswith("/v1/") and not re.fullmatch(r"(Bearer|Token) r8_\S+", token):
                why = "You did not pass a valid authentication token"
                answer = await self.on_problem(request, Problem(401, why, "Unauthenticated"))
        await answer(scope, receive, send)

    async def on_problem(self, request: Request, error: HTTPException) -> Response:
        problem = error if isinstance(error, Problem) else Problem(error.status_code, error.detail)
        return JSONResponse(problem.body, error.status_code, None, "application/problem+json")

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def fault(self, name: str, model: str) -> Json | None:
        """The parameters of a fault that is due for this model, and count it."""
        for due in self.faults:
            if due.fault == name and due.model in (None, model):
                if due.times is not None:
                    due.times -= 1
                    if due.times <= 0:
                        self.faults.remove(due)
                return due.params
        return None

    # --- the life of a prediction ---

    def view(self, p: Prediction, webhook: bool = True) -> Json:
        """The prediction as every answer and webhook shows it."""
        gone = bool(p.completed and time.time() > p.completed + self.settings.output_ttl_seconds)
        at = f"{p.base}v1/{p.kind}/{p.id}"
        urls = {"get": at, "cancel": f"{at}/cancel", "web": f"https://replicate.com/p/{p.id}"}
        urls |= {"stream": f"{p.base}_stream/{p.id}"} if p.streams else {}
        body: Json = {"id": p.id, "model": p.name, "version": p.version, "status": p.status}
        body |= {"input": {} if gone else p.input, "output": None if gone else p.output}
        body |= {"logs": "" if gone else p.logs, "error": p.error, "data_removed": gone}
        body |= {"source": "api", "urls": urls, "created_at": rfc3339(p.created)}
        times = {"started_at": p.started, "completed_at": p.completed, "deadline": p.deadline}
        body |= {name: rfc3339(seconds) for name, seconds in times.items() if seconds}
        if p.completed:
            body["metrics"] = {"total_time": p.completed - p.created}
            if p.started:
                body["metrics"]["predict_time"] = p.completed - p.started
        optional = {"deployment": p.deployment, "webhook": p.webhook if webhook else None}
        return body | {key: value for key, value in optional.items() if value}

    async def run(self, p: Prediction) -> None:
        """Cold start, run, result; a cancel or the deadline may end this task at any point."""
        settings = self.settings
        if p.model and p.model.kind == "community" and not p.deployment:
            await asyncio.sleep(settings.cold_start_seconds)
        if "abort" in p.faults:
            return self.finish(p, "aborted")
        p.status, p.started, p.logs = "processing", time.time(), "Running on the emulator\n"
        p.touch()
        self.notify(p, "start")
        self.notify(p, "logs")
        if "hang" in p.faults:
            await asyncio.Event().wait()
        if error := await self.input_file_error(p):
            return self.finish(p, "failed", error)
        pieces = self.pieces(p) if p.streams else [""]
        for piece in pieces:
            await asyncio.sleep(settings.run_seconds / len(pieces))
            if p.streams:
                p.output = [*(p.output or []), piece]
                p.touch()
                if time.time() - p.told >= 0.5:
                    p.told = time.time()
                    self.notify(p, "output")
        if "fail" in p.faults:
            error = p.faults["fail"].get("error", "The model raised an error")
            return self.finish(p, "failed", error)
        if not p.streams:
            p.output = self.make_output(p)
        if "output" in p.faults:
            p.output = p.faults["output"].get("output")
        self.notify(p, "output")
        return self.finish(p, "succeeded")

    def finish(self, p: Prediction, status: Status, error: str | None = None) -> None:
        """End a prediction, once: the first end counts."""
        if not p.completed:
            p.status, p.error, p.completed = status, error, time.time()
            p.touch()
            self.notify(p, "completed")

    def stop(self, p: Prediction, by_deadline: bool = False) -> None:
        """Cancel a prediction, or end it at its deadline: `aborted` if it had not started."""
        self.finish(p, "aborted" if by_deadline and not p.started else "canceled")
        if p.task:
            p.task.cancel()

    async def input_file_error(self, p: Prediction) -> str | None:
        """Fetch the input's files as Replicate would; those of other machines are believed."""
        fields = input_fields(p.model) if p.model else []
        for url in [str(p.input.get(f["name"], "")) for f in fields if f["type"] == "file"]:
            if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
                continue
            try:
                if url.startswith(f"{p.base}v1/files/"):
                    status = 200 if url.rpartition("/")[2] in self.uploads else 404
                else:
                    status = (await self.http.get(url, follow_redirects=True)).status_code
            except httpx.HTTPError as error:
                return f"Failed to download {url}: {error}"
            if status != 200:
                return f"Failed to download {url}: HTTP {status}"
        return None

    def make_output(self, p: Prediction) -> Any:
        """An output of the model's kind, made from the input."""
        if p.model is None:
            version = f"{p.destination}:{secrets.token_hex(32)}"
            return {"version": version, "weights": self.new_file(p, 0, "weights")}
        if p.model.output == "files":
            return [self.new_file(p, index) for index in range(int(p.input.get("num_outputs", 1)))]
        if p.model.output == "file":
            return self.new_file(p, 0)
        text = "".join(self.pieces(p))
        if p.model.output == "text":
            return text
        segments = [{"id": 0, "start": 0.0, "end": 1.0, "text": text}]
        words = {"detected_language": "english", "transcription": text, "segments": segments}
        return words | {"txt_file": self.new_file(p, 0, text), "srt_file": None}

    def pieces(self, p: Prediction) -> list[str]:
        """The answer in at most 100 pieces, at least ``output_bytes`` long."""
        asked = str(p.input.get("prompt") or p.input.get("text") or "").strip()
        text = f"You asked: {asked}\n\n" if asked else ""
        text += f"This answer comes from the emulator, not from {p.name}. It has the length and the"
        text += " pace of a short reply, it costs nothing, and no model has read a word of yours."
        text += " padding" * max(0, math.ceil((self.settings.output_bytes - len(text)) / 8))
        words = re.findall(r"\s*\S+", text)
        step = math.ceil(len(words) / 100)
        return ["".join(words[i : i + step]) for i in range(0, len(words), step)]

    def new_file(self, p: Prediction, index: int, text: str | None = None) -> str:
        """Store an output file and return its URL."""
        seed = hashlib.sha256(json.dumps([p.input, index], sort_keys=True).encode()).digest()
        about = f"{p.name} {p.input.get('output_format', '')}"
        if text is not None:
            name, kind, body = "out.txt", "text/plain", text.encode()
        elif re.search(r"music|audio|sound|speech|voice|tts|bark|wav|mp3", about):
            name, kind, body = "out.wav", "audio/wav", wav(seed)
        elif re.search(r"video|animat|mp4|webm", about):
            name, kind, body = "out.webm", "video/webm", webm()
        else:
            ratio = re.fullmatch(r"([1-9]\d?):([1-9]\d?)", str(p.input.get("aspect_ratio")))
            wide, high = (int(ratio[1]), int(ratio[2])) if ratio else (1, 1)
            size = (512 * wide // max(wide, high), 512 * high // max(wide, high))
            name, kind, body = f"out-{index}.png", "image/png", png(seed, *size)
        if self.settings.data_uris:
            return f"data:{kind};base64,{base64.b64encode(body).decode()}"
        token = new_id()
        size_in_bytes = max(len(body), self.settings.output_bytes)
        self.outputs[token] = StoredFile(name, kind, body, size_in_bytes, p.name)
        return f"{p.base}_files/{token}/{name}"

    # --- webhooks ---

    def notify(self, p: Prediction, event: str) -> None:
        """Send an event, unless nobody asked for it, or it is lost on order."""
        silent = p.status == "aborted" and not self.settings.webhook_on_aborted
        if not p.webhook or event not in p.events or silent:
            return
        if secrets.randbelow(100) >= 100 * self.settings.webhook_drop:
            body = json.dumps(self.view(p, self.settings.body_webhook_field)).encode()
            self.spawn(self.deliver(p.webhook, event, body))

    async def deliver(self, url: str, event: str, body: bytes) -> None:
        """Post until a 2xx answers; only ``completed`` is tried again, with the same id."""
        settings, event_id = self.settings, f"msg_{new_id()}"
        await asyncio.sleep(settings.webhook_delay)
        for _ in range(1 + settings.webhook_repeat):
            for attempt in range(settings.webhook_tries if event == "completed" else 1):
                if attempt:
                    await asyncio.sleep(settings.webhook_retry_seconds * 2 ** (attempt - 1))
                now = str(int(time.time()))
                headers = {"content-type": "application/json", "webhook-id": event_id}
                headers["webhook-timestamp"] = now
                headers["webhook-signature"] = sign(event_id, now, body)
                try:
                    status = (await self.http.post(url, content=body, headers=headers)).status_code
                except (httpx.HTTPError, httpx.InvalidURL):
                    status = 0
                about = {"id": event_id, "event": event, "url": url, "status": status}
                self.deliveries.append(about)
                if 200 <= status < 300:
                    break

    # --- creating ---

    async def create(self, request: Request) -> Response:
        """Create a prediction, by version, official model or deployment."""
        body = await json_object(request)
        where = "/".join(request.path_params.values())
        fields = BODY if where else [VERSION, *BODY]
        self.check_body(body, fields)
        if "/deployments/" in request.url.path:
            model = MODELS[self.find(self.deployments, where)["current_release"]["model"]]
        else:
            model = self.official(where) if where else self.versioned(body["version"])
        broken = self.fault("create_500", model.owner_name)
        if broken is not None and not broken.get("accepted"):
            raise Problem(500, "Internal server error")
        self.refuse(model, body["input"])
        prefer = request.headers.get("prefer")
        wait = re.fullmatch(r"wait(?:=([1-9]|[1-5][0-9]|60))?", prefer or "wait")
        if wait is None:
            raise Problem(422, "Prefer must be wait or wait=n, n from 1 to 60")
        p = Prediction(
            base=str(request.base_url),
            name=model.owner_name,
            version=self.settings.reroute_version or model.version or "hidden",
            input=body["input"],
            model=model,
            deployment=where if "/deployments/" in request.url.path else None,
        )
        self.start(p, body, request)
        if broken is not None:
            raise Problem(500, "Internal server error")
        if self.fault("create_reset", p.name) is not None:
            request.scope["cut"]()
            await asyncio.sleep(0.05)  # the answer below then finds nobody
        if prefer is None:
            return JSONResponse(self.view(p), 201)
        try:
            async with asyncio.timeout(float(wait[1] or 60)):
                while not p.completed:
                    await p.changed.wait()
        except TimeoutError:
            pass
        answer = self.view(p)
        if not p.completed:
            answer["status"] = "starting"  # whatever it does: the SDKs then go on asking
        elif p.status == "succeeded" and self.settings.wait_says_processing:
            answer["status"] = "processing"
        return JSONResponse(answer, 201 if p.completed else 202, {"Preference-Applied": prefer})

    def check_body(self, body: Json, fields: list[Json]) -> None:
        """Raises Problem (422) unless the body has the fields of a create."""
        known = {f["name"] for f in fields}
        kind = "additional_property_not_allowed"
        errors: list[Invalid] = [
            (kind, "(root)", f"Additional property {key} is not allowed")
            for key in body
            if key not in known
        ]
        if errors := errors + mismatches(fields, body):
            raise invalid(errors)
        event: Json = {"name": "0", "type": "string", "required": True, "enum": EVENTS}
        for asked in body.get("webhook_events_filter", []):
            if errors := mismatches([event], {"0": asked}, "webhook_events_filter"):
                raise invalid(errors)

    def official(self, name: str) -> Model[Any]:
        model = MODELS.get(name)
        if model is None or model.kind != "official":
            raise Problem(404, NOT_FOUND)
        return model

    def versioned(self, version: str) -> Model[Any]:
        """The model of ``owner/name`` (official), ``owner/name:hash`` or ``hash`` (community)."""
        for model in MODELS.values():
            if version in (model.ref, model.version):
                return model
        raise invalid_version()

    def refuse(self, model: Model[Any], given: Json) -> None:
        """Raises the Problem that a fault orders, or that the input or the rate limit earns."""
        name = model.owner_name
        if (fault := self.fault("create_402", name)) is not None:
            detail = "You have insufficient credit to run this model. See your billing page."
            raise Problem(402, detail, fault.get("title", "Insufficient credit"))
        if (fault := self.fault("create_429", name)) is not None:
            raise throttled(fault.get("retry_after", 5))
        if self.fault("version_422", name) is not None:
            raise invalid_version()
        errors = mismatches(input_fields(model), given, "input")
        if self.fault("create_422", name) is not None:
            errors.append(("required", "input", "prompt is required"))
        if errors:
            raise invalid(errors)
        if limit := self.settings.creates_per_minute:
            now = time.monotonic()
            refill = (now - self.refilled) * limit / 60
            self.allowance = min(self.settings.creates_burst, self.allowance + refill)
            self.refilled = now
            if self.allowance < 1:
                raise throttled((1 - self.allowance) * 60 / limit)
            self.allowance -= 1

    def start(self, p: Prediction, body: Json, request: Request) -> None:
        """Take in a prediction that was checked, and set it going."""
        p.webhook = body.get("webhook")
        p.events = body.get("webhook_events_filter", ["output", "completed"])
        if (after := request.headers.get("cancel-after")) is not None:
            seconds = duration(after)
            if seconds < self.settings.minimum_cancel_after:
                raise Problem(422, "Cancel-After must be a duration of at least 5 seconds")
            p.deadline = p.created + seconds
            asyncio.get_running_loop().call_later(seconds, self.stop, p, True)
        for name in ("abort", "hang", "fail", "output"):
            if (params := self.fault(name, p.name)) is not None:
                p.faults[name] = params
        self.predictions[p.id] = p
        p.task = self.spawn(self.run(p))

    async def train(self, request: Request) -> Response:
        """A training: the same life, and a new version of the destination as its output."""
        body, path = await json_object(request), request.path_params
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(body.get("destination", ""))):
            raise invalid([("required", "(root)", "destination is required")])
        name = f"{path['owner']}/{path['name']}"
        given = body.get("input", {})
        p = Prediction(str(request.base_url), name, path["version"], given)
        p.destination = body["destination"]
        self.start(p, body, request)
        return JSONResponse(self.view(p), 201)

    # --- reading ---

    def find(self, among: dict[str, Any], key: str) -> Any:
        if key not in among:
            raise Problem(404, NOT_FOUND)
        return among[key]

    async def get(self, request: Request) -> Response:
        p = self.find(self.predictions, request.path_params["id"])
        return JSONResponse(self.view(p, self.settings.list_webhook_field))

    async def cancel(self, request: Request) -> Response:
        p = self.find(self.predictions, request.path_params["id"])
        self.stop(p)
        return JSONResponse(self.view(p))

    async def listing(self, request: Request) -> Response:
        """Newest first, a page at a time; `created_after` <= created < `created_before`."""
        query, kind = request.query_params, request.url.path.rpartition("/")[2]
        after = instant(query.get("created_after"), -math.inf)
        before = instant(query.get("created_before"), math.inf)
        found = [p for p in self.predictions.values() if p.kind == kind]
        found = [p for p in reversed(found) if after <= round(p.created, 6) < before]
        if last := query.get("cursor"):
            place = {p.id: index for index, p in enumerate(found)}
            found = found[self.find(place, last) + 1 :]
        page = found[: self.settings.page_size]
        more = len(found) > len(page)
        url = str(request.url.include_query_params(cursor=page[-1].id)) if more else None
        results = [self.view(p, self.settings.list_webhook_field) for p in page]
        return JSONResponse({"next": url, "previous": None, "results": results})

    async def stream(self, request: Request) -> Response:
        """A text as it comes, as server-sent events; no token is asked for, as at Replicate."""
        p = self.find(self.predictions, request.path_params["id"])

        async def events() -> AsyncIterator[str]:
            sent = 0
            while True:
                changed, over = p.changed, p.completed
                pieces = p.output if isinstance(p.output, list) else []
                for piece in pieces[sent:]:
                    sent += 1
                    yield server_sent("output", str(piece), f"{p.id}:{sent}")
                if over:
                    break
                await changed.wait()
            reasons = {"succeeded": {}, "failed": {"reason": "error"}}
            if p.status == "failed":
                yield server_sent("error", json.dumps({"detail": p.error}), f"{p.id}:error")
            done = reasons.get(p.status, {"reason": "canceled"})
            yield server_sent("done", json.dumps(done), f"{p.id}:done")

        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    def model_view(self, model: Model[Any], base: str) -> Json:
        owner, _, name = model.owner_name.partition("/")
        shown = self.settings.official_latest_version or model.kind == "community"
        example: Json | None = None
        if model.seconds is not None:  # the time that people estimate costs from
            given = {f["name"]: f["default"] for f in input_fields(model) if not f["required"]}
            p = Prediction(base, model.owner_name, model.version or "hidden", given, model)
            p.started = p.created = p.created - model.seconds
            p.status, p.completed = "succeeded", p.created + model.seconds
            example = self.view(p)
        empty = ("description", "github_url", "paper_url", "license_url", "cover_image_url")
        return dict.fromkeys(empty) | {
            "url": f"https://replicate.com/{model.owner_name}",
            "owner": owner,
            "name": name,
            "visibility": "public",
            "is_official": model.kind == "official",
            "run_count": sum(p.model is model for p in self.predictions.values()),
            "default_example": example,
            "latest_version": version_view(model) if shown else None,
        }

    async def models(self, request: Request) -> Response:
        """All models; with QUERY those whose name contains every word of the body."""
        # The JavaScript SDK sends the words in quotes.
        words = (await request.body()).decode().lower().strip('"').split()
        base = str(request.base_url)
        found = [m for name, m in MODELS.items() if all(word in name for word in words)]
        results = [self.model_view(model, base) for model in found]
        return JSONResponse({"next": None, "previous": None, "results": results})

    async def model(self, request: Request) -> Response:
        model = self.find(MODELS, "{owner}/{name}".format(**request.path_params))
        return JSONResponse(self.model_view(model, str(request.base_url)))

    async def versions(self, request: Request) -> Response:
        """The list of versions, which is the pinned one, or that one."""
        model = self.find(MODELS, "{owner}/{name}".format(**request.path_params))
        wanted = request.path_params.get("version", model.version)
        if model.kind == "official":
            raise Problem(404, "This is an official model and does not expose a list of versions")
        if wanted != model.version:
            raise Problem(404, NOT_FOUND)
        found = version_view(model)
        page = {"next": None, "previous": None, "results": [found]}
        return JSONResponse(found if "version" in request.path_params else page)

    def deploy(self, where: str, model: Model[Any]) -> Json:
        owner, _, name = where.partition("/")
        release = {
            "number": 1,
            "model": model.owner_name,
            "version": version_view(model)["id"],
            "created_at": rfc3339(time.time()),
            "created_by": ACCOUNT,
            "configuration": {"hardware": "cpu", "min_instances": 1, "max_instances": 1},
        }
        self.deployments[where] = {"owner": owner, "name": name, "current_release": release}
        return self.deployments[where]

    async def all_deployments(self, request: Request) -> Response:
        if request.method == "POST":
            body = await json_object(request)
            model = self.find(MODELS, str(body.get("model")))
            return JSONResponse(self.deploy(f"{ACCOUNT['username']}/{body.get('name')}", model))
        results = list(reversed(self.deployments.values()))
        return JSONResponse({"next": None, "previous": None, "results": results})

    async def deployment(self, request: Request) -> Response:
        where = "{owner}/{name}".format(**request.path_params)
        return JSONResponse(self.find(self.deployments, where))

    # --- files ---

    def upload_view(self, token: str, base: str) -> Json:
        file = self.uploads[token]
        return {
            "id": token,
            "name": file.name,
            "content_type": file.content_type,
            "size": file.size,
            "etag": hashlib.md5(file.body, usedforsecurity=False).hexdigest(),
            "checksums": {"sha256": hashlib.sha256(file.body).hexdigest()},
            "metadata": file.metadata,
            "created_at": rfc3339(file.created),
            "expires_at": rfc3339(file.created + self.settings.upload_ttl_seconds),
            "urls": {"get": f"{base}v1/files/{token}"},
        }

    async def files(self, request: Request) -> Response:
        """One upload (GET, DELETE), all of them (GET), or a new one (POST multipart)."""
        base, ttl = str(request.base_url), self.settings.upload_ttl_seconds
        self.uploads = {k: v for k, v in self.uploads.items() if time.time() < v.created + ttl}
        if token := request.path_params.get("id"):
            self.find(self.uploads, token)
            if request.method == "GET":
                return JSONResponse(self.upload_view(token, base))
            del self.uploads[token]
            return Response(status_code=204)
        if request.method == "GET":
            results = [self.upload_view(token, base) for token in reversed(self.uploads)]
            return JSONResponse({"next": None, "previous": None, "results": results})
        async with request.form() as form:
            content, metadata = form.get("content"), form.get("metadata", "{}")
            if not isinstance(content, UploadFile):
                raise Problem(400, "Missing content")
            if (content.size or 0) > self.settings.max_upload_bytes:
                raise Problem(413, "Files must be less than 100MB in size")
            # The JavaScript SDK sends the metadata as a file.
            about = await metadata.read() if isinstance(metadata, UploadFile) else metadata
            body, token = await content.read(), new_id()
            kind = content.content_type or "application/octet-stream"
            file = StoredFile(content.filename or "file", kind, body, len(body))
            file.metadata = json.loads(about)
            self.uploads[token] = file
        return JSONResponse(self.upload_view(token, base), 201)

    async def output(self, request: Request) -> Response:
        """An output file, for an hour; whoever knows the URL may have it."""
        file = self.outputs.get(request.path_params["id"])
        expired = file and time.time() > file.created + self.settings.output_ttl_seconds
        if file is None or expired or self.fault("file_404", file.model) is not None:
            return Response("Not found", 404)
        known = "authorization" in request.headers
        if not known and self.fault("file_401", file.model) is not None:
            return Response("Unauthorized", 401)
        if (fault := self.fault("file_redirect", file.model)) is not None:
            return RedirectResponse(fault["url"], 302)
        if (fault := self.fault("file_body", file.model)) is not None:
            return Response(fault["body"], media_type=fault.get("content_type", "text/html"))
        short = self.fault("file_short", file.model) is not None
        endless = self.fault("file_endless", file.model) is not None

        async def body() -> AsyncIterator[bytes]:
            yield file.body[: len(file.body) // 2] if short else file.body
            if short:
                await asyncio.sleep(0.05)
                request.scope["cut"]()
                await asyncio.sleep(0.05)
            left = math.inf if endless else file.size - len(file.body)
            while left > 0:
                yield bytes(int(min(left, 1 << 16)))
                left -= 1 << 16
                await asyncio.sleep(0)

        headers = {} if endless else {"Content-Length": str(file.size)}
        return StreamingResponse(body(), media_type=file.content_type, headers=headers)

    # --- for tests ---

    async def control(self, request: Request) -> Response:
        """GET shows; POST and DELETE ``faults``, POST ``settings`` (only those to change)."""
        name, change = request.path_params["name"], request.method
        if (change, name) == ("DELETE", "faults"):
            self.faults.clear()
        elif (change, name) == ("POST", "faults"):
            params = await json_object(request)
            kind, times = params.pop("fault", None), params.pop("times", 1)
            if kind not in FAULTS:
                raise Problem(422, f"No such fault; there are: {', '.join(FAULTS)}")
            self.faults.append(Fault(kind, times, params.pop("model", None), params))
        elif (change, name) == ("POST", "settings"):
            changes = await json_object(request)
            if unknown := changes.keys() - asdict(self.settings).keys():
                raise Problem(422, f"No such setting: {', '.join(sorted(unknown))}")
            self.settings = Settings(**asdict(self.settings) | changes)
        elif change != "GET":
            raise Problem(405, "Method not allowed")
        shown = {
            "faults": [asdict(fault) for fault in self.faults],
            "settings": asdict(self.settings),
            "requests": list(self.requests),
            "deliveries": list(self.deliveries),
            "predictions": [self.view(p) for p in reversed(self.predictions.values())],
        }
        return JSONResponse(self.find(shown, name))

    def routes(self) -> list[Route]:
        def constant(value: Any) -> Any:
            async def answer(request: Request) -> Response:
                return JSONResponse(value)

            return answer

        model, deployment = "/v1/models/{owner}/{name}", "/v1/deployments/{owner}/{name}"
        return [
            Route("/v1/predictions", self.create, methods=["POST"]),
            Route(model + "/predictions", self.create, methods=["POST"]),
            Route(deployment + "/predictions", self.create, methods=["POST"]),
            Route(model + "/versions/{version}/trainings", self.train, methods=["POST"]),
            Route("/v1/predictions", self.listing),
            Route("/v1/trainings", self.listing),
            Route("/v1/predictions/{id}", self.get),
            Route("/v1/trainings/{id}", self.get),
            Route("/v1/predictions/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/trainings/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/_stream/{id}", self.stream),
            Route("/v1/models", self.models, methods=["GET", "QUERY"]),
            Route(model, self.model),
            Route(model + "/versions", self.versions),
            Route(model + "/versions/{version}", self.versions),
            Route("/v1/deployments", self.all_deployments, methods=["GET", "POST"]),
            Route(deployment, self.deployment),
            Route("/v1/files", self.files, methods=["GET", "POST"]),
            Route("/v1/files/{id}", self.files, methods=["GET", "DELETE"]),
            Route("/_files/{id}/{name}", self.output),
            Route("/v1/webhooks/default/secret", constant({"key": WEBHOOK_SECRET})),
            Route("/v1/account", constant(ACCOUNT)),
            Route("/v1/hardware", constant(HARDWARE)),
            Route("/_emulator/{name}", self.control, methods=["GET", "POST", "DELETE"]),
        ]


def create_app(settings: Settings | None = None) -> ASGIApp:
    """An emulator with a state of its own, for tests in one process; run it with uvicorn."""
    return Emulator(settings)


def main() -> None:
    parser = argparse.ArgumentParser(description="A Replicate emulator for this project's models.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8787)
    parser.add_argument("--cold-start", type=float, default=Settings.cold_start_seconds)
    parser.add_argument("--run", type=float, default=Settings.run_seconds)
    options = parser.parse_args()
    settings = Settings(cold_start_seconds=options.cold_start, run_seconds=options.run)
    uvicorn.run(
        create_app(settings),
        host=options.host,
        port=options.port,
        access_log=False,
        timeout_graceful_shutdown=1,  # whoever still waits or streams then
    )


if __name__ == "__main__":
    main()
