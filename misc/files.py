"""Whole files or none: everything the project writes goes through here."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from misc.errors import RunError

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
    made. The temporary name keeps the suffix, so that writers which choose a format by it work.

    Raises:
        RunError: the disk is full, or something like it.
        OSError: the folder cannot be made or written.
    """
    path = Path(path)
    with room_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _apply_umask(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


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
    """Write a text file (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: str | Path, text: str) -> None:
    """Add to the end of a text file (UTF-8), such as a log: the one kind of file that grows in place.

    Raises:
        RunError: the disk is full, or something like it.
        OSError: the file cannot be written.
    """
    with room_for(Path(path)), open(path, "a", encoding="utf-8") as file:
        file.write(text)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a binary file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _apply_umask(path: Path) -> None:
    """Give a file made by mkstemp (0600) the permissions that an ordinary ``open`` would have given it."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
