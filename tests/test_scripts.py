"""The scripts of a rendered project, on the emulator: what is safe, and what must not spend."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.rendering import Renders, Running, project_env, run, running

PAID = {"batch_generate.py", "run_evaluation.py", "train_cog_model.py"}


@pytest.fixture(scope="module")
def service(renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    project = renders.copy(tmp_path_factory.mktemp("scripts") / "project")
    with running(project) as started:
        yield started


def script(service: Running, name: str, *arguments: str, check: bool = True) -> tuple[int, str]:
    secret = {"Authorization": "Bearer r8_emulator"}
    url = f"{service.emulator}/v1/webhooks/default/secret"
    env = project_env(
        service.project,
        ENVIRONMENT="development",
        REPLICATE_API_TOKEN="r8_emulator",
        REPLICATE_BASE_URL=f"{service.emulator}/v1",
        REPLICATE_WEBHOOK_SECRET=httpx.get(url, headers=secret).json()["key"],
        PUBLIC_URL=service.url,
    )
    command = [sys.executable, f"scripts/{name}.py", *arguments]
    done = run(*command, cwd=service.project, env=env, check=check)
    return done.returncode, done.stdout


def created(service: Running) -> int:
    """How many predictions the emulator was asked for."""
    with sqlite3.connect(service.project / "var/app.db") as database:
        return int(database.execute("SELECT count(*) FROM predictions").fetchone()[0])


def test_safe_scripts(service: Running) -> None:
    keys = [model["key"] for model in json.loads(script(service, "list_models", "--json")[1])]
    assert "flux-schnell" in keys
    shown = json.loads(script(service, "preview_model_schema", "real-esrgan")[1])
    assert "image" in shown["Input"]["properties"]
    code, text = script(service, "doctor")
    assert (code, text.count("ok  ")) == (0, 6), text
    assert "totals" in json.loads(script(service, "check_usage", "--json")[1])
    assert script(service, "models", "check")[0] == 0
    assert "whsec_" not in text


def test_paid_scripts_spend_only_when_told(service: Running, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.jsonl"
    inputs.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    training = tmp_path / "training.json"
    training.write_text("{}")
    before = created(service)
    script(service, "batch_generate", "flux-schnell", str(inputs))
    script(service, "run_evaluation", str(inputs), "flux-schnell")
    script(service, "train_cog_model", "real-esrgan", "me/mine", str(training))
    assert created(service) == before
    arguments = ("flux-schnell", str(inputs), "--confirm-spend", "--json")
    first = script(service, "batch_generate", *arguments)[1]
    ids = [json.loads(line)["id"] for line in first.splitlines()]
    assert len(ids) == 2
    again = script(service, "batch_generate", *arguments)[1]
    assert [json.loads(line)["id"] for line in again.splitlines()] == ids
    assert created(service) == before + 2
    usage = json.loads(script(service, "check_usage", "--json")[1])
    assert set(ids) <= {each["prediction"] for each in usage["predictions"]}
    compared = script(service, "run_evaluation", str(inputs), "flux-schnell", "--confirm-spend")[1]
    assert "2 of 2" in compared
    assert created(service) == before + 2, "the same inputs are not paid twice"


@pytest.mark.parametrize("answer", ["none", "ask", "deny"])
def test_paid_scripts_are_left_out_where_nobody_may_run_them(renders: Renders, answer: str) -> None:
    found = {path.name for path in (renders(paid_scripts=answer) / "scripts").iterdir()}
    assert found & PAID == (set() if answer == "none" else PAID)
