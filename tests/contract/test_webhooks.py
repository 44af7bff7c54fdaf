"""Webhooks: only what Replicate signed counts, once, and never against what is known."""

from __future__ import annotations

import concurrent.futures
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.client import FLUX, Caller, Emulator, sign

PATH = "/api/webhooks/replicate"
NOBODYS = {"id": "nobodys", "status": "succeeded"}


def report(caller: Caller, prediction: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What Replicate would say about a prediction of ours."""
    hook = f"{caller.url}{PATH}?prediction={prediction['id']}"
    return {"id": prediction["replicate_id"], "webhook": hook, "output": None, **changes}


def test_signed_and_unknown_is_200(caller: Caller) -> None:
    assert caller.webhook(NOBODYS).json() == {}
    assert caller.webhook(b"not json").status_code == 200
    assert caller.webhook(b"").status_code == 200
    assert caller.webhook(b"[" * 100_000).status_code == 200
    for body in ([1], {}, None, {"id": 1}, {"id": "x", "status": "new"}, {"id": "x" * 999}):
        assert caller.webhook(body).status_code == 200


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("name", ["webhook_id", "webhook_timestamp", "webhook_signature"])
def test_a_header_is_missing(caller: Caller, name: str) -> None:
    headers: dict[str, Any] = {name: ""}
    assert caller.webhook(NOBODYS, **headers).status_code == 400


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("seconds", [-400, 400, -1e9, 1e9])
def test_another_time(caller: Caller, seconds: float) -> None:
    assert caller.webhook(NOBODYS, at=time.time() + seconds).status_code == 401


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("seconds", [-200, 200])
def test_about_now(caller: Caller, seconds: float) -> None:
    assert caller.webhook(NOBODYS, at=time.time() + seconds).status_code == 200


@pytest.mark.database("sqlite")
@pytest.mark.parametrize(
    "headers",
    [
        {"webhook_signature": "v1,AAAA"},
        {"webhook_signature": "v1"},
        {"webhook_signature": ","},
        {"webhook_signature": "v1,ä"},
        {"webhook_signature": " ".join(["v1,AAAA"] * 1000)},
        {"webhook_id": "msg_other"},
        {"webhook_timestamp": "x"},
        {"webhook_timestamp": "1e9"},
        {"webhook_timestamp": "9" * 5000},
        {"webhook_timestamp": str(int(time.time()) - 1)},
    ],
)
def test_a_forged_header(caller: Caller, headers: dict[str, str]) -> None:
    as_sent = {name: value.encode() for name, value in headers.items()}
    assert caller.webhook(NOBODYS, **as_sent).status_code == 401  # type: ignore[arg-type]


@pytest.mark.database("sqlite")
def test_another_secret_or_body(caller: Caller) -> None:
    assert caller.webhook(NOBODYS, secret="whsec_" + "QUJD" * 8).status_code == 401
    headers = sign(json.dumps(NOBODYS).encode(), caller.emulator.secret)
    other = json.dumps(NOBODYS | {"status": "failed"})
    assert caller.http.post(PATH, content=other, headers=headers).status_code == 401


@pytest.mark.database("sqlite")
def test_one_of_several_signatures(caller: Caller) -> None:
    body = json.dumps(NOBODYS).encode()
    right = sign(body, caller.emulator.secret)
    signature = right["webhook-signature"]
    for given_, status in (
        (f"v1,AAAA {signature}", 200),
        (f"garbage v2,AAAA {signature} ,", 200),
        (signature.replace("v1,", "v2,"), 401),
        (signature[:-2], 401),
    ):
        headers = right | {"webhook-signature": given_}
        assert caller.http.post(PATH, content=body, headers=headers).status_code == status


@pytest.mark.database("sqlite")
def test_too_large(caller: Caller) -> None:
    assert caller.webhook(b"x" * (9 * 2**20)).status_code == 413
    assert caller.webhook(b"x" * (7 * 2**20)).status_code == 200

    def unannounced() -> Any:
        for _ in range(90):
            yield b"x" * 100_000

    headers = sign(b"", caller.emulator.secret)
    assert caller.http.post(PATH, content=unannounced(), headers=headers).status_code == 413


@pytest.mark.database("sqlite")
def test_it_is_for_posts_only(caller: Caller) -> None:
    assert caller.get(PATH).status_code == 405


@pytest.mark.parametrize("status", ["starting", "processing", "succeeded", "failed", "canceled"])
def test_a_late_report_changes_nothing(caller: Caller, status: str) -> None:
    prediction = caller.run(FLUX, prompt="x")
    body = report(caller, prediction, status=status, error="late")
    assert caller.webhook(body).status_code == 200
    time.sleep(1)
    assert caller.look(prediction) == prediction


def test_a_forged_report_changes_nothing(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    body = report(caller, prediction, status="failed", error="forged")
    secret = "whsec_" + "QUJD" * 8
    assert caller.webhook(body, secret=secret).status_code == 401
    assert caller.webhook(body, at=time.time() - 400).status_code == 401
    time.sleep(1)
    assert caller.look(prediction)["status"] == "processing"


def test_the_hint_in_the_url_does_not_count(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    body = json.dumps({"id": "another", "status": "failed", "error": "by hint"}).encode()
    path = f"{PATH}?prediction={prediction['id']}"
    assert caller.http.post(path, content=body).status_code == 400
    headers = sign(body, emulator.secret)
    assert caller.http.post(path, content=body, headers=headers).status_code == 200
    time.sleep(1)
    assert caller.look(prediction)["status"] == "processing"


def test_a_replayed_report_is_known(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    body = json.dumps(report(caller, prediction, status="failed", error="once")).encode()
    headers = sign(body, emulator.secret)
    for _ in range(3):
        assert caller.http.post(PATH, content=body, headers=headers).status_code == 200
    failed = caller.settled(prediction)
    assert (failed["status"], failed["error"]) == ("failed", "once")
    # the same id with another body, as nobody but Replicate could sign it
    other = json.dumps(report(caller, prediction, status="canceled")).encode()
    again = sign(other, emulator.secret, event=headers["webhook-id"])
    assert caller.http.post(PATH, content=other, headers=again).status_code == 200
    time.sleep(1)
    assert caller.look(prediction) == failed


@pytest.mark.parametrize(
    "events", [{"webhook_repeat": 3}, {"webhook_delay": 2}, {"body_webhook_field": False}], ids=str
)
def test_however_they_come(caller: Caller, emulator: Emulator, events: dict[str, Any]) -> None:
    emulator.settings(**events)
    prediction = caller.run("musicgen", prompt="drums")
    assert prediction["storage"] == "stored"
    assert len(emulator.of(prediction)) == 1


def test_they_are_answered_while_a_hundred_wait(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        waiting = [pool.submit(caller.look, prediction, 15) for _ in range(100)]
        time.sleep(3)
        began = time.monotonic()
        assert caller.webhook(NOBODYS).status_code == 200
        assert time.monotonic() - began < 1
        assert not any(each.done() for each in waiting)
        caller.cancel(prediction)
        assert {each.result()["status"] for each in waiting} == {"canceled"}


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("id", "status", "webhook", "output", "error", "version", "metrics", "urls")


@given(JSONS | st.fixed_dictionaries({}, optional=dict.fromkeys((*FIELDS, "completed_at"), JSONS)))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_signed_is_200_whatever_it_says(caller: Caller, body: Any) -> None:
    assert caller.webhook(body).status_code == 200
    named = body | {"id": "x", "status": "succeeded"} if isinstance(body, dict) else body
    assert caller.webhook(named).status_code == 200
