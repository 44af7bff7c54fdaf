"""The real Claude Code client, in print mode against the stand-in of the Messages API."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.claude.messages_api import Assistant, Call
from tests.node import NODE
from tests.rendering import clean_env, run

HERE = Path(__file__).parent


def install(folder: Path) -> Path:
    """Install the client that package-lock.json pins into `folder`, once; returns its binary.

    The platform's package holds the binary: no Node version matters, no install script runs.
    """
    systems = {"win32": "win32", "darwin": "darwin"}
    machine = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x64"
    package = f"claude-code-{systems.get(sys.platform, 'linux')}-{machine}"
    name = "claude.exe" if sys.platform == "win32" else "claude"
    binary = folder / "node_modules/@anthropic-ai" / package / name
    if not binary.exists():
        npm = shutil.which("npm")
        assert npm, "npm is needed to install Claude Code"
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        for file in ("package.json", "package-lock.json"):
            shutil.copy(HERE / file, made)
        run(
            npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=made, env=dict(os.environ)
        )
        try:
            made.rename(folder)
        except OSError:  # another test process was faster
            shutil.rmtree(made)
    return binary


@dataclass(frozen=True)
class Outcome:
    """What became of a call: `ran` is false when it was asked about, denied or refused."""

    ran: bool
    text: str


@dataclass(frozen=True)
class Session:
    outcomes: list[Outcome]
    system: str
    stderr: str


@dataclass(frozen=True)
class Client:
    binary: Path

    def __call__(
        self,
        project: Path,
        calls: Sequence[Call],
        mode: str = "default",
        folder: str = ".",
        *options: str,
        path: Path | None = None,
        **extra: str,
    ) -> Session:
        """Let the client make the calls in a trusted project, started in one of its folders.

        `path` holds commands that shadow those of the machine, `extra` is its environment's.
        """
        with tempfile.TemporaryDirectory() as home, Assistant(calls) as assistant:
            trusted = {"hasTrustDialogAccepted": True}
            config = {
                "hasCompletedOnboarding": True,
                "bypassPermissionsModeAccepted": True,
                "projects": {str(p): trusted for p in (project, project / folder)},
            }
            Path(home, ".claude.json").write_text(json.dumps(config), "utf-8")
            env = clean_env(
                HOME=home,
                ANTHROPIC_BASE_URL=assistant.url,
                ANTHROPIC_API_KEY="sk-ant-not-a-key",
                CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
                DISABLE_AUTOUPDATER="1",
                IS_SANDBOX="1",  # lets root use bypass mode
            )
            for name in [n for n in env if n.startswith("CLAUDE") and "TRAFFIC" not in n]:
                del env[name]
            env |= extra
            first = [str(path)] if path is not None else []
            env["PATH"] = os.pathsep.join([*first, str(NODE.parent), env["PATH"]])
            command = [self.binary, "-p", "go", "--permission-mode", mode]
            command += ["--output-format", "json", "--max-turns", str(len(calls) + 2), *options]
            done = subprocess.run(
                [str(part) for part in command],
                cwd=project / folder,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                timeout=600,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert len(assistant.results) == len(calls), done.stdout + done.stderr
            outcomes = []
            for index in range(len(calls)):
                block = assistant.results[index]
                text = block["content"] if isinstance(block["content"], str) else ""
                if isinstance(block["content"], list):
                    text = "\n".join(part.get("text", "") for part in block["content"])
                denied = {d["tool_use_id"] for d in json.loads(done.stdout)["permission_denials"]}
                refused = f"toolu_{index:05}" in denied or (
                    bool(block.get("is_error")) and "hook" in text
                )
                outcomes.append(Outcome(not refused, text))
            return Session(outcomes, assistant.system, done.stderr)
