"""Webhooks that reach a process at the same time are kept together, and none suffers for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rendering import Renders, edited, project_env, run

# 20 webhooks in one moment, and one later: how many transactions, and what became of each.
TOGETHER = """
import asyncio, json
from app.__main__ import migrate
from app.webhooks import Receiving
from app.database import SqlStore
from app.tables import open_engine
from inference.settings import load_settings
from inference.store import Event
import sqlalchemy

migrate()
engine = open_engine(load_settings().database_url)
commits = []
sqlalchemy.event.listen(engine, "commit", commits.append)
receiving = Receiving(SqlStore(engine), 1)
ids = [f"msg_{number}" for number in range(20)]

async def main():
    replicate_ids = dict.fromkeys(ids, "r") | {"msg_7": BROKEN}
    events = [Event(name, replicate_ids[name], None, {}, 0.0) for name in ids]
    waiting = [asyncio.create_task(receiving.keep(event)) for event in events]
    await asyncio.sleep(0)
    waiting[3].cancel()
    said = await asyncio.gather(*waiting, return_exceptions=True)
    later = receiving.keep(Event("later", "r", None, {}, 0.0))
    await asyncio.gather(later, return_exceptions=True)
    return said

said = [type(error).__name__ for error in asyncio.run(main())]
took = len(commits)
with engine.connect() as db:
    kept = db.exec_driver_sql("select id from webhook_events").scalars().all()
print(json.dumps({"commits": took, "said": said, "kept": kept}))
"""
EVERY = [f"msg_{number}" for number in range(20)]
GONE, BROKEN = "msg_3", "msg_7"


def together(project: Path, broken: str | None = "r") -> Any:
    """What becomes of 20 webhooks, one of which nobody waits for, and one may be broken."""
    settings = {"ENVIRONMENT": "development", "REPLICATE_API_TOKEN": "r8_test"}
    env = project_env(project, **settings, DATABASE_URL=f"sqlite:///{project}/{broken}.db")
    script = TOGETHER.replace("BROKEN", repr(broken))
    return json.loads(run(sys.executable, "-c", script, cwd=project, env=env).stdout)


def wrong(project: Path) -> list[str]:
    """What a project's way to keep webhooks gets wrong."""
    found, spoilt = together(project), together(project, broken=None)
    without = [name for name in EVERY if name not in (GONE, BROKEN)]
    rules = {
        "one transaction for all, and one for the next": found["commits"] == 2,
        "who goes away takes none along": {*found["kept"]} == {*EVERY, "later"},
        "each is answered": found["said"].count("NoneType") == 19,
        "a broken one is refused": spoilt["said"][7] == "IntegrityError",
        "and no other": spoilt["said"].count("NoneType") == 18,
        "and nothing is answered that is not kept": {*spoilt["kept"]} == {*without, "later"},
    }
    return [rule for rule, holds in rules.items() if not holds]


def test_what_comes_together_is_kept_together(renders: Renders, tmp_path: Path) -> None:
    assert wrong(renders.copy(tmp_path / "project")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "mistake"),
    [
        ("asyncio.shield(self._kept)", "self._kept"),
        ("            await self._receive([event])", "            raise"),
        ("            await self._receive([event])", "            pass"),
        ("        if not self._batch:\n", "        if True:\n"),
        ("batch, self._batch = self._batch, []", "batch = self._batch"),
    ],
)
def test_a_mistake_is_seen(right: str, mistake: str, renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project")
    edited(project / "src/app/webhooks.py", right, mistake)
    assert wrong(project) != []
