"""guard/check.ts on every spelling of its language: it has a mirror and ways of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.claude import spellings
from tests.claude.languages import LANGUAGES, rendered
from tests.rendering import Renders, commit_all

LANGUAGE = LANGUAGES["typescript"]


@pytest.fixture
def project(renders: Renders, tmp_path: Path) -> Path:
    project = rendered(renders, tmp_path / "project", LANGUAGE)
    commit_all(project, "Rendered")
    return project


def found(project: Path, given: list[spellings.Snippet]) -> list[set[str]]:
    """The rules that refuse each snippet, each in a file of its own.

    A mistake is read where it would be made, below `predictions/`: a path is context, too.
    """
    (project / "src/app/predictions").mkdir()
    for number, snippet in enumerate(given):
        folder = "" if snippet.rule == "ordinary" else "predictions/"
        (project / f"src/app/{folder}s{number}.ts").write_text(snippet.code, "utf-8")
    command = [*LANGUAGE.start, "guard/check.ts"]
    done = subprocess.run(command, cwd=project, capture_output=True, encoding="utf-8")
    assert done.returncode in (0, 1), done.stderr
    rules: list[set[str]] = [set() for _ in given]
    for number, rule in re.findall(
        r"^src/app/\S*\bs(\d+)\.ts:\d+: \[([\w-]+)\]", done.stdout, re.M
    ):
        rules[int(number)].add(rule)
    return rules


def test_every_bad_spelling_is_refused_by_its_own_rule(project: Path) -> None:
    given = spellings.bad("ts") + [s for s in spellings.pairs("bad") if s.suffix == "ts"]
    rules = found(project, given)
    assert [str(s) for s, its in zip(given, rules, strict=True) if s.rule not in its] == []


def test_ordinary_code_and_the_good_halves_are_left_alone(project: Path) -> None:
    given = spellings.ordinary("ts") + [s for s in spellings.pairs("good") if s.suffix == "ts"]
    rules = found(project, given)
    assert {str(s): its for s, its in zip(given, rules, strict=True) if its} == {}
