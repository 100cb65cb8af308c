"""Masks of people from COCO annotations: polygons and run lengths, plain or compressed, without further packages.

The format is described at https://cocodataset.org/#format-data; the compression of run lengths is that of pycocotools.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Container
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from misc.errors import InputError
from misc.masks import SharedMasks
from misc.pictures import MOST_BYTES, MOST_PIXELS

PERSON = "person"
EXPECTED = "expected COCO annotations: an object with lists of images and annotations"
FINE, MOST_STEPS = 8, 4096  # polygons are drawn in so many steps per pixel, or fewer where they are large


def coco_masks(path: Path, wanted: Container[str]) -> dict[str, SharedMasks]:
    """Masks of the photographs in a file of annotations, by image name.

    An image is the photograph of its file name without folder and ending. Annotations count that are of the category
    "person" (all, where no category is called so) and of one person: ``iscrowd`` is left out. People are called 00,
    01 … in the order of the file.

    Args:
        path: JSON file.
        wanted: image names; others are passed over.

    Raises:
        FileNotFoundError: no such file.
        InputError: not such a file; names what is wrong. A segmentation that cannot be used raises when it is read.
    """
    content = _load(path)
    try:
        people = {entry["id"] for entry in content.get("categories") or () if str(entry["name"]).lower() == PERSON}
        images: dict[Any, tuple[str, int, int]] = {}
        for entry in content["images"]:
            name = unicodedata.normalize("NFC", Path(str(entry["file_name"]).replace("\\", "/")).stem)
            if name in wanted:
                images[entry["id"]] = name, int(entry["height"]), int(entry["width"])
        found: dict[Any, list[dict[str, Any]]] = {number: [] for number in images}
        for entry in content["annotations"]:
            of_person = not people or entry.get("category_id") in people
            if entry["image_id"] in images and of_person and not entry.get("iscrowd") and entry.get("segmentation"):
                found[entry["image_id"]].append(entry)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"no field {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
        raise InputError(f"{path}: {what}; {EXPECTED}, images with id, file_name, height and width") from None
    masks: dict[str, SharedMasks] = {}
    for number, (name, height, width) in images.items():
        if name in masks:
            raise InputError(f"{path}: two images are called {name!r}; names must be unique, rename one")
        masks[name] = _of_image(path, found[number], (height, width))
    return masks


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {EXPECTED}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({' '.join(str(error).split())[:100]}); {EXPECTED}") from None
    if not isinstance(content, dict):
        what = "a list, such as results without images" if isinstance(content, list) else type(content).__name__
        raise InputError(f"{path}: found {what}; {EXPECTED}")
    return content


def _of_image(path: Path, annotations: list[dict[str, Any]], size: tuple[int, int]) -> SharedMasks:
    def read() -> np.ndarray:
        if math.prod(size) * len(annotations) > MOST_BYTES:
            raise InputError(f"{path}: {len(annotations)} masks of {size[1]}×{size[0]} pixels; make them smaller")
        return np.stack([_mask(path, annotation, size) for annotation in annotations])

    return SharedMasks(path, tuple(f"{number:02d}" for number in range(len(annotations))), read)


def _mask(path: Path, annotation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8, 0 or 255, of an annotation in an image of ``size`` (height, width)."""
    try:
        if not (size[0] > 0 and size[1] > 0 and size[0] * size[1] <= MOST_PIXELS):
            raise ValueError(f"an image of {size[1]}×{size[0]} pixels")
        segmentation = annotation["segmentation"]
        mask = from_runs(segmentation, size) if isinstance(segmentation, dict) else from_polygons(segmentation, size)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(
            f"{path}: annotation {annotation.get('id', '?')}: {' '.join(str(error).split())[:100]}; expected a "
            "segmentation of polygons [[x, y, x, y, …]] or run lengths {size, counts}"
        ) from None
    return mask.view(np.uint8) * np.uint8(255)


def from_polygons(polygons: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in one of several polygons.

    Args:
        polygons: each x, y, x, y …, pixels; (0, 0) is the corner of the first pixel.
        size: height and width.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: not a polygon.
    """
    mask = np.zeros(size, bool)
    for polygon in polygons:
        points = np.asarray(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError(f"a polygon of {points.size} numbers")
        points = points.reshape(-1, 2)
        left, top = (int(low) for low in np.clip(np.floor(points.min(0)) - 1, 0, size[::-1]))
        right, bottom = (int(high) for high in np.clip(np.ceil(points.max(0)) + 1, 0, size[::-1]))
        if right > left and bottom > top:
            # Drawn fine and read at the centres of pixels: OpenCV also fills what a line touches.
            steps = max(1, min(FINE, MOST_STEPS // max(bottom - top, right - left)))
            box = np.zeros(((bottom - top) * steps, (right - left) * steps), np.uint8)
            corners = np.rint((points - (left, top)) * steps).clip(-(2**20), 2**20).astype(np.int32)
            cv2.fillPoly(box, [corners], 1)
            mask[top:bottom, left:right] |= box[steps // 2 :: steps, steps // 2 :: steps] > 0
    return mask


def from_runs(runs: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """A mask of run lengths: how many pixels are out, in, out …, down the columns.

    Args:
        runs: "size", height and width, and "counts", whole numbers or a string of pycocotools.
        size: of the image.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: they do not fill the image.
    """
    counts = runs["counts"]
    numbers = np.asarray(_uncompressed(counts) if isinstance(counts, str) else counts, np.int64)
    if list(runs["size"]) != list(size) or numbers.ndim != 1:
        raise ValueError(f"run lengths for a size (height, width) of {runs['size']} in an image of {list(size)}")
    if not ((numbers >= 0) & (numbers <= size[0] * size[1])).all() or numbers.sum() != size[0] * size[1]:
        raise ValueError(f"run lengths of {numbers.sum()} pixels in an image of {size[0] * size[1]}")
    inside = np.repeat(np.arange(len(numbers)) % 2 == 1, numbers)
    return np.ascontiguousarray(inside.reshape(size[::-1]).T)


def _uncompressed(text: str) -> list[int]:
    """Run lengths from pycocotools' string: 5 bits to a character, from the third number on as differences."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text.encode("latin-1"):
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if shift > 60:
            raise ValueError("run lengths that are no string of pycocotools")
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    return counts
