"""Masks of many photographs on the disk: found once, kept as a folder that a person can edit and commands read."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from misc.errors import InputError
from misc.faults import ends_run, one_line, one_of_many
from misc.files import sweep, temporary_name
from misc.images import read_image, write_image


def write_masks(folder: Path, masks: Sequence[np.ndarray]) -> None:
    """Put masks into ``folder`` as 00.png, 01.png …; numbered files of an earlier run go.

    A folder that was not there appears with all of them or not at all. Without masks it is empty, which says that the
    photograph was searched.

    Args:
        folder: of one photograph.
        masks: each (H, W) uint8.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    sweep(folder.parent)
    with tempfile.TemporaryDirectory(prefix=temporary_name("."), dir=folder.parent) as name:
        fresh = Path(name) / "masks"
        fresh.mkdir()
        for number, mask in enumerate(masks):
            write_image(fresh / f"{number:02d}.png", mask)
        if folder.is_dir():
            for path in folder.iterdir():
                if re.fullmatch(r"\d+\.png", path.name):
                    path.unlink()
            for path in sorted(fresh.glob("*.png")):
                path.rename(folder / path.name)
        else:
            fresh.rename(folder)


def is_searched(folder: Path, photograph: Path) -> bool:
    """Whether the masks of a photograph, or that it has none, stand in a folder of masks."""
    return (folder / photograph.stem).is_dir()


def search(
    find: Callable[[np.ndarray], list[np.ndarray]],
    photographs: Sequence[Path],
    output: Path,
    *,
    task: str = "find people",
    hide_progress: bool | None = None,
) -> tuple[list[str], list[str]]:
    """Write the masks of every photograph as ``output/<image name>/NN.png``.

    Args:
        find: from a (H, W, 3) uint8 RGB photograph to its masks, such as ``misc.detectors.PeopleFinder``.
        photographs: files of different stems; ``is_searched`` tells those whose masks are there.
        output: folder to write to.
        task: what the progress bar says.
        hide_progress: of that bar; ``None`` hides it where standard error is no terminal.

    Returns:
        Names of photographs without people, and one line about each that cannot be read, is too large or whose masks
        cannot be written.

    Raises:
        OSError: no mask can be written.
    """
    empty, failed = [], []
    for path in tqdm(photographs, desc=task, unit="photo", disable=hide_progress):
        try:
            with one_of_many(path):
                masks = find(read_image(path))
            write_masks(output / path.stem, masks)
        except (InputError, OSError) as error:
            if ends_run(error):
                raise
            failed.append(one_line(error))
            continue
        if not masks:
            empty.append(path.stem)
    return empty, failed
