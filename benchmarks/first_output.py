"""Seconds from `copier copy` to the first stored output of a new project, on the emulator.

    .venv/bin/python benchmarks/first_output.py [framework] [runs]

Prints the median of each step over the runs (3 by default; fastapi), with warm caches: one run
before them is not counted. Ends with an error if no output was stored.
"""

from __future__ import annotations

import http.cookiejar
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from run import pip_indexes  # noqa: E402
from tests.node import BIN as NODE_BIN  # noqa: E402
from tests.node import is_node  # noqa: E402
from tests.rendering import clean_env, copier_command, free_port, snapshot  # noqa: E402

# What the README says, for either language; both programs are in the environment of the tests.
UV = (["uv", "sync", "--quiet"], ["uv", "run", "dev"])
NPM = (["npm", "ci", "--silent"], ["npm", "run", "dev", "--"])


def wait_for(url: str, seconds: float = 120) -> None:
    """Return as soon as a URL answers; TimeoutError after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(url)


def first_output(url: str) -> bytes:
    """Make a prediction of the default official model, wait until it is stored, and fetch it."""
    jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    client = urllib.request.build_opener(jar)
    body = json.dumps({"model": "flux-schnell", "input": {"prompt": "a lighthouse"}}).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{url}/api/predictions", data=body, headers=headers)
    prediction: dict[str, Any] = json.load(client.open(asked, timeout=60))
    while prediction["storage"] != "stored":
        if prediction["storage"] != "pending" and prediction["completed_at"]:
            raise RuntimeError(f"nothing was stored: {prediction}")
        waited = f"{url}/api/predictions/{prediction['id']}?wait=20"
        prediction = json.load(client.open(waited, timeout=60))
    content: bytes = client.open(f"{url}{prediction['output'][0]}", timeout=60).read()
    return content


def once(template: Path, framework: str, folder: Path) -> dict[str, float]:
    """The seconds of each step of one run."""
    project, port, emulator = folder / "project", free_port(), free_port()
    steps: dict[str, float] = {}
    last = time.perf_counter()

    def done(step: str) -> None:
        nonlocal last
        now = time.perf_counter()
        steps[step], last = now - last, now

    options = ("--trust", "--defaults", "--quiet", "--vcs-ref", "HEAD", f"-dframework={framework}")
    copier_command("copy", *options, template, project, cwd=folder)
    done("copier copy")
    other = ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")  # as a new user's machine has them: unset
    env = {k: v for k, v in (pip_indexes() | clean_env()).items() if k not in other}
    env["PATH"] = f"{NODE_BIN}{os.pathsep}{env['PATH']}"
    install, start = NPM if is_node(project) else UV
    subprocess.run(install, cwd=project, env=env, check=True)
    done("install")
    command = [*start, "--port", str(port), "--emulator-port", str(emulator)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=project, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz")
        done("start")
        if not first_output(f"http://127.0.0.1:{port}"):
            raise RuntimeError("the stored output is empty")
        done("first output")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
    return steps


def main() -> None:
    framework, runs = (*sys.argv[1:], *("fastapi", "3")[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        template = snapshot(Path(folder, "template"))
        taken = []
        for number in range(int(runs) + 1):
            place = Path(folder, str(number))
            place.mkdir()
            taken.append(once(template, framework, place))
    counted = taken[1:]
    for step in counted[0]:
        print(f"{step:<14}{statistics.median(one[step] for one in counted):7.2f} s")
    print(f"{'all':<14}{statistics.median(sum(one.values()) for one in counted):7.2f} s")


if __name__ == "__main__":
    main()
