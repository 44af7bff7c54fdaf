"""What a worker's steps make of Replicate's answers; run by ``test_steps.py`` in a project."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from inference.gateway import Gateway
from inference.prediction import Row
from inference.service import Service
from inference.settings import load_settings
from inference.state import ADOPTION_MARGIN
from inference.steps import (
    ASK_EVERY,
    GIVE_UP_ASKING,
    GIVE_UP_SENDING,
    GIVE_UP_STORING,
    Steps,
)
from inference.store import Limits

LIMITS = Limits(10**6, 10**6, 10**6, 1e9)
CANCEL_AFTER = 600.0
UNKNOWN_AFTER = CANCEL_AFTER + ADOPTION_MARGIN


class Replicate:
    """A server that says what a test tells it to, and nothing to whom it drops."""

    def __init__(self) -> None:
        self.status = 200
        self.body: dict[str, Any] = {}
        self.dropped = False
        self.asked: list[tuple[str, str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                token = self.headers.get("Authorization")
                outer.asked.append((self.command, self.path, token))
                if outer.dropped:
                    self.close_connection = True
                    return
                content = json.dumps(outer.body).encode()
                self.send_response(outer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def says(self, code: int, /, **body: Any) -> None:
        self.status, self.body = code, body


@pytest.fixture
def replicate() -> Iterator[Replicate]:
    replicate = Replicate()
    yield replicate
    replicate.server.shutdown()
    replicate.server.server_close()


@pytest.fixture
def service(replicate: Replicate, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_test")
    monkeypatch.setenv("REPLICATE_BASE_URL", f"{replicate.url}/v1")
    monkeypatch.setenv("CANCEL_AFTER_SECONDS", f"{CANCEL_AFTER:.0f}")
    made: Service = import_module("app.main").build_service(load_settings())
    return made


Take = Callable[[str, Row], Row]


@pytest.fixture
def take(service: Service) -> Take:
    """Takes one step, as a worker does."""

    async def step(name: str, row: Row) -> Row:
        steps = Steps(service, Gateway(service.settings))
        act: Callable[[Row], Awaitable[Row]] = getattr(steps, name)
        try:
            return await act(row)
        finally:
            await steps.aclose()

    return lambda name, row: asyncio.run(step(name, row))


def claimed(service: Service, **values: Any) -> Row:
    """A row in our hands."""
    now = time.time()
    row = Row(secrets.token_hex(16), "me", "::1", "m", "o/m", {}, created_at=now, due_at=0.0)
    service.store.add(replace(row, **values), LIMITS)
    while (found := service.store.claim(now, 60)) is not None:
        if found.id == row.id:
            return found
    raise AssertionError("it was not due")


def sent(service: Service, ago: float, **values: Any) -> Row:
    return replace(claimed(service), sent_at=time.time() - ago, **values)


def soon(when: float | None, seconds: float) -> bool:
    return when is not None and abs(when - time.time() - seconds) < 5


# --- create


def test_a_create_is_written_down_and_sent_once(
    service: Service, take: Take, replicate: Replicate
) -> None:
    replicate.says(201, id="r1", status="starting")
    row = take("create", claimed(service))
    assert (row.replicate_id, row.status, row.failures) == ("r1", "starting", 0)
    found = service.store.get(row.id)
    assert found is not None
    assert found.sent_at == row.sent_at
    assert [(method, path) for method, path, _ in replicate.asked] == [("POST", "/v1/predictions")]


def test_what_was_canceled_meanwhile_is_not_sent(
    service: Service, take: Take, replicate: Replicate
) -> None:
    row = claimed(service)
    service.stop(row.id)
    assert take("create", row) == row
    assert replicate.asked == []


def test_what_could_not_be_sent_for_an_hour_fails(
    service: Service, take: Take, replicate: Replicate
) -> None:
    late = claimed(service, created_at=time.time() - GIVE_UP_SENDING - 1)
    assert "nothing was sent" in str(take("create", late).error)
    assert replicate.asked == []
    replicate.says(201, id="r1", status="starting")
    just = claimed(service, created_at=time.time() - GIVE_UP_SENDING + 30)
    assert take("create", just).status == "starting"


@pytest.mark.parametrize("status", [401, 402, 404, 422])
def test_a_refusal_ends_it(service: Service, take: Take, replicate: Replicate, status: int) -> None:
    replicate.says(status, title="No", detail="because")
    row = take("create", claimed(service))
    assert (row.status, row.completed_at is None) == ("failed", False)
    assert "No. because" in str(row.error)
    assert ("nothing will be tried again" in str(row.error)) == (status == 402)
    assert len(replicate.asked) == 1


def test_a_throttled_create_goes_out_again_when_replicate_says(
    service: Service, take: Take, replicate: Replicate
) -> None:
    replicate.says(429, detail="slow down", retry_after=70)
    row = take("create", claimed(service))
    assert (row.status, row.sent_at, row.failures) == ("pending", None, 1)
    assert soon(row.ask_at, 70)


@pytest.mark.parametrize("how", [500, 502, 408, "dropped", "nonsense"])
def test_a_create_without_an_answer_counts_as_sent(
    service: Service, take: Take, replicate: Replicate, how: int | str
) -> None:
    replicate.says(how if isinstance(how, int) else 201, no="prediction")
    replicate.dropped = how == "dropped"
    row = take("create", claimed(service))
    assert (row.status, row.replicate_id) == ("pending", None)
    assert row.sent_at is not None
    assert len(replicate.asked) == 1


def test_a_create_that_found_nobody_was_not_sent(
    service: Service, take: Take, replicate: Replicate
) -> None:
    row = claimed(service)
    replicate.server.shutdown()
    replicate.server.server_close()
    row = take("create", row)
    assert (row.status, row.sent_at, row.failures) == ("pending", None, 1)


# --- adopt


@pytest.mark.parametrize(
    ("ago", "status", "ends"),
    [
        (10, 200, False),
        (UNKNOWN_AFTER - 30, 200, False),
        (UNKNOWN_AFTER + 1, 200, True),
        (UNKNOWN_AFTER + 1, 500, False),  # nobody has said that it is not there
        (UNKNOWN_AFTER + 1, 401, False),
        (UNKNOWN_AFTER + GIVE_UP_ASKING + 1, 500, True),
    ],
)
def test_what_is_not_found_is_given_up_at_last(
    service: Service, take: Take, replicate: Replicate, ago: float, status: int, ends: bool
) -> None:
    replicate.says(status, results=[])
    row = take("adopt", sent(service, ago))
    assert row.over == ends
    assert ("outcome is unknown" in str(row.error)) == ends
    assert ends or (row.ask_at or 0) >= time.time() + 1
    assert {method for method, _, _ in replicate.asked} == {"GET"}


def test_a_lost_create_is_looked_for_on_the_apis_own_host_only(
    service: Service, take: Take, replicate: Replicate
) -> None:
    elsewhere = Replicate()
    replicate.says(200, results=[], next=f"{elsewhere.url}/v1/predictions?cursor=2")
    assert not take("adopt", sent(service, 10)).over
    assert elsewhere.asked == []
    assert [path for _, path, _ in replicate.asked][1:3] == ["/v1/predictions?cursor=2"] * 2
    assert len(replicate.asked) == 20, "not without end"


# --- ask and cancel


@pytest.mark.parametrize(
    ("ago", "status", "ends"),
    [
        (10, 404, False),  # Replicate may not know it yet
        (UNKNOWN_AFTER + 1, 404, True),
        (UNKNOWN_AFTER + 1, 401, False),  # it goes on there, whatever our token is
        (UNKNOWN_AFTER + 1, 500, False),
        (UNKNOWN_AFTER + GIVE_UP_ASKING + 1, 401, True),
    ],
)
@pytest.mark.parametrize("step", ["ask", "cancel"])
def test_what_cannot_be_asked_about_is_given_up_at_last(
    service: Service,
    take: Take,
    replicate: Replicate,
    step: str,
    ago: float,
    status: int,
    ends: bool,
) -> None:
    replicate.says(status, detail="no")
    row = take(step, sent(service, ago, replicate_id="r1", status="starting"))
    assert row.over == ends
    assert ends or (row.ask_at or 0) > time.time() + ASK_EVERY - 1


def test_it_is_asked_no_sooner_than_replicate_says(
    service: Service, take: Take, replicate: Replicate
) -> None:
    replicate.says(429, detail="slow down", retry_after=70)
    row = take("ask", sent(service, 10, replicate_id="r1", status="starting"))
    assert soon(row.ask_at, 70)


# --- store and erase


@pytest.mark.parametrize(
    ("status", "ago", "storage"),
    [
        (200, 0, "stored"),
        (404, 0, "expired"),
        (410, 0, "expired"),
        (500, 0, "pending"),
        (500, GIVE_UP_STORING + 1, "failed"),
    ],
)
def test_an_output_is_stored_or_its_loss_is_said(
    service: Service, take: Take, replicate: Replicate, status: int, ago: float, storage: str
) -> None:
    replicate.says(status, a="picture")
    ended: dict[str, Any] = {"status": "succeeded", "storage": "pending", "replicate_id": "r1"}
    ended |= {"completed_at": time.time() - ago, "remote_output": f"{replicate.url}/x"}
    row = take("store", replace(claimed(service), **ended))
    assert (row.status, row.storage) == ("succeeded", storage)
    assert (row.remote_output is None) == (storage != "pending")
    assert bool(row.error) == (storage in ("expired", "failed"))
    assert (row.failures == 1) == (storage == "pending")


def test_what_cannot_be_erased_is_tried_again(
    service: Service, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: dict[str, Any] = {"status": "succeeded", "storage": "stored", "deleted_at": 1.0}
    ended |= {"output": "/files/x/0", "files": [{"key": "x"}], "input": {"prompt": "secret"}}
    row = replace(claimed(service), predict_seconds=2.5, **ended)
    folder = Path(os.environ["STORAGE_URL"], row.id)
    folder.mkdir(parents=True)
    (folder / "0.png").touch()
    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", os.rmdir)  # refuses, since there is something inside
        again = take("erase", row)
    assert (again.erased, again.failures, again.files) == (False, 1, row.files)
    gone = take("erase", row)
    assert not folder.exists()
    assert (gone.erased, gone.storage, gone.output, gone.files) == (True, "none", None, [])
    assert gone.input == {}
    assert (gone.id, gone.predict_seconds) == (row.id, 2.5), "its accounting stays"
