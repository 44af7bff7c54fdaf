"""What is rendered, for the answers a person can give: complete, within its budget, and clean."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.rendering import (
    BIN,
    CHECKS,
    ROOT,
    Renders,
    checked,
    clean_env,
    questions,
    render,
    run,
    running,
    tree,
)

CATALOGUE = sorted(json.loads((ROOT / "catalogue/models.json").read_text("utf-8")))
DEFAULT_MODELS = questions()["replicate_models"]["default"]
OTHER_MODEL = next(model for model in CATALOGUE if model not in DEFAULT_MODELS)

# Pins, and the guards that only refuse bad answers, are never asked: they have tests of their own.
ASKED = sorted(
    name
    for name, question in questions().items()
    if question.get("ask", True) and not name.endswith("_guard")
)
# Another answer for each question that is not a choice from a fixed list.
OTHER: dict[str, list[Any]] = {
    "project_name": ["Café Ünïcode 7"],
    "project_slug": ["other-name"],
    "replicate_models": [
        sorted({*DEFAULT_MODELS} ^ {model}) for model in sorted({*CATALOGUE, *DEFAULT_MODELS})
    ],
    "replicate_extra_models": [[OTHER_MODEL]],
}


# A path as the documents name it, and those that a person or the running service makes.
A_PATH = (
    r"((?:src|scripts|guard|dev|tests|docs|var|\.\w+)(?:/[\w.\[\]-]+)+"
    r"|[\w-]+\.(?:py|ts|tsx|yml))"
)
MADE = {"docs/existing-application.md", "var/dev", "var/outputs"}

TYPED = ("dev", "guard", "scripts", "src/inference", "tests")


def choices(name: str) -> list[Any]:
    """The answers to try for a question: each choice, or the examples above."""
    declared = questions()[name].get("choices")
    if isinstance(declared, dict):
        return [one["value"] if isinstance(one, dict) else one for one in declared.values()]
    return OTHER[name]


def every_choice() -> list[Any]:
    return [
        pytest.param(name, answer, id=f"{name}-{answer}")
        for name in ASKED
        for answer in choices(name)
        if answer != questions()[name]["default"]
    ]


def files(project: Path) -> dict[str, bytes]:
    """The files of a project without the record of its answers."""
    return {name: content for name, content in tree(project).items() if "answers" not in name}


def serves(framework: str, storage: str) -> bool:
    """Whether a framework has a client for a storage."""
    only = {
        "vercel-blob": ("nextjs",),
        "gcs": ("fastapi", "django"),
        "azure": ("fastapi", "django"),
    }
    return framework in only.get(storage, [framework])


@pytest.mark.parametrize(("name", "answer"), every_choice())
def test_every_choice_changes_a_file(name: str, answer: Any, renders: Renders) -> None:
    given = {"framework": "nextjs"} if answer == "vercel-blob" else {}
    assert files(renders(**{name: answer}, **given)) != files(renders(**given))


@pytest.mark.parametrize(
    ("framework", "storage"),
    [
        (framework, storage)
        for framework in choices("framework")
        for storage in choices("storage")
        if not serves(framework, storage)
    ],
)
def test_a_storage_that_the_framework_cannot_serve_is_refused(
    framework: str, storage: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"'storage': only .+ serves? it"):
        render(tmp_path, framework=framework, storage=storage)


def sets_of_answers() -> list[Any]:
    """Each framework with each storage that it serves, and other answers in turn.

    Many models, which take long to check, meet each framework once.
    """
    names, extra = ["Replicate app", *OTHER["project_name"]], [[], [OTHER_MODEL]]
    paid, many = choices("paid_scripts"), [name for name in CATALOGUE if name != OTHER_MODEL]
    pairs = itertools.product(choices("framework"), choices("storage"))
    rows: list[dict[str, Any]] = [
        {
            "framework": framework,
            "storage": storage,
            "paid_scripts": paid[number % len(paid)],
            "replicate_models": [DEFAULT_MODELS, DEFAULT_MODELS[:1]][number % 2],
            "replicate_extra_models": extra[number // 2 % 2],
            "project_name": names[number // 4 % 2],
        }
        for number, (framework, storage) in enumerate(pair for pair in pairs if serves(*pair))
    ]
    rows += [{"framework": each, "replicate_models": many} for each in choices("framework")]
    return [pytest.param(row, id=",".join(map(_brief, row.values()))) for row in rows]


def _brief(answer: Any) -> str:
    return str(len(answer)) if isinstance(answer, list) else str(answer)


def test_the_default_project_passes_its_own_checks(renders: Renders, tmp_path: Path) -> None:
    checked(renders.copy(tmp_path / "project"))


@pytest.mark.slow
@pytest.mark.parametrize("answers", sets_of_answers())
def test_any_answers_pass_the_projects_own_checks(answers: dict[str, Any], tmp_path: Path) -> None:
    checked(render(tmp_path, **answers))


@pytest.mark.parametrize(
    ("check", "planted"),
    [
        ("format", "x = {  }\n"),
        ("lint", "import os\n"),
        ("types", "x: int = ''\n"),
        ("tests", "def test_no() -> None:\n    assert False\n"),
    ],
)
def test_a_projects_own_check_sees_a_violation(
    check: str, planted: str, renders: Renders, tmp_path: Path
) -> None:
    project = renders.copy(tmp_path / "project")
    place = project / ("tests/test_0_planted.py" if check == "tests" else "src/app/planted.py")
    place.write_text(planted)
    with pytest.raises(AssertionError, match=CHECKS[check][0]):
        checked(project, check)


def test_every_folder_of_a_project_is_typed(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project")
    places = [f"{name}/planted_{name[-3:]}.py" for name in ("src/app", *TYPED)]
    for place in places:
        (project / place).write_text("x: int = ''\n")
    with pytest.raises(AssertionError) as complaint:
        checked(project, "types")
    assert [place for place in places if f"{place}:1: error" not in str(complaint.value)] == []


def test_unknown_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such questions: storge"):
        render(tmp_path, storge="s3")


def test_derived_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such questions: fastapi"):
        render(tmp_path, fastapi="")


def test_a_failed_render_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Validation error"):
        render(tmp_path, project_slug="../up")


# The aim is 60 files, 2,000 lines of Python in app and inference, and 250 a module. What is over it
# is the price of two databases in one store and of the guarantees; these ceilings may rise for one
# of those only.
FILES, LINES, MODULE = 82, 3950, 255
# Next.js, which has one file for each route, and the page in components: here every module counts,
# also of scripts/ and guard/.
NEXTJS_FILES, NEXTJS_LINES, NEXTJS_MODULE = 120, 5475, 250


def test_the_default_render_is_small_enough_to_own(default_project: Path) -> None:
    made = tree(default_project)
    assert len(made) <= FILES
    lines = {
        name: content.count(b"\n")
        for name, content in made.items()
        if name.startswith(("src/app/", "src/inference/")) and name.endswith(".py")
    }
    assert sum(lines.values()) <= LINES
    assert {name: count for name, count in lines.items() if count > MODULE} == {}


def test_a_nextjs_render_is_small_enough_to_own(renders: Renders) -> None:
    made = tree(renders(framework="nextjs"))
    assert len(made) <= NEXTJS_FILES
    lines = {
        name: content.count(b"\n")
        for name, content in made.items()
        if name.endswith((".ts", ".tsx")) and not name.startswith(("dev/", "tests/"))
    }
    assert sum(count for name, count in lines.items() if name.startswith("src/")) <= NEXTJS_LINES
    assert {name: count for name, count in lines.items() if count > NEXTJS_MODULE} == {}


def test_two_renders_of_the_same_answers_are_the_same_tree(tmp_path: Path) -> None:
    assert tree(render(tmp_path / "a")) == tree(render(tmp_path / "b"))


def test_nothing_of_the_template_is_left_in_a_render(default_project: Path) -> None:
    for name, content in tree(default_project).items():
        assert not name.endswith(".jinja")
        assert "{{" not in name
        # ${{ is GitHub's
        assert b"{%" not in content, name
        assert b"{{ " not in content.replace(b"${{", b""), name


@pytest.mark.parametrize("framework", choices("framework"))
@pytest.mark.parametrize("paid", choices("paid_scripts"))
def test_every_file_that_the_words_name_is_there(
    framework: str, paid: str, renders: Renders
) -> None:
    project = renders(framework=framework, paid_scripts=paid)
    there = [f"/{path.relative_to(project)}" for path in project.rglob("*")]
    missing = set()
    for document in project.rglob("*.md"):
        for text in re.findall(r"`([^`\n]+)`", document.read_text("utf-8")):
            for path in re.findall(rf"(?<!\S){A_PATH}(?=[/:,]*(?:\s|$))", text):
                if path not in MADE and not any(one.endswith(f"/{path}") for one in there):
                    missing.add(f"{document.relative_to(project)}: {path}")
    assert missing == set()


def test_workflows_are_safe_and_valid(renders: Renders) -> None:
    """Those of the template and those of a project, which differ by language."""
    for folder in (ROOT, renders(), renders(framework="nextjs")):
        run(BIN / "zizmor", "--offline", "--pedantic", "--no-progress", ".github", cwd=folder)
        for workflow in (folder / ".github/workflows").glob("*.yml"):
            schema = ("--builtin-schema", "vendor.github-workflows")
            run(BIN / "check-jsonschema", *schema, workflow, cwd=folder)


def test_an_unsafe_workflow_is_seen(tmp_path: Path) -> None:
    workflow = tmp_path / ".github/workflows/ci.yml"
    workflow.parent.mkdir(parents=True)
    text = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    workflow.write_text(text.replace("08c6903cd8c0fde910a37f88322edcfb5dd907a8 # ", ""), "utf-8")
    done = run(BIN / "zizmor", "--offline", "--pedantic", ".github", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "unpinned-uses" in done.stdout + done.stderr


@pytest.mark.slow
def test_a_project_that_does_not_start_is_an_error(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project")
    (project / "src/app/main.py").write_text("raise SystemExit('planted')\n")
    with pytest.raises(AssertionError, match="planted"), running(project):
        pass


def test_a_skipped_test_fails_on_ci(tmp_path: Path) -> None:
    """The rule of conftest.py, in a run of its own."""
    planted = tmp_path / "test_planted.py"
    planted.write_text("import pytest\ndef test_x() -> None:\n    pytest.skip('no browser')\n")
    command = (BIN / "python", "-m", "pytest", "-q", "-p", "tests.conftest", "--rootdir", tmp_path)
    local = run(*command, planted, cwd=ROOT, env=clean_env(CI=""))
    assert "1 skipped" in local.stdout
    on_ci = run(*command, planted, cwd=ROOT, env=clean_env(CI="true"), check=False)
    assert on_ci.returncode == 1
    assert "skipped on CI" in on_ci.stdout
