"""Whole files or none: everything the project writes goes through here."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from misc.errors import RunError

# Temporary files: .tmp-<machine>-<process>-<run>-<number>.<suffix>, so that a later run knows the orphans among them.
_MACHINE = f"{zlib.crc32(socket.gethostname().encode(errors='replace')):08x}"
_RUN = secrets.token_hex(4)
_TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{8})-(\d+)-([0-9a-f]{8})-[0-9a-f]{8}(\..*)?")
_swept: set[str] = set()  # folders in which this process has looked for orphans

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota used up, file larger than allowed


def no_room(path: Path, reason: str) -> RunError:
    """What to raise where a file could not be written for want of room."""
    folder = path.absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return RunError(
        f"{path}: could not be written ({reason}; {free / 1e6:.0f} MB are free on its disk); make room there, look at "
        "quota and `ulimit -f`, or choose another folder, then run the same command again"
    )


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes the place of ``path``, on failure it is removed.

    A reader sees the old file or the new one, never half of one, also after a kill or a full disk. Parent folders are
    made. The temporary name keeps the suffix, so that writers which choose a format by it work, but not the rest, so
    that every name that fits into a folder can be written. What killed processes left in the folder is removed.

    Raises:
        RunError: the disk is full, or something like it.
        OSError: the folder cannot be made or written; names ``path``.
    """
    path = Path(path)
    with room_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        temporary = path.with_name(temporary_name(path.suffix))
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            with open(temporary, "rb+") as file:  # Windows flushes what is open for writing only
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            if error.filename != str(temporary):
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            temporary.unlink(missing_ok=True)


def temporary_name(suffix: str = "") -> str:
    """A hidden name that nothing else has, of one length for all, which a later run knows for an orphan."""
    return f".tmp-{_MACHINE}-{os.getpid()}-{_RUN}-{secrets.token_hex(4)}{suffix if len(suffix) <= 16 else ''}"


def sweep(folder: Path) -> None:
    """Remove the temporary files of processes of this machine that are no more, once for each folder."""
    if str(folder) in _swept:
        return
    _swept.add(str(folder))
    for entry in os.scandir(folder):
        found = _TEMPORARY.fullmatch(entry.name)
        if found and found[1] == _MACHINE and found[3] != _RUN and not _runs(int(found[2])):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether a process of that number runs, other than this one: in a container numbers come again."""
    if process == os.getpid():
        return False
    if os.name != "posix":  # where a signal of 0 ends a process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turns the ``OSError`` of a full disk into a ``RunError`` that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise no_room(path, os.strerror(error.errno)) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8; file names with other bytes come out as these) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def link(source: Path, target: Path) -> None:
    """Make ``target`` a symbolic link to a file, unless it is there; parent folders are made."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(source.resolve(), target)


def append_text(path: str | Path, text: str) -> None:
    """Add to the end of a text file (UTF-8), such as a log: the one kind of file that grows in place.

    Raises:
        RunError: the disk is full, or something like it.
        OSError: the file cannot be written.
    """
    with room_for(Path(path)), open(path, "a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a binary file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
