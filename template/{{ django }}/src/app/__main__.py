"""The processes of the service on Django: ``python -m app web | worker | migrate``."""

from __future__ import annotations

import sys

from inference import processes
from inference.settings import load_settings

from .main import build_service, service, set_up


def migrate() -> None:
    """Bring the database to the present schema."""
    alias = set_up(load_settings(complete=False).database_url)
    from django.core.management import call_command

    call_command("migrate", database=alias, verbosity=0)


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


if __name__ == "__main__":
    sys.exit(processes.run(build_service, migrate, serve))
