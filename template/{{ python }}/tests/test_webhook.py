"""The webhook signature, against the table of hostile requests and against any request at all."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.webhook import MissingHeaders, WebhookRejected, signing_keys, verify

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "webhooks.json").read_text("utf-8"))
EXAMPLE = TABLE["requests"][0]
NAMES = st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"])


def verdict(request: dict[str, Any]) -> str:
    """What the verifier says: ok, missing or bad; anything else that it raises comes through."""
    keys = signing_keys(request["secrets"])
    body = base64.b64decode(request["body"])
    try:
        event_id = verify(body, dict(request["headers"]), keys, now=request["now"])
    except MissingHeaders:
        return "missing"
    except WebhookRejected:
        return "bad"
    given_ids = [value for name, value in request["headers"] if name.lower() == "webhook-id"]
    assert [event_id] == given_ids
    return "ok"


@pytest.mark.parametrize("request_", TABLE["requests"], ids=lambda each: each["name"])
def test_a_request_of_the_table(request_: dict[str, Any]) -> None:
    assert verdict(request_) == request_["expected"]


@pytest.mark.parametrize("secret", TABLE["secrets"], ids=lambda each: each["name"])
def test_a_secret_of_the_table(secret: dict[str, Any]) -> None:
    if secret["keys"] is None:
        with pytest.raises(ValueError, match="REPLICATE_WEBHOOK_SECRET") as refused:
            signing_keys(secret["value"])
        words = [word for word in secret["value"].split() if len(word) > len("whsec_")]
        assert not any(word in str(refused.value) for word in words)
    else:
        keys = tuple(base64.b64decode(key) for key in secret["keys"])
        assert signing_keys(secret["value"]) == keys


def test_headers_may_be_pairs() -> None:
    body = base64.b64decode(EXAMPLE["body"])
    keys = signing_keys(EXAMPLE["secrets"])
    pairs = [(name, value) for name, value in EXAMPLE["headers"]]
    assert verify(body, pairs, keys, now=EXAMPLE["now"]) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_without_keys_nothing_is_accepted() -> None:
    body = base64.b64decode(EXAMPLE["body"])
    with pytest.raises(WebhookRejected):
        verify(body, dict(EXAMPLE["headers"]), (), now=EXAMPLE["now"])


@given(
    body=st.binary(max_size=64),
    changed=st.dictionaries(NAMES, st.text(max_size=99) | st.none(), min_size=1, max_size=3),
)
def test_nothing_else_is_raised(body: bytes, changed: dict[str, str | None]) -> None:
    """Any text in any header (also lone surrogates), with any body."""
    headers = {**dict(EXAMPLE["headers"]), **changed}
    sent = {name: value for name, value in headers.items() if value is not None}
    with pytest.raises(WebhookRejected):
        verify(body, sent, signing_keys(EXAMPLE["secrets"]), now=EXAMPLE["now"])


@given(st.text(max_size=80) | st.text(max_size=80).map("whsec_{}".format))
def test_a_setting_is_keys_or_refused(secrets: str) -> None:
    try:
        keys = signing_keys(secrets)
    except ValueError:
        return
    assert 1 <= len(keys) <= 2
    assert all(len(key) >= 16 for key in keys)
