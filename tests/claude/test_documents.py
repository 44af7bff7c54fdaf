"""CLAUDE.md and AGENTS.md: short, inline, this project's own, and every rule of the guide in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import management as auth
from django.core import management

from tests.claude import spellings
from tests.claude.languages import FRAMEWORKS
from tests.node import is_node
from tests.rendering import ROOT, Renders

LINES = 200

# Every rule of the guide that this template grew from, and the words of CLAUDE.md that keep it or
# put it right.
GUIDE = {
    "pin every model by hash": r"\*\*official\*\*: `owner/name`, no hash .*422",
    "a hash locks the weights": r"may still be rerouted.*\n?.*version that ran",
    "write the hash into the code": r"Nobody types a\nversion's hash",
    "run() under five seconds, create() above": r"\*\*run\*\*: create, wait.*\n?.*under 5 s",
    "webhook instead of polling": r"### 2\. Polling instead of the webhook",
    "poll no faster than every second": r"more often than every 2 s",
    "time-outs: Promise.race, wait_for": r"only `Cancel-After` ends it",
    "an AbortSignal ends a run": r"a time-out of ours stops nothing",
    "wait: {mode: block, timeout: 30}": r"wait up to `RUN_WAIT_SECONDS`, then go on by webhook",
    "wait up to 60 s in the request": r"waits are bounded",
    "statuses: starting, processing, succeeded, failed, canceled": r"`aborted`\nmeans the deadline",
    "the spelling cancelled": r"the spelling is `canceled`",
    "check the status before the output": r"### 4\. Output used before the status is checked",
    "output URLs expire after an hour": r"deletes outputs after about an hour",
    "download and store the output": r"streams every output",
    "name it predictions/<id><ext>": r"`<id>/<index>\.<ext>`",
    "answer with the SDK's output": r"`FileOutput`, which is no JSON",
    "verify the webhook's signature": r"HMAC-SHA256 over `id\.timestamp\.body`",
    "decode the secret after whsec_": r"base64 part of `whsec_",
    "compare in constant time": r"constant-time, on the raw bytes",
    "timingSafeEqual of what came in": r"# constant time.*raises one error",
    "several signatures, with spaces between": r"every signature in the header",
    "the timestamp may be anything": r"±300 s, each id once",
    "the user's id in the webhook's URL": r"query\nstring is not signed.*\n?.*hint",
    "download inside the webhook": r"no download, no Replicate call",
    "subscribe to completed": r"subscribe to\n`start` and `completed`",
    "cold starts take 20-60 s": r"2 s typical, minutes at worst",
    "prime every model": r"official ones answer 409",
    "prime with the smallest input": r"with\na valid input, once, inside the budget",
    "retry on failure": r"A blind retry may bill twice",
    "errors by class": r"402 is never retried.*422.*429",
    "rate limits": r"waits\s+for `retry_after`",
    "cancel only one's own": r"\*\*Cancel\*\* checks the owner first",
    "canceling bills what ran": r"bills the time that elapsed",
    "log the prediction's id": r"every prediction id with its\n   `predict_time`",
    "the token stays on the server": r"`REPLICATE_API_TOKEN` stays on the server",
    "inputs by the model's schema": r"inputs only through their typed class",
    "the SDK ^0.30": r"Python SDK 2 \(1\.x\nbreaks on Python 3\.14",
    "safe scripts": r"scripts/list_models\.py +uv run scripts/check_usage\.py",
    "preview a model's schema": r"scripts/preview_model_schema\.py owner/name",
    "paid scripts need a person": r"Ask before every start, and show the estimate",
    "read no secrets": r"Do not read `\.env`",
    "the invented header": r"There is no `X-Replicate-Signature`",
}

# The same in a TypeScript project, where the words differ.
TYPESCRIPT = {
    "timingSafeEqual of what came in": r"// constant time.*throws one error",
    "the SDK ^0.30": r"Replicate's JavaScript\nSDK 1\.4 behind a gateway",
    "safe scripts": r"scripts/list-models\.ts +npx tsx scripts/check-usage\.ts",
    "preview a model's schema": r"scripts/preview-model-schema\.ts owner/name",
    "read no secrets": r"Do not read `\.env\.local`",
}


@pytest.fixture(params=FRAMEWORKS)
def project(request: pytest.FixtureRequest, renders: Renders) -> Path:
    return renders(framework=request.param)


@pytest.fixture
def text(project: Path) -> str:
    return (project / "CLAUDE.md").read_text("utf-8")


def test_every_rule_of_the_guide_is_kept_or_corrected(project: Path, text: str) -> None:
    words = GUIDE | (TYPESCRIPT if is_node(project) else {})
    assert words.keys() == GUIDE.keys()
    assert [r for r in words if not re.search(words[r], text, re.DOTALL)] == []


def test_both_languages_set_the_same_names() -> None:
    python, typescript = (
        spellings.partial(f"languages/{name}") for name in ("python", "typescript")
    )
    assert set(vars(python)) == set(vars(typescript))
    for name in vars(python):
        if not name.startswith("_"):
            assert type(getattr(python, name)) is type(getattr(typescript, name)), name


def test_both_documents_say_the_same(project: Path, text: str) -> None:
    assert (project / "AGENTS.md").read_text("utf-8") == text


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_is_short_and_inline(renders: Renders, framework: str) -> None:
    for answers in ({}, {"paid_scripts": "deny"}, {"replicate_models": catalogue()}):
        text = (renders(framework=framework, **answers) / "CLAUDE.md").read_text("utf-8")
        assert len(text.splitlines()) < LINES
        assert not re.search(r"^@|\s@[\w./]+\.md", text, re.MULTILINE)
        assert "<!--" not in text
        assert "{{" not in text
        assert "{%" not in text


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("paid", ["ask", "deny", "none"])
@pytest.mark.parametrize("count", [1, 14, 15, 100])
def test_it_stays_short_with_many_models(framework: str, paid: str, count: int) -> None:
    model = {"key": "a-model", "owner_name": "an-owner/a-model", "kind": "community"}
    pin: dict[str, Any] = {"version": "0" * 64, "output": "files", "seconds": 1.5, "mode": "run"}
    text = spellings.rendered(
        "template/CLAUDE.md.jinja",
        project_name="Images",
        framework=framework,
        python="" if framework == "nextjs" else ".",
        django="." if framework == "django" else "",
        paid_scripts=paid,
        models=[model | pin] * count,
    )
    assert len(text.splitlines()) < LINES
    assert text.count("| `a-model` |") == min(count, 14)
    assert (f"{count - 14} more" in text) == (count > 14)


def catalogue() -> list[str]:
    """Every model that the question offers."""
    found = list(json.loads((ROOT / "catalogue/models.json").read_text("utf-8")))
    assert len(found) > 5
    return found


def test_it_names_this_projects_models(text: str) -> None:
    table = [line for line in text.splitlines() if line.startswith("| `")]
    esrgan = next(line for line in table if "nightmareai/real-esrgan" in line)
    assert re.search(r"\| community \| `[0-9a-f]{12}…` \| webhook \| file \|", esrgan)
    flux = next(line for line in table if "black-forest-labs/flux-schnell" in line)
    assert "| official | none: official | run | files |" in flux


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("paid", ["ask", "deny", "none"])
def test_every_command_in_the_documents_is_there(
    renders: Renders, framework: str, paid: str
) -> None:
    """What each of them does has tests of its own: here a printed one starts something."""
    project = renders(framework=framework, paid_scripts=paid)
    started = {"uv": python_program, "npx": node_program, "node": node_program, "npm": npm_program}
    found = set()
    for document in project.rglob("*.md"):
        for line in re.findall(
            r"(?m)(?:`|^|&& )((?:uv run|np[mx]|node) [^`\n]+)", document.read_text()
        ):
            for command in re.split(r"\s{2,}| && ", line):
                program, *arguments = command.split()
                if program in started and "-p" not in arguments and "<job>" not in command:
                    found.add(command)
                    assert started[program](project, arguments), (document, command)
    assert len(found) > 15


DJANGO = {
    name
    for package in (management, auth)
    for name in management.find_commands(str(Path(str(package.__file__)).parent))
}


def python_program(project: Path, arguments: list[str]) -> bool:
    known = (project / "pyproject.toml").read_text() if not is_node(project) else ""
    _, program, *rest = arguments
    if program == "python":
        return (project / "src" / rest[1] / "__main__.py").exists()
    if program == "manage.py":
        commands = project / "src/app/management/commands"
        own = {path.stem for path in (*commands.glob("*.py"), *project.glob("scripts/*.py"))}
        return rest[0] in own | DJANGO
    path = project / program
    return path.is_file() or (path / "__main__.py").exists() or f'"{program}>=' in known


def node_program(project: Path, arguments: list[str]) -> bool:
    names = [argument for argument in arguments if re.match(r"\w[\w/-]*(\.ts)?$", argument)]
    known = (project / "package.json").read_text()
    return names != [] and all(
        (project / name).is_file() or f'"{name}":' in known or name == "owner/name"
        for name in names
    )


def npm_program(project: Path, arguments: list[str]) -> bool:
    scripts = json.loads((project / "package.json").read_text())["scripts"]
    own, *_ = " ".join(arguments).split(" -- ")  # what follows is for the script's program
    return own == "ci" or own.split()[-1] in scripts


def test_the_pairs_come_from_the_partials(project: Path, text: str) -> None:
    language = "typescript" if is_node(project) else "python"
    comment = "//" if is_node(project) else "#"
    for number, name in enumerate(spellings.names(), 1):
        mistake = spellings.mistake(name)
        bad, good = (
            str(getattr(mistake, f"{half}_{language}")).strip() for half in ("bad", "good")
        )
        assert (
            f"### {number}. {mistake.title}\n{mistake.why}\n```{language}\n{comment} before\n"
            f"{bad}\n{comment} after\n{good}\n```"
        ) in text


def test_paid_scripts_in_words(renders: Renders) -> None:
    def words(paid: str) -> str:
        return (renders(paid_scripts=paid) / "CLAUDE.md").read_text("utf-8")

    assert "You may not start them" in words("deny")
    assert "No script here spends money" in words("none")
    assert "confirm-spend" not in words("none")


def test_the_limits_are_said_in_the_readme(project: Path) -> None:
    readme = (project / "README.md").read_text("utf-8")
    assert "What the guard cannot catch" in readme
    assert "--confirm-spend" in readme
    assert "daily ceiling" in readme
