"""guard/check.py as a command: for people, as a hook, before a commit; and when it breaks."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.claude import spellings
from tests.rendering import BIN, Renders, commit_all, git, project_env

BAD = "import replicate\n"
GOOD = "import json\n"
HOOK_SECONDS = 0.25

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def project(renders: Renders, tmp_path: Path) -> Path:
    copied = renders.copy(tmp_path / "project")
    commit_all(copied, "Rendered")
    return copied


def guard(
    project: Path, *arguments: str, given: str = "", folder: str = ".", **env: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(project / "guard/check.py"), *arguments]
    return subprocess.run(
        command,
        cwd=project / folder,
        input=given,
        capture_output=True,
        encoding="utf-8",
        env={**project_env(project), **env},
        timeout=60,
    )


def hook(project: Path, tool: str, folder: str = ".", **given: Any) -> Done:
    call = {"hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": given}
    return guard(project, "--hook", given=json.dumps(call), folder=folder)


def test_one_command_for_people(project: Path) -> None:
    assert guard(project).returncode == 0
    (project / "src/app/late.py").write_text(BAD)
    for folder in (".", "src", "src/inference"):
        done = guard(project, folder=folder)
        assert done.returncode == 1
        assert done.stdout.startswith("src/app/late.py:1: [gateway-only] ")
    assert guard(project, "late.py", folder="src/app").returncode == 1
    assert guard(project, "src/app/main.py").returncode == 0


def test_git_does_not_hide_a_file_that_is_new_and_is_not_needed(project: Path) -> None:
    (project / ".gitignore").write_text("ignored/\n")
    for folder in ("ignored", ".hidden", "node_modules"):
        (project / folder).mkdir()
        (project / folder / "x.py").write_text(BAD)
    assert guard(project).stdout.count("gateway-only") == 1  # .hidden
    shutil.rmtree(project / ".git")
    assert guard(project).stdout.count("gateway-only") == 2


@pytest.mark.parametrize("folder", [".", "src", "src/inference"])
def test_the_hook_sees_the_file_as_it_would_be(project: Path, folder: str) -> None:
    path = project / "src/app/new.py"
    done = hook(project, "Write", folder, file_path=str(path), content=BAD)
    assert done.returncode == 2
    assert "src/app/new.py:1: [gateway-only]" in done.stderr
    assert "The seven mistakes" in done.stderr
    assert hook(project, "Write", folder, file_path=str(path), content=GOOD).returncode == 0
    path.write_text("x = 1\ny = 2\nx = 1\n")
    edit = {"file_path": str(path), "old_string": "x = 1", "new_string": "import replicate"}
    assert hook(project, "Edit", folder, **edit).returncode == 2
    assert hook(project, "Edit", folder, replace_all=True, **edit).returncode == 2
    assert hook(project, "Edit", folder, **{**edit, "new_string": "z = 3"}).returncode == 0
    several = [{"old_string": "x = 1", "new_string": "import os"}, edit]
    assert hook(project, "MultiEdit", folder, file_path=str(path), edits=several).returncode == 2
    # a pattern that the edit only completes
    path.write_text("for pid in jobs:\n    pass\n")
    late = {"old_string": "    pass", "new_string": "    sleep(1)\n    p.reload()"}
    assert hook(project, "Edit", folder, file_path=str(path), **late).returncode == 2


def test_the_hook_refuses_only_what_the_edit_adds(project: Path) -> None:
    path = project / "src/app/old.py"
    path.write_text(BAD + "x = 1\n")
    edit = {"file_path": str(path), "old_string": "x = 1", "new_string": "x = 2"}
    assert hook(project, "Edit", **edit).returncode == 0
    assert hook(project, "Write", file_path=str(path), content="\n" + BAD).returncode == 0
    assert hook(project, "Write", file_path=str(path), content=BAD + BAD).returncode == 2
    assert hook(project, "Edit", **{**edit, "new_string": BAD.strip()}).returncode == 2


def test_an_edit_that_does_not_match_is_checked_all_the_same(project: Path) -> None:
    """The client may match a text with other quotes than the file's."""
    path = project / "src/app/quotes.py"
    path.write_text("x = \u201cy\u201d\n")
    edit = {"file_path": str(path), "old_string": 'x = "y"', "new_string": "import replicate"}
    assert hook(project, "Edit", **edit).returncode == 2


def test_notebooks(project: Path) -> None:
    path = project / "explore.ipynb"
    cells = [{"cell_type": "code", "source": ["x = 1\n"]}, {"cell_type": "markdown", "source": BAD}]
    path.write_text(json.dumps({"cells": cells}))
    given = {"notebook_path": str(path), "cell_id": "0"}
    assert hook(project, "NotebookEdit", new_source=BAD, **given).returncode == 2
    assert hook(project, "NotebookEdit", new_source=GOOD, **given).returncode == 0
    markdown = {"cell_type": "markdown", "new_source": BAD}
    assert hook(project, "NotebookEdit", **markdown, **given).returncode == 0
    assert guard(project).returncode == 0
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": BAD}]}))
    assert guard(project).returncode == 1
    assert hook(project, "NotebookEdit", new_source=BAD, **given).returncode == 0  # no new one
    whole = path.read_text()
    other = {"file_path": str(project / "second.ipynb"), "content": whole}
    assert hook(project, "Write", **other).returncode == 2


def test_what_is_not_code_of_the_project_is_not_checked(project: Path, tmp_path: Path) -> None:
    for path in (project / "README.md", tmp_path / "elsewhere.py", project / "guard/own.py"):
        assert hook(project, "Write", file_path=str(path), content=BAD).returncode == 0
    around = project / "docs/../src/app/x.py"
    assert hook(project, "Write", file_path=str(around), content=BAD).returncode == 2


def test_a_comment_switches_nothing_off(project: Path) -> None:
    path = str(project / "src/app/x.py")
    for comment in ("# ast-grep-ignore", "# ast-grep-ignore: gateway-only", "# noqa: TID251"):
        code = f"{comment}\nimport replicate  {comment}\n"
        assert hook(project, "Write", file_path=path, content=code).returncode == 2


def test_after_bash_the_changed_files_are_checked(project: Path) -> None:
    assert hook(project, "Bash", command="true").returncode == 0
    (project / "src/app/heredoc.py").write_text(BAD)
    done = hook(project, "Bash", "src", command="cat > app/heredoc.py <<EOF")
    assert done.returncode == 2
    assert "src/app/heredoc.py:1" in done.stderr
    git(project, "add", "-A")
    assert hook(project, "Bash", command="true").returncode == 2
    commit_all(project, "A mistake that is there already is CI's to tell")
    assert hook(project, "Bash", command="true").returncode == 0
    assert guard(project).returncode == 1


@pytest.mark.parametrize(
    "broken",
    ["no JSON", "no tool", "no path", "odd tool input", "rules gone", "rules broken", "notebook"],
)
def test_its_own_failures_refuse(project: Path, broken: str) -> None:
    path = str(project / "src/app/x.py")
    call: Any = {"tool_name": "Write", "tool_input": {"file_path": path, "content": GOOD}}
    if broken == "no tool":
        call = {}
    elif broken == "no path":
        call["tool_input"] = {"content": GOOD}
    elif broken == "odd tool input":
        call["tool_input"] = {"file_path": path}
    elif broken == "rules gone":
        (project / "guard/rules.yml").unlink()
    elif broken == "rules broken":
        (project / "guard/rules.yml").write_text("rule: {kind: nothing")
    elif broken == "notebook":
        call["tool_input"] = {"file_path": f"{path}.ipynb", "content": "{"}
    given = "{" if broken == "no JSON" else json.dumps(call)
    done = guard(project, "--hook", given=given)
    assert done.returncode == 2
    assert "the check itself failed" in done.stderr


def test_without_its_binary_it_refuses(project: Path) -> None:
    # a copy of the interpreter's link, beside which there is no ast-grep
    python = project.parent / "bare-python"
    python.symlink_to(os.path.realpath(sys.executable))
    call = {"tool_name": "Write", "tool_input": {"file_path": str(project / "a.py"), "content": ""}}
    done = subprocess.run(
        [str(python), "-I", str(project / "guard/check.py"), "--hook"],
        input=json.dumps(call),
        env={"PATH": str(project.parent)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 2
    assert "uv sync" in done.stderr


def test_a_hook_takes_a_quarter_of_a_second(project: Path) -> None:
    path = project / "src/app/main.py"
    text = path.read_text("utf-8")
    given = {"file_path": str(path), "old_string": text[:40], "new_string": text[:40] + "\n"}
    taken = []
    for _ in range(15):
        start = time.perf_counter()
        assert hook(project, "Edit", **given).returncode == 0
        taken.append(time.perf_counter() - start)
    assert statistics.median(taken) <= HOOK_SECONDS, taken


def test_before_a_commit(project: Path) -> None:
    """pre-commit runs the rendered hook; `uv run` is what an installed project has."""
    config = yaml.safe_load((project / ".pre-commit-config.yaml").read_text("utf-8"))
    entries = {h["id"]: h["entry"] for repo in config["repos"] for h in repo["hooks"]}
    assert entries["guard"] == "uv run guard/check.py"
    tools = project.parent / "tools"
    tools.mkdir()
    uv = tools / "uv"
    uv.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" "$@"\n')
    uv.chmod(0o755)
    env = project_env(project)
    env["PATH"] = os.pathsep.join([str(tools), env["PATH"]])
    env["PRE_COMMIT_HOME"] = str(project.parent / "pre-commit")

    def committed() -> Done:
        git(project, "add", "-A")
        command = [str(BIN / "pre-commit"), "run", "guard"]
        return subprocess.run(command, cwd=project, env=env, capture_output=True, encoding="utf-8")

    (project / "src/app/fine.py").write_text(GOOD)
    done = committed()
    assert done.returncode == 0, done.stdout + done.stderr
    (project / "src/app/bad.py").write_text(BAD)
    done = committed()
    assert done.returncode == 1
    assert "gateway-only" in done.stdout


def test_ci_runs_lint_types_tests_and_guard(default_project: Path) -> None:
    text = (default_project / ".github/workflows/ci.yml").read_text("utf-8")
    steps = yaml.safe_load(text)["jobs"]["check"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    for wanted in ("ruff check", "ruff format --check", "mypy", "guard/check.py", "pytest"):
        assert f"uv run {wanted}" in commands
    for step in steps:
        assert "uses" not in step or len(step["uses"].rpartition("@")[2]) == 40


def test_zizmor_finds_nothing_in_the_rendered_workflow(default_project: Path) -> None:
    command = [
        str(BIN / "zizmor"),
        "--offline",
        "--no-progress",
        "--persona",
        "pedantic",
        ".github",
    ]
    done = subprocess.run(command, cwd=default_project, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout


def test_types_stop_what_they_are_said_to_stop(
    default_project: Path, tmp_path: Path, renders: Callable[..., Path]
) -> None:
    """Mistakes 4 and 5: only a succeeded prediction has an output; a stored URL is no string."""
    assert "only a succeeded prediction" in str(spellings.mistake("unchecked-output").net)
    source = tmp_path / "probe.py"
    probe = (
        "from inference.prediction import Prediction, StoredUrl, Succeeded\n\n\n"
        "def show(prediction: Prediction) -> object:\n{body}\n\n\n"
        "def link(url: StoredUrl) -> str:\n    return url\n"
    )
    cases = {
        "    return prediction.output": 'has no attribute "output"',
        '    return link("https://replicate.delivery/x.png")': "incompatible type",
        "    return prediction.output if isinstance(prediction, Succeeded) else None": "",
    }
    for body, complaint in cases.items():
        source.write_text(probe.format(body=body))
        env = {**project_env(default_project), "MYPYPATH": str(default_project / "src")}
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(source)]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", timeout=300
        )
        assert complaint in done.stdout if complaint else done.returncode == 0, done.stdout
