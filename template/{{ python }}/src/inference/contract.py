"""What the HTTP contract says of every request and answer, for any web framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from .prediction import StoredFile
from .problems import Problem
from .settings import Settings

WEBHOOK = "/api/webhooks/replicate"
LOOK_EVERY = 0.25  # seconds between two looks at the row for which a caller waits

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'self'"
)
_BODY_BYTES, _WEBHOOK_BYTES = 2 * 2**20, 8 * 2**20
_INLINE = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/")


class NewPrediction(BaseModel):
    """The body of ``POST /api/predictions``."""

    model_config = ConfigDict(extra="forbid")

    model: str
    input: dict[str, Any]


def body_limit(path: str, settings: Settings) -> int:
    """The most bytes that a request's body may have."""
    # A form has more around its file.
    limits = {WEBHOOK: _WEBHOOK_BYTES, "/api/files": settings.max_upload_bytes + 2**20}
    return limits.get(path, _BODY_BYTES)


def too_large(limit: int) -> Problem:
    return Problem(413, "Too large", f"There may be at most {limit} bytes.")


def refusal(
    method: str, path: str, headers: Mapping[str, str], settings: Settings
) -> Problem | None:
    """Why a request is refused before its body is read: too large, cross-site, or not JSON.

    ``headers`` takes names in lower case.
    """
    limit = body_limit(path, settings)
    announced = headers.get("content-length") or "0"
    if announced.isdecimal() and int(announced) > limit:
        return too_large(limit)
    if method in ("GET", "HEAD", "OPTIONS") or path == WEBHOOK:
        return None
    if problem := _cross_site(headers, settings):
        return problem
    if path == "/api/predictions" and not _is_json(headers):
        return Problem(415, "Not JSON", "Send Content-Type: application/json.")
    return None


def _cross_site(headers: Mapping[str, str], settings: Settings) -> Problem | None:
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    own = {headers.get("host", "")}
    if settings.public_url:
        own.add(urlsplit(settings.public_url).netloc)
    if _is_foreign(origin, own) or site in ("cross-site", "same-site"):
        return Problem(403, "Cross-site request", "This may be sent from its own site only.")
    if _is_json(headers) or origin is not None or site in ("same-origin", "none"):
        return None
    return Problem(
        403,
        "Not known to be same-site",
        "Send Content-Type: application/json, or the Origin header.",
    )


def _is_json(headers: Mapping[str, str]) -> bool:
    content_type = headers.get("content-type") or ""
    return content_type.partition(";")[0].strip() == "application/json"


def _is_foreign(origin: str | None, own: set[str]) -> bool:
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc not in own
    except ValueError:
        return True


def headers_of(path: str) -> dict[str, str]:
    """The headers of every answer that does not set them itself."""
    always = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
    private = path.startswith(("/api/", "/files/"))
    return always | ({"Cache-Control": "no-store"} if private else {})


class FileAnswer(NamedTuple):
    """How a stored file is answered; ``span`` is None for all of it, and where nothing is sent."""

    status: int
    headers: dict[str, str]
    span: tuple[int, int] | None


def file_answer(stored: StoredFile, headers: Mapping[str, str]) -> FileAnswer:
    """200, 206 for one byte range, or 304; what a browser could run is an attachment."""
    inline = stored.content_type.startswith(_INLINE)
    answered = {
        "Content-Type": stored.content_type,
        "ETag": f'"{stored.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": "inline" if inline else "attachment",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    known = headers.get("if-none-match", "").replace("W/", "").split(",")
    if answered["ETag"] in [tag.strip() for tag in known]:
        return FileAnswer(304, answered, None)
    span = _range(headers.get("range"), stored.size)
    start, end = span or (0, stored.size)
    if span is not None:
        answered["Content-Range"] = f"bytes {start}-{end - 1}/{stored.size}"
    answered["Content-Length"] = str(end - start)
    return FileAnswer(206 if span else 200, answered, span)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """One byte range as (start, end), end exclusive; None where the whole file is to be sent."""
    asked = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header or "")
    if asked is None or not any(asked.groups()):
        return None
    first, last = asked.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    return (start, end) if start < end else None
