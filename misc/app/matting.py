"""Mattes of a session: infer.py as a program, on the session's folder; and everything it made in one zip file.

A program of its own gives the same files as the command line, ends at once where the visitor stops it or closes the
page, and cannot take the server with it where memory ends.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from misc.app.photograph import Photograph
from misc.app.session import Session
from misc.errors import InputError
from misc.files import atomic_path
from misc.images import write_image

ROOT = Path(__file__).resolve().parents[2]
MATTES, CUTOUTS, MASKS = "mattes", "mattes_rgba", "mattes_masks"  # infer.py --output mattes --rgba, and what it read
ARCHIVE = "instmatt.zip"
AS_TRAINED = "as trained"
REFINEMENTS = {AS_TRAINED: (), "off": ("--refine-iterations", "0"), "once": ("--refine-iterations", "1"),
               "twice": ("--refine-iterations", "2")}  # fmt: skip
DETAILS = {AS_TRAINED: (), "on": ("--detail",), "off": ("--no-detail",)}


@dataclass(frozen=True)
class Way:
    """How mattes are made: a checkpoint of the server, and what the visitor chose."""

    checkpoint: Path
    refinement: str = AS_TRAINED
    detail: str = AS_TRAINED
    precision: str = "fp32"
    device: str = "auto"

    @property
    def options(self) -> list[str]:
        """Of infer.py."""
        chosen = [*REFINEMENTS[self.refinement], *DETAILS[self.detail]]
        return [*chosen, "--checkpoint", str(self.checkpoint), "--precision", self.precision, "--device", self.device]


def matte(session: Session, way: Way) -> Iterator[tuple[int, int]]:
    """Matte the kept people of all photographs but those whose mattes are those of this way and these people already.

    Yields:
        How many photographs are done, and of how many; several times a second.

    Raises:
        InputError: nobody to matte, or infer.py could not; the line is its own. What it had finished is kept.
    """
    with session.lock:
        for photograph in session.photographs.values():
            if session.options != way.options or photograph.matted != photograph.kept:
                session.clear_results(photograph)
        session.options = way.options
        some = [photograph for photograph in session.photographs.values() if photograph.kept]
        if not some:
            raise InputError("there is nobody to matte; draw a box round a person, or take one back")
        todo = [photograph for photograph in some if photograph.matted is None]
        for photograph in todo:
            write_masks(session, photograph)
        people = [photograph.kept for photograph in todo]
    if session.stopped:
        raise InputError("stopped")
    if not todo:
        return
    command = [sys.executable, "infer.py", "--image-dir", session.folder / "images", "--rgba", "--resume"]
    command += ["--mask-dir", session.folder / MASKS, "--output", session.folder / MATTES, *way.options]
    with tempfile.TemporaryFile("w+") as log:
        session.process = process = subprocess.Popen(
            [str(word) for word in command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log, text=True
        )
        while process.poll() is None:
            if session.stopped:
                process.terminate()
            yield sum(is_matted(session, photograph) for photograph in todo), len(todo)
            time.sleep(0.2)
        log.seek(0)
        lines = log.read().splitlines()
    for photograph, kept in zip(todo, people):
        if is_matted(session, photograph):
            photograph.matted = kept
    if process.returncode:
        errors = [line for line in lines if line.startswith("error: ")] or lines[-1:] or ["nothing was said"]
        raise InputError("stopped" if process.returncode in (143, -15) else tidy(session, "; ".join(errors)))
    yield len(todo), len(todo)


def write_masks(session: Session, photograph: Photograph) -> None:
    """Write the masks of the kept people, 00.png for person 1."""
    for person in photograph.kept:
        write_image(session.folder / MASKS / photograph.name / f"{person.number - 1:02d}.png", photograph.mask(person))


def is_matted(session: Session, photograph: Photograph) -> bool:
    """Whether a photograph has all its mattes; they are written last."""
    masks = list((session.folder / MASKS / photograph.name).glob("*.png"))
    return bool(masks) and all((session.folder / MATTES / photograph.name / mask.name).is_file() for mask in masks)


def tidy(session: Session, line: str) -> str:
    """A message without the folder of the session, which tells the visitor nothing."""
    return line.removeprefix("error: ").replace(f"{session.folder / 'images'}/", "").replace(f"{session.folder}/", "")


def archive(session: Session) -> Path:
    """One zip file of mattes, cut-outs and masks, laid out as infer.py does; PNG files are not packed again."""
    path = session.folder / ARCHIVE
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for folder in (MATTES, CUTOUTS, MASKS):
            for picture in sorted((session.folder / folder).rglob("*.png")):
                file.write(picture, picture.relative_to(session.folder))
    return path
