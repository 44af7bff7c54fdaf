"""Copier as people may have installed it: without what the template needs, or too old."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from run import pip_indexes
from tests.rendering import BIN, clean_env, commit_all, run, template, tree


def copier_of(folder: Path, *packages: str) -> Path:
    """A fresh environment with these packages; the path of its `copier`."""
    env = {**clean_env(), **pip_indexes()}
    run(BIN / "uv", "venv", "--quiet", folder, cwd=folder.parent, env=env)
    options = ("--quiet", "--python", folder)
    run(BIN / "uv", "pip", "install", *options, *packages, cwd=folder.parent, env=env)
    return next(folder.glob("*/copier"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packages", "said"),
    [
        (["copier>=9.19,<10"], "copier_template_extensions"),
        (["copier==9.10.0", "copier-template-extensions>=0.3.4"], "9.19.0"),
    ],
    ids=["without the extension package", "too old"],
)
def test_an_unfit_copier_says_what_it_needs(packages: list[str], said: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    options = ("--trust", "--defaults")
    run(BIN / "copier", "copy", *options, "--vcs-ref=HEAD", template(), project, cwd=tmp_path)
    commit_all(project, "Rendered")
    before = tree(project)
    unfit = copier_of(tmp_path / "unfit", *packages)
    commands: list[tuple[str | Path, ...]] = [
        (unfit, "update", *options, "--vcs-ref=:current:", project),
        (unfit, "copy", *options, "--vcs-ref=HEAD", template(), tmp_path / "new"),
    ]
    for command in commands:
        done: subprocess.CompletedProcess[str] = run(*command, cwd=tmp_path, check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr, done.stderr
        assert said in done.stderr
    assert tree(project) == before
    assert not (tmp_path / "new").exists()
