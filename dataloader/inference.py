"""A photograph and its masks, read and checked, for inference."""

from __future__ import annotations

import numpy as np

from dataloader.filelists import InferenceRecord
from misc.errors import InputError
from misc.image_io import read_image, read_mask


def load_record(record: InferenceRecord, *, threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Read one photograph, (H, W, 3) uint8, and its masks, (K, H, W) uint8.

    Raises:
        FileNotFoundError: a file is gone.
        InputError: a file is unreadable, a mask has another size than its photograph or is empty; names the file.
    """
    image = read_image(record.image)
    masks = []
    for path in record.masks:
        mask = read_mask(path)
        if mask.shape != image.shape[:2]:
            raise InputError(
                f"{path}: the mask is {mask.shape[1]}×{mask.shape[0]}, its photograph {record.image} is "
                f"{image.shape[1]}×{image.shape[0]}; make them the same size"
            )
        if mask.max() < threshold:
            raise InputError(f"{path}: the mask is empty: its maximum is {mask.max()}, --guidance-thres is {threshold}")
        masks.append(mask)
    return image, np.stack(masks)


def check_input(image: np.ndarray, masks: np.ndarray, *, threshold: int) -> np.ndarray:
    """Masks that fit a photograph, as (K, H, W) uint8, 0 or 1.

    Args:
        image: (H, W, 3) uint8, RGB.
        masks: (K, H, W), K ≥ 1, bool or uint8 in 0..255.
        threshold: grey masks are foreground from this value on, 1..255.

    Raises:
        InputError: wrong shapes or types, sizes that differ, or an empty mask.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"image: found shape {image.shape}, {image.dtype}; expected (H, W, 3) uint8, RGB")
    if masks.ndim != 3 or masks.dtype not in (np.uint8, np.bool_):
        raise InputError(f"masks: found shape {masks.shape}, {masks.dtype}; expected (K, H, W) uint8 or bool")
    if masks.shape[1:] != image.shape[:2]:
        raise InputError(f"masks: found size {masks.shape[1:]}, expected that of the image, {image.shape[:2]}")
    if not len(masks):
        raise InputError("masks: found none, expected one per person")
    binary = masks if masks.dtype == np.bool_ else masks >= threshold
    for number, mask in enumerate(binary):
        if not mask.any():
            raise InputError(f"masks: number {number} is empty at threshold {threshold}")
    return binary.astype(np.uint8)
