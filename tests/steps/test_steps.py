"""A worker's steps against a Replicate that says no, too late, or nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rendering import ROOT, Renders, project_env, run

CASES = ROOT / "tests/steps/cases.py"


def tried(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the cases on the project's steps, on an empty database."""
    env = project_env(
        project,
        DATABASE_URL=f"sqlite:///{project}/steps.db",
        STORAGE_URL=str(project / "outputs"),
        ENVIRONMENT="development",
        REPLICATE_API_TOKEN="r8_test",
    )
    run(sys.executable, "-m", "app", "migrate", cwd=project, env=env)
    command = [sys.executable, "-m", "pytest", str(CASES), "-q", "-p", "no:cacheprovider"]
    return run(*command, *options, cwd=ROOT, env=env, check=False)


def test_the_steps(renders: Renders, tmp_path: Path) -> None:
    done = tried(renders.copy(tmp_path / "project"))
    assert done.returncode == 0, done.stdout + done.stderr


STEPS, GATEWAY = "src/inference/steps.py", "src/inference/gateway.py"
STORING = "time.time() > (row.completed_at or row.created_at) + GIVE_UP_STORING"
ERASING = " as error:\n            log.warning('output not erased".replace("'", '"')
NEXT = 'urlsplit(str(data.get("next") or "")).query'
LOST = "error.status_code >= 500 or error.status_code == 408"
ANSWER = "except (ValueError, RecursionError) as error:\n        raise NoAnswer("


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "right", "mistake"),
    [
        (STEPS, "if now > row.created_at + GIVE_UP_SENDING:", "if False:"),
        (STEPS, "if not await asyncio.to_thread(self.service.store.mark_sent, row, now):", "if 0:"),
        (STEPS, "return unsent(row, throttled.retry_after)", "return unsent(row, 1)"),
        (STEPS, "        end += GIVE_UP_ASKING  #", "        pass  #"),
        (STEPS, "        if now > end:", "        if False:"),
        (STEPS, "+ (0 if gone else GIVE_UP_ASKING)", ""),
        (STEPS, "error.status == 404", "False"),
        (STEPS, "max(ASK_EVERY, throttled.retry_after)", "ASK_EVERY"),
        (STEPS, "return await self.ask(row)", "return row"),
        (STEPS, STORING, "False"),
        (STEPS, "except OutputExpired:", "except KeyError:"),
        (STEPS, f"except StorageError{ERASING}", f"except KeyError{ERASING}"),
        (GATEWAY, "max_retries=0,", ""),
        (GATEWAY, NEXT, NEXT.removeprefix("urlsplit(").removesuffix(").query")),
        (GATEWAY, "for _ in range(_PAGES):", "for _ in range(99):"),
        (GATEWAY, LOST, "error.status_code >= 500"),
        (GATEWAY, LOST, "error.status_code == 408"),
        (GATEWAY, "httpx.ConnectError, ", ""),
        (GATEWAY, ANSWER, ANSWER.replace("NoAnswer", "NotSent")),
    ],
)  # fmt: skip
def test_a_mistake_is_seen(
    file: str, right: str, mistake: str, renders: Renders, tmp_path: Path
) -> None:
    project = renders.copy(tmp_path / "project")
    text = (project / file).read_text("utf-8")
    assert text.count(right) == 1
    (project / file).write_text(text.replace(right, mistake), "utf-8")
    done = tried(project, "-x")
    assert done.returncode == 1, done.stdout + done.stderr
    assert " failed" in done.stdout
