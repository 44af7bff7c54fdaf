"""`scripts/models.py` of a rendered project: what it says of a change, and that only that moves."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from run import pip_indexes
from tests.model_api import NEW, OTHER, TOKEN, ModelApi, publish, record, serving
from tests.rendering import (
    BIN,
    ROOT,
    answers_of,
    commit_all,
    copier_command,
    git,
    run,
    snapshot,
    tree,
)

FLUX, ESRGAN, LLAMA = (
    "black-forest-labs/flux-schnell",
    "nightmareai/real-esrgan",
    "meta/meta-llama-3-8b-instruct",
)
SCRIPT = ROOT / "template/scripts/models.py"

spec = importlib.util.spec_from_file_location("tested_models", SCRIPT)
assert spec is not None
assert spec.loader is not None
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)


# What breaks who calls a model


def field(**other: Any) -> dict[str, Any]:
    return {"name": "size", "type": "integer", **other}


def pin(*inputs: dict[str, Any], **other: Any) -> dict[str, Any]:
    given = {"kind": "community", "version": "5" * 64, "output": "file", "resolved": "2026-01-31"}
    return {**given, "input": list(inputs), **other}


@pytest.mark.parametrize(
    ("old", "new", "breaks", "said"),
    [
        # inputs that come and go
        (pin(field()), pin(), True, "size: removed"),
        (
            pin(field(default=1)),
            pin(field(default=1, name="width")),
            True,
            "size: renamed to width",
        ),
        (pin(), pin(field(required=True)), True, "size: new, required"),
        (pin(), pin(field(default=1)), False, "size: new, optional"),
        (pin(field()), pin(field(required=True)), True, "size: now required"),
        (pin(field(required=True)), pin(field()), False, "size: now optional"),
        # bounds
        (pin(field()), pin(field(minimum=0)), True, "size: minimum none -> 0"),
        (pin(field(minimum=0)), pin(field(minimum=1)), True, "size: minimum 0 -> 1"),
        (pin(field(minimum=1)), pin(field(minimum=0)), False, "size: minimum 1 -> 0"),
        (pin(field(minimum=1)), pin(field()), False, "size: minimum 1 -> none"),
        (pin(field()), pin(field(maximum=0)), True, "size: maximum none -> 0"),
        (pin(field(maximum=9)), pin(field(maximum=8.5)), True, "size: maximum 9 -> 8.5"),
        (pin(field(maximum=8)), pin(field(maximum=9)), False, "size: maximum 8 -> 9"),
        (pin(field(maximum=8)), pin(field()), False, "size: maximum 8 -> none"),
        # choices
        (pin(field()), pin(field(enum=[1, 2])), True, "size: now one of [1, 2]"),
        (pin(field(enum=[1, 2])), pin(field()), False, "size: no longer bound to its choices"),
        (pin(field(enum=[1, 2])), pin(field(enum=[2])), True, "size: without [1]"),
        (pin(field(enum=[1])), pin(field(enum=[1, 2])), False, "size: also [2]"),
        # types, defaults, outputs
        (pin(field()), pin(field(type="string")), True, 'size: type "integer" -> "string"'),
        (pin(field()), pin(field(type="number")), False, 'size: type "integer" -> "number"'),
        (
            pin(field(type="array", items="file")),
            pin(field(type="array", items="string")),
            True,
            'size: items "file" -> "string"',
        ),
        (pin(field(default=1)), pin(field(default=2)), False, "size: default 1 -> 2"),
        (pin(field(default=1)), pin(field()), False, "size: default 1 -> none"),
        (pin(output="file"), pin(output="files"), True, "output: file -> files"),
        (pin(), pin(kind="official", version=None), False, "kind: community -> official"),
    ],
)
def test_a_change_is_named_and_judged(
    old: dict[str, Any], new: dict[str, Any], breaks: bool, said: str
) -> None:
    assert models.differences(old, new) == [(breaks, said)]
    assert models.compare({"a/b": old}, {"a/b": new})[0]["breaks"] is breaks
    assert models.compare({"a/b": old}, {"a/b": old}) == []


def test_several_changes_of_an_input_are_told_apart() -> None:
    old = pin(field(enum=[1, 2], default=1), {"name": "seed", "type": "integer"})
    new = pin(field(enum=[2, 3], default=2), {"name": "prompt", "type": "string"})
    assert models.differences(old, new) == [
        (True, "size: without [1]"),
        (False, "size: also [3]"),
        (False, "size: default 1 -> 2"),
        (True, "seed: removed"),
        (False, "prompt: new, optional"),
    ]


def test_a_rename_is_used_once() -> None:
    old = pin(field(name="a"), field(name="b"))
    assert models.differences(old, pin(field(name="c"))) == [
        (True, "a: renamed to c"),
        (True, "b: removed"),
    ]


# The script at work


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Copier, and without uv."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "copier").symlink_to(BIN / "copier")
    return folder


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed project with an invented model, beside the template on this disk it came from."""
    folder = tmp_path_factory.mktemp("models")
    template = snapshot(folder / "template")
    with serving() as server:
        server.models[NEW] = record(NEW)
        options = ("--trust", "--defaults", "--vcs-ref=HEAD")
        more = f"--data=replicate_extra_models=[{NEW}]"
        command = ("copy", *options, more, template, "project")
        copier_command(*command, cwd=folder, env=server.env())
    commit_all(folder / "project", "Rendered")
    return folder / "project"


@pytest.fixture
def project(rendered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rendered, tmp_path / "project", symlinks=True))


def script(
    project: Path, api: ModelApi, programs: Path | None, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the script from another directory with a token in the environment."""
    environment = {**api.env(), **pip_indexes()}
    if programs is not None:
        environment["PATH"] = os.pathsep.join([str(programs), "/usr/bin", "/bin"])
    environment |= env
    api.asked.clear()
    path = project / "scripts/models.py"
    done = run(sys.executable, path, *arguments, cwd=project.parent, env=environment, check=False)
    assert "Traceback" not in done.stderr
    return done


def pin_lines(project: Path) -> dict[str, str]:
    """The line of each pin in the answers, as it stands there."""
    text = (project / ".copier-answers.yml").read_text("utf-8")
    lines = text.partition("replicate_pins: {\n")[2].splitlines()[:-1]
    return {line.split('"')[1]: line.rstrip(",") for line in lines}


def test_check_says_what_is_outdated_and_changes_nothing(
    project: Path, api: ModelApi, programs: Path
) -> None:
    done = script(project, api, programs, "check")
    assert (done.returncode, done.stdout) == (0, "Every pin is current.\n"), done.stderr
    assert sorted(api.asked) == sorted(pin_lines(project))
    publish(api, NEW, prompt={"type": "string", "maxLength": 9}, seed={"type": "integer"})
    api.models[FLUX]["latest_version"]["openapi_schema"]["components"]["schemas"]["Input"][
        "properties"
    ].pop("prompt")
    done = script(project, api, programs, "check")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        FLUX,
        f"  old      official  {pin_of(project, FLUX)['resolved']}",
        f"  new      official  {models.NOW[:10]}",
        "  BREAKS   prompt: removed",
        "",
        NEW,
        f"  old      {'5' * 64}  {pin_of(project, NEW)['resolved']}",
        f"  new      {'6' * 64}  {models.NOW[:10]}",
        "  changed  seed: new, optional",
    ]
    assert git(project, "status", "--porcelain") == ""
    found = json.loads(script(project, api, programs, "check", "--json").stdout)
    assert [(one["model"], one["breaks"]) for one in found["changed"]] == [
        (FLUX, True),
        (NEW, False),
    ]
    assert found["changed"][1]["new"]["version"] == "6" * 64


def pin_of(project: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = answers_of(project)["replicate_pins"][name]
    return found


def test_upgrade_of_one_leaves_the_other_pins_as_they_are(
    project: Path, api: ModelApi, programs: Path
) -> None:
    before = pin_lines(project)
    publish(api, NEW, text={"type": "string", "x-order": 0})
    for name in (ESRGAN, LLAMA):
        api.models[name]["latest_version"]["id"] = "6" * 64
    done = script(project, api, programs, "upgrade", "new-model")
    assert done.returncode == 0, done.stderr
    assert api.asked == [NEW]
    assert "BREAKS   prompt: renamed to text" in done.stdout
    assert "6" * 64 in pin_lines(project)[NEW]
    assert {**pin_lines(project), NEW: before[NEW]} == before
    # files and answers agree
    assert "    text: str" in (project / "src/inference/models/new_model.py").read_text("utf-8")
    assert not any(TOKEN.encode() in content for content in tree(project).values())
    commit_all(project, "Refreshed")
    # the rest is what check still names, and what upgrade without names takes
    done = script(project, api, programs, "check", "--json")
    assert [one["model"] for one in json.loads(done.stdout)["changed"]] == [ESRGAN]
    done = script(project, api, programs, "upgrade", "--json")
    assert [one["model"] for one in json.loads(done.stdout)["changed"]] == [ESRGAN]
    commit_all(project, "Refreshed all")
    # on the same day, too
    api.models[ESRGAN]["latest_version"]["id"] = "7" * 64
    assert script(project, api, programs, "check").returncode == 1
    assert script(project, api, programs, "upgrade", ESRGAN).returncode == 0
    assert "7" * 64 in pin_lines(project)[ESRGAN]


@pytest.mark.slow
def test_add_asks_about_that_model(project: Path, api: ModelApi, programs: Path) -> None:
    before = pin_lines(project)
    done = script(project, api, programs, "add", f"{OTHER}:{'5' * 64}")
    assert done.returncode == 0, done.stderr
    assert f"new      {'5' * 64}" in done.stdout
    assert "new: community, output file, inputs prompt" in done.stdout
    assert api.asked == [OTHER, f"{OTHER}/versions/{'5' * 64}"]
    assert answers_of(project)["replicate_extra_models"] == [NEW, f"{OTHER}:{'5' * 64}"]
    assert {name: line for name, line in pin_lines(project).items() if name != OTHER} == before
    assert (project / "src/inference/models/other_model.py").is_file()
    commit_all(project, "Added")
    done = script(project, api, programs, "upgrade", "other-model")
    assert done.returncode == 2
    assert f"{OTHER} is held at its version" in done.stderr


@pytest.mark.slow
def test_a_conflict_is_exit_1(project: Path, api: ModelApi, programs: Path) -> None:
    module = project / "src/inference/models/new_model.py"
    module.write_text(module.read_text("utf-8").replace("5" * 64, "4" * 64), "utf-8")
    commit_all(project, "A version by hand")
    publish(api, NEW, prompt={"type": "string"})
    done = script(project, api, programs, "upgrade", "new-model", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["conflicts"] == ["src/inference/models/new_model.py"]
    assert "solve them" in done.stderr
    assert "<<<<<<< " in module.read_text("utf-8")


def damage(project: Path) -> None:
    answers = project / ".copier-answers.yml"
    answers.write_text(answers.read_text("utf-8").replace("replicate_pins: {", "{"), "utf-8")


def remove(project: Path) -> None:
    (project / ".copier-answers.yml").unlink()


def no_git(project: Path) -> None:
    shutil.rmtree(project / ".git")


def dirty(project: Path) -> None:
    (project / "README.md").write_text("edited\n", "utf-8")


def nothing(project: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "arguments", "env", "said"),
    [
        (damage, "check", {}, "git checkout .copier-answers.yml"),
        (remove, "check", {}, "git checkout .copier-answers.yml"),
        (no_git, "upgrade", {}, "git-tracked"),
        (dirty, "upgrade", {}, "commit or stash"),
        (nothing, "check", {"REPLICATE_API_TOKEN": ""}, "set REPLICATE_API_TOKEN"),
        (nothing, "upgrade", {"REPLICATE_API_TOKEN": "r8_wrong"}, "refused the token"),
        (nothing, "upgrade new", {}, "new names none or several of: black-forest-labs/"),
        (nothing, f"add {NEW}", {}, f"{NEW} is in this project already"),
        (nothing, "add new-model", {}, "write owner/name"),
        (nothing, "add someone/unknown", {}, "Replicate knows no model someone/unknown"),
        (nothing, "check --service ftp://x", {}, "is no address"),
        (nothing, "check --service http://127.0.0.1:9", {}, "/readyz does not answer"),
        (nothing, "check", {"PATH": ""}, "pip install uv"),
        (nothing, "chekc", {}, "invalid choice"),
    ],
)
def test_what_cannot_be_done_is_exit_2_with_one_line(
    spoil: Any,
    arguments: str,
    env: dict[str, str],
    said: str,
    project: Path,
    api: ModelApi,
    programs: Path,
) -> None:
    spoil(project)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    done = script(project, api, programs, *arguments.split(), **env)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
    git_left = {path for path in before if ".git/" in path.as_posix()}
    for path in before.keys() - git_left:
        assert path.read_bytes() == before[path]


@pytest.mark.slow
def test_check_asks_a_running_service_what_ran(
    project: Path, api: ModelApi, programs: Path
) -> None:
    ran = {"model": "new-model", "pinned": "5" * 64, "ran": "9" * 64}

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"status": "ready", "checks": {}, "drift": [ran]}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = script(project, api, programs, "check", "--service", url)
        by_setting = script(project, api, programs, "check", "--json", PUBLIC_URL=url)
        server.shutdown()
    assert done.returncode == by_setting.returncode == 1
    assert f"new-model: {'9' * 64} ran, pinned is {'5' * 64}" in done.stdout
    assert json.loads(by_setting.stdout)["drift"] == [ran]


@pytest.mark.slow
def test_uv_brings_what_is_needed(project: Path, api: ModelApi) -> None:
    """As on a machine that has uv only: Copier, the loader and the SDK are fetched."""
    publish(api, NEW, prompt={"type": "string"})
    assert script(project, api, None, "check").returncode == 1
    assert script(project, api, None, "upgrade", "new-model").returncode == 0
    assert "6" * 64 in pin_lines(project)[NEW]
