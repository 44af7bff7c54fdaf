"""`copier copy` of this template against Copier on as many plain files of the same size.

    .venv/bin/python benchmarks/copy_speed.py [runs]

Prints the median of each over the runs (5 by default; one before them is not counted) and their
ratio. The two take turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.rendering import commit_all, copier_command, snapshot, tree  # noqa: E402

PLAIN = """\
_subdirectory: template
_answers_file: .copier-answers.yml
"""
ANSWERS = "{{ _copier_answers|to_nice_yaml }}"


def seconds(template: Path, project: Path) -> float:
    """How long the installed command takes to render a template."""
    started = time.perf_counter()
    options = ("--trust", "--defaults", "--quiet", "--vcs-ref", "HEAD")
    copier_command("copy", *options, template, project, cwd=project.parent)
    return time.perf_counter() - started


def plain(folder: Path, files: dict[str, bytes]) -> Path:
    """A template of these files, none of which is rendered, with the answers file that all have."""
    for name, content in files.items():
        path = folder / "template" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "copier.yml").write_text(PLAIN, "utf-8")
    answers = folder / "template/{{ _copier_conf.answers_file }}.jinja"
    answers.write_text(ANSWERS, "utf-8")
    commit_all(folder, "Plain files")
    return folder


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = snapshot(folder / "ours")
        seconds(ours, folder / "first")
        files = tree(folder / "first")
        del files[".copier-answers.yml"]
        floor = plain(folder / "plain", files)
        seconds(floor, folder / "second")
        taken: dict[Path, list[float]] = {ours: [], floor: []}
        for number in range(runs):
            for template, all_taken in taken.items():
                all_taken.append(seconds(template, folder / f"{template.name}-{number}"))
    size = sum(map(len, files.values()))
    medians = {template: statistics.median(all_taken) for template, all_taken in taken.items()}
    print(f"{len(files)} files, {size} bytes, {runs} runs")
    print(f"this template  {medians[ours]:6.2f} s")
    print(f"plain files    {medians[floor]:6.2f} s")
    print(f"ratio          {medians[ours] / medians[floor]:6.2f}")


if __name__ == "__main__":
    main()
