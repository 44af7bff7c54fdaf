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
    project: Path, framework: str, url: str, case: str = ""
) -> subprocess.CompletedProcess[str]:
    """Migrate the database and run the cases, or one of them, on the project's store."""
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
    which = f"{CASES}::test_{case}" if case else str(CASES)
    command = [sys.executable, "-m", "pytest", which, "-q", "-s", "-x", "-p", "no:cacheprovider"]
    if framework == "nextjs":  # which receives one at a time
        command += ["-k", "not come_together"]
    return run(*command, cwd=ROOT, env=env, check=False)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("framework", STORES)
def test_a_store(
    framework: str, database: str, new_url: NewUrl, renders: Renders, tmp_path: Path
) -> None:
    project = renders.copy(tmp_path / "project", framework=framework)
    done = tried(project, framework, new_url())
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


# The case that sees it, what is right, and the mistake.
MISTAKES = {
    ("fastapi", "sqlite"): [
        (
            "the_longest_due_is_claimed_first_and_once",
            "attempts=p.attempts + 1)",
            "attempts=p.attempts)",
        ),
        ("the_longest_due_is_claimed_first_and_once", "p.due_at <= now", "p.due_at.is_not(None)"),
        (
            "the_longest_due_is_claimed_first_and_once",
            "values(due_at=now + lease, leased=True",
            "values(due_at=None, leased=True",
        ),
        (
            "who_has_lost_a_row_cannot_write",
            "p.attempts == row.attempts, p.leased.is_(True)",
            "p.leased.is_(True)",
        ),
        (
            "who_has_lost_a_row_cannot_write",
            "p.attempts == row.attempts, p.leased.is_(True)",
            "p.attempts == row.attempts",
        ),
        (
            "who_has_lost_a_row_cannot_write",
            "p.attempts == old.attempts, p.leased.is_(True)",
            "p.leased.is_(True)",
        ),
        (
            "who_has_lost_a_row_cannot_write",
            "p.attempts == row.attempts, p.leased, p.status",
            "p.leased, p.status",
        ),
        ("a_create_goes_out_once", ".where(p.sent_at.is_(None))", ""),
        ("a_cancel_of_one_in_a_workers_hands", "sa.case((p.leased, p.due_at), else_=", "("),
        (
            "a_cancel_of_one_that_waits_to_be_asked_about",
            "ask_at=None, due_at=_at)",
            "ask_at=None, due_at=p.due_at)",
        ),
        (
            "what_is_over_stays_as_it_is",
            "deleted_at=now, due_at=_at)",
            "deleted_at=now, due_at=p.due_at)",
        ),
        (
            "an_event_for_a_leased_row_waits_for_its_worker",
            "CASE WHEN leased THEN due_at ELSE :received_at END",
            ":received_at",
        ),
        ("an_event_wakes_its_row", "ELSE :received_at END", "ELSE due_at END"),
        ("an_event_wakes_its_row", "OR replicate_id = :replicate_id", ""),
        (
            "a_known_event_changes_nothing",
            "AND NOT EXISTS (SELECT 1 FROM webhook_events WHERE id = :id)",
            "",
        ),
        (
            "an_event_wakes_its_row",
            "db.execute(_WAKE, values)\n",
            "db.execute(_WAKE, values)\n            db.commit()\n",
        ),
        (
            "an_event_for_a_leased_row_waits_for_its_worker",
            "meanwhile.where(waiting)",
            "meanwhile.where(sa.false())",
        ),
        ("a_deleted_row_is_hidden_and_due", "if old.deleted_at is None:", "if False:"),
        ("a_cancel_of_one_in_a_workers_hands", "if not old.cancel_requested:", "if False:"),
        ("a_cancel_of_one_in_a_workers_hands", ".values(ask_at=None)", ".values()"),
        (
            "what_a_handled_event_said_is_not_kept",
            "values(handled_at=now, body={})",
            "values(handled_at=now)",
        ),
        (
            "a_known_event_changes_nothing",
            "e.handled_at.is_(None)).order_by",
            "sa.true()).order_by",
        ),
        (
            "who_has_lost_a_row_cannot_write",
            "leased=False,\n        attempts=p.attempts + 1,\n",
            "\n",
        ),
        (
            "a_cancel_before_it_was_sent",
            "live = sa.update(predictions).where(p.id == row_id, p.status.not_in(TERMINAL))",
            "live = sa.update(predictions).where(p.id == row_id)",
        ),
        ("uploads_are_limited", "check_limits(db, uploads, upload, limits)", "pass"),
        ("old_uploads_come_oldest_first", "u.created_at < before", "sa.true()"),
        (
            "only_done_and_strange_events_are_forgotten",
            ".where(e.received_at < before, done)",
            ".where(e.received_at < before)",
        ),
        ("only_done_and_strange_events_are_forgotten", "| ~sa.exists().where(its)", ""),
        (
            "a_known_event_changes_nothing",
            "ON CONFLICT DO NOTHING",
            "ON CONFLICT (id) DO UPDATE SET handled_at = NULL",
        ),
    ],
    ("fastapi", "postgresql"): [
        (
            "500_claimed_by_processes_and_threads_at_once",
            "due.with_for_update(skip_locked=True)",
            "due",
        ),
        ("no_event_is_slept_through", "WHERE (id = :row_id", "WHERE NOT leased AND (id = :row_id"),
        ("one_key_is_one_row_however_many_ask", "pg_advisory_xact_lock(_LIMITS_LOCK)", "now()"),
        (
            "of_events_that_come_together_none_waits_for_another",
            "ordered = sorted(events, key=lambda event: (str(event.replicate_id), event.id))",
            "ordered = events",
        ),
    ],
    ("nextjs", "sqlite"): [
        (
            "the_longest_due_is_claimed_first_and_once",
            'e("attempts", "+", 1) }))\n        .where("id"',
            'e("attempts", "+", 0) }))\n        .where("id"',
        ),
        (
            "who_has_lost_a_row_cannot_write",
            '      .where("attempts", "=", row.attempts)\n      .where(flagged',
            "      .where(flagged",
        ),
        (
            "who_has_lost_a_row_cannot_write",
            '      .where(flagged("leased", true, this.#db))\n      .executeTakeFirst',
            "      .executeTakeFirst",
        ),
        (
            "who_has_lost_a_row_cannot_write",
            '        .where("attempts", "=", row.attempts)\n        .where(flagged',
            "        .where(flagged",
        ),
        (
            "a_create_goes_out_once",
            '        .where("sent_at", "is", null)\n        .executeTakeFirst',
            ".executeTakeFirst",
        ),
        (
            "an_event_for_a_leased_row_waits_for_its_worker",
            "e.exists(unhandled(e, next))",
            "e.lit(false)",
        ),
        (
            "a_deleted_row_is_hidden_and_due",
            "if (old.deleted_at === null) await",
            "if (false) await",
        ),
        ("a_cancel_of_one_in_a_workers_hands", "if (!old.cancel_requested) {", "if (false) {"),
        ("what_a_handled_event_said_is_not_kept", "handled_at: at, body: {}", "handled_at: at"),
        (
            "a_known_event_changes_nothing",
            '.where("handled_at", "is", null)\n      .orderBy',
            ".orderBy",
        ),
        ("events_come_in_their_order", '.orderBy("received_at")', ""),
        (
            "who_has_lost_a_row_cannot_write",
            '.when(leased(e)).then(e.ref("due_at")).else(at).end()',
            ".else(at).end()",
        ),
        (
            "a_cancel_of_one_that_waits_to_be_asked_about",
            "ask_at: null }).set(this.#due(at))",
            "ask_at: null })",
        ),
        (
            "what_is_over_stays_as_it_is",
            "deleted_at: at }).set(this.#due(at))",
            "deleted_at: at })",
        ),
        (
            "a_cancel_of_one_that_waits_to_be_asked_about",
            "...requested, ask_at: null",
            "...requested",
        ),
        ("a_deleted_unsent_row_is_canceled", ".set(encoded({ leased: false }, this.#db))", ""),
        ("an_event_wakes_its_row", 'e("replicate_id", "=", event.replicate_id)]', "]"),
        (
            "one_key_is_one_row_however_many_ask",
            "if (known.deleted_at !== null || !same)",
            "if (!same)",
        ),
        ("uploads_are_limited", 'await checkLimits(db, "uploads", upload, limits);', ""),
        ("only_done_and_strange_events_are_forgotten", 'e("handled_at", "is not", null),', ""),
        (
            "a_known_event_changes_nothing",
            ".onConflict((conflict) => conflict.doNothing())",
            ".orReplace()",
        ),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "database", "case", "right", "mistake"),
    [(*where, *each) for where, mistakes in MISTAKES.items() for each in mistakes],
)
def test_a_store_with_a_mistake_is_seen(
    framework: str,
    database: str,
    case: str,
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
    done = tried(project, framework, new_url(), case)
    assert done.returncode == 1, done.stdout + done.stderr
    assert " failed" in done.stdout
