"""Formatter, linter and types on the sources in place; what must never stand in a file."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.rendering import ROOT, run
from tests.test_layers import tracked

# Machine paths, and addresses of package registries: they belong into a person's own settings.
FORBIDDEN = re.compile(
    r"/work/|/tmp/[a-z]+\.md|/root/|/opt/|/home/(?!user\b|nonroot\b|app\b)[a-z]+/"
    r"|C:\\\\?Users|/Users/"
    r"|pypi\.org|pythonhosted\.org|registry\.npmjs\.org|registry\.yarnpkg\.com|npm\.pkg\.github"
    r"|artifactory|--(?:extra-)?index-url|--find-links",
    re.IGNORECASE,
)
HASHED = re.compile(
    r"(?m)^[\w.\[\],-]+==\S+(?: ; [^\n\\]+)? \\\n(?: +--hash=sha256:[0-9a-f]{64}.*\n)+"
)


def test_formatted() -> None:
    run(sys.executable, "-m", "ruff", "format", "--check", ".", cwd=ROOT)


def test_linted() -> None:
    run(sys.executable, "-m", "ruff", "check", ".", cwd=ROOT)


def test_strictly_typed() -> None:
    run(sys.executable, "-m", "mypy", cwd=ROOT)


@pytest.mark.parametrize(
    "planted",
    [
        "import inference.prediction as one\none.Row()\n",
        "import app.database as one\none.SqlStore()\n",
    ],
)
def test_a_type_error_in_a_source_is_seen(planted: str, tmp_path: Path) -> None:
    """Both layers are found by the checker: a call without its arguments is refused."""
    place = tmp_path / "planted.py"
    place.write_text(planted)
    command = (sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", place)
    done = run(*command, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "[call-arg]" in done.stdout


def forbidden(text: str) -> list[str]:
    """The words in a text that belong to one machine or to one registry."""
    return FORBIDDEN.findall(text)


def test_nothing_names_a_machine_or_a_registry() -> None:
    found = {}
    for name in tracked():
        path = ROOT / name
        if path.is_file() and path != Path(__file__):
            words = forbidden(path.read_text("utf-8", errors="replace"))
            if words:
                found[name] = words
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "cd /work/main",
        "cache=/root/.cache",
        "/home/jane/project",
        r"C:\Users\jane",
        "https://files.pythonhosted.org/packages/x",
        '"resolved": "https://registry.npmjs.org/x"',
        "--extra-index-url x",
    ],
)
def test_a_forbidden_word_is_seen(text: str) -> None:
    assert forbidden(text)


def unhashed(lock: str) -> list[str]:
    """The lines of a requirements file that are no hashed, exact requirement or its comment."""
    rest = HASHED.sub("", lock)
    return [line for line in rest.splitlines() if line and not line.lstrip().startswith("#")]


def test_every_group_is_locked() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    assert {path.stem for path in (ROOT / "requirements").iterdir()} == set(groups)


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").iterdir()), ids=lambda p: p.stem)
def test_every_requirement_is_locked_by_hash(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert HASHED.search(text)
    assert unhashed(text) == []
    assert "://" not in text


@pytest.mark.parametrize(
    "line", ["ruff==1.0\n", "ruff>=1.0 \\\n    --hash=sha256:00\n", "--index-url x\n", "-e .\n"]
)
def test_an_unhashed_requirement_is_seen(line: str) -> None:
    good = f"uv==1 \\\n    --hash=sha256:{'a' * 64}\n    # via x\n"
    assert unhashed(good) == []
    assert unhashed(good + line)


def test_what_renders_is_what_the_tests_render_with() -> None:
    def pins(name: str) -> set[str]:
        lock = (ROOT / f"requirements/{name}.txt").read_text("utf-8")
        return set(re.findall(r"(?m)^[\w.\[\]-]+==\S+", lock))

    assert pins("render") <= pins("test")


def test_the_tests_run_what_a_project_asks_for(default_project: Path) -> None:
    """Every requirement of a rendered project is met here, so it can run without its own .venv."""
    metadata = tomllib.loads((default_project / "pyproject.toml").read_text("utf-8"))
    wanted = [*metadata["project"]["dependencies"], *metadata["dependency-groups"]["dev"]]
    for requirement in map(Requirement, filter(lambda one: isinstance(one, str), wanted)):
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(version(requirement.name), prereleases=True)
