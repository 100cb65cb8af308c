"""What a bad input raises, and how a script shows it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class InputError(ValueError):
    """A file, option or configuration value that cannot be used.

    The message is one line: which file or key, what was found, what was expected, what to do.
    """


class RunError(RuntimeError):
    """Work that began and cannot go on, such as a loss that is no longer finite. The message is one line."""


def run_script(main: Callable[[], int | None], *, leave: Callable[[int], Any] = sys.exit) -> None:
    """Run a script's main function and leave with its exit status.

    Input faults (``InputError`` and ``OSError``: missing file, no permission) become one line on standard error and
    exit status 2; a ``RunError``, such as a full disk, becomes one line and exit status 1. Ctrl-C leaves with 130.
    Everything else is a bug and keeps its traceback.

    Args:
        main: the script; returns an exit status, ``None`` for 0.
        leave: ends the process with an exit status; a script of several processes passes ``misc.distributed.leave``.
    """
    try:
        status = main() or 0
    except InputError as error:
        status = _report(str(error))
    except OSError as error:
        status = _report(describe_os_error(error))
    except RunError as error:
        status = _report(str(error), status=1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    leave(status)


def describe_os_error(error: OSError) -> str:
    """``OSError`` as one readable line that names the file."""
    if error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _report(message: str, *, status: int = 2) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return status
