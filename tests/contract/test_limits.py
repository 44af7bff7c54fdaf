"""What stops a bill, and what is not ready: services of their own with other settings."""

from __future__ import annotations

import json
import time

import pytest

from tests.contract.client import ESRGAN, FLUX, PICTURE, Caller
from tests.contract.conftest import NewService

START = {"model": FLUX, "input": {"prompt": "x"}}


@pytest.mark.parametrize(
    ("limit", "title"),
    [
        ("CALLER_PER_MINUTE", "Too many requests"),
        ("ADDRESS_PER_MINUTE", "Too many requests from this address"),
        ("DAILY_PREDICTIONS", "The daily ceiling is reached"),
    ],
)
def test_a_limit(new_service: NewService, limit: str, title: str) -> None:
    with new_service(**{limit: "2"}) as service:
        caller = service.caller()
        for _ in range(2):
            caller.uploaded(b"x", "image/png")
        uploads = [caller.upload(b"x", "image/png"), service.caller().upload(b"x", "image/png")]
        # uploads do not use up what predictions may have
        for _ in range(2):
            reply = caller.post("/api/predictions", START, idempotency_key="same")
            assert reply.status_code == 201  # one prediction: a repeated key costs nothing
        assert caller.post("/api/predictions", START).status_code == 201
        refused = [caller.post("/api/predictions", START), caller.post("/api/models/blip/prime")]
        for reply in (uploads[0], *refused):
            assert reply.status_code == 429
            assert reply.json()["title"] == title
            most = 86_400 if limit == "DAILY_PREDICTIONS" else 60
            assert 1 <= int(reply.headers["retry-after"]) <= most
        assert len(caller.emulator.created()) == len(caller.all()) == 2
        known = caller.post("/api/predictions", START, idempotency_key="same")
        assert known.status_code == 201
        for other in (uploads[1], service.caller().post("/api/predictions", START)):
            assert other.status_code == (201 if limit == "CALLER_PER_MINUTE" else 429)


def test_the_daily_seconds(new_service: NewService) -> None:
    with new_service(DAILY_SECONDS="0.1") as service:
        caller = service.caller()
        caller.run(FLUX, prompt="x")  # 0.3 s on the emulator
        refused = caller.post("/api/predictions", START)
        assert refused.status_code == 429
        assert refused.json()["title"] == "The daily ceiling is reached"


@pytest.mark.database("sqlite")
def test_time_is_limited_and_priming_is_off(new_service: NewService) -> None:
    with new_service(CANCEL_AFTER_SECONDS="5", PRIME="0") as service:
        caller = service.caller()
        assert caller.post(f"/api/models/{ESRGAN}/prime").status_code == 409
        models = caller.get("/api/models").json()["results"]
        assert not any(model["prime"] for model in models)
        began = time.monotonic()
        prediction = caller.hanging(caller.emulator)
        assert caller.settled(prediction, seconds=25)["status"] == "canceled"
        assert time.monotonic() - began > 4
        caller.run(FLUX, prompt="x")
        creates = [
            each["headers"]
            for each in caller.emulator.requests()
            if (each["method"], each["path"]) == ("POST", "/v1/predictions")
        ]
        assert [each["cancel-after"] for each in creates] == ["5s", "5s"]


@pytest.mark.database("sqlite")
def test_outputs_are_limited(new_service: NewService) -> None:
    with new_service(MAX_OUTPUT_BYTES="1000000") as service:
        caller = service.caller()
        caller.emulator.fault("file_endless")
        endless = caller.run(ESRGAN, image=PICTURE)
        assert (endless["status"], endless["storage"]) == ("succeeded", "failed")
        caller.emulator.settings(output_bytes=600_000)
        assert caller.run(FLUX, prompt="x")["storage"] == "stored"
        # together too large
        assert caller.run(FLUX, prompt="x", num_outputs=2)["storage"] == "failed"


@pytest.mark.database("sqlite")
def test_not_ready_without_storage(new_service: NewService) -> None:
    nowhere = {
        "STORAGE_URL": "s3://nowhere/here",
        "AWS_ENDPOINT": "http://127.0.0.1:9",
        "AWS_REGION": "nowhere-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    with new_service(**nowhere) as service:
        caller = service.caller()
        assert caller.get("/healthz").status_code == 200
        ready = caller.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["status"] == "not ready"
        assert ready.json()["checks"]["storage"] != "ok"
        assert ready.json()["checks"]["database"] == "ok"
        assert caller.upload(b"x", "image/png").status_code == 503
        # it waits for the storage; nothing is shown that is not kept
        prediction = caller.start_at_once(FLUX, prompt="x")
        prediction = caller.until(prediction, "succeeded")
        assert (prediction["storage"], prediction["output"]) == ("pending", None)


def from_address(caller: Caller, forwarded: str) -> int:
    """The status of a start by a new caller, forwarded for these addresses."""
    caller.http.cookies.clear()
    return caller.post("/api/predictions", START, x_forwarded_for=forwarded).status_code


@pytest.mark.database("sqlite")
def test_nobody_chooses_their_address(new_service: NewService) -> None:
    with new_service(ADDRESS_PER_MINUTE="2", FORWARDED_ALLOW_IPS="192.0.2.1") as service:
        caller = service.caller()
        statuses = [from_address(caller, f"203.0.113.{number}") for number in range(4)]
        assert statuses == [201, 201, 429, 429]


@pytest.mark.database("sqlite")
def test_a_proxy_says_whose_address_it_is(new_service: NewService) -> None:
    with new_service(ADDRESS_PER_MINUTE="2", FORWARDED_ALLOW_IPS="127.0.0.1,10.0.0.0/8") as service:
        caller = service.caller()
        # what a client sends itself stands on the left of what the proxies append
        spoofed = [f"198.51.100.{number}, 203.0.113.7, 10.1.2.3" for number in range(3)]
        assert [from_address(caller, each) for each in spoofed] == [201, 201, 429]
        assert from_address(caller, "203.0.113.8") == 201
        # one subscriber has a whole network of IPv6 addresses
        network = [f"2001:db8:1:2::{number}" for number in range(3)]
        assert [from_address(caller, each) for each in network] == [201, 201, 429]
        assert from_address(caller, "2001:db8:1:3::1") == 201


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("everyone", ["*", "0.0.0.0/0", "::/0", "proxy.example.com"])
def test_not_everyone_can_be_a_proxy(new_service: NewService, everyone: str) -> None:
    with (
        pytest.raises(AssertionError, match="FORWARDED_ALLOW_IPS"),
        new_service(FORWARDED_ALLOW_IPS=everyone),
    ):
        pass


@pytest.mark.database("sqlite")
def test_a_deployment(new_service: NewService) -> None:
    """A setting sends a model to a deployment, with the same limits; there it is always warm."""
    where = {ESRGAN: {"deployment": "acme/upscaler"}}
    with new_service(MODEL_SETTINGS=json.dumps(where), CANCEL_AFTER_SECONDS="5") as service:
        caller = service.caller()
        emulator = caller.emulator
        models = {model["key"]: model for model in caller.get("/api/models").json()["results"]}
        assert models[ESRGAN]["mode"] == "run"
        reply = caller.post("/api/predictions", {"model": ESRGAN, "input": {"image": PICTURE}})
        assert reply.status_code == 201, "it is waited for"
        assert reply.json()["storage"] == "stored"
        (made,) = emulator.of(reply.json())
        assert made["deployment"] == "acme/upscaler"
        emulator.fault("create_reset")
        adopted = caller.run(ESRGAN, image=PICTURE)
        assert (adopted["status"], len(emulator.of(adopted))) == ("succeeded", 1)
        emulator.fault("hang")
        hanging = caller.start_at_once(ESRGAN, image=PICTURE)
        assert caller.settled(hanging, seconds=25)["status"] == "canceled"
        sent = [
            each
            for each in emulator.requests()
            if each["method"] == "POST" and each["path"].endswith("/predictions")
        ]
        assert {each["path"] for each in sent} == {"/v1/deployments/acme/upscaler/predictions"}
        assert [each["headers"].get("cancel-after") for each in sent] == ["5s"] * 3


@pytest.mark.database("sqlite")
def test_a_priming_is_limited_too(new_service: NewService) -> None:
    with new_service(CANCEL_AFTER_SECONDS="7", PRIME="1") as service:
        caller = service.caller()
        assert caller.post(f"/api/models/{ESRGAN}/prime").json()["started"] is True
        (primed,) = caller.all()
        assert caller.settled(primed)["status"] == "succeeded"
        (create,) = [
            each
            for each in caller.emulator.requests()
            if (each["method"], each["path"]) == ("POST", "/v1/predictions")
        ]
        assert create["headers"]["cancel-after"] == "7s"
