"""The scripts of a rendered project, on the emulator: what is safe, and what must not spend."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.client import sign
from tests.node import NODE, is_node
from tests.rendering import Renders, Running, project_env, run, running

SAFE = ("list_models", "preview_model_schema", "check_usage", "doctor")
PAID = {"batches", "batch_generate", "run_evaluation", "train_cog_model"}
FRAMEWORKS = ["fastapi", "nextjs"]
PRICES = json.dumps(
    {
        "flux-schnell": {"price_per_run": 0.25},
        "real-esrgan": {"price_per_run": 0.01, "price_per_second": 0.1},
    }
)


@pytest.fixture(scope="module", params=FRAMEWORKS)
def service(
    request: pytest.FixtureRequest, renders: Renders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    project = tmp_path_factory.mktemp("scripts") / "project"
    renders.copy(project, framework=request.param)
    if not is_node(project):  # in development its lines are for people
        for name in ("app/main", "inference/processes"):
            source = project / f"src/{name}.py"
            text = source.read_text("utf-8")
            assert "json=not settings.development" in text
            source.write_text(text.replace("json=not settings.development", "json=True"), "utf-8")
    with running(project, MODEL_SETTINGS=PRICES) as started:
        yield started


def surroundings(service: Running, **more: str) -> dict[str, str]:
    """The environment in which a person starts a script beside the running project."""
    secret = {"Authorization": "Bearer r8_emulator"}
    url = f"{service.emulator}/v1/webhooks/default/secret"
    own = {
        "ENVIRONMENT": "development",
        "REPLICATE_API_TOKEN": "r8_emulator",
        "REPLICATE_BASE_URL": f"{service.emulator}/v1",
        "REPLICATE_WEBHOOK_SECRET": httpx.get(url, headers=secret).json()["key"],
        "PUBLIC_URL": service.url,
        "CALLER_PER_MINUTE": "1000",
        "ADDRESS_PER_MINUTE": "1000",
        "DATABASE_URL": "sqlite:///var/dev/app.db",
        "STORAGE_URL": "./var/dev/outputs",
    }
    return project_env(service.project, **own | more)


def command_of(service: Running, name: str) -> list[str]:
    """What `uv run scripts/x_y.py` and `npx tsx scripts/x-y.ts` start."""
    if not is_node(service.project):
        return [sys.executable, f"scripts/{name}.py"]
    tsx = "node_modules/tsx/dist/cli.mjs"
    return [str(NODE), tsx, f"scripts/{name.replace('_', '-')}.ts"]


def script(
    service: Running, name: str, *arguments: str | Path, code: int = 0, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a script; AssertionError unless it ends with this exit code, and without a traceback."""
    command = [*command_of(service, name), *arguments]
    env = surroundings(service, **env)
    done = run(*command, cwd=service.project, env=env, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def creates(service: Running, path: str = "/v1/predictions") -> int:
    """How often the emulator was asked to create something: what would be billed."""
    asked = httpx.get(f"{service.emulator}/_emulator/requests").json()
    return sum(each["method"] == "POST" and each["path"].endswith(path) for each in asked)


def fault(service: Running, name: str, **params: Any) -> None:
    order = {"fault": name, "times": 1, **params}
    httpx.post(f"{service.emulator}/_emulator/faults", json=order).raise_for_status()


@pytest.fixture
def inputs(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of inputs, one prompt a line."""

    def write(*prompts: str) -> Path:
        path = tmp_path / "inputs.jsonl"
        path.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in prompts), "utf-8")
        return path

    return write


def test_safe_scripts(service: Running) -> None:
    models = json.loads(script(service, "list_models", "--json").stdout)
    assert "flux-schnell" in [model["key"] for model in models]
    assert "flux-schnell: files" in script(service, "list_models").stdout
    shown = json.loads(script(service, "preview_model_schema", "real-esrgan", "--json").stdout)
    assert "image" in shown["Input"]["properties"]
    assert (
        "  image: string, required" in script(service, "preview_model_schema", "real-esrgan").stdout
    )
    done = script(service, "doctor")
    assert done.stdout.count("ok  ") == len(done.stdout.splitlines())
    assert "whsec_" not in done.stdout
    assert "totals" in json.loads(script(service, "check_usage", "--json").stdout)
    assert "predictions," in script(service, "check_usage").stdout


@pytest.mark.parametrize(
    ("name", "arguments", "code", "words"),
    [
        ("preview_model_schema", ["nobody/nothing"], 1, "404"),
        ("preview_model_schema", ["flux"], 2, "give owner/name"),
        ("batch_generate", ["flux", "inputs.jsonl"], 2, "invalid choice: 'flux'"),
        ("batch_generate", ["flux-schnell", "nowhere.jsonl"], 1, "nowhere.jsonl cannot be read"),
        ("run_evaluation", ["nowhere.jsonl", "flux-schnell"], 1, "nowhere.jsonl cannot be read"),
        ("train_cog_model", ["real-esrgan", "me/mine", "nowhere.json"], 1, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(
    service: Running, name: str, arguments: list[str], code: int, words: str
) -> None:
    assert words in script(service, name, *arguments, code=code).stderr


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"DATABASE_URL": "sqlite:///var/another.db"}, " migrate`"),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL"),
        ({"STORAGE_URL": "ftp://somewhere"}, "STORAGE_URL"),
        ({"CALLER_PER_MINUTE": "many"}, "CALLER_PER_MINUTE"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said(
    service: Running, env: dict[str, Any], words: str
) -> None:
    said = script(service, "check_usage", code=1, **env).stderr
    assert words in said
    assert ("DATABASE_URL" in said) == ("DATABASE_URL" in env)


@pytest.mark.parametrize("name", [*SAFE, *sorted(PAID - {"batches"})])
def test_help_is_what_the_script_says_of_itself(service: Running, name: str) -> None:
    said = script(service, name, "--help").stdout
    assert name in said.replace("-", "_")
    assert ("PAID" in said) == (name in PAID)
    assert "[--" in said


def test_doctor_names_a_setting_without_effect_and_takes_a_secret_from_a_file(
    service: Running,
) -> None:
    wrong = {"MODEL_SETTINGS": '{"flux-schnel": {}}', "REPLICATE_API_TOKEN": "r8_emulator\n"}
    said = script(service, "doctor", code=1, **wrong).stdout
    assert [line for line in said.splitlines() if not line.startswith("ok  ")] == [
        "NO  settings: MODEL_SETTINGS has no effect on flux-schnel: no model here"
    ]


def test_every_wrong_line_is_named(service: Running, tmp_path: Path) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt"\n[1]\n{"promt": "b"}\n{"prompt": 1}\n')
    before = creates(service)
    done = script(service, "batch_generate", "flux-schnell", path, "--confirm-spend", code=1)
    lines = done.stderr.splitlines()
    assert [line.split(":")[1] for line in lines[:-1]] == ["3", "4", "5", "6"]
    assert lines[-1] == "Nothing was started."
    assert "prompt" in lines[2]
    path.write_text("\n")
    done = script(service, "run_evaluation", path, "flux-schnell", code=1)
    assert "holds no inputs" in done.stderr
    assert creates(service) == before


def test_paid_scripts_spend_only_when_told(
    service: Running, inputs: Callable[..., Path], tmp_path: Path
) -> None:
    path = inputs("a", "b")
    training = tmp_path / "training.json"
    training.write_text("{}")
    before = creates(service), creates(service, "/trainings")
    prices: dict[str, Any] = {"MODEL_SETTINGS": '{"flux-schnell": {"price_per_run": 0.25}}'}
    done = script(service, "batch_generate", "flux-schnell", path, "--json", **prices)
    planned = json.loads(done.stdout)
    assert (planned["to_start"], planned["estimate"], planned["confirmed"]) == (2, 0.5, False)
    assert planned["predict_seconds"] > 0
    done = script(service, "run_evaluation", path, "flux-schnell", **prices)
    assert "2 to start" in done.stderr
    assert "estimated at 0.5" in done.stderr
    done = script(service, "train_cog_model", "real-esrgan", "me/mine", training)
    assert "A dry run" in done.stderr
    assert (creates(service), creates(service, "/trainings")) == before


def ids(done: subprocess.CompletedProcess[str]) -> list[str]:
    return sorted(json.loads(line)["id"] for line in done.stdout.splitlines())


def test_the_same_lines_are_paid_once(service: Running, inputs: Callable[..., Path]) -> None:
    before = creates(service)
    command = ("batch_generate", "flux-schnell", inputs("c", "d", "c"), "--confirm-spend", "--json")
    first = script(service, *command)
    assert len(set(ids(first))) == 3, "a line that stands there twice is run twice"
    assert ids(script(service, *command)) == ids(first)
    # other lines before and between change nothing
    inputs("new", "c", "c", "d")
    assert set(ids(first)) < set(ids(script(service, *command)))
    assert creates(service) == before + 4
    usage = json.loads(script(service, "check_usage", "--json").stdout)
    assert set(ids(first)) <= {each["prediction"] for each in usage["predictions"]}
    done = script(service, "run_evaluation", inputs("c", "d"), "flux-schnell", "--confirm-spend")
    assert "2 of 2 stored" in done.stdout
    assert creates(service) == before + 4, "batch_generate has paid for them"


def test_the_log_and_check_usage_say_the_same(service: Running) -> None:
    """Prediction by prediction, also of what was stopped before it was sent, or is deleted."""
    community = "nightmareai/real-esrgan"
    picture = {"model": "real-esrgan", "input": {"image": "data:image/png;base64,iVBORw0KGgo="}}
    flux = {"model": "flux-schnell", "input": {"prompt": "a"}}
    http = httpx.Client(base_url=service.url, headers={"Origin": service.url}, timeout=60)
    made: dict[str, str] = {}

    def begin(name: str, body: dict[str, Any]) -> str:
        reply = http.post("/api/predictions", json=body, headers={"Prefer": "respond-async"})
        made[name] = reply.json()["id"]
        return name

    def until(true: Callable[[dict[str, Any]], Any], name: str) -> dict[str, Any]:
        end = time.monotonic() + 60
        found: dict[str, Any] = {}
        while not found or not true(found):
            found = http.get(f"/api/predictions/{made[name]}").json()
            assert time.monotonic() < end, found
            time.sleep(0.1)
        return found

    def throttled() -> Counter[str]:
        return Counter(line for line in service.output().splitlines() if "throttled" in line)

    until(lambda found: found["completed_at"], begin("well", flux))
    http.delete(f"/api/predictions/{made[begin('deleted', flux)]}")
    until(lambda found: found["completed_at"], begin("deleted later", picture))
    http.delete(f"/api/predictions/{made['deleted later']}")
    # not sent yet: Replicate wants no more for the moment
    for name, method, path in (
        ("canceled unsent", "POST", "/cancel"),
        ("deleted unsent", "DELETE", ""),
    ):
        before = throttled()
        fault(service, "create_429", model=community, retry_after=30)
        begin(name, picture)
        while throttled() == before:
            time.sleep(0.05)
        url = f"/api/predictions/{made[name]}{path}"
        http.request(method, url, headers={"Content-Type": "application/json"}).raise_for_status()
    # canceled while Replicate's machine was starting; the seconds come with a late event
    emulator = httpx.Client(base_url=service.emulator, headers={"Authorization": "Bearer r8_x"})
    emulator.post("/_emulator/settings", json={"cold_start_seconds": 30}).raise_for_status()
    begin("late", picture)
    until(lambda found: found["replicate_id"], "late")
    http.post(f"/api/predictions/{made['late']}/cancel", json={})
    remote = until(lambda found: found["completed_at"], "late")["replicate_id"]
    emulator.post("/_emulator/settings", json={"cold_start_seconds": 0.2}).raise_for_status()
    said = emulator.get(f"/v1/predictions/{remote}").json() | {"metrics": {"predict_time": 7.5}}
    body = json.dumps(said).encode()
    secret = emulator.get("/v1/webhooks/default/secret").json()["key"]
    headers = sign(body, secret)
    http.post("/api/webhooks/replicate", content=body, headers=headers).raise_for_status()

    end = time.monotonic() + 30
    while True:
        script_said = script(service, "check_usage", "--json", MODEL_SETTINGS=PRICES).stdout
        usage = json.loads(script_said)
        reported = {each["prediction"]: each for each in usage["predictions"]}
        logged = {}
        for line in service.output().splitlines():
            if '"prediction over"' in line:
                told = json.loads(line)
                logged[told["prediction"]] = {name: told[name] for name in usage["predictions"][0]}
        if logged == reported or time.monotonic() > end:
            break
    assert logged == reported
    costs = {name: reported[row_id]["estimate"] for name, row_id in made.items()}
    assert costs["well"] == 0.25
    assert costs["deleted later"] > 0.01
    assert costs["canceled unsent"] == costs["deleted unsent"] == 0
    assert costs["late"] == pytest.approx(0.76)
    total = sum(each["estimate"] for each in reported.values())
    assert usage["totals"]["estimate"] == pytest.approx(total)


def test_what_failed_is_run_again_when_told(service: Running, inputs: Callable[..., Path]) -> None:
    before = creates(service)
    command = ("batch_generate", "flux-schnell", inputs("e", "f"), "--confirm-spend", "--json")
    fault(service, "fail", model="black-forest-labs/flux-schnell", error="no such luck")
    first = script(service, *command, code=1)
    assert creates(service) == before + 2
    assert ids(script(service, *command, code=1)) == ids(first)
    assert creates(service) == before + 2
    again = script(service, *command, "--retry-failed")
    assert creates(service) == before + 3
    assert len(set(ids(again)) & set(ids(first))) == 1
    assert ids(script(service, *command)) == ids(again), "the last try is the one that counts"
    assert creates(service) == before + 3


def test_no_credit_ends_a_batch_without_a_second_try(
    service: Running, inputs: Callable[..., Path]
) -> None:
    before = creates(service)
    fault(service, "create_402", title="Insufficient credit")
    command = ("batch_generate", "flux-schnell", inputs("poor"), "--confirm-spend")
    done = script(service, *command, code=1)
    assert "Insufficient credit" in done.stdout
    assert "replicate.com/account/billing" in done.stdout
    assert creates(service) == before + 1


def test_a_ceiling_ends_the_starting(service: Running, inputs: Callable[..., Path]) -> None:
    before = creates(service)
    command = ("batch_generate", "flux-schnell", inputs("g", "h"), "--confirm-spend")
    done = script(service, *command, code=1, DAILY_PREDICTIONS="0")
    assert "2 were not started: The daily ceiling is reached" in done.stderr
    assert creates(service) == before


LATE = """
import os, signal, sys, threading, time
sys.path.insert(0, "scripts")
from common import run

def late():
    threading.main_thread().join()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

threading.Thread(target=late).start()
run(lambda: 0)
"""


def test_ctrl_c_while_a_script_ends_shows_no_traceback(default_project: Path) -> None:
    """In Python; Node ends without a word."""
    env = project_env(default_project)
    done = run(sys.executable, "-c", LATE, cwd=default_project, env=env)
    assert done.stderr == ""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_batch_goes_on_without_paying_twice(
    service: Running, inputs: Callable[..., Path], sent: signal.Signals
) -> None:
    """Killed where it likes, three times; what the emulator was asked for is counted."""
    before = creates(service)
    path = inputs(*[f"{sent.name} {number}" for number in range(12)])
    arguments = ["flux-schnell", str(path), "--confirm-spend"]
    command = [*command_of(service, "batch_generate"), *arguments]
    env = surroundings(service)
    for lines in (1, 3, 6):
        process = subprocess.Popen(
            command,
            cwd=service.project,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
        if sent is signal.SIGINT:
            assert process.returncode in (130, 0, -sent), errors  # the last: it had ended
            assert process.returncode != 130 or "Stopped." in errors
    done = script(service, "batch_generate", *arguments, "--json")
    assert len(set(ids(done))) == 12
    assert creates(service) == before + 12
    made = httpx.get(f"{service.emulator}/_emulator/predictions").json()
    prompts = Counter(each["input"].get("prompt") for each in made)
    assert [prompts[f"{sent.name} {number}"] for number in range(12)] == [1] * 12


def test_a_progress_bar_for_people_only(service: Running, inputs: Callable[..., Path]) -> None:
    command = ("batch_generate", "flux-schnell", inputs("i"), "--confirm-spend", "--json")
    assert "━" not in script(service, *command).stderr
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*command_of(service, "batch_generate"), *map(str, command[1:])],
        cwd=service.project,
        env=surroundings(service, TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    result, _ = process.communicate(timeout=60)
    shown = os.read(ours, 2**16).decode()
    os.close(ours)
    assert "1/1" in shown
    assert json.loads(result)["status"] == "succeeded", "what goes into a pipe stays whole"


def test_a_training_is_paid_once(service: Running, tmp_path: Path) -> None:
    training = tmp_path / "training.json"
    training.write_text('{"input_images": "https://example.com/a.zip"}')
    command = ("train_cog_model", "real-esrgan", "me/mine", training, "--json")
    before = creates(service, "/trainings")
    first = json.loads(script(service, *command, "--confirm-spend").stdout)
    again = json.loads(script(service, *command, "--confirm-spend").stdout)
    assert again["id"] == first["id"]
    assert json.loads(script(service, *command).stdout)["id"] == first["id"]
    assert creates(service, "/trainings") == before + 1
    other = json.loads(script(service, *command, "--confirm-spend", "--again").stdout)
    assert other["id"] != first["id"]
    assert creates(service, "/trainings") == before + 2
    # refused: nothing was started, so it may be tried again
    refused = (*command[:2], "nowhere", training, "--confirm-spend")
    for _ in range(2):
        assert "destination is required" in script(service, *refused, code=1).stderr
    assert creates(service, "/trainings") == before + 4


def test_a_training_whose_answer_was_lost_is_not_sent_again(
    service: Running, tmp_path: Path
) -> None:
    training = tmp_path / "training.json"
    training.write_text('{"input_images": "https://example.com/lost.zip"}')
    command = ("train_cog_model", "real-esrgan", "me/mine", training, "--confirm-spend")
    # an address where nothing but silence answers after the request was read
    with silent_server() as url:
        done = script(service, *command, code=1, REPLICATE_BASE_URL=url)
    assert "it may have been started" in done.stderr
    before = creates(service, "/trainings")
    assert "remove var/trainings/" in script(service, *command, code=1).stderr
    assert creates(service, "/trainings") == before


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """Takes a request and hangs up without an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.recv(2**16)
                    connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("answer", ["none", "ask", "deny"])
def test_paid_scripts_are_left_out_where_nobody_may_run_them(
    renders: Renders, answer: str, framework: str
) -> None:
    scripts = (renders(paid_scripts=answer, framework=framework) / "scripts").iterdir()
    found = {path.stem.replace("-", "_") for path in scripts}
    assert found & PAID == (set() if answer == "none" else PAID)
