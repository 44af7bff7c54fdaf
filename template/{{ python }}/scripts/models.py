"""Change models on purpose: `uv run scripts/models.py check | upgrade [KEY…] | add OWNER/NAME…`.

`check` compares the pins with Replicate's newest versions (exit code 1: outdated or drifted);
the others go through Copier, so that answers and files agree. Nothing is run and nothing billed.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import re
import subprocess
import sys
from pathlib import Path

from inference.gateway import Gateway, NoAnswer, NotSent, Refused, Throttled
from inference.models import REGISTRY
from inference.settings import SettingsError, load_settings

COPIER = ["uvx", "--with", "copier-template-extensions", "copier", "update", "--trust"]
ANSWERS = Path(__file__).resolve().parents[1] / ".copier-answers.yml"


async def outdated() -> list[str]:
    """One line for each pin that is not Replicate's newest version."""
    gateway = Gateway(load_settings(complete=False))
    lines = []
    try:
        for model in REGISTRY.values():
            if model.version is None:
                continue
            newest = (await gateway.describe(model.owner_name)).get("latest_version") or {}
            if newest.get("id") != model.version:
                made = newest.get("created_at", "unknown date")
                lines.append(f"{model.key}: {model.version} -> {newest.get('id')} ({made})")
    finally:
        await gateway.aclose()
    return lines


def extra_models() -> list[str]:
    """The models named in the answers beside the catalogue's."""
    text = ANSWERS.read_text("utf-8")
    listed = re.search(r"^replicate_extra_models:((?:\n- .*)*)", text, re.MULTILINE)
    return re.findall(r"^- (.+)$", listed[1], re.MULTILINE) if listed else []


def update(name: str, value: str) -> int:
    command = [*COPIER, "--defaults", "-r", ":current:", "--data", f"{name}={value}"]
    return subprocess.run(command, cwd=ANSWERS.parent).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check")
    commands.add_parser("upgrade").add_argument("keys", nargs="*", metavar="KEY")
    commands.add_parser("add").add_argument("models", nargs="+", metavar="OWNER/NAME")
    arguments = parser.parse_args()
    if arguments.command == "check":
        try:
            lines = asyncio.run(outdated())
        except (SettingsError, Refused, Throttled, NotSent, NoAnswer) as error:
            print(error, file=sys.stderr)
            return 2
        print("\n".join(lines) or "Every pin is the newest version.")
        return 1 if lines else 0
    if arguments.command == "add":
        return update("replicate_extra_models", f"[{', '.join(extra_models() + arguments.models)}]")
    if unknown := [key for key in arguments.keys if key not in REGISTRY]:
        parser.error(f"not in this project: {', '.join(unknown)}")
    names = [REGISTRY[key].owner_name for key in arguments.keys]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return update("replicate_pins_as_of", " ".join([today, *names]))


if __name__ == "__main__":
    sys.exit(main())
