"""What differs between the guards of the two languages; all else is tested alike."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from tests.claude import commands, commands_django, commands_node
from tests.node import NODE, is_node, packages
from tests.rendering import Renders


@dataclass(frozen=True)
class Language:
    """`start` runs a program of the project; `bad` is refused by the ban on the SDK, `good` is not.

    `late` completes, in a file that holds `loop`, a pattern that neither shows alone.
    """

    framework: str
    suffix: str
    start: tuple[str, ...]
    library: str
    bad: str
    good: str
    loop: str
    late: tuple[str, str]
    comment: str
    commands: ModuleType


LANGUAGES = {
    "python": Language(
        framework="fastapi",
        suffix="py",
        start=(sys.executable, "-IS"),
        library="src/inference",
        bad="import replicate\n",
        good="import json\n",
        loop="for pid in jobs:\n    pass\n",
        late=("    pass", "    sleep(1)\n    p.reload()"),
        comment="#",
        commands=commands,
    ),
    "typescript": Language(
        framework="nextjs",
        suffix="ts",
        start=(str(NODE),),
        library="src/lib",
        bad='import "replicate";\n',
        good='import "node:fs";\n',
        loop="for (const id of ids) {\n  pass();\n}\n",
        late=("  pass();", "  await sleep(1);\n  p = await predictions.get(id);"),
        comment="//",
        commands=commands_node,
    ),
}

# Django's guard and settings are FastAPI's (a test says so); its commands are more.
FRAMEWORKS = {
    "fastapi": LANGUAGES["python"],
    "django": replace(LANGUAGES["python"], framework="django", commands=commands_django),
    "nextjs": LANGUAGES["typescript"],
}


def rendered(renders: Renders, folder: Path, language: Language, **answers: str) -> Path:
    """A copy of a render of that language, with all that its guard needs."""
    project = renders.copy(folder, framework=language.framework, **answers)
    if is_node(project):
        (project / "node_modules").mkdir()
        (project / "node_modules/@ast-grep").symlink_to(packages(project) / "@ast-grep")
    return project


def language_of(project: Path) -> Language:
    return LANGUAGES["typescript" if is_node(project) else "python"]
