"""Pins stay where they are, through the installed command: what asks Replicate, and how often."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.model_api import FIRST, NEW, OTHER, SECOND, ModelApi, record, reset, two_releases
from tests.rendering import (
    answers_of,
    clean_env,
    commit_all,
    copier_command,
    git,
    tree,
)

FLUX, ESRGAN, LLAMA = (
    "black-forest-labs/flux-schnell",
    "nightmareai/real-esrgan",
    "meta/meta-llama-3-8b-instruct",
)
ODD = "someone/odd-model"

# What YAML or a careless writer would spoil.
ODDITIES = {
    "prompt": {
        "type": "string",
        "default": "yes: {no} # 'a' \"b\" \\ \u2028\x85\x7f\ufeff 😀 é\t\n",
        "x-order": 0,
    },
    "small": {"type": "number", "default": 1e-05, "maximum": 1e20, "x-order": 1},
    "mode": {"enum": ["on", "null", "1e3", "0x1", "2026-01-31", "~", "<<"], "default": "on"},
    "seed": {"type": "integer", "maximum": 2**64},
}


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases of the template: from the second's catalogue, one model is gone."""

    def change(clone: Path) -> None:
        path = clone / "catalogue/models.json"
        lines = path.read_text("utf-8").splitlines(keepends=True)
        path.write_text("".join(line for line in lines if ESRGAN not in line), "utf-8")
        questions = clone / "copier.yml"
        text = questions.read_text("utf-8")
        questions.write_text(text.replace(f"    - {ESRGAN}\n", ""), "utf-8")
        with (clone / "template/{{ python }}/src/inference/registry.py").open("a") as file:
            file.write("\n# The second release.\n")

    return two_releases(tmp_path_factory.mktemp("pins"), change)


@pytest.fixture
def api(api: ModelApi) -> ModelApi:
    api.models[ODD] = record(ODD, ODDITIES)
    return api


def copier(
    api: ModelApi, where: Path, *arguments: str | Path, check: bool = True
) -> tuple[list[str], str]:
    """Run copier with a token; what the API was asked about, and what was said."""
    api.asked.clear()
    command, *rest = arguments
    options = ("--trust", "--defaults")
    done = copier_command(command, *options, *rest, cwd=where, env=api.env(), check=check)
    assert (done.returncode == 0) == check
    assert "Traceback" not in done.stderr
    return sorted(api.asked), done.stderr


def given(**data: Any) -> list[str]:
    return [
        f"--data={name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in data.items()
    ]


@pytest.fixture
def project(upstream: Path, api: ModelApi, tmp_path: Path) -> Path:
    """A committed project of the first release, with a model of each kind."""
    extra = given(replicate_extra_models=[ODD, NEW])
    asked, _ = copier(api, tmp_path, "copy", f"--vcs-ref={FIRST}", *extra, upstream, "project")
    assert asked == sorted([FLUX, ESRGAN, LLAMA, ODD, NEW])
    commit_all(tmp_path / "project", "Rendered")
    return tmp_path / "project"


def pins(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = answers_of(project)["replicate_pins"]
    return found


def modules(project: Path) -> set[str]:
    folder = project / "src/inference/models"
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def test_the_answers_hold_one_line_per_model_and_read_back_the_same(project: Path) -> None:
    text = (project / ".copier-answers.yml").read_text("utf-8")
    before, _, after = text.partition("replicate_pins: {\n")
    assert "replicate_pins_as_of: initial" in before
    *lines, end = after.splitlines()
    assert end == "}"
    assert [line.split('"')[1] for line in lines] == sorted(pins(project))
    # As JSON and as YAML the same.
    assert json.loads("{" + after) == pins(project)
    odd = {field["name"]: field for field in pins(project)[ODD]["input"]}
    for name, schema in ODDITIES.items():
        for key in ("default", "maximum", "enum"):
            assert odd[name].get(key) == schema.get(key)  # type: ignore[attr-defined]
    assert "😀 é" in after


def test_a_plain_update_asks_nothing(project: Path, api: ModelApi) -> None:
    before = pins(project)
    api.faults = {name: [reset] * 9 for name in before}
    for model in api.models.values():
        model["latest_version"]["id"] = "7" * 64
    asked, _ = copier(api, project, "update", f"--vcs-ref={SECOND}")
    assert asked == []
    assert pins(project) == before
    assert "# The second release." in (project / "src/inference/registry.py").read_text("utf-8")
    changed = git(project, "diff", "--name-only").split()
    assert sorted(changed) == [".copier-answers.yml", "src/inference/registry.py"]


def test_a_model_that_left_the_catalogue_stays(project: Path, api: ModelApi) -> None:
    copier(api, project, "update", f"--vcs-ref={SECOND}")
    assert ESRGAN in answers_of(project)["replicate_models"]
    assert "real_esrgan" in modules(project)
    commit_all(project, "Second")
    # Also when models are named on the command line.
    chosen = given(replicate_models=[ESRGAN, FLUX])
    asked, _ = copier(api, project, "update", "-r", ":current:", *chosen)
    assert asked == []
    assert {"real_esrgan", "flux_schnell"} <= modules(project)
    assert "meta_llama_3_8b_instruct" not in modules(project)


def test_adding_a_model_asks_about_that_one(project: Path, api: ModelApi) -> None:
    before = pins(project)
    more = given(replicate_extra_models=[ODD, NEW, OTHER])
    asked, said = copier(api, project, "update", f"--vcs-ref={SECOND}", *more)
    assert asked == [OTHER]
    assert "about 1 model …" in said
    assert {name: pin for name, pin in pins(project).items() if name != OTHER} == before
    assert "other_model" in modules(project)


def test_removing_a_model_asks_nothing(project: Path, api: ModelApi) -> None:
    before = pins(project)
    less = given(replicate_extra_models=[ODD])
    asked, _ = copier(api, project, "update", f"--vcs-ref={SECOND}", *less)
    assert asked == []
    del before[NEW]
    assert pins(project) == before
    assert "new_model" not in modules(project)


def test_holding_a_version_asks_about_that_model(project: Path, api: ModelApi) -> None:
    # The pin is of this version already.
    same = given(replicate_extra_models=[ODD, f"{NEW}:{'5' * 64}"])
    assert copier(api, project, "update", "-r", ":current:", *same)[0] == []
    commit_all(project, "Held")
    api.models[NEW]["latest_version"]["id"] = "6" * 64
    moved = given(replicate_extra_models=[ODD, f"{NEW}:{'6' * 64}"])
    asked, _ = copier(api, project, "update", "-r", ":current:", *moved)
    assert asked == [NEW, f"{NEW}/versions/{'6' * 64}"]
    assert pins(project)[NEW]["version"] == "6" * 64


def today(project: Path) -> str:
    day: str = pins(project)[NEW]["resolved"]
    return day


def test_refreshing_all_asks_about_all(project: Path, api: ModelApi) -> None:
    before = pins(project)
    api.models[NEW]["latest_version"]["id"] = "6" * 64
    stamp = f"{today(project)}T23:59:59Z"
    command = ("update", "-r", ":current:", *given(replicate_pins_as_of=stamp))
    asked, _ = copier(api, project, *command)
    assert asked == sorted(before)
    assert pins(project)[NEW]["version"] == "6" * 64
    assert "6" * 64 in (project / "src/inference/models/new_model.py").read_text("utf-8")
    assert {pin["resolved"] for pin in pins(project).values()} == {stamp}
    commit_all(project, "Refreshed")
    # From then on they stay again.
    assert copier(api, project, *command)[0] == []
    assert copier(api, project, "update", f"--vcs-ref={SECOND}")[0] == []


def test_refreshing_one_asks_about_that_one(project: Path, api: ModelApi) -> None:
    before = pins(project)
    for model in api.models.values():
        model["latest_version"]["id"] = "6" * 64
    wanted = given(replicate_pins_as_of=f"{today(project)}T23:59:59Z {NEW}")
    asked, _ = copier(api, project, "update", "-r", ":current:", *wanted)
    assert asked == [NEW]
    assert pins(project).pop(NEW)["version"] == "6" * 64
    assert {**pins(project), NEW: before[NEW]} == before
    # Only its module and the answers changed.
    changed = [name for name in git(project, "diff", "--name-only").split() if "models" in name]
    assert changed == ["src/inference/models/new_model.py"]


def test_a_refresh_needs_a_token(project: Path, api: ModelApi) -> None:
    wanted = given(replicate_pins_as_of=f"{today(project)}T23:59:59Z")
    options = ("--trust", "--defaults", "-r", ":current:", *wanted)
    done = copier_command("update", *options, cwd=project, env=clean_env(), check=False)
    assert done.returncode == 1
    assert "set REPLICATE_API_TOKEN" in done.stderr
    assert git(project, "status", "--porcelain") == ""


def test_recopy_keeps_the_pins(project: Path, api: ModelApi) -> None:
    before = tree(project)
    for model in api.models.values():
        model["latest_version"]["id"] = "7" * 64
    asked, _ = copier(api, project, "recopy", "--overwrite", f"--vcs-ref={FIRST}")
    assert asked == []
    assert tree(project) == before


def test_the_answers_give_the_same_project_again(
    project: Path, upstream: Path, api: ModelApi, tmp_path: Path
) -> None:
    for model in api.models.values():
        model["latest_version"]["id"] = "7" * 64
    answers = f"--data-file={project / '.copier-answers.yml'}"
    asked, _ = copier(api, tmp_path, "copy", answers, f"--vcs-ref={FIRST}", upstream, "again")
    assert asked == []
    assert tree(tmp_path / "again") == tree(project)


# What a hand did to the answers: one line, and nothing changes


def _add_model(answers: dict[str, Any]) -> None:
    answers["replicate_extra_models"].append(OTHER)


def _delete_pin(answers: dict[str, Any]) -> None:
    del answers["replicate_pins"][NEW]


def _delete_pins(answers: dict[str, Any]) -> None:
    del answers["replicate_pins"]


def _add_pin(answers: dict[str, Any]) -> None:
    answers["replicate_pins"][OTHER] = answers["replicate_pins"][NEW]


def _hold_version(answers: dict[str, Any]) -> None:
    answers["replicate_extra_models"] = [ODD, f"{NEW}:{'6' * 64}"]


def _demand(answers: dict[str, Any]) -> None:
    answers["replicate_pins_as_of"] = f"{answers['replicate_pins'][NEW]['resolved']}T01:00:00Z"


def _damage(answers: dict[str, Any]) -> None:
    answers["replicate_pins"][NEW]["kind"] = "offical"


def _empty(answers: dict[str, Any]) -> None:
    answers["replicate_pins"] = None


EDITS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (_add_model, f"{OTHER} has no pin"),
    (_delete_pin, f"{NEW} has no pin"),
    (_delete_pins, "the pins are missing"),
    (_add_pin, f"{OTHER} is pinned but not chosen"),
    (_hold_version, f"the pin of {NEW} is for another version"),
    (_demand, "older than asked for"),
    (_damage, f"the pin of {NEW} is damaged"),
    (_empty, "the pins are damaged"),
]


@pytest.mark.parametrize(("edit", "said"), EDITS, ids=[edit.__name__ for edit, _ in EDITS])
def test_answers_edited_by_hand_are_refused(
    edit: Callable[[dict[str, Any]], None], said: str, project: Path, api: ModelApi
) -> None:
    answers = answers_of(project)
    edit(answers)
    (project / ".copier-answers.yml").write_text(yaml.safe_dump(answers), "utf-8")
    commit_all(project, "Edited by hand")
    asked, errors = copier(api, project, "update", f"--vcs-ref={SECOND}", check=False)
    assert asked == []
    (line,) = [line for line in errors.splitlines() if "by hand" in line]
    assert said in line
    assert "git checkout .copier-answers.yml" in line
    assert git(project, "status", "--porcelain") == ""
    # The same answers given as data.
    path = project / ".copier-answers.yml"
    options = ("--vcs-ref", FIRST, "--data-file", path, answers["_src_path"], "../again")
    asked, errors = copier(api, project, "copy", *options, check=False)
    assert said in errors
    assert asked == []
    assert not (project / "../again").exists()
