"""What may be wrong with a request, in the words of RFC 9457; each framework renders it its way."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError


class Problem(Exception):
    """A request that cannot be served; ``retry_after`` in seconds."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after

    def as_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        return body | ({"errors": self.errors} if self.errors is not None else {})

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, round(self.retry_after)))}


def invalid(field: str, detail: str) -> Problem:
    return invalid_fields([{"field": field, "detail": detail}])


def invalid_fields(errors: list[dict[str, str]]) -> Problem:
    # a field may have any name in a request, also one that UTF-8 cannot say
    errors = [
        {name: text.encode("utf-8", "replace").decode() for name, text in error.items()}
        for error in errors
    ]
    detail = "; ".join(f"{error['field']}: {error['detail']}" for error in errors)
    return Problem(422, "Invalid request", detail, errors=errors)


def invalid_input(error: ValidationError, *prefix: str) -> Problem:
    """A field-by-field account of what pydantic refused."""
    return invalid_fields(
        [
            {"field": ".".join([*prefix, *map(str, item["loc"])]), "detail": item["msg"]}
            for item in error.errors(include_url=False, include_input=False)
        ]
    )


def not_found() -> Problem:
    return Problem(404, "Not found", "There is no such thing of yours here.")
