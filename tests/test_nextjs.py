"""A rendered Next.js project: its own checks, its locked packages, what its browsers get."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.emulating import Emulator, emulating
from tests.node import NODE, NPM, built, npx
from tests.rendering import (
    Renders,
    checked,
    free_port,
    git,
    project_env,
    render,
    run,
    serving,
    until_healthy,
)

STORAGES = ("local", "s3", "r2", "vercel-blob")
CRON_SECRET = "a-secret-of-the-cron"
SERVER_ONLY = ("REPLICATE_API_TOKEN", "WEBHOOK_SECRET", "SESSION_SECRET", "api.replicate.com")


@pytest.fixture(scope="module")
def project(renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return renders.copy(tmp_path_factory.mktemp("nextjs") / "project", framework="nextjs")


def packages(project: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / name).read_text("utf-8"))
    return found


def test_the_lock_is_of_this_package(renders: Renders) -> None:
    project = renders(framework="nextjs")
    package, lock = packages(project, "package.json"), packages(project, "package-lock.json")
    root = lock["packages"][""]
    assert lock["name"] == root["name"] == package["name"]
    for kind in ("dependencies", "devDependencies"):
        assert root[kind] == package[kind], f"python3 run.py lock: {kind} changed"
    for name, entry in lock["packages"].items():
        assert "resolved" not in entry, f"{name} names a registry"
        assert not name or entry["integrity"].startswith("sha512-"), name


@pytest.mark.parametrize("storage", STORAGES)
def test_the_settings_name_the_storage(renders: Renders, storage: str) -> None:
    example = (renders(framework="nextjs", storage=storage) / ".env.example").read_text("utf-8")
    scheme = {"local": "./var/outputs", "vercel-blob": "vercel-blob://outputs"}
    assert f"STORAGE_URL={scheme.get(storage, 's3://bucket/outputs')}\n" in example
    assert ("BLOB_READ_WRITE_TOKEN" in example) == (storage == "vercel-blob")
    assert "\n\n\n" not in example


@pytest.mark.slow
@pytest.mark.parametrize("check", ["format", "lint", "types", "tests"])
def test_it_passes_its_own_checks(project: Path, check: str) -> None:
    checked(project, check)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [True, False], ids=["npmrc", "without"])
def test_no_package_runs_a_program_while_it_is_installed(
    settings: bool, renders: Renders, tmp_path: Path
) -> None:
    """A package that would: it does where the project's ``.npmrc`` is missing."""
    planted, project = tmp_path / "planted", tmp_path / "project"
    for folder, package in {
        planted: {
            "name": "planted",
            "scripts": {"install": "node -e \"fs.writeFileSync('ran','')\""},
        },
        project: {"name": "project", "dependencies": {"planted": "file:planted-1.0.0.tgz"}},
    }.items():
        folder.mkdir()
        (folder / "package.json").write_text(json.dumps({"version": "1.0.0", **package}), "utf-8")
    run(NPM, "pack", "--pack-destination", project, cwd=planted)
    if settings:
        shutil.copy(renders(framework="nextjs") / ".npmrc", project)
    offline = ("--offline", "--no-audit", "--no-fund")
    run(NPM, "install", "--package-lock-only", *offline, cwd=project)
    run(NPM, "ci", *offline, cwd=project)
    installed = project / "node_modules/planted"
    assert (installed / "package.json").exists()
    assert (installed / "ran").exists() != settings


@pytest.mark.slow
def test_what_its_tools_make_is_not_committed(project: Path) -> None:
    checked(project, "types")
    git(built(project), "init", "-q")
    listed = git(project, "ls-files", "--others", "--exclude-standard").splitlines()
    assert {"src/lib/models.ts", "package-lock.json"} <= set(listed)
    made = ("node_modules", ".next", "next-env.d.ts", "tsconfig.tsbuildinfo", "var")
    assert [name for name in listed if name.startswith(made)] == []


@pytest.mark.slow
def test_the_sdk_is_imported_in_one_place_only(project: Path, tmp_path: Path) -> None:
    for number, line in enumerate(
        (
            'import Replicate from "replicate";',
            'import type { Prediction } from "replicate";',
            'export * from "replicate";',
            'const sdk = await import("replicate");',
        )
    ):
        planted = project / f"src/lib/planted-{number}.ts"
        planted.write_text(f"{line}\n", "utf-8")
        try:
            with pytest.raises(AssertionError, match="noRestrictedImports"):
                npx(project, "biome", "lint", str(planted))
        finally:
            planted.unlink()


@pytest.mark.slow
def test_nothing_of_the_server_is_in_the_browser(project: Path) -> None:
    static = built(project) / ".next/static"
    texts = [path.read_text("utf-8", "replace") for path in static.rglob("*") if path.is_file()]
    assert any("Idempotency-Key" in text for text in texts), "the page's own code was not searched"
    for text in texts:
        assert not re.search(r"r8_\w|whsec_", text)
        for word in SERVER_ONLY:
            assert word not in text, word


@pytest.mark.slow
def test_a_page_that_takes_the_gateway_does_not_build(tmp_path: Path) -> None:
    project = render(tmp_path, framework="nextjs")
    planted = project / "src/components/studio.tsx"
    text = planted.read_text("utf-8")
    line = 'import { Gateway } from "@/lib/replicate.ts";\nconsole.log(Gateway);\n'
    planted.write_text(text.replace('"use client";\n', f'"use client";\n{line}', 1), "utf-8")
    with pytest.raises(AssertionError, match="server-only"):
        built(project)


# --- as on Vercel: no worker, nothing lives between requests


class Serverless:
    """The built app without a worker, on PostgreSQL and the emulator."""

    def __init__(self, url: str, database: str, emulator: Emulator) -> None:
        self.database = database
        self.emulator = emulator
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def start(self, model: str, **given: Any) -> httpx.Response:
        body = {"model": model, "input": given}
        return self.http.post("/api/predictions", json=body)

    def cron(self, secret: str) -> int:
        headers = {"Authorization": f"Bearer {secret}"}
        return self.http.get("/api/cron", headers=headers).status_code

    def sql(self, statement: str) -> list[Any]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def until(self, query: str) -> None:
        """Wait until a query finds something; AssertionError after 30 s."""
        end = time.monotonic() + 30
        while not self.sql(query):
            assert time.monotonic() < end, query
            time.sleep(0.1)


@pytest.fixture(scope="module")
def serverless(project: Path, new_database: Callable[[], str]) -> Iterator[Serverless]:
    database, port = new_database(), free_port()
    url = f"http://127.0.0.1:{port}"
    with emulating(project) as emulator:
        env = project_env(
            project,
            VERCEL="1",
            ENVIRONMENT="development",
            REPLICATE_API_TOKEN="r8_test",
            REPLICATE_BASE_URL=f"{emulator.url}/v1",
            REPLICATE_WEBHOOK_SECRET=emulator.get("/v1/webhooks/default/secret").json()["key"],
            PUBLIC_URL=url,
            DATABASE_URL=database,
            CRON_SECRET=CRON_SECRET,
            PRIME="1",
        )
        run(NODE, "--conditions=react-server", "src/migrate.ts", cwd=built(project), env=env)
        start = [str(NODE), "node_modules/next/dist/bin/next", "start", "--port", str(port)]
        with serving(start, project, env) as log:
            until_healthy(url, log)
            yield Serverless(url, database, emulator)


@pytest.mark.slow
def test_the_cron_route_is_its_secrets_own_and_cheap(serverless: Serverless) -> None:
    assert serverless.http.get("/api/cron").status_code == 404
    for wrong in ("x", CRON_SECRET[:-1], f"{CRON_SECRET}x"):
        assert serverless.cron(wrong) == 404
    assert serverless.cron(CRON_SECRET) == 200
    query = "select count(*) from pg_stat_activity where datname = current_database()"
    ((connections,),) = serverless.sql(query)
    assert connections - 1 <= 2, "our own connection apart, a call that finds nothing asks little"


@pytest.mark.slow
def test_requests_do_the_work_where_no_worker_does(serverless: Serverless) -> None:
    primed = serverless.http.post("/api/models/real-esrgan/prime", json={})
    assert primed.json() == {"model": "real-esrgan", "started": True}
    serverless.until("select 1 from predictions having bool_and(replicate_id is not null)")
    quick = serverless.start("flux-schnell", prompt="x")
    assert (quick.status_code, quick.json()["storage"]) == (201, "stored"), quick.text
    assert serverless.http.get(quick.json()["output"][0]).content
    slow = serverless.start("real-esrgan", image="https://example.com/x.png")
    assert slow.status_code == 202
    stored = f"select 1 from predictions where id = '{slow.json()['id']}' and storage = 'stored'"
    serverless.until(stored)


@pytest.mark.slow
def test_the_cron_finds_what_no_webhook_told(serverless: Serverless) -> None:
    before = serverless.emulator.settings()
    serverless.emulator.settings(webhook_drop=1)
    made = serverless.start("real-esrgan", image="https://example.com/y.png").json()
    own = f"from predictions where id = '{made['id']}'"
    serverless.until(f"select 1 {own} and replicate_id is not null and not leased")
    ((replicate_id,),) = serverless.sql(f"select replicate_id {own}")
    serverless.emulator.finished(replicate_id)
    serverless.emulator.settings(**before)
    # a minute later
    serverless.sql("update predictions set due_at = 0, ask_at = 0 where due_at is not null")
    assert serverless.cron(CRON_SECRET) == 200
    assert serverless.http.get(f"/api/predictions/{made['id']}").json()["storage"] == "stored"


@pytest.mark.slow
def test_nobody_has_pictures_resized(serverless: Serverless) -> None:
    asked = serverless.http.get("/_next/image", params={"url": "/icon.svg", "w": 64, "q": 75})
    assert asked.status_code == 404


def test_what_vercel_calls_is_there(renders: Renders) -> None:
    project = renders(framework="nextjs")
    crons = packages(project, "vercel.json")["crons"]
    assert [(project / f"src/app{cron['path']}/route.ts").exists() for cron in crons] == [True]
