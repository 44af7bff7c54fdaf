"""guard/check.py as a command: for people, as a hook, before a commit; and when it breaks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.claude import spellings
from tests.claude.languages import LANGUAGES, Language, language_of, rendered
from tests.node import NODE, npx
from tests.rendering import BIN, Renders, commit_all, git, project_env

PYTHON = LANGUAGES["python"]

Done = subprocess.CompletedProcess[str]


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    return LANGUAGES[request.param]


@pytest.fixture
def project(language: Language, renders: Renders, tmp_path: Path) -> Path:
    project = rendered(renders, tmp_path / "project", language)
    commit_all(project, "Rendered")
    return project


@pytest.fixture
def python_project(renders: Renders, tmp_path: Path) -> Path:
    project = rendered(renders, tmp_path / "project", PYTHON)
    commit_all(project, "Rendered")
    return project


def suffix(project: Path) -> str:
    return language_of(project).suffix


def bad(project: Path) -> str:
    return language_of(project).bad


def good(project: Path) -> str:
    return language_of(project).good


def checking(project: Path) -> list[str]:
    return [*language_of(project).start, str(project / f"guard/check.{suffix(project)}")]


def guard(
    project: Path, *arguments: str, given: str = "", folder: str = ".", **env: str
) -> subprocess.CompletedProcess[str]:
    command = [*checking(project), *arguments]
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
    (project / f"src/app/late.{suffix(project)}").write_text(bad(project))
    for folder in (".", "src", "src/app"):
        done = guard(project, folder=folder)
        assert done.returncode == 1
        assert done.stdout.startswith(f"src/app/late.{suffix(project)}:1: [gateway-only] ")
    assert guard(project, f"late.{suffix(project)}", folder="src/app").returncode == 1
    assert guard(project, f"guard/check.{suffix(project)}").returncode == 0


def test_git_does_not_hide_a_file_that_is_new_and_is_not_needed(project: Path) -> None:
    (project / ".gitignore").write_text("ignored/\n")
    for folder in ("ignored", ".hidden", "node_modules"):
        (project / folder).mkdir(exist_ok=True)
        (project / folder / f"x.{suffix(project)}").write_text(bad(project))
    assert guard(project).stdout.count("gateway-only") == 1  # .hidden
    shutil.rmtree(project / ".git")
    assert guard(project).stdout.count("gateway-only") == 2


@pytest.mark.parametrize("folder", [".", "src", "src/app"])
def test_the_hook_sees_the_file_as_it_would_be(project: Path, folder: str) -> None:
    path = project / f"src/app/new.{suffix(project)}"
    done = hook(project, "Write", folder, file_path=str(path), content=bad(project))
    assert done.returncode == 2
    assert f"src/app/new.{suffix(project)}:1: [gateway-only]" in done.stderr
    assert "The seven mistakes" in done.stderr
    assert (
        hook(project, "Write", folder, file_path=str(path), content=good(project)).returncode == 0
    )
    path.write_text("x = 1\ny = 2\nx = 1\n")
    edit = {"file_path": str(path), "old_string": "x = 1", "new_string": bad(project).strip()}
    assert hook(project, "Edit", folder, **edit).returncode == 2
    assert hook(project, "Edit", folder, replace_all=True, **edit).returncode == 2
    assert hook(project, "Edit", folder, **{**edit, "new_string": "z = 3"}).returncode == 0
    several = [{"old_string": "x = 1", "new_string": "import os"}, edit]
    assert hook(project, "MultiEdit", folder, file_path=str(path), edits=several).returncode == 2
    # a pattern that the edit only completes
    path.write_text(language_of(project).loop)
    old, new = language_of(project).late
    late = {"old_string": old, "new_string": new}
    assert hook(project, "Edit", folder, file_path=str(path), **late).returncode == 2


def test_the_hook_refuses_only_what_the_edit_adds(project: Path) -> None:
    path = project / f"src/app/old.{suffix(project)}"
    path.write_text(bad(project) + "x = 1\n")
    edit = {"file_path": str(path), "old_string": "x = 1", "new_string": "x = 2"}
    assert hook(project, "Edit", **edit).returncode == 0
    assert hook(project, "Write", file_path=str(path), content="\n" + bad(project)).returncode == 0
    assert (
        hook(project, "Write", file_path=str(path), content=bad(project) + bad(project)).returncode
        == 2
    )
    assert hook(project, "Edit", **{**edit, "new_string": bad(project).strip()}).returncode == 2


def test_an_edit_that_does_not_match_is_checked_all_the_same(project: Path) -> None:
    """The client may match a text with other quotes than the file's."""
    path = project / f"src/app/quotes.{suffix(project)}"
    path.write_text("x = \u201cy\u201d\n")
    edit = {"file_path": str(path), "old_string": 'x = "y"', "new_string": bad(project).strip()}
    assert hook(project, "Edit", **edit).returncode == 2


def test_notebooks(python_project: Path) -> None:
    project = python_project
    path = project / "explore.ipynb"
    cells = [
        {"cell_type": "code", "source": ["x = 1\n"]},
        {"cell_type": "markdown", "source": PYTHON.bad},
    ]
    path.write_text(json.dumps({"cells": cells}))
    given = {"notebook_path": str(path), "cell_id": "cell-0"}
    assert hook(project, "NotebookEdit", new_source=PYTHON.bad, **given).returncode == 2
    assert hook(project, "NotebookEdit", new_source=PYTHON.good, **given).returncode == 0
    markdown = {"cell_type": "markdown", "new_source": PYTHON.bad}
    assert hook(project, "NotebookEdit", **markdown, **given).returncode == 0
    assert guard(project).returncode == 0
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": PYTHON.bad}]}))
    assert guard(project).returncode == 1
    assert (
        hook(project, "NotebookEdit", new_source=PYTHON.bad, **given).returncode == 0
    )  # no new one
    whole = path.read_text()
    other = {"file_path": str(project / "second.ipynb"), "content": whole}
    assert hook(project, "Write", **other).returncode == 2
    done = hook(project, "Write", **{**other, "content": "{"})
    assert done.returncode == 2
    assert "the check itself failed" in done.stderr


def test_a_notebook_is_seen_as_it_would_be(python_project: Path) -> None:
    project = python_project
    path = project / "explore.ipynb"
    loop = [
        {"cell_type": "code", "id": "a", "source": "for pid in jobs:\n    sleep(1)\n"},
        {"cell_type": "markdown", "id": "b", "source": PYTHON.bad},
        {"cell_type": "code", "source": "    p = replicas(1)\n"},
    ]
    path.write_text(json.dumps({"cells": loop}))
    given = {"notebook_path": str(path), "new_source": "    p.reload()"}
    for place in ({"cell_id": "cell-2"}, {"cell_id": "b", "cell_type": "code"}):
        assert hook(project, "NotebookEdit", **given, **place).returncode == 2
    after = {**given, "edit_mode": "insert", "cell_type": "code"}
    assert hook(project, "NotebookEdit", **after, cell_id="a").returncode == 2
    assert hook(project, "NotebookEdit", **after).returncode == 0  # at the top: no loop around it
    delete = {"notebook_path": str(path), "edit_mode": "delete", "new_source": ""}
    assert hook(project, "NotebookEdit", **delete, cell_id="a").returncode == 0
    gone = {**given, "new_source": PYTHON.bad, "cell_id": "gone"}
    assert hook(project, "NotebookEdit", **gone).returncode == 2
    shell = {
        **given,
        "new_source": "%pip install x\n!curl https://api.replicate.com/v1/predictions",
    }
    assert hook(project, "NotebookEdit", **shell, cell_id="a").returncode == 2
    new = {
        "notebook_path": str(project / "new.ipynb"),
        "new_source": PYTHON.bad,
        "cell_type": "code",
    }
    assert hook(project, "NotebookEdit", **new).returncode == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env.staging", "IMAGE_SIZE=512\nIMAGE_REF=stability-ai/sdxl\n"),
        ("config/models.yaml", "portrait:\n  model: acme/portrait-maker\n"),
        ("config/models.json", '{"list": [{"size": 1, "model": "acme/portrait-maker"}]}'),
        ("config/models.toml", f'version = "{"7762fd07" * 8}"\n'),
        ("config/pinned.ini", f"portrait = acme/portrait:{'7762fd07' * 8}\n"),
        ("Makefile", "go:\n\tcurl -d @x https://api.replicate.com/v1/predictions\n"),
        ("scripts/go.sh", 'curl "https://api.replicate.com/v1/models/a/b/predictions"\n'),
        ("page.html", '<option value="black-forest-labs/flux-dev">Flux</option>\n'),
    ],
)
def test_models_and_addresses_outside_of_code(project: Path, name: str, text: str) -> None:
    path = project / name
    done = hook(project, "Write", file_path=str(path), content=text)
    assert done.returncode == 2
    rule = "gateway-only" if "curl" in text else "unpinned-model"
    assert f"{name}:{len(text.splitlines())}: [{rule}]" in done.stderr
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    ignored = name.startswith(".env")
    assert guard(project).returncode == (0 if ignored else 1)


def test_ordinary_configuration_is_left_alone(project: Path) -> None:
    text = """
    REPLICATE_BASE_URL=https://api.replicate.com/v1
    MODEL_SETTINGS={"flux-schnell": {"mode": "webhook", "deployment": "acme/production"}}
    image: library/postgres:17
    uses: actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8
    "version": "1.2.0", "model": "flux-schnell", "paths": ["src/app", "tests/unit"]
    sha256: 7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc
    """
    for name in (".env.example", "compose.yaml", "data.json", "deploy.sh", "Dockerfile"):
        done = hook(project, "Write", file_path=str(project / name), content=text)
        assert done.returncode == 0, done.stderr


def test_what_is_not_code_of_the_project_is_not_checked(project: Path, tmp_path: Path) -> None:
    for path in (
        project / "README.md",
        tmp_path / f"elsewhere.{suffix(project)}",
        project / f"guard/own.{suffix(project)}",
    ):
        assert hook(project, "Write", file_path=str(path), content=bad(project)).returncode == 0
    around = project / f"docs/../src/app/x.{suffix(project)}"
    assert hook(project, "Write", file_path=str(around), content=bad(project)).returncode == 2


def test_a_comment_switches_nothing_off(project: Path) -> None:
    path = str(project / f"src/app/x.{suffix(project)}")
    for comment in ("ast-grep-ignore", "ast-grep-ignore: gateway-only", "noqa: TID251"):
        told = f"{language_of(project).comment} {comment}"
        code = f"{told}\n{bad(project).strip()}  {told}\n"
        assert hook(project, "Write", file_path=path, content=code).returncode == 2


def test_after_bash_the_changed_files_are_checked(project: Path) -> None:
    assert hook(project, "Bash", command="true").returncode == 0
    (project / f"src/app/heredoc.{suffix(project)}").write_text(bad(project))
    done = hook(project, "Bash", "src", command=f"cat > app/heredoc.{suffix(project)} <<EOF")
    assert done.returncode == 2
    assert f"src/app/heredoc.{suffix(project)}:1" in done.stderr
    git(project, "add", "-A")
    assert hook(project, "Bash", command="true").returncode == 2
    commit_all(project, "A mistake that is there already is CI's to tell")
    assert hook(project, "Bash", command="true").returncode == 0
    assert guard(project).returncode == 1


@pytest.mark.parametrize(
    "broken",
    [
        *("no JSON", "no tool", "no path", "odd tool input", "rules gone", "rules broken"),
        *("rules empty", "too large", "half a letter"),
    ],
)
def test_its_own_failures_refuse(project: Path, broken: str) -> None:
    path = str(project / f"src/app/x.{suffix(project)}")
    call: Any = {"tool_name": "Write", "tool_input": {"file_path": path, "content": good(project)}}
    if broken == "no tool":
        call = {}
    elif broken == "no path":
        call["tool_input"] = {"content": good(project)}
    elif broken == "odd tool input":
        call["tool_input"] = {"file_path": path}
    elif broken == "rules gone":
        (project / "guard/rules.yml").unlink()
    elif broken == "rules broken":
        (project / "guard/rules.yml").write_text("rule: {kind: nothing")
    elif broken == "rules empty":
        (project / "guard/rules.yml").write_text("")
    elif broken == "too large":  # ast-grep itself leaves it out and says nothing
        call["tool_input"]["content"] = good(project) * 300_000
    elif broken == "half a letter":
        call["tool_input"]["content"] = "x = '\ud800'"
    given = "{" if broken == "no JSON" else json.dumps(call)
    done = guard(project, "--hook", given=given)
    assert done.returncode == 2
    assert "the check itself failed" in done.stderr


def test_an_unreadable_file_refuses(project: Path) -> None:
    path = project / f"src/app/locked.{suffix(project)}"
    path.write_text(good(project))
    path.chmod(0)
    command = checking(project)
    if os.geteuid() == 0:  # root reads everything, unless it gives that up
        rights = "-dac_override,-dac_read_search"
        command = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *command]
    done = subprocess.run(command, env=project_env(project), capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert f"locked.{suffix(project)}" in done.stderr


def test_odd_bytes_are_read_all_the_same(project: Path) -> None:
    path = project / f"src/app/odd.{suffix(project)}"
    path.write_bytes(
        language_of(project).comment.encode() + b" caf\xe9 \x00\n" + bad(project).encode()
    )
    assert f"odd.{suffix(project)}:2: [gateway-only]" in guard(project).stdout
    edit = {"file_path": str(path), "old_string": "caf", "new_string": "coffee"}
    assert hook(project, "Edit", **edit).returncode == 0
    path.write_bytes(bad(project).encode("utf-8-sig"))
    assert "gateway-only" in guard(project).stdout
    path.write_bytes(b"x = 1\r\n" + bad(project).encode())
    assert f"odd.{suffix(project)}:2: [gateway-only]" in guard(project).stdout


@pytest.mark.parametrize("around", ["nothing", "a repository", "a repository that ignores it"])
@pytest.mark.parametrize("folder", [".", "src", "src/app"])
def test_the_hook_as_the_settings_start_it(
    language: Language, renders: Renders, tmp_path: Path, around: str, folder: str
) -> None:
    """In a path with spaces, inside a larger repository, started below the project."""
    outer = tmp_path / "all our apps"
    project = rendered(renders, outer / "the images", language)
    if around != "nothing":
        (outer / "README.md").write_text("Ours\n")
        ignored = "/the images/\n" if "ignores" in around else ""
        (outer / ".gitignore").write_text(ignored)
        commit_all(outer, "All of them")
    settings = json.loads((project / ".claude/settings.json").read_text("utf-8"))["hooks"]
    edit, spend = (entry["hooks"][0]["command"] for entry in settings["PreToolUse"])
    after = settings["PostToolUse"][0]["hooks"][0]["command"]

    def started(hooked: str, tool: str, **given: str) -> Done:
        call = json.dumps({"tool_name": tool, "tool_input": given})
        env = {**project_env(project), "CLAUDE_PROJECT_DIR": str(project / folder)}
        return subprocess.run(
            ["sh", "-c", hooked],
            cwd=project / folder,
            input=call,
            env=env,
            capture_output=True,
            encoding="utf-8",
        )

    path = str(project / f"src/app/new file.{suffix(project)}")
    assert started(edit, "Write", file_path=path, content=good(project)).returncode == 0
    assert started(edit, "Write", file_path=path, content=bad(project)).returncode == 2
    assert "ask" in started(spend, "Bash", command=language.commands.STARTS[0]).stdout
    assert started(spend, "Bash", command="ls").stdout == ""
    assert started(after, "Bash", command="true").returncode == 0
    Path(path).write_text(bad(project))
    done = started(after, "Bash", command="true")
    assert done.returncode == 2
    assert f"src/app/new file.{suffix(project)}:1: [gateway-only]" in done.stderr
    shutil.rmtree(project / "guard")
    for hooked in (edit, spend, after):
        assert started(hooked, "Bash", command="true").returncode == 2


def test_without_its_binary_it_refuses(python_project: Path) -> None:
    project = python_project
    # a copy of the interpreter's link, beside which there is no ast-grep
    python = project.parent / "bare-python"
    python.symlink_to(os.path.realpath(sys.executable))
    call = {"tool_name": "Write", "tool_input": {"file_path": str(project / "a.py"), "content": ""}}
    done = subprocess.run(
        [str(python), "-IS", str(project / "guard/check.py"), "--hook"],
        input=json.dumps(call),
        env={"PATH": str(project.parent)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 2
    assert "uv sync" in done.stderr


def committing(project: Path) -> dict[str, str]:
    """An environment whose `uv run` starts our interpreter."""
    tools = project.parent / "tools"
    tools.mkdir()
    uv = tools / "uv"
    uv.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" "$@"\n')
    uv.chmod(0o755)
    env = project_env(project, PRE_COMMIT_HOME=str(project.parent / "pre-commit"))
    return env | {"PATH": os.pathsep.join([str(tools), env["PATH"]])}


def test_before_a_commit(python_project: Path) -> None:
    """pre-commit runs the rendered hook; `uv run` is what an installed project has."""
    project = python_project
    config = yaml.safe_load((project / ".pre-commit-config.yaml").read_text("utf-8"))
    entries = {h["id"]: h["entry"] for repo in config["repos"] for h in repo["hooks"]}
    assert entries["guard"] == "uv run guard/check.py"
    env = committing(project)

    def committed() -> Done:
        git(project, "add", "-A")
        command = [str(BIN / "pre-commit"), "run", "guard"]
        return subprocess.run(command, cwd=project, env=env, capture_output=True, encoding="utf-8")

    (project / "src/app/fine.py").write_text(PYTHON.good)
    done = committed()
    assert done.returncode == 0, done.stdout + done.stderr
    (project / "src/app/bad.py").write_text(PYTHON.bad)
    done = committed()
    assert done.returncode == 1
    assert "gateway-only" in done.stdout


def test_a_commit_check_does_not_stand_below_a_repositorys_root(
    project: Path, tmp_path: Path
) -> None:
    """As the README says; the same files in a repository of their own do refuse (above)."""
    shutil.rmtree(project / ".git")
    commit_all(tmp_path, "A larger repository")
    git(tmp_path, "config", "user.name", "Someone")
    git(tmp_path, "config", "user.email", "someone@example.com")
    env = committing(project)

    def committed(code: str) -> Done:
        (project / f"src/app/x.{suffix(project)}").write_text(code)
        git(project, "add", "src")
        command = ["git", "commit", "-qm", "x"]
        return subprocess.run(command, cwd=project, env=env, capture_output=True, encoding="utf-8")

    readme = (project / "README.md").read_text("utf-8")
    if suffix(project) == "py":
        command = [str(BIN / "pre-commit"), "install"]
        subprocess.run(command, cwd=project, env=env, check=True, capture_output=True)
        done = committed(good(project))
        assert done.returncode == 1
        said = done.stdout + done.stderr
        assert "the seven mistakes" in said
        assert f"can't open file '{tmp_path / 'guard/check.py'}'" in said
        assert "starts this folder's commands at the root, where they fail" in readme
    else:
        hooks = json.loads((project / "package.json").read_text())["scripts"]["hooks"]
        subprocess.run(hooks.split(), cwd=project, env=env, check=True)
        assert committed(bad(project)).returncode == 0
        assert "looks for `.githooks` at the root and goes on without" in readme


def read_by_github(repository: Path) -> list[str]:
    """The workflows of a repository: those that are committed below ``.github`` at its root."""
    return git(repository, "ls-files", ":(top,glob).github/workflows/*.yml").splitlines()


def test_github_reads_no_workflow_below_a_repositorys_root(project: Path, tmp_path: Path) -> None:
    """So the README names what a workflow at the root runs in the project's folder."""
    assert ".github/workflows/ci.yml" in read_by_github(project)
    shutil.rmtree(project / ".git")
    commit_all(tmp_path, "A larger repository")
    assert read_by_github(tmp_path) == []
    said = re.search(
        r"GitHub reads no workflow of this folder \| .* that run `([^`]+)` in this folder \|",
        (project / "README.md").read_text("utf-8"),
    )
    assert said is not None
    env = committing(project)
    env["PATH"] = os.pathsep.join([str(NODE.parent), env["PATH"]])

    def at_the_root(code: str) -> int:
        (project / f"src/app/x.{suffix(project)}").write_text(code)
        return subprocess.run(said[1].split(), cwd=project, env=env, capture_output=True).returncode

    assert at_the_root(good(project)) == 0
    assert at_the_root(bad(project)) == 1


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


@pytest.mark.parametrize(
    "code",
    [
        "import replicate\n\nreplicate.run\n",
        "import replicate as r\n\nr.run\n",
        "from replicate import AsyncReplicate\n\nAsyncReplicate\n",
        "from replicate.types import Prediction\n\nPrediction\n",
        "def f() -> object:\n    import replicate\n\n    return replicate\n",
    ],
)
def test_the_linter_stops_the_import_that_the_first_three_need(
    python_project: Path, code: str
) -> None:
    project = python_project
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "."]
    assert subprocess.run(command, cwd=project).returncode == 0
    (project / "src/app/extra.py").write_text(code)
    done = subprocess.run(command, cwd=project, capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert "Only inference/gateway" in done.stdout


def test_typescripts_linter_stops_it_too(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project", framework="nextjs")
    codes = (
        'import Replicate from "replicate";\n\nexport const made = new Replicate();\n',
        'export { default } from "replicate";\n',
        'import type { Prediction } from "replicate";\n\nexport type Theirs = Prediction;\n',
        'export const later = () => import("replicate");\n',
        'export const old = require("replicate");\n',
    )
    for number, code in enumerate(codes):
        (project / f"src/app/extra{number}.ts").write_text(code)
    with pytest.raises(AssertionError) as stopped:
        npx(project, "biome", "lint", "--only=style/noRestrictedImports")
    told = str(stopped.value)
    assert [n for n in range(len(codes)) if f"src/app/extra{n}.ts:" not in told] == []
    assert "Only src/lib/replicate.ts talks to Replicate" in told
    assert "Found 5 errors" in told


def test_typescripts_types_stop_what_they_are_said_to_stop(
    renders: Renders, tmp_path: Path
) -> None:
    project = renders.copy(tmp_path / "project", framework="nextjs")
    (project / "src/lib/probe.ts").write_text(
        'import type { Prediction, StoredUrl } from "./prediction.ts";\n'
        "export const show = (prediction: Prediction) => prediction.output;\n"
        "export const link = (url: StoredUrl): string => url;\n"
        'link("https://replicate.delivery/x.png");\n'
        "export const shown = (prediction: Prediction) =>\n"
        '  prediction.phase === "succeeded" ? prediction.output : null;\n'
    )
    settings = {"extends": "./tsconfig.json", "include": ["src/lib/probe.ts"]}
    (project / "tsconfig.probe.json").write_text(json.dumps(settings))
    with pytest.raises(AssertionError) as stopped:
        npx(project, "tsc", "-p", "tsconfig.probe.json")
    told = [line for line in str(stopped.value).splitlines() if "error TS" in line]
    assert len(told) == 2, told
    assert "'output' does not exist" in told[0]
    assert "not assignable to parameter of type 'StoredUrl'" in told[1]


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
