"""What every request passes first: its size, and that another site's page did not send it."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.problems import Problem
from inference.service import WEBHOOK_MAX_BYTES

WEBHOOK = "/api/webhooks/replicate"
BODY_MAX_BYTES = 2 * 2**20


def problem_response(problem: Problem) -> JSONResponse:
    return JSONResponse(
        problem.as_json(),
        problem.status,
        problem.headers,
        media_type="application/problem+json",
    )


class Guard:
    """Refuses bodies that are too large before they are read, and cross-site writes."""

    def __init__(self, app: ASGIApp, *, public_url: str, max_upload_bytes: int) -> None:
        self.app = app
        self.own_hosts = {urlsplit(public_url).netloc} if public_url else set()
        self.limits = {
            WEBHOOK: WEBHOOK_MAX_BYTES,
            "/api/files": max_upload_bytes + 2**20,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self.limits.get(scope["path"], BODY_MAX_BYTES)
        too_large = Problem(413, "Too large", f"The body may have at most {limit} bytes.")
        announced = headers.get("content-length", "0")
        problem = None
        if announced.isdecimal() and int(announced) > limit:
            problem = too_large
        elif scope["method"] not in ("GET", "HEAD", "OPTIONS") and scope["path"] != WEBHOOK:
            problem = self._cross_site(headers)
            # The framework takes application/<anything>+json for JSON too.
            if problem is None and scope["path"] == "/api/predictions" and not _is_json(headers):
                problem = Problem(415, "Not JSON", "Send Content-Type: application/json.")
        if problem is not None:
            await problem_response(problem)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise too_large
            return message

        async def unless_too_large(message: Message) -> None:
            # The framework answers 400 to whatever goes wrong while it reads a body.
            if read <= limit:
                await send(message)

        await self.app(scope, counted, unless_too_large)
        if read > limit:
            await problem_response(too_large)(scope, receive, send)

    def _cross_site(self, headers: Headers) -> Problem | None:
        site = headers.get("sec-fetch-site")
        origin = headers.get("origin")
        own = {headers.get("host", ""), *self.own_hosts}
        if _is_foreign(origin, own) or site in ("cross-site", "same-site"):
            return Problem(403, "Cross-site request", "This may be sent from its own site only.")
        if _is_json(headers) or origin is not None or site in ("same-origin", "none"):
            return None
        return Problem(
            403,
            "Not known to be same-site",
            "Send Content-Type: application/json, or the Origin header.",
        )


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip() == "application/json"


def _is_foreign(origin: str | None, own: set[str]) -> bool:
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc not in own
    except ValueError:
        return True
