"""Updates: from every release to the present, and on to a next one; no pin moves by itself."""

from __future__ import annotations

import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import unified_diff
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from allpairspy import AllPairs
from jinja2.sandbox import SandboxedEnvironment

from extensions.replicate_pins import ReplicatePins
from tests.rendering import (
    ROOT,
    answers_of,
    checked,
    clean_env,
    commit_all,
    copier_command,
    git,
    releases,
    run,
    snapshot,
    tree,
    update,
)

# The present state, and a planted release after it: newer than any real one.
PRESENT, NEXT = "1000.0.0", "1001.0.0"

# Each person's own: an update leaves them as they are. What a team shares reaches it by the
# committed .claude/settings.json, which the same source gives.
NEVER_UPDATED: list[str] = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))[
    "_skip_if_exists"
]

# The next release changes these, adds one, and renames the answer `storage`.
SHARED, ADDED, RENAMED = "README.md", "docs/planted.md", "output_storage"


@cache
def questions_of(release: str) -> dict[str, Any]:
    """The questions as a release asked them."""
    if release == PRESENT:
        text = (ROOT / "copier.yml").read_text("utf-8")
    else:
        text = git(ROOT, "show", f"{releases()[release]}:copier.yml")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def offered(release: str, question: str) -> list[str]:
    choices = questions_of(release)[question]["choices"].values()
    return [choice["value"] if isinstance(choice, dict) else choice for choice in choices]


# From each release, with each framework that it offers, to what comes after it.
HOPS = [
    (release, target, framework)
    for release, target in [*((one, PRESENT) for one in releases()), (PRESENT, NEXT)]
    for framework in offered(release, "framework")
]
NEWEST = list(releases())[-1]
every_hop = pytest.mark.parametrize(
    ("old", "new", "framework"),
    # The short suite takes the newest release and the default framework only.
    [
        pytest.param(
            *hop, marks=() if (hop[0], hop[2]) == (NEWEST, "fastapi") else pytest.mark.slow
        )
        for hop in HOPS
    ],
)


def rows() -> list[Any]:
    """For each framework, hops and answers in which each two of them meet once at least."""
    found = []
    for framework in offered(PRESENT, "framework"):
        hops = [(old, new) for old, new, offering in HOPS if offering == framework]
        asked = {
            "hop": hops,
            "storage": offered(PRESENT, "storage"),
            "paid_scripts": offered(PRESENT, "paid_scripts"),
            "project_name": ["Replicate app", "Café 7"],
            "replicate_models": [
                questions_of(PRESENT)["replicate_models"]["default"],
                ["black-forest-labs/flux-schnell"],
            ],
            "replicate_extra_models": [[], ["openai/whisper"]],
        }

        def possible(row: list[Any], framework: str = framework) -> bool:
            """Whether the release of the hop offers what follows it (so far)."""
            (old, _), *rest = row
            return all(
                _offers(old, framework, question, answer)
                for question, answer in zip(("storage", "paid_scripts"), rest, strict=False)
            )

        for number, row in enumerate(AllPairs(list(asked.values()), filter_func=possible)):
            (old, new), *answers = row
            named = {"framework": framework, **dict(zip(list(asked)[1:], answers, strict=True))}
            found.append(pytest.param(old, new, named, id=f"{old}-{framework}-{number}"))
    return found


def _offers(release: str, framework: str, question: str, answer: str) -> bool:
    """Whether the release offers the answer, and lets the framework have it."""
    return answer in offered(release, question) and (
        question != "storage" or _fits(release, framework, answer)
    )


def _fits(release: str, framework: str, storage: str) -> bool:
    """Whether the release lets the framework have the storage: a choice may have a validator."""
    for choice in questions_of(release)["storage"]["choices"].values():
        if isinstance(choice, dict) and choice["value"] == storage:
            validator = choice.get("validator", "")
            template = SandboxedEnvironment(extensions=[ReplicatePins]).from_string(validator)
            return not template.render(framework=framework).strip()
    return True


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with a tag for every release, and the present as the newest one."""
    clone = snapshot(tmp_path_factory.mktemp("upstream") / "template")
    for version, commit in releases().items():
        git(clone, "tag", version, commit)
    git(clone, "tag", PRESENT)
    return clone


@pytest.fixture(scope="session")
def upstream_next(upstream: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the planted next release: changed files in every layer, one new, one answer
    under another name."""
    clone = tmp_path_factory.mktemp("next") / "template"
    git(upstream, "clone", "-q", upstream, clone)
    for layer in (clone / "template").iterdir():
        for suffix, comment in ((".py", "#"), (".ts", "//")):
            for path in sorted(layer.rglob(f"*{suffix}"))[:1]:
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"\n{comment} The next release.\n")
    readme = clone / f"template/{SHARED}.jinja"
    text = readme.read_text("utf-8")
    titled = re.sub(r"^# .*$", r"\g<0> (next release)", text, count=1, flags=re.MULTILINE)
    readme.write_text(titled, "utf-8")
    (clone / "template/docs").mkdir()
    (clone / "template" / ADDED).write_text("Planted.\n", "utf-8")
    questions = yaml.safe_load((clone / "copier.yml").read_text("utf-8"))
    asked = {}
    for name, question in questions.items():
        if name == "storage":
            asked[RENAMED] = {**question, "default": "{{ storage | default('local') }}"}
            question = {"type": "str", "when": False, "default": f"{{{{ {RENAMED} }}}}"}
        asked[name] = question
    text = yaml.safe_dump(asked, sort_keys=False, allow_unicode=True)
    (clone / "copier.yml").write_text(text, "utf-8")
    commit_all(clone, "The next release")
    git(clone, "tag", NEXT)
    return clone


@pytest.fixture
def template(new: str, upstream: Path, request: pytest.FixtureRequest) -> Path:
    """The template as it stands when an update to `new` is made."""
    if new == PRESENT:
        return upstream
    found: Path = request.getfixturevalue("upstream_next")
    return found


@dataclass
class Api:
    """A server in Replicate's place that answers nothing and counts."""

    url: str
    requests: list[str]

    def env(self) -> dict[str, str]:
        return clean_env(REPLICATE_API_TOKEN="r8_planted", REPLICATE_BASE_URL=self.url)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """With a token in the environment, so that a call would be made."""
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


def copy(template: Path, destination: Path, version: str, **answers: Any) -> Path:
    """Render a release without a token, and commit it."""
    options: dict[str, Any] = {"defaults": True, "unsafe": True, "quiet": True}
    copier.run_copy(str(template), destination, answers, vcs_ref=version, **options)
    commit_all(destination, "Rendered")
    return destination


def update_with_token(
    project: Path, version: str, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Update where a call to Replicate could be made, and would be seen."""
    with monkeypatch.context() as patch:
        patch.setenv("REPLICATE_API_TOKEN", "r8_planted")
        patch.setenv("REPLICATE_BASE_URL", api.url)
        update(project, version)
    assert api.requests == []


def unmerged(project: Path) -> list[str]:
    """The files with conflicts that nobody has solved yet."""
    return sorted(set(git(project, "diff", "--name-only", "--diff-filter=U").split()))


def pins(project: Path) -> str:
    """What the answers hold about each model, as it stands there."""
    return (project / ".copier-answers.yml").read_text("utf-8").partition("replicate_pins: ")[2]


def fresh(template: Path, folder: Path, project: Path, version: str) -> Path:
    """A render of the version with the answers that the project has, pins included."""
    answers = {k: v for k, v in answers_of(project).items() if not k.startswith("_")}
    return copy(template, folder / "fresh", version, **answers)


def differences(updated: Path, fresh: Path) -> dict[str, str]:
    """What an update left otherwise than a fresh render, as a diff for each file."""
    ours, theirs = tree(updated), tree(fresh)
    return {
        name: "\n".join(
            unified_diff(
                theirs.get(name, b"").decode("utf-8", "replace").splitlines(),
                ours.get(name, b"").decode("utf-8", "replace").splitlines(),
                f"fresh/{name}",
                f"updated/{name}",
                lineterm="",
            )
        )
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    }


def check_update(project: Path) -> int:
    """0: current; 2: a newer release exists."""
    return copier_command("check-update", "--quiet", cwd=project, check=False).returncode


@every_hop
def test_an_update_equals_a_fresh_render(
    old: str, new: str, framework: str, template: Path, tmp_path: Path, api: Api
) -> None:
    """By the installed command, as people run it."""
    project = copy(template, tmp_path / "project", old, framework=framework)
    before = pins(project)
    of_the_person = {name: (project / name).read_bytes() for name in NEVER_UPDATED}
    assert check_update(project) == 2
    copier_command("update", "--trust", "--defaults", cwd=project, env=api.env())
    assert api.requests == []
    assert unmerged(project) == []
    assert pins(project) == before
    assert check_update(project) == 0
    expected = fresh(template, tmp_path, project, new)
    for name, content in of_the_person.items():
        assert (project / name).read_bytes() == content
        (expected / name).write_bytes(content)
    assert differences(project, expected) == {}


# What people do to a project. Each edit is of lines that the releases so far left alone.

OWN_VIEW = '''\
"""A view of our own."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse


def own(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"mine": "yes"})
'''
OWN_ROUTE = '''\
"""A route of our own."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()


@router.get("/own")
async def own() -> dict[str, str]:
    return {"mine": "yes"}
'''
# By framework: file, what stands there (nothing: at its end), and what a person makes of it.
LINES: dict[str, list[tuple[str, str, str]]] = {
    "fastapi": [
        ("src/app/own.py", "", OWN_ROUTE),
        ("src/app/main.py", "from . import caller\n", "from . import caller, own\n"),
        (
            "src/app/main.py",
            "    app.include_router(router)\n",
            "    app.include_router(router)\n    app.include_router(own.router)\n",
        ),
    ],
    "django": [
        ("src/app/own.py", "", OWN_VIEW),
        ("src/app/urls.py", "from . import views\n", "from . import own, views\n"),
        ("src/app/urls.py", "urlpatterns = [\n", 'urlpatterns = [\n    path("own", own.own),\n'),
    ],
}
PYTHON = [
    ("src/inference/models/own.py", "", '"""What we add to the models."""\n'),
    ("pyproject.toml", "dependencies = [\n", 'dependencies = [\n    "rich>=13",\n'),
    (".env.example", "\nDAILY_PREDICTIONS=2000\n", "\nDAILY_PREDICTIONS=50\n"),
]
TYPESCRIPT = [
    ("src/app/own/route.ts", "", "export const GET = () => Response.json({ mine: true });\n"),
    ("src/lib/caller.ts", "export const ANONYMOUS = true;\n", "export const ANONYMOUS = false;\n"),
    ("package.json", '  "scripts": {\n', '  "scripts": {\n    "own": "next info",\n'),
    (".env.example", "\nDAILY_PREDICTIONS=2000\n", "\nDAILY_PREDICTIONS=50\n"),
]
EVERYWHERE = [
    (".gitignore", "", "# Ours\n/scratch/\n"),
    ("notes.md", "", "Ours.\n"),
]
DELETED = "AGENTS.md"
# git does not see these: what a person, a database and a storage keep.
IGNORED = {
    ".env": b"REPLICATE_API_TOKEN=r8_mine\n",
    ".env.local": b"REPLICATE_API_TOKEN=r8_mine\n",
    ".claude/settings.local.json": b'{"mine": true}\n',
    "var/app.db": b"SQLite format 3\x00",
    "var/outputs/kept/0.png": b"\x89PNG",
}


def edit(project: Path, framework: str) -> dict[str, list[str]]:
    """Edit as people do, and commit; returns the lines that must outlive an update, by file."""
    language = PYTHON if (project / "pyproject.toml").exists() else TYPESCRIPT
    kept: dict[str, list[str]] = {}
    for name, there, ours in [*LINES.get(framework, []), *language, *EVERYWHERE]:
        path = project / name
        text = path.read_text("utf-8") if path.exists() else ""
        assert there in text, f"{name} no longer holds {there!r}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(there, ours, 1) if there else text + ours, "utf-8")
        kept.setdefault(name, []).append(ours)
    for name, content in IGNORED.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(content)
    (project / DELETED).unlink()
    commit_all(project, "Our edits")
    return kept


def assert_kept(project: Path, kept: dict[str, list[str]]) -> None:
    for name, lines in kept.items():
        text = (project / name).read_text("utf-8")
        assert [line for line in lines if line not in text] == [], name
    for name, content in IGNORED.items():
        assert (project / name).read_bytes() == content, name
    assert not (project / DELETED).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "answers"), rows())
def test_edits_outlive_an_update_with_any_answers(
    old: str,
    new: str,
    answers: dict[str, Any],
    template: Path,
    tmp_path: Path,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = copy(template, tmp_path / "project", old, **answers)
    before = pins(project)
    kept = edit(project, answers["framework"])
    update_with_token(project, new, api, monkeypatch)
    assert unmerged(project) == []
    git(project, "diff", "--check")
    assert pins(project) == before
    assert_kept(project, kept)
    if new == NEXT:
        assert answers_of(project)[RENAMED] == answers["storage"]
        assert "storage" not in answers_of(project)
        assert (project / ADDED).is_file()
    # Where nobody touched anything, it is a fresh render.
    expected = fresh(template, tmp_path, project, new)
    assert differences(project, expected).keys() <= {*kept, *IGNORED, DELETED}


def ends() -> list[tuple[str, str]]:
    """For each framework its first release and the newest: what lies between is no other render."""
    firsts = {framework: old for old, _, framework in reversed(HOPS)}
    found = {(old, framework) for framework, old in firsts.items()}
    return sorted(found | {(NEWEST, framework) for framework in firsts})


@pytest.mark.slow
@pytest.mark.parametrize(("old", "framework"), ends())
def test_an_edited_project_passes_its_own_checks_after_an_update(
    old: str,
    framework: str,
    upstream: Path,
    tmp_path: Path,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = copy(upstream, tmp_path / "project", old, framework=framework)
    kept = edit(project, framework)
    update_with_token(project, PRESENT, api, monkeypatch)
    assert_kept(project, kept)
    checked(project)


def test_a_conflict_is_visible(upstream_next: Path, tmp_path: Path) -> None:
    project = copy(upstream_next, tmp_path / "project", PRESENT)
    readme = project / SHARED
    first, *rest = readme.read_text("utf-8").splitlines(keepends=True)
    readme.write_text("".join(["# Our own title\n", *rest]), "utf-8")
    commit_all(project, "Our title")
    update(project, NEXT)
    assert unmerged(project) == [SHARED]
    text = readme.read_text("utf-8")
    assert "<<<<<<< " in text
    assert "# Our own title" in text
    assert f"{first.rstrip()} (next release)" in text


# A moved file takes along what people edited in it

MOVED_FROM, MOVED_TO = "src/app/guard.py", "src/app/middleware.py"
BEFORE_THE_MOVE = "1.1.0"


@pytest.mark.parametrize("below", [".", pytest.param("services/pictures", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("there", "ours", "conflict"),
    [
        ("        problem.headers,\n", '        {**problem.headers, "X-Ours": "1"},\n', False),
        ("BODY_MAX_BYTES = 2 * 2**20\n", "BODY_MAX_BYTES = 4 * 2**20\n", True),
    ],
    ids=["merged", "conflict"],
)
def test_a_moved_file_takes_edits_along(
    below: str,
    there: str,
    ours: str,
    conflict: bool,
    upstream: Path,
    tmp_path: Path,
) -> None:
    """Also in a project that is a folder of a larger repository."""
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    project = repository / below
    options: dict[str, Any] = {"defaults": True, "unsafe": True, "quiet": True}
    copier.run_copy(str(upstream), project, vcs_ref=BEFORE_THE_MOVE, **options)
    text = (project / MOVED_FROM).read_text("utf-8")
    assert there in text
    (project / MOVED_FROM).write_text(text.replace(there, ours), "utf-8")
    commit_all(repository, "Ours")
    done = copier_command("update", "--trust", "--defaults", cwd=project)
    assert not (project / MOVED_FROM).exists()
    assert ours in (project / MOVED_TO).read_text("utf-8")
    listed = git(repository, "diff", "--name-only", "--diff-filter=U").split()
    assert set(listed) == ({str(Path(below, MOVED_TO))} if conflict else set())
    assert ("changed the same lines" in done.stderr) == conflict


def test_a_deleted_file_that_moved_stays_away(upstream: Path, tmp_path: Path) -> None:
    project = copy(upstream, tmp_path / "project", BEFORE_THE_MOVE)
    (project / MOVED_FROM).unlink()
    commit_all(project, "Without it")
    update(project, PRESENT)
    assert not (project / MOVED_FROM).exists()
    assert not (project / MOVED_TO).exists()


# Bad states: one line that says the way out, and nothing changes


def _stale(project: Path) -> None:
    (project / "README.md").write_text("changed and not committed\n", "utf-8")


def _nothing(project: Path) -> None:
    pass


def _no_git(project: Path) -> None:
    shutil.rmtree(project / ".git")


def _no_answers(project: Path) -> None:
    (project / ".copier-answers.yml").unlink()
    commit_all(project, "Without answers")


def _older_pins(project: Path) -> None:
    """As if a release had kept hashes only."""
    answers = answers_of(project)
    answers["replicate_pins"] = {
        name: pin["version"] for name, pin in answers["replicate_pins"].items()
    }
    (project / ".copier-answers.yml").write_text(yaml.safe_dump(answers), "utf-8")
    commit_all(project, "Older answers")


TRUSTED = ("--trust", "--defaults")


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (_stale, TRUSTED, "commit or stash"),
        (_nothing, ("--defaults",), "--trust"),
        (_nothing, ("--trust",), "nteractive"),
        (_no_git, TRUSTED, "git-tracked subprojects"),
        (_no_answers, TRUSTED, ".copier-answers.yml"),
        (_older_pins, TRUSTED, "copier recopy"),
    ],
    ids=["dirty tree", "no trust", "no terminal", "no git", "no answers", "older answers"],
)
def test_a_refused_update_says_why(
    spoil: Callable[[Path], None],
    options: tuple[str, ...],
    said: str,
    upstream_next: Path,
    tmp_path: Path,
) -> None:
    project = copy(upstream_next, tmp_path / "project", PRESENT)
    spoil(project)
    before = tree(project)
    command = ("update", *options, f"--vcs-ref={NEXT}", "project")
    done = copier_command(*command, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(project) == before


def test_older_answers_have_a_way_out(upstream: Path, tmp_path: Path) -> None:
    """The one that the message names."""
    project = copy(upstream, tmp_path / "project", PRESENT)
    expected = tree(project)
    _older_pins(project)
    copier_command("recopy", *TRUSTED, "--overwrite", cwd=project)
    assert tree(project) == expected


def test_releases_are_commits_of_this_repository_oldest_first() -> None:
    commits = [*releases().values(), "HEAD"]
    for older, newer in pairwise(commits):
        assert len(older) == 40
        git(ROOT, "merge-base", "--is-ancestor", older, newer)


def changes_of(changelog: str, version: str) -> str:
    """What the changelog says of a release."""
    return changelog.partition(f"\n## {version}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(("version", "commit"), releases().items())
def test_what_was_said_of_a_release_stays(version: str, commit: str) -> None:
    """A later change is entered under `## Unreleased`."""
    said = changes_of(git(ROOT, "show", f"{commit}:CHANGELOG.md"), version)
    assert said
    assert changes_of((ROOT / "CHANGELOG.md").read_text("utf-8"), version) == said


def test_a_release_is_one_command(tmp_path: Path) -> None:
    clone = snapshot(tmp_path / "clone")
    git(clone, "config", "user.name", "Test")
    git(clone, "config", "user.email", "test@example.com")
    changelog = clone / "CHANGELOG.md"
    said = changelog.read_text("utf-8").replace("## Unreleased\n", "## Other\n")
    changelog.write_text(said.replace("\n## ", "\n## Unreleased\n\n- Planted.\n\n## ", 1), "utf-8")
    command = (sys.executable, "run.py", "release")
    refused = run(*command, "999.0.0", cwd=clone, check=False)
    assert "Commit or stash first" in refused.stderr
    commit_all(clone, "A change")
    for version in ("1.0.0", "999", "v999.0.0", NEWEST):
        refused = run(*command, version, cwd=clone, check=False)
        assert refused.returncode == 1
        assert "write one like" in refused.stderr
    done = run(*command, "999.0.0", cwd=clone)
    released = git(clone, "rev-parse", "999.0.0").strip()
    assert released in done.stdout
    assert f'"999.0.0" = "{released}"\n' in (clone / "releases.toml").read_text("utf-8")
    assert "- Planted." in changes_of(git(clone, "show", "999.0.0:CHANGELOG.md"), "999.0.0")
    assert '\nversion = "999.0.0"\n' in git(clone, "show", "999.0.0:pyproject.toml")
    assert git(clone, "status", "--porcelain") == ""
    refused = run(*command, "999.0.1", cwd=clone, check=False)
    assert "has no `## Unreleased`" in refused.stderr
