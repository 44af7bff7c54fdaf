"""Pins -> the zod objects of a TypeScript project, laid out as `biome format` would."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment
from jinja2.ext import Extension

WIDTH = 100
SAFE = 2**53 - 1  # the largest integer that JavaScript counts to
TYPES = {
    "string": "z.string()",
    "integer": "z.int()",
    "number": "z.number()",
    "boolean": "z.boolean()",
    "file": "file()",
    "object": "z.unknown()",  # whatever JSON: also what has no type in the schema
}

# What a constant would shadow: the names that the module uses, and the words of the language.
RESERVED = {"file", "model", "pinned", "z", "await", "break", "case", "catch", "class"} | {
    *("const", "continue", "debugger", "default", "delete", "do", "else", "enum", "export"),
    *("extends", "false", "finally", "for", "function", "if", "implements", "import", "in"),
    *("instanceof", "interface", "let", "new", "null", "package", "private", "protected"),
    *("public", "return", "static", "super", "switch", "this", "throw", "true", "try", "typeof"),
    *("var", "void", "while", "with", "yield", "arguments", "eval", "undefined"),
}

Json = dict[str, Any]


class TypescriptModels(Extension):
    """The filters of `{{ nextjs }}/src/lib/models.ts`."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters |= {
            "typescript_models": named,
            "typescript_imports": imports,
            "typescript_property": prop,
            "typescript_input": input_object,
            "typescript_list": listed,
        }


class Group(NamedTuple):
    """Source in brackets: on one line where it fits, else one item a line."""

    opening: str
    items: list[tuple[str, Node]]  # what stands before the item, such as `name: `, and the item
    closing: str


class Chain(NamedTuple):
    """Calls on `z`: on one line where they fit, else one call a line."""

    start: str
    calls: list[tuple[str, list[Node]]]


Node = str | Group | Chain


def named(models: Sequence[Json]) -> list[Json]:
    """The models, each with the name of its constant."""
    taken = set(RESERVED)
    found = []
    for model in models:
        first, *rest = model["module"].split("_")
        # 3_8b stays 3_8b, lest it be read as 38b.
        name = first
        for word in rest:
            between_digits = name[-1].isdigit() and word[0].isdigit()
            name += f"_{word}" if between_digits else word.capitalize()
        while name in taken:
            name += "Model" if name in RESERVED else "_"
        taken.add(name)
        found.append({**model, "constant": name})
    return found


def imports(models: Sequence[Json]) -> str:
    """What the module takes from `registry.ts`."""
    used = any(
        field["type"] == "file" or field.get("items") == "file"
        for model in models
        for field in model["input"]
    )
    return "file, type Model, pinned" if used else "type Model, pinned"


def prop(value: Any, name: str) -> str:
    """`name: value,` inside the object of a model."""
    return "\n".join(_lay(f"{name}: ", _node(value), ",", 2))


def input_object(inputs: Sequence[Json]) -> str:
    """`input: z.strictObject({…}),` inside the object of a model."""
    lines = ["  input: z.strictObject({"]
    for field in inputs:
        lines += _lay(f"{_key(field['name'])}: ", _schema(field), ",", 4)
    return "\n".join([*lines, "  }),"] if inputs else ["  input: z.strictObject({}),"])


def listed(models: Sequence[Json]) -> str:
    """The constants as an array, after `const MODELS: Model[] = `."""
    names = Group("[", [("", model["constant"]) for model in models], "]")
    return "\n".join(_lay("const MODELS: Model[] = ", names, ";", 0))


def _schema(field: Json) -> Node:
    default, calls = field.get("default"), []
    # What JavaScript cannot count to it cannot choose either.
    choices = [value for value in field.get("enum", []) if not _is_uncountable(value)]
    field = {name: value for name, value in field.items() if name != "enum"}
    field |= {"enum": choices} if choices else {}
    start, made = _type(field)
    for name, bound in (("min", field.get("minimum")), ("max", field.get("maximum"))):
        if bound is not None and "enum" not in field and abs(bound) <= SAFE:
            calls.append((f".{name}", [_node(bound)]))
    if isinstance(default, int | float) and abs(default) > SAFE:
        default = None
    if not field.get("required"):
        calls.append((".nullish", []) if default is None else (".default", [_node(default)]))
    return Chain(start, made + calls)


def _type(field: Json) -> tuple[str, list[tuple[str, list[Node]]]]:
    if "enum" in field:
        texts = all(isinstance(value, str) for value in field["enum"])
        return "z", [(".enum" if texts else ".literal", [_node(field["enum"])])]
    if field["type"] == "array":
        items = field.get("items", "object")
        # A default that is none of the declared ones says that the declaration is wrong.
        right = all(_is_of(items, value) for value in field.get("default") or [])
        return "z", [(".array", [TYPES.get(items if right else "object", TYPES["object"])])]
    kind = TYPES[field["type"]]
    return ("file()", []) if kind == "file()" else ("z", [(kind[1:-2], [])])


def _is_of(kind: str, value: Any) -> bool:
    if kind in ("integer", "number"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in ("string", "file"):
        return isinstance(value, str)
    return kind != "boolean" or isinstance(value, bool)


def _node(value: Any) -> Node:
    if isinstance(value, Mapping):
        pairs = [(f"{_key(str(key))}: ", _node(item)) for key, item in value.items()]
        return Group("{", pairs, "}")
    if isinstance(value, list | tuple):
        return Group("[", [("", _node(item)) for item in value], "]")
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        # 1.0 is 1 in JavaScript, and the formatter writes 1e20, not 1e+20.
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else _float(value)
    if _is_uncountable(value):
        return _float(float(value))
    return json.dumps(value)


def _is_uncountable(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > SAFE


def _float(value: float) -> str:
    mantissa, e, exponent = repr(value).partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def _key(name: str) -> str:
    if name == "__proto__":
        return '["__proto__"]'  # else it would set the prototype
    return name if name.replace("$", "_").isidentifier() else _quoted(name)


def _quoted(text: str) -> str:
    """Double quotes, unless single ones need fewer escapes."""
    body = json.dumps(text, ensure_ascii=False)[1:-1]
    body = re.sub("[\x7f-\xa0\u2028\u2029\ufeff]", lambda m: f"\\u{ord(m[0]):04x}", body)
    if text.count('"') <= text.count("'"):
        return f'"{body}"'
    return "'" + body.replace('\\"', '"').replace("'", "\\'") + "'"


def _flat(node: Node) -> str:
    if isinstance(node, str):
        return node
    if isinstance(node, Chain):
        calls = (f"{name}({', '.join(map(_flat, given))})" for name, given in node.calls)
        return node.start + "".join(calls)
    items = ", ".join(start + _flat(item) for start, item in node.items)
    space = " " if node.opening == "{" and items else ""
    return f"{node.opening}{space}{items}{space}{node.closing}"


def _lay(start: str, node: Node, end: str, indent: int) -> list[str]:
    """The lines of `start`, the node and `end`, `start` being indented by so many columns."""
    line = f"{' ' * indent}{start}{_flat(node)}{end}"
    if _width(line) <= WIDTH and not _broken(node):
        return [line]
    if isinstance(node, str):
        # Below a key of up to four columns nothing would be won.
        if not start.endswith(": ") or _width(start) <= 6:
            return [line]
        return [f"{' ' * indent}{start.rstrip()}", f"{' ' * (indent + 2)}{node}{end}"]
    if isinstance(node, Group):
        return _split(start, node, end, indent) if node.items else [line]
    return _chained(start, node, end, indent)


def _chained(start: str, chain: Chain, end: str, indent: int) -> list[str]:
    if len(chain.calls) == 1:
        name, given = chain.calls[0]
        lines = _called(f"{start}{chain.start}{name}", given, end, indent)
        if _width(lines[0]) <= WIDTH or not start:
            return lines
        return [f"{' ' * indent}{start.rstrip()}", f"{' ' * (indent + 2)}{_flat(chain)}{end}"]
    if len(chain.calls) == 2:
        (first, its), (last, given) = chain.calls
        before = f"{start}{chain.start}{first}({', '.join(map(_flat, its))}){last}"
        together = _called(before, given, end, indent)
        # An object, or a matrix, on several lines keeps two calls together where they fit.
        forced = any(line.endswith("{") for line in together) or any(map(_broken, given))
        if forced and _width(together[0]) <= WIDTH:
            return together
    lines = [f"{' ' * indent}{start}{chain.start}"]
    for name, given in chain.calls[:-1]:
        lines += _called(name, given, "", indent + 2)
    name, given = chain.calls[-1]
    return lines + _called(name, given, end, indent + 2)


def _called(start: str, given: list[Node], end: str, indent: int) -> list[str]:
    """A call; brackets of its only argument stay beside those of the call."""
    node = given[0] if given else ""
    line = f"{' ' * indent}{start}({_flat(node)}){end}"
    if not given or (_width(line) <= WIDTH and not _broken(node)):
        return [line]
    if isinstance(node, Group) and node.items:
        opened = node._replace(closing=f"{node.closing})")
        return _split(f"{start}(", opened, end, indent)
    return [
        f"{' ' * indent}{start}(",
        f"{' ' * (indent + 2)}{_flat(node)},",
        f"{' ' * indent}){end}",
    ]


def _split(start: str, node: Group, end: str, indent: int) -> list[str]:
    """One item a line, with a comma after the last; numbers fill their lines."""
    margin = " " * indent
    lines = [f"{margin}{start}{node.opening}"]
    if all(
        not key and isinstance(item, str) and re.match(r"[-\d]", item) for key, item in node.items
    ):
        line = ""
        for _, item in node.items:
            if line and _width(f"{margin}  {line} {item},") > WIDTH:
                lines.append(f"{margin}  {line}")
                line = ""
            line = f"{line} {item},".lstrip()
        lines.append(f"{margin}  {line}")
    else:
        for before, item in node.items:
            lines += _lay(before, item, ",", indent + 2)
    return [*lines, f"{margin}{node.closing}{end}"]


def _broken(node: Node) -> bool:
    """Whether the formatter breaks it however short it is: several objects or lists in a list."""
    if isinstance(node, Chain):
        return any(_broken(each) for _, given in node.calls for each in given)
    if not isinstance(node, Group):
        return False
    parts = [item for _, item in node.items if isinstance(item, Group)]
    matrix = (
        node.opening.endswith("[")
        and len(parts) == len(node.items) > 1
        and len({part.opening for part in parts}) == 1
        and all(len(part.items) > 1 for part in parts)
    )
    return matrix or any(map(_broken, parts))


def _width(line: str) -> int:
    """The columns that the formatter counts: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in line
    )
