"""What every request passes first, and what becomes of an error: the contract's rules."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.multipartparser import MultiPartParserError

from inference.contract import headers_of, refusal
from inference.problems import Problem, not_found
from inference.storage import StorageError

from .main import service

log = structlog.get_logger()


def problem_response(problem: Problem) -> HttpResponse:
    return JsonResponse(
        problem.as_json(),
        status=problem.status,
        headers=problem.headers,
        content_type="application/problem+json",
    )


class ContractMiddleware:
    """Refuses what is too large or cross-site before it is read; errors become problems."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        problem = None
        if request.path.startswith("/api/"):
            settings = service().settings
            problem = refusal(request.method or "", request.path, request.headers, settings)
        response = problem_response(problem) if problem else self.get_response(request)
        for name, value in headers_of(request.path).items():
            response.headers.setdefault(name, value)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        match error:
            case Problem():
                return problem_response(error)
            case Http404():
                return problem_response(not_found())
            case StorageError():
                problem = Problem(503, "The storage cannot be reached", "Try again later.")
            case BadRequest() | SuspiciousOperation() | MultiPartParserError():
                problem = Problem(400, "Bad request", "The request cannot be read.")
            case _:
                log.exception("request failed", method=request.method, path=request.path)
                return server_error(request)
        return problem_response(problem)


def server_error(request: HttpRequest) -> HttpResponse:
    return problem_response(Problem(500, "Server error", "The fault is ours, and logged."))
