"""A client that checks every answer against the contract, and signs webhooks as Replicate does."""

from __future__ import annotations

import base64
import contextlib
import functools
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

DOCUMENT = yaml.safe_load(Path(__file__).with_name("openapi.yaml").read_text("utf-8"))
JSON = {"Content-Type": "application/json"}
FLUX, ESRGAN, LLAMA = "flux-schnell", "real-esrgan", "meta-llama-3-8b-instruct"
PICTURE = "https://example.com/a.png"


class ContractBroken(AssertionError):
    """An answer that the document does not allow."""


def resolved(node: Any) -> Any:
    """The part of the document that a `$ref` names."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


@functools.cache
def _path_of(path: str) -> str | None:
    """The document's path that a request's path is one of; fixed ones before templates."""
    for known in sorted(DOCUMENT["paths"], key=lambda known: known.count("{")):
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(known))
        if re.fullmatch(pattern, path):
            return str(known)
    return None


def _against(schema: Any, value: Any, where: str) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    for error in Draft202012Validator(whole).iter_errors(value):
        raise ContractBroken(f"{where}: {error.json_path}: {error.message}")


def check(reply: httpx.Response, outputs: Mapping[str, str] | None = None) -> None:
    """Raise ContractBroken for a status, header, type or body that the document does not name.

    `outputs` says what each model makes; then a stored output must have its shape.
    """
    request = reply.request
    where = f"{request.method} {request.url.path} -> {reply.status_code}"
    path = _path_of(request.url.path)
    operation = DOCUMENT["paths"].get(path, {}).get(request.method.lower())
    if operation is not None:
        response = resolved(operation["responses"].get(str(reply.status_code)))
    elif path is not None:
        response = DOCUMENT["components"]["responses"]["WrongMethod"]
    else:
        response = DOCUMENT["components"]["responses"]["Problem"]
    if response is None or (operation is None and reply.status_code != (405 if path else 404)):
        raise ContractBroken(f"{where}: not in the contract: {reply.text[:500]}")
    check_response(reply, response)
    if operation is None and path is not None:
        known = {method.upper() for method in DOCUMENT["paths"][path]} - {"PARAMETERS"}
        if missing := known - set(re.split(", ?", reply.headers["allow"])):
            raise ContractBroken(f"{where}: Allow does not name {', '.join(missing)}")
    if outputs is not None and reply.headers.get("content-type") == "application/json":
        body = reply.json()
        for prediction in [body, *body.get("results", [])]:
            if prediction.get("storage") == "stored":
                _check_output(prediction, outputs[prediction["model"]], where)


def check_response(reply: httpx.Response, response: Any) -> None:
    """Raise ContractBroken unless headers, type and body are those of the document's response."""
    where = f"{reply.request.method} {reply.request.url.path} -> {reply.status_code}"
    _check_headers(reply, response, where)
    _check_body(reply, response, where)


def _check_headers(reply: httpx.Response, response: Any, where: str) -> None:
    path = reply.request.url.path
    for name, header in response.get("headers", {}).items():
        value = reply.headers.get(name)
        if value is None and header.get("required"):
            raise ContractBroken(f"{where}: {name} is missing")
        if value is not None:
            whole = header["schema"].get("type") == "integer" and value.isdecimal()
            _against(header["schema"], int(value) if whole else value, f"{where}: {name}")
    if reply.headers.get("x-content-type-options") != "nosniff":
        raise ContractBroken(f"{where}: without nosniff")
    if "access-control-allow-origin" in reply.headers:
        raise ContractBroken(f"{where}: open to other sites")
    kept = reply.headers.get("cache-control", "")
    if path.startswith(("/api/", "/files/")) and not {"private", "no-store"} & set(
        kept.replace(",", " ").split()
    ):
        raise ContractBroken(f"{where}: a shared cache may keep it ({kept!r})")


def _check_body(reply: httpx.Response, response: Any, where: str) -> None:
    content = response.get("content")
    if not content:
        if reply.content:
            raise ContractBroken(f"{where}: a body where there is none")
        return
    kind = reply.headers.get("content-type", "").partition(";")[0]
    if "*/*" in content:
        return
    if kind not in content:
        raise ContractBroken(f"{where}: {kind} is none of {', '.join(content)}")
    if kind.endswith("json"):
        _against(content[kind]["schema"], reply.json(), where)
    if kind == "application/problem+json" and reply.json()["status"] != reply.status_code:
        raise ContractBroken(f"{where}: the problem names another status")


def _check_output(prediction: dict[str, Any], kind: str, where: str) -> None:
    url = {"type": "string", "pattern": f"^/files/{prediction['id']}/[0-9]+$"}
    shapes: dict[str, Any] = {
        "file": url,
        "files": {"type": "array", "items": url},
        "text": {"type": "string"},
        "text-stream": {"type": "string"},
        "json": {},
    }
    _against(shapes[kind], prediction["output"], f"{where}: output")


class Caller:
    """One caller with a session of their own."""

    def __init__(self, url: str, emulator: str) -> None:
        self.url = url
        self.emulator = Emulator(emulator)
        self.outputs: dict[str, str] | None = None
        self.http = httpx.Client(
            base_url=url,
            timeout=60,
            limits=httpx.Limits(max_connections=None),
            event_hooks={"response": [self._check]},
        )
        models = self.get("/api/models").json()["results"]
        self.outputs = {model["key"]: model["output"] for model in models}

    def _check(self, reply: httpx.Response) -> None:
        reply.read()
        self._check_text(f"{reply.headers} {reply.text}", reply.request.url.path)
        check(reply, self.outputs)

    def _check_text(self, text: str, path: str) -> None:
        for secret in ("r8_emulator", self.emulator.secret):
            if secret in text:
                raise ContractBroken(f"a secret in the answer of {path}")
        # a stored file may hold anything, also a URL
        if path.startswith("/api/"):
            for url in (self.emulator.url, "replicate.delivery"):
                if url in text:
                    raise ContractBroken(f"a URL of Replicate's in the answer of {path}")

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = b"" if body is None else json.dumps(body).encode()
        return self.http.post(path, content=content, headers=JSON | named)

    def delete(self, prediction: dict[str, Any]) -> httpx.Response:
        return self.http.delete(f"/api/predictions/{prediction['id']}", headers=JSON)

    def start(self, model: str, /, **given: Any) -> dict[str, Any]:
        return self._started(self.post("/api/predictions", {"model": model, "input": given}))

    def start_at_once(self, model: str, /, **given: Any) -> dict[str, Any]:
        """Start without waiting for the result, also where the model's mode is run."""
        body = {"model": model, "input": given}
        return self._started(self.post("/api/predictions", body, prefer="respond-async"))

    def _started(self, reply: httpx.Response) -> dict[str, Any]:
        assert reply.status_code in (201, 202), reply.text
        prediction: dict[str, Any] = reply.json()
        assert (reply.status_code == 201) == over(prediction)
        assert reply.headers["location"] == f"/api/predictions/{prediction['id']}"
        return prediction

    def run(self, model: str, /, **given: Any) -> dict[str, Any]:
        """Start, and wait until nothing changes any more."""
        return self.settled(self.start(model, **given))

    def hanging(self, emulator: Emulator) -> dict[str, Any]:
        """A prediction that goes on until someone stops it."""
        emulator.fault("hang", model="nightmareai/real-esrgan")
        return self.until(self.start(ESRGAN, image=PICTURE), "processing")

    def look(self, prediction: dict[str, Any], wait: int = 0) -> dict[str, Any]:
        reply = self.get(f"/api/predictions/{prediction['id']}", params={"wait": wait})
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def settled(self, prediction: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while not over(prediction):
            assert time.monotonic() < end, f"not settled: {prediction}"
            prediction = self.look(prediction, wait=5)
        return prediction

    def until(self, prediction: dict[str, Any], *statuses: str) -> dict[str, Any]:
        end = time.monotonic() + 30
        while prediction["status"] not in statuses:
            assert time.monotonic() < end, f"never {statuses}: {prediction}"
            prediction = self.look(prediction, wait=1)
        return prediction

    def cancel(self, prediction: dict[str, Any]) -> httpx.Response:
        return self.post(f"/api/predictions/{prediction['id']}/cancel")

    def all(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/api/predictions", params={"limit": "100"}).json()[
            "results"
        ]
        return found

    @contextlib.contextmanager
    def events(self, prediction: dict[str, Any]) -> Iterator[Iterator[tuple[str, Any]]]:
        """The server-sent events, as they come: pairs of name and decoded data."""
        path = f"/api/predictions/{prediction['id']}/events"
        # without the hook, which reads answers to their end
        with (
            httpx.Client(base_url=self.url, cookies=self.http.cookies, timeout=60) as http,
            http.stream("GET", path) as reply,
        ):
            assert reply.status_code == 200
            assert reply.headers["content-type"].partition(";")[0] == "text/event-stream"
            _check_headers(reply, {}, path)
            yield self._parsed(reply, path)

    def _parsed(self, reply: httpx.Response, path: str) -> Iterator[tuple[str, Any]]:
        name, data = "", []
        for line in reply.iter_lines():
            self._check_text(line, path)
            field, _, value = line.partition(":")
            if field == "event":
                name = value.removeprefix(" ")
            elif field == "data":
                data.append(value.removeprefix(" "))
            elif not line and name:
                decoded = json.loads("\n".join(data))
                kind = DOCUMENT["components"]["schemas"]["Event"]["properties"].get(name)
                if kind is None:
                    raise ContractBroken(f"{path}: the event {name} is not in the contract")
                _against(kind, decoded, f"{path}: {name}")
                yield name, decoded
                name, data = "", []

    def upload(self, content: bytes, content_type: str, name: str = "file") -> httpx.Response:
        files = {"file": (name, content, content_type)}
        return self.http.post("/api/files", files=files, headers={"Origin": self.url})

    def uploaded(self, content: bytes, content_type: str) -> str:
        """The URL of an upload."""
        reply = self.upload(content, content_type)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["url"])

    def webhook(
        self, body: Any, *, at: float | None = None, secret: str | None = None, **more: str
    ) -> httpx.Response:
        """Send a signed webhook; `more` replaces headers, the empty ones are left out."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = sign(content, secret or self.emulator.secret, at=at)
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        given = {name: value for name, value in headers.items() if value}
        return self.http.post("/api/webhooks/replicate", content=content, headers=given)


class Emulator:
    """The emulator above the project, by its control interface."""

    def __init__(self, url: str) -> None:
        self.url = url
        token = {"Authorization": "Bearer r8_emulator"}
        self.http = httpx.Client(base_url=url, headers=token, timeout=30)
        self.secret: str = self.http.get("/v1/webhooks/default/secret").json()["key"]

    def fault(self, name: str, times: int = 1, **params: Any) -> None:
        reply = self.http.post("/_emulator/faults", json={"fault": name, "times": times, **params})
        assert reply.is_success, reply.text

    def no_faults(self) -> None:
        self.http.delete("/_emulator/faults")

    def settings(self, **settings: Any) -> dict[str, Any]:
        """Change some settings; returns those that held before."""
        before: dict[str, Any] = self.http.get("/_emulator/settings").json()
        reply = self.http.post("/_emulator/settings", json=settings)
        assert reply.is_success, reply.text
        return before

    def requests(self) -> list[dict[str, Any]]:
        """Everything that was asked of Replicate's API, oldest first."""
        found: list[dict[str, Any]] = self.http.get("/_emulator/requests").json()
        return found

    def created(self) -> list[dict[str, Any]]:
        """Everything that was created, newest first."""
        found: list[dict[str, Any]] = self.http.get("/_emulator/predictions").json()
        return found

    def of(self, prediction: dict[str, Any]) -> list[dict[str, Any]]:
        """What Replicate has for one prediction of ours: one, or none, or a double bill."""
        return [each for each in self.created() if prediction["id"] in str(each.get("webhook"))]


def over(prediction: dict[str, Any]) -> bool:
    ended = prediction["status"] in ("succeeded", "failed", "canceled", "aborted")
    return ended and prediction["storage"] != "pending"


def sign(
    body: bytes, secret: str, *, at: float | None = None, event: str | None = None
) -> dict[str, str]:
    """The three headers of a webhook."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    event = event or f"msg_{secrets.token_hex(8)}"
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.digest(key, f"{event}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": event,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
