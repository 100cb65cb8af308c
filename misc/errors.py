"""What a bad input raises, and how a script shows it."""

from __future__ import annotations

import os
import reprlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from tqdm import tqdm


class InputError(ValueError):
    """A file, option or configuration value that cannot be used.

    The message is one line: which file or key, what was found, what was expected, what to do.
    """


class RunError(RuntimeError):
    """Work that began and cannot go on, such as a loss that is no longer finite. The message is one line."""


class _Patient:
    """A stream that goes on when nobody reads it any more (``| head``): what is written is lost, the work is not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of the stream."""
        with suppress(BrokenPipeError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As of the stream."""
        with suppress(BrokenPipeError):
            self._stream.flush()


class Terminated(KeyboardInterrupt):
    """SIGTERM: the script ends as after Ctrl-C, with its files whole and its processes gone."""


def printable(text: str) -> str:
    """A line that every terminal shows as it is: names may hold escape sequences, line breaks, bytes of no meaning."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def shown(value: object, *, most: int = 60) -> str:
    """A value as one short piece of text for an error message, whatever it is: its type where it has no such text."""
    try:
        text = reprlib.repr(value) if isinstance(value, (str, bytes, int, float, list, tuple, dict)) else str(value)
    except (ValueError, RecursionError):  # an integer of very many digits, lists in lists in lists
        return type(value).__name__
    text = printable(" ".join(text.split()))
    return text if len(text) <= most else text[: most - 1] + "…"


def say(line: str, *, file: TextIO | None = None) -> None:
    """Print a line at once to standard error, or ``file``, as :func:`printable` has it, above a progress bar if any."""
    stream = sys.stderr if file is None else file
    tqdm.write(printable(line), file=stream)
    stream.flush()


def run_script(main: Callable[[], int | None], *, leave: Callable[[int], Any] = sys.exit) -> None:
    """Run a script's main function and leave with its exit status.

    Input faults (``InputError`` and ``OSError``: missing file, no permission) become one line on standard error and
    exit status 2; a ``RunError``, such as a full disk, becomes one line and exit status 1. Ctrl-C leaves with 130,
    SIGTERM with 143. Everything else is a bug and keeps its traceback. Closed standard streams are no fault.

    Args:
        main: the script; returns an exit status, ``None`` for 0.
        leave: ends the process with an exit status; a script of several processes passes ``misc.distributed.leave``.
    """
    before = sys.stdout, sys.stderr
    _open_streams()
    try:
        with _terminable():
            status = main() or 0
    except InputError as error:
        status = _report(str(error))
    except OSError as error:
        status = _report(describe_os_error(error))
    except RunError as error:
        status = _report(str(error), status=1)
    except KeyboardInterrupt as error:
        terminated = isinstance(error, Terminated)
        say("terminated" if terminated else "interrupted")
        status = 143 if terminated else 130
    finally:
        _flush_streams()
        if all(before):
            sys.stdout, sys.stderr = before
    leave(status)


def _open_streams() -> None:
    """Give streams that were closed (``2>&-``) somewhere to write to, and let none fail at a character.

    The first file opened would take the number of a closed one, and get what libraries write to it.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, _Patient(stream))


def _flush_streams() -> None:
    """Write what is left, to nowhere where the reader has gone: all work is done."""
    for stream in (sys.stdout, sys.stderr):
        try:
            (stream._stream if isinstance(stream, _Patient) else stream).flush()
        except BrokenPipeError:  # what is left in it would fail once more as the interpreter ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises :class:`Terminated` meanwhile.

    Not in one of several processes: it may wait for another where no Python runs, and the launcher for it.
    """
    if threading.current_thread() is not threading.main_thread() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield
        return

    def end(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def describe_os_error(error: OSError) -> str:
    """``OSError`` as one readable line that names the file."""
    if error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _report(message: str, *, status: int = 2) -> int:
    say("error: " + " ".join(message.split()))
    return status
