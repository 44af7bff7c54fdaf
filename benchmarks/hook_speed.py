"""What a Claude Code session waits for at each edit and each command, against an empty interpreter.

    .venv/bin/python benchmarks/hook_speed.py [runs]

Starts the hooks of a project in either language exactly as its settings.json says, and prints the
median of each over the runs (21 by default; one before them is not counted) and its ratio to an
interpreter that does nothing. They take turns: what else the machine does meets all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.node import NODE, packages  # noqa: E402
from tests.rendering import commit_all, project_env, render  # noqa: E402

LANGUAGES = {"fastapi": "py", "nextjs": "ts"}


def calls(project: Path, suffix: str) -> dict[str, tuple[str, dict[str, object]]]:
    """Each hook of the settings with a call for it: an edit of the largest source, a command."""
    settings = json.loads((project / ".claude/settings.json").read_text("utf-8"))["hooks"]
    edit, spend = (entry["hooks"][0]["command"] for entry in settings["PreToolUse"])
    after = settings["PostToolUse"][0]["hooks"][0]["command"]
    largest = max((project / "src").rglob(f"*.{suffix}"), key=lambda path: path.stat().st_size)
    head = largest.read_text("utf-8")[:40]
    changed = {"file_path": str(largest), "old_string": head, "new_string": head + "\n"}
    command = {"command": "ls scripts"}
    return {
        "before an edit": (edit, {"tool_name": "Edit", "tool_input": changed}),
        "before a command": (spend, {"tool_name": "Bash", "tool_input": command}),
        "after a command": (after, {"tool_name": "Bash", "tool_input": command}),
    }


def prepared(folder: Path, framework: str) -> Path:
    """A render with what its hooks need, and one changed file, as usual."""
    project = render(folder, framework=framework)
    commit_all(project, "Rendered")
    if framework == "nextjs":
        (project / "node_modules").mkdir()
        (project / "node_modules/@ast-grep").symlink_to(packages(project) / "@ast-grep")
    else:
        # what `uv sync` makes: this interpreter, with ast-grep beside it
        (project / ".venv").symlink_to(Path(sys.prefix))
    suffix = LANGUAGES[framework]
    changed = next(path for path in sorted((project / "src/app").rglob(f"*.{suffix}")))
    changed.open("a").write("\n")
    return project


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    with tempfile.TemporaryDirectory() as name:
        todo: dict[tuple[str, str], tuple[str, dict[str, object], Path]] = {}
        for framework, suffix in LANGUAGES.items():
            project = prepared(Path(name, framework), framework)
            empty = f'"{project}/.venv/bin/python" -IS -c pass' if suffix == "py" else "node -e 0"
            todo[suffix, "nothing"] = (empty, {}, project)
            for hook, (command, call) in calls(project, suffix).items():
                todo[suffix, hook] = (command, call, project)
        taken: dict[tuple[str, str], list[float]] = {which: [] for which in todo}
        for turn in range(runs + 1):
            for which, (command, call, project) in todo.items():
                env = project_env(project, CLAUDE_PROJECT_DIR=str(project))
                env["PATH"] = os.pathsep.join([str(NODE.parent), env["PATH"]])
                started = time.perf_counter()
                done = subprocess.run(
                    ["sh", "-c", command],
                    input=json.dumps(call),
                    cwd=project,
                    env=env,
                    capture_output=True,
                    encoding="utf-8",
                )
                assert done.returncode == 0, done.stderr
                if turn:
                    taken[which].append(time.perf_counter() - started)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        for (suffix, hook), seconds in taken.items():
            floor = statistics.median(taken[suffix, "nothing"])
            median = statistics.median(seconds)
            print(f"{suffix} {hook:18} {median:.3f} s  {median / floor:.1f} times nothing")


if __name__ == "__main__":
    main()
