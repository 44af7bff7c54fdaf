"""Predictions: starting, results of every kind, waiting, events, cancel, delete, pages."""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import time
from typing import Any

import httpx
import pytest

from tests.contract.client import (
    ESRGAN,
    FLUX,
    JSON,
    LLAMA,
    PICTURE,
    Caller,
    ContractBroken,
    Emulator,
    check,
)
from tests.contract.conftest import NewCaller

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGOQk5MDAADWAGFLa3GBAAAAAElFTkSuQmCC"
)
RUNS = {"model": FLUX, "input": {"prompt": "x"}}


# --- outputs of every kind


def test_run_answers_with_the_stored_output(caller: Caller) -> None:
    prediction = caller.run(FLUX, prompt="a boat", num_outputs=2)
    assert (prediction["status"], prediction["storage"]) == ("succeeded", "stored")
    assert prediction["output"] == [f"/files/{prediction['id']}/{n}" for n in (0, 1)]
    assert prediction["metrics"]["predict_seconds"] > 0
    assert prediction["replicate_id"]
    assert prediction["ref"] == "black-forest-labs/flux-schnell"
    assert prediction["error"] is None
    assert prediction["completed_at"] >= prediction["created_at"]
    contents = [caller.get(url) for url in prediction["output"]]
    assert all(file.content.startswith(b"\x89PNG") for file in contents)
    assert all(file.headers["content-type"] == "image/png" for file in contents)
    assert contents[0].content != contents[1].content
    assert caller.look(prediction) == prediction == caller.all()[0]


def test_the_answer_of_a_settled_run_is_201(caller: Caller) -> None:
    assert caller.post("/api/predictions", RUNS).status_code == 201


def test_run_mode_answers_at_once_where_asked_to(caller: Caller, emulator: Emulator) -> None:
    emulator.settings(run_seconds=2)
    began = time.monotonic()
    prediction = caller.start_at_once(FLUX, prompt="a boat")
    assert time.monotonic() - began < 2
    assert prediction["status"] != "succeeded"
    assert caller.settled(prediction)["storage"] == "stored"


@pytest.mark.database("sqlite")
def test_run_mode_is_bounded_and_nothing_is_lost(caller: Caller, emulator: Emulator) -> None:
    emulator.settings(run_seconds=9)
    began = time.monotonic()
    reply = caller.post("/api/predictions", RUNS)
    assert reply.status_code == 202
    assert time.monotonic() - began < 8
    assert caller.settled(reply.json())["storage"] == "stored"
    assert len(emulator.of(reply.json())) == 1


def test_webhook_mode_answers_at_once(caller: Caller, emulator: Emulator) -> None:
    emulator.settings(cold_start_seconds=3)
    began = time.monotonic()
    reply = caller.post("/api/predictions", {"model": "musicgen", "input": {"prompt": "drums"}})
    assert reply.status_code == 202
    assert time.monotonic() - began < 3
    prediction = caller.settled(reply.json())
    assert caller.get(prediction["output"]).headers["content-type"].startswith("audio/")
    # what ran is what is pinned, and known
    assert prediction["ref"].endswith(f":{prediction['version_ran']}")


def test_file_text_and_json(caller: Caller) -> None:
    image = caller.uploaded(PNG, "image/png")
    assert caller.run(ESRGAN, image=image)["storage"] == "stored"
    assert caller.run("blip", image=image)["output"]
    heard = caller.run("whisper", audio=image)["output"]
    assert heard["segments"]
    assert caller.get(heard["txt_file"]).text == heard["transcription"]


def test_urls_at_any_depth_of_json(caller: Caller, emulator: Emulator) -> None:
    made = caller.run(FLUX, prompt="x")
    inner = emulator.of(made)[0]["output"][0]
    output = {"a": [{"b": inner}, inner], "c": "plain", "d": None, "e": 1e-05, "f": "😀"}
    emulator.fault("output", output=output, model="openai/whisper")
    prediction = caller.run("whisper", audio=caller.uploaded(PNG, "image/png"))
    stored = [f"/files/{prediction['id']}/{n}" for n in (0, 1)]
    assert prediction["output"] == output | {"a": [{"b": stored[0]}, stored[1]]}
    for url in stored:
        assert caller.get(url).content == caller.get(made["output"][0]).content


def test_a_status_never_goes_back(caller: Caller, emulator: Emulator) -> None:
    emulator.settings(cold_start_seconds=0.5, run_seconds=1, webhook_repeat=2, webhook_delay=0.2)
    ranks = ["pending", "starting", "processing", "succeeded"]
    prediction = caller.start(ESRGAN, image=PICTURE)
    seen = [prediction]
    while seen[-1]["storage"] != "stored":
        seen.append(caller.look(prediction, wait=5))
    seen += [caller.look(prediction) for _ in range(3)]
    order = [ranks.index(each["status"]) for each in seen]
    assert order == sorted(order)
    assert {each["created_at"] for each in seen} == {prediction["created_at"]}


def test_a_stored_output_is_an_input(caller: Caller, emulator: Emulator) -> None:
    made = caller.run(FLUX, prompt="x")["output"][0]
    prediction = caller.run(ESRGAN, image=made)
    assert prediction["storage"] == "stored"
    sent = emulator.of(prediction)[0]["input"]["image"]
    upload = emulator.http.get(sent).json()
    assert upload["checksums"]["sha256"] == hashlib.sha256(caller.get(made).content).hexdigest()


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("image", [PICTURE, "data:image/png;base64,iVBORw0KGgo="])
def test_foreign_files_are_inputs_as_they_are(
    caller: Caller, emulator: Emulator, image: str
) -> None:
    prediction = caller.run(ESRGAN, image=image, scale=2)
    assert prediction["status"] == "succeeded"
    assert emulator.of(prediction)[0]["input"] == {"image": image, "scale": 2}


# --- what goes wrong


@pytest.mark.parametrize(
    ("fault", "params", "status", "words"),
    [
        ("fail", {"error": "out of memory"}, "failed", "out of memory"),
        ("create_402", {}, "failed", "billing"),
        ("create_422", {}, "failed", "Replicate refused"),
        ("version_422", {}, "failed", "Invalid version"),
        ("abort", {}, "aborted", None),
    ],
)
def test_results_that_are_no_output(
    caller: Caller, emulator: Emulator, fault: str, params: dict[str, Any], status: str, words: str
) -> None:
    emulator.fault(fault, **params)
    prediction = caller.run(FLUX, prompt="x")
    assert prediction["status"] == status
    assert (prediction["output"], prediction["storage"]) == (None, "none")
    if words:
        assert words in prediction["error"]
    # never again: it may bill
    asked = [each for each in emulator.requests() if each["path"] == "/v1/predictions"]
    assert caller.settled(prediction) == prediction
    again = [each for each in emulator.requests() if each["path"] == "/v1/predictions"]
    assert len(again) == len(asked)


@pytest.mark.database("sqlite")
@pytest.mark.parametrize(
    ("fault", "params", "storage"),
    [
        ("file_404", {}, "expired"),
        ("file_redirect", {"url": "http://127.0.0.1:9/x"}, "failed"),
        ("file_redirect", {"url": "https://example.com/x"}, "failed"),
        ("output", {"output": ["http://169.254.169.254/latest"]}, "failed"),
        ("output", {"output": ["file:///etc/passwd"]}, "failed"),
        ("output", {"output": {"not": "a list"}}, "failed"),
        ("output", {"output": None}, "none"),
    ],
)
def test_outputs_that_cannot_be_stored(
    caller: Caller, emulator: Emulator, fault: str, params: dict[str, Any], storage: str
) -> None:
    emulator.fault(fault, **params)
    prediction = caller.run(FLUX, prompt="x")
    assert (prediction["status"], prediction["storage"]) == ("succeeded", storage)
    assert prediction["output"] is None
    assert caller.get(f"/files/{prediction['id']}/0").status_code == 404


def test_an_output_that_replicate_has_removed_is_expired(
    caller: Caller, emulator: Emulator
) -> None:
    emulator.settings(output_ttl_seconds=0)
    prediction = caller.run(FLUX, prompt="x")
    assert (prediction["status"], prediction["storage"]) == ("succeeded", "expired")


def test_a_short_body_is_fetched_again(caller: Caller, emulator: Emulator) -> None:
    emulator.fault("file_short")
    prediction = caller.run(FLUX, prompt="x")
    assert prediction["storage"] == "stored"
    assert caller.get(prediction["output"][0]).content.endswith(b"IEND\xaeB`\x82")


def test_throttled_is_sent_again_and_created_once(caller: Caller, emulator: Emulator) -> None:
    emulator.fault("create_429", retry_after=1)
    prediction = caller.run(FLUX, prompt="x")
    assert prediction["status"] == "succeeded"
    assert len(emulator.of(prediction)) == 1


@pytest.mark.parametrize("fault", ["create_reset", "create_500"])
def test_a_lost_answer_is_adopted_and_never_sent_again(
    caller: Caller, emulator: Emulator, fault: str
) -> None:
    emulator.fault(fault, **({"accepted": True} if fault == "create_500" else {}))
    prediction = caller.run(FLUX, prompt="x")
    assert prediction["status"] == "succeeded"
    assert len(emulator.of(prediction)) == 1


# --- starting


@pytest.mark.parametrize(
    "body", [RUNS, {"model": ESRGAN, "input": {"image": PICTURE}}], ids=["run", "webhook"]
)
def test_the_same_key_is_the_same_prediction(
    caller: Caller, emulator: Emulator, body: dict[str, Any]
) -> None:
    def start(_: int) -> Any:
        return caller.post("/api/predictions", body, idempotency_key="one")

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(start, range(20)))
    assert {reply.status_code for reply in replies} <= {201, 202}
    assert len({reply.json()["id"] for reply in replies}) == 1
    prediction = caller.settled(replies[0].json())
    assert len(emulator.of(prediction)) == 1
    again = start(0)
    assert (again.status_code, again.json()) == (201, prediction)
    other = body | {"input": body["input"] | {"seed" if body is RUNS else "scale": 3}}
    refused = caller.post("/api/predictions", other, idempotency_key="one")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "Idempotency-Key"
    assert len(caller.all()) == 1


def test_a_key_is_the_callers_own(new_caller: NewCaller) -> None:
    ids = {
        new_caller().post("/api/predictions", RUNS, idempotency_key="mine").json()["id"]
        for _ in range(2)
    }
    assert len(ids) == 2


def test_a_key_is_used_up_when_its_prediction_is_deleted(caller: Caller) -> None:
    for wait in (True, False):
        key = f"key-{wait}"
        prediction = caller.post("/api/predictions", RUNS, idempotency_key=key).json()
        if wait:
            caller.settled(prediction)
        assert caller.delete(prediction).status_code == 204
        assert caller.post("/api/predictions", RUNS, idempotency_key=key).status_code == 422


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("key", ["", "a b", "x" * 256, b"\xe4"])
def test_keys_that_are_none(caller: Caller, key: Any) -> None:
    headers = JSON | {"Idempotency-Key": key}
    assert caller.http.post("/api/predictions", json=RUNS, headers=headers).status_code == 422


@pytest.mark.database("sqlite")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "no-such", "input": {}}, "model"),
        ({"model": "\x00", "input": {}}, "model"),
        ({"model": 1, "input": {}}, "model"),
        ({"input": {}}, "model"),
        ({"model": FLUX}, "input"),
        ({"model": FLUX, "input": []}, "input"),
        ({"model": FLUX, "input": {}}, "input.prompt"),
        ({"model": FLUX, "input": {"prompt": None}}, "input.prompt"),
        ({"model": FLUX, "input": {"prompt": "\ud800"}}, "input.prompt"),
        ({"model": FLUX, "input": {"prompt": "x", "num_outputs": 5}}, "input.num_outputs"),
        ({"model": FLUX, "input": {"prompt": "x", "num_outputs": 0}}, "input.num_outputs"),
        ({"model": FLUX, "input": {"prompt": "x", "num_outputs": "no"}}, "input.num_outputs"),
        ({"model": FLUX, "input": {"prompt": "x", "aspect_ratio": "7:5"}}, "input.aspect_ratio"),
        ({"model": FLUX, "input": {"prompt": "x", "webhook": "y"}}, "input.webhook"),
        ({"model": FLUX, "input": {"prompt": "x"}, "version": "y"}, "version"),
        ({"model": ESRGAN, "input": {"image": "/etc/passwd"}}, "input.image"),
        ({"model": ESRGAN, "input": {"image": "file:///etc/passwd"}}, "input.image"),
        ({"model": ESRGAN, "input": {"image": f"/files/{'a' * 32}/0"}}, "input.image"),
        ({"model": ESRGAN, "input": {"image": "http://169.254.169.254/"}}, "input.image"),
        ([], ""),
    ],
)
def test_a_wrong_request_names_its_field(
    caller: Caller, emulator: Emulator, body: Any, field: str
) -> None:
    before = len(emulator.created())
    reply = caller.post("/api/predictions", body)
    assert reply.status_code == 422
    assert field in [error["field"] for error in reply.json()["errors"]]
    assert caller.all() == []
    assert len(emulator.created()) == before


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_numbers_that_are_none(caller: Caller, number: str) -> None:
    body = f'{{"model": "{LLAMA}", "input": {{"prompt": "x", "temperature": {number}}}}}'
    reply = caller.http.post("/api/predictions", content=body, headers=JSON)
    assert reply.status_code in (400, 422)


@pytest.mark.database("sqlite")
@pytest.mark.parametrize(
    "content", ["", "{", "\x00", b"\xff\xfe", "[" * 1_000_000], ids=lambda c: repr(c[:5])
)
def test_bodies_that_are_no_json(caller: Caller, content: str | bytes) -> None:
    reply = caller.http.post("/api/predictions", content=content, headers=JSON)
    # no body at all is a body without its fields
    assert reply.status_code == (422 if not content else 400)


@pytest.mark.database("sqlite")
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/ld+json", None]
)
def test_bodies_of_another_type(caller: Caller, content_type: str | None) -> None:
    headers = {"Origin": caller.url} | ({"Content-Type": content_type} if content_type else {})
    content = b'{"model": "flux-schnell", "input": {"prompt": "x"}}'
    reply = caller.http.post("/api/predictions", content=content, headers=headers)
    assert reply.status_code == 415


@pytest.mark.database("sqlite")
def test_a_type_with_its_charset_is_json(caller: Caller) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert caller.http.post("/api/predictions", json=RUNS, headers=headers).status_code == 201


@pytest.mark.database("sqlite")
def test_large_bodies(caller: Caller) -> None:
    large = b'{"model":"' + b"x" * 3_000_000 + b'"}'
    reply = caller.http.post("/api/predictions", content=large, headers=JSON)
    assert reply.status_code == 413

    def unannounced() -> Any:
        for _ in range(40):
            yield b"x" * 100_000

    reply = caller.http.post("/api/predictions", content=unannounced(), headers=JSON)
    assert reply.status_code == 413


# --- waiting


def test_wait_holds_until_its_time_is_out(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    began = time.monotonic()
    assert caller.look(prediction, wait=2)["status"] == "processing"
    assert 1.5 < time.monotonic() - began < 6


def test_wait_ends_with_a_change(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        began = time.monotonic()
        waiting = pool.submit(caller.look, prediction, 20)
        time.sleep(1)
        assert not waiting.done()
        assert caller.cancel(prediction).status_code == 200
        assert waiting.result()["status"] == "canceled"
        assert time.monotonic() - began < 15


def test_wait_does_not_hold_what_is_settled(caller: Caller) -> None:
    prediction = caller.run(FLUX, prompt="x")
    began = time.monotonic()
    assert caller.look(prediction, wait=20) == prediction
    assert time.monotonic() - began < 5


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("wait", ["-1", "21", "x", "", "1e1"])
def test_waits_that_are_none(caller: Caller, wait: str) -> None:
    prediction = caller.run(FLUX, prompt="x")
    path = f"/api/predictions/{prediction['id']}"
    assert caller.get(path, params={"wait": wait}).status_code == 422


def test_many_who_wait_ask_replicate_no_more_often(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: caller.look(prediction, wait=4), range(20)))
    path = f"/v1/predictions/{prediction['replicate_id']}"
    asked = [each for each in emulator.requests() if each["path"] == path]
    assert len(asked) <= 2 + (time.monotonic() - began) / 2


# --- events


@pytest.mark.database("sqlite")
def test_a_text_comes_piece_by_piece(caller: Caller, emulator: Emulator) -> None:
    emulator.settings(run_seconds=3)
    prediction = caller.start_at_once(LLAMA, prompt="tell a story")
    with caller.events(prediction) as events:
        seen = [(time.monotonic(), name, data) for name, data in events]
    names = [name for _, name, _ in seen]
    assert names[0] == "prediction"
    assert names[-1] == "done"
    assert names.count("done") == 1
    pieces = [(at, data) for at, name, data in seen if name == "output"]
    assert len(pieces) > 5
    assert pieces[-1][0] - pieces[0][0] > 1  # as it is made, not all in the end
    done = seen[-1][2]
    assert done["storage"] == "stored"
    assert "".join(data for _, data in pieces) == done["output"]
    assert caller.look(prediction) == done


def test_events_of_each_change(caller: Caller, emulator: Emulator) -> None:
    emulator.settings(cold_start_seconds=1, run_seconds=1)
    prediction = caller.start(ESRGAN, image=PICTURE)
    with caller.events(prediction) as events:
        seen = list(events)
    statuses = [data["status"] for name, data in seen if name == "prediction"]
    assert statuses[0] in ("pending", "starting")
    assert "processing" in statuses
    assert seen[-1] == ("done", caller.look(prediction))


@pytest.mark.parametrize("fault", [None, "fail"])
def test_events_of_what_is_over(caller: Caller, emulator: Emulator, fault: str | None) -> None:
    if fault:
        emulator.fault(fault)
    prediction = caller.run(LLAMA, prompt="x")
    with caller.events(prediction) as events:
        assert list(events) == [("prediction", prediction), ("done", prediction)]


def test_events_end_where_it_is_deleted(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    with caller.events(prediction) as events:
        assert next(events)[0] == "prediction"
        assert caller.delete(prediction).status_code == 204
        assert [name for name, _ in events if name == "output"] == []
    assert caller.get(f"/api/predictions/{prediction['id']}/events").status_code == 404


# --- cancel and delete


def test_cancel_before_replicate_has_it(caller: Caller, emulator: Emulator) -> None:
    emulator.fault("create_429", retry_after=60)
    prediction = caller.start(ESRGAN, image=PICTURE)
    time.sleep(1)
    canceled = caller.cancel(prediction)
    assert canceled.status_code == 200
    assert caller.settled(prediction)["status"] == "canceled"
    assert caller.look(prediction)["replicate_id"] is None
    assert emulator.of(prediction) == []
    assert caller.cancel(prediction).status_code == 409


def test_cancel_while_it_runs(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    assert caller.cancel(prediction).status_code == 200
    canceled = caller.settled(prediction)
    assert (canceled["status"], canceled["storage"]) == ("canceled", "none")
    assert [each["status"] for each in emulator.of(prediction)] == ["canceled"]
    assert caller.cancel(prediction).status_code == 409
    assert caller.look(prediction) == canceled


def test_cancel_where_no_webhook_comes(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    emulator.settings(webhook_drop=1)
    assert caller.cancel(prediction).status_code == 200
    assert caller.settled(prediction, seconds=20)["status"] == "canceled"


def test_cancel_while_replicate_holds_its_answer(caller: Caller, emulator: Emulator) -> None:
    emulator.fault("hang", model="black-forest-labs/flux-schnell")
    prediction = caller.start_at_once(FLUX, prompt="x")
    while not emulator.of(prediction):
        time.sleep(0.05)
    assert caller.look(prediction)["status"] == "pending"
    assert caller.cancel(prediction).status_code == 200
    assert caller.settled(prediction, seconds=30)["status"] == "canceled"
    assert [each["status"] for each in emulator.of(prediction)] == ["canceled"]


@pytest.mark.parametrize(
    "named", [{"list_webhook_field": True}, {"body_webhook_field": True}], ids=["list", "event"]
)
@pytest.mark.parametrize("act", ["cancel", "delete"])
def test_a_lost_create_is_stopped_once_it_is_found(
    caller: Caller, emulator: Emulator, act: str, named: dict[str, Any]
) -> None:
    only = {"list_webhook_field": False, "body_webhook_field": False, "webhook_delay": 1}
    emulator.settings(**only | named)
    emulator.fault("create_reset", model="nightmareai/real-esrgan")
    emulator.fault("hang", model="nightmareai/real-esrgan")
    prediction = caller.start(ESRGAN, image=PICTURE)
    while not emulator.of(prediction):
        time.sleep(0.05)
    if act == "cancel":
        assert caller.cancel(prediction).status_code == 200
        assert caller.settled(prediction, seconds=30)["status"] == "canceled"
    else:
        assert caller.delete(prediction).status_code == 204
    end = time.monotonic() + 30
    while [each["status"] for each in emulator.of(prediction)] != ["canceled"]:
        assert time.monotonic() < end, "it went on at Replicate"
        time.sleep(0.2)


def test_a_cancel_races_the_end(caller: Caller, emulator: Emulator) -> None:
    emulator.settings(cold_start_seconds=0, run_seconds=0.5)
    ends = set()
    for n in range(12):
        prediction = caller.start(ESRGAN, image=PICTURE)
        time.sleep(0.1 * n)
        asked = caller.cancel(prediction)
        over = caller.settled(prediction, seconds=30)
        assert (over["status"], over["storage"]) in (("canceled", "none"), ("succeeded", "stored"))
        assert asked.status_code in (200, 409)
        made = emulator.of(prediction)
        assert [each["status"] for each in made] == ([over["status"]] if made else [])
        assert made or over["status"] == "canceled"
        ends.add(over["status"])
    assert ends == {"canceled", "succeeded"}


def test_cancel_what_is_over(caller: Caller) -> None:
    prediction = caller.run(FLUX, prompt="x")
    assert caller.cancel(prediction).status_code == 409
    assert caller.look(prediction) == prediction


def test_delete_takes_the_output_along(caller: Caller) -> None:
    prediction = caller.run(FLUX, prompt="x")
    assert caller.delete(prediction).status_code == 204
    assert caller.get(f"/api/predictions/{prediction['id']}").status_code == 404
    assert caller.get(f"/api/predictions/{prediction['id']}/events").status_code == 404
    assert caller.get(prediction["output"][0]).status_code == 404
    assert caller.cancel(prediction).status_code == 404
    assert caller.delete(prediction).status_code == 404
    assert caller.all() == []


def test_a_deleted_output_is_no_input(caller: Caller) -> None:
    prediction = caller.run(FLUX, prompt="x")
    caller.delete(prediction)
    body = {"model": ESRGAN, "input": {"image": prediction["output"][0]}}
    assert caller.post("/api/predictions", body).status_code == 422


def test_delete_stops_the_bill(caller: Caller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    assert caller.delete(prediction).status_code == 204
    end = time.monotonic() + 20
    while emulator.of(prediction)[0]["status"] != "canceled":
        assert time.monotonic() < end, "it went on at Replicate"
        time.sleep(0.2)


# --- whose it is


def test_nobody_elses(caller: Caller, new_caller: NewCaller) -> None:
    prediction = caller.run(FLUX, prompt="mine")
    other = new_caller()
    path = f"/api/predictions/{prediction['id']}"
    assert other.get(path).status_code == 404
    assert other.get(path, params={"wait": 5}).status_code == 404
    assert other.get(f"{path}/events").status_code == 404
    assert other.cancel(prediction).status_code == 404
    assert other.delete(prediction).status_code == 404
    assert other.get(prediction["output"][0]).status_code == 404
    body = {"model": ESRGAN, "input": {"image": prediction["output"][0]}}
    assert other.post("/api/predictions", body).status_code == 422
    assert other.all() == []
    assert caller.look(prediction) == prediction


def test_nobody_else_stops_it(caller: Caller, new_caller: NewCaller, emulator: Emulator) -> None:
    prediction = caller.hanging(emulator)
    other = new_caller()
    assert other.cancel(prediction).status_code == 404
    assert other.delete(prediction).status_code == 404
    time.sleep(1)
    assert caller.look(prediction)["status"] == "processing"
    assert [each["status"] for each in emulator.of(prediction)] == ["processing"]


@pytest.mark.parametrize("known", ["", "x", "%00", "..%2f..%2fhealthz", "%F0%9F%98%80", "a" * 3000])
def test_ids_that_are_none(caller: Caller, known: str) -> None:
    for path in (f"/api/predictions/{known}x", f"/files/{known}x/0"):
        assert caller.get(path).status_code == 404


# --- pages


def test_pages_are_newest_first_and_hold_still(caller: Caller) -> None:
    made = [caller.start_at_once(FLUX, prompt=str(n))["id"] for n in range(5)]
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = caller.get("/api/predictions", params=query).json()
        assert len(page["results"]) <= 2
        seen += [each["id"] for each in page["results"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        caller.start_at_once(FLUX, prompt="later")
    assert seen == made[::-1]


def test_a_page_has_twenty(caller: Caller) -> None:
    made = [caller.start_at_once(FLUX, prompt=str(n))["id"] for n in range(21)]
    first = caller.get("/api/predictions").json()
    assert [each["id"] for each in first["results"]] == made[:0:-1]
    rest = caller.get("/api/predictions", params={"cursor": first["next_cursor"]}).json()
    assert [each["id"] for each in rest["results"]] == made[:1]
    assert rest["next_cursor"] is None
    exact = caller.get("/api/predictions", params={"limit": "21"}).json()
    assert (len(exact["results"]), exact["next_cursor"]) == (21, None)


@pytest.mark.parametrize(
    "query", [{"cursor": "x"}, {"cursor": ""}, {"limit": "0"}, {"limit": "101"}, {"limit": "x"}]
)
def test_pages_that_are_none(caller: Caller, query: dict[str, str]) -> None:
    assert caller.get("/api/predictions", params=query).status_code == 422


@pytest.mark.database("sqlite")
def test_a_changed_answer_of_the_service_is_refused(caller: Caller) -> None:
    caller.run(FLUX, prompt="a")
    reply = caller.get("/api/predictions")
    for old, new in (("stored", "none"), ("succeeded", "done"), ("metrics", "m"), ("files", "f")):
        assert old in reply.text
        changed = httpx.Response(
            200,
            content=reply.text.replace(old, new, 1),
            headers=reply.headers,
            request=reply.request,
        )
        with pytest.raises(ContractBroken):
            check(changed, caller.outputs)
