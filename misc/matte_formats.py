"""Kinds of files that mattes are written as, a row each."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from misc.files import write_bytes
from misc.images import to_levels

MOST_OF_WEBP = 16383  # pixels of a side, of its format


@dataclass(frozen=True)
class MatteFormat:
    """A kind of file.

    Attributes:
        suffix: of its name.
        dtype: of the levels, uint8 or uint16.
        encode: (H, W) levels of that type to the file.
    """

    suffix: str
    dtype: type[np.unsignedinteger[Any]]
    encode: Callable[[np.ndarray], bytes]


def _png(levels: np.ndarray) -> bytes:
    return cv2.imencode(".png", levels)[1].tobytes()


def _by_pillow(kind: str, **options: Any) -> Callable[[np.ndarray], bytes]:
    def encode(levels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(levels).save(file, kind, **options)
        return file.getvalue()

    return encode


# Name on a command line -> the format. All are without loss for their levels.
FORMATS: Mapping[str, MatteFormat] = {
    "png": MatteFormat(".png", np.uint8, _png),
    "png16": MatteFormat(".png", np.uint16, _png),
    "webp": MatteFormat(".webp", np.uint8, _by_pillow("WEBP", lossless=True)),
    "tiff16": MatteFormat(".tif", np.uint16, _by_pillow("TIFF", compression="tiff_adobe_deflate")),
}


def write_matte(path: Path, alpha: np.ndarray, kind: MatteFormat) -> None:
    """Write a matte atomically, rounded to the nearest level.

    Args:
        path: of the file; parent folders are made.
        alpha: (H, W) float32 in [0, 1], or levels of the file's type.
        kind: of the file.

    Raises:
        InputError: values that are not finite, which no file can hold.
        OSError: the file cannot be written, or is of a kind that cannot hold so large a matte.
    """
    if kind.suffix == ".webp" and max(alpha.shape) > MOST_OF_WEBP:
        raise OSError(f"{path}: WebP holds at most {MOST_OF_WEBP} pixels a side; write png, png16 or tiff16 (--format)")
    levels = alpha if alpha.dtype == kind.dtype else to_levels(alpha, kind.dtype, path=path)
    write_bytes(path, kind.encode(levels))
