"""`copier update` of this template against Copier on as many plain files of the same size.

    .venv/bin/python benchmarks/update_speed.py [runs]

Each is updated to a release that changes one file. Prints the median of each over the runs (5 by
default; one before them is not counted) and their ratio, in seconds by the clock and of processor
time, which other work on the machine disturbs less. The two take turns, so that it meets both.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.copy_speed import plain  # noqa: E402
from tests.rendering import commit_all, copier_command, git, snapshot, tree  # noqa: E402

# Newer than any real release, so that the update goes to the second.
FIRST, SECOND = "1000.0.0", "1001.0.0"
CHANGED = "state.py"


def released(template: Path, project: Path) -> dict[str, bytes]:
    """Tag two releases of a template, of which the second changes a file, and render the first."""
    git(template, "tag", FIRST)
    (path,) = template.rglob(f"inference/{CHANGED}")
    path.write_bytes(path.read_bytes() + b"\n# The second release.\n")
    commit_all(template, "Second")
    git(template, "tag", SECOND)
    options = ("--trust", "--defaults", "--quiet", "--vcs-ref", FIRST)
    copier_command("copy", *options, template, project, cwd=project.parent)
    files = tree(project)
    commit_all(project, "Rendered")
    return files


def processor() -> float:
    """Seconds of processor time that ended processes have used so far."""
    times = os.times()
    return times.children_user + times.children_system


def seconds(rendered: Path, project: Path) -> tuple[float, float]:
    """How long the installed command takes to update a copy of the project: clock, processor."""
    shutil.copytree(rendered, project)
    started, used = time.perf_counter(), processor()
    copier_command("update", "--trust", "--defaults", "--quiet", cwd=project)
    taken = time.perf_counter() - started, processor() - used
    assert git(project, "status", "--porcelain").count("\n") == 2  # that file and the answers
    return taken


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = released(snapshot(folder / "ours"), folder / "first")
        del files[".copier-answers.yml"]
        released(plain(folder / "plain", files), folder / "second")
        taken: dict[str, list[tuple[float, float]]] = {"first": [], "second": []}
        for number in range(runs + 1):
            for project, all_taken in taken.items():
                all_taken.append(seconds(folder / project, folder / f"{project}-{number}"))
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes, {runs} runs")
    for kind, label in enumerate(("clock", "processor")):
        ours, floor = (
            statistics.median(one[kind] for one in all_taken[1:]) for all_taken in taken.values()
        )
        print(f"{label:<9}  this template {ours:5.2f} s, plain files {floor:5.2f} s")
        print(f"{label:<9}  ratio {ours / floor:.2f}")


if __name__ == "__main__":
    main()
