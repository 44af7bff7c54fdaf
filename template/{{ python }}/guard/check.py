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
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RULES = Path(__file__).with_name("rules.yml")
SCRIPTS = {".js", ".jsx", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".tsx"}
SUFFIXES = SCRIPTS | {".py", ".pyi", ".ipynb"}
SKIPPED = {".git", ".venv", "node_modules", "guard", "var"}  # guard/ names what it forbids


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


def notebook_code(text: str) -> str:
    """The code cells of a notebook as one module."""
    cells = json.loads(text)["cells"] if text.strip() else []
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def scan(sources: dict[str, str]) -> list[Finding]:
    """Findings in `sources` (relative path to text), scanned in a mirror of the project.

    The mirror lets a rule's `ignores` see the real path of text that is not on disk yet, parses
    all JavaScript and TypeScript as one language, and is deaf to `ast-grep-ignore` comments.
    """
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        for path, text in sources.items():
            suffix = Path(path).suffix
            extra = ".tsx" if suffix in SCRIPTS - {".tsx"} else ".py" if suffix == ".ipynb" else ""
            mirrored = Path(folder, path + extra)
            mirrored.parent.mkdir(parents=True, exist_ok=True)
            mirrored.write_text(text.replace("ast-grep-ignore", "ast-grep_ignore"), "utf-8")
        command = [ast_grep(), "scan", "--rule", str(RULES), "--json=compact"]
        command += ["--no-ignore", "hidden", "."]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    if done.returncode > 1 or not done.stdout.startswith("["):  # 1: something was found
        raise RuntimeError(done.stderr.strip() or f"ast-grep ended with {done.returncode}")
    found = []
    for match in json.loads(done.stdout):
        name = Path(match["file"]).as_posix()
        path = name if name in sources else name.rsplit(".", 1)[0]
        line = match["range"]["start"]["line"] + 1
        rule = match["ruleId"].removesuffix("-ts")
        found.append(Finding(path, line, rule, match["message"], match["text"]))
    return sorted(found)


def relative(path: str | Path) -> str | None:
    """The path inside the project; None for what the rules do not cover."""
    try:
        inside = Path(path).resolve().relative_to(ROOT)
    except ValueError:
        return None
    covered = inside.suffix in SUFFIXES and not SKIPPED.intersection(inside.parts)
    return inside.as_posix() if covered else None


def read(path: str) -> str:
    """The text to scan of a file of the project; "" when there is none."""
    file = ROOT / path
    text = file.read_text("utf-8", errors="replace") if file.is_file() else ""
    return notebook_code(text) if file.suffix == ".ipynb" else text


def listed(*arguments: str) -> list[str]:
    """Paths that a git command prints, each ended by NUL. Raises CalledProcessError."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")


def project_files() -> list[Path]:
    """Everything that git does not ignore; without git, every file."""
    try:
        names = listed("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return [Path(folder, n) for folder, _, names in os.walk(ROOT) for n in names]
    return [ROOT / name for name in names if name]


def changed_files() -> list[Path]:
    """What differs from the last commit; without one, everything."""
    try:
        names = listed("diff", "--name-only", "-z", "--relative", "HEAD")
        names += listed("ls-files", "-z", "--others", "--exclude-standard")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return project_files()
    return [ROOT / name for name in names if name]


def check(files: list[Path]) -> list[Finding]:
    return scan({name: read(name) for file in files if (name := relative(file))})


def plain(text: str) -> str:
    return text.translate(str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''"))


def after_edit(tool: str, given: dict[str, Any], before: str) -> str:
    """The text as it would stand after the call, or the part of it that the call brings in."""
    if tool == "NotebookEdit":
        return "" if given.get("cell_type") == "markdown" else str(given.get("new_source", ""))
    if tool == "Write":
        text = str(given["content"])
        return notebook_code(text) if str(given["file_path"]).endswith(".ipynb") else text
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
    if not found:
        return []
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
        print(f"guard: the check itself failed: {error!r}", file=sys.stderr)
        return 2
    hook = arguments == ["--hook"]
    for finding in found:
        print(finding, file=sys.stderr if hook else sys.stdout)
    if found and hook:
        print('Refused: CLAUDE.md, "The seven mistakes", shows what to write.', file=sys.stderr)
    return (2 if hook else 1) if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
