"""Webhook signatures, as Replicate makes them: https://replicate.com/docs/topics/webhooks.

``webhook-signature`` holds space-separated ``v1,<base64>`` entries; each is an HMAC-SHA256 over
``<webhook-id>.<webhook-timestamp>.<body>`` with the key after ``whsec_``.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence

TOLERANCE = 300
"""How far the timestamp may be from now, in seconds, both ways: older ones are replays."""

_MOST_SIGNATURES = 16
_SHORTEST_KEY = 16


class WebhookRejected(Exception):
    """The request is not a webhook that Replicate signed."""


class MissingHeaders(WebhookRejected):
    """It does not even carry the three webhook headers."""


def signing_keys(secrets: str) -> tuple[bytes, ...]:
    """The keys in one or two ``whsec_…`` secrets, separated by white space.

    Two are active while a secret is being rotated.

    Raises:
        ValueError: a secret is not ``whsec_`` and standard base64 of at least 16 bytes.
    """
    parts = secrets.split()
    if not 1 <= len(parts) <= 2:
        raise ValueError("REPLICATE_WEBHOOK_SECRET holds one secret, or two during a rotation")
    return tuple(_key(part) for part in parts)


def _key(secret: str) -> bytes:
    if not secret.startswith("whsec_"):
        raise ValueError("REPLICATE_WEBHOOK_SECRET must start with whsec_")
    text = secret.removeprefix("whsec_").encode("utf-8", "replace")
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if base64.b64encode(key) != text:
        raise ValueError("REPLICATE_WEBHOOK_SECRET is not standard base64 after whsec_")
    if len(key) < _SHORTEST_KEY:
        raise ValueError(f"REPLICATE_WEBHOOK_SECRET has fewer than {_SHORTEST_KEY} bytes")
    return key


def verify(
    body: bytes,
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    keys: Sequence[bytes],
    *,
    now: float,
) -> str:
    """Check the signature over the bytes as they came; returns the webhook-id.

    Args:
        body: the request's body, not decoded.
        headers: names in any case.
        keys: from ``signing_keys``.
        now: seconds since the epoch.

    Raises:
        MissingHeaders, WebhookRejected: and nothing else, whatever the request holds.
    """
    items = headers.items() if isinstance(headers, Mapping) else headers
    given = {name.lower(): value for name, value in items}
    try:
        event_id = given["webhook-id"]
        timestamp = given["webhook-timestamp"]
        signatures = given["webhook-signature"]
    except KeyError as missing:
        raise MissingHeaders(f"the header {missing.args[0]} is missing") from None
    if not event_id or len(event_id) > 255 or not event_id.isascii() or not event_id.isprintable():
        raise WebhookRejected("the webhook-id is not one")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise WebhookRejected("the webhook-timestamp is not a number of seconds")
    if abs(now - int(timestamp)) > TOLERANCE:
        raise WebhookRejected("the webhook-timestamp is too far from now")
    signed = f"{event_id}.{timestamp}.".encode() + body
    wanted = [b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256")) for key in keys]
    # Whole entries are compared, so a wrong version, length or alphabet needs no case of its own.
    entries = [entry.encode("utf-8", "replace") for entry in signatures.split(" ")]
    matches = [
        hmac.compare_digest(entry, each) for entry in entries[:_MOST_SIGNATURES] for each in wanted
    ]
    if not any(matches):
        raise WebhookRejected("no signature fits")
    return event_id
