"""The routes: HTTP in, ``inference.service`` out. Nothing here calls Replicate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse

from inference.contract import LOOK_EVERY, NewPrediction, file_answer, too_large
from inference.prediction import Prediction, as_json, changed, settled
from inference.problems import not_found
from inference.service import Service
from inference.stream import events as events_of

from .caller import caller

router = APIRouter()
# Callers who wait look at their rows through these few threads, so that they never take the ones
# that answer webhooks.
waiting = anyio.CapacityLimiter(2)


async def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def address_of(request: Request) -> str:
    return request.client.host if request.client else "unknown"


Its = Annotated[Service, Depends(service_of)]
Caller = Annotated[str, Depends(caller)]
Address = Annotated[str, Depends(address_of)]


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
        events_of(first, partial(hold, look), service.settings),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


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
async def upload(file: UploadFile, service: Its, who: Caller, address: Address) -> dict[str, str]:
    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await file.read(2**20):
            yield chunk

    if file.size is not None and file.size > service.settings.max_upload_bytes:
        raise too_large(service.settings.max_upload_bytes)
    kind = file.content_type or "application/octet-stream"
    return {"url": await service.uploads.save(who, address, kind, chunks())}


@router.get("/files/{file_id}/{index}")
def stored_file(file_id: str, index: str, service: Its, who: Caller, request: Request) -> Response:
    stored = service.file(who, f"/files/{file_id}/{index}")
    if stored is None:
        raise not_found()
    status, headers, span = file_answer(stored, request.headers)
    if status == 304:
        return Response(status_code=304, headers=headers)
    return StreamingResponse(service.storage.get(stored.key, span), status, headers)
