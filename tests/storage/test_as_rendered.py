"""Each storage with the settings that a project names, in a project as it is rendered."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path

import httpx
import pytest

from tests.emulating import emulating
from tests.rendering import Renders, project_env, run
from tests.storage.servers import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    BUCKET,
    KEY,
    SECRET,
    azure_server,
    s3_server,
)

# Stores an output, reads it back, and has the store sign a URL that anyone may read.
PROGRAM = """
import asyncio, json, sys
import inference.storage
from app.__main__ import migrate
from app.main import build_service
from inference.gateway import Gateway
from inference.settings import load_settings
from inference.worker import Worker

inference.storage._public = lambda url: True

async def main():
    migrate()
    service = build_service(load_settings())
    made = service.start("me", "::1", "flux-schnell", {"prompt": "a"}, None).row
    worker = Worker(service, Gateway(service.settings))
    while not (row := service.get("me", made.id).row).settled:
        if not await worker.once():
            await asyncio.sleep(0.1)
    file = service.file("me", row.output[0])
    body = b"".join([chunk async for chunk in service.storage.get(file.key)])
    url = await service.storage.sign(file.key, 60) if "signs" in sys.argv else None
    print(json.dumps({"key": file.key, "png": body[:4].hex(), "size": len(body), "url": url}))
    await service.storage.delete(f"{made.id}/")

asyncio.run(main())
"""


def filled(project: Path, values: dict[str, str]) -> None:
    """Make ``.env`` of ``.env.example``, as a person does: each name stands there, once."""
    text = (project / ".env.example").read_text("utf-8")
    for name, value in values.items():
        text, times = re.subn(rf"(?m)^(# )?{name}=.*$", f"{name}={value}", text)
        assert times == 1, f"{name} is {times} times in .env.example"
    (project / ".env").write_text(text, "utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["s3", "r2", "gcs", "azure"])
def test_the_settings_as_they_are_rendered(storage: str, renders: Renders, tmp_path: Path) -> None:
    """Google's library speaks to the S3 server, whose XML is the same, without its sign-in."""
    project = renders.copy(tmp_path / "project", storage=storage)
    scheme = {"gcs": "gs", "azure": "az"}.get(storage, "s3")
    settings = {
        "ENVIRONMENT": "development",
        "REPLICATE_API_TOKEN": "r8_test",
        "STORAGE_URL": f"{scheme}://{BUCKET}/outputs",
    }
    more: dict[str, str] = {}  # where a server is that is not the provider's
    with contextlib.ExitStack() as stack:
        if storage == "azure":
            (tmp_path / "azure").mkdir()
            more["AZURE_STORAGE_ENDPOINT"] = stack.enter_context(azure_server(tmp_path / "azure"))
            settings["AZURE_STORAGE_ACCOUNT_NAME"] = AZURE_ACCOUNT
            settings["AZURE_STORAGE_ACCOUNT_KEY"] = AZURE_KEY
        else:
            server = stack.enter_context(s3_server(keys=storage != "gcs"))
            endpoint = f"http://127.0.0.1:{server.port}"
            if storage == "gcs":
                account = {"disable_oauth": True, "client_email": "", "private_key": ""}
                key_file = tmp_path / "key.json"
                key_file.write_text(json.dumps(account | {"private_key_id": ""}))
                settings["GOOGLE_SERVICE_ACCOUNT"] = str(key_file)
                more["GOOGLE_BASE_URL"] = endpoint
            else:
                settings["AWS_ACCESS_KEY_ID"] = KEY
                settings["AWS_SECRET_ACCESS_KEY"] = SECRET
                settings["AWS_ENDPOINT"] = endpoint
        filled(project, settings)
        emulator = stack.enter_context(emulating(renders()))
        env = project_env(project, REPLICATE_BASE_URL=f"{emulator.url}/v1", **more)
        signs = [] if storage == "gcs" else ["signs"]
        command = [sys.executable, "-c", PROGRAM, *signs]
        stored = json.loads(run(*command, cwd=project, env=env).stdout.splitlines()[-1])
        assert stored["png"] == b"\x89PNG".hex()
        assert stored["size"] > 100
        if signs:
            assert "/outputs/" in stored["url"]
            assert httpx.get(stored["url"], trust_env=False).status_code == 404, "403: not signed"
