"""The table of hostile webhooks: what a verifier gets wrong is seen in it."""

from __future__ import annotations

import base64
import json
from types import ModuleType
from typing import Any

import pytest

from tests.rendering import ROOT

SOURCE = ROOT / "template/{{ python }}/src/inference/webhook.py"
TABLE: dict[str, Any] = json.loads((ROOT / "template/tests/webhooks.json").read_text("utf-8"))


def wrong(source: str) -> list[str]:
    """The names of the requests and secrets that a verifier with this source gets wrong."""
    module = ModuleType("verifier")
    exec(source, module.__dict__)
    return [
        each["name"] for each in TABLE["requests"] if _verdict(module, each) != each["expected"]
    ] + [each["name"] for each in TABLE["secrets"] if _keys(module, each["value"]) != each["keys"]]


def _verdict(module: ModuleType, request: dict[str, Any]) -> str:
    body = base64.b64decode(request["body"])
    try:
        keys = module.signing_keys(request["secrets"])
        module.verify(body, dict(request["headers"]), keys, now=request["now"])
    except module.MissingHeaders:
        return "missing"
    except module.WebhookRejected:
        return "bad"
    except Exception as error:
        return type(error).__name__
    return "ok"


def _keys(module: ModuleType, secrets: str) -> list[str] | None:
    try:
        return [base64.b64encode(key).decode() for key in module.signing_keys(secrets)]
    except ValueError:
        return None


def test_our_verifier_gets_none_wrong() -> None:
    found = wrong(SOURCE.read_text("utf-8"))
    count = len(TABLE["requests"]) + len(TABLE["secrets"])
    print(f"{len(found)} of {count} hostile webhooks and secrets wrong")
    assert found == []
    assert count >= 60


@pytest.mark.parametrize(
    ("right", "mistake"),
    [
        ("TOLERANCE = 300", "TOLERANCE = 10**12"),
        ("abs(now - int(timestamp))", "now - int(timestamp)"),
        ("abs(now - int(timestamp))", "int(timestamp) - now"),
        ("name.lower(): value", "name: value"),
        ('if not re.fullmatch(r"[0-9]{1,12}", timestamp)', "if not timestamp.isdecimal()"),
        ('if not re.fullmatch(r"[0-9]{1,12}", timestamp)', "if False"),
        ("_MOST_SIGNATURES = 16", "_MOST_SIGNATURES = 1"),
        ("_MOST_SIGNATURES = 16", "_MOST_SIGNATURES = 10**6"),
        ("for each in wanted", "for each in wanted[:1]"),
        ('b"v1," + ', 'b"v2," + '),
        ("hmac.compare_digest(entry, each)", "hmac.compare_digest(entry[-44:], each[-44:])"),
        ("hmac.compare_digest(entry, each)", "each.startswith(entry)"),
        ('f"{event_id}.{timestamp}.".encode() + body', "body"),
        ("_SHORTEST_KEY = 16", "_SHORTEST_KEY = 0"),
        ("if base64.b64encode(key) != text", "if False"),
        ("if not 1 <= len(parts) <= 2", "if False"),
        ('if not secret.startswith("whsec_")', "if False"),
        ("raise MissingHeaders(", "raise WebhookRejected("),
        ("if not event_id or", "if"),
        ("not event_id.isascii() or", ""),
        ("or not event_id.isprintable()", ""),
        ("or len(event_id) > 255", ""),
        ('raise WebhookRejected("no signature fits")', "raise ValueError"),
    ],
)
def test_a_verifier_with_a_mistake_is_seen(right: str, mistake: str) -> None:
    source = SOURCE.read_text("utf-8")
    assert right in source
    assert wrong(source.replace(right, mistake)) != []
