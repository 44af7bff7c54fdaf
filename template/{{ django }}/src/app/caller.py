"""Who is asking: Django's own users; strangers only in development, or with ALLOW_ANONYMOUS=1."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.http import HttpRequest

from inference.problems import Problem

STRANGERS = settings.SERVICE.development or settings.SERVICE.allow_anonymous


def caller(request: HttpRequest) -> str:
    """A stable id of whoever sends the request, at most 255 characters; Problem 401 for nobody."""
    if request.user.is_authenticated:
        return f"user-{request.user.pk}"
    if not STRANGERS:
        raise Problem(401, "Not signed in", "Sign in at /login.")
    if "caller" not in request.session:
        request.session["caller"] = secrets.token_hex(16)
    return str(request.session["caller"])


def address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR") or "unknown")
