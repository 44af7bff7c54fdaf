"""The table of hostile webhooks: what a verifier gets wrong is seen in it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.rendering import ROOT, Renders, project_env

SOURCE = ROOT / "template/{{ python }}/src/inference/webhook.py"
TABLE: dict[str, Any] = json.loads((ROOT / "template/tests/webhooks.json").read_text("utf-8"))


def wrong(source: str) -> list[str]:
    """The names of the requests and secrets that a verifier with this source gets wrong."""
    module = ModuleType("verifier")
    exec(source, module.__dict__)
    return [
        each["name"] for each in TABLE["requests"] if _verdict(module, each) != each["expected"]
    ] + [each["name"] for each in TABLE["secrets"] if _keys(module, each["value"]) != each["keys"]]


def _verdict(module: ModuleType, request: dict[str, Any]) -> str:
    body = base64.b64decode(request["body"])
    try:
        keys = module.signing_keys(request["secrets"])
        module.verify(body, dict(request["headers"]), keys, now=request["now"])
    except module.MissingHeaders:
        return "missing"
    except module.WebhookRejected:
        return "bad"
    except Exception as error:
        return type(error).__name__
    return "ok"


def _keys(module: ModuleType, secrets: str) -> list[str] | None:
    try:
        return [base64.b64encode(key).decode() for key in module.signing_keys(secrets)]
    except ValueError:
        return None


def test_our_verifier_gets_none_wrong() -> None:
    found = wrong(SOURCE.read_text("utf-8"))
    count = len(TABLE["requests"]) + len(TABLE["secrets"])
    print(f"{len(found)} of {count} hostile webhooks and secrets wrong")
    assert found == []
    assert count >= 60


@pytest.mark.parametrize(
    ("right", "mistake"),
    [
        ("TOLERANCE = 300", "TOLERANCE = 10**12"),
        ("abs(now - int(timestamp))", "now - int(timestamp)"),
        ("abs(now - int(timestamp))", "int(timestamp) - now"),
        ("name.lower(): value", "name: value"),
        ('if not re.fullmatch(r"[0-9]{1,12}", timestamp)', "if not timestamp.isdecimal()"),
        ('if not re.fullmatch(r"[0-9]{1,12}", timestamp)', "if False"),
        ("_MOST_SIGNATURES = 16", "_MOST_SIGNATURES = 1"),
        ("_MOST_SIGNATURES = 16", "_MOST_SIGNATURES = 10**6"),
        ("for each in wanted", "for each in wanted[:1]"),
        ('b"v1," + ', 'b"v2," + '),
        ("hmac.compare_digest(entry, each)", "hmac.compare_digest(entry[-44:], each[-44:])"),
        ("hmac.compare_digest(entry, each)", "each.startswith(entry)"),
        ('f"{event_id}.{timestamp}.".encode() + body', "body"),
        ("_SHORTEST_KEY = 16", "_SHORTEST_KEY = 0"),
        ("if base64.b64encode(key) != text", "if False"),
        ("if not 1 <= len(parts) <= 2", "if False"),
        ('if not secret.startswith("whsec_")', "if False"),
        ("raise MissingHeaders(", "raise WebhookRejected("),
        ("if not event_id or", "if"),
        ("not event_id.isascii() or", ""),
        ("or not event_id.isprintable()", ""),
        ("or len(event_id) > 255", ""),
        ('raise WebhookRejected("no signature fits")', "raise ValueError"),
    ],
)
def test_a_verifier_with_a_mistake_is_seen(right: str, mistake: str) -> None:
    source = SOURCE.read_text("utf-8")
    assert right in source
    assert wrong(source.replace(right, mistake)) != []


# The whole table through a framework's own route, as its server would hand each request over.
EACH = """
import base64, io, json, sys
from types import SimpleNamespace
from pydantic import SecretStr
from app.__main__ import migrate
import inference.service
migrate()

def statuses(service, answer):
    for each in json.load(sys.stdin):
        secrets = {"replicate_webhook_secret": SecretStr(each["secrets"])}
        service.settings = service.settings.model_copy(update=secrets)
        inference.service.time = SimpleNamespace(time=lambda: each["now"])
        yield answer([*each["headers"]], base64.b64decode(each["body"]))
"""
ROUTES = {
    "django": """
from app.wsgi import application
from app.main import service

def answer(headers, body):
    environ = {"HTTP_" + name.upper().replace("-", "_"): value.encode().decode("latin-1")
               for name, value in headers}
    environ |= {"REQUEST_METHOD": "POST", "PATH_INFO": "/api/webhooks/replicate",
                "SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    seen = []
    b"".join(application(environ, lambda status, _: seen.append(int(status[:3]))))
    return seen[0]

print(json.dumps([*statuses(service(), answer)]))
""",
    "fastapi": """
import asyncio
from app.main import create_app
app = create_app()

def answer(headers, body):
    async def receive():
        return {"type": "http.request", "body": body}
    async def send(message):
        seen.append(message.get("status"))
    seen = []
    scope = {"type": "http", "method": "POST", "path": "/api/webhooks/replicate",
             "query_string": b"", "root_path": "", "scheme": "http",
             "headers": [(name.lower().encode(), value.encode()) for name, value in headers]}
    asyncio.run(app(scope, receive, send))
    return seen[0]

print(json.dumps([*statuses(app.state.service, answer)]))
""",
}
STATUS = {"ok": 200, "missing": 400, "bad": 401}
# WSGI does not tell them from hyphens; the signature is right, so nothing is lost.
LIKE_HYPHENS = "underscores in the header names"


@pytest.mark.slow
@pytest.mark.parametrize("framework", ROUTES)
def test_every_route_answers_as_the_table_says(
    framework: str, renders: Renders, tmp_path: Path
) -> None:
    project = renders.copy(tmp_path / "project", framework=framework)
    where = {"ENVIRONMENT": "development", "DATABASE_URL": f"sqlite:///{tmp_path}/app.db"}
    done = subprocess.run(
        [sys.executable, "-c", EACH + ROUTES[framework]],
        input=json.dumps(TABLE["requests"]),
        cwd=project,
        env=project_env(project, REPLICATE_API_TOKEN="r8_test", **where),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    found = {
        each["name"]: (status, STATUS[each["expected"]])
        for each, status in zip(TABLE["requests"], answers, strict=True)
        if status != STATUS[each["expected"]]
    }
    assert found == ({LIKE_HYPHENS: (200, 400)} if framework == "django" else {})
