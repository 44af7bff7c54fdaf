"""The guarantees under SIGKILL, with shorter waits than a project's own.

`benchmarks/chaos.py` does the same for longer, in a project as it is rendered.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.harness import HURRIED, PROJECTS, Chaos, Database, Storage, hurried, run, table
from tests.chaos.places import LocalStorage, Postgresql, S3Storage, Sqlite
from tests.chaos.proxies import Loop
from tests.contract.conftest import MODELS
from tests.rendering import Renders, edited
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
    hurried(project)

    def tried(its: Database, storage: Storage, *named: str) -> None:
        lease = HURRIED["LEASE"]
        chaos = Chaos(project, framework, its, storage, named=named, lease=lease)
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


OUTPUTS = "src/inference/outputs.py"
SERVICE = "src/inference/service.py"
STEPS = "src/inference/steps.py"
WORKER = "src/inference/worker.py"
# What seems a matter of course: to send again what was not answered.
RESENT = """        except NoAnswer:
            return unsent(row, 0)
        except KeyError as error:"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistakes", "broken", "patience"),
    [
        pytest.param(
            [
                (STEPS, "        except NoAnswer as error:", RESENT),
                (OUTPUTS, "{prediction_id}/{index}.", "{time.time()}/{index}."),
                (SERVICE, "row is None or row.owner != caller:", "row is None:"),
            ],
            {"created_twice", "stored_twice", "shown_to_others"},
            60,
            id="doubled and shown",
        ),
        pytest.param(
            [
                (STEPS, "remote = await self.gateway.find(row)", "remote = None"),
                (OUTPUTS, "{prediction_id}/{index}.", "{prediction_id}/0."),
            ],
            {"unexplained", "lost", "stored_twice"},
            60,
            id="never found, overwritten",
        ),
        pytest.param(
            [(WORKER, "due_at=self._due(new), leased", "due_at=None, leased")],
            {"stuck"},
            15,
            id="forgotten",
        ),
        pytest.param([], set(), 60, id="none"),
    ],
)
def test_mistakes_are_seen(
    mistakes: list[tuple[str, str, str]],
    broken: set[str],
    patience: float,
    renders: Renders,
    tmp_path: Path,
) -> None:
    """Without a single kill; every other create has no answer, and only the list names it."""
    project = hurried(renders.copy(tmp_path / "project", replicate_models=MODELS))
    for file, right, mistake in mistakes:
        edited(project / file, right, mistake)
    chaos = Chaos(
        project,
        "fastapi",
        Sqlite(tmp_path),
        LocalStorage(tmp_path),
        named=["list"],
        lost_every=2,
        dropped=0,
        outputs=[2],
    )
    report = run(chaos, 6, pause=0.1, steps=0, patience=patience)
    assert set(report.broken) == broken, table({"": report})
