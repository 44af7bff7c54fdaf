"""The processes of the service on Django: ``python -m app web | worker | migrate``."""

from __future__ import annotations

import socket
import sys

from inference import processes
from inference.logs import configure_logs
from inference.settings import load_settings

from .main import build_service, service, set_up


def migrate() -> None:
    """Bring the database to the present schema."""
    alias = set_up(load_settings(complete=False).database_url)
    from django.core.management import call_command

    call_command("migrate", database=alias, verbosity=0)


def serve(host: str, port: int) -> None:
    """Run the web process until it is told to stop."""
    settings = service().settings  # what they lack is said before a server starts
    configure_logs(json=not settings.development)
    try:  # granian would share a port that is taken
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        sys.exit(str(error))
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
        log_dictconfig={"loggers": {"_granian": {"propagate": True}}},
        log_level=LogLevels.error,  # it warns of that many threads
    ).serve()


if __name__ == "__main__":
    sys.exit(processes.run(build_service, migrate, serve))
