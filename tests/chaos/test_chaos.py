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

    def tried(its: Database, storage: Storage, *named: str) -> None:
        chaos = Chaos(project, framework, its, storage, named=named)
        report = run(chaos, 16, pause=0.4, stops=True, random_seconds=5, patience=240)
        shown = table({f"{framework}, {its.name}": report})
        print(shown)
        assert report.broken == {}, f"{shown}\n{chaos.log.read_text('utf-8')[-20_000:]}"
        assert len(report.kills) == len(chaos.steps()) + 1, "every step was reached"

    if database == "sqlite":
        tried(Sqlite(tmp_path), LocalStorage(tmp_path), "list", "events")
        return
    new_database: Callable[[], str] = request.getfixturevalue("new_database")
    with s3_server() as s3:
        tried(Postgresql(new_database(), Loop()), S3Storage(s3, "chaos"), "events")


WORKER, STEPS = "src/inference/worker.py", "src/inference/steps.py"
# What seems a matter of course: to send again what was not answered.
RESENT = """        except NoAnswer:
            return unsent(row, 0)
        except KeyError as error:"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "right", "mistake", "broken"),
    [
        (STEPS, "        except NoAnswer as error:", RESENT, "created_twice"),
        (STEPS, "remote = await self.gateway.find(row)", "remote = None", "unexplained"),
        (WORKER, "due_at=self._due(new), leased", "due_at=None, leased", "stuck"),
        ("src/inference/outputs.py", "{prediction_id}/{index}.", "{prediction_id}/0.", "lost"),
        (
            "src/inference/outputs.py",
            "{prediction_id}/{index}.",
            "{time.time()}/{index}.",
            "stored_twice",
        ),
        (
            "src/inference/service.py",
            "row is None or row.owner != caller:",
            "row is None:",
            "shown_to_others",
        ),
    ],
)
def test_a_mistake_is_seen(
    file: str, right: str, mistake: str, broken: str, renders: Renders, tmp_path: Path
) -> None:
    """Without a single kill; every other create has no answer, and only the list names it."""
    project = renders.copy(tmp_path / "project", replicate_models=MODELS)
    source = project / file
    text = source.read_text("utf-8")
    assert right in text
    source.write_text(text.replace(right, mistake), "utf-8")
    chaos = Chaos(
        project,
        "fastapi",
        Sqlite(tmp_path),
        LocalStorage(tmp_path),
        named=["list"],
        lost_every=2,
        dropped=0,
    )
    patience = 100 if broken == "unexplained" else 30
    report = run(chaos, 6, pause=0.1, steps=0, patience=patience)
    assert broken in report.broken, table({"": report})
