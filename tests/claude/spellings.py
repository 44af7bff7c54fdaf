"""The snippets below spellings/: each mistake in other spellings, and ordinary code."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from tests.rendering import ROOT

FOLDER = Path(__file__).parent / "spellings"
LANGUAGES = {"py": "python", "ts": "typescript"}


@dataclass(frozen=True)
class Snippet:
    """`rule` is the mistake that the code makes, "ordinary" for none; `suffix` is py or ts."""

    rule: str
    suffix: str
    name: str
    code: str

    def __str__(self) -> str:
        return f"{self.rule}.{self.suffix}: {self.name}"


def snippets(rule: str = "*", suffix: str = "*") -> list[Snippet]:
    found = []
    for path in sorted(FOLDER.glob(f"{rule}.{suffix}.txt")):
        mistake, kind, _ = path.name.split(".")
        for block in re.split(r"^### ", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            name, code = block.split("\n", 1)
            found.append(Snippet(mistake, kind, name, code))
    return found


def ordinary(suffix: str = "*") -> list[Snippet]:
    return snippets("ordinary", suffix)


def bad(suffix: str = "*") -> list[Snippet]:
    return [s for s in snippets("*", suffix) if s.rule != "ordinary"]


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT), undefined=jinja2.StrictUndefined
    )


def partial(name: str) -> Any:
    """What a file below partials/ sets, as attributes."""
    return _environment().get_template(f"partials/{name}.jinja").module


def rendered(path: str, **answers: Any) -> str:
    """A file of the template as it is with these answers and derived values."""
    return _environment().get_template(path).render(**answers)


def names() -> list[str]:
    """The seven mistakes, in the order of CLAUDE.md."""
    return list(partial("mistakes").names)


def mistake(name: str) -> Any:
    """The partial of a mistake: title, why, net, and bad, good and rule per language."""
    return partial(f"mistakes/{name}")


def pairs(quality: str) -> list[Snippet]:
    """The snippets that CLAUDE.md shows: "bad" or "good" ones."""
    return [
        Snippet(name, suffix, quality, str(getattr(mistake(name), f"{quality}_{language}")))
        for name in names()
        for suffix, language in LANGUAGES.items()
    ]
