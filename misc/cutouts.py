"""People cut out of their photograph: foreground colours without a halo of the old background, and compositing."""

from __future__ import annotations

import cv2
import numpy as np

from misc.errors import InputError


def foreground_colours(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that the person alone would have, by multi-level estimation (Germer et al. 2020, through pymatting).

    Only the box round the person is worked on; elsewhere the photograph is returned.

    Args:
        image: (H, W, 3) uint8, RGB.
        alpha: (H, W) float32 in [0, 1].

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: pymatting is not installed.
    """
    try:
        from pymatting import estimate_foreground_ml
    except ImportError:
        raise InputError("--rgba and --composite need pymatting; install it with `pip install pymatting`") from None
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    colours = image.copy()
    if not len(rows):
        return colours
    rim = 16  # of certain background: the estimate tells the person from it
    box = (slice(max(0, rows[0] - rim), rows[-1] + 1 + rim), slice(max(0, columns[0] - rim), columns[-1] + 1 + rim))
    estimate = estimate_foreground_ml(image[box].astype(np.float64) / 255, alpha[box].astype(np.float64))
    colours[box] = np.rint(np.clip(estimate, 0, 1) * 255).astype(np.uint8)
    return colours


def cut_out(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The person as (H, W, 4) uint8, RGBA, colours not multiplied by alpha. Arguments as ``foreground_colours``."""
    return np.dstack([foreground_colours(image, alpha), np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)])


def composite(cutouts: list[np.ndarray], background: np.ndarray) -> np.ndarray:
    """Put cut-outs of one photograph on a new background.

    Alphas of several people add where they share a pixel, and are scaled down where they add to more than 1: nobody is
    in front of anybody.

    Args:
        cutouts: each (H, W, 4) uint8, RGBA.
        background: (h, w, 3) uint8, RGB; enlarged and cut at the centre to fill H × W.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    height, width = cutouts[0].shape[:2]
    scale = max(height / background.shape[0], width / background.shape[1])
    size = (max(width, round(background.shape[1] * scale)), max(height, round(background.shape[0] * scale)))
    resized = cv2.resize(background, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    behind = resized[top : top + height, left : left + width].astype(np.float32)
    colours, total = np.zeros_like(behind), np.zeros((height, width, 1), np.float32)
    for cutout in cutouts:
        alpha = cutout[..., 3:].astype(np.float32) / 255
        colours += cutout[..., :3] * alpha
        total += alpha
    excess = np.maximum(total, 1)
    return np.rint(colours / excess + behind * (1 - total / excess)).astype(np.uint8)
