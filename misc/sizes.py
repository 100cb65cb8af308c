"""Sizes of pictures in messages: the one line that says that two of them differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from misc.errors import InputError

Shape = tuple[int, ...]
"""(H, W) or (H, W, C), pixels."""


def size(shape: Shape) -> str:
    """Width and height as people write them: 1280×853."""
    return f"{shape[1]}×{shape[0]}"


def difference(shape: Shape, expected: Shape, *, like: str | Path) -> str:
    """That a picture has another size than it should, which is that of ``like``."""
    return f"found {size(shape)} pixels, expected {size(expected)} as in {like}"


def require_size(
    picture: np.ndarray, expected: Shape, *, path: Path, like: str | Path, remedy: str = "make them the same size"
) -> None:
    """Make sure that a picture has the size of another.

    Args:
        picture: (H, W) or (H, W, C), read from ``path``.
        expected: shape of the picture in ``like``.
        path: named in the message, as is ``like``.
        like: see ``path``.
        remedy: what to do.

    Raises:
        InputError: it has not.
    """
    if picture.shape[:2] != expected[:2]:
        raise InputError(f"{path}: {difference(picture.shape, expected, like=like)}; {remedy}")
