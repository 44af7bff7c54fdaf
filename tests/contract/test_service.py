"""The rest of the contract: models, health, page, other sites, sessions, priming."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.client import (
    DOCUMENT,
    ESRGAN,
    FLUX,
    JSON,
    LLAMA,
    PICTURE,
    Caller,
    Emulator,
    check_response,
)
from tests.contract.conftest import NewCaller, NewService, Service


@pytest.mark.database("sqlite")
def test_models(caller: Caller) -> None:
    models = {model["key"]: model for model in caller.get("/api/models").json()["results"]}
    assert set(models) >= {FLUX, ESRGAN, LLAMA}
    assert models[FLUX]["kind"] == "official"
    assert models[FLUX]["mode"] == "run"
    assert models[FLUX]["seconds"] > 0
    assert models[ESRGAN]["kind"] == "community"
    assert models[ESRGAN]["mode"] == "webhook"
    assert models[ESRGAN]["prime"] is True
    kinds = {model["output"] for model in models.values()}
    assert kinds == {"file", "files", "text", "text-stream", "json"}
    fields = {field["name"]: field for field in models[FLUX]["input"]}
    assert fields["prompt"]["required"] is True
    assert fields["num_outputs"]["type"] == "integer"
    assert (fields["num_outputs"]["minimum"], fields["num_outputs"]["maximum"]) == (1, 4)
    assert fields["aspect_ratio"]["default"] in fields["aspect_ratio"]["enum"]
    image = next(field for field in models[ESRGAN]["input"] if field["name"] == "image")
    assert (image["type"], image["required"]) == ("file", True)


def test_health(caller: Caller) -> None:
    assert caller.get("/healthz").json() == {"status": "ok"}
    ready = caller.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert ready.json()["status"] == "ready"
    assert set(ready.json()["checks"].values()) == {"ok"}


def test_drift_is_named(caller: Caller, emulator: Emulator) -> None:
    emulator.settings(reroute_version="f" * 64)
    prediction = caller.run(ESRGAN, image=PICTURE)
    assert prediction["version_ran"] == "f" * 64
    pinned = prediction["ref"].partition(":")[2]
    drift = {"model": ESRGAN, "pinned": pinned, "ran": "f" * 64}
    ready = caller.get("/readyz")
    assert ready.status_code == 200
    assert drift in ready.json()["drift"]


@pytest.mark.database("sqlite")
def test_page(caller: Caller) -> None:
    page = caller.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'self'" in policy, "another site could have its visitors press Generate"
    assert "unsafe" not in policy
    assert "<form" in page.text


@pytest.mark.database("sqlite")
def test_what_is_not_there(caller: Caller) -> None:
    for path in ("/api/nothing", "/nothing", "/api", "/api/models/", "/openapi.json", "/docs"):
        assert caller.get(path).status_code == 404, path


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_wrong_methods(caller: Caller, path: str) -> None:
    known = {method.upper() for method in DOCUMENT["paths"][path]}
    given = path.format(id="a" * 32, key="blip", index=0)
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - known:
        reply = caller.http.request(method, given, headers=JSON)
        assert reply.status_code == 405, method  # and what else the document says of it


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("path", ["/nothing", "/api/predictions/x/nothing", "/files/x", "/page"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_wrong_path_is_404_whatever_the_method(caller: Caller, path: str, method: str) -> None:
    assert caller.http.request(method, path, headers=JSON).status_code == 404


@pytest.mark.database("sqlite")
def test_a_fault_is_a_problem_too(new_service: NewService, tmp_path: Path) -> None:
    """With the tables gone; what it says gives nothing away."""
    database = tmp_path / "app.db"
    with new_service(DATABASE_URL=f"sqlite:///{database}") as service:
        caller = service.caller()
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
            tables = (
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
            for (name,) in connection.execute(tables).fetchall():
                connection.execute(f'ALTER TABLE "{name}" RENAME TO "gone_{name}"')
            connection.commit()
        with httpx.Client(base_url=service.url, headers=JSON, cookies=caller.http.cookies) as http:
            for method, path in (
                ("GET", "/api/predictions"),
                ("GET", f"/api/predictions/{'a' * 32}"),
                ("GET", f"/files/{'a' * 32}/0"),
                ("POST", f"/api/predictions/{'a' * 32}/cancel"),
            ):
                reply = http.request(method, path)
                assert reply.status_code == 500
                check_response(reply, DOCUMENT["components"]["responses"]["Fault"])
                assert "gone" not in reply.text
                assert "sql" not in reply.text.lower()
            assert http.get("/healthz").status_code == 200
            assert http.get("/readyz").status_code == 503


@pytest.mark.database("sqlite")
def test_a_writer_that_waits_for_its_turn_holds_up_nobody(service: Service) -> None:
    """Another process writes for as long as it takes."""
    if not service.database:
        pytest.skip("not our service")
    caller, other = service.caller(), service.caller()
    file = service.database.removeprefix("sqlite:///")
    with (
        contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        connection.execute("PRAGMA busy_timeout = 30000")
        connection.execute("BEGIN IMMEDIATE")
        writing = pool.submit(caller.start_at_once, FLUX, prompt="x")
        time.sleep(0.5)
        assert other.get("/healthz").status_code == 200
        assert not writing.done()
        connection.execute("ROLLBACK")
        assert caller.settled(writing.result())["storage"] == "stored"


# --- other sites


@pytest.mark.database("sqlite")
@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Content-Type": "application/json"}, True),
        ({"Content-Type": "application/json", "Origin": "https://evil.example"}, False),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Content-Type": "application/json", "Origin": "null"}, False),
        ({"Content-Type": "application/json", "Origin": ""}, False),
        ({"Content-Type": "application/json", "Origin": "http://["}, False),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Content-Type": "text/plain"}, False),
        ({"Content-Type": "text/plain; a=application/json"}, False),
        ({"Content-Type": "application/x-www-form-urlencoded"}, False),
        ({}, False),
    ],
)
def test_cross_site_writes(caller: Caller, headers: dict[str, str], allowed: bool) -> None:
    for method, path in (
        ("POST", f"/api/predictions/{'a' * 32}/cancel"),
        ("POST", "/api/models/no-such/prime"),
        ("DELETE", f"/api/predictions/{'a' * 32}"),
    ):
        status = caller.http.request(method, path, headers=headers).status_code
        assert status == (404 if allowed else 403)


@pytest.mark.database("sqlite")
def test_its_own_origin_writes(caller: Caller) -> None:
    path = f"/api/predictions/{'a' * 32}"
    assert caller.http.delete(path, headers={"Origin": caller.url}).status_code == 404
    other_port = {"Origin": "http://127.0.0.1:1"}
    assert caller.http.delete(path, headers=other_port).status_code == 403


# --- sessions


@pytest.mark.database("sqlite")
def test_a_session_is_the_browsers_secret(caller: Caller) -> None:
    reply = httpx.get(f"{caller.url}/api/predictions")
    cookie = reply.headers["set-cookie"].lower()
    assert cookie.startswith("session=")
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("forged", ["", "x", "eyJjYWxsZXIiOiAieCJ9", "a.b.c", "%00", "x" * 4000])
def test_a_forged_session_is_a_new_one(caller: Caller, forged: str) -> None:
    prediction = caller.run(FLUX, prompt="x")
    cookie = caller.http.cookies["session"]
    for value in (forged, cookie[:-1], cookie[1:], cookie[::-1]):
        headers = {"Cookie": f"session={value}"}
        assert httpx.get(f"{caller.url}/api/predictions", headers=headers).json()["results"] == []
    assert caller.all() == [prediction]


# --- priming


def test_prime(new_caller: NewCaller) -> None:
    caller = new_caller()
    assert caller.post("/api/models/no-such/prime").status_code == 404
    assert caller.post(f"/api/models/{FLUX}/prime").status_code == 409
    first = caller.post("/api/models/blip/prime")
    assert first.status_code == 202
    again = caller.post("/api/models/blip/prime")
    assert again.json() == {"model": "blip", "started": False}
    # what it costs is the caller's to see, if this one began it
    begun = [each["model"] for each in caller.all()]
    assert begun == (["blip"] if first.json()["started"] else [])


@pytest.mark.parametrize("access", ["read", "write"])
def test_many_at_once(new_caller: NewCaller, access: str) -> None:
    callers = [new_caller() for _ in range(10)]

    def act(caller: Caller) -> Any:
        if access == "read":
            return [caller.get("/api/models").status_code, caller.get("/readyz").status_code]
        return [caller.start_at_once(FLUX, prompt=str(n))["model"] for n in range(5)]

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        done = list(pool.map(act, callers))
    assert done == [[200, 200] if access == "read" else [FLUX] * 5] * 10
