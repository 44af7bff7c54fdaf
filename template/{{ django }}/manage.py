#!/usr/bin/env python
"""Django's commands, and the project's: `uv run manage.py help`, `uv run manage.py check_usage`."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

from inference.settings import SettingsError

SCRIPTS = Path(__file__).absolute().parent / "scripts"


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "app.settings")
    scripts = {path.stem: path for path in SCRIPTS.glob("*.py")}
    try:
        if len(sys.argv) > 1 and sys.argv[1] in scripts:
            sys.path.insert(0, str(SCRIPTS))  # as where Python starts a script itself
            sys.argv = [str(scripts[sys.argv[1]]), *sys.argv[2:]]
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            execute_from_command_line(sys.argv)
            if sys.argv[1:] in ([], ["help"]):
                print("\n[scripts]\n    " + "\n    ".join(sorted(scripts)))
    except SettingsError as error:
        sys.exit(f"The settings are not complete:\n{error}")


if __name__ == "__main__":
    main()
