#!/usr/bin/env python3
"""The commands of this repository, for a machine with Python >= 3.11, pip and git only.

    python3 run.py new DEST [copier's options]   render a project (asks; --defaults does not)
    python3 run.py plan [copier's options]       what it would be, as JSON; nothing is written
    python3 run.py test [--all] [pytest's]       the short test suite, or the whole one
    python3 run.py dev DEST [copier's options]   render a project whose plain files are links
    python3 run.py lock [--upgrade] [uv's]       make the hashed requirements again
    python3 run.py release VERSION               commit and tag a release, to be pushed

What they need is installed into .venv from requirements/*.txt, checked by hash, when it changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
LOCKS = {"render": ROOT / "requirements/render.txt", "test": ROOT / "requirements/test.txt"}
UV_LOCK = ROOT / "requirements/uv.txt"


def pip_indexes() -> dict[str, str]:
    """Where pip was told to find packages, in uv's words: uv does not read pip's settings.

    Any index may serve any file: each is checked by its hash.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    ).stdout
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX"}
    found: dict[str, str] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        # the environment is listed last and wins, as in pip
        word = key.rpartition(".")[2]
        values = " ".join(shlex.split(value)).split()
        if word in names:
            found[names[word]] = " ".join(values)
        elif word == "find-links":
            found["UV_FIND_LINKS"] = ",".join(values)
    if found:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found


def digest(lock: Path) -> str:
    """What identifies an installed lock: its content and the Python it is for."""
    return hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()


def uv(*arguments: str | Path, env: dict[str, str] | None = None) -> None:
    """Run uv, which is installed into .venv first if it is not there."""
    stamp = VENV / "uv.installed"
    wanted = digest(UV_LOCK)
    if not stamp.exists() or stamp.read_text() != wanted:
        # --without-pip: Debian's Python has no ensurepip; the machine's pip can install into it
        create = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)]
        subprocess.run(create, check=True)
        install = ["install", "--quiet", "--no-deps", "--require-hashes", "-r", str(UV_LOCK)]
        subprocess.run([sys.executable, "-m", "pip", "--python", str(VENV), *install], check=True)
        stamp.write_text(wanted)
    subprocess.run([str(BIN / "uv"), *map(str, arguments)], check=True, cwd=ROOT, env=env)


def install(name: str) -> None:
    """Bring .venv to a lock, unless it, or the larger one for the tests, is there already."""
    stamp = VENV / "installed"
    held = stamp.read_text() if stamp.exists() else ""
    enough = LOCKS if name == "render" else [name]
    if held in [digest(LOCKS[one]) for one in enough]:
        return
    print(f"Installing {LOCKS[name].relative_to(ROOT)} into .venv …", file=sys.stderr)
    stamp.unlink(missing_ok=True)
    options = ["--python", str(VENV), "--quiet", "--require-hashes"]
    if name == "test":  # whose many short processes write no bytecode themselves
        options.append("--compile-bytecode")
    uv("pip", "install", *options, "-r", LOCKS[name], env={**pip_indexes(), **os.environ})
    stamp.write_text(digest(LOCKS[name]))


def copy(destination: str, options: list[str]) -> list[str]:
    """The command that renders this checkout as it is, not only what is committed, or a ref."""
    install("render")
    chosen = any(one == "-r" or one.startswith("--vcs-ref") for one in options)
    ref = [] if chosen else ["--vcs-ref", "HEAD"]
    return [str(BIN / "copier"), "copy", "--trust", *ref, *options, str(ROOT), destination]


def new(arguments: list[str]) -> int:
    """Render a project."""
    destination, *options = arguments
    return subprocess.run(copy(destination, options)).returncode


def plan(options: list[str]) -> int:
    """Print the answers and pins that a render would have: JSON, good as a --data-file."""
    with tempfile.TemporaryDirectory() as folder:
        command = copy(str(Path(folder, "planned")), ["--pretend", "--defaults", *options])
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
    *said, last = done.stderr.rstrip().splitlines() or [""]
    if done.returncode:
        print(*said, last, sep="\n", file=sys.stderr)
    else:
        print(last)
    return done.returncode


def dev(arguments: list[str]) -> int:
    """Render, then replace each file that is the same as its source by a link to it."""
    if code := new(arguments):
        return code
    project = Path(arguments[0])
    node = (project / "package.json").exists()
    linked = 0
    for source in sorted((ROOT / "template").rglob("*")):
        # a source lies in the root layer or in one named like "{{ python }}"
        parts = source.relative_to(ROOT / "template").parts
        made = project.joinpath(*(parts[1:] if parts[0].startswith("{{") else parts))
        if source.is_file() and made.is_file() and made.read_bytes() == source.read_bytes():
            made.unlink()
            try:
                # Node.js and Next.js take a symbolic link for the file that it leads to.
                made.hardlink_to(source) if node else made.symlink_to(source)
                linked += 1
            except OSError:  # Windows without the right to make links, or another disk
                made.write_bytes(source.read_bytes())
    print(f"{linked} files of {project} are links into template/.", file=sys.stderr)
    return 0


def test(arguments: list[str]) -> int:
    """Run pytest on all cores; its arguments are passed on."""
    install("test")
    parallel = ["-n", "auto", "--dist", "worksteal"]
    return subprocess.run(
        [str(BIN / "python"), "-m", "pytest", *parallel, *arguments], cwd=ROOT
    ).returncode


def lock(arguments: list[str]) -> int:
    """Resolve the dependency groups for every platform; no index address is written."""
    written = ["--universal", "--generate-hashes", "--python-version", "3.11", "--quiet"]
    command = ["--custom-compile-command", "python3 run.py lock", *arguments]
    special = {
        "test": ["--constraints", str(LOCKS["render"])],  # it renders as people do
        "sdk-1": ["--no-deps"],  # it is installed beside the test environment, which has them
    }
    for name in ("uv", "render", "test", "sdk-1"):
        output = ROOT / f"requirements/{name}.txt"
        group = ["--group", f"pyproject.toml:{name}", *special.get(name, [])]
        uv("pip", "compile", *written, *group, *command, "--output-file", output)
    lock_packages(upgrade="--upgrade" in arguments)
    return 0


def lock_packages(*, upgrade: bool) -> None:
    """Resolve the npm packages of a Next.js project; no registry's address is written."""
    install("test")  # brings Node.js
    layer = ROOT / "template" / "{{ nextjs }}"
    slug, name = "{{ project_slug | replicate_json }}", '"project"'
    lock = layer / "package-lock.json.jinja"
    env = {**os.environ, "PATH": os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])}
    command = ["npm", "install", "--package-lock-only", "--omit-lockfile-registry-resolved"]
    with tempfile.TemporaryDirectory() as folder:
        package, made = Path(folder, "package.json"), Path(folder, "package-lock.json")
        asked = (layer / "package.json.jinja").read_text().replace(slug, name)
        package.write_text(asked.replace("{{ project_name | replicate_json }}", name))
        if not upgrade:
            made.write_text(lock.read_text().replace(slug, name))
        subprocess.run([str(BIN / command[0]), *command[1:]], check=True, cwd=folder, env=env)
        lock.write_text(made.read_text().replace(name, slug))


def release(arguments: list[str]) -> int:
    """Commit and tag a release, then enter its commit in releases.toml, which cannot name itself.

    Nothing is pushed. When the push is refused: `git reset --hard origin/main`, pull, and again.
    """
    import tomllib  # not in the older Pythons that main() refuses

    version = " ".join(arguments)
    changes, project, listed = (
        ROOT / name for name in ("CHANGELOG.md", "pyproject.toml", "releases.toml")
    )
    text = changes.read_text("utf-8")
    with listed.open("rb") as file:
        latest = list(tomllib.load(file)["releases"])[-1]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version) or numbers(version) <= numbers(latest):
        sys.exit(f"{version} is no version after {latest}: write one like 1.2.0")
    if "## Unreleased\n" not in text:
        sys.exit("CHANGELOG.md has no `## Unreleased`: say there what an update does to a project")
    if git("status", "--porcelain"):
        sys.exit("Commit or stash first: a release is what is committed")
    changes.write_text(text.replace("## Unreleased\n", f"## {version}\n", 1), "utf-8")
    metadata = project.read_text("utf-8")
    line = re.compile(r'^version = ".*"$', re.MULTILINE)
    project.write_text(line.sub(f'version = "{version}"', metadata, count=1), "utf-8")
    git("commit", "-qam", f"Release {version}")
    commit = git("rev-parse", "HEAD")
    git("tag", version)
    with listed.open("a", encoding="utf-8") as file:
        file.write(f'"{version}" = "{commit}"\n')
    git("commit", "-qam", f"Enter release {version}")
    print(f"{version} is {commit}. Now: git push origin HEAD:main {version}")
    return 0


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def git(*arguments: str) -> str:
    """What git prints, of this checkout."""
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def main() -> int:
    """Run the named command; exit 2 and the usage for any other."""
    if sys.version_info < (3, 11):  # noqa: UP036, an older one may well try
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    commands = {"new": new, "plan": plan, "test": test, "dev": dev, "lock": lock}
    commands["release"] = release
    name, *arguments = sys.argv[1:] or [""]
    if name not in commands or (name in ("new", "dev", "release") and not arguments):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return commands[name](arguments)
    except subprocess.CalledProcessError as error:
        print(f"{shlex.join(map(str, error.cmd))}: exit {error.returncode}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
