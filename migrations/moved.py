"""Carry a person's edits over to where a release moved a file: Copier alone would drop them.

    python moved.py TEMPLATE VERSION SOURCE OLD NEW

TEMPLATE is a clone of this repository, VERSION the one that the project was at, SOURCE the file's
path there; OLD and NEW are its paths in the project, in which this runs, after Copier's own merge.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def git(*arguments: str | Path, given: bytes | None = None) -> bytes | None:
    """What git prints; None where it says no."""
    done = subprocess.run(["git", *map(str, arguments)], input=given, capture_output=True)
    return done.stdout if done.returncode == 0 else None


def mark_unmerged(path: str, versions: list[bytes]) -> None:
    """As after `git merge`: base, theirs and ours in the index, so that git asks for a solution."""
    prefix = (git("rev-parse", "--show-prefix") or b"").decode().strip()
    lines = []
    for stage, content in enumerate(versions, start=1):
        blob = (git("hash-object", "-w", "--stdin", given=content) or b"").decode().strip()
        lines.append(f"100644 {blob} {stage}\t{prefix}{path}\n")
    git("update-index", "--index-info", given="".join(lines).encode())


def main(template: str, version: str, source: str, old: str, new: str) -> None:
    edited = git("show", f"HEAD:./{old}")
    base = git("-C", template, "show", f"{version}:{source}")
    place = Path(new)
    if edited is None:
        # deleted by the person: so it stays
        if base is not None and git("show", f"HEAD:./{new}") is None:
            place.unlink(missing_ok=True)
        return
    if base is None:
        print(f"{old} is now {new}: what you edited is in `git show HEAD:./{old}`", file=sys.stderr)
        return
    if edited == base or not place.exists():
        return
    current = place.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            Path(folder, name) for name in ("before updating", "last update", "after updating")
        ]
        for path, content in zip(paths, (edited, base, current), strict=True):
            path.write_bytes(content)
        labels = [word for path in paths for word in ("-L", path.name)]
        merged = subprocess.run(["git", "merge-file", *labels, *paths])
        place.write_bytes(paths[0].read_bytes())
    if merged.returncode:
        mark_unmerged(new, [base, edited, current])
        print(f"{new}, formerly {old}: you and the update changed the same lines", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
