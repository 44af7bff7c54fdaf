"""What operates a rendered project: its settings, its log, `doctor`, and its Dockerfile."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from run import pip_indexes
from tests.emulating import emulating
from tests.node import NODE, built, installed, is_node
from tests.rendering import (
    BIN,
    Renders,
    clean_env,
    free_port,
    project_env,
    run,
    running,
    serving,
    until_healthy,
)

TOKEN = "r8_secret"
PRODUCTION = {
    "REPLICATE_API_TOKEN": TOKEN,
    "REPLICATE_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "PUBLIC_URL": "https://service.example",
    "SESSION_SECRET": "s" * 32,
    "ALLOW_ANONYMOUS": "1",
    "HTTPS_PROXY": "http://127.0.0.1:9",  # nothing here may reach the real API
}
FRAMEWORKS = ("fastapi", "django", "nextjs")
APP = (sys.executable, "-m", "app")
DOCTOR = (sys.executable, "scripts/doctor.py")


@pytest.fixture
def project(renders: Renders, tmp_path: Path) -> Path:
    return renders.copy(tmp_path / "project")


def refusal(project: Path, command: tuple[str | Path, ...], **env: str) -> tuple[int, str]:
    """The exit code of a command, and what it said."""
    done = run(*command, cwd=project, env=project_env(project, **env), check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


# --- settings and log


# Start the processes one after the other: each would take seconds to import the same.
STARTS = {
    "py": """
import contextlib, io, json, os, sys
from app.__main__ import build_service, migrate, serve
from inference.processes import run
for process, changes in json.load(sys.stdin):
    before = dict(os.environ)
    os.environ |= changes
    sys.argv = ["app", process]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = run(build_service, migrate, serve)
    os.environ.clear()
    os.environ |= before
    print(json.dumps([code, said.getvalue()]))
""",
    "ts": """
import { readFileSync } from "node:fs";
import "./scripts/command.ts";
const before = { ...process.env };
let said = "";
process.stderr.write = (text) => { said += text; return true; };
process.exit = (code) => { throw code; };
for (const [index, [name, changes]] of JSON.parse(readFileSync(0, "utf-8")).entries()) {
  process.env = { ...before, ...changes };
  said = "";
  globalThis.replicateApp = undefined;
  const start = async () => {
    if (name === "worker") return await import(`./src/worker.ts?${index}`);
    await (await import("./src/web.ts")).startWeb();
  };
  const code = await start().catch((thrown) => thrown);
  console.log(JSON.stringify([typeof code === "number" ? code : String(code), said]));
}
process.kill(process.pid, "SIGKILL");
""",
}
WRONG = [
    ("ALLOW_ANONYMOUS", "", "caller."),
    ("PUBLIC_URL", "http://service.example", "https"),
    ("SESSION_SECRET", "short", "32"),
    ("REPLICATE_WEBHOOK_SECRET", "whsec_", "REPLICATE_WEBHOOK_SECRET"),
    ("REPLICATE_BASE_URL", "http://127.0.0.1:9/v1", "development only"),
    ("RUN_WAIT_SECONDS", "0", "RUN_WAIT_SECONDS"),
    ("MODEL_SETTINGS", "{", "MODEL_SETTINGS"),
    ("MODEL_SETTINGS", '{"flux-schnell": {"price": 1}}', "MODEL_SETTINGS.flux-schnell"),
    ("STORAGE_URL", "ftp://x", "STORAGE_URL"),
    ("DATABASE_URL", "nonsense", "DATABASE_URL"),
    ("DATABASE_URL", "mysql://x/y", "DATABASE_URL"),
    ("DATABASE_URL", "sqlite:////dev/null/app.db", "DATABASE_URL"),
]
# What only some of them read when they start.
WRONG_PYTHON = [
    ("STORAGE_URL", "/dev/null/x", "(/dev/null/x)"),
    ("STORAGE_URL", "s3://", "STORAGE_URL"),
]
UNREADABLE = {
    "fastapi": "postgresql://user:secret@127.0.0.1:port/name",
    "django": "postgresql://user:no%secret@127.0.0.1/name",
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_production_refuses_to_start_without_what_it_needs(
    framework: str, renders: Renders, tmp_path: Path
) -> None:
    project = renders.copy(tmp_path / "project", framework=framework)
    needed = sorted(PRODUCTION.keys() - {"HTTPS_PROXY", "ALLOW_ANONYMOUS"})
    starts = [(process, {name: ""}) for process in ("web", "worker") for name in needed]
    # Django has users of its own, so nobody is anonymous.
    wrong = [each for each in WRONG if (framework, each[0]) != ("django", "ALLOW_ANONYMOUS")]
    if url := UNREADABLE.get(framework):
        wrong += [*WRONG_PYTHON, ("DATABASE_URL", url, "(@ as %40)")]
    starts += [("web", {name: value}) for name, value, _ in wrong]
    command: list[str | Path] = [sys.executable, "-c", STARTS["py"]]
    if is_node(project):
        (project / "starts.mjs").write_text(STARTS["ts"], "utf-8")
        command = [NODE, installed(project) / "starts.mjs"]
    done = subprocess.run(
        command,
        input=json.dumps(starts),
        cwd=project,
        env=project_env(project, **PRODUCTION),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(starts), done.stderr
    words = [next(iter(changes)) for _, changes in starts[: -len(wrong)]]
    words += [word for _, _, word in wrong]
    for start, (code, said), word in zip(starts, answers, words, strict=True):
        assert code == 2, (start, code, said)
        assert word in said, (start, said)
        assert "short" not in said
        assert "secret@" not in said
        if word in needed:
            assert [name for name in needed if f"{name} " in said] == [word], said


def web(project: Path, port: int) -> list[str]:
    """The command of the web process; what Next.js serves is built first, as in production."""
    if is_node(project):
        return [*words(built(project), "npm start"), "--port", str(port)]
    return [*words(project, "python -m app web"), "--port", str(port)]


def words(project: Path, command: str) -> list[str]:
    """What `uv run`, `npm` and `npx` start, in our environment."""
    first, *rest = shlex.split(command.removeprefix("uv run "))
    if first == "npm":
        scripts = json.loads((project / "package.json").read_text("utf-8"))["scripts"]
        name, _, more = command.removeprefix("npm ").removeprefix("run ").partition(" -- ")
        return [*words(project, scripts[name]), *shlex.split(more)]
    if first in ("npx", "next", "node"):
        tool = {"npx": ["node_modules/tsx/dist/cli.mjs"], "next": ["node_modules/.bin/next"]}
        return [str(NODE), *tool.get(first, []), *(rest[1:] if first == "npx" else rest)]
    return [sys.executable, *(rest if first == "python" else [first, *rest])]


@pytest.mark.parametrize("framework", ["fastapi", pytest.param("nextjs", marks=pytest.mark.slow)])
def test_production_logs_json_and_keeps_its_cookie_safe(
    framework: str, renders: Renders, tmp_path: Path
) -> None:
    project = renders.copy(tmp_path / "project", framework=framework)
    node = is_node(project)
    port = free_port()
    env = project_env(project, **PRODUCTION)
    start = web(project, port)
    run(
        *words(project, "npm run migrate" if node else "python -m app migrate"),
        cwd=project,
        env=env,
    )
    url = f"http://127.0.0.1:{port}"
    with serving(start, project, env) as log:
        until_healthy(url, log)
        cookie = httpx.get(f"{url}/api/predictions").headers["set-cookie"].lower()
        assert {"secure", "httponly", "samesite=lax"} <= set(cookie.split("; "))
        (project / "var/app.db").write_bytes(b"")
        for name in ("app.db-wal", "app.db-shm"):
            (project / "var" / name).unlink(missing_ok=True)
        assert httpx.get(f"{url}/api/predictions").status_code == 500
    text = log.read_text("utf-8")
    assert TOKEN not in text
    if node:  # whose server has a few lines of its own to say, in colours
        shown = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        (failed,) = [line for line in shown if line["event"] == "request failed"]
        assert failed["path"] == "/api/predictions"
        assert "SqliteError" in failed["err"]["stack"]
        code, said = refusal(project, tuple(start), **PRODUCTION | {"SESSION_SECRET": "short"})
        assert (code, "SESSION_SECRET (at least 32" in said) == (2, True)
        return
    lines = [json.loads(line) for line in text.splitlines()]
    assert any("Uvicorn running" in line["event"] for line in lines)
    (failed,) = [line for line in lines if line["event"] == "request failed"]
    assert (failed["level"], failed["path"]) == ("error", "/api/predictions")
    assert "Traceback" in failed["exception"]


def test_env_file_is_read_and_the_environment_goes_first(project: Path) -> None:
    (project / ".env").write_text("REPLICATE_API_TOKEN=r8_x\nRUN_WAIT_SECONDS=0\nAWS_REGION=mars\n")
    code, said = refusal(project, DOCTOR, ENVIRONMENT="development")
    assert (code, "RUN_WAIT_SECONDS" in said) == (1, True)
    seen = (
        "import os; from inference.settings import load_settings;"
        "print(load_settings().run_wait_seconds, os.environ['AWS_REGION'])"
    )
    command = (sys.executable, "-c", seen)
    code, said = refusal(project, command, ENVIRONMENT="development", RUN_WAIT_SECONDS="7")
    assert (code, said) == (0, "7 mars\n")


@pytest.mark.parametrize("framework", ["fastapi", "nextjs"])
def test_a_taken_port_is_named(framework: str, renders: Renders) -> None:
    project = renders(framework=framework)
    dev = (NODE, "dev/main.ts") if is_node(project) else (sys.executable, "dev")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for option in ("--port", "--emulator-port"):
            code, said = refusal(project, (*dev, "--port", str(free_port()), option, port))
            assert (code, said) == (1, f"Port {port} is taken: give another one by {option}\n")


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["fastapi", "nextjs"])
@pytest.mark.parametrize("given", [True, False], ids=["given", "default"])
def test_development_takes_nothing_of_the_real_service(
    framework: str, given: bool, renders: Renders, tmp_path: Path
) -> None:
    """Neither its database nor its storage: what is in them is no emulator's."""
    project = renders.copy(tmp_path / "project", framework=framework)
    node = is_node(project)
    real = "DATABASE_URL=sqlite:///var/real.db\nSTORAGE_URL=./var/real\n" if given else ""
    (project / (".env.local" if node else ".env")).write_text(f"{real}REPLICATE_API_TOKEN=r8_x\n")
    with running(project) as service, httpx.Client(base_url=service.url, timeout=60) as http:
        body = {"model": "flux-schnell", "input": {"prompt": "x"}}
        assert http.post("/api/predictions", json=body).json()["storage"] == "stored"
    assert [path.name for path in (project / "var").iterdir()] == ["dev"]
    assert {"app.db", "outputs"} <= {path.name for path in (project / "var/dev").iterdir()}


def test_only_a_worker_imports_the_sdk(project: Path) -> None:
    program = "import sys, app.main; app.main.create_app(); print('replicate' in sys.modules)"
    code, said = refusal(project, (sys.executable, "-c", program), **PRODUCTION)
    assert (code, said) == (0, "False\n")


# --- what a new user does


@pytest.mark.parametrize(
    "framework",
    ["fastapi", *(pytest.param(each, marks=pytest.mark.slow) for each in ("django", "nextjs"))],
)
def test_the_readmes_way_to_the_first_prediction(
    framework: str, renders: Renders, tmp_path: Path
) -> None:
    """Word for word, with the emulator in place of Replicate."""
    project = renders.copy(tmp_path / "project", framework=framework)
    section = (
        (project / "README.md").read_text("utf-8").partition("## The first real prediction")[2]
    )
    given, commands = (
        [line.strip() for line in block.splitlines() if line.strip()]
        for block in section.split("```")[1:4:2]
    )
    text = (project / ".env.example").read_text("utf-8")
    for line in given:
        name = line.partition("=")[0]
        text, times = re.subn(rf"(?m)^{name}=.*$", line.replace("…", "x"), text)
        assert times == 1, f"{name} is not in .env.example"
    (project / (".env.local" if is_node(project) else ".env")).write_text(text, "utf-8")
    port = free_port()
    *before, last = [command.removeprefix("npm run build && ") for command in commands]
    if is_node(project):
        built(project)
    start = [*words(project, last), "--port", str(port)]
    usage = "npx tsx scripts/check-usage.ts" if is_node(project) else "scripts/check_usage.py"
    with emulating(renders()) as emulator:
        env = project_env(project, REPLICATE_BASE_URL=f"{emulator.url}/v1")
        for command in before:
            run(*words(project, command), cwd=project, env=env)
        with serving(start, project, env) as log, httpx.Client(timeout=30) as http:
            url = f"http://127.0.0.1:{port}"
            until_healthy(url, log)
            body = {"model": "flux-schnell", "input": {"prompt": "x"}}
            made = http.post(f"{url}/api/predictions", json=body).json()
            assert made["storage"] == "stored", made
            assert http.get(url + made["output"][0]).content
            # Here anyone may spend: another address of this machine stands for the others.
            with pytest.raises(httpx.ConnectError):
                http.get(f"http://127.0.0.2:{port}/healthz")
        assert made["id"] in run(*words(project, usage), cwd=project, env=env).stdout


@pytest.mark.slow
def test_files_in_a_list_reach_replicate(project: Path) -> None:
    """Of a model that takes several pictures, which the catalogue has none of."""
    module = project / "src/inference/models/real_esrgan.py"
    text = module.read_text("utf-8")
    module.write_text(re.sub(r"(?m)^    image: File\b", "    image: list[File]", text), "utf-8")
    with running(project) as service, httpx.Client(base_url=service.url, timeout=60) as http:
        own = http.post(
            "/api/files", files={"file": b"a picture"}, headers={"Origin": service.url}
        ).json()["url"]
        given = ["https://example.com/a.png", own]
        body = {"model": "real-esrgan", "input": {"image": given}}
        made = http.post("/api/predictions", json=body).json()
        while not made["completed_at"]:
            made = http.get(f"/api/predictions/{made['id']}?wait=20").json()
        assert made["status"] == "succeeded", made
        emulator = httpx.Client(headers={"Authorization": "Bearer r8_emulator"})
        (sent,) = emulator.get(f"{service.emulator}/_emulator/predictions").json()
        assert sent["input"]["image"][0] == given[0]
        handed = emulator.get(sent["input"]["image"][1]).json()
        assert handed["size"] == len(b"a picture")
        foreign = body | {"input": {"image": [f"/files/{'a' * 32}/0"]}}
        refused = http.post("/api/predictions", json=foreign).json()
        assert [error["field"] for error in refused["errors"]] == ["input.image"]


def test_a_worker_without_tables_says_so_in_a_line(project: Path) -> None:
    """Not in tracebacks, every two seconds, of each thing that it does at once."""
    env = project_env(project, **PRODUCTION)
    with serving([*APP, "worker"], project, env) as log:
        end = time.monotonic() + 60
        while (said := log.read_text("utf-8")).count("\n") < 9:
            assert time.monotonic() < end, said
            time.sleep(0.1)
    lanes = [json.loads(line) for line in said.splitlines() if "cannot be worked with" in line]
    assert {line["reason"] for line in lanes} == {
        "(sqlite3.OperationalError) no such table: predictions"
    }
    assert "and migrated?" in lanes[0]["event"]
    assert "Traceback" not in json.dumps(lanes)


# --- doctor


def lines(said: str) -> dict[str, bool]:
    """Each check of doctor's answer, by name: whether it is well."""
    found = re.findall(r"(?m)^(ok|NO)  ([a-z ]+): .+$", said)
    assert len(found) == len(said.splitlines())
    return {name: verdict == "ok" for verdict, name in found}


def test_doctor_names_what_is_wrong_and_the_way_out(project: Path, renders: Renders) -> None:
    with emulating(renders()) as emulator:
        env = {
            "ENVIRONMENT": "development",
            "REPLICATE_BASE_URL": f"{emulator.url}/v1",
            "STORAGE_URL": "s3://nowhere",
            "AWS_ENDPOINT": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "PUBLIC_URL": emulator.url,
        }
        code, said = refusal(project, DOCTOR, **env)
        assert code == 1
        assert not any(lines(said).values()), said
        for way_out in (
            "api-tokens",
            "--show-secret >> .env",
            f"{emulator.url}/api/webhooks/replicate answers 404",
            "STORAGE_URL s3://nowhere",
            "python -m app migrate",
        ):
            assert way_out in said

        # the way out, word for word
        env |= {"REPLICATE_API_TOKEN": TOKEN, "PUBLIC_URL": "", "STORAGE_URL": ""}
        code, said = refusal(project, (*DOCTOR, "--show-secret"), **env)
        assert code == 0
        assert re.fullmatch(r"REPLICATE_WEBHOOK_SECRET=whsec_\S+\n", said)
        (project / ".env").write_text(said)
        run(*APP, "migrate", cwd=project, env=project_env(project, **env))
        port = free_port()
        env["PUBLIC_URL"] = f"http://127.0.0.1:{port}"
        started = project_env(project, **env)
        with serving([*APP, "web", "--port", str(port)], project, started) as log:
            until_healthy(env["PUBLIC_URL"], log)
            code, said = refusal(project, DOCTOR, **env)
            assert code == 0, said
            assert all(lines(said).values())
            assert "whsec_" not in said
            code, said = refusal(
                project, DOCTOR, **env, REPLICATE_WEBHOOK_SECRET="whsec_" + "A" * 32
            )
            assert [name for name, well in lines(said).items() if not well] == ["webhook secret"]
        assert emulator.get("/_emulator/predictions").json() == []  # nothing was spent


def test_doctor_shows_the_secret_before_anything_else_is_set(project: Path) -> None:
    """In production, where the service would not start yet; here Replicate cannot be reached."""
    env = {"REPLICATE_API_TOKEN": TOKEN, "HTTPS_PROXY": PRODUCTION["HTTPS_PROXY"]}
    code, said = refusal(project, (*DOCTOR, "--show-secret"), **env)
    assert code == 1
    assert "no answer from https://api.replicate.com/v1" in said
    assert "missing" not in said


# --- the Dockerfile


def hadolint(dockerfile: Path) -> tuple[int, str]:
    command = (BIN / "hadolint", "--no-color", "--failure-threshold", "style", dockerfile)
    done = run(*command, cwd=dockerfile.parent, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("framework", ["fastapi", "nextjs"])
def test_the_dockerfile_is_linted(framework: str, renders: Renders) -> None:
    assert hadolint(renders(framework=framework) / "Dockerfile") == (0, "")


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("RUN cd /tmp && ls", "DL3003"),
        ("RUN pip install --no-cache-dir uv", "DL3013"),
        ("USER root", "DL3002"),
        ("ADD src src", "DL3020"),
    ],
)
def test_a_bad_line_is_seen(project: Path, line: str, rule: str) -> None:
    place = project / "Dockerfile"
    place.write_text(f"{place.read_text('utf-8')}{line}\n", "utf-8")
    code, said = hadolint(place)
    assert code == 1
    assert rule in said


class Image:
    """The steps of a Dockerfile, done in folders instead of layers.

    Each stage is a folder that stands for /, its Python a virtual environment of our interpreter,
    or its Node.js the one of our tests.
    Users are not made and owners not changed: that is for an engine only.
    """

    NOT_DONE = ("useradd ", "chown ")

    def __init__(self, context: Path, folder: Path) -> None:
        self.context = context
        self.folder = folder
        self.stages: dict[str, Path] = {}
        self.command: list[str] = []
        text = (context / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            if line.strip() and not line.startswith("#"):
                word, _, rest = line.partition(" ")
                getattr(self, f"do_{word.lower()}")(rest)

    def do_from(self, rest: str) -> None:
        _, _, name = rest.partition(" AS ")
        self.root = self.folder / (name or "image")
        self.stages[name] = self.root
        self.work = self.root
        kept = {k: v for k, v in clean_env().items() if not k.startswith(("UV_", "VIRTUAL_"))}
        self.env = kept | {"HOME": str(self.root / "home")}
        local = self.root / "usr/local"
        if rest.startswith("node:"):
            (local / "bin").mkdir(parents=True)
            (local / "bin/node").symlink_to(NODE)
            (local / "bin/npm").symlink_to(NODE.parents[1] / "lib/node_modules/npm/bin/npm-cli.js")
            # what the other tests fetched need not be fetched again
            self.env["npm_config_cache"] = str(Path.home() / ".npm")
        else:
            run(sys.executable, "-m", "venv", "--without-pip", local, cwd=self.folder)
            self.env |= pip_indexes()
        self.env["PATH"] = os.pathsep.join([str(local / "bin"), "/usr/bin", "/bin"])

    def do_workdir(self, rest: str) -> None:
        self.work = self.root / rest.lstrip("/")
        self.work.mkdir(parents=True, exist_ok=True)

    def do_copy(self, rest: str) -> None:
        options = [word for word in shlex.split(rest) if word.startswith("--")]
        *sources, target = [word for word in shlex.split(rest) if not word.startswith("--")]
        stage = next((one[7:] for one in options if one.startswith("--from=")), None)
        base = self.context if stage is None else self.stages[stage]
        globs = [source.lstrip("/") for source in sources]
        found = [path for each in globs for path in ([base] if each == "." else base.glob(each))]
        assert found, f"COPY {rest}: nothing there"
        ignored = base / ".dockerignore"
        left = ignored.read_text("utf-8").split() if stage is None and ignored.exists() else []
        for path in found:
            # a folder's content goes into the target, a file below it
            to = self.work / target if path.is_dir() else self.work / target / path.name
            if path.is_dir():
                ignore = shutil.ignore_patterns(*left)
                shutil.copytree(path, to, symlinks=True, dirs_exist_ok=True, ignore=ignore)
            else:
                shutil.copy2(path, to)

    def do_run(self, rest: str) -> None:
        steps = [step for step in rest.split(" && ") if not step.startswith(self.NOT_DONE)]
        for step in steps:
            if step.startswith("pip "):  # into the image's Python
                step = f"{sys._base_executable} -m pip --python {self.root}/usr/local {step[4:]}"  # type: ignore[attr-defined]
            if step == "npm run build":  # done once for all tests
                built(self.work)
                continue
            run("sh", "-c", step, cwd=self.work, env=self.env, timeout=600)

    def do_env(self, rest: str) -> None:
        for word in rest.split():
            name, _, value = word.partition("=")
            value = value.replace("$PATH", self.env["PATH"])
            self.env[name] = re.sub(r"(?<![^:])/app", f"{self.root}/app", value)

    def do_user(self, rest: str) -> None:
        assert rest.isdecimal()

    def do_expose(self, rest: str) -> None:
        assert rest in ("8000", "3000")

    def do_cmd(self, rest: str) -> None:
        self.command = json.loads(rest)


@pytest.mark.slow
@pytest.mark.parametrize("locked", [False, True], ids=["without a lock", "with a lock"])
def test_the_dockerfiles_steps_make_a_service(project: Path, tmp_path: Path, locked: bool) -> None:
    if locked:
        env = clean_env(**pip_indexes())
        run(BIN / "uv", "lock", "--quiet", cwd=project, env=env, timeout=600)
    folder = tmp_path / "image"
    folder.mkdir()
    image = Image(project, folder)
    shutil.rmtree(project)  # nothing may be taken from where it was built
    shutil.rmtree(image.stages["build"])
    env = image.env | PRODUCTION
    run("python", "-m", "app", "migrate", cwd=image.work, env=env)
    port = free_port()
    with serving([*image.command, "--port", str(port)], image.work, env) as log:
        until_healthy(f"http://127.0.0.1:{port}", log)
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/readyz").json()["checks"]["storage"] == "ok"
        assert "<form" in httpx.get(url).text
        assert httpx.get(f"{url}/page/page.js").is_success
        missing = run("python", "-c", "import pytest", cwd=image.work, env=env, check=False)
        assert missing.returncode != 0, "what only developers need is in the image"
    with serving(["python", "-m", "app", "worker"], image.work, env) as log:
        time.sleep(3)
    assert log.read_text("utf-8") == ""


@pytest.mark.slow
def test_the_dockerfiles_steps_make_a_service_of_nextjs(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project", framework="nextjs")
    (project / ".env.local").write_text("REPLICATE_API_TOKEN=r8_of_a_person\n", "utf-8")
    folder = tmp_path / "image"
    folder.mkdir()
    image = Image(project, folder)
    documented = (project / "Dockerfile").read_text("utf-8")
    shutil.rmtree(project)
    shutil.rmtree(image.stages["build"])
    env = image.env | PRODUCTION
    run("npm", "run", "migrate", cwd=image.work, env=env)
    port = free_port()
    with serving(image.command, image.work, env | {"PORT": str(port)}) as log:
        url = f"http://127.0.0.1:{port}"
        until_healthy(url, log)
        assert httpx.get(f"{url}/readyz").json()["checks"]["storage"] == "ok"
        page = httpx.get(url)
        assert "<form" in page.text
        # next.config.ts was read, without what only developers have
        assert page.headers["referrer-policy"] == "same-origin"
        assert "x-powered-by" not in page.headers
    with contextlib.suppress(httpx.TransportError):
        pytest.fail(f"it serves on when it was told to stop: {httpx.get(url)}")
    there = {path.name for path in (image.work / "node_modules").iterdir()}
    assert not {"typescript", "vitest", "tsx"} & there
    assert not list(image.work.glob(".env*"))
    worker = ["node", "--conditions=react-server", "src/worker.ts"]
    assert f"`{' '.join(worker)}`" in documented
    with serving(worker, image.work, env) as log:
        time.sleep(3)
    assert log.read_text("utf-8") == ""
