"""``python -m app web | worker | migrate``: the processes; each imports what it needs only."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from inference.logs import configure_logs
from inference.settings import SettingsError, load_settings

from .main import build_service, service, set_up


def migrate() -> None:
    """Bring the database to the present schema."""
    alias = set_up(load_settings(complete=False).database_url)
    from django.core.management import call_command

    call_command("migrate", database=alias, verbosity=0)


def work() -> None:
    """Run a worker until it is told to stop."""
    from inference.worker import run_worker

    settings = load_settings()
    configure_logs(json=not settings.development)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_worker(build_service(settings), stop)


def serve(host: str, port: int) -> None:
    """Run the web process until it is told to stop."""
    service()  # what the settings lack is said before a server starts
    from granian.constants import Interfaces
    from granian.log import LogLevels
    from granian.server import Server

    from .waiting import THREADS

    Server(
        "app.wsgi:application",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=THREADS,
        workers_kill_timeout=25,  # a request that waits may take 20 s; none may hold up a stop
        log_level=LogLevels.warning,
    ).serve()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument("process", choices=["web", "worker", "migrate"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        if arguments.process == "migrate":
            migrate()
        elif arguments.process == "worker":
            work()
        else:
            serve(arguments.host, arguments.port)
    except SettingsError as error:
        print(f"The settings are not complete:\n{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
