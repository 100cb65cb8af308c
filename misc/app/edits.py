"""Repairing masks: a brush, two masks in one, the people of one mask, a person in a box. Pure functions of arrays.

Masks are (H, W) uint8, 0 or 255. Points are (x, y) in pixels of the photograph; they may lie outside of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from skimage.graph import MCP_Geometric

from misc.box import Box
from misc.errors import InputError

Point = tuple[float, float]

SIDE = 320  # longer side of what GrabCut sees, pixels: a rough mask needs no more, and time grows with the area
MOST_POINTS = 4096  # of a stroke
LEAST_BOX = 8  # shorter side of a box, pixels
CONTEXT = 0.25  # of a box's longer side: seen round it, and background for certain
CORE = (0.4, 0.7)  # width and height of the ellipse in the middle of a box that is the person for certain, of the box
GRADIENT = 0.3  # what a step of colour costs on a way, against a pixel
CERTAIN = 0.6  # nearer than this share of the way to anybody else: certainly this person


def paint(mask: np.ndarray, points: Sequence[Point], *, radius: float, value: int) -> np.ndarray:
    """A round brush along a line.

    Args:
        mask: (H, W) uint8.
        points: of the line, at least one.
        radius: of the brush, pixels.
        value: 255 to add, 0 to erase.

    Returns:
        A new mask.

    Raises:
        InputError: no point, or too many.
    """
    if not 1 <= len(points) <= MOST_POINTS:
        raise InputError(f"brush: found {len(points)} points, expected 1 to {MOST_POINTS}")
    reach = 2 * max(mask.shape)
    size = round(min(max(radius, 1), reach))
    line = np.rint(np.clip(np.asarray(points, np.float64), -reach, reach)).astype(np.int32).reshape(-1, 1, 2)
    result = mask.copy()
    cv2.polylines(result, [line], isClosed=False, color=value, thickness=2 * size)
    for end in (line[0, 0], line[-1, 0]):
        cv2.circle(result, end.tolist(), size, value, -1)
    return result


def merge(masks: Sequence[np.ndarray]) -> np.ndarray:
    """All pixels of several masks, (H, W) uint8."""
    return np.maximum.reduce(list(masks))


def split(image: np.ndarray, mask: np.ndarray, points: Sequence[Point]) -> list[np.ndarray]:
    """A mask for each person of a mask that covers several.

    First each pixel goes to the point with the shortest way to it inside the mask, where crossing an edge of the
    photograph costs (Bai and Sapiro 2007, Geodesic matting). Then GrabCut (Rother et al. 2004), once for each person,
    moves the border between those that are certain.

    Args:
        image: (H, W, 3) uint8, RGB.
        mask: (H, W) uint8.
        points: one on each person.

    Returns:
        A mask for each point; together they are ``mask``, and no two share a pixel.

    Raises:
        InputError: fewer than two points, one off the mask, or two so close that one of them gets nothing.
    """
    if len(points) < 2:
        raise InputError("split: click each of the people that this mask covers, two at least")
    height, width = mask.shape
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height and mask[int(y), int(x)]):
            raise InputError("split: a click lies beside this person's mask; click on people that it covers")
    box = Box.of(mask)
    colors, scale = _small(image, box)
    inside = cv2.resize(mask[box.rows_and_columns], colors.shape[1::-1], interpolation=cv2.INTER_AREA) > 0
    ways = _ways(colors, inside, [((x - box.left) * scale, (y - box.top) * scale) for x, y in points])
    nearest = ways.argmin(axis=0)
    found = np.zeros(ways.shape, np.bool_)
    for number, way in enumerate(ways):
        others = np.delete(ways, number, axis=0).min(axis=0)
        guess = np.where(way < others, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        guess[way < CERTAIN * others] = cv2.GC_FGD
        guess[(others < CERTAIN * way) | ~inside] = cv2.GC_BGD
        found[number] = _grab_cut(colors, guess, rounds=2)
    label = np.where(found.sum(axis=0) == 1, found.argmax(axis=0), nearest).astype(np.uint8)
    label = cv2.resize(label, (box.width, box.height), interpolation=cv2.INTER_NEAREST)
    parts = []
    for number in range(len(points)):
        part = np.zeros_like(mask)
        part[box.rows_and_columns] = np.where(label == number, mask[box.rows_and_columns], 0)
        parts.append(part)
    if not all(part.any() for part in parts):
        raise InputError("split: two clicks are at one place; click each of the people once")
    return parts


def person_in_box(image: np.ndarray, corners: Sequence[Point], *, others: Sequence[np.ndarray] = ()) -> np.ndarray:
    """The mask of a person that nobody has found: GrabCut (Rother et al. 2004) in a box drawn round them.

    Round the box is background for certain, an ellipse in its middle is the person.

    Args:
        image: (H, W, 3) uint8, RGB.
        corners: two opposite ones.
        others: masks of people whose pixels stay theirs.

    Returns:
        (H, W) uint8.

    Raises:
        InputError: not two corners, a box too small or off the photograph, or all of it is another person's.
    """
    if len(corners) != 2:
        raise InputError(f"box: found {len(corners)} corners, expected two opposite ones")
    height, width = image.shape[:2]
    (x0, x1), (y0, y1) = (sorted(np.clip(side, -1, 2**20)) for side in zip(*corners))
    box = Box(round(y0), round(x0), round(y1), round(x1)).intersection(Box(0, 0, height, width))
    if min(box.height, box.width) < LEAST_BOX:
        raise InputError(f"box: smaller than {LEAST_BOX} pixels of the photograph; draw it round a whole person")
    seen = box.grown(round(CONTEXT * max(box.height, box.width)), shape=(height, width))
    colors, scale = _small(image, seen)
    top, left, bottom, right = (round(edge * scale) for edge in box.within(seen))
    size = colors.shape[:2]
    guess = np.full(size, cv2.GC_BGD, np.uint8)
    guess[top:bottom, left:right] = cv2.GC_PR_FGD
    middle, axes = ((left + right) // 2, (top + bottom) // 2), ((right - left) / 2, (bottom - top) / 2)
    if box == seen:  # the whole photograph: nothing is background for certain, the corners may be
        guess[~_ellipse(size, middle, axes, share=(1, 1))] = cv2.GC_PR_BGD
    guess[_ellipse(size, middle, axes, share=CORE)] = cv2.GC_FGD
    found = _largest(_grab_cut(colors, guess, rounds=4))
    mask = np.zeros((height, width), np.uint8)
    grown = cv2.resize(found, (seen.width, seen.height), interpolation=cv2.INTER_LINEAR)
    mask[seen.rows_and_columns] = np.where(grown > 127, np.uint8(255), np.uint8(0))
    for other in others:
        mask[other > 0] = 0
    if not mask.any():
        raise InputError("box: all of it belongs to somebody else; split that mask, or erase it there first")
    return mask


def _small(image: np.ndarray, box: Box) -> tuple[np.ndarray, float]:
    """A part of a photograph, its longer side at most SIDE pixels, and the scale."""
    scale = min(1.0, SIDE / max(box.height, box.width))
    size = (max(1, round(box.width * scale)), max(1, round(box.height * scale)))
    return cv2.resize(image[box.rows_and_columns], size, interpolation=cv2.INTER_AREA), scale


def _ways(colors: np.ndarray, inside: np.ndarray, points: Sequence[Point]) -> np.ndarray:
    """(N, h, w): length of the shortest way from each point to each pixel; ways outside of the mask are very long."""
    smooth = cv2.GaussianBlur(cv2.cvtColor(colors, cv2.COLOR_RGB2LAB).astype(np.float32), (0, 0), 1)
    steps = [cv2.Sobel(smooth, cv2.CV_32F, *order, scale=0.25) for order in ((1, 0), (0, 1))]
    cost = np.where(inside, 1 + GRADIENT * np.sqrt(sum((step**2).sum(axis=2) for step in steps)), 1e4)
    height, width = inside.shape
    starts = [(min(int(y), height - 1), min(int(x), width - 1)) for x, y in points]
    return np.stack([MCP_Geometric(cost).find_costs([start])[0] for start in starts])


def _ellipse(
    size: tuple[int, ...], middle: tuple[int, int], axes: tuple[float, float], *, share: tuple[float, float]
) -> np.ndarray:
    """(h, w) bool: an ellipse whose half axes, across and down, are a share of ``axes``."""
    drawn = np.zeros(size, np.uint8)
    across, down = (max(1, round(axis * part)) for axis, part in zip(axes, share))
    cv2.ellipse(drawn, middle, (across, down), 0, 0, 360, 1, -1)
    return drawn > 0


def _grab_cut(colors: np.ndarray, guess: np.ndarray, *, rounds: int) -> np.ndarray:
    """(h, w) bool: what GrabCut takes for foreground; the guess where that has only one of the two."""
    sides = [np.isin(guess, side).any() for side in ((cv2.GC_FGD, cv2.GC_PR_FGD), (cv2.GC_BGD, cv2.GC_PR_BGD))]
    if all(sides):
        models = np.zeros((2, 1, 65))
        cv2.setRNGSeed(0)  # its clusters begin at random: the same clicks, the same mask
        cv2.grabCut(colors, guess, (0, 0, 1, 1), models[0], models[1], rounds, cv2.GC_INIT_WITH_MASK)
    return np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _largest(found: np.ndarray) -> np.ndarray:
    """The largest connected piece, (h, w) uint8, 0 or 255."""
    count, label, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8))
    if count < 2:
        return np.zeros(found.shape, np.uint8)
    return np.where(label == 1 + stats[1:, cv2.CC_STAT_AREA].argmax(), np.uint8(255), np.uint8(0))
