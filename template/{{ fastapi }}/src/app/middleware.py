"""What every request passes first: its size, and that another site's page did not send it."""

from __future__ import annotations

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.contract import body_limit, headers_of, refusal, too_large
from inference.problems import Problem
from inference.settings import Settings


def problem_response(problem: Problem) -> JSONResponse:
    return JSONResponse(
        problem.as_json(),
        problem.status,
        problem.headers,
        media_type="application/problem+json",
    )


log = structlog.get_logger()


class AnswerHeaders:
    """Headers of every answer, and an answer where the code broke."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, begun = scope["path"], False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in headers_of(path).items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, with_headers)
        except Exception:
            log.exception("request failed", method=scope["method"], path=path)
            if begun:
                raise
            broken = Problem(500, "Server error", "The fault is ours, and logged.")
            await problem_response(broken)(scope, receive, with_headers)


class Guard:
    """Refuses bodies that are too large before they are read, and cross-site writes."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if problem := refusal(scope["method"], path, Headers(scope=scope), self.settings):
            await problem_response(problem)(scope, receive, send)
            return
        limit = body_limit(path, self.settings)
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise too_large(limit)
            return message

        async def unless_too_large(message: Message) -> None:
            # The framework answers 400 to whatever goes wrong while it reads a body.
            if read <= limit:
                await send(message)

        await self.app(scope, counted, unless_too_large)
        if read > limit:
            await problem_response(too_large(limit))(scope, receive, send)
