"""Reading, working and writing at once: none of the three waits for the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any, NamedTuple, TypeVar

from misc.errors import InputError
from misc.faults import ends_run

Item = TypeVar("Item")


class Outcome(NamedTuple):
    """What became of an item: ``error`` is ``None``, or what reading, working or writing raised."""

    item: Any
    error: InputError | OSError | None


def overlapped(
    items: Iterable[Item],
    *,
    read: Callable[[Item], Any],
    work: Callable[[Item, Any], Any],
    write: Callable[[Item, Any], None],
    readers: int = 2,
    writers: int = 2,
    ahead: int = 3,
) -> Iterator[Outcome]:
    """Read items in threads, work on them one after the other in the caller's thread, write results in threads.

    Args:
        items: in any number; at most ``ahead`` are held at a time on either side of the work.
        read: item → what ``work`` needs. Its ``InputError`` or ``OSError`` becomes the outcome of that item.
        work: item and what was read → result. Its ``InputError`` likewise.
        write: item and result → files, each whole or not at all. Its ``InputError`` or ``OSError`` likewise.
        readers: threads.
        writers: threads.
        ahead: items read ahead, and results waiting to be written.

    Yields:
        One outcome per item, in order, once it is written (or has failed).

    Raises:
        OSError: a result could not be written, nor could any other: the disk is full, read-only or broken.
    """
    source = iter(items)
    reading: deque[tuple[Item, Future]] = deque()
    writing: deque[tuple[Item, Future | InputError | OSError]] = deque()
    with ThreadPoolExecutor(readers) as reader, ThreadPoolExecutor(writers) as writer:

        def fill() -> None:
            while len(reading) < ahead:
                item = next(source, None)
                if item is None:
                    return
                reading.append((item, reader.submit(read, item)))

        def step() -> tuple[Item, Future | InputError | OSError]:
            """Work on the next item. What was read ends with this frame: it may be large, and writing takes long."""
            item, future = reading.popleft()
            try:
                given = future.result()
                fill()
                return item, writer.submit(write, item, work(item, given))
            except (InputError, OSError) as error:  # without its frames, which hold pictures
                fill()
                return item, error.with_traceback(None)

        try:
            for pool, count in ((reader, readers), (writer, writers)):
                _start_threads(pool, count)
            fill()
            while reading:
                writing.append(step())
                while len(writing) > ahead or (writing and _is_done(writing[0][1])):
                    yield _finish(*writing.popleft())
            while writing:
                yield _finish(*writing.popleft())
        finally:  # an interruption: what is being written gets finished, what has not begun does not begin
            for _, future in reading:
                future.cancel()
            for _, pending in writing:
                if isinstance(pending, Future):
                    pending.cancel()


def _start_threads(pool: ThreadPoolExecutor, count: int) -> None:
    """Start all threads of a pool, while there is memory for them: later a large item may have taken it."""
    together = Barrier(count + 1)
    for _ in range(count):
        pool.submit(together.wait)
    together.wait()


def _is_done(pending: Future | InputError | OSError) -> bool:
    return not isinstance(pending, Future) or pending.done()


def _finish(item: Any, pending: Future | InputError | OSError) -> Outcome:
    if not isinstance(pending, Future):
        return Outcome(item, pending)
    try:
        pending.result()
    except (InputError, OSError) as error:
        if ends_run(error):
            raise
        return Outcome(item, error.with_traceback(None))
    return Outcome(item, None)
