"""Render the template, check what comes out, and run it: for all tests of the repository."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from pytest_copie.plugin import Copie

from tests.node import NODE, built, is_node, npx

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

# What would make a test spend money, or depend on the machine that runs it.
PRIVATE = ("REPLICATE_", "COPIER_", "AWS_", "GOOGLE_", "AZURE_", "VERCEL_")


def clean_env(**extra: str) -> dict[str, str]:
    """The environment without tokens and settings of the person who runs the tests."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(PRIVATE)}
    env["COPIER_SETTINGS_PATH"] = str(ROOT / "tests/copier-settings.yml")
    env["PATH"] = os.pathsep.join([str(BIN), env.get("PATH", os.defpath)])
    env["PYTHONIOENCODING"] = "utf-8"
    return {**env, **extra}


def run(
    *command: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a command with its output captured; an AssertionError shows it when `check` fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_env() if env is None else dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
    )
    if check and done.returncode != 0:
        shown = " ".join(str(part) for part in command)
        raise AssertionError(f"{shown}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def git(repository: Path, *arguments: str | Path) -> str:
    """Run git as a fixed author, so that no setting of the machine matters; returns its output."""
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    settings = ("-c", "commit.gpgsign=false", "-c", "core.autocrlf=false")
    return run("git", *identity, *settings, *arguments, cwd=repository).stdout


def commit_all(repository: Path, message: str) -> str:
    """Commit everything in a repository (made if it is none yet); returns the new commit."""
    if not (repository / ".git").exists():
        git(repository, "init", "-q", "-b", "main")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "--no-verify", "--allow-empty", "-m", message)
    return git(repository, "rev-parse", "HEAD").strip()


def snapshot(destination: Path) -> Path:
    """Clone the template, with what is not committed yet: a clean repository that holds still.

    It has no tags: a test says itself which releases there are.
    """
    git(ROOT, "clone", "-q", "--no-checkout", "--no-tags", ROOT, destination)
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, destination / name)
    git(destination, "add", "-A")
    if git(destination, "status", "--porcelain").strip():
        commit_all(destination, "The working tree")
    return destination


@functools.cache
def template() -> Path:
    """The snapshot that all renders of this process come from."""
    folder = tempfile.TemporaryDirectory(prefix="template-", ignore_cleanup_errors=True)
    _keep.append(folder)
    return snapshot(Path(folder.name, "template"))


_keep: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


@functools.cache
def questions() -> Mapping[str, Mapping[str, Any]]:
    """The declared questions of copier.yml, by name, without those that are only derived."""
    declared = yaml.safe_load((template() / "copier.yml").read_text("utf-8"))
    return {
        name: question
        for name, question in declared.items()
        if not name.startswith("_") and question.get("when", True) is not False
    }


def render(folder: Path, **answers: Any) -> Path:
    """Render a project into a new folder below `folder`; unknown answers are refused."""
    if unknown := sorted(answers.keys() - questions().keys()):
        raise ValueError(f"no such questions: {', '.join(unknown)}")
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="render-", dir=folder))
    result = Copie(template(), made, made / "unused").copy(answers)
    # pytest-copie only records what went wrong
    if result.exception is not None:
        raise result.exception
    assert result.project_dir is not None
    return result.project_dir


@dataclass
class Renders:
    """Renders that tests share: made once for each set of answers, not to be changed."""

    folder: Path

    def __post_init__(self) -> None:
        self._made: dict[str, Path] = {}

    def __call__(self, **answers: Any) -> Path:
        """The shared render of these answers (the defaults for those not given)."""
        key = repr(sorted(answers.items()))
        if key not in self._made:
            self._made[key] = render(self.folder, **answers)
        return self._made[key]

    def copy(self, destination: Path, **answers: Any) -> Path:
        """A copy of that render, for a test that changes it."""
        shutil.copytree(self(**answers), destination, symlinks=True)
        return destination


def copier_command(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run the installed `copier`, as people do."""
    return run(BIN / "copier", *arguments, cwd=cwd, env=env, check=check)


def update(project: Path, ref: str | None = None, **data: Any) -> None:
    """Update a committed project to a tag (the newest one by default) as `copier update` does."""
    copier.run_update(
        project,
        data=data,
        defaults=True,
        overwrite=True,
        unsafe=True,
        quiet=True,
        vcs_ref=ref,
    )


def answers_of(project: Path) -> dict[str, Any]:
    """The answers that a project keeps."""
    loaded = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def tree(project: Path) -> dict[str, bytes]:
    """Every file of a project with its content; git's own and what tools leave are left out."""
    left = {".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "var", ".venv"}
    left |= {"node_modules", ".next"}
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in sorted(project.rglob("*"))
        if path.is_file() and not left & set(path.relative_to(project).parts)
    }


def releases() -> dict[str, str]:
    """Version and full commit of every release, oldest first; empty before the first one."""
    with (ROOT / "releases.toml").open("rb") as file:
        found = tomllib.load(file).get("releases", {})
    return {str(version): str(commit) for version, commit in found.items()}


# What `checked` runs in a rendered project, by name.
CHECKS: Mapping[str, Sequence[str]] = {
    "format": ("ruff", "format", "--check", "--no-cache", "."),
    "lint": ("ruff", "check", "--no-cache", "."),
    "types": ("mypy",),
    "tests": ("pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:copie"),
}
# What Django's next two releases drop is an error, by the names that every Django has for it.
DJANGO = [
    f"-Werror::django.utils.deprecation.Removed{when}NextVersionWarning" for when in ("In", "After")
]
NODE_CHECKS: Mapping[str, Sequence[Sequence[str]]] = {
    "format": [("biome", "format")],
    "lint": [("biome", "check")],
    "types": [("next", "typegen"), ("tsc",)],
    "tests": [("vitest", "run")],
}


def project_env(project: Path, **extra: str) -> dict[str, str]:
    """The environment of a rendered project that runs on our interpreter, not its own."""
    cache = Path(
        tempfile.gettempdir(), f"mypy-rendered-{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    )
    return clean_env(
        PYTHONPATH=str(project / "src"), MYPY_CACHE_DIR=str(cache), PYTHONDONTWRITEBYTECODE="1"
    ) | dict(extra)


def checked(project: Path, *only: str) -> None:
    """Run a project's own formatter, linter, type checker and tests (or `only` some of them).

    Raises AssertionError with the tool's output for the first that complains.
    """
    if is_node(project):
        for name in only or NODE_CHECKS:
            for command in NODE_CHECKS[name]:
                npx(project, *command)
        return
    for name in only or CHECKS:
        module, *arguments = CHECKS[name]
        if name == "tests" and (project / "manage.py").exists():
            arguments += DJANGO
        run(sys.executable, "-m", module, *arguments, cwd=project, env=project_env(project))


def edited(file: Path, right: str, instead: str) -> None:
    """Put something else in a file, as a person or a mistake would."""
    text = file.read_text("utf-8")
    assert right in text
    file.write_text(text.replace(right, instead), "utf-8")


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Running:
    """A rendered project at work: web server, worker and emulator as real processes."""

    project: Path
    url: str
    emulator: str
    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """All that the processes have printed."""
        return self.log.read_text("utf-8", errors="replace")


@contextlib.contextmanager
def running(project: Path, *arguments: str, **env: str) -> Iterator[Running]:
    """Start a project with its one development command, and wait until it answers /healthz.

    Raises AssertionError with what was printed when a process ends, or nothing answers for 60 s.
    """
    port, emulator = free_port(), free_port()
    log = project.parent / f"{project.name}-{port}.log"
    node = is_node(project)
    start = [NODE, built(project) / "dev/main.ts", "--built"] if node else [sys.executable, "dev"]
    command = [*start, "--port", str(port), "--emulator-port", str(emulator)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=project,
            env=project_env(project, **env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(url, process, log)
        yield Running(project, url, f"http://127.0.0.1:{emulator}", process, log)
    finally:
        _stop(process)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while not _is_healthy(url):
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"{url} did not come up:\n{log.read_text('utf-8', 'replace')}")
        time.sleep(0.1)


@contextlib.contextmanager
def serving(command: Sequence[str | Path], folder: Path, env: Mapping[str, str]) -> Iterator[Path]:
    """Run one process until the block ends; gives the file of what it prints."""
    log = folder / "process.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield log
    finally:
        process.terminate()
        process.wait(15)


def until_healthy(url: str, log: Path) -> None:
    """Wait until a service answers; AssertionError with its log after 60 s."""
    end = time.monotonic() + 60
    while not _is_healthy(url):
        assert time.monotonic() < end, log.read_text("utf-8", "replace")
        time.sleep(0.1)


def _is_healthy(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{url}/healthz", timeout=5).status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the processes to end, and end them after 15 s."""
    if os.name == "nt":
        process.terminate()
        process.wait(15)
        return
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)


@pytest.fixture(scope="session")
def renders(tmp_path_factory: pytest.TempPathFactory) -> Renders:
    """Renders shared by the tests of a process."""
    return Renders(tmp_path_factory.mktemp("renders"))


@pytest.fixture(scope="session")
def default_project(renders: Renders) -> Path:
    """The render of all defaults; not to be changed."""
    return renders()


@pytest.fixture(scope="session")
def app(renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The default project at work, shared: tests must not depend on what others leave in it."""
    project = renders.copy(tmp_path_factory.mktemp("running") / "project")
    with running(project) as started:
        yield started
