"""docs/existing-application.md followed by a new user: every command and file of it, as it is."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from run import pip_indexes
from tests.rendering import BIN, ROOT, Renders, clean_env, free_port, project_env, run

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PASSWORD = "correct-horse-battery"
MAIN = """\
from fastapi import FastAPI, Header, HTTPException

app = FastAPI()


def current_user(x_user: str = Header("")) -> str:
    if not x_user:
        raise HTTPException(401)
    return x_user


@app.get("/")
def index() -> dict[str, str]:
    return {"here": "before"}
"""


def section(title: str) -> list[tuple[str, str]]:
    """The blocks under a heading, "" for those before the first, with their languages."""
    text = (ROOT / "docs/existing-application.md").read_text("utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    found = dict(zip(["", *parts[1::2]], parts[::2], strict=True))[title]
    return BLOCK.findall(found)


def written(folder: Path, code: str) -> None:
    """Write a block into the file that its first line names, or add it to one that is there."""
    named = re.match(r"# (\S+\.py)\n", code)
    assert named, code
    with (folder / named[1]).open("a", encoding="utf-8") as file:
        file.write(code)


def shell(folder: Path, commands: str, env: Mapping[str, str]) -> None:
    run("bash", "-euc", commands, cwd=folder, env=env, timeout=400)


@contextlib.contextmanager
def process(folder: Path, env: Mapping[str, str], *command: str | Path) -> Iterator[None]:
    log = folder.parent / "processes.log"
    with (
        log.open("ab") as output,
        subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output) as started,
    ):
        try:
            yield
            assert started.poll() is None, log.read_text("utf-8")
        except BaseException:
            print(log.read_text("utf-8"))
            raise
        finally:
            started.terminate()


def up(url: str) -> None:
    """Wait until something answers, for a minute."""
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url, timeout=5)
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}")


class User:
    """Somebody with a machine of their own: a fresh environment, and a rendered project."""

    def __init__(self, folder: Path, renders: Renders, framework: str, *packages: str) -> None:
        self.rendered = renders.copy(folder / "my-project", framework=framework)
        self.app = folder / "mysite"
        self.port, self.emulator = free_port(), free_port()
        environment = folder / "environment"
        shared = {**clean_env(), **pip_indexes()}
        run(BIN / "uv", "venv", "--quiet", "--seed", environment, cwd=folder, env=shared)
        [(_, ini)] = section("Settings")
        settings = dict(line.split("=", 1) for line in ini.split())
        assert settings["REPLICATE_BASE_URL"] == "http://127.0.0.1:8787/v1"
        settings["REPLICATE_BASE_URL"] = f"http://127.0.0.1:{self.emulator}/v1"
        settings["PUBLIC_URL"] = self.url = f"http://127.0.0.1:{self.port}"
        path = os.pathsep.join([str(environment / "bin"), os.environ["PATH"]])
        self.env = {**shared, "PATH": path, **settings, "ENV_FILE": os.devnull}
        shell(folder, f"pip install --quiet {' '.join(packages)}", self.env)
        for _, commands in section(""):
            shell(folder, commands, self.env)

    def follow(self, title: str) -> list[str]:
        """Do what a section says, except its last block, which starts the processes; returns it."""
        *blocks, (_, last) = section(title)
        for language, block in blocks:
            if language == "python":
                written(self.app, block)
            else:
                shell(self.app, block, self.env)
        migrate, worker, web = last.splitlines()
        shell(self.app, migrate, self.env)
        return [worker.removesuffix(" &"), web]

    @contextlib.contextmanager
    def at_work(self, worker: str, web: str) -> Iterator[httpx.Client]:
        """The emulator and the processes of the application, and a client of it."""
        emulator = (BIN / "python", "dev/emulator.py", "--port", str(self.emulator))
        api = self.env["REPLICATE_BASE_URL"]
        token = {"Authorization": f"Bearer {self.env['REPLICATE_API_TOKEN']}"}
        with contextlib.ExitStack() as processes:
            processes.enter_context(process(self.rendered, project_env(self.rendered), *emulator))
            up(api)
            secret = httpx.get(f"{api}/webhooks/default/secret", headers=token).json()["key"]
            env = self.env | {"REPLICATE_WEBHOOK_SECRET": secret}
            for command in (worker, web):
                processes.enter_context(process(self.app, env, *command.split()))
            up(self.url)
            with httpx.Client(base_url=self.url, timeout=30) as client:
                yield client
            log = (self.app.parent / "processes.log").read_text("utf-8")
            assert re.search(r'"POST /api/webhooks/replicate\S* HTTP/1.1" 200', log), log


def see_that_it_works(client: httpx.Client) -> str:
    """The last section: a prediction is started and stored, its output the caller's; its id."""
    [(_, body)] = section("See that it works")
    json = {"Content-Type": "application/json"}
    answer = client.post("/api/predictions", content=body, headers=json)
    assert answer.status_code == 202, answer.text
    end = time.monotonic() + 60
    while True:
        seen = client.get(f"/api/predictions/{answer.json()['id']}").json()
        if seen["storage"] == "stored":
            break
        assert time.monotonic() < end, seen
        time.sleep(0.2)
    picture = client.get(seen["output"][0])
    assert picture.headers["content-type"].startswith("image/")
    assert len(picture.content) == int(picture.headers["content-length"]) > 0
    known = {"If-None-Match": picture.headers["etag"]}
    assert client.get(seen["output"][0], headers=known).status_code == 304
    assert httpx.get(client.base_url.join(seen["output"][0])).status_code == 401
    wrong = client.post("/api/predictions", content='{"model": "no", "input": {}}', headers=json)
    assert wrong.status_code == 422
    assert client.post("/api/webhooks/replicate", content="{}").status_code == 400
    return str(seen["id"])


def test_a_django_project(renders: Renders, tmp_path: Path) -> None:
    user = User(tmp_path, renders, "django", '"django>=5.2,<6"')
    shell(tmp_path, "django-admin startproject mysite", user.env)
    worker, web = user.follow("Django")
    who = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    command = "python manage.py createsuperuser --noinput --username ann --email ann@example.com"
    shell(user.app, command, user.env | who)
    shell(user.app, "python manage.py makemigrations --check", user.env)
    with user.at_work(worker, f"{web} --noreload {user.port}") as client:
        client.get("/admin/login/")
        form = {"username": "ann", "password": PASSWORD}
        form["csrfmiddlewaretoken"] = client.cookies["csrftoken"]
        assert client.post("/admin/login/", data=form).is_redirect
        assert client.post("/api/predictions", content="{}").status_code == 403
        client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
        made = see_that_it_works(client)
        assert made in client.get("/admin/predictions/prediction/").text
        detail = client.get(f"/admin/predictions/prediction/{made}/change/").text
        shown = re.search(r'<img src="(/admin/predictions/[^"]+)"', detail)
        assert shown
        assert client.get(shown[1]).headers["content-type"].startswith("image/")


def test_a_fastapi_application(renders: Renders, tmp_path: Path) -> None:
    user = User(tmp_path, renders, "fastapi", "fastapi", "uvicorn")
    user.app.mkdir()
    (user.app / "main.py").write_text(MAIN, "utf-8")
    worker, web = user.follow("FastAPI")
    with user.at_work(worker, f"{web} --port {user.port}") as client:
        client.headers["X-User"] = "ann"
        see_that_it_works(client)
        assert client.get("/").json() == {"here": "before"}
