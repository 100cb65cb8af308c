"""Multi-instance refinement: where the mattes of several people disagree, let them exchange features.

Paper section 3.3. Training, validation and inference choose windows and refine one of them alike; :func:`refine` is the
loop of the latter two, training has one of its own that teaches each iteration (``trainer.tasks.RefinementTask``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from misc.errors import InputError
from networks.cover import Rect, cover, touched_cells
from networks.decoder import to_alpha
from networks.layers import leaky_relu, scaled

GRID = 10  # distance of candidate windows, pixels
MIN_DISAGREEMENT = 0.01  # weakest disagreement worth a window
MAX_IOU = 0.3  # windows that overlap more (and lie close) are suppressed
BORDER = 10  # rim of a window that is computed but not kept, pixels
SUPPORT = 0.01  # alpha above which a pixel belongs to an instance
CONVERGED = 0.01  # largest change of an instance that no longer needs iterations
MANY_INSTANCES = 8  # above this many, duplicates are looked for at half scale


class Window(NamedTuple):
    """A square part of the image: rows top..bottom − 1, columns left..right − 1; ``score`` is its disagreement."""

    top: int
    left: int
    bottom: int
    right: int
    score: float


def disagreement(tri_mattes: Tensor) -> Tensor:
    """How far the targets of all instances and the mean background are from adding up to 1.

    Args:
        tri_mattes: (K, 3, H, W).

    Returns:
        (H, W), |1 − Σ targets − mean background|.
    """
    return (1 - tri_mattes[:, 0].sum(dim=0) - tri_mattes[:, 2].mean(dim=0)).abs()


def window_size(instances: int, height: int, width: int) -> int:
    """Side of the inference windows for K instances, at most the shorter side of the image."""
    side = 320 if instances <= MANY_INSTANCES else 256 if instances <= 14 else 128
    return min(side, height, width)


def choose_windows(error: Tensor, side: int, *, limit: int | None = None) -> list[Window]:
    """Windows round the greatest disagreements, by greedy non-maximum suppression.

    Candidates are centred on a 10-pixel grid and shifted into the image; one goes if a stronger one overlaps it by more
    than 0.3 (IoU with the +1 pixel convention) and its centre is nearer than half a window on both axes.

    Args:
        error: (H, W), see ``disagreement``.
        side: of the square windows, at most min(H, W).
        limit: most windows to return.

    Returns:
        Windows by falling disagreement; at least one.
    """
    height, width = error.shape
    grid = error[: height // GRID * GRID : GRID, : width // GRID * GRID : GRID] if min(height, width) >= GRID else error
    scores = grid.reshape(-1)
    order = torch.argsort(scores, descending=True, stable=True)
    count = max(1, int((scores > MIN_DISAGREEMENT).sum()))
    order = order[:count]
    scores = scores[order].double().cpu()
    order = order.cpu()
    top = (order // grid.shape[1] * GRID - side // 2).clamp(0, height - side)
    left = (order % grid.shape[1] * GRID - side // 2).clamp(0, width - side)
    alive = torch.ones(len(order), dtype=torch.bool)
    kept: list[Window] = []
    for index in range(len(order)):
        if not alive[index]:
            continue
        y, x = int(top[index]), int(left[index])
        kept.append(Window(y, x, y + side, x + side, float(scores[index])))
        if limit is not None and len(kept) == limit:
            break
        dy, dx = (top - y).abs(), (left - x).abs()
        overlap = (side + 1 - dy).clamp(min=0) * (side + 1 - dx).clamp(min=0)
        iou = overlap / (2 * (side + 1) ** 2 - overlap)
        alive &= ~((iou > MAX_IOU) & (dy < side // 2) & (dx < side // 2))
    return kept


def find_duplicates(targets: Tensor) -> Tensor:
    """Detections that describe a person somebody else's mask already describes.

    overlap_ij = |S_i ∩ S_j| / (min(|S_i|, |S_j|) + 1) with S = alpha > 0.01 (at half scale above eight instances). An
    instance is a duplicate if it overlaps at least two others by more than 0.3; of a pair above 0.5 the later one is.

    Args:
        targets: (K, H, W) in [0, 1].

    Returns:
        (K,) bool.
    """
    count = len(targets)
    if count > MANY_INSTANCES:
        targets = F.interpolate(targets[:, None], scale_factor=0.5, mode="nearest")[:, 0]
    support = (targets > SUPPORT).flatten(1).float()
    common = support @ support.T
    area = common.diagonal()
    overlap = common / (torch.minimum(area[:, None], area[None]) + 1)
    overlap.fill_diagonal_(0)
    crowded = (overlap > 0.3).sum(dim=1) >= 2
    repeats = torch.triu(overlap > 0.5, diagonal=1).any(dim=0)
    return crowded | repeats


def check_share(share: float) -> None:
    """Refuse a ``--refine-share`` that is no share.

    Raises:
        InputError: below 0 or above 1.
    """
    if not 0 <= share <= 1:
        raise InputError(f"--refine-share: found {share}, expected 0 to 1")


class MultiInstanceRefiner(nn.Module):
    """``multi_inst_refiner``: refines the tri-mattes of all instances of one image together, window by window.

    Args:
        width: of the network whose features it reads.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        features = scaled(32, width)
        inner = features // 2
        self.split = nn.Conv2d(3 * features, 3 * inner, 3, padding=1, groups=3)
        self.merge = nn.Sequential(
            nn.Conv2d(3 * inner + 3, features, 3, padding=1), leaky_relu(), nn.Conv2d(features, features, 3, padding=1)
        )
        self.head = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, image: Tensor, tri_mattes: Tensor, feature: Tensor) -> Tensor:
        """One exchange inside one window.

        Args:
            image: (1, 3, h, w) or (K, 3, h, w), normalised.
            tri_mattes: (K, 3, h, w) in [0, 1].
            feature: (K, 32w, h, w), see ``TriMattes``.

        Returns:
            (K, 3, h, w), new tri-mattes in [0, 1].
        """
        count = len(tri_mattes)
        weighted = (tri_mattes[:, :, None] * feature[:, None]).flatten(1, 2)
        target, reference, background = self.split(weighted).chunk(3, dim=1)
        all_targets = target.sum(dim=0, keepdim=True)
        all_references = reference.sum(dim=0, keepdim=True)
        exchanged = [
            all_references / max(count - 1, 1) - all_targets + 2 * target,
            all_targets - target + reference,
            background.mean(dim=0, keepdim=True).expand_as(background),
            image.to(target.dtype).expand(count, -1, -1, -1),
        ]
        return to_alpha(self.head(self.merge(torch.cat(exchanged, dim=1))))


def inner_slices(window: Window) -> tuple[slice, slice]:
    """Rows and columns of a window that are kept: all but its 10-pixel rim."""
    return (
        slice(window.top + BORDER, window.bottom - BORDER),
        slice(window.left + BORDER, window.right - BORDER),
    )


def refine_window(
    refiner: MultiInstanceRefiner, window: Window, image: Tensor, tri_mattes: Tensor, feature: Tensor
) -> Tensor:
    """The refined tri-mattes of one window less its rim: (K, 3, side − 20, side − 20). Arguments as in ``refine``."""
    rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
    refined = refiner(image[..., rows, columns], tri_mattes[..., rows, columns], feature[..., rows, columns])
    return refined[..., BORDER:-BORDER, BORDER:-BORDER]


REACH = 4  # receptive field of the refiner to each side, pixels; less than BORDER
# Of the rectangles computed in a window, pixels: see ``networks.cover.cover``; measured on two CPU cores.
PART_CELL, PART_STEP, PART_LARGEST = 16, 1300, 192


class FeatureReader(Protocol):
    """Features that are computed where somebody asks for them."""

    def read(self, number: int, rect: Rect) -> Tensor:
        """The feature of one instance in a rectangle, (32w, h, w)."""

    def prepare(self, number: int, rects: Sequence[Rect]) -> None:
        """These rectangles will be read: compute them together, which takes less than one by one."""


def refine(
    refiner: nn.Module,
    image: Tensor,
    tri_mattes: Tensor,
    feature: Tensor | FeatureReader,
    *,
    max_iterations: int = 2,
    only_present: bool = False,
    regions: Tensor | None = None,
) -> Tensor:
    """Inference: refine all windows of one image until nothing changes.

    Near-duplicates are left out and keep their tri-matte. Windows are chosen once; within an iteration a later window
    sees what an earlier one wrote. An instance that changes by at most 0.01 is not updated again.

    Args:
        refiner: a ``MultiInstanceRefiner`` with a tensor of features, a ``FoldedRefiner`` with either.
        image: (3, H, W), normalised.
        tri_mattes: (K, 3, H, W), fused predictions of the base network.
        feature: (K, 32w, H, W), or computed on request.
        max_iterations: upper bound; 0 returns the input. 2 reproduces the published numbers.
        only_present: in each window, only instances with alpha above 0.01 there take part.
        regions: (K, H, W) bool, where the result will be read: windows are then computed only there and where what
            is read there comes from. The change of an instance, too, is looked for there only.

    Returns:
        (K, 3, H, W), a new tensor.
    """
    result = tri_mattes.clone()
    height, width = tri_mattes.shape[-2:]
    side = window_size(len(tri_mattes), height, width)
    kept = (~find_duplicates(tri_mattes[:, 0])).nonzero()[:, 0].tolist()
    if max_iterations < 1 or not kept or side <= 2 * BORDER:
        return result
    windows = choose_windows(disagreement(tri_mattes), side)
    members = [_members(window, tri_mattes, kept, only_present=only_present) for window in windows]
    plan = _parts_to_compute(windows, regions, iterations=max_iterations)
    if not isinstance(feature, Tensor):
        for number in kept:
            taking_part = [number in present for present in members]
            rects = (rect for parts in plan for rect in _read_rects(windows, parts, taking_part, height, width))
            feature.prepare(number, list(rects))
    moving = set(kept)
    for iteration, parts in enumerate(plan, start=1):
        before = result[:, 0].clone() if iteration < max_iterations else None
        for window, present, here in zip(windows, members, parts):
            wanted = [place for place, number in enumerate(present) if number in moving]
            if wanted and here:
                _refine_parts(refiner, window, here, image, result, feature, present, wanted)
        if before is None:  # nobody asks any more who still moves
            break
        moving = {number for number in moving if (result[number, 0] - before[number]).abs().max() > CONVERGED}
        if not moving:
            break
    return result


def _parts_to_compute(windows: list[Window], regions: Tensor | None, *, iterations: int) -> list[list[list[Rect]]]:
    """For each iteration and window the rectangles to compute: all but the rim, or what the result in a region needs.

    What is needed is followed from the last window of the last iteration back to the first of the first: a value that
    is read there comes from values within the receptive field, whoever wrote them.
    """
    inner = [Rect(w.top + BORDER, w.left + BORDER, w.bottom - BORDER, w.right - BORDER) for w in windows]
    if regions is None:
        return [[[rect] for rect in inner]] * iterations
    field = np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)
    needed: np.ndarray = regions.any(dim=0).cpu().numpy().astype(np.uint8)
    height, width = needed.shape
    plan: list[list[list[Rect]]] = []
    for _ in range(iterations):
        # An instance that no longer moves keeps what it had before this iteration, so what is needed stays needed for
        # the iteration before; within one, the last window to write a pixel decides.
        current = needed.copy()
        parts = []
        for rect in reversed(inner):
            written = current[rect.here].copy()
            parts.append([part.moved(rect.top, rect.left) for part in _tight_cover(written)])
            current[rect.here] = 0
            around = rect.grown(REACH, height, width)
            read = np.zeros((around.bottom - around.top, around.right - around.left), np.uint8)
            read[rect.within(around).here] = written
            reached = cv2.dilate(read, field)
            current[around.here] |= reached
            needed[around.here] |= reached
        plan.append(parts[::-1])
    return plan[::-1]


def _tight_cover(mask: np.ndarray) -> list[Rect]:
    """Rectangles round all that is set in a mask, (h, w) uint8."""
    cells = touched_cells(torch.from_numpy(mask), PART_CELL)
    height, width = mask.shape
    rough = cover(cells, height=height, width=width, cell=PART_CELL, rim=REACH, step=PART_STEP, largest=PART_LARGEST)
    return [_shrunk(rect, mask) for rect in rough]


def _shrunk(rect: Rect, mask: np.ndarray) -> Rect:
    """The smallest rectangle round what is set within a rectangle."""
    rows = np.flatnonzero(mask[rect.here].any(axis=1))
    columns = np.flatnonzero(mask[rect.here].any(axis=0))
    corner = (rect.top + int(rows[0]), rect.left + int(columns[0]))
    return Rect(*corner, rect.top + int(rows[-1]) + 1, rect.left + int(columns[-1]) + 1)


def _read_rect(window: Window, part: Rect, height: int, width: int) -> Rect:
    """What is read for a part: the window, or no more than the part needs."""
    whole = part.bottom - part.top == part.right - part.left == window.bottom - window.top - 2 * BORDER
    return part.grown(BORDER if whole else REACH, height, width)


def _read_rects(
    windows: list[Window], parts: list[list[Rect]], taking_part: list[bool], height: int, width: int
) -> list[Rect]:
    """What an instance reads in one iteration, which takes part in some of the windows."""
    return [
        _read_rect(window, part, height, width)
        for window, here, present in zip(windows, parts, taking_part)
        for part in here
        if present
    ]


def _members(window: Window, tri_mattes: Tensor, kept: list[int], *, only_present: bool) -> list[int]:
    """The instances that take part in a window."""
    if not only_present:
        return kept
    inside = tri_mattes[:, 0, window.top : window.bottom, window.left : window.right]
    present = (inside > SUPPORT).flatten(1).any(dim=1).tolist()
    return [number for number in kept if present[number]]


def _refine_parts(
    refiner: nn.Module,
    window: Window,
    parts: list[Rect],
    image: Tensor,
    tri_mattes: Tensor,
    feature: Tensor | FeatureReader,
    members: list[int],
    wanted: list[int],
) -> None:
    """Refine the wanted among the members of a window, in place; all parts read what was there before."""
    updates = []
    for part in parts:
        grown = _read_rect(window, part, *image.shape[-2:])
        mattes = tri_mattes[grown.here][members]
        if isinstance(feature, Tensor):
            refined = refiner(image[None][grown.here], mattes, feature[grown.here][members])
            refined = refined if len(refined) == len(wanted) else refined[wanted]
        else:
            read = partial(_read_member, feature, members, grown)
            refined = refiner(image[None][grown.here], mattes, read, wanted)
        updates.append((part, refined[part.within(grown).here].to(tri_mattes.dtype)))
    for part, refined in updates:
        for place, values in zip(wanted, refined):
            tri_mattes[members[place]][part.here] = values


def _read_member(feature: FeatureReader, members: list[int], rect: Rect, place: int) -> Tensor:
    return feature.read(members[place], rect)
