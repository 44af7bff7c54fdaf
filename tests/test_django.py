"""What a Django team expects of its project: admin, users, commands, checks, CSRF."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.rendering import (
    Renders,
    Running,
    checked,
    edited,
    free_port,
    project_env,
    run,
    running,
)
from tests.storage.servers import BUCKET, S3, s3_server

pytestmark = pytest.mark.slow

PASSWORD = "correct-horse-battery"
DEVELOPMENT = "sqlite:///var/dev/app.db"
PRODUCTION = {
    "ENVIRONMENT": "production",
    "REPLICATE_API_TOKEN": "r8_test",
    "REPLICATE_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "PUBLIC_URL": "https://example.test",
    "SESSION_SECRET": "0123456789abcdef" * 4,
}


def manage(
    project: Path, *arguments: str, env: Mapping[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    whole = {"ENVIRONMENT": "development", "REPLICATE_API_TOKEN": "r8_test", **(env or {})}
    command = (sys.executable, "-Werror", "manage.py", *arguments)
    return run(*command, cwd=project, env=project_env(project, **whole), check=check)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def service(
    s3: S3, renders: Renders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Outputs go to a real S3 server."""
    project = tmp_path_factory.mktemp("django") / "project"
    renders.copy(project, framework="django", storage="s3")
    prices = '{"flux-schnell": {"price_per_run": 0.003}}'
    bucket = {"STORAGE_URL": f"s3://{BUCKET}/outputs", **s3.env}
    with running(project, MODEL_SETTINGS=prices, **bucket) as started:
        names = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD, "DATABASE_URL": DEVELOPMENT}
        who = ("--username", "ann", "--email", "ann@example.com")
        manage(project, "createsuperuser", "--noinput", *who, env=names)
        yield started


def signed_in(url: str) -> httpx.Client:
    client = httpx.Client(base_url=url, timeout=30)
    form = client.get("/admin/login/")
    answer = client.post(
        "/admin/login/",
        data={"username": "ann", "password": PASSWORD, "csrfmiddlewaretoken": token(form)},
    )
    assert answer.status_code == 302, answer.text
    return client


def token(page: httpx.Response) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found
    return found[1]


def start(client: httpx.Client, model: str, **given: Any) -> dict[str, Any]:
    answer = client.post("/api/predictions", json={"model": model, "input": given})
    assert answer.status_code in (201, 202), answer.text
    started: dict[str, Any] = answer.json()
    return started


ADMIN = "/admin/predictions/prediction/"


def test_the_admin_in_a_browser(service: Running, browser: Browser) -> None:
    """List, filters, the stored picture, cost per day, and cancel: as a person goes through it."""
    other = start(httpx.Client(base_url=service.url, timeout=30), "flux-schnell", prompt="a boat")
    hanging = start_hanging(service, signed_in(service.url))
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda got: errors.append(got.url) if got.status >= 400 else None)
    page.goto(service.url + ADMIN)
    page.fill("#id_username", "ann")
    page.fill("#id_password", PASSWORD)
    page.click("text=Log in")
    rows = page.locator("#result_list tbody tr")
    done, runs = rows.filter(has_text=other["id"]), rows.filter(has_text=hanging["id"])
    expect(done.locator(".field-estimate")).to_have_text("0.0030")
    expect(runs).to_be_visible()
    filters = page.locator("#changelist-filter")
    filters.locator("a", has_text="succeeded").click()
    expect(runs).to_be_hidden()
    filters.locator("a", has_text="stored").click()
    expect(done).to_be_visible()
    filters.locator("a", has_text="failed").first.click()
    expect(done).to_be_hidden()
    page.goto(f"{service.url}{ADMIN}{other['id']}/change/")
    picture = page.locator(".field-stored img")
    expect(picture).to_be_visible()
    assert picture.evaluate("each => each.decode().then(() => each.naturalWidth)") > 0
    page.goto(service.url + ADMIN)
    runs.locator("input").check()
    page.select_option("select[name=action]", "cancel")
    page.click("button[name=index]")
    expect(page.locator(".messagelist")).to_have_text("1 canceled, 0 were over already.")
    page.click("text=Cost per day")
    expect(page.locator("#content tbody td").nth(2)).to_contain_text("0.00")
    page.goto(service.url + ADMIN + "nothing/change/")
    expect(page.locator(".messagelist")).to_contain_text("exist")
    page.close()
    assert errors == []


def start_hanging(service: Running, client: httpx.Client) -> dict[str, Any]:
    fault = {"fault": "hang", "model": "nightmareai/real-esrgan"}
    assert httpx.post(f"{service.emulator}/_emulator/faults", json=fault).is_success
    return start(client, "real-esrgan", image="https://example.com/a.png")


def test_the_admin_cancels_and_deletes(service: Running) -> None:
    client = signed_in(service.url)
    hanging = start_hanging(service, client)
    act = {"csrfmiddlewaretoken": token(client.get(ADMIN)), "_selected_action": hanging["id"]}
    assert client.post(ADMIN, data=act | {"action": "cancel"}).is_redirect
    path = f"/api/predictions/{hanging['id']}"
    while client.get(path, params={"wait": 20}).json()["status"] != "canceled":
        continue
    assert client.post(ADMIN, data=act | {"action": "erase"}).is_redirect
    assert client.get(path).status_code == 404
    assert client.post(f"{ADMIN}{hanging['id']}/delete/").status_code == 403


def test_a_picture_is_for_its_owner_and_the_admin(service: Running) -> None:
    client, owner = signed_in(service.url), httpx.Client(base_url=service.url, timeout=30)
    made = start(owner, "flux-schnell", prompt="a house")
    (picture,) = made["output"]
    in_admin = f"{ADMIN}{made['id']}/files/0"
    assert client.get(in_admin).content == owner.get(picture).content
    assert client.get(picture).status_code == 404
    assert owner.get(in_admin).status_code == 302, "to the sign-in"


def test_outputs_are_in_the_bucket_until_they_are_deleted(service: Running, s3: S3) -> None:
    client = signed_in(service.url)
    made = start(client, "flux-schnell", prompt="a house")
    (picture,) = made["output"]
    held = f"http://127.0.0.1:{s3.filer}/buckets/{BUCKET}/outputs/{made['id']}/"
    (entry,) = httpx.get(held, headers={"Accept": "application/json"}).json()["Entries"]
    whole = httpx.get(held + Path(entry["FullPath"]).name).content
    assert client.get(picture).content == whole
    part = client.get(picture, headers={"Range": "bytes=8-15"})
    assert (part.status_code, part.content) == (206, whole[8:16])
    as_json = {"Content-Type": "application/json"}
    assert client.delete(f"/api/predictions/{made['id']}", headers=as_json).status_code == 204
    while httpx.get(held, headers={"Accept": "application/json"}).json().get("Entries"):
        time.sleep(0.1)
    assert client.get(picture).status_code == 404


def test_a_user_is_the_caller_in_every_session(service: Running) -> None:
    made = start(signed_in(service.url), "flux-schnell", prompt="x")
    again = signed_in(service.url)
    assert again.get(f"/api/predictions/{made['id']}").json()["id"] == made["id"]
    assert again.get(made["output"][0]).is_success
    assert httpx.get(f"{service.url}/api/predictions/{made['id']}").status_code == 404


def test_forms_need_djangos_token(service: Running) -> None:
    client = signed_in(service.url)
    assert client.post("/admin/logout/").status_code == 403
    assert client.post("/login", data={"username": "ann", "password": PASSWORD}).status_code == 403


def test_the_page_and_the_admin_have_their_files(service: Running) -> None:
    for path in ("/page/page.css", "/page/page.js", "/page/admin/css/base.css"):
        assert httpx.get(service.url + path).status_code == 200, path


def test_checks_and_migrations_are_complete(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project", framework="django")
    strict = ("check", "--deploy", "--fail-level", "WARNING")
    assert "no issues" in manage(project, *strict, env=PRODUCTION).stdout
    assert manage(project, "makemigrations", "--check").returncode == 0
    short = PRODUCTION | {"SESSION_SECRET": "short"}
    refused = manage(project, *strict, env=short, check=False)
    assert refused.returncode == 1
    assert "W009" in refused.stderr


def test_what_django_6_drops_is_seen(renders: Renders, tmp_path: Path) -> None:
    """By the project's own tests, where any answers are checked."""
    project = renders.copy(tmp_path / "project", framework="django")
    dropped = "models.CheckConstraint(check=models.Q(), name='x')"
    planted = f"from django.db import models\n\ndef test_x():\n    {dropped}\n"
    (project / "tests/test_0_planted.py").write_text(planted, "utf-8")
    with pytest.raises(AssertionError, match="RemovedInDjango60Warning"):
        checked(project, "tests")


def test_scripts_are_commands(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project", framework="django")
    assert "flux-schnell" in manage(project, "list_models").stdout
    manage(project, "migrate", "--verbosity", "0")
    assert "0 predictions" in manage(project, "check_usage").stdout
    listed = manage(project, "help").stdout
    for script in (project / "scripts").glob("*.py"):
        assert script.stem in listed


def test_a_worker_is_a_command(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project", framework="django")
    assert re.search(r"^ +worker$", manage(project, "help").stdout, re.MULTILINE)
    its = 'start("-m", "app", "worker")'
    edited(project / "dev/__main__.py", its, 'start("manage.py", "worker")')
    with running(project) as started:
        made = start(httpx.Client(base_url=started.url, timeout=30), "flux-schnell", prompt="x")
        assert made["storage"] == "stored"
    refused = manage(project, "worker", env={"REPLICATE_API_TOKEN": ""}, check=False)
    assert refused.returncode == 1
    assert "REPLICATE_API_TOKEN" in refused.stderr


ROUTE = 'path("healthz"'
SEEN = 'path("seen", lambda request: views.HttpResponse(repr(request.META))),\n    '


@pytest.mark.parametrize("planted", [False, True])
def test_a_request_does_not_carry_the_environment(
    planted: bool, renders: Renders, tmp_path: Path
) -> None:
    """An error page or a tracker shows ``request.META``: no token may be in it."""
    project = renders.copy(tmp_path / "project", framework="django")
    edited(project / "src/app/urls.py", ROUTE, SEEN + ROUTE)
    if planted:
        edited(project / "src/app/wsgi.py", " if of_request(name)", "")
    with running(project, HTTP_OF_PROCESS="r8_other") as started:
        seen = httpx.get(f"{started.url}/seen?a=b", headers={"x-asked": "yes"}).text
    for name in ("HTTP_X_ASKED", "QUERY_STRING", "REMOTE_ADDR", "SERVER_PORT", "wsgi.url_scheme"):
        assert name in seen
    assert ("r8_" in seen) == planted
    assert ("HTTP_OF_PROCESS" in seen) == planted


def threads(process: int) -> int:
    """Of a process and all below it."""
    tasks = [*Path(f"/proc/{process}/task").iterdir()]
    below = [child for task in tasks for child in (task / "children").read_text().split()]
    return len(tasks) + sum(threads(int(child)) for child in below)


def test_streams_hold_nothing_up(renders: Renders, tmp_path: Path) -> None:
    """Not those of callers who left, and a stop of the server not those of callers who stay."""
    project = renders.copy(tmp_path / "project", framework="django")
    edited(project / "src/app/waiting.py", "SLOTS = 128\n", "SLOTS = 4\n")
    edited(project / "src/app/__main__.py", "workers_kill_timeout=25", "workers_kill_timeout=1")
    # A server sees that a caller left when it writes the next time.
    edited(project / "src/inference/stream.py", "hold(15,", "hold(0.5,")
    with running(project) as started, httpx.Client(base_url=started.url, timeout=30) as client:
        path = f"/api/predictions/{start_hanging(started, client)['id']}/events"
        counts = []

        def opened(callers: contextlib.ExitStack) -> None:
            """One more stream, as soon as the server has seen that those before left."""
            while True:
                with contextlib.ExitStack() as caller:
                    if caller.enter_context(client.stream("GET", path)).is_success:
                        callers.push(caller.pop_all())
                        return
                time.sleep(0.05)

        for _ in range(6):
            with contextlib.ExitStack() as callers:
                for _ in range(4):
                    opened(callers)
                assert client.get(path).status_code == 503
                counts.append(threads(started.process.pid))
        assert counts[-1] - counts[0] < 10
        with contextlib.ExitStack() as callers:
            opened(callers)
            started.process.terminate()
            started.process.wait(60)


TURNS = """
import threading, time
from app.__main__ import migrate
migrate()
from django.db import transaction
from app.database import DjangoStore
store, inside = DjangoStore(), threading.Event()

def first() -> None:
    with transaction.atomic():
        inside.set()
        time.sleep(1)
        store.forget_upload("a")
    print("first")

def second() -> None:
    inside.wait()
    store.forget_upload("b")
    print("second")

for each in [threading.Thread(target=first), threading.Thread(target=second)]:
    each.start()
"""


@pytest.mark.parametrize("planted", [False, True])
def test_a_callers_own_transaction_does_not_wait_for_its_turn(
    planted: bool, renders: Renders, tmp_path: Path
) -> None:
    """SQLite: it has the database's lock, for which whoever has the turn waits."""
    project = renders.copy(tmp_path / "project", framework="django")
    if planted:
        right = "nullcontext() if connections[self._alias].in_atomic_block else self._turn"
        edited(project / "src/app/uploads.py", right, "self._turn")
        edited(project / "src/app/settings.py", '"timeout": 30', '"timeout": 3')
    where = {"DATABASE_URL": f"sqlite:///{tmp_path}/app.db", "ENVIRONMENT": "development"}
    env = project_env(project, REPLICATE_API_TOKEN="r8_test", **where)
    done = run(sys.executable, "-c", TURNS, cwd=project, env=env)
    assert done.stdout.split() == (["first"] if planted else ["first", "second"])
    assert ("database is locked" in done.stderr) == planted


def test_production_asks_for_a_user(renders: Renders, tmp_path: Path) -> None:
    """In one process, without a network: the same WSGI application that is served."""
    project = renders.copy(tmp_path / "project", framework="django")
    program = """
from django.test import Client
from app.__main__ import migrate
migrate()
from app.wsgi import application
client = Client(headers={"host": "example.test", "x-forwarded-proto": "https"})
print(client.get("/").headers["Location"], client.get("/api/predictions").status_code)
print(client.get("/login").status_code, client.get("/healthz").status_code)
print(client.get("/", headers={"x-forwarded-proto": "http"}).status_code)
hook = client.post("/api/webhooks/replicate", headers={"x-forwarded-proto": "http"})
print(hook.status_code)
# A load balancer asks by the machine's address.
for path in ("/healthz", "/readyz", "/login"):
    print(client.get(path, headers={"host": "10.0.0.3:8000"}).status_code)
"""
    env = project_env(project, **PRODUCTION, DATABASE_URL=f"sqlite:///{tmp_path}/app.db")
    done = run(sys.executable, "-c", program, cwd=project, env=env)
    asked = ["/login", "401", "200", "200", "301", "400"]
    assert done.stdout.split() == [*asked, "200", "200", "400"]


SIGNED_IN = """
from datetime import UTC, datetime
from app.__main__ import migrate
migrate()
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import dateformat
from app.wsgi import service
sent = {"host": "example.test", "x-forwarded-proto": "https"}
ADMIN = "/admin/predictions/prediction/"
"""
USERS = """
row = service().start("user-7", "::1", "flux-schnell", {"prompt": "x"}, None).row
for name, more in {"looks": "view", "stops": "change", "erases": "delete"}.items():
    user = User.objects.create_user(name, is_staff=True)
    may = {"view_prediction", f"{more}_prediction"}
    user.user_permissions.set(Permission.objects.filter(codename__in=may))
    client = Client(headers=sent)
    client.force_login(user)
    page = client.get(ADMIN).content.decode()
    client.post(ADMIN, {"action": "cancel", "_selected_action": row.id})
    client.post(ADMIN, {"action": "erase", "_selected_action": row.id})
    now = service().store.get(row.id)
    print(name, 'value="cancel"' in page, 'value="erase"' in page, now and now.status)
created = datetime.fromtimestamp(row.created_at, UTC)
print(dateformat.format(created, settings.DATETIME_FORMAT) in page)
"""
LEAVES = """
client = Client(headers=sent, enforce_csrf_checks=True)
client.force_login(User.objects.create_user("<ann>"))
page = client.get("/")
print("Sign out &lt;ann&gt;" in page.text, "default-src" in page.headers["Content-Security-Policy"])
print(client.get("/logout").status_code, client.post("/logout").status_code)
token = {"csrfmiddlewaretoken": client.cookies["csrftoken"].value}
left = client.post("/logout", token, headers={"origin": "https://example.test"})
print(left.headers["Location"], client.get("/").status_code, Session.objects.count())
"""
STRANGERS = """
for _ in range(3):
    print(Client(headers=sent).get("/api/predictions").status_code)
client = Client(headers=sent)
new = {"model": "flux-schnell", "input": {"prompt": "x"}}
whose = {"prefer": "respond-async"}
made = client.post("/api/predictions", new, "application/json", headers=whose).json()["id"]
print(client.get(f"/api/predictions/{made}").status_code)
print(Client(headers=sent).get(f"/api/predictions/{made}").status_code)
print(Session.objects.count())
"""


def in_production(project: Path, program: str, **settings: str) -> list[str]:
    """What a program prints, in one process, on an empty database below the project."""
    shutil.rmtree(project / "var", ignore_errors=True)
    env = project_env(project, **PRODUCTION, **settings)
    return run(sys.executable, "-c", program, cwd=project, env=env).stdout.splitlines()


def test_staff_may_do_what_they_were_given(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project", framework="django")
    looks, stops, erases, in_utc = in_production(project, SIGNED_IN + USERS)
    assert looks == "looks False False pending"
    assert stops == "stops True False canceled"
    assert erases == "erases False True None"
    assert in_utc == "True"


def test_a_user_signs_out(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project", framework="django")
    said = in_production(project, SIGNED_IN + LEAVES)
    assert said == ["True True", "405 403", "/login 302 0"]


OWN_SIGN_IN = """
from inference.problems import Problem

def caller(request) -> str:
    if name := request.headers.get("x-user"):
        return f"sso-{name}"
    raise Problem(401, "Not signed in", "Ask the proxy.")

def address(request) -> str:
    return "unknown"
"""
KNOWN = """
for who in ({}, {"x-user": "ann"}):
    client = Client(headers=sent | who)
    print(client.get("/").status_code, client.get("/api/predictions").status_code)
"""


def test_a_sign_in_of_ones_own_is_one_file(renders: Renders, tmp_path: Path) -> None:
    project = renders.copy(tmp_path / "project", framework="django")
    (project / "src/app/caller.py").write_text(OWN_SIGN_IN, "utf-8")
    assert in_production(project, SIGNED_IN + KNOWN) == ["302 401", "200 200"]


@pytest.mark.parametrize("planted", [False, True])
def test_strangers_leave_no_rows(planted: bool, renders: Renders, tmp_path: Path) -> None:
    """One row for each request without a cookie would fill the disk."""
    project = renders.copy(tmp_path / "project", framework="django")
    if planted:
        edited(project / "src/app/settings.py", "if SERVICE.allow_anonymous:", "if False:")
    said = in_production(project, SIGNED_IN + STRANGERS, ALLOW_ANONYMOUS="1")
    assert said == ["200", "200", "200", "200", "404", "5" if planted else "0"]


@pytest.mark.parametrize("planted", [False, True])
def test_a_database_that_is_gone_takes_no_request_with_it(
    planted: bool, renders: Renders, tmp_path: Path
) -> None:
    """Threads that wait for it for long would leave none for /healthz."""
    project = renders.copy(tmp_path / "project", framework="django")
    program = """
import time
from django.test import Client
from app.wsgi import application
begin = time.monotonic()
print(Client().get("/readyz").status_code, time.monotonic() - begin)
"""
    if planted:
        edited(project / "src/app/settings.py", '"timeout": 5}', '"timeout": 12}')
    (said,) = in_production(project, program, DATABASE_URL="postgresql://x@127.0.0.1:1/x")
    status, seconds = said.split()
    assert status == "503"
    assert (float(seconds) > 10) == planted


def test_ctrl_c_stops_at_once(renders: Renders, tmp_path: Path) -> None:
    """It reaches every process of the terminal, and the server's child from its parent again."""
    project = renders.copy(tmp_path / "project", framework="django")
    command = (sys.executable, "-m", "app", "web", "--port", str(port := free_port()))
    env = project_env(project, ENVIRONMENT="development", REPLICATE_API_TOKEN="r8_test")
    errors = tmp_path / "errors"
    with errors.open("wb") as log:
        web = subprocess.Popen(command, cwd=project, env=env, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/healthz").is_success:
                    break
            time.sleep(0.1)
        os.killpg(web.pid, signal.SIGINT)
        assert web.wait(20) == 0, "five seconds before the child is killed"
        assert errors.read_text() == ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(web.pid, signal.SIGKILL)
        web.wait()


def test_a_port_that_is_taken_is_not_shared(renders: Renders, tmp_path: Path) -> None:
    """Half of the requests would go to an old process, unseen."""
    project = renders.copy(tmp_path / "project", framework="django")
    with running(project) as started:
        port = started.url.rpartition(":")[2]
        command = (sys.executable, "-m", "app", "web", "--port", port)
        refused = run(*command, cwd=project, env=project_env(project, **PRODUCTION), check=False)
    assert refused.returncode == 1
    assert "Address already in use" in refused.stderr
    assert port in refused.stderr
    assert refused.stdout == ""


FAULTS = """
import json
from app.__main__ import migrate
migrate()
from django.contrib.auth.models import User
from django.core.signals import got_request_exception
from django.test import Client
from app.main import service

def broken(*_):
    raise RuntimeError("planted")

service().models = service().store.usage = broken
seen = []
got_request_exception.connect(lambda **sent: seen.append(sent["request"].path), weak=False)
sent = {"host": "example.test", "x-forwarded-proto": "https"}
client = Client(raise_request_exception=False, headers=sent)
client.force_login(User.objects.create_superuser("ann"))
answers = {}
for path in json.loads(input()):
    answer = client.get(path)
    answers[path] = [answer.status_code, answer.headers["Content-Type"].partition(";")[0]]
strange = client.get("/login", headers={"host": "strange.example"})
answers["strange"] = [strange.status_code, strange.headers["Content-Type"]]
print(json.dumps([answers, seen]))
"""
PROBLEM, PAGE = "application/problem+json", "text/html"


def test_errors_are_problems_and_in_the_admin_pages(renders: Renders, tmp_path: Path) -> None:
    """And those that nobody expected reach what listens to Django's signal, such as Sentry."""
    project = renders.copy(tmp_path / "project", framework="django")
    costs = "/admin/predictions/prediction/costs/"
    expected = {
        "/nothing": [404, PROBLEM],
        "/api/predictions/x": [404, PROBLEM],
        "/api/models": [500, PROBLEM],
        "/admin": [301, PAGE],
        "/admin/nothing/": [404, PAGE],
        "/admin/predictions/prediction/x/files/0": [404, PAGE],
        costs: [500, PAGE],
    }
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        input=json.dumps([*expected]),
        cwd=project,
        env=project_env(project, **PRODUCTION) | {"DATABASE_URL": f"sqlite:///{tmp_path}/app.db"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers, seen = json.loads(done.stdout)
    assert answers == expected | {"strange": [400, PROBLEM]}
    assert seen == ["/api/models", costs]
    assert done.stderr.count("RuntimeError: planted") == 2
