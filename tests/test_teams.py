"""What teams automate: the workflows of a project and of docs/ci, their steps run for real.

Only GitHub's own command, `gh`, is a stand-in that writes down how it was called.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from run import pip_indexes
from tests.model_api import FIRST, NEW, SECOND, ModelApi, publish, two_releases
from tests.rendering import BIN, ROOT, answers_of, clean_env, commit_all, git, run

UPDATES = ROOT / "template/.github/workflows/updates.yml"
GITLAB = ROOT / "docs/ci/gitlab-updates.yml"

GH = """\
#!/bin/sh
if [ "$1 $2" = "pr list" ]; then cat "$GH_STATE/open" 2>/dev/null; exit 0; fi
for word in "$@"; do printf '%s\\n' "$word"; done >> "$GH_STATE/called"
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template in two releases: the second changes the README's title."""

    def change(clone: Path) -> None:
        readme = clone / "template/README.md.jinja"
        text = readme.read_text("utf-8")
        readme.write_text(text.replace("\n\n", " (second)\n\n", 1), "utf-8")

    return two_releases(tmp_path_factory.mktemp("teams"), change)


@pytest.fixture
def remote(upstream: Path, api: ModelApi, tmp_path: Path) -> Path:
    """Where a project of the first release is kept; it takes push options, as GitLab does."""
    command = ("copy", "--trust", "--defaults", "--quiet", f"--vcs-ref={FIRST}")
    more = f"--data=replicate_extra_models=[{NEW}]"
    run(BIN / "copier", *command, more, upstream, "project", cwd=tmp_path, env=api.env())
    commit_all(tmp_path / "project", "Rendered")
    bare = tmp_path / "remote.git"
    git(tmp_path, "clone", "-q", "--bare", "project", bare)
    git(bare, "config", "receive.advertisePushOptions", "true")
    hook = bare / "hooks/post-receive"
    hook.write_text('#!/bin/sh\nenv | grep GIT_PUSH_OPTION > "$GIT_DIR/options"\ntrue\n')
    hook.chmod(0o755)
    return bare


def checkout(remote: Path, folder: Path) -> Path:
    """As CI has it: shallow, and on no branch."""
    git(folder, "clone", "-q", "--depth=1", f"file://{remote}", "checkout")
    git(folder / "checkout", "switch", "-q", "--detach")
    return folder / "checkout"


def shell(script: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run("bash", "-e", "-c", script, cwd=folder, env={**pip_indexes(), **env}, timeout=540)


def ours(text: str, matrix: dict[str, str], secrets: dict[str, str]) -> str:
    """GitHub's expressions, as far as these workflows use them."""
    for name, value in matrix.items():
        text = text.replace(f"${{{{ matrix.{name} }}}}", value)
    for name, value in secrets.items():
        text = text.replace(f"${{{{ secrets.{name} }}}}", value)
    text = text.replace("${{ secrets.UPDATES_TOKEN || github.token }}", "token")
    assert "${{" not in text
    return text


def github(
    workflow: Path, folder: Path, env: dict[str, str], matrix: dict[str, str], token: str = ""
) -> str:
    """Run the `run` steps of the only job one after another; what they printed."""
    (job,) = yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values()
    secrets = {"REPLICATE_API_TOKEN": token}
    given = {name: ours(value, matrix, secrets) for name, value in job.get("env", {}).items()}
    said = ""
    for step in job["steps"]:
        condition = step.get("if")
        if "run" not in step or (condition and condition != f"matrix.part == '{matrix['part']}'"):
            continue
        extra = {name: ours(value, matrix, secrets) for name, value in step.get("env", {}).items()}
        # what the caller gives stands for a repository's own variables
        said += shell(step["run"], folder, {**given, **extra, **env}).stdout
    return said


@pytest.fixture
def runner(tmp_path: Path, api: ModelApi) -> dict[str, str]:
    """The environment of GitHub's machine; `gh` is the stand-in."""
    programs, state = tmp_path / "bin", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    (programs / "gh").write_text(GH)
    (programs / "gh").chmod(0o755)
    env = clean_env(REPLICATE_BASE_URL=api.url, RUNNER_TEMP=str(state), GH_STATE=str(state))
    return {**env, "PATH": os.pathsep.join([str(programs), env["PATH"]])}


def pushed(remote: Path, branch: str, name: str) -> str:
    return git(remote, "show", f"{branch}:{name}")


@pytest.mark.slow
def test_github_opens_a_pull_request_for_a_newer_template(
    remote: Path, tmp_path: Path, runner: dict[str, str], api: ModelApi
) -> None:
    api.asked.clear()
    project = checkout(remote, tmp_path)
    github(UPDATES, project, runner, {"part": "template"})
    assert api.asked == []
    branch = "updates/template"
    assert pushed(remote, branch, "README.md").splitlines()[0] == "# Replicate app (second)"
    assert SECOND in git(remote, "log", "-1", "--format=%B", branch)
    called = (tmp_path / "state/called").read_text("utf-8").splitlines()
    assert called[:5] == ["auth", "setup-git", "pr", "create", "--head"]
    assert called[5:8] == [branch, "--title", "Update from the template"]
    # While it is open, it is left as it is; merged, there is nothing to do.
    before = git(remote, "rev-parse", branch)
    (tmp_path / "state/open").write_text("7\n")
    shutil.rmtree(project)
    said = github(UPDATES, checkout(remote, tmp_path), runner, {"part": "template"})
    assert "merge or close it first" in said
    (tmp_path / "state/open").unlink()
    git(remote, "update-ref", "refs/heads/main", branch)
    (tmp_path / "state/called").unlink()
    shutil.rmtree(project)
    github(UPDATES, checkout(remote, tmp_path), runner, {"part": "template"})
    assert not (tmp_path / "state/called").exists()
    assert git(remote, "rev-parse", branch) == before


@pytest.mark.slow
def test_github_commits_a_conflict_and_names_it(
    remote: Path, tmp_path: Path, runner: dict[str, str]
) -> None:
    project = checkout(remote, tmp_path)
    text = (project / "README.md").read_text("utf-8")
    (project / "README.md").write_text(text.replace("# Replicate app", "# Ours", 1), "utf-8")
    commit_all(project, "Our title")
    github(UPDATES, project, runner, {"part": "template"})
    assert "<<<<<<< " in pushed(remote, "updates/template", "README.md")
    message = git(remote, "log", "-1", "--format=%B", "updates/template")
    assert "conflicts to solve in README.md" in message


@pytest.mark.slow
def test_github_opens_a_pull_request_for_outdated_pins(
    remote: Path, tmp_path: Path, runner: dict[str, str], api: ModelApi
) -> None:
    token = api.env()["REPLICATE_API_TOKEN"]
    project = checkout(remote, tmp_path)
    said = github(UPDATES, project, runner, {"part": "models"})
    assert "Without the secret REPLICATE_API_TOKEN" in said
    github(UPDATES, project, runner, {"part": "models"}, token)
    assert not (tmp_path / "state/called").exists()
    publish(api, NEW, text={"type": "string"})
    github(UPDATES, project, runner, {"part": "models"}, token)
    assert "6" * 64 in pushed(remote, "updates/models", ".copier-answers.yml")
    message = git(remote, "log", "-1", "--format=%B", "updates/models")
    assert message.startswith("Refresh the pins of the models\n\n")
    assert "BREAKS   prompt: renamed to text" in message
    called = (tmp_path / "state/called").read_text("utf-8")
    assert "Refresh the pins of the models" in called
    assert "BREAKS   prompt: renamed to text" in called
    assert token not in called + message


@pytest.mark.slow
@pytest.mark.parametrize("part", ["template", "models"])
def test_gitlab_opens_a_merge_request(
    part: str, remote: Path, tmp_path: Path, api: ModelApi
) -> None:
    (job,) = yaml.safe_load(GITLAB.read_text("utf-8")).values()
    env = {**api.env(), "REMOTE": str(remote), "PART": part, "CI_DEFAULT_BRANCH": "main"}
    publish(api, NEW, text={"type": "string"})
    api.asked.clear()
    script = "set -o pipefail\n" + "\n".join(job["script"])
    shell(script, checkout(remote, tmp_path), env)
    options = (remote / "options").read_text("utf-8")
    assert "=merge_request.create\n" in options
    assert "=merge_request.target=main\n" in options
    if part == "template":
        assert api.asked == []
        assert "merge_request.title=Update from the template\n" in options
        assert "(second)" in pushed(remote, "updates/template", "README.md").splitlines()[0]
    else:
        assert "merge_request.title=Refresh the pins of the models\n" in options
        assert "BREAKS   prompt: renamed to text" in git(
            remote, "log", "-1", "--format=%B", "updates/models"
        )
        assert "6" * 64 in pushed(remote, "updates/models", ".copier-answers.yml")
    # A branch that is there is left as it is.
    shutil.rmtree(tmp_path / "checkout")
    done = shell(script, checkout(remote, tmp_path), env)
    assert "merge or delete it first" in done.stdout


def matrices() -> dict[str, dict[str, list[str]]]:
    """What the two examples vary."""
    (job,) = example("github-variants")["jobs"].values()
    (other,) = example("gitlab-variants").values()
    (varied,) = other["parallel"]["matrix"]
    return {
        "github": job["strategy"]["matrix"],
        "gitlab": {name.lower(): values for name, values in varied.items()},
    }


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"docs/ci/{name}.yml").read_text("utf-8"))
    return found


def test_both_examples_vary_the_same() -> None:
    found = matrices()
    assert found["github"] == found["gitlab"]


def variants() -> list[tuple[str, str, str]]:
    """Every variant, on one service and the other in turn: both run the same commands."""
    varied = matrices()["github"]
    rows = itertools.product(varied["framework"], varied["storage"])
    return [(service, *row) for service, row in zip(itertools.cycle(matrices()), rows)]


@pytest.mark.slow
@pytest.mark.parametrize(("service", "framework", "storage"), variants())
def test_a_variant_renders_and_passes_its_own_checks(
    service: str, framework: str, storage: str, upstream: Path, tmp_path: Path
) -> None:
    """With the project's own environment, installed by uv as CI does."""
    fork = tmp_path / "fork"
    git(tmp_path, "clone", "-q", upstream, fork)
    if service == "github":
        matrix = {"framework": framework, "storage": storage}
        github(ROOT / "docs/ci/github-variants.yml", fork, clean_env(), matrix)
    else:
        (job,) = example("gitlab-variants").values()
        env = clean_env(FRAMEWORK=framework, STORAGE=storage, TEMPLATE=job["variables"]["TEMPLATE"])
        shell("set -o pipefail\n" + "\n".join(job["script"]), fork, env)
    answers = answers_of(tmp_path / "variant")
    assert (answers["framework"], answers["storage"]) == (framework, storage)


def test_the_examples_are_safe_and_valid(tmp_path: Path) -> None:
    for path in (ROOT / "docs/ci").iterdir():
        if path.name.startswith("github-"):
            run(BIN / "zizmor", "--offline", "--pedantic", "--no-progress", path, cwd=tmp_path)
            schema = ["vendor.github-workflows"]
        else:
            schema = ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
        run(BIN / "check-jsonschema", "--builtin-schema", *schema, path, cwd=tmp_path)


def test_an_invalid_example_is_seen(tmp_path: Path) -> None:
    planted = tmp_path / "gitlab.yml"
    planted.write_text(GITLAB.read_text("utf-8").replace("  script:", "  scripts:"), "utf-8")
    schema = ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci")
    done = run(BIN / "check-jsonschema", *schema, planted, cwd=tmp_path, check=False)
    assert done.returncode == 1


# The plan


def test_a_plan_is_json_that_renders_what_it_says(tmp_path: Path) -> None:
    options = ("--data", "storage=s3")
    listed = sorted(ROOT.iterdir())
    done = run("python3", "run.py", "plan", *options, cwd=ROOT)
    assert sorted(ROOT.iterdir()) == listed
    (line,) = done.stdout.splitlines()
    plan = json.loads(line)
    assert plan["storage"] == "s3"
    assert len(plan["replicate_pins"]) == len(plan["replicate_models"])
    (tmp_path / "plan.json").write_text(line, "utf-8")
    again = ("--data-file", tmp_path / "plan.json", "--defaults", "--quiet")
    run("python3", "run.py", "new", tmp_path / "project", *again, cwd=ROOT)
    kept = answers_of(tmp_path / "project")
    assert {k: v for k, v in plan.items() if k[0] != "_"} == {
        k: v for k, v in kept.items() if k[0] != "_"
    }
    # Without a clone, by Copier alone.
    command = ("copier", "copy", "--trust", "--defaults", "--pretend", "--vcs-ref=HEAD", *options)
    done = run(*command, ROOT, "planned", cwd=tmp_path, env=clean_env())
    assert not (tmp_path / "planned").exists()
    assert json.loads(done.stderr.splitlines()[-1])["replicate_pins"] == plan["replicate_pins"]


def test_a_plan_that_fails_says_why() -> None:
    done = run("python3", "run.py", "plan", "--data", "storage=ftp", cwd=ROOT, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "'ftp' is none of local" in done.stderr


def test_the_readme_of_a_project_recreates_it(upstream: Path, tmp_path: Path) -> None:
    """From a template named by a path relative to where the person stood."""
    command = (
        "copy",
        "--trust",
        "--defaults",
        "--quiet",
        f"--vcs-ref={FIRST}",
        "--data=storage=r2",
    )
    run(BIN / "copier", *command, upstream.name, tmp_path / "project", cwd=upstream.parent)
    project = tmp_path / "project"
    assert answers_of(project)["_src_path"] == str(upstream)
    text = (project / "README.md").read_text("utf-8")
    (script,) = [block for block in text.split("```\n") if block.startswith("commit=")]
    shell(script, project, clean_env())
    compared = run("diff", "-r", project, tmp_path / "again", cwd=tmp_path)
    assert compared.stdout == ""
