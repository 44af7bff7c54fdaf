"""The layers of template/ fit together, on every system."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from unittest.mock import patch

import pytest
from jinja2 import Environment

from extensions.compile_once import CompileOnce
from tests.rendering import ROOT, copier_command, git, tree

# A layer is a top folder of template/ named by one variable: it renders to "." or to nothing.
LAYER = re.compile(r"\{\{ (\w+) \}\}")
# The layers that a project of each framework is made of; "" is the root.
PROJECTS = {
    "fastapi": {"", "python", "fastapi"},
    "django": {"", "python", "django"},
    "nextjs": {"", "nextjs"},
}
RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


def tracked() -> dict[str, str]:
    """Every path that git tracks, or would, with its mode ("" if not added yet)."""
    staged = git(ROOT, "ls-files", "-z", "--stage").split("\0")
    modes = {entry.split("\t", 1)[1]: entry[:6] for entry in staged if entry}
    others = git(ROOT, "ls-files", "-z", "--others", "--exclude-standard").split("\0")
    return modes | {name: "" for name in others if name}


def overlaps(paths: Iterable[str]) -> set[str]:
    """The rendered paths (letter case aside) that two sources give to one project."""
    given = []
    for path in paths:
        first, _, rest = path.partition("/")
        layer = LAYER.fullmatch(first)
        rendered = (rest if layer else path).removesuffix(".jinja").lower()
        given.append((layer[1] if layer else "", rendered))
    return {
        path
        for layers in PROJECTS.values()
        for path, times in Counter(path for layer, path in given if layer in layers).items()
        if times > 1
    }


def illegal_on_windows(path: str) -> bool:
    """Whether Windows could not check this path out (Jinja's braces and spaces are fine)."""
    return any(
        re.search(r'[<>:"\\|?*\x00-\x1f]|[ .]$', part)
        or part.split(".")[0].strip().lower() in RESERVED
        for part in PurePosixPath(path).parts
    )


def test_no_two_layers_give_the_same_path() -> None:
    sources = [path.removeprefix("template/") for path in tracked() if path.startswith("template/")]
    layers = {match[1] for path in sources if (match := LAYER.fullmatch(path.partition("/")[0]))}
    assert {"python", "fastapi"} <= layers <= set().union(*PROJECTS.values())
    assert overlaps(sources) == set()


@pytest.mark.parametrize(
    "paths",
    [
        ["README.md.jinja", "{{ python }}/README.md"],
        ["{{ python }}/src/a.py", "{{ fastapi }}/src/a.py"],
        ["{{ fastapi }}/x.py", "{{ fastapi }}/x.py.jinja"],
        ["{{ fastapi }}/X.py", "{{ python }}/x.py"],
    ],
)
def test_an_overlap_is_seen(paths: list[str]) -> None:
    assert len(overlaps(paths)) == 1


def test_two_frameworks_may_give_the_same_path() -> None:
    assert overlaps(["{{ fastapi }}/src/app/main.py", "{{ django }}/src/app/main.py"]) == set()


def test_every_name_is_legal_on_windows() -> None:
    assert [path for path in tracked() if illegal_on_windows(path)] == []
    folded = Counter(path.lower() for path in tracked())
    assert [path for path, times in folded.items() if times > 1] == []


@pytest.mark.parametrize("path", ["a/con.py", "a:b", "a/b.", "a /b", "what?", 'a"b', "AUX"])
def test_an_illegal_name_is_seen(path: str) -> None:
    assert illegal_on_windows(path)


def test_no_symbolic_links() -> None:
    assert [path for path, mode in tracked().items() if mode == "120000"] == []
    assert [path for path in tracked() if (ROOT / path).is_symlink()] == []


def test_compiled_once_and_yielded_each_time(tmp_path: Path) -> None:
    """Copier's ``yield`` keeps its state beside the compiled string, and begins anew with each."""
    template = tmp_path / "template"
    for folder in "ab":
        (template / folder).mkdir(parents=True)
        name = "{% yield item from items %}{{ item }}{% endyield %}.jinja"
        (template / folder / name).write_text("{{ item }}", "utf-8")
    shutil.copy(ROOT / "extensions/compile_once.py", template)
    (template / "copier.yml").write_text(
        "items: {type: yaml, default: [one, two]}\n"
        "_exclude: [copier.yml, compile_once.py]\n"
        "_jinja_extensions:\n"
        "  - copier_template_extensions.TemplateExtensionLoader\n"
        "  - compile_once.py:CompileOnce\n",
        "utf-8",
    )
    copier_command("copy", "--trust", "--defaults", template, tmp_path / "made", cwd=tmp_path)
    made = {"a/one": b"one", "a/two": b"two", "b/one": b"one", "b/two": b"two"}
    assert tree(tmp_path / "made") == made


def test_a_string_is_compiled_once() -> None:
    environment = Environment(extensions=[CompileOnce])
    for number in range(3):
        assert environment.from_string("{{ number }}").render(number=number) == str(number)
    with patch.object(Environment, "_generate", side_effect=AssertionError("compiled again")):
        assert environment.from_string("{{ number }}").render(number=3) == "3"
        with pytest.raises(AssertionError, match="compiled again"):
            environment.from_string("{{ another }}")
