"""Requests that the document allows, or nearly: whatever comes, the answer is in the document."""

from __future__ import annotations

import copy
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tests.contract.client import DOCUMENT, FLUX, Caller, check, resolved

# the stricter one: it refuses text and numbers that SQLite takes
pytestmark = pytest.mark.database("postgresql")

FIELD_TYPES = {"file": {"type": "string", "format": "uri"}}
OPERATIONS = [
    (method, path)
    for path, operations in DOCUMENT["paths"].items()
    for method in operations
    # a stream ends when its prediction does
    if method != "parameters" and not path.endswith("/events")
]


def can_be_wrong(method: str, path: str) -> bool:
    """Whether a request may carry what the document forbids; any text is a path."""
    item = DOCUMENT["paths"][path]
    given_all = [*item.get("parameters", ()), *item[method].get("parameters", ())]
    kinds = {resolved(parameter)["in"] for parameter in given_all} - {"path"}
    return bool(kinds) or "requestBody" in item[method]


def with_real_values(caller: Caller) -> dict[str, Any]:
    """The document with this service's models, their inputs, and ids that exist."""
    document: dict[str, Any] = copy.deepcopy(DOCUMENT)
    choices = []
    for model in caller.get("/api/models").json()["results"]:
        fields = {
            field["name"]: FIELD_TYPES.get(field["type"], {"type": field["type"]})
            | {name: field[name] for name in ("minimum", "maximum", "enum") if field[name]}
            for field in model["input"]
        }
        required = [field["name"] for field in model["input"] if field["required"]]
        inputs = {"type": "object", "properties": fields, "required": required}
        choices.append(
            {
                "type": "object",
                "properties": {"model": {"const": model["key"]}, "input": inputs},
                "required": ["model", "input"],
            }
        )
    document["components"]["schemas"]["NewPrediction"] = {"anyOf": choices}
    known = [caller.run(FLUX, prompt=str(n))["id"] for n in range(3)]
    ids = document["components"]["parameters"]["id"]
    ids["schema"] = {"anyOf": [{"enum": known}, {"type": "string"}]}
    return document


@pytest.fixture(scope="module")
def schema(service: Any) -> tuple[Caller, Any]:
    caller: Caller = service.caller()
    return caller, schemathesis.openapi.from_dict(with_real_values(caller))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        pytest.param(method, path, mode, id=f"{method} {path} {mode.value}")
        for method, path in OPERATIONS
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or can_be_wrong(method, path)
    ],
)
def test_every_answer_is_in_the_document(
    schema: tuple[Caller, Any], method: str, path: str, mode: GenerationMode
) -> None:
    caller, document = schema

    @given(case=document[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def attempt(case: Any) -> None:
        reply = case.call(
            base_url=caller.url,
            cookies=dict(caller.http.cookies),
            headers={"Origin": caller.url, "Prefer": "respond-async"},
            timeout=60,
        )
        given_headers = [(name, each) for name, all_ in reply.headers.items() for each in all_]
        request = httpx.Request(reply.request.method, reply.request.url)
        check(
            httpx.Response(
                reply.status_code, headers=given_headers, content=reply.content, request=request
            )
        )

    attempt()
