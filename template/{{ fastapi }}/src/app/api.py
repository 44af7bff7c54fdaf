"""The routes: HTTP in, ``inference.service`` out. Nothing here calls Replicate."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict

from inference.prediction import Prediction, as_json
from inference.problems import Problem, not_found
from inference.service import Service, changed, settled
from inference.stream import text_pieces

from .caller import caller

LOOK_EVERY = 0.25
SAFE_INLINE = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/")

router = APIRouter()
# Callers who wait look at their rows through these few threads, so that they never take the ones
# that answer webhooks.
waiting = anyio.CapacityLimiter(2)


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def address_of(request: Request) -> str:
    return request.client.host if request.client else "unknown"


Its = Annotated[Service, Depends(service_of)]
Caller = Annotated[str, Depends(caller)]
Address = Annotated[str, Depends(address_of)]


class NewPrediction(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    input: dict[str, Any]


async def hold(
    look: Callable[[], Prediction], seconds: float, enough: Callable[[Prediction], bool]
) -> Prediction:
    """Look again until it is enough or the time is out."""
    end = time.monotonic() + seconds
    while True:
        prediction = await run_sync(look, limiter=waiting)
        if enough(prediction) or time.monotonic() >= end:
            return prediction
        await asyncio.sleep(LOOK_EVERY)


@router.get("/api/models")
def models(service: Its) -> dict[str, Any]:
    return {"results": service.models()}


@router.post("/api/predictions")
async def start(
    new: NewPrediction,
    service: Its,
    who: Caller,
    address: Address,
    idempotency_key: Annotated[str | None, Header()] = None,
    prefer: Annotated[str, Header()] = "",
) -> JSONResponse:
    prediction = await run_sync(service.start, who, address, new.model, new.input, idempotency_key)
    row_id = prediction.row.id
    hurried = "respond-async" in prefer
    if prediction.row.mode == "run" and not hurried and not settled(prediction):
        prediction = await hold(
            lambda: service.get(who, row_id), service.settings.run_wait_seconds, settled
        )
    status = 201 if settled(prediction) else 202
    where = {"Location": f"/api/predictions/{row_id}"}
    return JSONResponse(as_json(prediction), status, where)


@router.get("/api/predictions")
def page(
    service: Its,
    who: Caller,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    predictions, following = service.page(who, cursor, limit)
    return {"results": [as_json(each) for each in predictions], "next_cursor": following}


@router.get("/api/predictions/{row_id}")
async def get(
    row_id: str, service: Its, who: Caller, wait: Annotated[int, Query(ge=0, le=20)] = 0
) -> dict[str, Any]:
    def look() -> Prediction:
        return service.get(who, row_id)

    first = await run_sync(look, limiter=waiting)
    if wait == 0 or settled(first):
        return as_json(first)
    return as_json(await hold(look, wait, lambda now: changed(first.row, now.row)))


@router.get("/api/predictions/{row_id}/events")
async def events(row_id: str, service: Its, who: Caller, request: Request) -> StreamingResponse:
    def look() -> Prediction:
        return service.get(who, row_id)

    first = await run_sync(look, limiter=waiting)
    return StreamingResponse(
        _events(first, look, service),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(
    prediction: Prediction, look: Callable[[], Prediction], service: Service
) -> AsyncIterator[bytes]:
    end = time.monotonic() + service.settings.cancel_after_seconds + 60
    streamed = False
    yield _event("prediction", as_json(prediction))
    while not settled(prediction) and time.monotonic() < end:
        url = prediction.row.stream_url
        if url is not None and not streamed and not prediction.row.over:
            streamed = True
            async for piece in text_pieces(url, service.settings.emulator_origin):
                yield _event("output", piece)
        prediction = await hold(look, 15, partial(_news, prediction))
        yield _event("prediction", as_json(prediction))
    yield _event("done", as_json(prediction))


def _news(before: Prediction, after: Prediction) -> bool:
    return changed(before.row, after.row) or before.row.stream_url != after.row.stream_url


def _event(name: str, data: Any) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(data, ensure_ascii=False))


@router.post("/api/predictions/{row_id}/cancel")
async def cancel(row_id: str, service: Its, who: Caller) -> dict[str, Any]:
    prediction = await run_sync(service.cancel, who, row_id)
    if not settled(prediction):
        prediction = await hold(lambda: service.get(who, row_id), 2, settled)
    return as_json(prediction)


@router.delete("/api/predictions/{row_id}", status_code=204)
def delete(row_id: str, service: Its, who: Caller) -> Response:
    service.delete(who, row_id)
    return Response(status_code=204)


@router.post("/api/models/{key}/prime", status_code=202)
def prime(key: str, service: Its, who: Caller, address: Address) -> dict[str, Any]:
    return {"model": key, "started": service.prime(who, address, key)}


@router.post("/api/files", status_code=201)
async def upload(file: UploadFile, service: Its, who: Caller) -> dict[str, str]:
    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await file.read(2**20):
            yield chunk

    if file.size is not None and file.size > service.settings.max_upload_bytes:
        most = service.settings.max_upload_bytes
        raise Problem(413, "Too large", f"A file may have at most {most} bytes.")
    kind = file.content_type or "application/octet-stream"
    saved = await service.save_upload(who, kind, chunks())
    await run_sync(service.store.add_upload, saved)
    return {"url": f"/files/{saved.id}/0"}


@router.post("/api/webhooks/replicate")
async def webhook(request: Request, service: Its) -> dict[str, Any]:
    body = await request.body()
    await run_sync(service.receive, body, request.headers)
    return {}


@router.get("/files/{file_id}/{index}")
def stored_file(file_id: str, index: str, service: Its, who: Caller, request: Request) -> Response:
    stored = service.file(who, f"/files/{file_id}/{index}")
    if stored is None:
        raise not_found()
    inline = stored.content_type.startswith(SAFE_INLINE)
    headers = {
        "Content-Type": stored.content_type,
        "ETag": f'"{stored.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": "inline" if inline else "attachment",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    known = request.headers.get("if-none-match", "").replace("W/", "").split(",")
    if headers["ETag"] in [tag.strip() for tag in known]:
        return Response(status_code=304, headers=headers)
    span = _range(request.headers.get("range"), stored.size)
    start, end = span or (0, stored.size)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{stored.size}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(
        service.storage.get(stored.key, (start, end) if span else None),
        206 if span else 200,
        headers,
    )


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """One byte range as (start, end), end exclusive; None where the whole file is to be sent."""
    asked = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header or "")
    if asked is None or not any(asked.groups()):
        return None
    first, last = asked.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    return (start, end) if start < end else None
