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


class Contract:
    """Refuses what is too large or cross-site before it is read; headers for every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        limit = body_limit(path, self.settings)
        read, begun = 0, False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise too_large(limit)
            return message

        async def answered(message: Message) -> None:
            nonlocal begun
            if read > limit:
                return  # the framework answers 400 to whatever goes wrong while it reads a body
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in headers_of(path).items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            problem = refusal(method, path, Headers(scope=scope), self.settings)
            if problem is None:
                await self.app(scope, counted, answered)
            if read > limit:
                problem = too_large(limit)
        except Exception:
            log.exception("request failed", method=method, path=path)
            if begun:
                raise
            problem = Problem(500, "Server error", "The fault is ours, and logged.")
        if problem is not None:
            read = 0
            await problem_response(problem)(scope, receive, answered)
