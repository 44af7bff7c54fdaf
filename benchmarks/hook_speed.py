"""What a Claude Code session waits for at each edit and each command, against an empty interpreter.

    .venv/bin/python benchmarks/hook_speed.py [runs]

Starts the hooks of a rendered project exactly as its settings.json says, and prints the median of
each over the runs (21 by default; one before them is not counted) and its ratio to `python -I -c
pass`. They take turns, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.rendering import commit_all, project_env, render  # noqa: E402


def calls(project: Path) -> dict[str, tuple[str, dict[str, object]]]:
    """Each hook of the settings with a call for it: an edit of the largest source, a command."""
    settings = json.loads((project / ".claude/settings.json").read_text("utf-8"))["hooks"]
    edit, spend = (entry["hooks"][0]["command"] for entry in settings["PreToolUse"])
    after = settings["PostToolUse"][0]["hooks"][0]["command"]
    largest = max((project / "src").rglob("*.py"), key=lambda path: path.stat().st_size)
    head = largest.read_text("utf-8")[:40]
    changed = {"file_path": str(largest), "old_string": head, "new_string": head + "\n"}
    command = {"command": "uv run scripts/batch_generate.py"}
    return {
        "before an edit": (edit, {"tool_name": "Edit", "tool_input": changed}),
        "before a command": (spend, {"tool_name": "Bash", "tool_input": command}),
        "after a command": (after, {"tool_name": "Bash", "tool_input": command}),
    }


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    with tempfile.TemporaryDirectory() as name:
        project = render(Path(name))
        commit_all(project, "Rendered")
        # what `uv sync` makes: this interpreter, with ast-grep beside it
        (project / ".venv").symlink_to(Path(sys.prefix))
        (project / "src/app/main.py").open("a").write("\n")  # one changed file, as usual
        hooks = calls(project)
        empty = f'"{project}/.venv/bin/python" -I -c pass'
        todo = {"an empty interpreter": (empty, {}), **hooks}
        taken: dict[str, list[float]] = {name: [] for name in todo}
        env = project_env(project, CLAUDE_PROJECT_DIR=str(project))
        for turn in range(runs + 1):
            for name, (command, call) in todo.items():
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
                    taken[name].append(time.perf_counter() - started)
        floor = statistics.median(taken["an empty interpreter"])
        for name, seconds in taken.items():
            median = statistics.median(seconds)
            print(f"{name:22} {median:.3f} s  {median / floor:.1f} times an empty interpreter")


if __name__ == "__main__":
    main()
