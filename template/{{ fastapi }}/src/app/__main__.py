"""``python -m app web | worker | migrate``: the processes of the service."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

import uvicorn
from alembic import command
from alembic.config import Config

from inference.logs import configure_logs
from inference.settings import SettingsError, load_settings

from .database import open_engine
from .main import build_service, create_app, run_worker


def migrate() -> None:
    """Bring the database to the present schema."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with open_engine(load_settings().database_url).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def work() -> None:
    """Run a worker until it is told to stop."""
    settings = load_settings()
    configure_logs(json=not settings.development)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_worker(build_service(settings), stop)


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
            app = create_app()
            uvicorn.run(
                app, host=arguments.host, port=arguments.port, access_log=False, log_config=None
            )
    except SettingsError as error:
        print(f"The settings are not complete:\n{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
