"""The processes of the service on FastAPI: ``python -m app web | worker | migrate``."""

from __future__ import annotations

import sys
from pathlib import Path

from inference import processes
from inference.settings import load_settings

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


def serve(host: str, port: int) -> None:
    """Run the web process until it is told to stop."""
    import uvicorn

    app = create_app()
    proxies = app.state.service.settings.forwarded_allow_ips
    uvicorn.run(
        app, host=host, port=port, forwarded_allow_ips=proxies, access_log=False, log_config=None
    )


if __name__ == "__main__":
    sys.exit(processes.run(build_service, migrate, serve))
