"""``python -m app web | worker | migrate``: the processes; each imports what it needs only."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable

from .logs import configure_logs
from .service import Service
from .settings import Settings, SettingsError, load_settings

Build = Callable[[Settings], Service]


def work(service: Service) -> None:
    """Run a worker until the process is told to stop."""
    from .worker import run_worker

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_worker(service, stop)


def run(build: Build, migrate: Callable[[], None], serve: Callable[[str, int], None]) -> int:
    """Run the process that the command line names; returns 2 where the settings lack something.

    ``serve`` takes host and port, and returns when it was told to stop.
    """
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument("process", choices=["web", "worker", "migrate"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        if arguments.process == "migrate":
            migrate()
        elif arguments.process == "web":
            serve(arguments.host, arguments.port)
        else:
            settings = load_settings()
            configure_logs(json=not settings.development)
            work(build(settings))
    except SettingsError as error:
        print(f"The settings are not complete:\n{error}", file=sys.stderr)
        return 2
    return 0
