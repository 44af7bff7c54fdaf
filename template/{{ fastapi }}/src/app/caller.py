"""Who is asking: the one function to replace with your own sign-in."""

from __future__ import annotations

import secrets

from fastapi import Request

ANONYMOUS = True
"""Set this to False with your own sign-in; production refuses anonymous callers otherwise."""


def caller(request: Request) -> str:
    """A stable id of whoever sends the request, at most 255 characters.

    Here: an anonymous session in a signed cookie. With your own sign-in return the user's id, and
    raise ``inference.problems.Problem(401, …)`` for nobody.
    """
    if "caller" not in request.session:
        request.session["caller"] = secrets.token_hex(16)
    return str(request.session["caller"])
