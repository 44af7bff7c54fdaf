"""From the URLs that Replicate answers with, which expire within an hour, into our own storage."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx

from .content_types import SNIFFED_BYTES, content_type_of, extension_of
from .prediction import StoredFile, StoredUrl
from .registry import OutputKind
from .storage import Storage

_REDIRECTS = 3
_MOST_FILES = 1_000
_MOST_SECONDS = 3600.0
"""For one file: an output is gone after an hour, however slowly it comes."""

_DATA_URI = re.compile(r"data:(?:[\w.+-]{1,63}/[\w.+-]{1,63}(?:;[\w.+=-]+)*|;base64),", re.ASCII)


class OutputRefused(Exception):
    """The output will never be stored: too large, from a foreign host, or of another shape."""


class OutputExpired(Exception):
    """Replicate does not have the output any more."""


class OutputUnavailable(Exception):
    """The output could not be fetched now; it may work later."""


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Where outputs may come from: Replicate's delivery hosts, and the emulator's exact origin."""

    origin: str | None = None
    token: str = ""

    def allows(self, url: str) -> bool:
        if not url[:8].lower().startswith(("http://", "https://")):
            return False
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL:
            return False
        if parts.userinfo:
            return False
        if self.origin == f"{parts.scheme}://{parts.netloc.decode('ascii')}":
            return True
        ours = parts.host == "replicate.delivery" or parts.host.endswith(".replicate.delivery")
        return ours and parts.scheme == "https" and parts.port in (None, 443)


async def store_output(
    prediction_id: str,
    output: Any,
    kind: OutputKind,
    *,
    storage: Storage,
    client: httpx.AsyncClient,
    allowed: AllowedHosts,
    max_bytes: int,
) -> tuple[list[StoredFile], Any]:
    """Store every file of an output as ``<id>/<index>.<ext>``; returns them and our own output.

    ``max_bytes`` bounds all files together. Keys are deterministic: a second run replaces.

    Raises:
        OutputRefused, OutputExpired, OutputUnavailable, storage.StorageError.
    """
    files: list[StoredFile] = []
    urls: list[str] = []

    def ours(url: str) -> StoredUrl:
        urls.append(url)
        return StoredUrl(f"/files/{prediction_id}/{len(urls) - 1}")

    try:
        output = _replaced(_shaped(output, kind), kind, allowed, ours)
    except RecursionError:
        raise OutputRefused("The output is nested too deeply.") from None
    if len(urls) > _MOST_FILES:
        raise OutputRefused(f"The output has more than {_MOST_FILES} files.")
    for index, url in enumerate(urls):
        left = max_bytes - sum(file.size for file in files)
        async with aclosing(fetch(url, allowed, left, client)) as body:
            content_type, chunks = await _typed(body, url)
            key = f"{prediction_id}/{index}.{extension_of(content_type)}"
            files.append(await storage.put(key, chunks, content_type))
    return files, output


def _shaped(output: Any, kind: OutputKind) -> Any:
    """The output if it has the shape that the registry promises."""
    match kind:
        case "file" if isinstance(output, str):
            return output
        case "file" if isinstance(output, list) and len(output) == 1:
            return _shaped(output[0], kind)
        case "files" if isinstance(output, list) and all(isinstance(x, str) for x in output):
            return output
        case "text" | "text-stream" if isinstance(output, str):
            return output
        case "text" | "text-stream" if isinstance(output, list):
            if all(isinstance(piece, str) for piece in output):
                return "".join(output)
        case "json":
            return output
    raise OutputRefused(f"The output is not of the promised kind: {kind}.")


def _replaced(
    output: Any, kind: OutputKind, allowed: AllowedHosts, ours: Callable[[str], StoredUrl]
) -> Any:
    """The output with each URL of Replicate's exchanged, at any depth, in the order of the JSON."""
    if isinstance(output, str):
        if _DATA_URI.match(output) or allowed.allows(output):
            return ours(output)
        if kind in ("file", "files"):
            raise OutputRefused(f"The output is not a URL of Replicate's: {output[:200]}")
        return output
    if isinstance(output, list):
        return [_replaced(item, kind, allowed, ours) for item in output]
    if isinstance(output, dict):
        return {name: _replaced(item, kind, allowed, ours) for name, item in output.items()}
    return output


async def fetch(
    url: str, allowed: AllowedHosts, max_bytes: int, client: httpx.AsyncClient
) -> AsyncGenerator[tuple[str, bytes]]:
    """The body of an output, as pairs of the announced content type and a chunk.

    Redirects are followed by hand and checked again. No credentials are sent; only where an
    allowed host itself answers 401 or 403, once more with the token.

    Raises:
        OutputRefused, OutputExpired, OutputUnavailable.
    """
    if url.startswith("data:"):
        yield _data_uri(url, max_bytes)
        return
    # Decompressing could make a few bytes fill the memory, so nothing compressed is asked for.
    plain = {"Accept-Encoding": "identity"}
    headers = plain
    hops = 0
    end = time.monotonic() + _MOST_SECONDS
    while True:
        if not allowed.allows(url):
            raise OutputRefused(f"The output is not on a host of Replicate's: {url[:200]}")
        try:
            async with client.stream("GET", url, headers=headers) as reply:
                if reply.next_request is not None:
                    hops += 1
                    if hops > _REDIRECTS:
                        raise OutputRefused("The output redirects without end.")
                    url, headers = str(reply.next_request.url), plain
                    continue
                refused = reply.status_code in (401, 403)
                if refused and hops == 0 and headers is plain and allowed.token:
                    headers = {**plain, "Authorization": f"Bearer {allowed.token}"}
                    continue
                if reply.status_code in (404, 410):
                    raise OutputExpired(url)
                if reply.status_code != 200:
                    raise OutputUnavailable(f"HTTP {reply.status_code} for an output")
                if reply.headers.get("content-encoding", "identity") != "identity":
                    raise OutputRefused("The output is compressed, which was not asked for.")
                announced = reply.headers.get("content-length", "")
                if announced.isdecimal() and int(announced) > max_bytes:
                    raise OutputRefused(f"The output is larger than {max_bytes} bytes.")
                content_type = (
                    reply.headers.get("content-type", "").partition(";")[0].strip().lower()
                )
                yield content_type, b""  # nothing may follow
                size = 0
                async for chunk in reply.aiter_raw():
                    size += len(chunk)
                    if time.monotonic() > end:
                        raise OutputUnavailable("The output comes too slowly.")
                    if size > max_bytes:
                        raise OutputRefused(f"The output is larger than {max_bytes} bytes.")
                    yield content_type, chunk
                return
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Also a body that is shorter than announced: the protocol error says so.
            raise OutputUnavailable(f"{type(error).__name__} while fetching an output") from error


def _data_uri(url: str, max_bytes: int) -> tuple[str, bytes]:
    head, _, data = url.removeprefix("data:").partition(",")
    content_type, *parameters = head.split(";")
    try:
        if "base64" in parameters:
            content = base64.b64decode(unquote_to_bytes(data), validate=True)
        else:
            content = unquote_to_bytes(data)
    except binascii.Error:
        raise OutputRefused("A data: URI that is not base64.") from None
    if len(content) > max_bytes:
        raise OutputRefused(f"The output is larger than {max_bytes} bytes.")
    return content_type.lower(), content


async def _typed(
    body: AsyncIterator[tuple[str, bytes]], url: str
) -> tuple[str, AsyncIterator[bytes]]:
    """The content type and the whole body."""
    announced, first = await anext(body)
    while len(first) < SNIFFED_BYTES and (more := await anext(body, None)):
        first += more[1]

    async def chunks() -> AsyncIterator[bytes]:
        yield first
        async for _, chunk in body:
            yield chunk

    return content_type_of(announced, first, url), chunks()
