"""What a run leaves behind: a text log, log.jsonl, TensorBoard events, the configuration and the environment."""

from __future__ import annotations

import json
import logging
import platform
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from tensorboardX import SummaryWriter
from tqdm import tqdm

from misc.errors import RunError, describe_os_error
from misc.files import append_text, room_for, write_text


class _TqdmHandler(logging.Handler):
    """Prints above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _FileHandler(logging.FileHandler):
    """Ends the run where the log cannot be written, instead of a traceback per line."""

    def handleError(self, record: logging.LogRecord) -> None:
        with room_for(Path(self.baseFilename)):
            raise


class _Events:
    """Writes tensorboardX's events in its thread, which must not die: nobody would empty its queue then.

    Attributes:
        error: the first that writing met; nothing is written after it.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.error: OSError | None = None

    def write_event(self, event: Any) -> None:
        """Write an event, or lose it."""
        self._attempt(self._writer.write_event, event)

    def flush(self) -> None:
        """Flush what has been written."""
        self._attempt(self._writer.flush)

    def close(self) -> None:
        """Close the file."""
        self._attempt(self._writer.close)

    def _attempt(self, write: Callable[..., Any], *values: Any) -> None:
        if self.error is None:
            try:
                write(*values)
            except OSError as error:
                self.error = error


class RunLogger:
    """Log of one run; silent in all processes but the main one.

    Args:
        folder: for log.txt, log.jsonl, config.toml and environment.json.
        tensorboard: folder for events.
        level: of the text log, "DEBUG" to "ERROR".
        active: false in processes that should write nothing.
        first_step: entries of an earlier, interrupted run from this step on are dropped from log.jsonl.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tensorboard: Path,
        level: str = "INFO",
        active: bool = True,
        first_step: int = 0,
    ) -> None:
        self.active = active
        self.tensorboard = tensorboard
        self.logger = logging.getLogger(f"instmatt.{folder}")
        self.logger.setLevel(level)
        self.logger.propagate = False
        self.logger.handlers.clear()
        self.writer: SummaryWriter | None = None
        self._events: _Events | None = None
        self._warned = False
        if not active:
            self.logger.addHandler(logging.NullHandler())
            return
        folder.mkdir(parents=True, exist_ok=True)
        form = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        for handler in (_TqdmHandler(), _FileHandler(folder / "log.txt", encoding="utf-8")):
            handler.setFormatter(form)
            self.logger.addHandler(handler)
        self.json_path = folder / "log.jsonl"
        self._keep_before(first_step)
        self._open_writer(first_step)

    def _keep_before(self, step: int) -> None:
        """Drop what an interrupted run wrote after its last checkpoint: those steps come again."""
        if self.json_path.is_file():
            lines = self.json_path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if 0 < _step_of(line) <= step]
            write_text(self.json_path, "".join(line + "\n" for line in kept))

    def info(self, message: str) -> None:
        """A line for people."""
        self.logger.info(message)

    def warning(self, message: str) -> None:
        """A line for people about what is wrong, though the run goes on."""
        self.logger.warning(message)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """A line of log.jsonl: ``{"kind": …, "step": …, …}``."""
        if self.active:
            append_text(self.json_path, json.dumps({"kind": kind, "step": step, **values}) + "\n")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """TensorBoard curves."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
            self._warn_of_events()

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """A TensorBoard picture, (H, W, 3) uint8 RGB."""
        if self.writer is not None:
            self.writer.add_image(name, image, step, dataformats="HWC")
            self._warn_of_events()

    def _open_writer(self, first_step: int) -> None:
        """TensorBoard, if its folder can be written; what becomes impossible later is lost and no more than that."""
        try:
            self.writer = SummaryWriter(str(self.tensorboard), purge_step=first_step or None)
        except OSError as error:
            reason = describe_os_error(error)
            self.warning(f"{self.tensorboard}: TensorBoard's events cannot be written ({reason}); the run goes on")
            return
        events = self.writer.file_writer.event_writer
        self._events = _Events(events._ev_writer)
        events._ev_writer = events._worker._record_writer = self._events

    def _warn_of_events(self) -> None:
        """Say once that events are lost."""
        if self._events is not None and self._events.error is not None and not self._warned:
            self._warned = True
            reason = self._events.error.strerror or self._events.error
            self.warning(f"{self.tensorboard}: TensorBoard's events are lost from here on ({reason}); the run goes on")

    def close(self) -> None:
        """Flush and close the files.

        Raises:
            RunError: the disk is full, or something like it.
        """
        if self.writer is not None:
            self.writer.close()
            self._warn_of_events()
        for handler in list(self.logger.handlers):
            handler.close()
            self.logger.removeHandler(handler)

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with nullcontext() if error is None else suppress(OSError, RunError):  # what ended the run is what to tell
            self.close()


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed run may be half a line
        return 0


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "cpu_threads": torch.get_num_threads(),
        "gpus": gpus,
    }
