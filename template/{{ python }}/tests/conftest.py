"""A service for the tests: a database and a storage in a temporary folder, and the emulator."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from app.main import build_service
from dev.emulator import WEBHOOK_SECRET, create_app
from inference.gateway import Gateway
from inference.service import Service
from inference.settings import Settings
from inference.worker import Worker


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """The emulator's base URL, with /v1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(create_app(), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            thread.join(timeout=0.01)
        yield f"http://127.0.0.1:{port}/v1"
        server.should_exit = True
        thread.join()


@pytest.fixture
def settings(emulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Development settings as environment variables, so that the application reads the same."""
    values = {
        "ENVIRONMENT": "development",
        "ENV_FILE": os.devnull,
        "REPLICATE_API_TOKEN": "r8_test",
        "REPLICATE_BASE_URL": emulator,
        "REPLICATE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "DATABASE_URL": f"sqlite:///{tmp_path}/app.db",
        "STORAGE_URL": str(tmp_path / "outputs"),
        "PUBLIC_URL": "",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.fixture
def service(settings: Settings) -> Service:
    from app.__main__ import migrate

    migrate()
    return build_service(settings)


@pytest.fixture
def work(service: Service) -> Iterator[Worker]:
    """A worker in a thread of its own, which stops with the test."""
    stop = threading.Event()
    started: list[Worker] = []

    async def run() -> None:
        stopped = asyncio.Event()
        started.append(Worker(service, Gateway(service.settings)))
        task = asyncio.create_task(started[0].run(stopped))
        while not stop.is_set():
            await asyncio.sleep(0.05)
        stopped.set()
        await task

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    while not started:
        thread.join(timeout=0.01)
    yield started[0]
    stop.set()
    thread.join()
