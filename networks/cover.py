"""Parts of an image: which rectangles cover a region, with what rim, and features computed only where they are read.

The fused matte takes the full-resolution prediction only inside ``region_os1``, and the refiner reads features only in
its windows. Each rectangle is computed with a rim as wide as the receptive field of what computes it, so that its
values are those of a computation on the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from misc.box import Box

UNIT = 4  # side of the squares that are told apart where features are kept: the full-resolution end starts at 1/4
HALO = 12  # rim, pixels: 2 of the head, then 1 + 3 at half and 1 at quarter size; a multiple of 4
FINE_RIM = 4  # the same from half of the size on: 2 of the head, 2 of what comes before it; even
MANY = 256  # rectangles among which every pair is looked at


class Cost(NamedTuple):
    """What it costs to compute a rectangle, in pixels of work.

    A few sizes only: a library of convolutions prepares code for each size that it meets, which takes as long as a
    small rectangle, and keeps what it prepared.

    Attributes:
        sizes: sides that are computed, pixels, rim included, rising: the largest bounds the memory of one step and
            stays in the processor's cache.
        rim: what is computed to each side and of no use, pixels.
        work: shares of the work, and how much narrower than all that is computed their part is on each side, pixels.
        step: what starting one more rectangle costs.
        piece: side of the squares from which covering starts, pixels.
    """

    sizes: tuple[int, ...]
    rim: int
    work: tuple[tuple[float, int], ...]
    step: int
    piece: int

    @property
    def longest(self) -> int:
        """Longest side of a rectangle without its rim."""
        return self.sizes[-1] - 2 * self.rim

    def of(self, sizes: np.ndarray) -> np.ndarray:
        """The cost of rectangles, infinite where a side is longer than the longest.

        Args:
            sizes: (2, …) int, heights and widths without the rim, pixels.

        Returns:
            (…) float32, pixels: the parts of the work, each share · (H - 2 less) · (W - 2 less) of the sides H and W
            that are computed, and the step.
        """
        sides, least = _sides_of(self)
        height, width = sides.take(sizes, mode="clip")
        return height * width + least

    def fit(self, rect: Box, *, shape: tuple[int, int], unit: int) -> Box:
        """What is computed for a rectangle: it and its rim, enlarged to one of the sizes, in an image of ``shape``.

        Args:
            rect: of the image, pixels.
            shape: (H, W) of the image.
            unit: edges are multiples of it, as those of ``rect`` and of the image are.
        """
        grown = rect.grown(self.rim, shape=shape)
        top, bottom = self._fit(grown.top, grown.bottom, shape[0], unit)
        left, right = self._fit(grown.left, grown.right, shape[1], unit)
        return Box(top, left, bottom, right)

    def _fit(self, start: int, stop: int, length: int, unit: int) -> tuple[int, int]:
        side = min(next((size for size in self.sizes if size >= stop - start), stop - start), length)
        before = (side - (stop - start)) // 2 // unit * unit
        start = min(max(start - before, 0), length - side)
        return start, start + side


@lru_cache
def _sides_of(cost: Cost) -> tuple[np.ndarray, np.float32]:
    """By the length of a side without its rim, the side whose products are costs, the last one infinite; what is added.

    With a = Σ 2 · share · less the sum of share · (H - 2 less) · (W - 2 less) is (H - a) · (W - a) and a constant.
    """
    computed = np.take(cost.sizes, np.searchsorted(cost.sizes, np.arange(cost.longest + 1) + 2 * cost.rim))
    less = sum(2 * share * narrower for share, narrower in cost.work)
    least = sum(4 * share * narrower**2 for share, narrower in cost.work) - less**2 + cost.step
    return np.array([*(computed - less), np.inf], np.float32), np.float32(least)


END = Cost((64, 96, 128, 192, 256, 288), rim=HALO, work=((0.4, 0), (0.6, HALO - FINE_RIM)), step=4000, piece=32)


def touched_cells(region: Tensor, cell: int) -> np.ndarray:
    """Cells that a region touches: (H, W), 0 or 1 → (ceil(H / cell), ceil(W / cell)) bool."""
    pooled = F.max_pool2d(region[None, None].float(), cell, ceil_mode=True)
    return pooled[0, 0].cpu().numpy() > 0


def cells_of(rect: Box) -> tuple[slice, slice]:
    """The squares of ``UNIT`` pixels that a rectangle of pixels touches."""
    return (
        slice(rect.top // UNIT, -(-rect.bottom // UNIT)),
        slice(rect.left // UNIT, -(-rect.right // UNIT)),
    )


def cover(cells: np.ndarray, cost: Cost, *, unit: int = 1, shape: tuple[int, int] | None = None) -> list[Box]:
    """Rectangles that cover all chosen cells at little cost.

    Starts from what is chosen in each square of a grid and joins, while that saves, the pairs that save most.
    Rectangles may overlap and may cover cells that were not chosen.

    Args:
        cells: (h, w) bool or uint8.
        cost: of a rectangle.
        unit: side of a cell, pixels.
        shape: (H, W) of the image, pixels; rectangles end there. ``None`` for that of all cells.
    """
    height, width = shape or (cells.shape[0] * unit, cells.shape[1] * unit)
    rects = _joined(_pieces(cells.astype(bool), cost.piece // unit).astype(np.int32) * unit, cost)
    return [
        Box(int(top), int(left), min(int(bottom), height), min(int(right), width)) for top, left, bottom, right in rects
    ]


def _pieces(cells: np.ndarray, side: int) -> np.ndarray:
    """The smallest rectangle round what is set in each square of the grid: (n, 4), top, left, bottom, right."""
    rows, columns = (-(-length // side) for length in cells.shape)
    padded = np.zeros((rows * side, columns * side), bool)
    padded[: cells.shape[0], : cells.shape[1]] = cells
    squares = padded.reshape(rows, side, columns, side)
    in_rows = np.any(squares, axis=3).transpose(0, 2, 1)  # (rows, columns, side), as the next
    in_columns = np.any(squares, axis=1)
    row, column = np.nonzero(np.any(in_rows, axis=2))
    edges = []
    for corner, lines in ((row * side, in_rows[row, column]), (column * side, in_columns[row, column])):
        edges.append((corner + lines.argmax(axis=1), corner + side - lines[:, ::-1].argmax(axis=1)))
    (top, bottom), (left, right) = edges
    return np.stack([top, left, bottom, right], axis=1)


def _joined(rects: np.ndarray, cost: Cost) -> np.ndarray:
    """Rectangles, (n, 4), some of them joined: in each round all pairs whose partners are each other's best."""
    if len(rects) > MANY:
        middle = rects[:, :2] + rects[:, 2:]
        order = np.argsort(middle[:, np.ptp(middle, axis=0).argmax()], kind="stable")
        halves = np.array_split(rects[order], 2)
        return np.concatenate([_joined(half, cost) for half in halves])
    number = changed = np.arange(len(rects))
    alive = np.ones(len(rects), bool)
    own = np.zeros(len(rects), np.float32)
    saved = np.full((len(rects), len(rects)), -1, np.float32)
    while len(changed):
        some = rects[changed].T[..., None]
        first, last = np.minimum(some[:2], rects.T[:2, None]), np.maximum(some[2:], rects.T[2:, None])
        costs = cost.of(last - first)
        own[changed] = costs[np.arange(len(changed)), changed]
        anew = np.where(alive, own[changed, None] + own - costs, -1)
        saved[changed], saved[:, changed] = anew, anew.T
        saved[changed, changed] = -1  # nobody joins itself
        best = saved.argmax(axis=1)
        chosen = (best[best] == number) & (number < best) & (saved[number, best] > 0)
        changed, gone = number[chosen], best[chosen]
        rects[changed, :2] = np.minimum(rects[changed, :2], rects[gone, :2])
        rects[changed, 2:] = np.maximum(rects[changed, 2:], rects[gone, 2:])
        alive[gone] = False
        saved[gone] = saved[:, gone] = -1
    return rects[alive]


class Work(NamedTuple):
    """What to compute in a window of the refiner.

    Attributes:
        parts: rectangles of the image that hold all that is asked for.
        around: the rectangle of the image that the two masks cover.
        asked: (h, w) uint8, which pixels the window has to write.
        read: (h, w) uint8, which pixels it reads for that.
    """

    parts: list[Box]
    around: Box
    asked: np.ndarray
    read: np.ndarray


def plan_work(written: Sequence[Box], regions: Tensor, *, cost: Cost, iterations: int) -> list[list[Work]]:
    """For a loop over windows, what to compute in each iteration and window: what the result in a region needs.

    What is needed is followed from the last window of the last iteration back to the first of the first: a value that
    is read there comes from values within the receptive field, whoever wrote them.

    Args:
        written: what each window writes, in their order.
        regions: (K, H, W) bool, where the result will be read.
        cost: of a part; its rim is the receptive field to each side.
        iterations: of the loop.
    """
    field = np.ones((2 * cost.rim + 1, 2 * cost.rim + 1), np.uint8)
    needed: np.ndarray = regions.any(dim=0).cpu().numpy().astype(np.uint8)
    plan: list[list[Work]] = []
    for _ in range(iterations):
        # An instance that no longer moves keeps what it had before this iteration, so what is needed stays needed for
        # the iteration before; within one, the last window to write a pixel decides.
        current = needed.copy()
        works = []
        for rect in reversed(written):
            around = rect.grown(cost.rim, shape=(needed.shape[0], needed.shape[1]))
            asked = np.zeros((around.height, around.width), np.uint8)
            asked[rect.within(around).here] = current[rect.here]
            current[rect.here] = 0
            read = cv2.dilate(asked, field)
            current[around.here] |= read
            needed[around.here] |= read
            parts = [part.moved(around.top, around.left) for part in cover(asked, cost)]
            works.append(Work(parts, around, asked, read))
        plan.append(works[::-1])
    return plan[::-1]


def whole_work(written: Sequence[Box], *, shape: tuple[int, int], rim: int, iterations: int) -> list[list[Work]]:
    """As ``plan_work``, for a result that is wanted everywhere in an image of ``shape``."""
    works = []
    for rect in written:
        around = rect.grown(rim, shape=shape)
        read = np.ones((around.height, around.width), np.uint8)
        works.append(Work([rect], around, read, read))
    return [works] * iterations


class Computed(NamedTuple):
    """The full-resolution feature of one instance in a part of the image.

    Attributes:
        feature: (1, C, h, w).
        around: where that is, rim included.
        there: where it is right; edges are multiples of ``UNIT``.
    """

    feature: Tensor
    around: Box
    there: Box

    @property
    def inside(self) -> Tensor:
        """The feature without the rim, (C, h, w)."""
        return self.feature[0][self.there.within(self.around).here]


class FeatureStore:
    """The full-resolution feature of one instance, computed where it is asked for and kept within a budget.

    Args:
        compute: what holds a rectangle, whose edges are multiples of ``UNIT``.
        height: of the image, pixels.
        width: of the image.
        budget: ``[bytes left]``, shared between stores: what does not fit is computed anew each time it is read.
    """

    def __init__(self, compute: Callable[[Box], Computed], *, height: int, width: int, budget: list[int]) -> None:
        self._compute, self._budget = compute, budget
        self._height, self._width = height, width
        self._kept: list[tuple[Box, Tensor]] = []
        self._known = np.zeros((-(-height // UNIT), -(-width // UNIT)), dtype=bool)
        self._wanted = np.ones_like(self._known)

    def add(self, rect: Box) -> Computed:
        """Compute what holds a rectangle, and keep it if the budget allows; see ``compute``."""
        computed = self._compute(rect)
        size = computed.feature.untyped_storage().nbytes()
        if size <= self._budget[0]:
            self._budget[0] -= size
            self._kept.append((computed.there, computed.inside))
            self._known[cells_of(computed.there)] = True
        return computed

    def prepare(self, wanted: np.ndarray) -> None:
        """Compute what is not there of what will be read, in fewer and larger pieces than one reading after the other.

        Args:
            wanted: (H, W) bool or uint8: elsewhere, what ``read`` returns is of no use, and 0 where it is not there.
        """
        self._wanted = touched_cells(torch.from_numpy(wanted), UNIT)
        for part in self._missing(Box(0, 0, self._height, self._width)):
            before = len(self._kept)
            self.add(part)
            if len(self._kept) == before:  # no room: the others would be computed for nothing
                return

    def _missing(self, rect: Box) -> list[Box]:
        missing = np.zeros_like(self._known)
        here = cells_of(rect)
        missing[here] = self._wanted[here] & ~self._known[here]
        return cover(missing, END, unit=UNIT, shape=(self._height, self._width)) if missing.any() else []

    def read(self, rect: Box) -> Tensor:
        """The feature in any rectangle of the image, (C, h, w)."""
        pieces = list(self._kept)
        for part in self._missing(rect):
            computed = self.add(part)
            pieces.append((computed.there, computed.inside))
        edges = np.array([place for place, _ in pieces]).reshape(-1, 4)
        covering = (edges[:, :2] <= rect[:2]).all(axis=1) & (edges[:, 2:] >= rect[2:]).all(axis=1)
        if covering.any():  # nothing to put together
            place, feature = pieces[int(covering.argmax())]
            return feature[rect.within(place).here]
        touching = (edges[:, :2] < rect[2:]).all(axis=1) & (edges[:, 2:] > rect[:2]).all(axis=1)
        first = pieces[0][1]
        size = (1, first.shape[0], rect.height, rect.width)
        out = torch.zeros(size, dtype=first.dtype, device=first.device).contiguous(memory_format=torch.channels_last)[0]
        for number in np.flatnonzero(touching):
            place, feature = pieces[number]
            shared = place.intersection(rect)
            out[shared.within(rect).here] = feature[shared.within(place).here]
        return out
