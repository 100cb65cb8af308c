"""What an alpha tells about its person: where it is, how large the head, which borders of the source cut it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

BODY_IN_HEADS = 7.2  # height of a standing adult, in heads
SOLID = 0.5  # alpha from which a pixel belongs to the person's outline


@dataclass(frozen=True)
class Outline:
    """What placing a cut-out needs to know, in source pixels.

    Attributes:
        top, bottom, left, right: box of the person, half-open.
        head: estimated size of the head.
        cut_top: the head runs into the upper border.
        limit: rows from here on show a cut edge and must lie below the canvas; ``None`` for a person seen whole.
        pin: which side border must leave the canvas: -1 left, 0 neither, 1 right.
    """

    top: int
    bottom: int
    left: int
    right: int
    head: float
    cut_top: bool
    limit: int | None
    pin: int

    @property
    def height(self) -> int:
        """Height of the person above the limit, source pixels."""
        return (self.bottom if self.limit is None else self.limit) - self.top

    def mirrored(self, width: int) -> Outline:
        """The outline of the cut-out flipped left to right; ``width`` is its width."""
        return replace(self, left=width - self.right, right=width - self.left, pin=-self.pin)


def outlines(alpha: np.ndarray) -> list[Outline]:
    """The ways in which a cut-out can be placed without a visible cut edge, the least demanding first.

    Args:
        alpha: (h, w) float32 in [0, 1].

    Returns:
        One outline per way: pinned to no side, the left one, the right one. Empty if there is none (a person cut
        at both sides from the head down).
    """
    solid = alpha > SOLID
    if not solid.any():
        return []
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    head = _head_size(solid[top:bottom, left:right])
    cut_top = bool(solid[:2].any(axis=0).sum() > 0.35 * head)
    floor = alpha.shape[0] if solid[-2:].any(axis=0).sum() > 0.03 * (right - left) else None
    first_cut = {-1: _first_cut_row(solid[:, :2]), 1: _first_cut_row(solid[:, -2:])}
    mass = solid.sum()
    found = []
    for pin in (0, -1, 1):
        if pin and first_cut[pin] is None:
            continue
        limits = [floor, *(row for side, row in first_cut.items() if side != pin)]
        limit = min((row for row in limits if row is not None), default=None)
        if limit is None or (limit - top >= 1.3 * head and solid[:limit].sum() >= 0.4 * mass):
            found.append(Outline(top, bottom, left, right, head, cut_top, limit, pin))
    return found


def _first_cut_row(border: np.ndarray) -> int | None:
    """First row at which the person runs into a side border, ``None`` if (almost) nowhere."""
    rows = np.flatnonzero(border.any(axis=1))
    return int(rows[0]) if len(rows) > 0.02 * len(border) else None


def _head_size(solid: np.ndarray) -> float:
    """Size of the head: the depth below the crown at which the outline has become no deeper than wide.

    A head is about as wide as deep, shoulders are wider: the widths just below the crown give the head. Raised arms
    make the estimate too large; the bounds keep it between that of a standing body and that of a close-up.
    """
    height = len(solid)
    widths = solid.sum(axis=1).astype(np.float64)
    low, high = max(1, int(height / (BODY_IN_HEADS + 1))), max(2, int(height * 0.6))
    if solid.shape[1] < height / 1.8 and widths[-max(1, height // 20) :].mean() < 0.8 * widths.max():
        return height / BODY_IN_HEADS  # a standing body: its height says more than its hair
    for depth in range(low, high):
        if np.median(widths[depth // 5 : max(depth * 9 // 10, 1)]) < depth:
            return float(depth)
    return float(high)
