"""The emulator answers as Replicate does, for every model of this project."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from dev import emulator as module
from inference.models import REGISTRY
from inference.registry import Model, input_fields

HEADERS = {"Authorization": "Bearer r8_test"}
EXAMPLES = {
    **{"string": "x", "file": "data:,x", "integer": 1, "number": 1, "boolean": True},
    **{"array": [], "object": {}},
}
MODELS = pytest.mark.parametrize("model", REGISTRY.values(), ids=REGISTRY.keys())


def least(model: Model[Any]) -> dict[str, Any]:
    """The least input that the model accepts."""
    fields = [f for f in input_fields(model) if f["required"]]
    return {f["name"]: (f["enum"] or [f["minimum"] or EXAMPLES.get(f["type"])])[0] for f in fields}


def create(emulator: str, model: Model[Any], given: dict[str, Any]) -> httpx.Response:
    body = {"version": model.ref, "input": given}
    headers = HEADERS | {"Prefer": "wait=30"}
    return httpx.post(f"{emulator}/predictions", json=body, headers=headers, timeout=60)


@MODELS
def test_model_runs(model: Model[Any], emulator: str) -> None:
    done = create(emulator, model, least(model)).json()
    assert done["status"] == "succeeded", done
    shapes = {"file": str, "files": list, "text": str, "text-stream": list, "json": dict}
    assert isinstance(done["output"], shapes[model.output])
    if model.output in ("file", "files"):
        url = done["output"] if model.output == "file" else done["output"][0]
        kind = httpx.get(url).headers["content-type"].partition("/")[0]
        assert kind in ("image", "audio", "video")


@MODELS
def test_model_shows_its_pin(model: Model[Any], emulator: str) -> None:
    shown = httpx.get(f"{emulator}/models/{model.owner_name}", headers=HEADERS).json()
    assert shown["is_official"] == (model.kind == "official")
    schemas = shown["latest_version"]["openapi_schema"]["components"]["schemas"]
    assert list(schemas["Input"]["properties"]) == [f["name"] for f in input_fields(model)]


@MODELS
def test_wrong_input_is_refused(model: Model[Any], emulator: str) -> None:
    for f in input_fields(model):
        wrong = [] if f["type"] == "object" else {"wrong": "type"}
        answer = create(emulator, model, {**least(model), f["name"]: wrong})
        assert answer.status_code == 422
        assert answer.json()["invalid_fields"][0]["field"] == f"input.{f['name']}"


def test_signature_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    monkeypatch.setattr(module, "WEBHOOK_SECRET", secret)
    signature = module.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_without_a_token(emulator: str) -> None:
    assert httpx.get(f"{emulator}/account").json()["title"] == "Unauthenticated"
