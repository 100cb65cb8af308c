"""Of a run over many files: what may go wrong with one of them, and what would go wrong with all."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from misc.errors import InputError, describe_os_error

# A full or read-only disk, or one that fails: no further file could be written either.
ENDS_A_RUN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# As NumPy, OpenCV, torch and CUDA put it; then threads, then oneDNN.
OUT_OF_MEMORY = (
    "out of memory",
    "insufficient memory",
    "not enough memory",
    "allocate memory",
    "can't start new thread",
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)


class TooLarge(InputError):
    """A photograph that the memory of this machine, or what is left of it now, does not suffice for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory is used up: of Python, NumPy, OpenCV or torch, on any device."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


@contextmanager
def one_of_many(
    path: Path, *, needs: Callable[[], float] | None = None, remedy: str = "make it smaller"
) -> Iterator[None]:
    """Want of memory becomes an error of the file that is being worked on.

    Args:
        path: the file.
        needs: tells how many bytes the work takes, for the message; unknown by default.
        remedy: what to do about it.

    Raises:
        TooLarge: memory is used up.
    """
    try:
        yield
        return
    except Exception as error:
        if isinstance(error, (InputError, OSError)) or not is_out_of_memory(error):
            raise
    # Outside of the clause: the new error shall not keep alive what the old one's frames hold.
    amount = ""
    with suppress(MemoryError, InputError, OSError):
        amount = f", it takes about {needs() / 1e9:.1f} GB" if needs else ""
    raise TooLarge(f"{path}: not enough memory{amount}; {remedy}")


def ends_run(error: Exception) -> bool:
    """Whether what went wrong in writing one result would go wrong with every other."""
    return isinstance(error, OSError) and error.errno in ENDS_A_RUN


def one_line(error: Exception) -> str:
    """The message of an ``InputError`` or ``OSError``, with its file."""
    return describe_os_error(error) if isinstance(error, OSError) else str(error)
