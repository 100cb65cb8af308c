"""Faults of masks that come from other hands than a good detector's: parts missing or added, polygons, coarse grids.

Masks of interactive tools, of annotators and of small networks differ from a Mask R-CNN's. A network that has seen
their faults learns to fill what is missing from the photograph instead of copying the mask's edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataloader.transforms import Scene

KEPT = 0.5  # a fault that leaves less of a mask, or more than its inverse, is left out


@dataclass(frozen=True)
class MaskFaults:
    """Damage the masks of a scene, each for itself.

    Attributes:
        erase: probability that an elliptical part is missing.
        paste: probability that a piece of some mask of the scene is added at the contour.
        polygon: probability that the contour becomes a polygon.
        coarse: probability that the mask comes from a grid 8 to 32 times coarser than the photograph.
    """

    erase: float = 0.0
    paste: float = 0.0
    polygon: float = 0.0
    coarse: float = 0.0

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        return replace(scene, masks=[self._damage(mask, scene.masks, rng) for mask in scene.masks])

    def _damage(self, mask: np.ndarray, masks: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        wanted = rng.random(4) < (self.erase, self.paste, self.polygon, self.coarse)
        area = cv2.countNonZero(mask)
        damaged = mask
        if area < 64 or not wanted.any():
            return mask
        if wanted[0]:
            damaged = erase_part(damaged, rng)
        if wanted[1]:
            damaged = paste_piece(damaged, masks[int(rng.integers(len(masks)))], rng)
        if wanted[2]:
            damaged = as_polygon(damaged, rng.uniform(0.01, 0.05) * math.sqrt(area))
        if wanted[3]:
            damaged = as_grid(damaged, min(float(np.exp(rng.uniform(math.log(8), math.log(32)))), math.sqrt(area) / 5))
        return damaged if KEPT * area <= cv2.countNonZero(damaged) <= area / KEPT else mask


def erase_part(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remove an ellipse round a point of the mask: a hole, or a bite out of the contour.

    Args:
        mask: (H, W) uint8, 0 or 1, not empty.
        rng: source of place, size and direction; the radii are 5 to 25 % of the root of the mask's area.
    """
    rows, columns = np.nonzero(mask)
    at = int(rng.integers(len(rows)))
    radii = rng.uniform(0.05, 0.25, 2) * math.sqrt(len(rows))
    axes = (max(1, round(radii[0])), max(1, round(radii[1])))
    damaged = mask.copy()
    return cv2.ellipse(damaged, (int(columns[at]), int(rows[at])), axes, rng.uniform(0, 180), 0, 360, 0, -1)


def paste_piece(mask: np.ndarray, source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what a window of some mask shows, moved to a point of this mask's contour.

    Args:
        mask: (H, W) uint8, 0 or 1, not empty.
        source: (H, W) uint8, 0 or 1, where the piece comes from.
        rng: source of window and place; its sides are 10 to 40 % of the root of the mask's area.
    """
    rows, columns = np.nonzero(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)))
    there = np.flatnonzero(source)
    if not len(rows) or not len(there):
        return mask
    height, width = (
        min(max(1, round(side)), limit)
        for side, limit in zip(rng.uniform(0.1, 0.4, 2) * math.sqrt(cv2.countNonZero(mask)), mask.shape)
    )
    at = int(rng.integers(len(rows)))
    from_y, from_x = divmod(int(there[int(rng.integers(len(there)))]), mask.shape[1])
    damaged = mask.copy()
    y, x = _corner(int(rows[at]), int(columns[at]), (height, width), mask.shape)
    sy, sx = _corner(from_y, from_x, (height, width), mask.shape)
    damaged[y : y + height, x : x + width] |= source[sy : sy + height, sx : sx + width]
    return damaged


def _corner(y: int, x: int, size: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    """Upper left corner of a window of a size round a point, within the picture."""
    return min(max(y - size[0] // 2, 0), shape[0] - size[0]), min(max(x - size[1] // 2, 0), shape[1] - size[1])


def as_polygon(mask: np.ndarray, tolerance: float) -> np.ndarray:
    """The mask with its contours, those of holes too, replaced by polygons (Douglas and Peucker 1973).

    Args:
        mask: (H, W) uint8, 0 or 1.
        tolerance: greatest distance between contour and polygon, pixels.
    """
    contours = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
    polygons = [cv2.approxPolyDP(contour, tolerance, True) for contour in contours]
    return cv2.fillPoly(np.zeros_like(mask), [p for p in polygons if len(p) > 2], 1)  # even-odd: holes stay holes


def as_grid(mask: np.ndarray, factor: float) -> np.ndarray:
    """The mask reduced so many times, by mean coverage, and enlarged again.

    Args:
        mask: (H, W) uint8, 0 or 1.
        factor: 1 or more.
    """
    height, width = mask.shape
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    coverage = cv2.resize(mask.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    return (cv2.resize(coverage, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5).astype(np.uint8)
