"""Where to look in a photograph with mattes: at hair, and where two people touch."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from misc.box import Box
from misc.morphology import ellipse

SOFT = (0.05, 0.95)  # alphas between these are neither background nor foreground
SUPPORT = 0.1  # who is where, for contacts: a haze below this touches nobody
LEAST_SIDE = 64  # of a window, pixels


def densest_window(weight: np.ndarray, side: int) -> Box | None:
    """The square with the largest sum, moved so that what it holds lies in its middle.

    Args:
        weight: (H, W) float32, not negative.
        side: of the square, pixels; less where the picture is smaller.

    Returns:
        The square; ``None`` where all weights are 0.
    """
    if not weight.any():
        return None
    height, width = weight.shape
    side = min(side, height, width)
    total = cv2.integral(weight.astype(np.float32), sdepth=cv2.CV_64F)
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    inside = weight[top : top + side, left : left + side]
    rows, columns = np.nonzero(inside)
    values = inside[rows, columns]
    top += round(float(np.average(rows, weights=values)) - (side - 1) / 2)
    left += round(float(np.average(columns, weights=values)) - (side - 1) / 2)
    first_row, first_column = int(np.clip(top, 0, height - side)), int(np.clip(left, 0, width - side))
    return Box(first_row, first_column, first_row + side, first_column + side)


def hair_window(mattes: np.ndarray) -> tuple[Box, int] | None:
    """The softest square in the upper quarter of the person with most soft alpha there, where nobody else is.

    Higher pixels count more: soft alphas farther down are more often doubt about an arm than hair.

    Args:
        mattes: (K, H, W) float32 in [0, 1], K ≥ 1.

    Returns:
        The square and the number of the person; its side is half the shorter side of that person's box. ``None`` where
        no alpha is soft.
    """
    best: tuple[float, np.ndarray, int, int] | None = None
    for number, matte in enumerate(mattes):
        person = Box.of(matte > 0.5)
        reach = max(2, person.height // 10)  # hair stands above what is solid
        rows = slice(max(0, person.top - reach), person.top + max(1, person.height // 4))
        alone = (mattes[:, rows] > SUPPORT).sum(axis=0) <= (matte[rows] > SUPPORT)
        higher_counts_more = np.linspace(1, 0.1, len(matte[rows]), dtype=np.float32)[:, None]
        soft = np.zeros(matte.shape, np.float32)
        soft[rows] = (alone & (matte[rows] > SOFT[0]) & (matte[rows] < SOFT[1])) * higher_counts_more
        if not person.is_empty and soft.any() and (best is None or soft.sum() > best[0]):
            best = (float(soft.sum()), soft, max(LEAST_SIDE, min(person.width, person.height) // 2), number)
    if best is None:
        return None
    _, soft, side, number = best
    window = densest_window(soft, side)
    return None if window is None else (window, number)


def contact_map(mattes: Sequence[np.ndarray] | np.ndarray, *, reach: int) -> np.ndarray:
    """Where people touch: the supports of two or more, each grown by ``reach`` pixels, share a pixel.

    Args:
        mattes: K of (H, W) in [0, 1], K ≥ 1.
        reach: pixels, at least 0.

    Returns:
        (H, W) bool.
    """
    disc = ellipse(2 * reach + 1)
    count = np.zeros(mattes[0].shape, np.uint8)
    for matte in mattes:
        count += cv2.dilate((matte > SUPPORT).view(np.uint8), disc)
    return count > 1


def contact_window(mattes: np.ndarray) -> Box | None:
    """A square round the longest contact of two people; ``None`` where everybody stands apart.

    Args:
        mattes: (K, H, W) float32 in [0, 1], K ≥ 1.
    """
    height, width = mattes.shape[1:]
    touching = contact_map(mattes, reach=max(3, round(0.006 * max(height, width))))
    return densest_window(touching.astype(np.float32), max(LEAST_SIDE, min(height, width) // 4))
