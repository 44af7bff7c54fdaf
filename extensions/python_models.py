"""Pins -> the field lines of Pydantic models, laid out as `ruff format` would."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import Environment
from jinja2.ext import Extension

WIDTH = 100
TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "file": "File",
    "object": "Any",  # whatever JSON: also what has no type in the schema
}

# What a field would shadow: the names used in a class body, and those of Pydantic's BaseModel.
# Also those that linters refuse since they look like numbers.
RESERVED = {*("str", "int", "float", "bool", "list", "File", "Any", "Field", "Literal")} | {
    *("l", "O", "I"),
    *("construct", "copy", "dict", "from_orm", "json", "parse_file", "parse_obj", "parse_raw"),
    *("schema", "schema_json", "update_forward_refs", "validate", "model_computed_fields"),
    *("model_config", "model_construct", "model_copy", "model_dump", "model_dump_json"),
    *("model_extra", "model_fields", "model_fields_set", "model_json_schema", "model_post_init"),
    *("model_parametrized_name", "model_rebuild", "model_validate", "model_validate_json"),
    *("model_validate_strings",),
}

Json = dict[str, Any]


class PythonModels(Extension):
    """The filters of the templates in `{{ python }}/src/inference/models`."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters |= {
            "python_fields": fields,
            "python_imports": imports,
            "python_literal": literal,
            "python_sorted": in_import_order,
        }


class Group(NamedTuple):
    """Source in brackets: on one line where it fits, else one item a line."""

    opening: str
    items: list[tuple[str, Node]]  # what stands before the item, such as `ge=`, and the item
    closing: str


Node = str | Group


def fields(inputs: Sequence[Json]) -> str:
    """The body of the model's input class."""
    taken: set[str] = set()
    lines: list[str] = []
    for field in inputs:
        name = _attribute(field["name"])
        while name in taken:
            name += "_"
        taken.add(name)
        lines += _field(name, field)
    return "\n".join(lines or ["    pass"])


def imports(inputs: Sequence[Json]) -> str:
    """The import lines that the body needs."""
    body = re.sub(r"""(["']).*?(?<!\\)(?:\\\\)*\1""", "", fields(inputs))
    used = [name for name in ("Any", "Literal", "Field", "File") if re.search(rf"\b{name}\b", body)]
    typing = [name for name in ("Any", "Literal") if name in used]
    names = [name for name in ("File", "Model", "ModelInput") if name in used or "Model" in name]
    lines = [f"from typing import {', '.join(typing)}", ""] if typing else []
    lines += ["from pydantic import Field", ""] if "Field" in used else []
    return "\n".join([*lines, f"from ..registry import {', '.join(names)}"])


def in_import_order(models: Sequence[Json]) -> list[Json]:
    """By module, numbers by their value, as the import sorter has it."""

    def key(model: Json) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", model["module"])
        return [(int(part), "") if part.isdigit() else (0, part) for part in parts]

    return sorted(models, key=key)


def literal(value: Any) -> str:
    """The value in Python, its strings quoted as the formatter would."""
    return _flat(_node(value))


def _attribute(name: str) -> str:
    found = re.sub(r"[^A-Za-z0-9_]", "_", name).strip("_")
    if not found or found[0].isdigit():
        found = f"field_{found}".rstrip("_")
    if keyword.iskeyword(found) or found in RESERVED:
        found += "_"
    return found


def _field(name: str, field: Json) -> list[str]:
    """The lines that declare the field."""
    optional = not field.get("required") and field.get("default") is None
    annotation, options = _annotation(name, field, optional), _options(name, field)
    default = field.get("default")
    value: Node | None = None
    if options or isinstance(default, list | dict):
        first = [] if field.get("required") else [("", _node(default))]
        value = Group("Field(", first + options, ")")
    elif not field.get("required"):
        value = _node(default)
    end = "" if value is None else f" = {_flat(value)}"
    one_line = f"    {name}: {_flat(annotation)}{end}"
    if _width(one_line) <= WIDTH or (value is None and isinstance(annotation, str)):
        return [one_line]
    lines, start = [], f"{name}: "
    if isinstance(annotation, Group):
        # A union that does not fit gets parentheses, and a line for each member.
        if optional:
            choices = _split("", annotation._replace(closing="]"), "", 8)
            lines, start = [f"    {start}(", *choices, "        | None"], ")"
        else:
            *lines, last = _split(start, annotation, "", 4)
            start = last.lstrip()
        annotation = ""
    if value is None:
        return [*lines, f"    {start}"]
    start = f"{start}{annotation} = "
    if isinstance(value, str) and _width(f"    {start}{value}") > WIDTH:
        value = Group("Field(", [("", value)], ")")
    return lines + _lay(start, value, "", 4)


def _annotation(name: str, field: Json, optional: bool) -> Node:
    end = " | None" if optional else ""
    if "enum" in field and _has_literal(name, field):
        choices = [("", _node(value)) for value in field["enum"]]
        if len(choices) == 1:
            return f"Literal[{_flat(choices[0][1])}]{end}"
        return Group("Literal[", choices, f"]{end}")
    if field["type"] == "array":
        return f"list[{_items(field)}]{end}"
    return TYPES[field["type"]] + ("" if field["type"] == "object" else end)


def _options(name: str, field: Json) -> list[tuple[str, Node]]:
    listed = "enum" in field and not _has_literal(name, field)
    options = {
        "alias": None if name == field["name"] else field["name"],
        "ge": field.get("minimum"),
        "le": field.get("maximum"),
        "json_schema_extra": {"enum": field["enum"]} if listed else None,
    }
    return [(f"{key}=", _node(value)) for key, value in options.items() if value is not None]


def _has_literal(name: str, field: Json) -> bool:
    """Whether the choices are a Literal, which takes no floats and, by type checkers, no integers
    of more than 64 bits; Replicate checks the others.

    A single one must fit on its line: the formatter lays those out by rules of their own.
    """
    enum = field["enum"]
    if not all(isinstance(value, str) or _is_small(value) for value in enum):
        return False
    line = f"    {name}: Literal[{_flat(_node(enum[0]))}] | None = Field("
    return len(enum) > 1 or _width(line) <= WIDTH


def _is_small(value: Any) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63


def _items(field: Json) -> str:
    """The type of a list's items; Any where those of its default are of another one."""
    kinds = {"string": str, "file": str, "integer": int, "number": int | float, "boolean": bool}
    kind = field.get("items", "object")
    if not all(isinstance(item, kinds.get(kind, object)) for item in field.get("default", ())):
        return "Any"
    return TYPES.get(kind, "Any")


def _node(value: Any) -> Node:
    if isinstance(value, dict):
        return Group("{", [(f"{_quoted(key)}: ", _node(item)) for key, item in value.items()], "}")
    if isinstance(value, list):
        return Group("[", [("", _node(item)) for item in value], "]")
    # The formatter writes 1e20, not 1e+20.
    return _quoted(value) if isinstance(value, str) else repr(value).replace("e+", "e")


def _quoted(text: str) -> str:
    """Double quotes, unless single ones need fewer escapes."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    # With a double quote in front, repr takes single quotes, and escapes those inside.
    body = re.sub(r"\\(.)", lambda m: "'" if m[1] == "'" else m[0], repr('"' + text)[2:-1])
    return quote + body.replace(quote, "\\" + quote) + quote


def _flat(node: Node) -> str:
    if isinstance(node, str):
        return node
    items = ", ".join(start + _flat(item) for start, item in node.items)
    return f"{node.opening}{items}{node.closing}"


def _lay(start: str, node: Node, end: str, indent: int) -> list[str]:
    line = f"{' ' * indent}{start}{_flat(node)}{end}"
    if isinstance(node, str) or not node.items or _width(line) <= WIDTH:
        return [line]
    return _split(start, node, end, indent)


def _split(start: str, node: Group, end: str, indent: int) -> list[str]:
    """One item a line; the comma after the last keeps it so, however short it is."""
    margin = " " * indent
    lines = [f"{margin}{start}{node.opening}"]
    for before, item in node.items:
        lines += _lay(before, item, ",", indent + 4)
    return [*lines, f"{margin}{node.closing}{end}"]


def _width(line: str) -> int:
    """At least the columns that the formatter counts: wide characters take two."""
    return len(line) + sum(not character.isascii() for character in line)
