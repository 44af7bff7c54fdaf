"""Updates: from every release to the present, and on to a next one; no pin moves by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import unified_diff
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rendering import (
    ROOT,
    answers_of,
    checked,
    clean_env,
    commit_all,
    copier_command,
    git,
    releases,
    snapshot,
    tree,
)

# The present state, and a planted release after it: newer than any real one.
PRESENT, NEXT = "1000.0.0", "1001.0.0"
# The short suite takes the newest release only.
HOPS = [
    *(pytest.param(one, PRESENT, marks=pytest.mark.slow) for one in list(releases())[:-1]),
    *((one, PRESENT) for one in list(releases())[-1:]),
    (PRESENT, NEXT),
]

ANSWERS: list[dict[str, Any]] = [
    {},
    {"replicate_models": ["black-forest-labs/flux-schnell"], "paid_scripts": "none"},
    {"storage": "s3", "project_name": "Café 7", "paid_scripts": "deny"},
]

# Each person's own: an update leaves them as they are. What a team shares reaches it by the
# committed .claude/settings.json, which the same source gives.
NEVER_UPDATED: list[str] = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))[
    "_skip_if_exists"
]

# The next release changes a file that people leave alone, one that they edit, and adds one.
CHANGED, SHARED, ADDED = "src/inference/state.py", "README.md", "src/inference/planted.py"


def source_of(template: Path, rendered: str) -> Path:
    """The source of a rendered file, in whichever layer it stands."""
    for layer in ("", "{{ python }}", "{{ fastapi }}"):
        for suffix in ("", ".jinja"):
            path = template / "template" / layer / f"{rendered}{suffix}"
            if path.is_file():
                return path
    raise AssertionError(f"no layer gives {rendered}")


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with a tag for every release, the present, and the planted next one."""
    clone = snapshot(tmp_path_factory.mktemp("upstream") / "template")
    for tag in git(clone, "tag", "--list").split():
        git(clone, "tag", "--delete", tag)
    for version, commit in releases().items():
        git(clone, "tag", version, commit)
    git(clone, "tag", PRESENT)
    with source_of(clone, CHANGED).open("a", encoding="utf-8") as file:
        file.write("\n\n# The next release.\n")
    readme = source_of(clone, SHARED)
    first, *rest = readme.read_text("utf-8").splitlines(keepends=True)
    readme.write_text("".join([first.rstrip("\n"), " (next release)\n", *rest]), "utf-8")
    (clone / "template/{{ python }}" / ADDED).write_text('"""Planted."""\n', "utf-8")
    commit_all(clone, "The next release")
    git(clone, "tag", NEXT)
    return clone


@dataclass
class Api:
    """A server in Replicate's place that answers nothing and counts."""

    url: str
    requests: list[str]

    def env(self) -> dict[str, str]:
        return clean_env(REPLICATE_API_TOKEN="r8_planted", REPLICATE_BASE_URL=self.url)


@pytest.fixture
def api() -> Iterator[Api]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(500)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Api(f"http://127.0.0.1:{server.server_port}/v1", asked)
        server.shutdown()


def copy(upstream: Path, destination: Path, version: str, answers: dict[str, Any]) -> Path:
    """Render a release as people do, and commit it."""
    data = [
        f"--data={name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in answers.items()
    ]
    options = ("--trust", "--defaults", "--quiet", f"--vcs-ref={version}", *data)
    copier_command("copy", *options, upstream, destination, cwd=destination.parent)
    commit_all(destination, "Rendered")
    return destination


def update(project: Path, version: str, api: Api) -> None:
    """Update as people do, with the network as the API sees it."""
    options = ("--trust", "--defaults", f"--vcs-ref={version}")
    copier_command("update", *options, cwd=project, env=api.env())


def unmerged(project: Path) -> list[str]:
    """The files with conflicts that nobody has solved yet."""
    return sorted(set(git(project, "diff", "--name-only", "--diff-filter=U").split()))


def pins(project: Path) -> dict[str, Any]:
    """What the answers hold about each model."""
    kept = answers_of(project)["replicate_pins"]
    assert isinstance(kept, dict)
    return kept


OWN = '    "rich>=13",'


def edit(project: Path) -> dict[str, bytes]:
    """Edit as people do, and commit; returns the files that must outlive an update."""
    own = project / "src/app/own.py"
    own.write_text('"""A route of our own."""\n', "utf-8")
    metadata = project / "pyproject.toml"
    text = metadata.read_text("utf-8").replace(
        "dependencies = [\n", f"dependencies = [\n{OWN}\n", 1
    )
    metadata.write_text(text, "utf-8")
    secrets = project / ".env"
    secrets.write_text("REPLICATE_API_TOKEN=r8_mine\n", "utf-8")
    local = project / ".claude/settings.local.json"
    local.write_text('{"mine": true}\n', "utf-8")
    stored = project / "var/outputs/kept/0.png"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"\x89PNG")
    (project / "AGENTS.md").unlink()
    commit_all(project, "Our edits")
    return {str(path): path.read_bytes() for path in (own, secrets, local, stored)}


every_hop = pytest.mark.parametrize(("old", "new"), HOPS)


@every_hop
@pytest.mark.parametrize(
    "answers", [ANSWERS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in ANSWERS[1:])]
)
def test_an_update_equals_a_fresh_render(
    old: str, new: str, answers: dict[str, Any], upstream: Path, tmp_path: Path, api: Api
) -> None:
    project = copy(upstream, tmp_path / "project", old, answers)
    before = pins(project)
    of_the_person = {name: (project / name).read_bytes() for name in NEVER_UPDATED}
    assert check_update(project) == 2
    update(project, new, api)
    assert unmerged(project) == []
    assert pins(project) == before
    assert api.requests == []
    fresh = copy(upstream, tmp_path / "fresh", new, answers)
    for name, content in of_the_person.items():
        assert (project / name).read_bytes() == content
        (fresh / name).write_bytes(content)
    assert differences(project, fresh) == ""
    commit_all(project, "Updated")
    if new == NEXT:
        assert check_update(project) == 0


def differences(updated: Path, fresh: Path) -> str:
    """What an update left otherwise than a fresh render, as a diff; empty when nothing."""
    ours, theirs = tree(updated), tree(fresh)
    return "\n".join(
        line
        for name in sorted(ours.keys() | theirs.keys())
        for line in unified_diff(
            theirs.get(name, b"").decode("utf-8", "replace").splitlines(),
            ours.get(name, b"").decode("utf-8", "replace").splitlines(),
            f"fresh/{name}",
            f"updated/{name}",
            lineterm="",
        )
    )


def check_update(project: Path) -> int:
    """0: current; 2: a newer release exists."""
    return copier_command("check-update", "--quiet", cwd=project, check=False).returncode


@every_hop
def test_edits_outlive_an_update(
    old: str, new: str, upstream: Path, tmp_path: Path, api: Api
) -> None:
    project = copy(upstream, tmp_path / "project", old, {})
    kept = edit(project)
    before = pins(project)
    update(project, new, api)
    assert unmerged(project) == []
    git(project, "diff", "--check")
    assert {path: Path(path).read_bytes() for path in kept} == kept
    assert OWN in (project / "pyproject.toml").read_text("utf-8")
    assert not (project / "AGENTS.md").exists()
    assert pins(project) == before
    assert api.requests == []


@pytest.mark.slow
@every_hop
def test_an_updated_project_passes_its_own_checks(
    old: str, new: str, upstream: Path, tmp_path: Path, api: Api
) -> None:
    project = copy(upstream, tmp_path / "project", old, {})
    edit(project)
    update(project, new, api)
    checked(project)


def test_a_conflict_is_visible(upstream: Path, tmp_path: Path, api: Api) -> None:
    project = copy(upstream, tmp_path / "project", PRESENT, {})
    readme = project / SHARED
    first, *rest = readme.read_text("utf-8").splitlines(keepends=True)
    readme.write_text("".join(["# Our own title\n", *rest]), "utf-8")
    commit_all(project, "Our title")
    update(project, NEXT, api)
    assert unmerged(project) == [SHARED]
    text = readme.read_text("utf-8")
    assert "<<<<<<< " in text
    assert "# Our own title" in text
    assert f"{first.rstrip()} (next release)" in text


def _stale(project: Path) -> None:
    (project / "README.md").write_text("changed and not committed\n", "utf-8")


def _no_trust(project: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (_stale, ("--trust", "--defaults"), "dirty"),
        (_no_trust, ("--defaults",), "--trust"),
        (_no_trust, ("--trust",), "nteractive"),
    ],
    ids=["dirty tree", "no trust", "no terminal"],
)
def test_a_refused_update_says_why(
    spoil: Callable[[Path], None],
    options: tuple[str, ...],
    said: str,
    upstream: Path,
    tmp_path: Path,
) -> None:
    project = copy(upstream, tmp_path / "project", PRESENT, {})
    spoil(project)
    before = tree(project)
    done = copier_command("update", *options, f"--vcs-ref={NEXT}", cwd=project, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(project) == before


def test_releases_are_commits_of_this_repository_oldest_first() -> None:
    commits = [*releases().values(), "HEAD"]
    for older, newer in pairwise(commits):
        assert len(older) == 40
        git(ROOT, "merge-base", "--is-ancestor", older, newer)
