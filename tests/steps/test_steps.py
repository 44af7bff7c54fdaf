"""A worker's steps against a Replicate that says no, too late, or nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rendering import ROOT, Renders, project_env, run

CASES = ROOT / "tests/steps/cases.py"


def tried(project: Path, case: str = "") -> subprocess.CompletedProcess[str]:
    """Run the cases, or one of them, on the project's steps and an empty database."""
    env = project_env(
        project,
        DATABASE_URL=f"sqlite:///{project}/steps.db",
        STORAGE_URL=str(project / "outputs"),
        ENVIRONMENT="development",
        REPLICATE_API_TOKEN="r8_test",
    )
    run(sys.executable, "-m", "app", "migrate", cwd=project, env=env)
    which = f"{CASES}::test_{case}" if case else str(CASES)
    command = [sys.executable, "-m", "pytest", which, "-q", "-x", "-p", "no:cacheprovider"]
    return run(*command, cwd=ROOT, env=env, check=False)


def test_the_steps(renders: Renders, tmp_path: Path) -> None:
    done = tried(renders.copy(tmp_path / "project"))
    assert done.returncode == 0, done.stdout + done.stderr


STEPS, GATEWAY = "src/inference/steps.py", "src/inference/gateway.py"
STORING = "time.time() > (row.completed_at or row.created_at) + GIVE_UP_STORING"
ERASING = " as error:\n            log.warning('output not erased".replace("'", '"')
NEXT = 'urlsplit(str(data.get("next") or "")).query'
LOST = "error.status_code >= 500 or error.status_code == 408"
ANSWER = "except (ValueError, RecursionError) as error:\n        raise NoAnswer("
# By the case that sees it.
MISTAKES = {
    "what_could_not_be_sent_for_an_hour_fails": [
        (STEPS, "if now > row.created_at + GIVE_UP_SENDING:", "if False:"),
    ],
    "a_create_is_written_down_and_sent_once": [
        (STEPS, "if not await asyncio.to_thread(self.service.store.mark_sent, row, now):", "if 0:"),
    ],
    "a_throttled_create_goes_out_again_when_replicate_says": [
        (STEPS, "return unsent(row, throttled.retry_after)", "return unsent(row, 1)"),
    ],
    "what_is_not_found_is_given_up_at_last": [
        (STEPS, "        end += GIVE_UP_ASKING  #", "        pass  #"),
        (STEPS, "        if now > end:", "        if False:"),
    ],
    "what_cannot_be_asked_about_is_given_up_at_last": [
        (STEPS, "+ (0 if gone else GIVE_UP_ASKING)", ""),
        (STEPS, "error.status == 404", "False"),
        (STEPS, "return await self.ask(row)", "return row"),
    ],
    "it_is_asked_no_sooner_than_replicate_says": [
        (STEPS, "max(ASK_EVERY, throttled.retry_after)", "ASK_EVERY"),
    ],
    "an_output_is_stored_or_its_loss_is_said": [
        (STEPS, STORING, "False"),
        (STEPS, "except OutputExpired:", "except KeyError:"),
    ],
    "what_cannot_be_erased_is_tried_again": [
        (STEPS, f"except StorageError{ERASING}", f"except KeyError{ERASING}"),
    ],
    "a_create_without_an_answer_counts_as_sent": [
        (GATEWAY, "max_retries=0,", ""),
        (GATEWAY, LOST, "error.status_code >= 500"),
        (GATEWAY, LOST, "error.status_code == 408"),
        (GATEWAY, ANSWER, ANSWER.replace("NoAnswer", "NotSent")),
    ],
    "a_lost_create_is_looked_for_on_the_apis_own_host_only": [
        (GATEWAY, NEXT, NEXT.removeprefix("urlsplit(").removesuffix(").query")),
        (GATEWAY, "for _ in range(_PAGES):", "for _ in range(99):"),
    ],
    "a_create_that_found_nobody_was_not_sent": [
        (GATEWAY, "httpx.ConnectError, ", ""),
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "file", "right", "mistake"),
    [(case, *each) for case, mistakes in MISTAKES.items() for each in mistakes],
)
def test_a_mistake_is_seen(
    case: str, file: str, right: str, mistake: str, renders: Renders, tmp_path: Path
) -> None:
    project = renders.copy(tmp_path / "project")
    text = (project / file).read_text("utf-8")
    assert text.count(right) == 1
    (project / file).write_text(text.replace(right, mistake), "utf-8")
    done = tried(project, case)
    assert done.returncode == 1, done.stdout + done.stderr
    assert " failed" in done.stdout
