"""Imitation of an instance segmenter's masks, for training without running one.

A Mask R-CNN (He et al., ICCV 2017) predicts 28x28 scores inside a detected box and resizes them to it. What a matting
network has to cope with follows from that: rounded contours, hair and fingers gone, boxes a few pixels off, and now and
then a missed part or a piece of the neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from misc.morphology import ellipse

HEAD_SIDE = 28  # resolution of the mask head
NEAR = 15  # people whose masks are so near to each other may come under one mask, pixels


@dataclass(frozen=True)
class DetectorParams:
    """How good the imitated detector is.

    Attributes:
        box_jitter: standard deviation of each box side, share of the box.
        noise: standard deviation of the smooth noise on the logits.
        missing_part: probability that a piece at the contour is missed.
        neighbour_part: probability that a piece of a neighbour is included, where one is inside the box.
        missing: probability that a person is not detected at all.
        min_area: smaller masks are dropped, share of the image.
    """

    box_jitter: float = 0.015
    noise: float = 0.8
    missing_part: float = 0.15
    neighbour_part: float = 0.15
    missing: float = 0.02
    min_area: float = 0.005


def imitate_detector(
    alphas: np.ndarray, rng: np.random.Generator, params: DetectorParams | None = None
) -> list[np.ndarray | None]:
    """One mask per person, at least one per image where any person is large enough.

    Args:
        alphas: (K, H, W) float32 in [0, 1], visible alphas.
        rng: source of every draw.
        params: how good the detector is.

    Returns:
        K entries: (H, W) uint8, 0 or 255, or ``None`` for a person it does not find.
    """
    params = params or DetectorParams()
    solid = alphas > 0.5
    masks: list[np.ndarray | None] = []
    for index, person in enumerate(solid):
        others = solid[np.arange(len(solid)) != index].any(axis=0)
        masks.append(_one_mask(person, others, rng, params))
    missed = rng.random(len(masks)) < params.missing
    left = [None if gone else mask for mask, gone in zip(masks, missed, strict=True)]
    return left if any(mask is not None for mask in left) else masks


def merge_neighbour(masks: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One mask also covers a person beside it, as those of detectors do with couples.

    All of the neighbour's mask is added, or half the time what of it lies on one side of a line through its centre. The
    neighbour keeps its own mask: two masks then claim the same person.

    Args:
        masks: (H, W) uint8, 0 and any other value.
        rng: source of every draw.

    Returns:
        The masks, one of them larger where any two are within ``NEAR`` pixels of each other.
    """
    around = ellipse(2 * NEAR + 1)
    reached = [cv2.dilate(mask, around) for mask in masks]
    pairs = [
        (greedy, other)
        for greedy, reach in enumerate(reached)
        for other, mask in enumerate(masks)
        if other != greedy and cv2.countNonZero(reach & mask)
    ]
    merged = list(masks)
    if not pairs:
        return merged
    greedy, other = pairs[int(rng.integers(len(pairs)))]
    taken = masks[other]
    if rng.random() < 0.5:
        taken = taken * _one_side(taken, rng)
    merged[greedy] = masks[greedy] | taken
    return merged


def _one_side(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W) uint8, 1 on one side of a random line through the centre of a mask."""
    y, x = np.nonzero(mask)
    angle = rng.uniform(0, 2 * math.pi)
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    return ((columns - x.mean()) * math.cos(angle) + (rows - y.mean()) * math.sin(angle) > 0).astype(np.uint8)


def _one_mask(
    person: np.ndarray, others: np.ndarray, rng: np.random.Generator, params: DetectorParams
) -> np.ndarray | None:
    if not person.any():
        return None
    x0, y0, x1, y1 = _jittered_box(person, rng, params.box_jitter)
    score = _to_head(person, (x0, y0, x1, y1))
    if rng.random() < params.neighbour_part:
        score = np.maximum(score, _to_head(others, (x0, y0, x1, y1)) * _blob(rng, radius=(4, 10)))
    if rng.random() < params.missing_part:
        score = score * (1 - _at_contour(score, rng))
    probability = np.clip(score, 0.02, 0.98)
    noise = cv2.GaussianBlur(rng.normal(0, 1, score.shape).astype(np.float32), (0, 0), 1.0)
    logits = np.log(probability / (1 - probability)) + params.noise * noise / max(float(noise.std()), 1e-6)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    pasted = cv2.resize(scores, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR) > 0.5
    height, width = person.shape
    mask = np.zeros(person.shape, np.uint8)
    top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)
    mask[top:bottom, left:right] = pasted[top - y0 : bottom - y0, left - x0 : right - x0] * np.uint8(255)
    return mask if np.count_nonzero(mask) >= params.min_area * mask.size else None


def _jittered_box(person: np.ndarray, rng: np.random.Generator, jitter: float) -> tuple[int, int, int, int]:
    """Box (x0, y0, x1, y1) of a mask with every side moved at random, inside the image, half-open."""
    rows, columns = np.flatnonzero(person.any(axis=1)), np.flatnonzero(person.any(axis=0))
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    moves = np.clip(rng.normal(0, jitter, 4), -2 * jitter, 2 * jitter) * (width, height, width, height)
    x0, y0 = columns[0] + moves[0], rows[0] + moves[1]
    x1, y1 = columns[-1] + 1 + moves[2], rows[-1] + 1 + moves[3]
    x0, y0 = max(0, round(x0)), max(0, round(y0))
    return x0, y0, min(max(round(x1), x0 + 2), person.shape[1]), min(max(round(y1), y0 + 2), person.shape[0])


def _to_head(mask: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Mean coverage of each cell of the mask head's grid over the box, in [0, 1]."""
    x0, y0, x1, y1 = box
    piece = mask[y0:y1, x0:x1].astype(np.float32)
    return cv2.resize(piece, (HEAD_SIDE, HEAD_SIDE), interpolation=cv2.INTER_AREA)


def _blob(rng: np.random.Generator, *, radius: tuple[int, int], centre: tuple[int, int] | None = None) -> np.ndarray:
    """A soft ellipse on the mask head's grid, in [0, 1]."""
    cx, cy = centre or tuple(rng.integers(HEAD_SIDE, size=2))
    rx, ry = rng.uniform(*radius, size=2)
    y, x = np.mgrid[:HEAD_SIDE, :HEAD_SIDE]
    distance = np.hypot((x - cx) / rx, (y - cy) / ry)
    return np.clip(2 - 2 * distance, 0, 1).astype(np.float32)


def _at_contour(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A small blob centred where the mask ends."""
    inside = (score > 0.5).astype(np.uint8)
    rows, columns = np.nonzero(inside - cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=0))
    if not len(rows):
        return np.zeros_like(score)
    pick = int(rng.integers(len(rows)))
    return _blob(rng, radius=(2, 6), centre=(int(columns[pick]), int(rows[pick])))
