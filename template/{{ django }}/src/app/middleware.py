"""What every request passes first, and what becomes of an error: the contract's rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from inference.contract import headers_of, refusal
from inference.problems import Problem
from inference.storage import StorageError

from .main import service

# Load balancers ask them by the machine's address, which ALLOWED_HOSTS cannot know.
PROBES = ("/healthz", "/readyz")


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
        if request.path in PROBES:
            request.META["HTTP_HOST"] = "localhost"
        problem = None
        if request.path.startswith("/api/"):
            settings = service().settings
            problem = refusal(request.method or "", request.path, request.headers, settings)
        response = problem_response(problem) if problem else self.get_response(request)
        for name, value in headers_of(request.path).items():
            response.headers.setdefault(name, value)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        match error:
            case Problem():
                return problem_response(error)
            case StorageError():
                problem = Problem(503, "The storage cannot be reached", "Try again later.")
                return problem_response(problem)
        return None  # Django's own way: its log, its signal for error trackers, the handlers below


def handler(page: Callable[..., HttpResponse], problem: Problem) -> Callable[..., HttpResponse]:
    """What Django answers an error with: the problem, or in the admin the page for people."""

    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.path.startswith("/admin/"):
            return page(request, *args, **kwargs)
        return problem_response(problem)

    return answer
