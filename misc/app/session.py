"""What one visitor has open: photographs, their people and the folder that holds both; gone when the page is closed."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from misc.app.photograph import Person, Photograph, packed
from misc.app.tools import MOST_PEOPLE
from misc.errors import InputError
from misc.images import MASK_THRESHOLD, read_image, read_mask, size_of
from misc.pictures import PHOTOGRAPHS
from misc.sizes import require_size

PREVIEW_SIDE = 1280  # longer side of what the browser is sent, pixels


@dataclass(frozen=True)
class Limits:
    """How much the page takes from one visitor, and from all."""

    photographs: int = 20
    bytes: int = 50_000_000
    pixels: int = 64_000_000
    sessions: int = 50
    idle_seconds: float = 3600


class Session:
    """Photographs of one visitor.

    Args:
        folder: for them; made here, removed by :meth:`close`.
        limits: how much is taken.

    Attributes:
        photographs: by name, in the order in which they came.
        current: name of the one that is shown.
        sample: whether they are those that the page opens with, which the visitor's own replace.
        lock: held while photographs or people change.
        uploads: files that the browser sent, which go when the page is closed.
        used: when the visitor did something last, ``time.monotonic()``.
        options: of infer.py, with which the mattes were made.
        process: the program that mattes, while it runs.
        stopped: whether nothing is to be matted, also what still waits its turn.
        closed: whether the page has been closed.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.photographs: dict[str, Photograph] = {}
        self.current = ""
        self.sample = False
        self.uploads: list[Path] = []
        self.lock = threading.RLock()
        self.used = time.monotonic()
        self.options: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.stopped = False
        self.closed = False
        folder.mkdir(parents=True, mode=0o700)

    @property
    def shown(self) -> Photograph:
        """The current photograph.

        Raises:
            InputError: none is open.
        """
        if self.current not in self.photographs:
            raise InputError("no photograph is open; drop one into the page")
        return self.photographs[self.current]

    def add(self, source: Path) -> Photograph:
        """Take in a photograph; a copy of the file, under a name of its own.

        Raises:
            InputError: no photograph, too large, or one too many. The line names the file, not its folder.
        """
        name, ending = source.stem, source.suffix.lower()
        if len(self.photographs) >= self.limits.photographs:
            raise InputError(
                f"{source.name}: more than {self.limits.photographs} photographs; download these, reload the page and "
                "go on with the others, or use infer.py, which takes folders"
            )
        if ending not in PHOTOGRAPHS:
            raise InputError(f"{source.name}: not a photograph; expected a file ending with {' '.join(PHOTOGRAPHS)}")
        if source.stat().st_size > self.limits.bytes:
            raise InputError(
                f"{source.name}: {source.stat().st_size / 1e6:.0f} MB; at most {self.limits.bytes / 1e6:.0f} MB are "
                "taken; make it smaller, or use infer.py"
            )
        name = re.sub(r"[^\w.+-]+", "_", name).strip("._")[:80] or "photograph"
        others = {other.casefold() for other in self.photographs}
        name = next(n for n in (name, *(f"{name}-{i}" for i in range(2, 1000))) if n.casefold() not in others)
        file = self.folder / "images" / f"{name}{ending}"
        file.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, file)
        try:
            photograph = self._open(name, file)
        except InputError as error:
            file.unlink()
            raise InputError(str(error).replace(str(file), source.name)) from None
        self.photographs[name] = photograph
        self.current = name
        return photograph

    def _open(self, name: str, file: Path) -> Photograph:
        try:
            height, width = size_of(file)
        except OSError:  # whatever it is, reading it says so better
            height = width = 0
        if height * width > self.limits.pixels:
            raise InputError(
                f"{file}: {width}×{height} pixels, {height * width / 1e6:.0f} million; at most "
                f"{self.limits.pixels / 1e6:.0f} million are taken; make it smaller, or use infer.py"
            )
        image = read_image(file)
        scale = min(1.0, PREVIEW_SIDE / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        preview = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return Photograph(name, file, (image.shape[0], image.shape[1]), preview)

    def set_masks(self, photograph: Photograph, masks: Sequence[np.ndarray]) -> None:
        """The people of a new photograph, (H, W) uint8 each; that cannot be undone.

        Raises:
            InputError: the size of a mask is not that of the photograph.
        """
        for number, mask in enumerate(masks, 1):
            require_size(mask, photograph.size, path=Path(f"mask {number}"), like=photograph.name)
        found = enumerate(masks[:MOST_PEOPLE], 1)
        photograph.people = tuple(Person(n, packed(mask >= MASK_THRESHOLD)) for n, mask in found if mask.any())

    def read_masks(self, photograph: Photograph, files: Sequence[Path]) -> None:
        """As :meth:`set_masks`, of files."""
        self.set_masks(photograph, [read_mask(file) for file in files])

    def clear(self) -> None:
        """Forget all photographs and their files; what works on them is stopped."""
        self.stop()
        self.photographs, self.current, self.sample = {}, "", False
        for child in self.folder.iterdir():
            if child.is_file():
                child.unlink()
            else:
                shutil.rmtree(child)

    def clear_results(self, photograph: Photograph) -> None:
        """Remove masks, mattes and cut-outs of a photograph."""
        photograph.matted = None
        for folder in self.folder.iterdir():
            if folder.name != "images":
                shutil.rmtree(folder / photograph.name, ignore_errors=True)

    def stop(self) -> bool:
        """End the program that mattes; returns whether one ran."""
        self.stopped = True
        process = self.process
        if process is None or process.poll() is not None:
            return False
        process.terminate()
        return True

    def close(self, *, keep: Collection[Path] = ()) -> None:
        """Stop, and leave nothing on the disk but the files to ``keep``, which others sent too.

        The server stores what browsers send under a name made of its content: two visitors can have one file.
        """
        self.closed = True
        if self.stop() and self.process is not None:
            self.process.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)
        for file in set(self.uploads).difference(keep):
            file.unlink(missing_ok=True)
            with suppress(OSError):  # another page sent the same file at the same time
                file.parent.rmdir()


# ------------------------------------------------------------------------------------------------------- all visitors


class Sessions:
    """The sessions of all visitors, each in a folder of its own that no other can name.

    Args:
        root: folder for their folders.
        limits: how much is taken.
    """

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def of(self, key: str) -> Session:
        """The session of a page; a new one where it has none.

        Raises:
            InputError: too many visitors.
        """
        with self._lock:
            if key not in self._open:
                if len(self._open) >= self.limits.sessions:
                    raise InputError(f"{self.limits.sessions} pages are open already; try again later")
                self._open[key] = Session(self.root / secrets.token_urlsafe(16), self.limits)
            session = self._open[key]
            session.used = time.monotonic()
        return session

    def sweep(self) -> None:
        """Close the sessions that were left idle."""
        now = time.monotonic()
        with self._lock:
            idle = [key for key, session in self._open.items() if now - session.used > self.limits.idle_seconds]
        for key in idle:
            self.close(key)

    def close(self, key: str) -> None:
        """Close the session of a page, if it has one."""
        with self._lock:
            session = self._open.pop(key, None)
            others = {file for other in self._open.values() for file in other.uploads}
        if session is not None:
            session.close(keep=others)

    def close_all(self) -> None:
        """Close them all."""
        for key in list(self._open):
            self.close(key)

    @staticmethod
    def now() -> float:
        """What ``Session.used`` is counted in, seconds."""
        return time.monotonic()
