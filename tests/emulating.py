"""The emulator alone, as a process of a rendered project, and a client for its tests."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.node import NODE, installed, is_node
from tests.rendering import free_port, project_env

# A framework of each language: two emulators, which must not be told apart.
LANGUAGES = {"python": "fastapi", "typescript": "nextjs"}

OFFICIAL = "black-forest-labs/flux-schnell"
TEXT = "meta/meta-llama-3-8b-instruct"
COMMUNITY = "nightmareai/real-esrgan"
PICTURE = "data:image/png;base64,iVBORw0KGgo="
TERMINAL = {"succeeded", "failed", "canceled", "aborted"}


class Emulator(httpx.Client):
    """A client with a token; paths are relative to the emulator's root."""

    def __init__(self, url: str) -> None:
        super().__init__(
            base_url=url, headers={"Authorization": "Bearer r8_test"}, timeout=60, trust_env=False
        )

    @property
    def url(self) -> str:
        return str(self.base_url).rstrip("/")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings; returns all of them."""
        changed: dict[str, Any] = self._json(self.post("/_emulator/settings", json=changes))
        return changed

    def order(self, fault: str, **params: Any) -> None:
        """Order a fault, once unless ``times`` says otherwise."""
        self._json(self.post("/_emulator/faults", json={"fault": fault, **params}))

    def pinned(self) -> str:
        """``owner/name:hash`` of the community model."""
        versions = self._json(self.get(f"/v1/models/{COMMUNITY}/versions"))
        return f"{COMMUNITY}:{versions['results'][0]['id']}"

    def create(
        self, version: str, headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """``POST /v1/predictions``; ``body`` holds ``input`` and the rest."""
        return self.post("/v1/predictions", json={"version": version, **body}, headers=headers)

    def finished(self, prediction_id: str) -> dict[str, Any]:
        """The prediction once it is over; AssertionError after 20 s."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            prediction: dict[str, Any] = self._json(self.get(f"/v1/predictions/{prediction_id}"))
            if prediction["status"] in TERMINAL:
                return prediction
            time.sleep(0.02)
        raise AssertionError(f"{prediction_id} is not over")

    def ran(self, version: str, **given: Any) -> dict[str, Any]:
        """Create with this input and wait until it is over."""
        answer = self.create(version, input=given)
        assert answer.status_code == 201, answer.text
        return self.finished(answer.json()["id"])

    @staticmethod
    def _json(answer: httpx.Response) -> Any:
        assert answer.is_success, answer.text
        return answer.json()


@contextlib.contextmanager
def emulating(project: Path, **env: str) -> Iterator[Emulator]:
    """Start ``dev/emulator`` of a project on a free port; answers within 30 s."""
    port = free_port()
    node = is_node(project)
    command = [NODE, "dev/emulator.ts"] if node else [sys.executable, "dev/emulator.py"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=installed(project) if node else project,
        env=project_env(project, **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with Emulator(f"http://127.0.0.1:{port}") as client:
            end = time.monotonic() + 30
            while True:
                with contextlib.suppress(httpx.TransportError):
                    client.get("/_emulator/settings")
                    break
                assert process.poll() is None, "the emulator has ended"
                assert time.monotonic() < end, "the emulator did not come up"
                time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(10)
