"""The README's commands, run in a clean clone on a machine with Python, pip and git only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.rendering import ROOT, Running, clean_env, run, running, snapshot

FENCE = re.compile(r"```(?:sh|bash|console)\n(.*?)```", re.DOTALL)


def commands(markdown: str) -> list[str]:
    """The commands in a document's shell blocks, without comments."""
    lines = [line for block in FENCE.findall(markdown) for line in block.splitlines()]
    return [line.partition(" #")[0].strip() for line in lines if line and line[0] != "#"]


README = commands((ROOT / "README.md").read_text("utf-8"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("readme") / "clone")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a fresh machine: an empty HOME, and a PATH with neither uv nor copier."""
    home = tmp_path_factory.mktemp("home")
    programs = tmp_path_factory.mktemp("bin")
    base = Path(sys.base_prefix, "bin", "python3")
    (programs / "python3").symlink_to(base)
    env = {k: v for k, v in clean_env().items() if not k.startswith(("XDG_", "UV_", "VIRTUAL_"))}
    del env["COPIER_SETTINGS_PATH"]
    path = os.pathsep.join([str(programs), "/usr/bin", "/bin"])
    return {**env, "HOME": str(home), "PATH": path}


def test_the_readme_names_both_commands() -> None:
    assert "python3 run.py new ../my-project" in README
    assert "python3 run.py test" in README


@pytest.mark.slow
def test_new_asks_in_a_terminal_and_the_project_starts(clone: Path, bare: dict[str, str]) -> None:
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        ["python3", "run.py", "new", "../my-project"],
        cwd=clone,
        env={**bare, "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # how Linux says that the other side is closed
            break
        shown += piece
        # a terminal answers where its cursor is; Enter takes what each question suggests
        if b"\x1b[6n" in piece:
            os.write(leader, b"\x1b[1;1R")
        if b"\xf0\x9f\x8e\xa4" in piece:
            os.write(leader, b"\r")
    os.close(leader)
    text = shown.decode("utf-8", "replace")
    assert process.wait(60) == 0, text
    assert "What is the project called?" in text
    project = clone.parent / "my-project"
    assert (project / ".copier-answers.yml").is_file()
    with running(project) as started:
        assert isinstance(started, Running)


@pytest.mark.slow
def test_new_without_a_terminal(clone: Path, bare: dict[str, str]) -> None:
    options = ("--defaults", "--data", "storage=s3")
    run("python3", "run.py", "new", "../another", *options, cwd=clone, env=bare, timeout=600)
    assert "storage: s3" in (clone.parent / "another/.copier-answers.yml").read_text("utf-8")


@pytest.mark.slow
def test_the_tests_run(clone: Path, bare: dict[str, str]) -> None:
    """The whole suite is what runs here; in the clone a part of it is enough."""
    done = run(
        *("python3", "run.py", "test", "tests/test_layers.py"), cwd=clone, env=bare, timeout=900
    )
    assert " passed" in done.stdout


@pytest.mark.slow
def test_a_wrong_command_explains_itself(clone: Path, bare: dict[str, str]) -> None:
    done = run("python3", "run.py", "nwe", cwd=clone, env=bare, check=False)
    assert done.returncode == 2
    assert "python3 run.py new DEST" in done.stderr


@pytest.mark.slow
def test_dev_links_the_plain_files(clone: Path, bare: dict[str, str]) -> None:
    run("python3", "run.py", "dev", "../linked", "--defaults", cwd=clone, env=bare, timeout=600)
    linked = clone.parent / "linked"
    source = clone / "template/{{ python }}/src/inference/state.py"
    assert (linked / "src/inference/state.py").resolve() == source.resolve()
    assert not (linked / "README.md").is_symlink()
    with running(linked) as started:
        assert httpx.get(f"{started.url}/page/page.js").is_success


def test_a_link_of_a_nextjs_project_is_the_file_itself(tmp_path: Path) -> None:
    """Node.js would look for its imports where a symbolic link leads to."""
    made = tmp_path / "project"
    options = ("--defaults", "--quiet", "--data", "framework=nextjs")
    run(sys.executable, "run.py", "dev", made, *options, cwd=ROOT)
    assert [path for path in made.rglob("*") if path.is_symlink()] == []
    source = ROOT / "template/{{ nextjs }}/src/lib/queue.ts"
    assert (made / "src/lib/queue.ts").read_bytes() == source.read_bytes()
