"""The official SDKs, unchanged, are satisfied clients of the emulator.

Each script in this folder runs its checks with one SDK, in a process of its own. The Python SDK
2.0.0b4 is what our own environment has; the others are installed here, by hash.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulating import LANGUAGES, emulating
from tests.node import FOREVER, NODE, NPM
from tests.rendering import ROOT, Renders, clean_env, run

HERE = Path(__file__).parent

# What every SDK can do; some can do more.
COMMON = {
    *("models_get", "models_list", "models_search"),
    *("versions_list", "versions_get", "versions_of_an_official_model_404"),
    *("run_official", "run_community", "run_longer_than_the_wait", "run_with_a_file"),
    *("run_that_fails", "create_get_and_wait", "create_that_waits", "cancel"),
    *("list_in_pages_with_webhooks", "webhook_and_secret", "text_is_streamed"),
    *("files", "file_too_large_413", "file_outputs", "deployments", "trainings"),
    *("unauthenticated_401", "no_credit_402", "unknown_404", "throttled_429"),
    *("invalid_input_422", "invalid_version_422", "account_and_hardware", "sdk_version"),
}


def python_1(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The stable SDK, next to our environment, whose other packages suit it."""
    # The base interpreter has pip, and pip knows where this machine finds packages.
    base = getattr(sys, "_base_executable", sys.executable)
    options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(folder)]
    lock = ROOT / "requirements/sdk-1.txt"
    run(base, "-m", "pip", "install", *options, "-r", lock, cwd=HERE, timeout=FOREVER)
    return [sys.executable, "python_1.py"], {"PYTHONPATH": str(folder)}


def python_2(folder: Path) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "python_2.py"], {}


def javascript(folder: Path) -> tuple[list[str], dict[str, str]]:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    run(NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder, timeout=FOREVER)
    return [str(NODE), "javascript.mjs"], {"SDK": str(folder)}


Prepare = Callable[[Path], tuple[list[str], dict[str, str]]]


def results(prepare: Prepare, project: Path, folder: Path, **settings: bool) -> dict[str, str]:
    """What went wrong (empty if nothing did) in each check of an SDK."""
    command, env = prepare(folder)
    with emulating(project) as emulator:
        emulator.settings(**settings)
        env |= {"EMULATOR": emulator.url, "COMMUNITY": emulator.pinned()}
        done = run(*command, cwd=HERE, env=clean_env(PYTHONDONTWRITEBYTECODE="1", **env))
    return {name: wrong or "" for name, wrong in json.loads(done.stdout).items()}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("prepare", "further"),
    [
        pytest.param(python_1, set(), id="python-1.0.7"),
        pytest.param(
            python_2,
            {"cancel_after", "run_asynchronously", "unknown_body_field_422"},
            id="python-2.0.0b4",
        ),
        pytest.param(javascript, {"cancel_after", "run_by_polling"}, id="javascript-1.4.0"),
    ],
)
def test_sdk(
    prepare: Prepare, further: set[str], language: str, renders: Renders, tmp_path: Path
) -> None:
    checked = results(prepare, renders(framework=LANGUAGES[language]), tmp_path)
    wrong = {name: trace for name, trace in checked.items() if trace}
    assert not wrong, "\n\n".join(f"{name}: {trace}" for name, trace in wrong.items())
    assert checked.keys() == COMMON | further


def test_a_check_that_fails_is_seen(renders: Renders, tmp_path: Path) -> None:
    """An official model that shows no version breaks exactly the checks that read it."""
    checked = results(python_2, renders(), tmp_path, official_latest_version=False)
    wrong = {name for name, trace in checked.items() if trace}
    assert wrong == {"models_get", "invalid_version_422", "text_is_streamed"}
