"""The routes: HTTP in, ``inference.service`` out. Nothing here calls Replicate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt
from pydantic import ValidationError

from inference.contract import PAGE_POLICY, NewPrediction, file_answer, too_large
from inference.health import readiness
from inference.prediction import Prediction, StoredFile, as_json, changed, settled
from inference.problems import Problem, invalid, invalid_input, not_found
from inference.stream import events as events_of

from .caller import address, caller
from .main import service
from .middleware import problem_response
from .waiting import Stream, hold, watch

View = Callable[..., HttpResponseBase]


def methods(**views: View) -> View:
    """One view for each method of a path; the others are 405. Not Django's CSRF token guards it."""
    if "GET" in views:
        views["HEAD"] = views["GET"]

    @csrf_exempt
    def view(request: HttpRequest, **parts: str) -> HttpResponseBase:
        chosen = views.get(request.method or "")
        if chosen is not None:
            return chosen(request, **parts)
        response = problem_response(Problem(405, "Method Not Allowed", "Method Not Allowed"))
        response.headers["Allow"] = ", ".join(sorted(views))
        return response

    return view


def index(request: HttpRequest) -> HttpResponseBase:
    try:
        caller(request)
    except Problem:
        return redirect("login")
    response = render(request, "index.html")
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    return response


def models(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse({"results": service().models()})


def start(request: HttpRequest) -> HttpResponseBase:
    new = _new_prediction(request.body)
    who = caller(request)
    key = request.headers.get("Idempotency-Key")
    prediction = service().start(who, address(request), new.model, new.input, key)
    row_id = prediction.row.id
    hurried = "respond-async" in request.headers.get("Prefer", "")
    if prediction.row.mode == "run" and not hurried and not settled(prediction):
        seconds = service().settings.run_wait_seconds
        prediction = hold(partial(service().get, who, row_id), seconds, settled)
    status = 201 if settled(prediction) else 202
    where = {"Location": f"/api/predictions/{row_id}"}
    return JsonResponse(as_json(prediction), status=status, headers=where)


def _new_prediction(body: bytes) -> NewPrediction:
    try:
        return NewPrediction.model_validate(json.loads(body) if body else {})
    except ValidationError as error:
        raise invalid_input(error) from None
    except (ValueError, RecursionError):
        raise Problem(400, "Not JSON", "The body cannot be read as JSON.") from None


def page(request: HttpRequest) -> HttpResponseBase:
    limit = _number(request, "limit", 20, 1, 100)
    found, following = service().page(caller(request), request.GET.get("cursor"), limit)
    return JsonResponse({"results": [as_json(each) for each in found], "next_cursor": following})


def get(request: HttpRequest, row_id: str) -> HttpResponseBase:
    wait = _number(request, "wait", 0, 0, 20)
    look = partial(service().get, caller(request), row_id)
    prediction = look()
    if wait and not settled(prediction):
        before = prediction.row
        prediction = hold(look, wait, lambda now: changed(before, now.row))
    return JsonResponse(as_json(prediction))


def events(request: HttpRequest, row_id: str) -> HttpResponseBase:
    look = partial(service().get, caller(request), row_id)

    async def held(seconds: float, enough: Callable[[Prediction], bool]) -> Prediction:
        return await asyncio.to_thread(watch, look, seconds, enough)

    return StreamingHttpResponse(
        Stream(events_of(look(), held, service().settings)),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def cancel(request: HttpRequest, row_id: str) -> HttpResponseBase:
    who = caller(request)
    prediction = service().cancel(who, row_id)
    if not settled(prediction):
        prediction = hold(partial(service().get, who, row_id), 2, settled)
    return JsonResponse(as_json(prediction))


def delete(request: HttpRequest, row_id: str) -> HttpResponseBase:
    service().delete(caller(request), row_id)
    return _empty(204)


def prime(request: HttpRequest, key: str) -> HttpResponseBase:
    started = service().prime(caller(request), address(request), key)
    return JsonResponse({"model": key, "started": started}, status=202)


def upload(request: HttpRequest) -> HttpResponseBase:
    file = request.FILES.get("file")
    if not isinstance(file, UploadedFile):
        raise invalid("file", "a file is required, as multipart/form-data")
    if (file.size or 0) > service().settings.max_upload_bytes:
        raise too_large(service().settings.max_upload_bytes)

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in file.chunks(2**20):
            yield chunk

    extra = {
        name: value.decode("latin-1") for name, value in (file.content_type_extra or {}).items()
    }
    kind = "; ".join(
        [file.content_type or "application/octet-stream", *map("=".join, extra.items())]
    )
    saving = service().uploads.save(caller(request), address(request), kind, chunks())
    return JsonResponse({"url": asyncio.run(saving)}, status=201)


def webhook(request: HttpRequest) -> HttpResponseBase:
    service().receive(request.body, request.headers)
    return JsonResponse({})


def stored_file(request: HttpRequest, file_id: str, index: str) -> HttpResponseBase:
    stored = service().file(caller(request), f"/files/{file_id}/{index}")
    if stored is None:
        raise not_found()
    return send(request, stored)


def send(request: HttpRequest, stored: StoredFile) -> HttpResponseBase:
    """The stored file, or the part of it that was asked for."""
    status, headers, span = file_answer(stored, request.headers)
    if status == 304:
        return _empty(304, headers)
    return StreamingHttpResponse(
        Stream(service().storage.get(stored.key, span)), status=status, headers=headers
    )


def healthz(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponseBase:
    report = readiness(service())
    return JsonResponse(report, status=200 if report["status"] == "ready" else 503)


def _number(request: HttpRequest, name: str, default: int, least: int, most: int) -> int:
    given = request.GET.get(name, str(default))
    if given.isascii() and given.isdecimal() and len(given) < 9 and least <= int(given) <= most:
        return int(given)
    raise invalid(name, f"a whole number from {least} to {most}")


def _empty(status: int, headers: dict[str, Any] | None = None) -> HttpResponse:
    response = HttpResponse(status=status, headers=headers)
    if headers is None:
        del response.headers["Content-Type"]
    return response
