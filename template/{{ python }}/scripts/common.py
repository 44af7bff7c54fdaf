"""What the scripts share: the service they work on, and errors in one line."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from inference.gateway import NoAnswer, NotSent, Refused, Throttled
from inference.problems import Problem
from inference.service import Service
from inference.settings import SettingsError, load_settings
from inference.storage import StorageError

STOPPED = 130
"""The exit code of Ctrl+C, as in a shell."""


class Failed(Exception):
    """A script cannot do its work; the message says why and the way out."""


def open_service(*, complete: bool = False) -> Service:
    """The project's service on its database; ``complete`` demands all settings.

    Raises:
        SettingsError: a setting is missing or wrong.
        Failed: the database cannot be read.
    """
    from app.main import build_service  # the framework's imports take a while

    service = build_service(load_settings(complete=complete))
    try:
        service.store.overdue(time.time())
    except Exception as error:
        raise Failed(
            f"The database cannot be read ({type(error).__name__}): is DATABASE_URL right?"
            " `uv run python -m app migrate` makes the tables."
        ) from None
    return service


def run(main: Callable[[], int]) -> NoReturn:
    """End the script with the exit code of ``main``; 1 and one line where it cannot go on."""
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        code = STOPPED
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (Failed, SettingsError, StorageError, Problem, Refused, Throttled) as error:
        print(error, file=sys.stderr)
        code = 1
    except (NotSent, NoAnswer) as error:
        print(f"No answer from Replicate: {error}", file=sys.stderr)
        code = 1
    # Nothing is left to stop: from here Ctrl+C would only show the interpreter's own end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)
