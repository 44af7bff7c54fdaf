"""Model references and known pins -> pins, for Copier's questions.

A pin holds all that rendering needs to know of a model; it is kept in the answers, one JSON line
each, so that an update asks Replicate nothing. See copier.yml for the order in which the filters
run: questions may fail cleanly, rendering may not, so everything is resolved in the questions.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import keyword
import math
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import yaml
from copier.errors import UserMessageError
from jinja2 import Environment
from jinja2.ext import Extension

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "catalogue" / "models.json"
RUN_SECONDS = 5.0

# A distribution cannot have the name of one that it depends on, nor a folder one of Windows' own.
TAKEN = {"replicate", "fastapi", "uvicorn", "sqlalchemy", "alembic", "psycopg", "obstore"} | {
    *("pydantic", "pydantic-settings", "httpx", "structlog", "itsdangerous", "python-multipart"),
    *("pytest", "ruff", "mypy", "pre-commit", "hypothesis", "con", "prn", "aux", "nul"),
    *(f"{device}{number}" for device in ("com", "lpt") for number in range(10)),
}

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")
_AS_OF = re.compile(r"(\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\dZ)?)((?: \S+)*)", re.ASCII)
_FORM = "write owner/name, or owner/name:<64 hex digits> to hold one version"

Json = dict[str, Any]


class Ref(NamedTuple):
    """A model as the person named it: `owner/name`, and the version to hold, if any."""

    name: str
    version: str | None


class ReplicatePins(Extension):
    """The filters of copier.yml and of the answers file."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters |= {
            "replicate_slug": slug,
            "replicate_name_problem": name_problem,
            "replicate_slug_problem": slug_problem,
            "replicate_choices": choices,
            "replicate_storage_problem": storage_problem,
            "replicate_refs_problem": refs_problem,
            "replicate_as_of_problem": as_of_problem,
            "replicate_guard_names": guard_names,
            "replicate_guard_pins": guard_pins,
            "replicate_resolve": resolve,
            "replicate_pins_problem": pins_problem,
            "replicate_registry": registry,
            "replicate_summary": summary,
            "replicate_json": to_json,
            "replicate_source": source,
        }


def source(address: str) -> str:
    """The template's address for the answers: a folder's path must hold from the project, too."""
    return os.path.abspath(address) if os.path.isdir(address) else address


def slug(name: str) -> str:
    """The name in lower case ASCII and dashes, or `replicate-app` where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    found = re.sub(r"[^a-z0-9]+", "-", plain).lstrip("-0123456789")[:50].strip("-")
    return found if found and found not in TAKEN else "replicate-app"


def name_problem(name: str) -> str:
    if re.fullmatch(r"[^\W_]([\w .-]{0,58}[\w.-])?", name):
        return ""
    return (
        "Use letters, digits, spaces, dots, dashes and underscores, at most 60, "
        "like: Picture studio"
    )


def slug_problem(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 50:
        return (
            "Use lower case letters, digits and single dashes, starting with a letter, at most 50, "
            "like: picture-studio"
        )
    if name in TAKEN:
        return f"{name} is taken by a dependency or by the system: choose another, like: my-{name}"
    return ""


def catalogue() -> dict[str, Json]:
    """The recorded pins by owner/name; beside each, `makes` says in a word what the model makes."""
    found: dict[str, Json] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    return found


def catalogue_text(models: Mapping[str, Json]) -> str:
    """The catalogue as its file holds it: one line per model."""
    lines = (f"{to_json(name)}: {to_json(models[name])}" for name in sorted(models))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def choices(chosen: Any, pins: Any) -> str:
    """Label and value of each model to choose: the catalogue, and what the project has of old."""
    known = _choosable(chosen, pins)
    return to_json([[_label(name, pin), name] for name, pin in known.items()])


def _choosable(chosen: Any, pins: Any) -> dict[str, Json]:
    known = catalogue()
    pins = pins if isinstance(pins, Mapping) else {}
    for name in _items(chosen):
        if name not in known and not _misfit(pins.get(name), Ref(name, None), "initial"):
            known[name] = pins[name]
    return known


def _items(answer: Any) -> list[Any]:
    """A list that may still be as it was typed after `--data`.

    Raises:
        ValueError: it is none.
    """
    try:
        found = yaml.safe_load(answer) if isinstance(answer, str) else answer
    except yaml.YAMLError:
        found = answer
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError("Write a list, like: [owner/name, owner/name:<64 hex digits>]")
    return found


def _label(name: str, pin: Json) -> str:
    seconds = pin["seconds"]
    time = "time unknown" if seconds is None else f"{float(format(seconds, '.2g')):g} s"
    return f"{name}: {pin.get('makes', pin['output'])}, {time}, {pin['kind']}"


def parse_refs(models: Sequence[str], extra: Any) -> list[Ref]:
    """The chosen models, then the extra ones.

    Raises:
        ValueError: with what to write instead.
    """
    refs = [Ref(name, None) for name in models]
    seen = {name.lower() for name in models}
    for text in _items(extra):
        name, colon, version = text.partition(":") if isinstance(text, str) else ("", "", "")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{str(text)!r:.80} is not a model: {_FORM}")
        if colon and not _HASH.fullmatch(version):
            raise ValueError(
                f"{version!r:.80} ({len(version)} characters) is not a version of {name}: {_FORM}"
            )
        if name.lower() in seen:
            raise ValueError(f"{name} is named twice: keep one, with or without its version")
        seen.add(name.lower())
        refs.append(Ref(name, version or None))
    if not refs:
        raise ValueError("Choose at least one model, above or here, like: [owner/name]")
    return refs


def refs_problem(models: Sequence[str], extra: Any) -> str:
    try:
        parse_refs(models, extra)
    except ValueError as error:
        return str(error)
    return ""


def as_of_problem(as_of: str) -> str:
    found = _AS_OF.fullmatch(as_of)
    try:
        # A day of leeway: the calendar of another time zone may be ahead.
        if as_of == "initial" or (
            found and date.fromisoformat(found[1][:10]) <= _today() + timedelta(days=1)
        ):
            return ""
    except ValueError:
        pass
    return (
        "Write a date up to today, and the models to refresh if not all, "
        "like: 2026-01-31 owner/name"
    )


def _today() -> date:
    return datetime.now(UTC).date()


def _demanded(name: str, as_of: str) -> str:
    """Since when the pin of the model must be; empty where any will do."""
    found = _AS_OF.fullmatch(as_of)
    names = found[2].split() if found else []
    return found[1] if found and (not names or name in names) else ""


def _misfit(pin: Any, ref: Ref, as_of: str) -> str:
    """Why the pin cannot stand for the reference; empty where it can."""
    if pin is None:
        return f"{ref.name} has no pin"
    try:
        whole = (
            (_HASH.fullmatch(pin["version"]) if pin["kind"] == "community" else not pin["version"])
            and pin["kind"] in ("official", "community")
            and pin["output"] in ("file", "files", "text", "text-stream", "json")
            and (pin["seconds"] is None or isinstance(pin["seconds"], int | float))
            and all(isinstance(field["name"] + field["type"], str) for field in pin["input"])
        )
        if not whole:
            return f"the pin of {ref.name} is damaged"
        if ref.version and pin["version"] != ref.version:
            return f"the pin of {ref.name} is for another version than {ref.version}"
        if pin["resolved"] < _demanded(ref.name, as_of):
            return f"the pin of {ref.name} is of {pin['resolved']}, older than asked for"
    except (KeyError, TypeError):
        return f"the pin of {ref.name} is damaged"
    return ""


def pins_problem(pins: Any, models: Sequence[str], extra: Any, as_of: str) -> str:
    if not isinstance(pins, Mapping):
        return "the pins are damaged"
    refs = parse_refs(models, extra)
    for ref in refs:
        if problem := _misfit(pins.get(ref.name), ref, as_of):
            return problem
    spare = sorted(set(pins) - {ref.name for ref in refs})
    return f"{spare[0]} is pinned but not chosen" if spare else ""


def storage_problem(storage: str, framework: str) -> str:
    """Why the framework cannot serve this storage; empty where it can."""
    if framework == "nextjs":
        return "only the Python frameworks serve it" if storage in ("gcs", "azure") else ""
    return "only Next.js serves it" if storage == "vercel-blob" else ""


def guard_names(data: Mapping[str, Any], pins: Any, framework: str) -> bool:
    """Refuse given answers in one line, where Copier itself would show a traceback.

    `data` is what `--data` gave. Always False, so that nothing is asked.

    Raises:
        UserMessageError: with what to write instead.
    """
    for question, check in (("project_name", name_problem), ("project_slug", slug_problem)):
        if question in data and (problem := check(str(data[question]))):
            raise UserMessageError(f"{question}: {problem}")
    for question in ("framework", "storage", "paid_scripts"):
        if question in data and data[question] not in (offered := _choices_of(question)):
            raise UserMessageError(
                f"{question}: {data[question]!r:.80} is none of {', '.join(offered)}"
            )
    chosen = str(data.get("framework", framework))
    if problem := storage_problem(str(data.get("storage", "")), chosen):
        raise UserMessageError(f"storage: {data['storage']} does not go with {chosen}: {problem}")
    try:
        models = _items(data.get("replicate_models"))
    except ValueError as error:
        raise UserMessageError(f"replicate_models: {error}") from None
    known = _choosable(models, pins)
    for name in models:
        if name not in known:
            raise UserMessageError(
                f"replicate_models: {name!r:.80} is not in the catalogue: give it as "
                "--data 'replicate_extra_models=[owner/name]' instead"
            )
    return False


def _choices_of(question: str) -> list[str]:
    choices = _questions()[question]["choices"].values()
    return [choice["value"] if isinstance(choice, dict) else choice for choice in choices]


@functools.cache
def _questions() -> Json:
    """What copier.yml declares, by the parser in C where there is one: each render reads it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: Json = yaml.load((ROOT / "copier.yml").read_text("utf-8"), loader)
    return found


def guard_pins(data: Mapping[str, Any], models: Sequence[str], extra: Any) -> bool:
    """The same for references and pins; `data` holds all answers when an update first renders the
    old project: pins resolved anew there would not be those that its files were rendered from.
    """
    as_of = str(data.get("replicate_pins_as_of", "initial"))
    given = data.keys() & {"replicate_models", "replicate_extra_models"}
    if given and (problem := refs_problem(models, extra)):
        raise UserMessageError(f"replicate_extra_models: {problem}")
    if problem := as_of_problem(as_of):
        raise UserMessageError(f"replicate_pins_as_of: {problem}")
    if "replicate_pins" in data:
        problem = pins_problem(data["replicate_pins"], models, extra, as_of)
    elif "_src_path" in data:
        problem = "the pins are missing"
    else:
        named = {*models, *(str(item).partition(":")[0] for item in _items(extra))}
        if unknown := set(as_of.split()[1:]) - named:
            raise UserMessageError(
                f"replicate_pins_as_of: {min(unknown)} is not a model of this project: "
                "name those to refresh, like: 2026-01-31 owner/name"
            )
    if problem:
        raise UserMessageError(
            f"The answers were edited by hand: {problem}. Restore them "
            "(git checkout .copier-answers.yml), then change models with "
            "`copier update --data 'replicate_extra_models=[owner/name]'` and refresh pins with "
            "`copier update -r :current: --data replicate_pins_as_of=<today's date>`. If they were "
            "committed long ago, `copier recopy --trust` pins anew what is missing, over your edits"
        )
    return False


def resolve(models: Sequence[str], extra: Any, as_of: str, known: Any) -> str:
    """The pins as JSON: known ones are kept, the others come from Replicate or the catalogue.

    Raises:
        UserMessageError: in one line, the model and the way out.
    """
    refs = parse_refs(models, extra)
    known = known if isinstance(known, Mapping) else {}
    pins = {
        ref.name: known[ref.name]
        for ref in refs
        if ref.name in known and not _misfit(known[ref.name], ref, as_of)
    }
    missing = [ref for ref in refs if ref.name not in pins]
    token = os.environ.get("REPLICATE_API_TOKEN", "").strip()
    if missing and token:
        today = _today().isoformat()
        pins |= load_api().resolve(missing, token, today, catalogue())
        for ref in missing:
            pins[ref.name]["resolved"] = max(today, _demanded(ref.name, as_of))
    elif missing:
        pins |= {ref.name: _recorded(ref, as_of) for ref in missing}
    return to_json(dict(sorted(pins.items())))


def _recorded(ref: Ref, as_of: str) -> Json:
    pin = catalogue().get(ref.name)
    way_out = "set REPLICATE_API_TOKEN (https://replicate.com/account/api-tokens)"
    if pin is None:
        raise UserMessageError(
            f"{ref.name} is not in the template's catalogue, so Replicate must be asked: {way_out}"
        )
    if ref.version and pin["kind"] == "official":
        raise UserMessageError(
            f"{ref.name} is an official model, which Replicate runs only in its current version: "
            f"write {ref.name}, without the hash"
        )
    if problem := _misfit(pin, ref, as_of):
        raise UserMessageError(f"In the template's catalogue {problem}: {way_out}")
    return {key: value for key, value in pin.items() if key != "makes"}


def load_api() -> ModuleType:
    """The module that talks to Replicate, by its path: an update loads two releases of it."""
    path = Path(__file__).with_name("replicate_api.py")
    spec = importlib.util.spec_from_file_location(f"{__name__}_api", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def registry(models: Sequence[str], extra: Any, pins: Mapping[str, Json]) -> str:
    """What the templates iterate over: each pin with its names in the project, as JSON."""
    found: list[Json] = []
    for ref in parse_refs(models, extra):
        owner, _, key = ref.name.partition("/")
        taken = {model["module"] for model in found}
        if _module(key) in taken:
            key = f"{owner}-{key}"
        module = base = _module(key)
        number = 2
        while module in taken:
            key, module, number = f"{owner}-{key}-{number}", f"{base}_{number}", number + 1
        pin = pins[ref.name]
        quick = pin["seconds"] is not None and pin["seconds"] < RUN_SECONDS
        found.append(
            {
                **pin,
                "owner_name": ref.name,
                "key": key,
                "module": module,
                "constant": module.upper(),
                "class_name": _class_name(module),
                "mode": "run" if pin["kind"] == "official" and quick else "webhook",
            }
        )
    return to_json(found)


def _module(key: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_")
    bad = not name or name[0].isdigit() or name in TAKEN or keyword.iskeyword(name)
    return f"model_{name}" if bad else name


def _class_name(module: str) -> str:
    camel = "".join(word.capitalize() for word in module.split("_"))
    # 1_1 stays 1_1, lest it be read as 11.
    return re.sub(r"(?<=\d)_(?=\d)", "_", camel)


def summary(models: Sequence[Json]) -> str:
    """The table of the closing message, and where its pins come from."""
    rows = [("model", "kind", "version", "output", "seconds", "mode")]
    for model in models:
        version = model["version"][:12] if model["version"] else "official"
        seconds = "unknown" if model["seconds"] is None else f"{model['seconds']:g}"
        rows.append(
            (model["owner_name"], model["kind"], version, model["output"], seconds, model["mode"])
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    recorded = sorted({m["resolved"] for m in models if m["source"] == "catalogue"})
    if recorded:
        count = sum(model["source"] == "catalogue" for model in models)
        lines += [
            "",
            f"{count} of {len(models)} as recorded in the template's catalogue on {recorded[0]}, "
            "without asking Replicate.",
            "To ask, set REPLICATE_API_TOKEN, commit, and run: "
            "copier update --trust --defaults -r :current: "
            f"--data replicate_pins_as_of={_today()}",
        ]
    return "\n".join(lines)


def to_json(value: Any) -> str:
    """JSON on one line that YAML 1.1, too, reads back as the same value."""
    if isinstance(value, Mapping):
        pairs = (f"{to_json(key)}: {to_json(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_json, value)) + "]"
    if isinstance(value, float) and math.isfinite(value):
        # 1e-05 would be read as a string.
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, str):
        # Readable as it is, but for what YAML forbids or folds, and halves of surrogate pairs.
        text = json.dumps(value, ensure_ascii=False)
        text = re.sub("[\ud800-\udfff]", "\ufffd", text)
        return re.sub(
            "[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]", lambda m: f"\\u{ord(m[0]):04x}", text
        )
    return json.dumps(value, allow_nan=False)
