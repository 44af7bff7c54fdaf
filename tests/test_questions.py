"""Questions: what is refused, in which words, and that what is accepted renders a sound project."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from tests.model_api import load_extension
from tests.rendering import checked, copier_command, questions, render, template

HASH = "f121d640bd286e1fdc67f9799164c1d5be36ff74576ee11c803ae5b665dd46aa"
FLUX, ESRGAN = "black-forest-labs/flux-schnell", "nightmareai/real-esrgan"

# For each question: what is refused, and a word of what to type instead.
REFUSED: dict[str, dict[str, list[Any]]] = {
    "project_name": {
        "like: Picture studio": [
            "",
            " ",
            " padded",
            "padded ",
            'say "hi"',
            "it's",
            "two\nlines",
            "ends\n",
            "tab\there",
            "{{ 7 * 7 }}",
            "{% raw %}",
            "$(reboot)",
            "`reboot`",
            "a; reboot",
            "../../etc",
            "<script>",
            "a\x00b",
            "-dash",
            "emoji 😀",
            "x" * 61,
        ]
    },
    "project_slug": {
        "like: picture-studio": [
            "",
            " ",
            "two words",
            "Upper",
            'quo"te',
            "new\nline",
            "ends\n",
            "café",
            "{{ 7 * 7 }}",
            "$(reboot)",
            "a;b",
            "../x",
            "a/b",
            ".git",
            "-a",
            "a-",
            "a--b",
            "1a",
            "under_score",
            "x" * 51,
        ],
        "choose another, like: my-": ["replicate", "fastapi", "con", "com1"],
    },
    "replicate_models": {
        "is not in the catalogue: give it as": [["someone/else"], [FLUX, "flux-schnell"]],
        "Write a list": ["flux", {"a": 1}],
    },
    "replicate_extra_models": {
        "write owner/name": [
            [""],
            [" "],
            ["flux"],
            ["a/b/c"],
            ["https://replicate.com/a/b"],
            ["a b/c"],
            ['a/"b"'],
            ["a/b\n"],
            ["a/é"],
            ["a/{{ 7 * 7 }}"],
            ["a/$(reboot)"],
            ["../x"],
            ["a/.."],
            ["a/b:"],
            ["a/b:latest"],
            [f"a/b:{HASH[:-1]}"],
            [f"a/b:{HASH}0"],
            [f"a/b:{HASH.upper()}"],
            [5],
            [None],
            [{"a/b": HASH}],
        ],
        "is named twice": [
            ["a/b", "a/b"],
            ["a/b", f"a/b:{HASH}"],
            ["a/b", "A/b"],
            [f"{ESRGAN}:{HASH}"],
        ],
        "Write a list": ["a/b", {"a": "b"}, "["],
    },
    "replicate_pins_as_of": {
        "like: 2026-01-31 owner/name": [
            "",
            "today",
            "31.01.2026",
            "2026-13-01",
            "2999-01-01",
            f"2026-01-31  {FLUX}",
            "2026-01-31\n",
        ],
        "is not a model of this project": ["2026-01-31 someone/else"],
    },
    "framework": {"is none of fastapi": ["rails", ""]},
    "storage": {"is none of local, s3": ["ftp", "../x", 5, ["s3"]]},
    "paid_scripts": {"is none of ask, deny": ["yes", True]},
}
CASES = [
    (question, said, answer)
    for question, problems in REFUSED.items()
    for said, answers in problems.items()
    for answer in answers
]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template without its history, which Copier would clone for each of many attempts."""
    folder = tmp_path_factory.mktemp("source") / "template"
    return Path(shutil.copytree(template(), folder, ignore=shutil.ignore_patterns(".git")))


def attempt(source: Path, folder: Path, **given: Any) -> str:
    """Try to render with `data` or `user_defaults`; what was said, or nothing if it was accepted.

    Data is what `--data` gives; a default of the user's is what stands at the question.
    """
    options: dict[str, Any] = {"defaults": True, "unsafe": True, "quiet": True}
    try:
        copier.run_copy(str(source), folder / "made", **given, **options)
    except Exception as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("question", "said", "answer"), CASES)
def test_refused(question: str, said: str, answer: Any, source: Path, tmp_path: Path) -> None:
    message = attempt(source, tmp_path, data={question: answer})
    assert said in message
    assert question in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())
    if said != "is not a model of this project":  # which only --data can say
        assert attempt(source, tmp_path, user_defaults={question: answer})
        assert not list(tmp_path.iterdir())


def test_every_question_has_refused_answers() -> None:
    guards = {name for name in questions() if name.endswith("_guard")}
    assert questions().keys() - guards - REFUSED.keys() == {"replicate_pins"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("project_slug=../x", "like: picture-studio"),
        ("project_name={{ 7 * 7 }}", "like: Picture studio"),
        ("replicate_models=[someone/else]", "replicate_extra_models"),
        ("replicate_extra_models=[a/b:123]", "(3 characters)"),
        ("replicate_models=[]", "Choose at least one model"),
        ("replicate_pins={}", "edited by hand"),
        ("framework=rails", "'rails' is none of fastapi"),
        ("storage=ftp", "'ftp' is none of local, s3, r2, gcs, azure"),
        ("paid_scripts=yes", "none of ask, deny, none"),
    ],
)
def test_refused_by_the_command_in_one_line(answer: str, said: str, tmp_path: Path) -> None:
    options = ("--trust", "--defaults", "--vcs-ref=HEAD", f"--data={answer}")
    done = copier_command("copy", *options, template(), "made", cwd=tmp_path, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert said in line
    assert not (tmp_path / "made").exists()


def test_a_model_is_needed(source: Path, tmp_path: Path) -> None:
    message = attempt(source, tmp_path, user_defaults={"replicate_models": []})
    assert "Choose at least one model" in message


@pytest.mark.parametrize(
    "answers",
    [
        {"project_name": "Bilder und Töne", "storage": "gcs"},
        {"project_name": "日本語 2.0", "storage": "azure", "paid_scripts": "none"},
        {"project_name": "x" * 60, "project_slug": "y" * 50, "storage": "r2"},
        {"project_name": "null", "project_slug": "true", "paid_scripts": "deny"},
        {"project_name": "7", "replicate_models": [], "replicate_extra_models": [FLUX]},
        {"replicate_models": [FLUX], "replicate_extra_models": [f"{ESRGAN}:{HASH}"]},
        {"replicate_extra_models": None},
    ],
)
def test_accepted(answers: dict[str, Any], tmp_path: Path) -> None:
    project = render(tmp_path, **answers)
    metadata = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata["description"] == answers.get("project_name", "Replicate app")
    if slug := answers.get("project_slug"):
        assert metadata["name"] == slug
    kept = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    for question, answer in answers.items():
        assert kept[question] == answer
    checked(project, "format", "lint")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Replicate app", "replicate-app"),
        ("Übung macht den Meister", "ubung-macht-den-meister"),
        ("日本語", "replicate-app"),
        ("FastAPI", "replicate-app"),
        ("3D viewer_2.0", "d-viewer-2-0"),
        ("a.-.b", "a-b"),
        ("x" * 60, "x" * 50),
    ],
)
def test_the_slug_follows_the_name(name: str, slug: str, tmp_path: Path) -> None:
    project = render(tmp_path, project_name=name, replicate_models=[FLUX])
    assert tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]["name"] == slug


def test_the_choices_say_what_a_model_makes_and_how_long_it_takes() -> None:
    labels = {
        name: label for label, name in json.loads(load_extension("replicate_pins").choices([], {}))
    }
    assert labels[FLUX] == f"{FLUX}: images, 0.83 s, official"
    assert labels["openai/whisper"] == "openai/whisper: text of speech, 17 s, community"
    assert labels["minimax/video-01"] == "minimax/video-01: video, 290 s, official"
