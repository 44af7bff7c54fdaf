"""Every framework's store on every database: the same cases, in the project's own surroundings.

Adding a framework: one function in ``adapters.py`` and its name in STORES.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.node import NODE, installed
from tests.rendering import ROOT, Renders, project_env, run

CASES = ROOT / "tests/store/cases.py"
STORES = ["fastapi", "django", "nextjs"]
NewUrl = Callable[[], str]


@pytest.fixture
def new_url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> NewUrl:
    """Makes empty databases of the kind that the test names."""
    if database == "postgresql":
        new: NewUrl = request.getfixturevalue("new_database")
        return new
    count = iter(range(1000))
    return lambda: f"sqlite:///{tmp_path}/{next(count)}.db"


def tried(
    project: Path, framework: str, url: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Migrate the database and run the cases on the project's store."""
    env = project_env(
        project,
        STORE_FRAMEWORK=framework,
        STORE_PROJECT=str(project),
        DATABASE_URL=url,
        ENVIRONMENT="development",
        REPLICATE_API_TOKEN="r8_test",
        STORAGE_URL="./var/outputs",
    )
    migrate: list[str | Path]
    if framework == "nextjs":
        migrate = [NODE, "--conditions=react-server", installed(project) / "src/migrate.ts"]
        env["PYTHONPATH"] = str(ROOT / "template/{{ python }}/src")
    else:
        migrate = [sys.executable, "-m", "app", "migrate"]
    run(*migrate, cwd=project, env=env)
    command = [sys.executable, "-m", "pytest", str(CASES), "-q", "-s", "-p", "no:cacheprovider"]
    if framework == "nextjs":  # which receives one at a time
        command += ["-k", "not of_events_that_come_together"]
    return run(*command, *options, cwd=ROOT, env=env, check=False)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("framework", STORES)
def test_a_store(
    framework: str, database: str, new_url: NewUrl, renders: Renders, tmp_path: Path
) -> None:
    project = renders.copy(tmp_path / "project", framework=framework)
    done = tried(project, framework, new_url())
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


MISTAKES = {
    ("fastapi", "sqlite"): [
        ("attempts=p.attempts + 1)", "attempts=p.attempts)"),
        ("p.due_at <= now", "p.due_at.is_not(None)"),
        ("values(due_at=now + lease, leased=True", "values(due_at=None, leased=True"),
        ("p.attempts == row.attempts, p.leased.is_(True)", "p.leased.is_(True)"),
        ("p.attempts == row.attempts, p.leased.is_(True)", "p.attempts == row.attempts"),
        ("p.attempts == old.attempts, p.leased.is_(True)", "p.leased.is_(True)"),
        ("p.attempts == row.attempts, p.leased, p.status", "p.leased, p.status"),
        (".where(p.sent_at.is_(None))", ""),
        ("sa.case((p.leased, p.due_at), else_=", "("),
        ("ask_at=None, due_at=_at)", "ask_at=None, due_at=p.due_at)"),
        ("deleted_at=now, due_at=_at)", "deleted_at=now, due_at=p.due_at)"),
        ("CASE WHEN leased THEN due_at ELSE :received_at END", ":received_at"),
        ("ELSE :received_at END", "ELSE due_at END"),
        ("OR replicate_id = :replicate_id", ""),
        ("AND NOT EXISTS (SELECT 1 FROM webhook_events WHERE id = :id)", ""),
        ("db.execute(_WAKE, values)\n", "db.execute(_WAKE, values)\n            db.commit()\n"),
        ("meanwhile.where(waiting)", "meanwhile.where(sa.false())"),
        ("if old.deleted_at is None:", "if False:"),
        ("if not old.cancel_requested:", "if False:"),
        (".values(ask_at=None)", ".values()"),
        ("values(handled_at=now, body={})", "values(handled_at=now)"),
        ("e.handled_at.is_(None)).order_by", "sa.true()).order_by"),
        ("leased=False,\n        attempts=p.attempts + 1,\n", "\n"),
        (
            "live = sa.update(predictions).where(p.id == row_id, p.status.not_in(TERMINAL))",
            "live = sa.update(predictions).where(p.id == row_id)",
        ),
        ("check_limits(db, uploads, upload, limits)", "pass"),
        ("u.created_at < before", "sa.true()"),
        (".where(e.received_at < before, done)", ".where(e.received_at < before)"),
        ("| ~sa.exists().where(its)", ""),
        ("ON CONFLICT DO NOTHING", "ON CONFLICT (id) DO UPDATE SET handled_at = NULL"),
    ],
    ("fastapi", "postgresql"): [
        ("due.with_for_update(skip_locked=True)", "due"),
        ("WHERE (id = :row_id", "WHERE NOT leased AND (id = :row_id"),
        ("pg_advisory_xact_lock(_LIMITS_LOCK)", "now()"),
    ],
    ("nextjs", "sqlite"): [
        (
            'e("attempts", "+", 1) }))\n        .where("id"',
            'e("attempts", "+", 0) }))\n        .where("id"',
        ),
        (
            '      .where("attempts", "=", row.attempts)\n      .where(flagged',
            "      .where(flagged",
        ),
        (
            '      .where(flagged("leased", true, this.#db))\n      .executeTakeFirst',
            "      .executeTakeFirst",
        ),
        (
            '        .where("attempts", "=", row.attempts)\n        .where(flagged',
            "        .where(flagged",
        ),
        ('        .where("sent_at", "is", null)\n        .executeTakeFirst', ".executeTakeFirst"),
        ("e.exists(unhandled(e, next))", "e.lit(false)"),
        ("if (old.deleted_at === null) await", "if (false) await"),
        ("if (!old.cancel_requested) {", "if (false) {"),
        ("handled_at: at, body: {}", "handled_at: at"),
        ('.where("handled_at", "is", null)\n      .orderBy', ".orderBy"),
        ('.orderBy("received_at")', ""),
        ('.when(leased(e)).then(e.ref("due_at")).else(at).end()', ".else(at).end()"),
        ("ask_at: null }).set(this.#due(at))", "ask_at: null })"),
        ("deleted_at: at }).set(this.#due(at))", "deleted_at: at })"),
        ("...requested, ask_at: null", "...requested"),
        (".set(encoded({ leased: false }, this.#db))", ""),
        ('e("replicate_id", "=", event.replicate_id)]', "]"),
        ("if (known.deleted_at !== null || !same)", "if (!same)"),
        ('await checkLimits(db, "uploads", upload, limits);', ""),
        ('e("handled_at", "is not", null),', ""),
        (".onConflict((conflict) => conflict.doNothing())", ".orReplace()"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "database", "right", "mistake"),
    [(*where, *pair) for where, pairs in MISTAKES.items() for pair in pairs],
)
def test_a_store_with_a_mistake_is_seen(
    framework: str,
    database: str,
    right: str,
    mistake: str,
    new_url: NewUrl,
    renders: Renders,
    tmp_path: Path,
) -> None:
    project = renders.copy(tmp_path / "project", framework=framework)
    sources = "src/lib/*.ts" if framework == "nextjs" else "src/app/*.py"
    texts = {path: path.read_text("utf-8") for path in project.glob(sources)}
    [(source, text)] = [each for each in texts.items() if right in each[1]]
    source.write_text(text.replace(right, mistake), "utf-8")
    done = tried(project, framework, new_url(), "-x")
    assert done.returncode == 1, done.stdout + done.stderr
    assert " failed" in done.stdout
