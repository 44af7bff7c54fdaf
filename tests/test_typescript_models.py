"""The typed models of a TypeScript project: as written by hand, strict, and what the pins say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings

from tests.model_api import load_extension
from tests.node import NODE, installed, npx
from tests.rendering import ROOT, Renders, run
from tests.test_registry import ALL, ONCE, any_pins, models_of_any_kind, pins

SOURCES = ROOT / "template/{{ nextjs }}/src/lib"
SHOWN = """
import { readdirSync } from "node:fs";
const found = {};
for (const name of readdirSync("any").filter((name) => name.startsWith("models")).sort()) {
  const { REGISTRY } = await import(`./any/${name}`);
  found[name] = Object.fromEntries(
    Object.values(REGISTRY).map((model) => [model.ownerName, model.fields]),
  );
}
console.log(JSON.stringify(found));
"""
SAFE = 2**53 - 1
KEYS = ("type", "default", "minimum", "maximum", "enum")


def rendered(pinned: dict[str, dict[str, Any]]) -> str:
    """`src/lib/models.ts` of these pins, as Copier would render it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SOURCES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        extensions=[load_extension("typescript_models").TypescriptModels],
    )
    models = json.loads(pins.registry([], list(pinned), pinned))
    return environment.get_template("models.ts.jinja").render(models=models)


def in_javascript(field: dict[str, Any], key: str) -> Any:
    """What a pin says of a field, as far as JavaScript can count."""
    value = field.get(key)
    if key == "enum":
        return [each for each in value or [] if not is_large_integer(each)] or None
    if key in ("minimum", "maximum") and in_javascript(field, "enum"):
        return None  # the choices say it
    if isinstance(value, int | float) and abs(value) > SAFE:
        return None
    return as_counted(json.dumps(value))


def as_counted(text: str) -> Any:
    return json.loads(text, parse_int=lambda digits: countable(int(digits)))


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without what the formatter and the linter stumble over themselves.

    That is names of half a line, numbers of sixteen digits, and `then`, which makes a promise.
    """
    text = json.dumps(schema).replace('"then"', '"than"')
    read = json.loads(text, parse_float=lambda digits: float(f"{float(digits):.6g}"))
    parts = {name[:30]: part for name, part in read["properties"].items()}
    return {"properties": parts, "required": [name[:30] for name in read["required"]]}


def is_large_integer(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > SAFE


def countable(value: int) -> float:
    return float(value) if is_large_integer(value) else value


@pytest.fixture(scope="module")
def project(renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = renders.copy(tmp_path_factory.mktemp("typescript") / "project", framework="nextjs")
    return installed(made)


@pytest.fixture
def write(project: Path) -> Callable[[list[dict[str, dict[str, Any]]]], None]:
    """Writes registries into `any/` of the project: many files, checked by one run of each tool."""

    def write(registries: list[dict[str, dict[str, Any]]]) -> None:
        folder = project / "any"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        (folder / "registry.ts").write_bytes((SOURCES / "registry.ts").read_bytes())
        for number, pinned in enumerate(registries):
            (folder / f"models{number:03}.ts").write_text(rendered(pinned), "utf-8")

    return write


def typed(project: Path) -> None:
    """Run the strict type checker on `any/` alone, with the project's settings."""
    settings = {"extends": "./tsconfig.json", "include": ["any/*.ts"]}
    (project / "tsconfig.any.json").write_text(json.dumps(settings), "utf-8")
    npx(project, "tsc", "--project", "tsconfig.any.json", "--incremental", "false")


@pytest.mark.slow
def test_any_pin_gives_code_that_is_formatted_typed_and_says_the_same(
    project: Path, write: Callable[[list[dict[str, dict[str, Any]]]], None]
) -> None:
    """The catalogue, awkward names and values, and pins of any schema."""
    registries = [ALL]

    @given(models_of_any_kind)
    @settings(ONCE, max_examples=int(os.environ.get("ANY_PINS", "40")), derandomize=True)
    def collect(inputs: list[dict[str, Any]]) -> None:
        registries.append(any_pins([plain(each) for each in inputs]))

    collect()
    write(registries)
    npx(project, "biome", "check", "--colors=off", "--max-diagnostics=50", "any")
    typed(project)
    shown = as_counted(run(NODE, "--input-type=module", "-e", SHOWN, cwd=project).stdout)
    for pinned, models in zip(registries, shown.values(), strict=True):
        for name, fields in models.items():
            # JavaScript moves names that are numbers to the front.
            told = {field["name"]: field for field in fields}
            assert told.keys() == {wanted["name"] for wanted in pinned[name]["input"]}
            for wanted in pinned[name]["input"]:
                for key in KEYS:
                    said = told[wanted["name"]][key]
                    assert said == in_javascript(wanted, key), (name, wanted, key)
