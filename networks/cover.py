"""Parts of an image: which rectangles cover a region, with what rim, and features computed only where they are read.

The fused matte takes the full-resolution prediction only inside ``region_os1``, and the refiner reads features only in
its windows. Rectangles are unions of square cells; each is computed with a rim as wide as the receptive field of the
full-resolution end, so that its values are those of a computation on the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from misc.box import Box

CELL = 32  # side of a cell, pixels; a multiple of 4
HALO = 12  # rim, pixels: 2 of the head, then 1 + 3 at half and 1 at quarter size; a multiple of 4
LARGEST = 256  # longest side of a rectangle, pixels: bounds the memory of one step and stays in the processor's cache
STEP = 7 * CELL**2  # what starting one more rectangle costs, in pixels of it
# The same for parts of a refiner's window, which cost less.
PART_CELL, PART_STEP, PART_LARGEST = 16, 1300, 192


def touched_cells(region: Tensor, cell: int = CELL) -> np.ndarray:
    """Cells that a region touches: (H, W), 0 or 1 → (ceil(H / 32), ceil(W / 32)) bool, or of another size."""
    pooled = F.max_pool2d(region[None, None].float(), cell, ceil_mode=True)
    return pooled[0, 0].cpu().numpy() > 0


def cells_of(rect: Box) -> tuple[slice, slice]:
    """The cells that a rectangle of pixels touches."""
    return (
        slice(rect.top // CELL, -(-rect.bottom // CELL)),
        slice(rect.left // CELL, -(-rect.right // CELL)),
    )


def _runs(cells: np.ndarray, longest: int) -> list[list[int]]:
    """Runs of cells along the rows, equal runs of neighbouring rows joined: [top, left, bottom, right]."""
    done: list[list[int]] = []
    growing: dict[tuple[int, int], list[int]] = {}
    for row, line in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        pieces = [
            (left, min(left + longest, stop))
            for start, stop in zip(edges[::2], edges[1::2])
            for left in range(start, stop, longest)
        ]
        alive = {}
        for left, right in pieces:
            rect = growing.pop((left, right), None)
            if rect is None or rect[2] - rect[0] >= longest:
                rect = [row, left, row + 1, right]
                done.append(rect)
            rect[2] = row + 1
            alive[left, right] = rect
        growing = alive
    return done


def cover(
    cells: np.ndarray,
    *,
    height: int,
    width: int,
    cell: int = CELL,
    rim: int = HALO,
    step: int = STEP,
    largest: int = LARGEST,
) -> list[Box]:
    """Rectangles that cover all chosen cells at little cost.

    Starts from runs of cells and joins, while that saves, the pair that saves most. Rectangles may overlap and may
    cover cells that were not chosen.

    Args:
        cells: (h, w) bool.
        height: of the image, pixels; rectangles end there.
        width: of the image.
        cell: side of a cell, pixels.
        rim: computed round each rectangle, pixels.
        step: what a rectangle costs beside its pixels and those of its rim, in pixels.
        largest: longest side of a rectangle, pixels.
    """
    longest = largest // cell
    rects = np.array(_runs(cells, longest), dtype=np.int64).reshape(-1, 4)

    def cost(r: np.ndarray) -> np.ndarray:
        return (r[..., 2] - r[..., 0] + 2 * rim / cell) * (r[..., 3] - r[..., 1] + 2 * rim / cell) + step / cell**2

    while len(rects) > 1:
        a, b = rects[:, None], rects[None]
        joined = np.concatenate([np.minimum(a[..., :2], b[..., :2]), np.maximum(a[..., 2:], b[..., 2:])], axis=-1)
        saved = cost(rects)[:, None] + cost(rects)[None] - cost(joined)
        saved[(joined[..., 2:] - joined[..., :2]).max(axis=-1) > longest] = -1
        np.fill_diagonal(saved, -1)
        i, j = np.unravel_index(np.argmax(saved), saved.shape)
        if saved[i, j] <= 0:
            break
        rects[i] = joined[i, j]
        rects = np.delete(rects, j, axis=0)
    return [
        Box(int(t) * cell, int(lf) * cell, min(int(b) * cell, height), min(int(r) * cell, width))
        for t, lf, b, r in rects
    ]


def parts_to_compute(
    written: Sequence[Box], regions: Tensor | None, *, reach: int, iterations: int
) -> list[list[list[Box]]]:
    """For a loop over windows, what to compute in each iteration and window: all, or what the result in a region needs.

    What is needed is followed from the last window of the last iteration back to the first of the first: a value that
    is read there comes from values within the receptive field, whoever wrote them.

    Args:
        written: what each window writes, in their order.
        regions: (K, H, W) bool, where the result will be read; ``None`` for everywhere.
        reach: receptive field to each side, pixels.
        iterations: of the loop.
    """
    if regions is None:
        return [[[rect] for rect in written]] * iterations
    field = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    needed: np.ndarray = regions.any(dim=0).cpu().numpy().astype(np.uint8)
    height, width = needed.shape
    plan: list[list[list[Box]]] = []
    for _ in range(iterations):
        # An instance that no longer moves keeps what it had before this iteration, so what is needed stays needed for
        # the iteration before; within one, the last window to write a pixel decides.
        current = needed.copy()
        parts = []
        for rect in reversed(written):
            asked = current[rect.here].copy()
            parts.append([part.moved(rect.top, rect.left) for part in _tight_cover(asked, rim=reach)])
            current[rect.here] = 0
            around = rect.grown(reach, shape=(height, width))
            read = np.zeros((around.height, around.width), np.uint8)
            read[rect.within(around).here] = asked
            reached = cv2.dilate(read, field)
            current[around.here] |= reached
            needed[around.here] |= reached
        plan.append(parts[::-1])
    return plan[::-1]


def _tight_cover(mask: np.ndarray, *, rim: int) -> list[Box]:
    """Rectangles round all that is set in a mask, (h, w) uint8."""
    cells = touched_cells(torch.from_numpy(mask), PART_CELL)
    height, width = mask.shape
    rough = cover(cells, height=height, width=width, cell=PART_CELL, rim=rim, step=PART_STEP, largest=PART_LARGEST)
    return [Box.of(mask[rect.here]).moved(rect.top, rect.left) for rect in rough]


class FeatureStore:
    """The full-resolution feature of one instance, computed where it is asked for and kept within a budget.

    Args:
        compute: from a rectangle to the feature there and on its rim, (1, C, h, w), and the rectangle counted in it.
        height: of the image, pixels.
        width: of the image.
        budget: ``[bytes left]``, shared between stores: what does not fit is computed anew each time it is read.
    """

    def __init__(
        self, compute: Callable[[Box], tuple[Tensor, Box]], *, height: int, width: int, budget: list[int]
    ) -> None:
        self._compute, self._budget = compute, budget
        self._height, self._width = height, width
        self._kept: list[tuple[Box, Tensor]] = []
        self._known = np.zeros((-(-height // CELL), -(-width // CELL)), dtype=bool)

    def add(self, rect: Box) -> tuple[Tensor, Box]:
        """Compute a rectangle of whole cells, and keep it if the budget allows; see ``compute``."""
        feature, inner = self._compute(rect)
        size = feature.untyped_storage().nbytes()
        if size <= self._budget[0]:
            self._budget[0] -= size
            self._kept.append((rect, feature[0][inner.here]))
            self._known[cells_of(rect)] = True
        return feature, inner

    def prepare(self, rects: Sequence[Box]) -> None:
        """Compute what these rectangles need and is not there, in fewer and larger pieces than one after the other."""
        for part in self._missing(rects):
            before = len(self._kept)
            self.add(part)
            if len(self._kept) == before:  # no room: the others would be computed for nothing
                return

    def _missing(self, rects: Sequence[Box]) -> list[Box]:
        missing = np.zeros_like(self._known)
        for rect in rects:
            missing[cells_of(rect)] = True
        missing &= ~self._known
        return cover(missing, height=self._height, width=self._width) if missing.any() else []

    def read(self, rect: Box) -> Tensor:
        """The feature in any rectangle of the image, (C, h, w)."""
        pieces = list(self._kept)
        for part in self._missing([rect]):
            feature, inner = self.add(part)
            pieces.append((part, feature[0][inner.here]))
        for part, feature in pieces:
            if part.intersection(rect) == rect:  # nothing to put together
                return feature[rect.within(part).here]
        size = (1, pieces[0][1].shape[0], rect.height, rect.width)
        out = torch.empty(
            size, dtype=pieces[0][1].dtype, device=pieces[0][1].device, memory_format=torch.channels_last
        )[0]
        for part, feature in pieces:
            shared = part.intersection(rect)
            if not shared.is_empty:
                out[shared.within(rect).here] = feature[shared.within(part).here]
        return out
