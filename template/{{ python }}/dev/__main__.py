"""``uv run dev``: the emulator, the web process and a worker, with no token and no bill."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PROJECT = Path(__file__).absolute().parent.parent
TOKEN = "r8_emulator"


class Stopped(Exception):
    """One of the processes has ended, or cannot start."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--emulator-port", type=int, default=8787)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    url = f"http://127.0.0.1:{arguments.port}"
    api = f"http://127.0.0.1:{arguments.emulator_port}/v1"
    # Its own: a real worker must not find rows of ours to send, nor its limits count them.
    places = {"DATABASE_URL": "sqlite:///var/dev/app.db", "STORAGE_URL": "./var/dev/outputs"}
    environment = {
        **places,
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)]),
        "ENVIRONMENT": "development",
        "ENV_FILE": os.devnull,  # what stands in .env is for the real API
        "REPLICATE_API_TOKEN": TOKEN,
        "REPLICATE_BASE_URL": api,
        "PUBLIC_URL": url,
    }
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        running.append(subprocess.Popen([sys.executable, *command], cwd=PROJECT, env=environment))

    try:
        for option, port in vars(arguments).items():
            _free(port, f"--{option.replace('_', '-')}")
        start(str(PROJECT / "dev" / "emulator.py"), "--port", str(arguments.emulator_port))
        # Meanwhile, since both take a second to import what they need.
        migrate = [sys.executable, "-m", "app", "migrate"]
        subprocess.run(migrate, check=True, cwd=PROJECT, env=environment)
        secret = json.loads(_fetch(f"{api}/webhooks/default/secret", running))["key"]
        environment["REPLICATE_WEBHOOK_SECRET"] = secret
        start("-m", "app", "web", "--port", str(arguments.port))
        start("-m", "app", "worker")
        _fetch(f"{url}/healthz", running)
        print(
            f"\n  Open {url}  (on the emulator: no token, no bill; stop with Ctrl+C)\n", flush=True
        )
        while True:
            _check(running)
            time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
    except (Stopped, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _free(port: int, option: str) -> None:
    with socket.socket() as tried:
        if tried.connect_ex(("127.0.0.1", port)) == 0:
            raise Stopped(f"Port {port} is taken: give another one by {option}")


def _check(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.poll() is not None:
            raise Stopped(f"{process.args!r} ended with {process.returncode}")


def _fetch(url: str, running: list[subprocess.Popen[bytes]]) -> bytes:
    """Read the URL as soon as it answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    while True:
        _check(running)
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                body: bytes = reply.read()
                return body
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
