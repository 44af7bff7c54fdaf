"""``python -m app web | worker | migrate``: the processes; each imports what it needs only."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from inference.logs import configure_logs
from inference.settings import SettingsError, load_settings

from .main import build_service, create_app
from .tables import open_engine


def migrate() -> None:
    """Bring the database to the present schema."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with open_engine(load_settings(complete=False).database_url).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


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
    import uvicorn

    app = create_app()
    proxies = app.state.service.settings.forwarded_allow_ips
    uvicorn.run(
        app, host=host, port=port, forwarded_allow_ips=proxies, access_log=False, log_config=None
    )


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
