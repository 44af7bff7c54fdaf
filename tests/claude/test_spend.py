"""guard/spend.py: which shell commands want a person, by itself and quickly."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.claude.languages import LANGUAGES, Language, language_of
from tests.rendering import Renders, clean_env

WANTED = 50


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    return LANGUAGES[request.param]


@pytest.fixture
def project(language: Language, renders: Renders) -> Path:
    return renders(framework=language.framework)


def spend(project: Path, given: str, answer: str = "ask") -> subprocess.CompletedProcess[str]:
    language = language_of(project)
    return subprocess.run(
        [*language.start, str(project / f"guard/spend.{language.suffix}"), answer],
        input=given,
        capture_output=True,
        encoding="utf-8",
        env=clean_env(),
        timeout=60,
    )


def decision(project: Path, command: str, answer: str = "ask") -> str | None:
    """What the hook decides about a command; None where it says nothing."""
    call = {"tool_name": "Bash", "tool_input": {"command": command}}
    done = spend(project, json.dumps(call), answer)
    assert done.returncode == 0, done.stderr
    if not done.stdout:
        return None
    said = json.loads(done.stdout)["hookSpecificOutput"]
    assert said["hookEventName"] == "PreToolUse"
    assert said["permissionDecisionReason"]
    return str(said["permissionDecision"])


def test_there_are_many_spellings(language: Language) -> None:
    commands = language.commands
    assert len(set(commands.STARTS + commands.CALLS)) >= WANTED


@pytest.mark.parametrize("answer", ["ask", "deny"])
def test_every_spelling_wants_a_person(language: Language, project: Path, answer: str) -> None:
    commands = language.commands
    listed = commands.STARTS + commands.CALLS + commands.GUARD + commands.IN_PASSING
    through = [c for c in listed if decision(project, c, answer) != answer]
    assert through == []


def test_safe_commands_reads_and_ordinary_work_pass(language: Language, project: Path) -> None:
    commands = language.commands
    listed = commands.SAFE + commands.READS + commands.ORDINARY
    assert [c for c in listed if decision(project, c) is not None] == []


@pytest.mark.parametrize(
    "command",
    [
        "cat scripts/batch_generate.py > /tmp/x.py",
        "cat scripts/batch_generate.py | sh",
        "sed -n '1e python3 scripts/batch_generate.py' README.md",
        "find scripts -name 'batch*' -delete",
        "grep -l x scripts/batch_generate.py | xargs python3",
        "git -c core.pager=./scripts/batch_generate.py log",
        "git diff --ext-diff scripts/batch_generate.py",
        "rg --pre ./scripts/batch_generate.py x",
        "git log --output=scripts/batch_generate.py",
        "cat scripts/batch_generate.py\npython3 scripts/batch_generate.py",
        "echo $(python3 scripts/batch_generate.py)",
        "echo `python3 scripts/batch_generate.py`",
        "cat <(python3 scripts/batch_generate.py)",
        "uv run mypy --python-executable scripts/batch_generate.py",
        "cat 'scripts/batch_generate.py",
    ],
)
def test_a_reader_that_does_more_than_read_is_no_reader(project: Path, command: str) -> None:
    assert decision(project, command) == "ask"


@pytest.mark.parametrize("given", ["", "{", "[]", "{}", '{"tool_input": {}}'])
def test_what_it_cannot_read_does_not_pass(project: Path, given: str) -> None:
    done = spend(project, given)
    assert done.returncode == 2
    assert "the check itself failed" in done.stderr


def test_an_unknown_answer_does_not_pass(project: Path) -> None:
    call = json.dumps({"tool_input": {"command": "ls"}})
    assert spend(project, call, "allow").returncode == 2
