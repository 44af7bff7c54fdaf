"""The application: settings, database, storage and routes put together."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import Match, Route

from inference.contract import PAGE_POLICY, WEBHOOK
from inference.health import readiness
from inference.logs import configure_logs
from inference.problems import Problem, invalid_fields
from inference.service import Service
from inference.settings import Settings, SettingsError, load_settings
from inference.storage import Storage, StorageError

from . import caller
from .api import router
from .database import SqlStore
from .middleware import Contract, problem_response
from .tables import open_engine
from .webhooks import Receiving, webhook

PAGE = Path(__file__).parent / "page"


def build_service(settings: Settings) -> Service:
    """The service on its database and storage.

    Raises:
        SettingsError: the URL of one of them is none.
    """
    store = SqlStore(open_engine(settings.database_url))
    try:
        storage = Storage.open(settings.storage_url)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return Service(settings, store, storage)


def open_to_strangers(settings: Settings) -> str | None:
    """What lets anyone spend, with the way out; None where nobody may, or all are told to."""
    if not caller.ANONYMOUS or settings.development or settings.allow_anonymous:
        return None
    return (
        "anyone could start billed predictions: put your sign-in into src/app/caller.py,"
        " or set ALLOW_ANONYMOUS=1"
    )


def create_app() -> FastAPI:
    """The application.

    Raises:
        SettingsError: the environment does not say what the project needs.
    """
    settings = load_settings()
    if reason := open_to_strangers(settings):
        raise SettingsError(reason)
    configure_logs(json=not settings.development)
    app = FastAPI(
        lifespan=_lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.service = build_service(settings)
    # Threads that no other request can take: on SQLite one, since there is one connection.
    threads = 1 if settings.database_url.startswith("sqlite") else 4
    app.state.receiving = Receiving(app.state.service.store, threads)
    # First, and no parameters for FastAPI to look for: what comes in bursts is answered fastest.
    app.add_route(WEBHOOK, webhook, methods=["POST"])
    app.include_router(router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(StorageError, _storage_problem)
    app.add_middleware(
        SessionMiddleware,
        secret_key=settings.session_secret.get_secret_value() or "development",
        https_only=not settings.development,
    )
    app.add_middleware(Contract, settings=settings)
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/healthz", _healthz)
    app.add_api_route("/readyz", _readyz)
    app.mount("/page", StaticFiles(directory=PAGE, follow_symlink=True))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    if not service.settings.worker_in_web:
        yield
        return
    # Only a worker needs the SDK, which takes half a second to import.
    from inference.worker import run_worker

    stop = threading.Event()
    thread = threading.Thread(target=run_worker, args=(service, stop), name="worker")
    thread.start()
    yield
    stop.set()
    thread.join(timeout=10)


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        return problem_response(Problem(400, "Not JSON", "The body cannot be read as JSON."))
    errors = [
        {"field": ".".join(map(str, item["loc"][1:])), "detail": item["msg"]} for item in found
    ]
    return problem_response(invalid_fields(errors))


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = problem_response(Problem(error.status_code, str(error.detail), str(error.detail)))
    response.headers.update(error.headers or {})
    if error.status_code == 405 and (methods := _methods(request)):
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def _methods(request: Request) -> set[str]:
    """Every method of the path, where the framework names those of one route only."""
    return {
        method
        for route in (*router.routes, *request.app.routes)
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _storage_problem(_: Request, error: Exception) -> Response:
    return problem_response(Problem(503, "The storage cannot be reached", "Try again later."))


def _page() -> FileResponse:
    return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": PAGE_POLICY})


async def _healthz() -> dict[str, str]:
    return {"status": "ok"}


def _readyz(request: Request) -> JSONResponse:
    report = readiness(request.app.state.service)
    return JSONResponse(report, 200 if report["status"] == "ready" else 503)
