"""Replicate's model API as pins. Loaded only when a call is really made, and the SDK with it."""

from __future__ import annotations

import difflib
import math
import os
import random
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from copier.errors import UserMessageError

ATTEMPTS = 4
TIMEOUT = 15.0  # seconds, for each attempt
BACKOFF = 0.5  # seconds before the second attempt, doubled for each further one
PATIENCE = 45.0  # seconds that one model may spend waiting between attempts
SDK = "replicate>=2.0.0b4"
TOKENS = "https://replicate.com/account/api-tokens"
TYPES = ("string", "integer", "number", "boolean", "array", "object")

Json = dict[str, Any]


def resolve(
    refs: Iterable[tuple[str, str | None]], token: str, today: str, catalogue: Collection[str]
) -> dict[str, Json]:
    """Ask Replicate about each (owner/name, version or None), all at once; pins by owner/name.

    `catalogue` holds the names that would also work without a token.

    Raises:
        UserMessageError: in one line, the first model that failed and the way out.
    """
    refs = list(refs)
    resolver = _Resolver(token, today, catalogue)
    started = time.monotonic()
    _progress(f"Asking {resolver.host} about {len(refs)} model{'s'[: len(refs) > 1]} …")
    with ThreadPoolExecutor(max_workers=min(len(refs), 32)) as pool:
        futures = {name: pool.submit(resolver.pin, name, version) for name, version in refs}
        try:
            pins = {name: future.result() for name, future in futures.items()}
        except BaseException:
            resolver.stop.set()
            pool.shutdown(cancel_futures=True)
            _progress(" failed\n")
            raise
    _progress(f" done in {time.monotonic() - started:.1f} s\n")
    return pins


def _progress(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _base_url() -> str:
    url = os.environ.get("REPLICATE_BASE_URL") or "https://api.replicate.com/v1"
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise UserMessageError(
            "REPLICATE_BASE_URL must start with https:// (http:// only for this machine), "
            "since the token is sent there: correct it or unset it"
        )
    return url


class _Resolver:
    def __init__(self, token: str, today: str, catalogue: Collection[str]) -> None:
        base_url = _base_url()
        if not token.isascii() or not token.isprintable() or " " in token:
            raise UserMessageError(
                "REPLICATE_API_TOKEN holds a character that no token has: "
                f"copy it again from {TOKENS}"
            )
        try:
            import replicate  # takes half a second, and only a call needs it
            from httpx import Response

            client = replicate.Replicate(
                bearer_token=token, base_url=base_url, max_retries=0, timeout=TIMEOUT
            )
        # Versions before 2 lack the class, and fail to import in their own ways on Python 3.14.
        except Exception:
            raise UserMessageError(
                "Asking Replicate about a model needs its SDK: install it beside Copier, like "
                f"`uvx --with copier-template-extensions --with '{SDK}' copier …` or "
                f"`pip install '{SDK}'`; or unset REPLICATE_API_TOKEN to use the catalogue only"
            ) from None
        self.sdk = replicate
        self.raw = Response
        self.client = client
        self.host = urlsplit(base_url).hostname
        self.token = token
        self.today = today
        self.catalogue = catalogue
        self.stop = threading.Event()

    def pin(self, name: str, version: str | None) -> Json:
        model = self._get(name)
        official = model.get("is_official") is True
        if official and version:
            raise UserMessageError(
                f"{name} is an official model, which Replicate runs only in its current version: "
                f"write {name}, without the hash"
            )
        chosen = model.get("latest_version")
        if version:
            chosen = self._get(name, version)
        if not isinstance(chosen, dict):
            raise UserMessageError(
                f"{name} has no published version, so it cannot run yet: choose another model, "
                "or push a version first"
            )
        try:
            return make_pin(model, chosen, self.today)
        except ValueError as error:
            raise self._failure(name, f"Replicate's answer about {name} lacks {error}") from None

    def _get(self, name: str, version: str | None = None) -> Json:
        # By path: client.models would import every resource of the SDK first.
        path = f"/models/{name}" + (f"/versions/{version}" if version else "")
        waited = 0.0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                body = self.client.get(path, cast_to=self.raw).json()
            except self.sdk.APIStatusError as error:
                status, delay = error.status_code, self._retry_after(error)
                reason = f"{status}: {self._detail(error)}"
                if status != 429 and status < 500:
                    raise self._refused(name, version, status, reason) from None
            except self.sdk.APITimeoutError:
                delay, reason = None, f"no answer within {TIMEOUT:g} s"
            except self.sdk.APIConnectionError:
                delay, reason = None, "the connection failed"
            except ValueError:
                raise self._failure(
                    name, f"Replicate's answer about {name} is not JSON: check REPLICATE_BASE_URL"
                ) from None
            else:
                if isinstance(body, dict):
                    return body
                raise self._failure(name, f"Replicate's answer about {name} is not an object")
            if delay is None:
                delay = BACKOFF * 2 ** (attempt - 1) * random.uniform(0.8, 1.2)
            waited += delay
            if attempt == ATTEMPTS or waited > PATIENCE or self.stop.wait(delay):
                break
        raise self._failure(
            name,
            f"Replicate did not answer about {name} ({reason}; asked {attempt} times): "
            "try again later",
        )

    def _retry_after(self, error: Any) -> float | None:
        body = error.body if isinstance(error.body, dict) else {}
        value = body.get("retry_after", error.response.headers.get("retry-after"))
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            return None
        return seconds if 0 <= seconds < math.inf else None

    def _detail(self, error: Any) -> str:
        """What Replicate says, in one short line, and without the token if it is echoed."""
        body = error.body if isinstance(error.body, dict) else {}
        words = str(body.get("detail") or body.get("title") or error.response.reason_phrase)
        return " ".join(words.replace(self.token, "…").split())[:200]

    def _refused(
        self, name: str, version: str | None, status: int, reason: str
    ) -> UserMessageError:
        if status == 404 and version:
            text = f"{name} has no version {version} (404): correct the hash, or leave it out"
        elif status == 404:
            near = difflib.get_close_matches(name, self.catalogue, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "check its spelling"
            return UserMessageError(f"Replicate knows no model {name} (404): {hint}")
        elif status == 401:
            text = f"Replicate refused the token, asked about {name} ({reason}): see {TOKENS}"
        elif status == 402:
            text = (
                f"Replicate refused to answer about {name} ({reason}): "
                "see https://replicate.com/account/billing"
            )
        else:
            text = (
                f"Replicate refused to answer about {name} ({reason}): check its name and the token"
            )
        return self._failure(name, text)

    def _failure(self, name: str, text: str) -> UserMessageError:
        way_out = "; or unset REPLICATE_API_TOKEN to use the catalogue's pin"
        return UserMessageError(text + way_out * (name in self.catalogue))


def make_pin(model: Mapping[str, Any], version: Mapping[str, Any], today: str) -> Json:
    """What rendering needs of a model (as `GET /models/{owner}/{name}` gives it) and a version.

    Raises:
        ValueError: with what is missing.
    """
    official = model.get("is_official") is True
    version_id = version.get("id")
    if not official and not (isinstance(version_id, str) and len(version_id) == 64):
        raise ValueError("the id of its version")
    schema = version.get("openapi_schema")
    components = schema.get("components") if isinstance(schema, dict) else None
    schemas = components.get("schemas") if isinstance(components, dict) else None
    if not isinstance(schemas, dict) or not isinstance(schemas.get("Input"), dict):
        raise ValueError("the schema of its input")
    example = model.get("default_example")
    metrics = example.get("metrics") if isinstance(example, dict) else None
    seconds = metrics.get("predict_time") if isinstance(metrics, dict) else None
    return {
        "kind": "official" if official else "community",
        "version": None if official else version_id,
        "output": _output(_flat(schemas.get("Output"), schemas), schemas),
        "seconds": round(float(seconds), 2) if _is_number(seconds) else None,
        "input": _inputs(schemas["Input"], schemas),
        "source": "api",
        "resolved": today,
    }


def _flat(schema: Any, schemas: Mapping[str, Any], depth: int = 0) -> Json:
    """The schema with its references followed and `null` taken out of its alternatives."""
    if not isinstance(schema, dict) or depth > 8:
        return {}
    flat: Json = {}
    if isinstance(schema.get("$ref"), str):
        flat |= _flat(schemas.get(schema["$ref"].rsplit("/", 1)[-1]), schemas, depth + 1)
    for part in schema.get("allOf") or []:
        flat |= _flat(part, schemas, depth + 1)
    for key in ("anyOf", "oneOf"):
        choices = [_flat(part, schemas, depth + 1) for part in schema.get(key) or []]
        choices = [part for part in choices if part.get("type") != "null"]
        if len(choices) == 1:
            flat |= choices[0]
    flat |= {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
    if isinstance(flat.get("type"), list):
        kinds = [kind for kind in flat["type"] if kind != "null"]
        flat["type"] = kinds[0] if len(kinds) == 1 else None
    return flat


def _output(schema: Json, schemas: Mapping[str, Any]) -> str:
    if schema.get("type") == "string":
        return "file" if schema.get("format") == "uri" else "text"
    if schema.get("type") == "array":
        items = _flat(schema.get("items"), schemas)
        if items.get("type") == "string" and items.get("format") == "uri":
            return "files"
        if items.get("type") == "string" and schema.get("x-cog-array-type") == "iterator":
            return "text-stream"
    return "json"


def _inputs(schema: Json, schemas: Mapping[str, Any]) -> list[Json]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    flat = {name: _flat(part, schemas) for name, part in properties.items()}

    def order(item: tuple[str, Json]) -> tuple[float, str]:
        position = item[1].get("x-order")
        return (position if _is_number(position) else math.inf, item[0])

    required = schema.get("required")
    required = required if isinstance(required, list) else []
    return [_field(name, part, name in required) for name, part in sorted(flat.items(), key=order)]


def _field(name: str, schema: Json, required: bool) -> Json:
    """One input field; what does not apply is left out."""
    enum = schema.get("enum")
    enum = [value for value in enum if value is not None] if isinstance(enum, list) else []
    kind = _type(schema, enum)
    field: Json = {"name": name, "type": kind}
    if kind == "array":
        items = schema.get("items")
        field["items"] = _type(items, []) if isinstance(items, dict) else "object"
    enum = [value for value in (_typed(kind, value) for value in enum) if value is not None]
    if kind == "number" and enum and all(value == int(value) for value in enum):
        kind = field["type"] = "integer"  # as it is in the types that are rendered
        enum = [int(value) for value in enum]
    if enum and kind in ("string", "integer", "number"):
        field["enum"] = list(dict.fromkeys(enum))
    elif kind in ("integer", "number"):  # a choice needs no bounds
        for bound in ("minimum", "maximum"):
            if (value := _typed(kind, schema.get(bound))) is not None:
                field[bound] = value
    default = _typed(kind, schema.get("default"))
    if default is not None and default in field.get("enum", [default]):
        field["default"] = default
    elif required:
        field["required"] = True
    return field


def _type(schema: Json, enum: list[Any]) -> str:
    kind = schema.get("type")
    if kind is None and enum:
        if all(isinstance(value, str) for value in enum):
            kind = "string"
        elif all(_typed("integer", value) is not None for value in enum):
            kind = "integer"
        elif all(_is_number(value) for value in enum):
            kind = "number"
    if kind == "string" and schema.get("format") == "uri":
        return "file"
    return kind if kind in TYPES else "object"


def _typed(kind: str, value: Any) -> Any:
    """The value if it is of the kind (a whole float counts as an integer), else None."""
    if kind == "integer" and _is_number(value) and value == int(value):
        return int(value)
    fits = {
        "string": isinstance(value, str),
        "file": isinstance(value, str),
        "number": _is_number(value),
        "boolean": isinstance(value, bool),
        "array": isinstance(value, list),
        "object": True,
    }
    return value if fits.get(kind) else None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
