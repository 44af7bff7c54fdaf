"""Change models on purpose: `uv run scripts/models.py check | upgrade [MODEL…] | add OWNER/NAME…`.

`check` asks Replicate what the pins would be today, and changes nothing; `upgrade` and `add` change
them through Copier, so that answers and files agree. Each says what changed in a model's inputs and
output, and marks what BREAKS callers. Nothing is run and nothing billed. The token is read from the
environment (`uv run --env-file .env …`, with Next.js `.env.local`).

Exit code: 0 all is current, or done; 1 outdated or drifted (check), conflicts to solve (upgrade,
add); 2 it could not be done.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = ".copier-answers.yml"
# What Copier needs beside it: the loader of the template's code, and Replicate's SDK.
UVX = ("--with", "copier-template-extensions", "--with", "replicate>=2.0.0b4")
COPIER = "copier>=9.19,<10"

NOW = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

Json = dict[str, Any]


class Failed(Exception):
    """What went wrong and the way out, in one line; nothing where Copier has said it already."""


def copier(operation: str, *options: str | Path, **data: str) -> None:
    """Run Copier on the release of the template that this project has.

    Raises:
        Failed: Copier refused.
    """
    if shutil.which("uvx"):
        command = ["uvx", *UVX, "--from", COPIER, "copier"]
    elif shutil.which("copier"):
        command = ["copier"]
    else:
        raise Failed("Copier is needed: pip install uv, which brings it when it is called")
    given = [f"--data={name}={value}" for name, value in data.items()]
    command += [operation, "--trust", "--defaults", "--quiet", "--vcs-ref=:current:", *given]
    done = subprocess.run([*command, *options], cwd=ROOT, stdout=2)  # our own stdout may be JSON
    if done.returncode:
        raise Failed


def read(folder: Path) -> tuple[dict[str, Json], list[str]]:
    """The pins by owner/name, and the models that were named beside the catalogue's.

    Raises:
        Failed: the answers are not as Copier wrote them.
    """
    try:
        head, _, pins = (folder / ANSWERS).read_text("utf-8").partition("\nreplicate_pins: {")
        listed = re.search(r"^replicate_extra_models:((?:\n- .+)*)", head, re.MULTILINE)
        extra = re.findall(r"^- (.+)$", listed[1], re.MULTILINE) if listed else []
        return json.loads("{" + pins), [name.strip("'\"") for name in extra]
    except (OSError, ValueError):
        raise Failed(
            f"{ANSWERS} is not as Copier wrote it: restore it, git checkout {ANSWERS}"
        ) from None


def compare(before: dict[str, Json], after: dict[str, Json]) -> list[Json]:
    """The models whose version, output or inputs are others than before."""
    found = []
    for name, new in after.items():
        old = before.get(name)
        changes = [{"breaks": breaks, "text": text} for breaks, text in differences(old, new)]
        if changes or not old or old["version"] != new["version"]:
            found.append(
                {
                    "model": name,
                    "breaks": any(change["breaks"] for change in changes),
                    "old": old and {key: old[key] for key in ("version", "resolved")},
                    "new": {key: new[key] for key in ("version", "resolved")},
                    "changes": changes,
                }
            )
    return found


def differences(old: Json | None, new: Json) -> list[tuple[bool, str]]:
    """Whether each change breaks who calls the model, and what it is."""
    if old is None:
        inputs = ", ".join(field["name"] for field in new["input"])
        return [(False, f"new: {new['kind']}, output {new['output']}, inputs {inputs}")]
    found = [
        (key == "output", f"{key}: {old[key]} -> {new[key]}")
        for key in ("kind", "output")
        if old[key] != new[key]
    ]
    before = {field["name"]: field for field in old["input"]}
    after = {field["name"]: field for field in new["input"]}
    come = [field for field in new["input"] if field["name"] not in before]
    for name, field in before.items():
        if name in after:
            found += [(breaks, f"{name}: {text}") for breaks, text in changed(field, after[name])]
            continue
        same = [other["name"] for other in come if {**other, "name": name} == field]
        found.append((True, f"{name}: renamed to {same[0]}" if same else f"{name}: removed"))
        come = [other for other in come if other["name"] not in same[:1]]
    for field in come:
        word = "required" if "required" in field else "optional"
        found.append((word == "required", f"{field['name']}: new, {word}"))
    return found


def changed(old: Json, new: Json) -> list[tuple[bool, str]]:
    """The same for one input field; a caller's integer is also a number."""
    found = []
    for key in ("type", "items"):
        pair = (old.get(key), new.get(key))
        if pair[0] != pair[1]:
            found.append((pair != ("integer", "number"), f"{key} {shown(*pair)}"))
    choices, offered = old.get("enum"), new.get("enum")
    if choices is None and offered:
        found.append((True, f"now one of {json.dumps(offered)}"))
    elif choices and offered is None:
        found.append((False, "no longer bound to its choices"))
    elif choices and offered:
        lost = [choice for choice in choices if choice not in offered]
        gained = [choice for choice in offered if choice not in choices]
        found += [(True, f"without {json.dumps(lost)}")] * bool(lost)
        found += [(False, f"also {json.dumps(gained)}")] * bool(gained)
    for key, sign in (("minimum", 1), ("maximum", -1)):
        bound, limit = old.get(key), new.get(key)
        if bound != limit:
            narrower = limit is not None and (bound is None or (limit - bound) * sign > 0)
            found.append((narrower, f"{key} {shown(bound, limit)}"))
    if (required := "required" in new) != ("required" in old):
        found.append((required, "now required" if required else "now optional"))
    if old.get("default") != new.get("default"):
        found.append((False, f"default {shown(old.get('default'), new.get('default'))}"))
    return found


def shown(old: Any, new: Any) -> str:
    return " -> ".join("none" if value is None else json.dumps(value) for value in (old, new))


def report(found: list[Json]) -> str:
    """The changed models as people read them."""
    lines = []
    for model in found:
        lines += ["", model["model"]]
        for age in ("old", "new"):
            if pin := model[age]:
                lines.append(f"  {age}      {pin['version'] or 'official'}  {pin['resolved'][:10]}")
        for change in model["changes"]:
            lines.append(f"  {'BREAKS ' if change['breaks'] else 'changed'}  {change['text']}")
    return "\n".join(lines[1:])


def named(asked: list[str], pins: dict[str, Json], extra: list[str]) -> list[str]:
    """The models, named by key or in full, as owner/name; those held at a version are refused."""
    found = []
    for text in asked:
        fits = [name for name in pins if text in (name, name.split("/")[1], name.replace("/", "-"))]
        if len(fits) != 1:
            raise Failed(f"{text} names none or several of: {', '.join(pins)}")
        for held in extra:
            if held.startswith(f"{fits[0]}:"):
                raise Failed(
                    f"{fits[0]} is held at its version by the answer replicate_extra_models: "
                    "change that with `copier update --data`"
                )
        found += fits
    return found


def drift(service: str) -> list[Json]:
    """Which other versions than the pinned ones a running service has seen at work."""
    if not service.startswith(("https://", "http://")):
        raise Failed(f"{service} is no address: write https://…")
    try:
        with urllib.request.urlopen(f"{service.rstrip('/')}/readyz", timeout=15) as reply:
            found: list[Json] = json.load(reply)["drift"]
            return found
    except (OSError, ValueError, KeyError) as error:
        raise Failed(f"{service}/readyz does not answer as this project does: {error}") from None


def carry_out(arguments: argparse.Namespace) -> int:
    pins, extra = read(ROOT)
    if arguments.command == "check":
        with tempfile.TemporaryDirectory() as folder:  # rendered there, only for its answers
            shutil.copy(ROOT / ANSWERS, folder)
            copier("recopy", "--overwrite", folder, replicate_pins_as_of=NOW)
            found = compare(pins, read(Path(folder))[0])
        ran = drift(arguments.service) if arguments.service else []
    elif arguments.command == "add":
        if there := [name for name in arguments.models if name.partition(":")[0] in pins]:
            raise Failed(f"{there[0]} is in this project already: `upgrade` refreshes it")
        copier("update", replicate_extra_models=json.dumps(extra + arguments.models))
    else:
        names = named(arguments.models, pins, extra)
        copier("update", replicate_pins_as_of=" ".join([NOW, *names]))
    if arguments.command != "check":
        found, ran = compare(pins, read(ROOT)[0]), []
    listing = ["git", "diff", "--name-only", "--diff-filter=U"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    unsolved = sorted(set(listed.stdout.split()))
    if arguments.json:
        print(json.dumps({"changed": found, "drift": ran, "conflicts": unsolved}, indent=2))
    else:
        print(report(found) or "Every pin is current.")
        for model in ran:
            print(f"\n{model['model']}: {model['ran']} ran, pinned is {model['pinned']}")
    for path in unsolved:
        print(f"{path}: you and the update changed the same lines, solve them", file=sys.stderr)
    return 1 if unsolved or (arguments.command == "check" and (found or ran)) else 0


def main() -> int:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check")
    wanted = "a running service, asked which versions really ran (default: $PUBLIC_URL)"
    check.add_argument("--service", default=os.environ.get("PUBLIC_URL"), help=wanted)
    commands.add_parser("upgrade").add_argument("models", nargs="*", metavar="MODEL")
    commands.add_parser("add").add_argument("models", nargs="+", metavar="OWNER/NAME[:VERSION]")
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true")
    try:
        return carry_out(parser.parse_args())
    except Failed as failed:
        if str(failed):
            print(failed, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
