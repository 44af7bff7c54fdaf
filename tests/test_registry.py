"""The typed registry: what is rendered from pins reads as if written by hand, and is strict."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.model_api import load_extension, records
from tests.rendering import ROOT, run

pins = load_extension("replicate_pins")
SOURCES = ROOT / "template/{{ python }}/src/inference"
RUFF = (sys.executable, "-m", "ruff")
RULES = ("--select=E,F,I,RUF,UP,W", "--ignore=E501,RUF001", "--line-length=100", "--no-cache")

LONG = "a very long default, which no line of a hundred characters can hold, " * 3
AWKWARD: list[dict[str, Any]] = [
    {"name": "class", "type": "string", "required": True},
    {"name": "with-dash", "type": "integer", "default": 1, "minimum": 0, "maximum": 2**64},
    {"name": "with_dash", "type": "integer", "default": 2},
    {"name": "_private", "type": "number", "minimum": -1e20, "maximum": 1e-05},
    {"name": "2d", "type": "boolean", "default": False},
    {"name": "größe", "type": "string", "default": "日本語"},
    {"name": "", "type": "string"},
    {"name": "copy", "type": "string", "default": 'say "hi"'},
    {"name": "schema", "type": "string", "default": "both ' and \""},
    {"name": "model_config", "type": "string", "default": "back\\slash \u202e\n"},
    {"name": "int", "type": "integer"},
    {"name": "Field", "type": "integer", "required": True, "minimum": 1},
    {"name": "levels", "type": "integer", "enum": [1, 2, 4], "default": 4},
    {"name": "one", "type": "string", "enum": ["only"], "required": True},
    {"name": "one_long", "type": "string", "enum": ["x" * 100], "required": True},
    {"name": "many", "type": "string", "enum": [f"choice {n}" for n in range(60)]},
    {
        "name": "many-dashed",
        "type": "string",
        "enum": [f"c{n}" for n in range(60)],
        "default": "c1",
    },
    {"name": "shares", "type": "number", "enum": [0.5, 1, 1.5], "default": 0.5},
    {"name": "long", "type": "string", "default": LONG},
    {"name": "nearly", "type": "string", "default": "x" * 72},
    {"name": "exact", "type": "string", "default": "x" * 81},
    {"name": "images", "type": "array", "items": "file"},
    {"name": "sizes", "type": "array", "items": "integer", "default": [1, 2]},
    {"name": "sizes_long", "type": "array", "items": "integer", "default": list(range(60))},
    {"name": "anything", "type": "object", "default": {"a": [1, {"b": None}], "c": "x" * 90}},
    {"name": "whatever", "type": "object"},
    {"name": "needed", "type": "object", "required": True},
]


def pin(inputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {**pins.catalogue()["openai/whisper"], "input": inputs}


def write(folder: Path, pinned: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the registry of these pins as Copier would; what the templates were given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SOURCES / "models"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        extensions=[load_extension("python_models").PythonModels],
    )
    models: list[dict[str, Any]] = json.loads(pins.registry([], list(pinned), pinned))
    made = folder / "inference/models"
    made.mkdir(parents=True, exist_ok=True)
    (folder / "inference/__init__.py").touch()
    for name in ("registry.py", "prediction.py"):
        shutil.copy(SOURCES / name, folder / "inference")
    (one,) = [path.name for path in (SOURCES / "models").iterdir() if "yield" in path.name]
    for model in models:
        text = environment.get_template(one).render(model=model)
        (made / f"{model['module']}.py").write_text(text, "utf-8")
    text = environment.get_template("__init__.py.jinja").render(models=models)
    (made / "__init__.py").write_text(text, "utf-8")
    return models


def formatted(folder: Path) -> None:
    run(*RUFF, "format", "--diff", "--line-length=100", "--no-cache", folder, cwd=folder)
    run(*RUFF, "check", *RULES, folder, cwd=folder)


ALL = {**pins.catalogue(), "someone/awkward": pin(AWKWARD), "someone/empty": pin([])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("registry")
    write(made, ALL)
    return made


@pytest.fixture(scope="module")
def registry(folder: Path) -> Iterator[Any]:
    """The rendered `inference.models`, imported."""
    sys.path.insert(0, str(folder))
    stale = {name: sys.modules.pop(name) for name in list(sys.modules) if _ours(name)}
    yield importlib.import_module("inference.models").REGISTRY
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if _ours(name)]:
        del sys.modules[name]
    sys.modules.update(stale)


def _ours(name: str) -> bool:
    return name.partition(".")[0] == "inference"


def test_it_is_formatted_and_linted(folder: Path) -> None:
    formatted(folder)


def mypy(folder: Path, *arguments: str | Path) -> str:
    """What the strict type checker says, with the settings of a rendered project."""
    source = (ROOT / "template/{{ python }}/pyproject.toml.jinja").read_text("utf-8")
    settings = "[tool.mypy]" + source.partition("[tool.mypy]")[2].partition("[tool.pytest")[0]
    (folder / "pyproject.toml").write_text(jinja2.Template(settings).render(django=""), "utf-8")
    command = (sys.executable, "-m", "mypy", "--cache-dir", folder / ".types", *arguments)
    return run(*command, cwd=folder, check=False).stdout


def test_it_is_strictly_typed(folder: Path) -> None:
    assert mypy(folder, "-p", "inference").startswith("Success")


def test_a_wrong_input_is_a_type_error(folder: Path) -> None:
    wrong = [
        'FluxSchnellInput(prompt="x", num_outputs="two")',
        'FluxSchnellInput(prompt="x", aspect_ratio="7:5")',
        'FluxSchnellInput(prompt="x", webhook="y")',
        "FluxSchnellInput(num_outputs=2)",
        "FluxSchnellInput(prompt=None)",
    ]
    lines = [
        "from inference.models.flux_schnell import FluxSchnellInput",
        'FluxSchnellInput(prompt="x", num_outputs=2, aspect_ratio="1:1")',
        *wrong,
    ]
    (folder / "use.py").write_text("\n".join(lines) + "\n", "utf-8")
    said = mypy(folder, "use.py").splitlines()
    named = {int(line.split(":")[1]) for line in said if ": error:" in line}
    assert named == {number + 3 for number in range(len(wrong))}, said


def test_fields_are_those_of_the_pins(registry: Any) -> None:
    shown = importlib.import_module("inference.registry").input_fields
    for model in registry.values():
        pinned = ALL[model.owner_name]["input"]
        assert [field["name"] for field in shown(model)] == [field["name"] for field in pinned]
        for field, expected in zip(shown(model), pinned, strict=True):
            assert set(field) == {
                *("name", "type", "required", "default", "minimum", "maximum", "enum")
            }
            assert field["required"] == expected.get("required", False)
            for key in ("type", "default", "minimum", "maximum", "enum"):
                assert field[key] == expected.get(key), (model.key, field["name"], key)


@pytest.mark.parametrize(
    ("key", "ref", "mode"),
    [
        ("flux-schnell", "black-forest-labs/flux-schnell", "run"),
        ("video-01", "minimax/video-01", "webhook"),
        ("real-esrgan", f"nightmareai/real-esrgan:{'f121d640bd28'}", "webhook"),
    ],
)
def test_reference_and_mode(key: str, ref: str, mode: str, registry: Any) -> None:
    assert registry[key].ref.startswith(ref)
    assert len(registry[key].ref.partition(":")[2]) in (0, 64)
    assert registry[key].mode == mode


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"prompt": "a", "num_outputs": 5}, "num_outputs"),
        ({"prompt": "a", "num_outputs": "many"}, "num_outputs"),
        ({"prompt": "a", "aspect_ratio": "7:1"}, "aspect_ratio"),
        ({"prompt": "a", "nonsense": 1}, "nonsense"),
        ({}, "prompt"),
    ],
)
def test_a_wrong_input_names_its_field(given: Any, field: str, registry: Any) -> None:
    with pytest.raises(ValueError, match=field):
        registry["flux-schnell"].input.model_validate(given)


@pytest.mark.parametrize("file", ["ftp://a/b", "javascript:alert(1)", "/etc/passwd", "/files/x/0"])
def test_a_file_is_a_url_or_one_of_ours(file: str, registry: Any) -> None:
    model = registry["real-esrgan"].input
    with pytest.raises(ValueError, match="image"):
        model.model_validate({"image": file})
    for fine in ("https://a/b.png", "data:image/png;base64,AA==", f"/files/{'0' * 32}/0"):
        assert model.model_validate({"image": fine}).image == fine


def test_files_in_lists_are_files(registry: Any) -> None:
    module = importlib.import_module("inference.registry")
    assert module.file_fields(registry["awkward"]) == ["images"]
    assert module.file_fields(registry["real-esrgan"]) == ["image"]
    assert module.own_files(["https://a/b", "/files/0/1", "data:,x"]) == ["/files/0/1"]


def test_only_what_was_set_is_sent_under_the_models_own_names(registry: Any) -> None:
    given = {"class": "a", "one": "only", "one_long": "x" * 100, "Field": 1, "needed": 0}
    model = registry["awkward"].input.model_validate({**given, "with-dash": 3})
    sent = model.model_dump(exclude_unset=True, by_alias=True)
    assert sent == {**given, "with-dash": 3}


PRIMED = """
from inference.models import REGISTRY
from inference.registry import smallest_input
for model in REGISTRY.values():
    given = smallest_input(model)
    read = model.input.model_validate(given)
    sent = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert sent == given, (model.owner_name, given, sent)
    print(model.owner_name)
"""
BOUNDED: list[dict[str, Any]] = [
    {"name": "least", "type": "number", "required": True, "minimum": 2.5},
    {"name": "most", "type": "number", "required": True, "maximum": 0.5},
    {"name": "whole_least", "type": "integer", "required": True, "minimum": 2},
    {"name": "whole_most", "type": "integer", "required": True, "maximum": -1},
    {"name": "free", "type": "integer", "required": True, "maximum": 9},
    {"name": "nothing", "type": "boolean", "required": True},
    {"name": "choice", "type": "integer", "required": True, "enum": [512, 1024]},
    {"name": "files", "type": "array", "items": "file", "required": True},
    {"name": "file", "type": "file", "required": True},
    {"name": "any", "type": "object", "required": True},
]


def test_every_model_can_be_primed(tmp_path: Path) -> None:
    """What wakes a model up satisfies its schema, or Replicate refuses it."""
    make_pin = load_extension("replicate_api").make_pin
    recorded = {
        name: make_pin(model, model["latest_version"], "2026-01-01")
        for name, model in records().items()
        if model["latest_version"]
    }
    pinned = ALL | recorded | {"someone/bounded": pin(BOUNDED)}
    write(tmp_path, pinned)
    primed = run(sys.executable, "-c", PRIMED, cwd=tmp_path).stdout.split()
    assert set(primed) == set(pinned)
    print(f"{len(primed)} models primed")


def test_names_that_collide_are_told_apart(tmp_path: Path) -> None:
    names = ["a/model", "b/model", "c/Model", "a/x.y", "a/x-y", "a/x_y", "a/con", "a/4x", "a/class"]
    models = write(tmp_path, {name: pin([]) for name in names})
    assert [model["key"] for model in models[:3]] == ["model", "b-model", "c-Model"]
    for part in ("key", "module", "constant"):
        assert len({model[part] for model in models}) == len(names)
    assert all(model["module"].isidentifier() for model in models)
    assert "con" not in {model["module"] for model in models}
    formatted(tmp_path)


# What a model's input may be like, as Replicate would describe it; nothing in it fits together.
# Without characters that only a newer Unicode has: how wide they are, nobody agrees.
texts = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]), max_size=120)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda part: st.lists(part, max_size=4) | st.dictionaries(texts, part, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", None])
properties = st.fixed_dictionaries(
    {"type": kinds},
    optional={
        "format": st.just("uri"),
        "default": values,
        "minimum": values,
        "maximum": values,
        "enum": st.lists(texts, min_size=1, max_size=30)
        | st.lists(numbers, max_size=9)
        | st.lists(values, max_size=5),
        "items": st.fixed_dictionaries({"type": kinds}, optional={"format": st.just("uri")}),
        "description": texts,
    },
)
schemas = st.dictionaries(texts, properties, max_size=8).flatmap(
    lambda each: st.fixed_dictionaries(
        {
            "properties": st.just(each),
            "required": st.lists(st.sampled_from(sorted(each)), unique=True)
            if each
            else st.just([]),
        }
    )
)
models_of_any_kind = st.lists(schemas, min_size=1, max_size=12)


def any_pins(inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pins that the resolver makes of models with these inputs."""
    make_pin = load_extension("replicate_api").make_pin
    model = {"is_official": True}
    return {
        f"someone/model-{number}": make_pin(
            model, {"openapi_schema": {"components": {"schemas": {"Input": schema}}}}, "2026-01-01"
        )
        for number, schema in enumerate(inputs)
    }


SHOWN = """
import json
from inference.models import REGISTRY
from inference.registry import input_fields
print(json.dumps({model.owner_name: input_fields(model) for model in REGISTRY.values()}))
"""


@pytest.fixture(scope="module")
def any_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


# Not made smaller where it fails: each try takes a second, and a pin is short.
ONCE = settings(deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


@given(models_of_any_kind)
@settings(ONCE, max_examples=12)
def test_any_pin_renders_code_that_is_formatted_linted_and_says_the_same(
    any_folder: Path, inputs: list[dict[str, Any]]
) -> None:
    pinned = any_pins(inputs)
    write(any_folder, pinned)
    formatted(any_folder)
    shown = json.loads(run(sys.executable, "-c", SHOWN, cwd=any_folder).stdout)
    for model, fields in shown.items():
        for field, wanted in zip(fields, pinned[model]["input"], strict=True):
            assert field["name"] == wanted["name"]
            assert field["required"] == wanted.get("required", False)
            for key in ("type", "default", "minimum", "maximum", "enum"):
                assert field[key] == wanted.get(key), (field["name"], key)


@pytest.mark.slow
@given(models_of_any_kind)
@settings(ONCE, max_examples=20)
def test_any_pin_renders_code_that_is_strictly_typed(
    any_folder: Path, inputs: list[dict[str, Any]]
) -> None:
    write(any_folder, any_pins(inputs))
    said = mypy(any_folder, "-p", "inference")
    assert said.startswith("Success"), said


def a_right_value(field: dict[str, Any]) -> Any:
    if "enum" in field:
        return field["enum"][0]
    examples = {"string": "a", "file": "https://a/b", "boolean": True, "array": [], "object": {}}
    return examples.get(field["type"], field.get("minimum", 1))


def test_a_wrong_input_is_a_type_error_for_every_model_of_the_catalogue(folder: Path) -> None:
    """Each field with a value of another type, each choice with another one, each needed one left
    out, and a field that no model has; beside them a right call of each model."""
    lines: list[str] = []
    wrong: set[int] = set()

    def call(model: dict[str, Any], given: dict[str, Any], *, right: bool) -> None:
        words = ", ".join(f"{name}={value!r}" for name, value in given.items())
        lines.append(f"{model['class_name']}Input({words})")
        if not right:
            wrong.add(len(lines))

    catalogue = pins.catalogue()
    for model in json.loads(pins.registry([], list(catalogue), catalogue)):
        lines.append(f"from inference.models.{model['module']} import {model['class_name']}Input")
        fields = model["input"]
        needed = {f["name"]: a_right_value(f) for f in fields if f.get("required")}
        call(model, needed, right=True)
        call(model, {f["name"]: a_right_value(f) for f in fields}, right=True)
        call(model, needed | {"no_such_field": 1}, right=False)
        for name in needed:
            call(model, {key: needed[key] for key in needed if key != name}, right=False)
        for field in fields:
            if field["type"] == "object":
                continue  # any JSON fits
            others: list[Any] = [b"", 1j]
            if "enum" in field:
                others += ["no such choice" if field["type"] == "string" else -12345]
            elif field["type"] in ("string", "file"):
                others += [1, None] if field.get("required") else [1]
            elif field["type"] in ("integer", "number", "boolean"):
                others += ["1"]
            for value in others:
                call(model, needed | {field["name"]: value}, right=False)
    assert len(wrong) > 300
    (folder / "use_all.py").write_text("\n".join(lines) + "\n", "utf-8")
    said = mypy(folder, "use_all.py").splitlines()
    named = {int(line.split(":")[1]) for line in said if ": error:" in line}
    assert named == wrong, [lines[number - 1] for number in sorted(named ^ wrong)]
