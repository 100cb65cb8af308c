"""Masks of all people of a photograph in one file: label images, arrays, COCO annotations.

``FORMATS`` has a row for each kind of file that belongs to one photograph; ``misc.coco`` reads annotations of many.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from misc.errors import InputError
from misc.pictures import MOST_BYTES, open_picture

Result = TypeVar("Result")

MOST_LABELS = 64  # more values than that are levels of grey
VOID = 255  # label that VOC gives to outlines


@dataclass(frozen=True)
class SharedMasks:
    """The masks of one photograph's people in one file.

    Attributes:
        path: the file.
        names: one for each person, of which results get theirs.
        read: returns them, (K, H, W) uint8 in 0..255; raises ``InputError`` or ``OSError``.
    """

    path: Path
    names: tuple[str, ...]
    read: Callable[[], np.ndarray]


def shared_masks(path: Path) -> SharedMasks:
    """What a file of one photograph holds, by its ending; a picture is a label image.

    A file that cannot be read counts as one person, and fails when it is to be read: it costs its photograph only.
    """
    row = FORMATS.get(path.suffix.lower(), (_labels, _label_masks))
    try:
        names = tuple(f"{label:02d}" for label in row[0](path))
    except (InputError, OSError):
        names = ("00",)
    return SharedMasks(path, names, lambda: row[1](path))


# ------------------------------------------------------------------------------------------------------ label images


def _labels(path: Path) -> list[int]:
    """Labels of the people in a label image, in order.

    Raises:
        FileNotFoundError: no such file.
        InputError: no label image.
    """
    return _people_in(_label_image(path), path)


def _label_masks(path: Path) -> np.ndarray:
    """Masks of a label image: indexed or grey, 0 is background, every other value a person, but 255 beside others.

    Returns:
        (K, H, W) uint8, 0 or 255, in order of the labels.

    Raises:
        FileNotFoundError: no such file.
        InputError: no label image.
    """
    image = _label_image(path)
    return np.stack([(image == label).view(np.uint8) * np.uint8(255) for label in _people_in(image, path)])


def _label_image(path: Path) -> np.ndarray:
    picture = open_picture(path, "a label image")
    image = picture.indices() if picture.indexed else picture.channels()
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path}: found shape {image.shape}, {image.dtype}; expected a label image, indexed or grey: 0 is "
            "background, every other value a person"
        )
    return image


def _people_in(image: np.ndarray, path: Path) -> list[int]:
    labels = [int(label) for label in np.flatnonzero(np.bincount(image.reshape(-1))) if label]
    if len(labels) > 1 and VOID in labels:
        labels.remove(VOID)
    if len(labels) > MOST_LABELS:
        raise InputError(
            f"{path}: found {len(labels)} values besides 0; expected a label image of at most {MOST_LABELS} people, "
            "saved without loss; put a grey mask of one person into a folder of the photograph's name"
        )
    return labels


# ------------------------------------------------------------------------------------------------------------ arrays


def _numbers(path: Path) -> range:
    """Numbers of the masks in an array file, of which only the header is read.

    Raises:
        FileNotFoundError: no such file.
        InputError: no array of masks.
    """
    return range(_from_file(path, _count))


def _array_masks(path: Path) -> np.ndarray:
    """Masks of a .npy file, or of the array "masks", or the only one, of a .npz file.

    Returns:
        (K, H, W) uint8 in 0..255: bool and whole numbers up to 1 become 0 and 255, fractions are scaled from [0, 1].

    Raises:
        FileNotFoundError: no such file.
        InputError: no array of masks.
    """
    masks = _from_file(path, _array)
    if masks.dtype == np.bool_:
        return masks.view(np.uint8) * np.uint8(255)
    low, high = (float(masks.min()), float(masks.max())) if masks.size else (0.0, 0.0)
    most = 1 if masks.dtype.kind == "f" else 255
    if not (low >= 0 and high <= most):  # also where a number is none
        raise InputError(f"{path}: found values from {low:g} to {high:g}; expected masks of {masks.dtype} in 0..{most}")
    if masks.dtype.kind == "f":
        return np.rint(masks.astype(np.float32) * 255).astype(np.uint8)
    return masks.astype(np.uint8) * np.uint8(255 if high <= 1 else 1)


def _from_file(path: Path, use: Callable[[IO[bytes], Path], Result]) -> Result:
    """What ``use`` makes of the array in a file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected an array of masks")
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return use(file, path)
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            chosen = "masks.npy" if "masks.npy" in names else names[0] if len(names) == 1 else None
            if chosen is None:
                found = ", ".join(name.removesuffix(".npy") for name in names[:5])
                raise InputError(f"{path}: found the arrays {found or 'none'}; expected one, or one called masks")
            with archive.open(chosen) as member:
                return use(member, path)
    except InputError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path}: not a readable array file ({' '.join(str(error).split())[:100]}); expected masks (K, H, W) as "
            "numpy.savez or numpy.save writes them"
        ) from None


def _header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of the numbers that follow."""
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if len(shape) != 3 or dtype.kind not in "buif" or math.prod(shape) * dtype.itemsize > MOST_BYTES:
        raise InputError(
            f"{path}: found shape {shape}, {dtype}; expected masks (K, H, W), numbers or bool, of at most "
            f"{MOST_BYTES / 1e9:.1f} GB"
        )
    return shape, fortran, dtype


def _count(file: IO[bytes], path: Path) -> int:
    return _header(file, path)[0][0]


def _array(file: IO[bytes], path: Path) -> np.ndarray:
    shape, fortran, dtype = _header(file, path)
    size = math.prod(shape) * dtype.itemsize
    data = file.read(size)
    if len(data) != size:
        raise InputError(f"{path}: the file is cut short; replace it")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


# Ending of a file -> what its people are called, and how their masks are read.
FORMATS: Mapping[str, tuple[Callable[[Path], list[int] | range], Callable[[Path], np.ndarray]]] = {
    ".npz": (_numbers, _array_masks),
    ".npy": (_numbers, _array_masks),
}
