"""Refuse the known Replicate mistakes: one check for people, hooks, pre-commit and CI.

    uv run guard/check.py            the whole project
    uv run guard/check.py FILE ...   these files (pre-commit)
    guard/check.py --hook            a call of Claude Code's, as JSON on stdin

Exit 0: nothing found. 1: findings, on stdout. 2: a hook's call is refused, or the check itself
failed: what could not be checked does not pass. Standard library and the ast-grep binary only,
so that an edit waits for it as briefly as possible.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RULES = Path(__file__).with_name("rules.yml")
SCRIPTS = {".js", ".jsx", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".tsx"}
CODE = SCRIPTS | {".py", ".pyi", ".ipynb"}
# Read word by word, for models and addresses that hide there. Prose may name what it likes.
TEXTS = {".cfg", ".env", ".html", ".ini", ".json", ".sh", ".toml", ".yaml", ".yml"}
TEXT_NAMES = {"Dockerfile", "Makefile", "Procfile", "justfile"}
TEXT_RULES = {"gateway-only", "unpinned-model"}
SKIPPED = {".git", ".venv", "node_modules"}
OWN = {"guard", "var", ".claude", ".copier-answers.yml"}  # at the top: guard/ names what it forbids
LOCKS = {"package-lock.json", "pnpm-lock.yaml"}
CANARY = {"canary.py": "import replicate"}  # without a finding here, rules or binary are broken
LARGEST = 2_000_000  # bytes; what is much larger ast-grep leaves out, and says nothing


class Finding(NamedTuple):
    """One match of a rule: `line` counts from 1, `path` is relative to the project."""

    path: str
    line: int
    rule: str
    why: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: [{self.rule}] {self.why}\n    {self.text.splitlines()[0]}"


def ast_grep() -> str:
    """The binary itself: a launcher around it would cost more than the scan."""
    for folder in (ROOT / ".venv/bin", ROOT / ".venv/Scripts", Path(sys.executable).parent, None):
        if found := shutil.which("ast-grep", path=str(folder) if folder else None):
            return found
    raise FileNotFoundError("ast-grep is not installed: run `uv sync`")


def literals(text: str) -> str:
    """Text that is no code as Python: in the same lines, its words and `key: value` pairs."""
    lines = []
    for line in text.splitlines():
        pairs = re.findall(r"""([\w.-]+)["']?\s*[:=](?!//)\s*["']?([^\s"',;{}()<>[\]]+)""", line)
        words = set(re.findall(r"""[^\s"',;={}()<>[\]]+""", line)).difference(*pairs)
        lines.append(json.dumps([*({key: value} for key, value in pairs), *sorted(words)]))
    return "\n".join(lines)


def notebook_code(text: str) -> str:
    """The code cells of a notebook as one module; shell lines and magics are no Python."""
    cells = json.loads(text)["cells"] if text.strip() else []
    code = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return re.sub(r"^[ \t]*[!%].*", lambda line: literals(line[0]), code, flags=re.MULTILINE)


def mirrored(path: str, text: str) -> tuple[str, str]:
    """The name and the text under which ast-grep sees a file of the project."""
    suffix = Path(path).suffix
    if suffix not in CODE:
        return f"{path}.py", literals(text[:LARGEST])
    if len(text) > LARGEST:
        raise ValueError(f"{path} is too large to be checked: split it")
    if suffix == ".ipynb":
        return f"{path}.py", notebook_code(text)
    # deaf to `ast-grep-ignore`; a path that says "webhook" is context for the rules, too
    text = text.replace("ast-grep-ignore", "ast-grep_ignore")
    if suffix not in SCRIPTS:
        return path, f"{text}\n# {path}"
    # all JavaScript and TypeScript is parsed as one language
    return path if suffix == ".tsx" else f"{path}.tsx", f"{text}\n// {path}"


def rules_for(names: Iterable[str]) -> str:
    """The rules of these files' languages: to read all of them takes longer than a scan."""
    wanted = {"tsx" if name.endswith(".tsx") else "python" for name in names}
    documents = re.split(r"^---\n", RULES.read_text("utf-8"), flags=re.MULTILINE)
    return "---\n".join(d for d in documents if wanted & set(re.findall(r"\nlanguage: (\w+)", d)))


def scan(sources: dict[str, str]) -> list[Finding]:
    """Findings in `sources` (relative path to text), scanned in a mirror of the project.

    The mirror lets a rule's `ignores` see the real path of text that is not on disk yet.
    """
    if not sources:
        return []
    names = {}
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        for path, source in (sources | CANARY).items():
            name, text = mirrored(path, source)
            names[name] = path
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        Path(folder, ".rules.yml").write_text(rules_for(names), "utf-8")
        command = [ast_grep(), "scan", "--rule", ".rules.yml", "--json=compact"]
        command += ["--no-ignore", "hidden", "."]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    if done.returncode > 1 or not done.stdout.startswith("["):  # 1: something was found
        raise RuntimeError(done.stderr.strip() or f"ast-grep ended with {done.returncode}")
    found = []
    for match in json.loads(done.stdout):
        path = names[Path(match["file"]).as_posix()]
        line = match["range"]["start"]["line"] + 1
        rule = match["ruleId"].removesuffix("-ts")
        if Path(path).suffix in CODE or rule in TEXT_RULES:
            found.append(Finding(path, line, rule, match["message"], match["text"]))
    if not any(finding.path in CANARY for finding in found):
        raise RuntimeError(f"{RULES} finds nothing any more")
    return sorted(finding for finding in found if finding.path not in CANARY)


def relative(path: str | Path) -> str | None:
    """The path inside the project; None for what the rules do not cover."""
    try:
        inside = Path(path).resolve().relative_to(ROOT)
    except ValueError:
        return None
    text = inside.suffix in TEXTS or inside.name in TEXT_NAMES or inside.name.startswith(".env")
    skipped = inside.name in LOCKS or inside.parts[0] in OWN or SKIPPED.intersection(inside.parts)
    return inside.as_posix() if (inside.suffix in CODE or text) and not skipped else None


def read(path: str) -> str:
    """What a file of the project holds; "" when there is none."""
    file = ROOT / path
    return file.read_text("utf-8", errors="replace") if file.is_file() else ""


def listed(*arguments: str) -> list[str]:
    """Paths that a git command prints, each ended by NUL. Raises CalledProcessError."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")


def project_files() -> list[Path]:
    """Everything that git does not ignore; where it knows nothing, every file."""
    try:
        names = listed("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    except (subprocess.CalledProcessError, FileNotFoundError):
        names = []
    # a repository around the project may ignore all of it
    return [ROOT / name for name in names if name] or every_file()


def every_file() -> list[Path]:
    return [Path(folder, name) for folder, _, names in os.walk(ROOT) for name in names]


def changed_files() -> list[Path]:
    """What differs from the last commit; without one, everything."""
    try:
        names = listed("diff", "--name-only", "-z", "--relative", "HEAD")
        names += listed("ls-files", "-z", "--others", "--exclude-standard")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return project_files()
    if not any(names) and not any(listed("ls-files", "-z")):  # git knows nothing of the project
        return project_files()
    return [ROOT / name for name in names if name]


def check(files: list[Path]) -> list[Finding]:
    return scan({name: read(name) for file in files if (name := relative(file))})


def plain(text: str) -> str:
    return text.translate(str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''"))


def after_notebook_edit(given: dict[str, Any], before: str) -> str:
    notebook: dict[str, Any] = json.loads(before) if before.strip() else {"cells": []}
    cells: list[dict[str, Any]] = notebook["cells"]
    named = given.get("cell_id")
    places = (i for i, cell in enumerate(cells) if named in (cell.get("id"), f"cell-{i}"))
    at = next(places, None) if named else None
    kind = given.get("cell_type") or ("code" if at is None else cells[at]["cell_type"])
    cell = {"cell_type": kind, "source": str(given.get("new_source", ""))}
    mode = given.get("edit_mode") or "replace"
    if mode == "insert":
        cells.insert(0 if at is None else at + 1, cell)
    elif at is None:
        cells.append(cell)  # the tool will refuse it; what it says is checked all the same
    else:
        cells[at : at + 1] = [] if mode == "delete" else [cell]
    return json.dumps(notebook)


def after_edit(tool: str, given: dict[str, Any], before: str) -> str:
    """The text of the file as it would stand after the call."""
    if tool == "NotebookEdit":
        return after_notebook_edit(given, before)
    if tool == "Write":
        return str(given["content"])
    text = before
    for edit in given.get("edits", [given]):  # MultiEdit carries a list
        old, new = str(edit["old_string"]), str(edit["new_string"])
        if old not in text and (at := plain(text).find(plain(old))) >= 0:
            old = text[at : at + len(old)]  # the tool, too, takes straight quotes for curly ones
        if old and old in text:
            text = text.replace(old, new, -1 if edit.get("replace_all") else 1)
        else:
            text = f"{new}\n{text}"
    return text


def added_by(call: dict[str, Any]) -> list[Finding]:
    """Findings that an Edit, Write or NotebookEdit would add to what the file already has."""
    given: dict[str, Any] = call["tool_input"]
    path = relative(given.get("file_path") or given["notebook_path"])
    if path is None:
        return []
    before = read(path)
    found = scan({path: after_edit(call["tool_name"], given, before)})
    if not found or not before:
        return found
    known = Counter((f.rule, f.text) for f in scan({path: before}))
    added = []
    for finding in found:
        if known[finding.rule, finding.text] > 0:
            known[finding.rule, finding.text] -= 1
        else:
            added.append(finding)
    return added


def main(arguments: list[str]) -> int:
    try:
        if arguments == ["--hook"]:
            call = json.load(sys.stdin)
            bash = call["tool_name"] in ("Bash", "PowerShell")
            found = check(changed_files()) if bash else added_by(call)
        else:
            found = check([Path(a) for a in arguments] if arguments else project_files())
    except Exception as error:  # whatever it was: an unchecked edit must not pass
        print(f"guard: the check itself failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    hook = arguments == ["--hook"]
    for finding in found:
        print(finding, file=sys.stderr if hook else sys.stdout)
    if found and hook:
        print('Refused: CLAUDE.md, "The seven mistakes", shows what to write.', file=sys.stderr)
    return (2 if hook else 1) if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
