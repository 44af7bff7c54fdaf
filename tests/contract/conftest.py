"""A rendered project at work, one for each framework, known by its address only.

CONTRACT_URL and CONTRACT_EMULATOR point the suite at a service that runs already on our emulator,
with MODELS and ENVIRONMENT as below; tests that need a service of their own start it anyway.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.client import Caller, Emulator, over
from tests.rendering import Renders, running

MODELS = [
    "black-forest-labs/flux-schnell",  # official, files, run
    "nightmareai/real-esrgan",  # community, file to file
    "meta/meta-llama-3-8b-instruct",  # text-stream
    "salesforce/blip",  # text
    "openai/whisper",  # json
    "meta/musicgen",  # sound
]
MANY = "1000000"
ENVIRONMENT = {
    "CALLER_PER_MINUTE": MANY,
    "ADDRESS_PER_MINUTE": MANY,
    "DAILY_PREDICTIONS": MANY,
    "DAILY_SECONDS": MANY,
    "PRIME": "1",
    "MAX_UPLOAD_BYTES": "3000000",
    "RUN_WAIT_SECONDS": "5",
}
FRAMEWORKS = ("fastapi", "django", "nextjs")
DATABASES = ("sqlite", "postgresql")
QUICK = "fastapi-sqlite"
NewCaller = Callable[[], Caller]
NewService = Callable[..., contextlib.AbstractContextManager["Service"]]


@dataclass(frozen=True)
class Service:
    """Where a service and the emulator above it answer."""

    url: str
    emulator: str
    database: str = ""
    """Its URL, where we have started the service."""

    def caller(self) -> Caller:
        """A caller whose session has begun."""
        made = Caller(self.url, self.emulator)
        made.get("/api/predictions")
        return made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test on every framework and database, or on the one database that its mark names."""
    if "kind" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("database")
    databases = mark.args if mark else DATABASES
    kinds = [f"{kind}-{name}" for kind in FRAMEWORKS for name in databases]
    slow = [kind if kind == QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]
    metafunc.parametrize("kind", slow, scope="session")


@pytest.fixture(scope="session")
def projects(renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One project of each framework: what its services share is never written to."""

    @functools.cache
    def project(framework: str) -> Path:
        place = tmp_path_factory.mktemp(framework) / "project"
        return renders.copy(place, framework=framework, replicate_models=MODELS)

    return project


@pytest.fixture(scope="session")
def new_service(
    kind: str,
    projects: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> NewService:
    """Starts services of one kind, each with its own database, storage and emulator."""
    framework, _, database = kind.partition("-")

    project = projects(framework)

    @contextlib.contextmanager
    def new(**environment: str) -> Iterator[Service]:
        folder = tmp_path_factory.mktemp(kind)
        places = {"DATABASE_URL": f"sqlite:///{folder}/app.db", "STORAGE_URL": f"{folder}/outputs"}
        if database == "postgresql":
            places["DATABASE_URL"] = request.getfixturevalue("new_database")()
        places |= environment
        with running(project, **ENVIRONMENT | places) as started:
            yield Service(started.url, started.emulator, places["DATABASE_URL"])

    return new


@pytest.fixture(scope="session")
def service(new_service: NewService) -> Iterator[Service]:
    """The service that most tests share."""
    if url := os.environ.get("CONTRACT_URL"):
        yield Service(url.rstrip("/"), os.environ["CONTRACT_EMULATOR"].rstrip("/"))
        return
    with new_service() as started:
        yield started


@pytest.fixture
def new_caller(service: Service) -> Iterator[NewCaller]:
    """Makes callers; in the end nothing of theirs runs and the emulator is as it was."""
    made: list[Caller] = []

    def new() -> Caller:
        made.append(service.caller())
        return made[-1]

    emulator = Emulator(service.emulator)
    before = emulator.settings()
    yield new
    emulator.settings(**before)
    emulator.no_faults()
    left = [(caller, each) for caller in made for each in caller.all() if not over(each)]
    for caller, prediction in left:
        caller.cancel(prediction)
    for caller, prediction in left:
        caller.settled(prediction)


@pytest.fixture
def caller(new_caller: NewCaller) -> Caller:
    return new_caller()


@pytest.fixture
def emulator(caller: Caller) -> Emulator:
    return caller.emulator
