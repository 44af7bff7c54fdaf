"""The suite itself: what the document does not allow must not pass."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
import pytest

from tests.contract.client import DOCUMENT, ContractBroken, check, resolved, sign

ID = "0123456789abcdef" * 2
PREDICTION: dict[str, Any] = {
    "id": ID,
    "replicate_id": "abc",
    "model": "m",
    "ref": "o/m",
    "version_ran": None,
    "status": "succeeded",
    "storage": "stored",
    "output": f"/files/{ID}/0",
    "error": None,
    "metrics": {"predict_seconds": 0.5},
    "created_at": "2026-01-01T00:00:00.000Z",
    "completed_at": "2026-01-01T00:00:01.000Z",
}
PROBLEM = {"type": "about:blank", "title": "Not found", "status": 404, "detail": "It is not here."}
SAFE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def answer(
    status: int,
    body: Any,
    path: str = f"/api/predictions/{ID}",
    method: str = "GET",
    **headers: str | None,
) -> httpx.Response:
    """An answer as a service would give it, with some headers changed (None: left out)."""
    kind = "application/json" if status < 400 else "application/problem+json"
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    all_headers = {"Content-Type": kind} | SAFE | named
    return httpx.Response(
        status,
        content=b"" if body is None else json.dumps(body).encode(),
        headers={name: value for name, value in all_headers.items() if value is not None},
        request=httpx.Request(method, f"http://service{path}"),
    )


def test_right_answers_pass() -> None:
    check(answer(200, PREDICTION), {"m": "file"})
    check(answer(404, PROBLEM))
    check(answer(404, PROBLEM, "/nowhere"))
    check(answer(405, PROBLEM | {"status": 405}, method="PUT", allow="GET, DELETE"))
    check(answer(204, None, method="DELETE", content_type=None))


@pytest.mark.parametrize(
    "change",
    [
        {"id": "1"},
        {"status": "cancelled"},
        {"status": "processing"},
        {"status": "failed", "error": "e"},
        {"status": "failed", "storage": "none", "output": None},
        {"status": "failed", "storage": "none", "error": "e"},
        {"storage": "pending"},
        {"storage": "expired", "output": None},
        {"output": "https://replicate.delivery/x/out.png"},
        {"output": [f"/files/{ID}/0"]},
        {"output": f"/files/{ID[::-1]}/0"},
        {"output": None},
        {"completed_at": None},
        {"created_at": "2026-01-01T00:00:00Z"},
        {"metrics": {}},
        {"logs": ""},
    ],
)
def test_a_wrong_prediction_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ContractBroken):
        check(answer(200, PREDICTION | change), {"m": "file"})
    page = {"results": [PREDICTION, PREDICTION | change], "next_cursor": None}
    with pytest.raises(ContractBroken):
        check(answer(200, page, "/api/predictions"), {"m": "file"})


@pytest.mark.parametrize("name", list(PREDICTION))
def test_a_missing_field_is_refused(name: str) -> None:
    body = copy.copy(PREDICTION)
    del body[name]
    with pytest.raises(ContractBroken):
        check(answer(200, body))


@pytest.mark.parametrize(
    "wrong",
    [
        answer(500, PROBLEM | {"status": 500}),
        answer(201, PREDICTION),
        answer(404, PROBLEM | {"status": 400}),
        answer(404, {"detail": "Not Found"}),
        answer(404, PROBLEM, content_type="application/json"),
        answer(404, PROBLEM | {"trace": "…"}),
        answer(422, PROBLEM | {"status": 422}),  # without errors
        answer(200, PREDICTION, content_type="text/html"),
        answer(200, PREDICTION, cache_control="public, max-age=60"),
        answer(200, PREDICTION, cache_control=None),
        answer(200, PREDICTION, x_content_type_options=None),
        answer(200, PREDICTION, access_control_allow_origin="*"),
        answer(204, PREDICTION, method="DELETE"),
        answer(405, PROBLEM | {"status": 405}, method="PUT"),  # without Allow
        answer(405, PROBLEM | {"status": 405}, method="PUT", allow="GET"),  # and DELETE
        answer(200, PREDICTION, method="PUT"),
        answer(200, {}, "/api/secret"),
        answer(307, None, "/api/models/"),
        answer(202, PREDICTION, "/api/predictions", "POST"),  # without Location
        answer(429, PROBLEM | {"status": 429}, "/api/predictions", "POST"),  # without Retry-After
        answer(200, None, f"/files/{ID}/0", content_type="text/html"),  # not kept in its sandbox
    ],
    ids=lambda reply: f"{reply.request.method} {reply.request.url.path} {reply.status_code}",
)
def test_a_wrong_answer_is_refused(wrong: httpx.Response) -> None:
    with pytest.raises(ContractBroken):
        check(wrong)


def test_the_document_names_only_what_it_has() -> None:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            assert resolved(node) is not None
            for part in node.values():
                walk(part)
        elif isinstance(node, list):
            for part in node:
                walk(part)

    walk(DOCUMENT)
    for path, operations in DOCUMENT["paths"].items():
        given = {
            resolved(each)["name"]
            for each in operations.get("parameters", [])
            if resolved(each)["in"] == "path"
        }
        assert {f"{{{name}}}" for name in given} == set(filter(_is_part, path.split("/"))), path


def _is_part(part: str) -> bool:
    return part.startswith("{")


def test_a_webhook_is_signed_as_replicate_does() -> None:
    # Replicate's own example
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    headers = sign(body, secret, at=1614265330, event="msg_p5jXN8AQM9LWM0D4loKWxJek")
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
