"""What a model is to this project: its typed input, the shape of its output, how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from .prediction import storable

Kind = Literal["official", "community"]
OutputKind = Literal["file", "files", "text", "text-stream", "json"]
Mode = Literal["run", "webhook"]

RUN_SECONDS = 5.0
"""Official models that take less are waited for; the others report by webhook."""

File = Annotated[
    str,
    Field(pattern=r"^(https://|data:|/files/[0-9a-f]{32}/[0-9]+$)"),
    WithJsonSchema({"type": "string", "format": "uri"}),
]
"""A file as an input: ``https://…``, ``data:…`` or a stored one of ours, ``/files/<id>/<n>``."""


class ModelInput(BaseModel):
    """The input of one model; only what was set is sent, so that Replicate's defaults hold."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if storable(value) != value:
            raise ValueError("holds a number or a character that JSON does not have")
        return value


InputT = TypeVar("InputT", bound=ModelInput)


@dataclass(frozen=True, slots=True)
class Model(Generic[InputT]):
    """A pinned model. ``version`` is None for official models, which run only in their current
    one; ``seconds`` is what Replicate's own example took, None where it has none."""

    key: str
    owner_name: str
    kind: Kind
    version: str | None
    output: OutputKind
    seconds: float | None
    input: type[InputT]

    @property
    def ref(self) -> str:
        """What Replicate is asked to run: ``owner/name``, with its version unless official."""
        return self.owner_name if self.version is None else f"{self.owner_name}:{self.version}"

    @property
    def mode(self) -> Mode:
        """Community models start cold, so only official ones are waited for."""
        quick = self.seconds is not None and self.seconds < RUN_SECONDS
        return "run" if self.kind == "official" and quick else "webhook"


def input_fields(model: Model[Any]) -> list[dict[str, Any]]:
    """The input form, in the model's order, as ``GET /api/models`` shows it."""
    schema = model.input.model_json_schema(by_alias=True)
    required = schema.get("required", [])
    return [
        _field(name, part, name in required) for name, part in schema.get("properties", {}).items()
    ]


def _field(name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    schema = _not_null(schema)
    return {
        "name": name,
        "type": "file" if _is_file(schema) else schema.get("type", "object"),
        "required": required,
        "default": schema.get("default"),
        "minimum": schema.get("minimum"),
        "maximum": schema.get("maximum"),
        "enum": schema.get("enum", [schema["const"]] if "const" in schema else None),
    }


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    for choice in schema.get("anyOf", []):
        if choice.get("type") != "null":
            schema = {**schema, **choice}
    return schema


def _is_file(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "string" and schema.get("format") == "uri"


def file_fields(model: Model[Any]) -> list[str]:
    """The names of the inputs that are files, or lists of them."""
    properties = model.input.model_json_schema(by_alias=True).get("properties", {})
    found = {name: _not_null(part) for name, part in properties.items()}
    return [n for n, part in found.items() if _is_file(part) or _is_file(part.get("items", {}))]


def own_files(value: Any) -> list[str]:
    """The files of ours, ``/files/<id>/<n>``, in the value of such an input."""
    urls = value if isinstance(value, list) else [value]
    return [url for url in urls if isinstance(url, str) and url.startswith("/")]


def smallest_input(model: Model[Any]) -> dict[str, Any]:
    """An input with what the model requires and nothing else, as cheap as it can be."""
    values: dict[str, Any] = {}
    for field in input_fields(model):
        if field["required"] and field["type"] == "file":
            values[field["name"]] = _PIXEL
        elif field["required"]:
            values[field["name"]] = _smallest(field)
    return values


_PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGOQk5MDAADWAGFLa3GBAAAAAElFTkSuQmCC"
)


def _smallest(field: dict[str, Any]) -> Any:
    if field["enum"]:
        return field["enum"][0]
    smallest: dict[str, Any] = {"string": "a", "boolean": False, "array": [], "object": {}}
    if field["type"] in smallest:
        return smallest[field["type"]]
    least, most = field["minimum"], field["maximum"]
    return least if least is not None else 1 if most is None else min(1, most)
