"""The guarantees under SIGKILL; `benchmarks/chaos.py` does the same for longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.harness import MODELS, PROJECTS, Chaos, Database, Storage, run, table
from tests.chaos.places import LocalStorage, Postgresql, S3Storage, Sqlite
from tests.chaos.proxies import Loop
from tests.rendering import Renders
from tests.storage.servers import s3_server


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("framework", PROJECTS)
def test_nothing_is_lost_doubled_or_shown(
    framework: str,
    database: str,
    renders: Renders,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """One machine with its disk, where lists name the webhook; many with S3, where they do not."""
    project = renders.copy(tmp_path / "project", framework=framework, replicate_models=MODELS)

    def tried(its: Database, storage: Storage, *, list_field: bool) -> None:
        chaos = Chaos(project, framework, its, storage, list_field=list_field)
        report = run(chaos, 12, pause=0.5, random_seconds=5, patience=240)
        shown = table({f"{framework}, {its.name}": report})
        print(shown)
        assert report.broken == {}, f"{shown}\n{chaos.log.read_text('utf-8')[-20_000:]}"
        assert len(report.kills) == len(chaos.steps()) + 1, "every step was reached"

    if database == "sqlite":
        tried(Sqlite(tmp_path), LocalStorage(tmp_path), list_field=True)
        return
    new_database: Callable[[], str] = request.getfixturevalue("new_database")
    with s3_server() as s3:
        places = Postgresql(new_database(), Loop()), S3Storage(s3, "chaos")
        tried(*places, list_field=False)
