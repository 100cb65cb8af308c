"""Being asked to stop: SIGTERM of a cluster, Ctrl-C of a person. Training saves first, and always ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from types import FrameType, TracebackType

from misc.errors import Terminated, say

PATIENCE = 120.0  # seconds without progress after which a run that was asked to stop ends without saving


class StopRequest:
    """Notes SIGTERM and Ctrl-C while it is entered; the loop looks at it and ends in good order.

    A second signal ends at once. A run that makes no progress any more, because a file system or another process does
    not answer, ends with status 143 after ``patience`` seconds; its last checkpoint stays as it is.

    Attributes:
        asked: whether a signal has come.
    """

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self.asked = False
        self._patience = patience
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self._previous: dict[int, object] = {}

    def __bool__(self) -> bool:
        return self.asked

    def alive(self) -> bool:
        """Say that there was progress: a step, a photograph of a validation. Returns whether to stop."""
        self._moved = time.monotonic()
        return self.asked

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self.asked, self._moved = True, time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._patience / 4)):
            if time.monotonic() - self._moved > self._patience:
                say(f"error: asked to stop, no step ended in {self._patience:g} s; the last checkpoint is as it was")
                for child in multiprocessing.active_children():  # of the data loader
                    child.kill()
                os._exit(143)
