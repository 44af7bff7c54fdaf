"""From a request to a stored output, on the emulator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from inference.gateway import Gateway
from inference.models import REGISTRY
from inference.prediction import Prediction, Row, Succeeded
from inference.problems import Problem
from inference.registry import smallest_input
from inference.service import Service
from inference.storage import StorageError
from inference.store import Event
from inference.uploads import EVENT_SECONDS, UPLOAD_MARGIN, UPLOAD_SECONDS
from inference.worker import Worker

KEY = next(iter(REGISTRY))


def until_settled(service: Service, row_id: str, seconds: float = 30) -> Prediction:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        prediction = service.get("me", row_id)
        if prediction.row.settled:
            return prediction
        time.sleep(0.05)
    raise AssertionError(f"still {service.get('me', row_id).row}")


async def read(service: Service, key: str) -> bytes:
    return b"".join([chunk async for chunk in service.storage.get(key)])


def begin(service: Service, key: str, idempotency_key: str | None = None) -> Prediction:
    return service.start("me", "::1", key, smallest_input(REGISTRY[key]), idempotency_key)


@pytest.mark.parametrize("key", REGISTRY)
def test_every_model_gives_a_stored_output(service: Service, work: Worker, key: str) -> None:
    prediction = until_settled(service, begin(service, key).row.id)
    assert isinstance(prediction, Succeeded), prediction
    assert "http" not in str(prediction.output)
    model = REGISTRY[key]
    if model.output in ("file", "files"):
        assert prediction.row.files
        assert str(prediction.output).count(f"/files/{prediction.row.id}/") == len(
            prediction.row.files
        )


def test_the_same_key_is_the_same_prediction(service: Service) -> None:
    first = begin(service, KEY, "once")
    assert begin(service, KEY, "once").row.id == first.row.id
    assert begin(service, KEY, "twice").row.id != first.row.id


def test_another_callers_prediction_is_not_there(service: Service) -> None:
    row_id = begin(service, KEY).row.id
    for act in (service.get, service.cancel, service.delete):
        with pytest.raises(Problem) as refusal:
            act("someone else", row_id)
        assert refusal.value.status == 404


def test_canceled_before_it_was_sent(service: Service) -> None:
    row_id = begin(service, KEY).row.id
    assert service.cancel("me", row_id).row.status == "canceled"
    with pytest.raises(Problem) as refusal:
        service.cancel("me", row_id)
    assert refusal.value.status == 409


def test_a_wrong_input_names_its_field(service: Service) -> None:
    with pytest.raises(Problem) as refusal:
        service.start("me", "::1", KEY, {"no_such_field": 1}, None)
    assert refusal.value.status == 422
    assert refusal.value.errors
    assert "input.no_such_field" in [error["field"] for error in refusal.value.errors]


def test_what_breaks_over_one_prediction_stops_no_other(
    service: Service, work: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, broken = work.steps.create, begin(service, KEY).row.id
    monkeypatch.setattr(
        work.steps, "create", lambda row: 1 / 0 if row.id == broken else create(row)
    )
    service.store.receive([Event("msg_1", "nobodys", broken, {"no": "prediction"}, 0.0)])
    assert isinstance(until_settled(service, begin(service, KEY).row.id), Succeeded)
    assert not service.get("me", broken).row.over
    monkeypatch.setattr(work.steps, "create", create)
    assert isinstance(until_settled(service, broken), Succeeded)


def test_a_worker_that_has_lost_its_row_stops(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(service, KEY)
    ended: list[str] = []

    async def long(row: Row) -> Row:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(row.id)
        return row

    async def lose() -> None:
        worker = Worker(service, Gateway(service.settings))
        monkeypatch.setattr(worker.steps, "create", long)
        working = asyncio.create_task(worker.once())
        await asyncio.sleep(1)  # renewed several times meanwhile
        claim = service.store.claim
        assert await asyncio.to_thread(claim, time.time(), 60) is None
        after_a_long_pause = await asyncio.to_thread(claim, time.time() + 60, 60)
        assert after_a_long_pause is not None
        assert await working
        await worker.steps.aclose()

    monkeypatch.setattr("inference.worker.LEASE", 0.6)
    asyncio.run(asyncio.wait_for(lose(), 20))
    assert len(ended) == 1


def test_a_dead_workers_row_comes_due_again(service: Service) -> None:
    begin(service, KEY)
    now = time.time()
    first = service.store.claim(now, 10)
    assert first is not None
    assert service.store.claim(now, 10) is None
    second = service.store.claim(now + 11, 10)
    assert second is not None
    assert not service.store.save(first, first), "the first worker is fenced out"
    assert service.store.save(second, second)


def test_an_upload_is_erased_when_nobody_can_need_it(service: Service) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"a picture"

    now = time.time()
    url = asyncio.run(service.uploads.save("me", "::1", "image/png", content()))
    stored = service.file("me", url)
    assert stored is not None
    assert service.file("someone else", url) is None
    day = now + UPLOAD_SECONDS
    assert service.file("me", url, day - 1) == stored
    assert service.file("me", url, day + 1) is None
    asyncio.run(service.uploads.tidy(day + UPLOAD_MARGIN - 1))
    assert service.file("me", url) == stored, "a prediction may still need it"
    asyncio.run(service.uploads.tidy(day + UPLOAD_MARGIN + 1))
    assert service.file("me", url) is None
    with pytest.raises(StorageError):
        asyncio.run(read(service, stored.key))


def test_webhooks_are_forgotten_once_they_are_handled(service: Service) -> None:
    row_id = begin(service, KEY).row.id
    now = time.time()
    service.store.receive([Event("msg_1", "r1", row_id, {}, now)])
    service.store.receive([Event("msg_2", "r2", None, {}, now)])
    later = now + EVENT_SECONDS
    asyncio.run(service.uploads.tidy(later - 1))
    assert not service.store.receive([Event("msg_2", "r2", None, {}, now)])
    asyncio.run(service.uploads.tidy(later + 1))
    assert service.store.receive([Event("msg_2", "r2", None, {}, now)]), "of no row of ours"
    assert not service.store.receive([Event("msg_1", "r1", row_id, {}, now)])
    row = service.store.claim(time.time(), 10)
    assert row is not None
    assert service.store.save(row, row, service.store.events(row))
    asyncio.run(service.uploads.tidy(later + 1))
    assert service.store.receive([Event("msg_1", "r1", row_id, {}, now)]), "handled"
