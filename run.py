#!/usr/bin/env python3
"""The commands of this repository, for a machine with Python >= 3.11, pip and git only.

    python3 run.py new DEST [copier's options]   render a project (asks; --defaults does not)
    python3 run.py test [--all] [pytest's]       the short test suite, or the whole one
    python3 run.py dev DEST [copier's options]   render a project whose plain files are links
    python3 run.py lock [--upgrade] [uv's]       make the hashed requirements again

What they need is installed into .venv from requirements/*.txt, checked by hash, when it changed.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
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


def new(arguments: list[str]) -> int:
    """Render this checkout as it is, what is not committed included, unless told a --vcs-ref."""
    install("render")
    chosen = any(one == "-r" or one.startswith("--vcs-ref") for one in arguments)
    ref = [] if chosen else ["--vcs-ref", "HEAD"]
    destination, *options = arguments
    command = ["copier", "copy", "--trust", *ref, *options, str(ROOT), destination]
    return subprocess.run([str(BIN / command[0]), *command[1:]]).returncode


def dev(arguments: list[str]) -> int:
    """Render, then replace each file that is the same as its source by a link to it."""
    if code := new(arguments):
        return code
    project = Path(arguments[0])
    linked = 0
    for source in sorted((ROOT / "template").rglob("*")):
        # a source lies in the root layer or in one named like "{{ python }}"
        parts = source.relative_to(ROOT / "template").parts
        made = project.joinpath(*(parts[1:] if parts[0].startswith("{{") else parts))
        if source.is_file() and made.is_file() and made.read_bytes() == source.read_bytes():
            made.unlink()
            try:
                made.symlink_to(source)
                linked += 1
            except OSError:  # Windows without the right to make links
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
    return 0


def main() -> int:
    """Run the named command; exit 2 and the usage for any other."""
    if sys.version_info < (3, 11):  # noqa: UP036, an older one may well try
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    commands = {"new": new, "test": test, "dev": dev, "lock": lock}
    name, *arguments = sys.argv[1:] or [""]
    if name not in commands or (name in ("new", "dev") and not arguments):
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
